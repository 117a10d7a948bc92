"""The presence gate: what passes, that the segmenter never sees what does not, and that the index keeps no half answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import refseg.candidates.proposing
from refseg.candidates.embedding import embed_images
from refseg.candidates.packing import join, pack
from refseg.candidates.proposing import PresenceGate, encode_patches, patch_similarity, propose
from refseg.candidates.tiles import propose_tiles, tile_windows
from refseg.dataset.fields import newest_run
from refseg.dataset.index_finding import open_index
from refseg.dataset.source_settings import SourceSettings
from refseg.errors import DatasetError, ShapeError
from refseg.images.reading import encoder_pixels, segmenter_pixels
from refseg.matching.ranking import match
from refseg.matching.similarity import Gallery
from refseg.models.loaded import Models
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import Segmenter
from refseg.runs.segmenting import SegmentReport, SegmentSettings, gate_of, segment
from refseg.runs.updating import settings_of, sources_of
from tests.candidates.test_tiles import SIDE, own_pixels, wide_image
from tests.tolerance import assert_near
from tests.trays import draw_trays, quick_models, tray_prototypes


@pytest.fixture(scope="module")
def models() -> Models:
    """The demo preset asked at nine points."""
    models = quick_models()
    return replace(models, preset=replace(models.preset, points_per_side=3))


@pytest.fixture(autouse=True)
def _keep_every_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many squares of pixels the segmenter's encoder was given, call by call."""
    sizes: list[int] = []

    def embed(pixels: Tensor, models: Models) -> Any:
        sizes.append(len(pixels))
        return embed_images(pixels, models)

    monkeypatch.setattr(refseg.candidates.proposing, "embed_images", embed)
    return sizes


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """A tray with parts, a plain grey one, and another tray."""
    first, second = (Image.fromarray(scene.image) for scene in draw_trays(2))
    return [first, Image.new("RGB", (200, 160), (128, 128, 128)), second]


def patches_of(pixels: Tensor, models: Models) -> Tensor:
    with torch.inference_mode():
        return encode_patches(encoder_pixels(pixels[None], models.preset.encoder_side), models)[0]


def best_of(pixels: Tensor, prototypes: Tensor, models: Models) -> float:
    return max(float(F.cosine_similarity(patch[None], prototypes).max()) for patch in patches_of(pixels, models))


