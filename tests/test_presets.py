from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import sam2

from refseg.errors import UnknownModelError
from refseg.models.presets import DEMO_WEIGHTS, PRESETS, get_preset

DOWNLOADED = [preset for preset in PRESETS.values() if preset.exact_name != "demo"]
name_of = pytest.mark.parametrize("preset", DOWNLOADED, ids=lambda preset: preset.name)


def test_names() -> None:
    exact = ["demo", "tiny", "small", "base", "large", "paper"]
    assert list(PRESETS) == [*exact, *(f"{name}-fast" for name in exact[:-1])]
    assert all(get_preset(name).name == name for name in PRESETS)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-fast")])
def test_fast_presets_differ_in_their_prompts_alone(name: str) -> None:
    exact = get_preset(get_preset(name).exact_name)
    assert replace(exact, name=name, adaptive_prompts=True) == get_preset(name)
    assert not exact.adaptive_prompts


def test_unknown_name() -> None:
    with pytest.raises(UnknownModelError, match=r"no model preset 'Large'.*demo, tiny, small, base, large, paper"):
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
            assert preset.sam2_config.startswith("configs/sam2.1/")


@name_of
def test_configuration_is_in_the_package(preset) -> None:
    assert (Path(sam2.__path__[0]) / preset.sam2_config).is_file()


@name_of
def test_encoder_is_pinned_to_a_commit(preset) -> None:
    assert re.fullmatch("[0-9a-f]{40}", preset.dinov2_revision)
    assert preset.dinov2_repository.startswith("facebook/dinov2-")


@name_of
def test_checkpoint_is_in_the_zoo_under_the_same_configuration(preset) -> None:
    import fiftyone.zoo as foz

    entry = foz.get_zoo_model(preset.sam2_zoo_name)
    arguments = entry.default_deployment_config_dict["config"]["entrypoint_args"]
    assert Path(arguments["config_file"]).name == Path(preset.sam2_config).name
    assert preset.sam2_megabytes == round(entry.size_bytes / 1e6)


def test_demo_ships_with_the_package() -> None:
    demo = PRESETS["demo"]
    assert demo.sam2_zoo_name is None
    assert demo.dinov2_revision is None
    for name in ("sam2.yaml", "sam2.safetensors", "dinov2/config.json", "dinov2/model.safetensors"):
        assert (DEMO_WEIGHTS / name).is_file()


def test_demo_is_small() -> None:
    assert sum(file.stat().st_size for file in DEMO_WEIGHTS.rglob("*") if file.is_file()) < 12 * 2**20
