from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import sam2
import torch

from refseg.errors import ModelError, ModelUnavailableError, UnknownModelError
from refseg.models.loaded import load_models
from refseg.models.presets import DEMO_WEIGHTS, OF_TRANSFORMERS, PRESETS, get_preset, register_preset, registered
from refseg.models.transformers_segmenters import KINDS
from refseg.models.weights import find_segmenter, missing_weights, wrong_weights

DOWNLOADED = [preset for preset in PRESETS.values() if preset.exact_name != "demo"]
OF_PACKAGE = [preset for preset in DOWNLOADED if not preset.is_of_transformers]
name_of = pytest.mark.parametrize("preset", DOWNLOADED, ids=lambda preset: preset.name)
name_of_package = pytest.mark.parametrize("preset", OF_PACKAGE, ids=lambda preset: preset.name)


def test_names() -> None:
    exact = ["demo", "tiny", "small", "base", "large", "edge", "sam3", "paper"]
    assert list(PRESETS) == [*exact, *(f"{name}-fast" for name in exact[:-1])]
    assert all(get_preset(name).name == name for name in PRESETS)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-fast")])
def test_fast_presets_differ_in_their_prompts_alone(name: str) -> None:
    exact = get_preset(get_preset(name).exact_name)
    assert replace(exact, name=name, adaptive_prompts=True) == get_preset(name)
    assert not exact.adaptive_prompts
    assert get_preset(name).exact == exact
    assert exact.exact is exact


def test_unknown_name() -> None:
    with pytest.raises(UnknownModelError, match=r"no model preset 'Large'.*demo, tiny, small, base, large, edge, sam3, paper"):
        get_preset("Large")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_encoder_side_is_whole_patches(preset) -> None:
    assert preset.encoder_side % 14 == 0


@name_of
def test_settings_are_the_published_ones(preset) -> None:
    # arXiv 2507.02798: 32 × 32 prompts, 518 pixels for DINOv2.
    assert (preset.points_per_side, preset.encoder_side) == (32, 518)


def test_paper_differs_where_the_publication_does() -> None:
    paper = PRESETS["paper"]
    assert (paper.add_no_memory, paper.as_published, paper.half) == (False, True, False)
    assert paper.sam2_config == "configs/sam2/sam2_hiera_l.yaml"  # SAM 2, not 2.1
    for preset in DOWNLOADED:
        if preset is not paper:
            assert (preset.add_no_memory, preset.as_published, preset.half) == (True, False, True)
            assert preset.is_of_transformers or preset.sam2_config.startswith("configs/sam2.1/")


@name_of_package
def test_configuration_is_in_the_package(preset) -> None:
    assert (Path(sam2.__path__[0]) / preset.sam2_config).is_file()


@name_of
def test_encoder_is_pinned_to_a_commit(preset) -> None:
    assert re.fullmatch("[0-9a-f]{40}", preset.dinov2_revision)
    assert preset.dinov2_repository.startswith("facebook/dinov2-")


def test_segmenters_of_transformers() -> None:
    found = [preset for preset in DOWNLOADED if preset.is_of_transformers]
    assert [preset.name for preset in found] == ["edge", "sam3", "edge-fast", "sam3-fast"]
    for preset in found:
        assert (preset.sam2_zoo_name, preset.sam2_file) == (None, None)
        assert preset.sam2_config in KINDS
    assert set(KINDS) == set(OF_TRANSFORMERS)
    assert [(preset.name, preset.sam2_licence) for preset in PRESETS.values() if preset.sam2_licence] == [
        ("sam3", "Meta's SAM License"),
        ("sam3-fast", "Meta's SAM License"),
    ]


@name_of_package
def test_checkpoint_is_in_the_zoo_under_the_same_configuration(preset) -> None:
    import fiftyone.zoo as foz

    entry = foz.get_zoo_model(preset.sam2_zoo_name)
    arguments = entry.default_deployment_config_dict["config"]["entrypoint_args"]
    assert Path(arguments["config_file"]).name == Path(preset.sam2_config).name
    assert preset.sam2_megabytes == round(entry.size_bytes / 1e6)


def test_demo_ships_with_the_package() -> None:
    demo = PRESETS["demo"]
    assert demo.sam2_zoo_name is None
    assert demo.sam2_file == str(DEMO_WEIGHTS / "sam2.safetensors")
    assert demo.dinov2_revision is None
    for name in ("sam2.yaml", "sam2.safetensors", "dinov2/config.json", "dinov2/model.safetensors"):
        assert (DEMO_WEIGHTS / name).is_file()


def test_demo_is_small() -> None:
    assert sum(file.stat().st_size for file in DEMO_WEIGHTS.rglob("*") if file.is_file()) < 12 * 2**20


def test_a_registered_preset_is_known_by_its_name_until_the_block_ends() -> None:
    known = list(PRESETS)
    coarse = replace(PRESETS["demo"], name="coarse", points_per_side=8)
    with registered(coarse, replace(coarse, name="coarse-fast", adaptive_prompts=True)):
        assert get_preset("coarse") is coarse
        assert list(PRESETS) == [*known, "coarse", "coarse-fast"]
        register_preset(replace(coarse))  # the same once more
        exact, fast = load_models("coarse", device="cpu"), load_models("coarse-fast", device="cpu", dtype=torch.float32)
        assert (exact.preset, fast.preset.exact) == (coarse, coarse)
        assert fast.segmenter is exact.segmenter
    assert list(PRESETS) == known
    with pytest.raises(UnknownModelError, match="'coarse'"):
        load_models("coarse")
    with registered(replace(coarse, points_per_side=4)):  # not what was loaded under this name before
        assert load_models("coarse", device="cpu").preset.points_per_side == 4


def test_a_registered_preset_uses_its_own_checkpoint(tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    preset = replace(PRESETS["tiny"], name="own", sam2_file=str(own))
    with pytest.raises(ModelUnavailableError, match=r"no SAM 2 checkpoint at .*own\.safetensors: give the path"):
        find_segmenter(preset, None)
    assert [sentence.split(":")[0] for sentence in wrong_weights(preset, None, None)] == [
        f"There is no SAM 2 checkpoint at {own}"
    ]
    own.touch()
    (tmp_path / "other.pt").touch()
    assert find_segmenter(preset, None) == own
    assert find_segmenter(preset, tmp_path / "other.pt") == tmp_path / "other.pt"
    assert wrong_weights(preset, None, None) == []
    assert missing_weights(replace(preset, dinov2_repository=str(tmp_path), dinov2_revision=None), None, None) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "large"}, "There is another preset 'large' already: choose another name."),
        ({"name": " "}, "A preset needs a name."),
        ({"sam2_file": None}, "The preset 'own' does not say where its SAM 2 is: give its sam2_file."),
    ],
)
def test_a_preset_that_cannot_be_registered(changes: dict[str, str | None], message: str) -> None:
    known = dict(PRESETS)
    with pytest.raises(ModelError, match=re.escape(message)):
        register_preset(replace(PRESETS["demo"], **{"name": "own", **changes}))
    assert known == PRESETS