def own_prototype(image: Image.Image, models: Models) -> Tensor:
    """(1, C): what one patch in the middle of the image looks like."""
    patches = patches_of(segmenter_pixels(image, SIDE), models)
    return F.normalize(patches[len(patches) // 2 + 8][None], dim=-1).clone()


class TestGate:
    def test_similarity_is_the_cosine(self) -> None:
        features, prototypes = torch.randn(2, 9, 5), F.normalize(torch.randn(3, 5), dim=-1)
        expected = F.cosine_similarity(features[:, :, None], prototypes[None, None], dim=-1)
        assert_near(patch_similarity(features, prototypes), expected)
        assert patch_similarity(features.bfloat16(), prototypes).dtype == torch.float32

    @pytest.mark.parametrize(("least", "expected"), [(0.0, [True, True]), (0.59, [True, True]), (0.7, [True, False])])
    def test_any_patch_and_any_prototype(self, least: float, expected: list[bool]) -> None:
        features = torch.tensor([[[0.0, 3.0, 4.0], [0.0, -1.0, 0.0]], [[3.0, 4.0, 0.0], [-1.0, 0.0, 0.0]]])
        assert PresenceGate(torch.eye(3)[[0, 2]], least).passes(features).tolist() == expected

    def test_one_that_is_just_reached_passes(self) -> None:
        gate = PresenceGate(torch.tensor([[1.0, 0.0]]), 1.0)
        assert gate.passes(torch.tensor([[[2.0, 0.0]]])).tolist() == [True]

    def test_prototypes_of_another_width(self) -> None:
        with pytest.raises(ShapeError, match=r"\(1, 3\) do not fit patch features of width 2"):
            PresenceGate(torch.ones(1, 3), 0.5).passes(torch.ones(1, 4, 2))
        with pytest.raises(ShapeError, match=r"of shape \(K, C\), not \(3,\)"):
            PresenceGate(torch.ones(3), 0.5)

    @pytest.mark.parametrize("value", [-0.1, 1.5])
    def test_out_of_range(self, value: float) -> None:
        with pytest.raises(DatasetError, match=f"presence_gate must be a number from 0 to 1, not {value}"):
            SegmentSettings(presence_gate=value)

    def test_of_the_classes_that_are_written(self, prototypes: Prototypes) -> None:
        assert gate_of(prototypes, SegmentSettings()) is None
        gate = gate_of(prototypes, SegmentSettings(presence_gate=0.5))
        assert gate is not None
        assert torch.equal(gate.prototypes, prototypes.matrix)
        one = gate_of(prototypes, SegmentSettings(presence_gate=0.5, classes=("tee",)))
        assert one is not None
        assert torch.equal(one.prototypes, prototypes.matrix[[prototypes.classes.index("tee")]])


class TestPropose:
    @pytest.mark.parametrize("together", [False, True])
    def test_the_segmenter_sees_only_what_passes(
        self, models: Models, images: list[Image.Image], seen: list[int], together: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a processor image by image, on an accelerator those that pass together."""
        monkeypatch.setattr("refseg.candidates.proposing.looks_side_by_side", lambda models: not together)
        prototype = own_prototype(images[0], models)
        least = 1e-4 + max(best_of(segmenter_pixels(images[1], SIDE), prototype, models), 0.0)
        expected = [best_of(segmenter_pixels(image, SIDE), prototype, models) >= least for image in images]
        assert expected[:2] == [True, False]
        found = propose(images, models, gate=PresenceGate(prototype, least))
        assert seen == ([sum(expected)] if together else [1] * sum(expected))
        assert [not candidates.gated for candidates in found] == expected
        (alone,) = propose(images[:1], models)
        assert not alone.gated
        assert_near(found[0].logits, alone.logits, at_most=1e-2)
        assert_near(found[0].features, alone.features, at_most=1e-3)

    def test_none_passes(self, models: Models, images: list[Image.Image], seen: list[int]) -> None:
        found = propose(images, models, gate=PresenceGate(own_prototype(images[0], models), 1.1))
        assert seen == []
        for candidates, image in zip(found, images, strict=True):
            assert candidates.gated
            assert (len(candidates), candidates.grid_side, candidates.image_hw) == (
                0,
                models.grid_side,
                (image.height, image.width),
            )
            packed = pack(candidates)
            assert (len(packed), packed.gated, join([packed, packed]).gated) == (0, True, True)
            for each in (candidates, packed):
                assert each.features.shape == (0, models.feature_width)
                assert len(match(each, Gallery(own_prototype(images[0], models)))) == 0

    def test_each_window_passes_by_itself(self, models: Models, seen: list[int]) -> None:
        image = wide_image()
        windows = tile_windows((image.height, image.width), SIDE)
        patches = patches_of(own_pixels(image, windows[1]), models)
        prototype = F.normalize(patches[20][None], dim=-1).clone()
        bests = [best_of(own_pixels(image, window), prototype, models) for window in windows]
        least = sorted(bests)[-1] - 1e-4
        found = propose_tiles(image, models, gate=PresenceGate(prototype, least))
        assert found.gated
        assert sum(seen) == sum(best >= least for best in bests) < len(windows)
        every = propose_tiles(image, models)
        assert 0 < len(found) < len(every)
        assert set(map(tuple, found.boxes.tolist())) <= set(map(tuple, every.boxes.tolist()))
        assert (every.gated, found.row(0).gated) == (False, True)


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Prototypes:
    return tray_prototypes(tmp_path_factory.mktemp("references"))


@pytest.fixture
def three(make_dataset: Callable[..., fo.Dataset], tmp_path: Path, images: list[Image.Image]) -> fo.Dataset:
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    return make_dataset([fo.Sample(str(tmp_path / f"{number}.png")) for number in range(len(images))])


@pytest.fixture(scope="module")
def between(models: Models, images: list[Image.Image], prototypes: Prototypes) -> float:
    """A gate that the trays pass and the grey image does not."""
    first, grey, second = (best_of(segmenter_pixels(image, SIDE), prototypes.matrix, models) for image in images)
    assert grey < min(first, second) - 0.02
    return max(0.0, (grey + min(first, second)) / 2)


def run(view: Any, prototypes: Any, run_key: str, **options: Any) -> SegmentReport:
    options = {"min_confidence": 0.0, "num_workers": 0, "progress": False, **options}
    return segment(view, prototypes, run_key=run_key, **options)


class TestSegment:
    def test_what_is_spared_is_counted_and_not_kept(
        self, three: fo.Dataset, models: Models, prototypes: Prototypes, between: float
    ) -> None:
        report = run(three, prototypes, "first", model=models, presence_gate=between)
        assert (report.num_images, report.num_gated, report.skipped) == (3, 1, ())
        assert "1 image was spared by the presence gate" in str(report)
        config = three.get_run_info("first").config
        assert (config.num_gated, config.presence_gate, config.tiles) == (1, between, False)
        counts = three.values("predictions.detections.label")
        assert [len(labels) > 0 for labels in counts] == [True, False, True]
        ids = three.values("id")
        assert open_index(three).index.images.keys() == {ids[0], ids[2]}
        last = newest_run(three, "predictions")
        assert last is not None
        assert settings_of(last, set(prototypes.classes)).presence_gate == between
        assert sources_of(last, SourceSettings("demo")) == SourceSettings("demo", tiles=False)
        # Indexed images pass no gate any more; the one left out is computed once none stands in its way.
        again = run(three, prototypes, "second", model=models, presence_gate=1.0)
        assert (again.num_from_index, again.num_gated) == (2, 1)
        full = run(three, prototypes, "third", model=models)
        assert (full.num_from_index, full.num_gated, "presence gate" in str(full)) == (2, 0, False)
        assert open_index(three).index.images.keys() == set(ids)

    def test_a_time_an_image_is_not_that_of_the_gate(self, three: fo.Dataset, models: Models, prototypes: Prototypes) -> None:
        assert run(three, prototypes, "none", model=models, presence_gate=1.0).num_gated == 3
        (key,) = three.list_runs(method="refseg/index")
        assert three.get_run_info(key).config.seconds_per_image is None

    def test_as_a_fiftyone_model(
        self, models: Models, images: list[Image.Image], prototypes: Prototypes, between: float, seen: list[int]
    ) -> None:
        segmenter = Segmenter(prototypes, model=models, min_confidence=0.0, presence_gate=between)
        answers = segmenter.predict_all(images)
        assert [len(answer.detections) > 0 for answer in answers] == [True, False, True]
        assert sum(seen) == 2
        with pytest.raises(DatasetError, match="presence_gate must be"):
            Segmenter(prototypes, model=models, presence_gate=2.0)
