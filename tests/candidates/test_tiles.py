"""Tiles: where they lie, that masks land in their place, and that an index, a run and a model with tiles agree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refseg.candidates.grids import grid_boxes
from refseg.candidates.packing import MaskCrop, PackedCandidates, join, pack, pack_crops
from refseg.candidates.proposing import Candidates, propose, propose_from_pixels
from refseg.candidates.tiles import (
    MAX_TIMES_FINER,
    MIN_OVERLAP,
    WHOLE_UP_TO,
    Window,
    cut_off,
    fine_grid_side,
    propose_tiles,
    tile_windows,
)
from refseg.dataset.index_finding import find_index, open_index
from refseg.dataset.index_settings import settings_of
from refseg.dataset.indexing import build_index
from refseg.dataset.known_indexes import index_records
from refseg.demo.world import Scene, draw_family, render_scene
from refseg.errors import IndexMismatchError, IndexNotFoundError, ShapeError
from refseg.images.loading import load_batches, load_image
from refseg.images.reading import segmenter_pixels
from refseg.index.candidate_index import CandidateIndex
from refseg.index.tables import FORMAT, FORMAT_WITH_TILES, METADATA_KEY, FileState, IndexSettings, images_schema, read_settings
from refseg.matching.cropping import crop_instances
from refseg.matching.instances import Ranking
from refseg.models.loaded import Models
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import Segmenter
from refseg.runs.segmenting import SegmentReport, SegmentSettings, matcher_for, segment
from tests.index.test_candidate_index import assert_same, contents
from tests.trays import PARTS, draw_trays, quick_models, tray_prototypes

SIDE = 320
WIDE = (150, 425)
"""Of the images here: the whole and two tiles for the demo preset, on a grid of 107 cells."""
SIZES = [(1, 1), (200, 320), (200, 321), (360, 480), (321, 321), (90, 9000), (5000, 700), (3072, 3072), (4000, 3300), (1, 2000)]


@pytest.fixture(scope="module")
def models() -> Models:
    """The demo preset asked at nine points a window."""
    models = quick_models()
    return replace(models, preset=replace(models.preset, points_per_side=3))


@pytest.fixture
def keep_every_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt gives a candidate, whatever the segmenter thinks of it."""
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)


def wide_scene(seed: int = 3, image_hw: tuple[int, int] = WIDE, radius: tuple[float, float] = (0.06, 0.09)) -> Scene:
    rng = np.random.default_rng(seed)
    return render_scene(rng, [draw_family(rng, [part]) for part in PARTS] * 4, image_hw, radius=radius)


def wide_image(seed: int = 3) -> Image.Image:
    return Image.fromarray(wide_scene(seed).image)


def own_pixels(image: Image.Image, window: Window) -> torch.Tensor:
    box = window.pixels((image.height, image.width))
    return segmenter_pixels(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box), SIDE)


class TestWindows:
    @pytest.mark.parametrize(
        ("image_hw", "expected"),
        [((200, 320), 64), ((360, 480), 120), ((480, 360), 120), ((100, 321), 81), ((3072, 10), 768), ((9000, 9000), 768)],
    )
    def test_fine_grid_by_hand(self, image_hw: tuple[int, int], expected: int) -> None:
        assert fine_grid_side(image_hw, 256) == expected

    def test_those_of_one_image_by_hand(self) -> None:
        windows = tile_windows((360, 480), 256)
        assert {window.grid_side for window in windows} == {120}
        # 64 of 120 cells are 256 of 480 pixels; 86 of 120 are 258 of 360.
        expected = [(left, top, left + 64, top + 86) for top in (0, 34) for left in (0, 28, 56)]
        assert [window.cells for window in windows] == [(0, 0, 120, 120), *expected]
        assert windows[5].pixels((360, 480)) == pytest.approx((112, 102, 368, 360))
        assert windows[5].inner_edges == (True, True, True, False)
        assert windows[0].inner_edges == (False, False, False, False)

    @pytest.mark.parametrize("image_hw", [(1, 1), (256, 256), (320, 320), (200, 320)])
    def test_a_small_image_has_the_whole_alone(self, image_hw: tuple[int, int]) -> None:
        assert [window.cells for window in tile_windows(image_hw, 256)] == [(0, 0, 64, 64)]

    @pytest.mark.parametrize("side", [256, 1024])
    @pytest.mark.parametrize("image_hw", SIZES)
    def test_they_cover_the_image_and_overlap(self, image_hw: tuple[int, int], side: int) -> None:
        whole, *tiles = tile_windows(image_hw, side)
        grid_side = fine_grid_side(image_hw, side)
        assert whole.cells == (0, 0, grid_side, grid_side)
        assert len(tiles) <= 256
        for axis in (0, 1):
            spans = sorted({(window.cells[axis], window.cells[axis + 2]) for window in tiles})
            if not spans:
                assert max(image_hw) <= WHOLE_UP_TO * side
                continue
            assert spans[0][0] == 0
            assert spans[-1][1] == grid_side
            for (start, stop), (following, _) in itertools.pairwise(spans):
                assert start < following
                assert stop - following >= MIN_OVERLAP * (stop - start)
            length = image_hw[1 - axis]
            size = (spans[0][1] - spans[0][0]) * length / grid_side
            assert size >= min(length, 0.99 * side)
            assert size <= max(WHOLE_UP_TO * side, max(image_hw) / MAX_TIMES_FINER * WHOLE_UP_TO)

    def test_as_many_as_there_may_be(self) -> None:
        assert len(tile_windows((12 * SIDE, 12 * SIDE), SIDE)) == len(tile_windows((9999, 9999), SIDE)) == 257


class TestCutOff:
    def test_only_at_inner_edges(self) -> None:
        masks = torch.zeros(5, 8, 8, dtype=torch.bool)
        masks[0, 3, 0], masks[1, 0, 3], masks[2, 3, 7], masks[3, 7, 3], masks[4, 1:7, 1:7] = True, True, True, True, True
        assert cut_off(masks, Window((10, 10, 18, 18), 30)).tolist() == [True, True, True, True, False]
        assert cut_off(masks, Window((0, 0, 8, 8), 30)).tolist() == [False, False, True, True, False]
        assert cut_off(masks, Window((22, 22, 30, 30), 30)).tolist() == [True, True, False, False, False]
        assert not cut_off(masks, Window((0, 0, 30, 30), 30)).any()


def propose_plainly(image: Image.Image, models: Models) -> PackedCandidates:
    """Window by window, each mask on the whole fine grid."""
    parts = []
    image_hw = image.height, image.width
    for window in tile_windows(image_hw, models.segmenter_side):
        (found,) = propose_from_pixels(own_pixels(image, window)[None], [image_hw], models)
        kept = ~cut_off(found.masks, window)
        left, top, right, bottom = window.cells
        grid = torch.full((int(kept.sum()), window.grid_side, window.grid_side), -20.0)
        grid[:, top:bottom, left:right] = F.interpolate(
            found.logits[kept][None], (bottom - top, right - left), mode="bilinear"
        )[0]
        parts.append(pack(Candidates(grid, found.predicted_iou[kept], found.features[kept], image_hw), fine=True))
    return join(parts)


@pytest.mark.usefixtures("keep_every_mask")
class TestProposeTiles:
    def test_an_image_with_one_window_is_as_without_tiles(self, models: Models) -> None:
        image = Image.fromarray(draw_trays(1)[0].image)
        for fine in (False, True):
            for max_iou in (None, 0.95):
                (found,) = propose([image], models, max_iou=max_iou)
                assert len(found)
                assert_same(propose_tiles(image, models, max_iou=max_iou, fine=fine), pack(found, fine=fine))

    @pytest.mark.parametrize("turned", [False, True])
    def test_masks_and_features_are_those_of_the_windows(self, models: Models, turned: bool) -> None:
        image = wide_image().transpose(Image.Transpose.TRANSPOSE) if turned else wide_image()
        found, expected = propose_tiles(image, models, fine=True), propose_plainly(image, models)
        assert (found.grid_side, found.image_hw) == (107, (image.height, image.width))
        assert len(found) == len(expected) > 10
        assert not found.gated
        assert torch.equal(found.predicted_iou.argsort(), expected.predicted_iou.argsort())
        # Two windows at once, or one: the last digits differ.
        assert (found.features - expected.features).abs().max() < 2e-3
        rows = torch.arange(len(found))
        logits, plain = found.logits_of(rows), expected.logits_of(rows)
        assert torch.equal(grid_boxes(logits > 0), found.boxes)
        assert ((logits > 0) != (plain > 0)).float().mean() < 1e-4

    def test_no_mask_of_a_tile_reaches_its_inner_edge(self, models: Models) -> None:
        image = wide_image()
        (whole,) = propose_from_pixels(segmenter_pixels(image, SIDE)[None], [WIDE], models)
        found = propose_tiles(image, models)
        of_tiles = found.boxes[int(whole.filled.sum()) :]
        assert len(of_tiles)
        windows = tile_windows(WIDE, SIDE)[1:]
        for x0, _, x1, _ in of_tiles.tolist():
            assert any(
                (left == 0 or x0 > left) and (right == 107 or x1 < right - 1)
                for left, _, right, _ in (w.cells for w in windows)
            )

    def test_an_island_at_the_seam_takes_no_mask_along(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every window answers with a square in its middle and a cell at each of its corners."""

        def answer(points: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
            logits = torch.full((1, 80, 80), -5.0)
            logits[0, 36:44, 36:44] = 5.0
            logits[0, ::79, ::79] = 1.0
            return logits, torch.ones(1)

        monkeypatch.setattr("refseg.candidates.decoding.decode_points", answer)
        raw = replace(models, preset=replace(models.preset, clean_masks=False))
        assert len(propose_tiles(wide_image(), raw)) == 1  # of the whole
        found = propose_tiles(wide_image(), models)
        centers = (found.boxes[:, 0] + found.boxes[:, 2]) / 2 + 0.5
        windows = tile_windows(WIDE, SIDE)
        assert centers.tolist() == pytest.approx([(w.cells[0] + w.cells[2]) / 2 for w in windows], abs=0.6)
        assert (found.boxes[1:, 2] - found.boxes[1:, 0] + 1 <= 9).all()

    def test_near_duplicates_within_a_window_go(self, models: Models) -> None:
        asked = replace(models, preset=replace(models.preset, points_per_side=8))
        image = wide_image()
        every, found = propose_tiles(image, asked), propose_tiles(image, asked, max_iou=0.8)
        assert 0 < len(found) < len(every)
        assert set(found.codes.to_pylist()) <= set(every.codes.to_pylist())

    def test_no_surviving_mask_is_an_answer(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 2.0)
        found = propose_tiles(wide_image(), models)
        assert (len(found), found.grid_side, found.features.shape) == (0, 107, (0, models.feature_width))


class TestPackCrops:
    @pytest.mark.parametrize("fine", [False, True])
    def test_crops_are_packed_as_whole_masks_are(self, rng: np.random.Generator, fine: bool) -> None:
        """Blobs, also at the borders of the grid, columns from top to bottom, holes, single cells and an empty mask."""
        side = 24
        logits = rng.normal(-0.5, 1, (40, side, side)).astype(np.float32)
        logits[:20] -= 20 * (np.hypot(*(np.mgrid[:side, :side] - 11)) > 7)
        logits[20], logits[21], logits[22] = -1, -1, 1
        logits[21, 5, 9], logits[23, :, 4:6], logits[24, :, -2:] = 1, 9, 9
        every = Candidates(torch.from_numpy(logits), torch.rand(40), torch.rand(40, 3).half().float(), (50, 60))
        crops = []
        for mask, own in zip(logits > 0, logits, strict=True):
            rows, columns = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
            if not mask.any():
                crops.append(MaskCrop(own[:3, :2], 0, 0))
                continue
            top, left = max(0, rows[0].min() - 1), max(0, columns[0].min() - 1)
            crops.append(MaskCrop(own[top : rows[0].max() + 2, left : columns[0].max() + 2], left, top))
        found = pack_crops(crops, every.predicted_iou, every.features, image_hw=(50, 60), grid_side=side, fine=fine)
        assert len(found) == 39
        assert_same(found, pack(every, fine=fine))

    def test_one_of_each_is_needed(self) -> None:
        with pytest.raises(ShapeError, match="there are 0, 1 and 0"):
            pack_crops([], torch.ones(1), torch.ones(0, 3), image_hw=(5, 5), grid_side=8)


def recall(candidates: Candidates | PackedCandidates, scene: Scene) -> float:
    """Share of the objects that some candidate has an IoU of 0.5 or more with."""
    every = torch.arange(len(candidates))
    zeros = torch.zeros(len(candidates))
    found = crop_instances(candidates, Ranking(every, every * 0, zeros, zeros, every * 0), len(candidates))
    masks = np.zeros((len(found), *candidates.image_hw), bool)
    for mask, own, (x0, y0, x1, y1) in zip(masks, found.masks, found.boxes.tolist(), strict=True):
        mask[y0:y1, x0:x1] = own.numpy()
    hits = [max((mask & truth).sum() / (mask | truth).sum() for mask in masks) >= 0.5 for truth in scene.masks]
    return float(np.mean(hits))


def test_small_objects_are_found() -> None:
    """At 49 points a window, not the preset's 256; there the whole finds a quarter of such objects, tiles more than half."""
    models = quick_models()
    models = replace(models, preset=replace(models.preset, points_per_side=7))
    scene = wide_scene(0, (200, 480), radius=(0.02, 0.03))
    image = Image.fromarray(scene.image)
    without, with_tiles = recall(propose([image], models)[0], scene), recall(propose_tiles(image, models), scene)
    assert with_tiles >= without + 0.25


class TestLoading:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[str]:
        for number in range(3):
            wide_image(number).save(tmp_path / f"{number}.png")
        (tmp_path / "2.png").write_bytes(b"none")
        return [str(tmp_path / f"{number}.png") for number in range(3)]

    def test_the_image_keeps_its_size(self, paths: list[str]) -> None:
        loaded = load_image(paths[1], SIDE, 1, tiles=True)
        assert (loaded.pixels, loaded.image_hw, loaded.error) == (None, WIDE, None)
        assert loaded.image is not None
        np.testing.assert_array_equal(np.asarray(loaded.image), np.asarray(wide_image(1)))

    @pytest.mark.parametrize("num_workers", [0, 4])
    def test_batches_are_of_one(self, paths: list[str], num_workers: int) -> None:
        batches = list(load_batches(paths, SIDE, batch_size=8, num_workers=num_workers, tiles=True))
        assert [[image.index for image in batch] for batch in batches] == [[0], [1], [2]]
        assert [batch[0].image is None for batch in batches] == [False, False, True]
        assert batches[2][0].error == "this is not an image that can be read"

    def test_at_most_one_waits(self, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        begun: list[int] = []

        def load(path: str, side: int, index: int, **options: Any) -> Any:
            begun.append(index)
            return load_image(path, side, index, **options)

        monkeypatch.setattr("refseg.images.loading.load_image", load)
        batches = load_batches(paths[:2] * 10, SIDE, batch_size=8, num_workers=4, tiles=True)
        for number in range(10):
            assert next(batches)[0].index == number
            assert max(begun) <= number + 1
        batches.close()


SETTINGS = IndexSettings("demo", "f" * 12, "e" * 12, {}, False, 80, 16, "7", tiles=True)


class TestTables:
    def test_settings_with_tiles_are_of_a_format_of_their_own(self) -> None:
        assert read_settings(images_schema(SETTINGS)) == (FORMAT_WITH_TILES, SETTINGS)
        assert json.loads(images_schema(SETTINGS).metadata[METADATA_KEY])["tiles"] is True

    def test_without_tiles_tables_are_as_earlier_versions_wrote_them(self) -> None:
        plain = replace(SETTINGS, tiles=False)
        about = json.loads(images_schema(plain).metadata[METADATA_KEY])
        expected = {"format": 1, **asdict(plain)}
        del expected["tiles"], expected["float_features"], expected["pixels"], expected["clean_masks"]
        assert about == expected
        assert read_settings(images_schema(plain)) == (FORMAT, plain)

    def test_each_image_has_its_own_grid(self, tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
        packed = {
            "wide": propose_tiles(wide_image(), models, max_iou=0.95),
            "small": propose_tiles(Image.fromarray(draw_trays(1)[0].image), models, max_iou=0.95),
        }
        assert [part.grid_side for part in packed.values()] == [107, 80]
        index = CandidateIndex.create(tmp_path / "index", replace(SETTINGS, feature_width=models.feature_width))
        index.append([(name, FileState(name, 1, 1), part) for name, part in packed.items()])
        found = contents(CandidateIndex.open(tmp_path / "index"))
        for name, part in packed.items():
            assert_same(found[name], part)

    def test_an_index_without_tiles_takes_none_with(self, tmp_path: Path) -> None:
        CandidateIndex.create(tmp_path / "index", replace(SETTINGS, tiles=False))
        with pytest.raises(IndexMismatchError, match="was built for tiles False, not True: choose another place"):
            CandidateIndex.create(tmp_path / "index", SETTINGS)


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Prototypes:
    return tray_prototypes(tmp_path_factory.mktemp("references"))


@pytest.fixture
def wide(make_dataset: Callable[..., fo.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Two wide images, whose every prompt gives a candidate."""
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
    for number in range(2):
        wide_image(number).save(tmp_path / f"{number}.png")
    return make_dataset([fo.Sample(str(tmp_path / f"{number}.png")) for number in range(2)])


def run(view: Any, prototypes: Any, run_key: str, **options: Any) -> SegmentReport:
    options = {"min_confidence": 0.0, "num_workers": 0, "progress": False, **options}
    return segment(view, prototypes, run_key=run_key, **options)


def boxes_of(dataset: fo.Dataset) -> list[Any]:
    dataset.reload()
    return [np.round(boxes, 6).tolist() for boxes in dataset.values("predictions.detections.bounding_box")]


class TestDataset:
    def test_an_index_with_tiles_holds_what_propose_tiles_gives(self, wide: fo.Dataset, models: Models) -> None:
        report = build_index(wide, models, tiles=True, num_workers=0, progress=False)
        assert (report.num_images, report.num_added) == (2, 2)
        index = open_index(wide, tiles=True)
        assert index.index.settings == settings_of(wide, models, tiles=True)
        assert index.index.settings.tiles
        assert (index.status().tiles, "in tiles" in str(index.status())) == (True, True)
        found = contents(index.index)
        for number, sample_id in enumerate(wide.values("id")):
            assert_same(found[sample_id], propose_tiles(wide_image(number), models, max_iou=0.95))
        assert index.verify(progress=False).damaged == ()
        (record,) = index_records(wide)
        assert record["tiles"] is True
        assert build_index(wide, models, tiles=True, num_workers=0, progress=False).num_added == 0

    @pytest.mark.thorough
    def test_both_kinds_stand_side_by_side(self, wide: fo.Dataset, models: Models) -> None:
        tiled = build_index(wide, models, tiles=True, num_workers=0, progress=False)
        with pytest.raises(IndexNotFoundError, match="build one"):
            open_index(wide, tiles=False)
        plain = build_index(wide, models, num_workers=0, progress=False)
        assert tiled.num_candidates > plain.num_candidates
        assert (open_index(wide, tiles=True).uri, open_index(wide, tiles=False).uri) == (tiled.uri, plain.uri)
        for tiles, expected in ((None, plain), (True, tiled), (False, plain)):
            found = find_index(wide, "demo", models.fingerprint, tiles)
            assert found is not None
            assert found.uri == expected.uri
        with pytest.raises(IndexMismatchError, match="was built for tiles False, not True"):
            open_index(wide, uri=plain.uri, tiles=True)

    def test_a_record_of_an_earlier_version_has_no_tiles(self, wide: fo.Dataset, models: Models) -> None:
        build_index(wide, models, num_workers=0, progress=False)
        (record,) = index_records(wide)
        config = wide.get_run_info(record["key"]).config
        del config.tiles
        wide.update_run_config(record["key"], config)
        assert [record["tiles"] for record in index_records(wide)] == [False]
        assert find_index(wide, "demo", models.fingerprint, True) is None

    def test_fingerprints_without_tiles_are_those_of_earlier_versions(self, wide: fo.Dataset, models: Models) -> None:
        import hashlib

        preset = models.preset
        parts = [models.revisions["sam2"], models.revisions["dinov2"], preset.encoder_side, preset.points_per_side]
        known = hashlib.sha256(repr([*parts, preset.add_no_memory, -1.0, 0.95, 1]).encode()).hexdigest()[:12]
        raw = replace(models, preset=replace(preset, clean_masks=False, vote_masks=False))
        assert settings_of(wide, raw).fingerprint == known
        assert settings_of(wide, raw, tiles=True).fingerprint != known

    def test_segment_computes_the_index_with_tiles_and_then_uses_it(
        self, wide: fo.Dataset, models: Models, prototypes: Prototypes
    ) -> None:
        first = run(wide, prototypes, "first", model=models, tiles=True)
        assert (first.num_from_index, first.num_images) == (0, 2)
        assert first.num_instances > 0
        assert [record["tiles"] for record in index_records(wide)] == [True]
        before = boxes_of(wide)
        second = run(wide, prototypes, "second", tiles=True)
        assert (second.num_from_index, second.num_written) == (2, 0)
        # By default whatever index there is.
        assert run(wide, prototypes, "third").num_from_index == 2
        assert boxes_of(wide) == before
        configs = [wide.get_run_info(key).config for key in ("first", "second", "third")]
        assert [config.tiles for config in configs] == [True] * 3
        plain = run(wide, prototypes, "plain", model=models, tiles=False)
        assert (plain.num_from_index, wide.get_run_info("plain").config.tiles) == (0, False)
        assert boxes_of(wide) != before

    @pytest.mark.thorough
    def test_without_an_index(self, wide: fo.Dataset, models: Models, prototypes: Prototypes) -> None:
        run(wide, prototypes, "apart", model=models, tiles=True, index=False)
        assert (index_records(wide), wide.get_run_info("apart").config.tiles) == ([], True)
        found = matcher_for(prototypes, models.preset, SegmentSettings(0.0)).match(
            propose_tiles(wide_image(0), models, fine=True)
        )
        pixels = [[x0 / 425, y0 / 150, (x1 - x0) / 425, (y1 - y0) / 150] for x0, y0, x1, y1 in found.boxes.tolist()]
        assert boxes_of(wide)[0] == np.round(pixels, 6).tolist()

    def test_an_index_of_the_other_kind_is_refused(self, wide: fo.Dataset, models: Models, prototypes: Prototypes) -> None:
        build_index(wide, models, num_workers=0, progress=False)
        with pytest.raises(
            IndexMismatchError, match=r"without tiles: open another one with refseg.open_index\(dataset, tiles=Tr"
        ):
            run(wide, prototypes, "r", index=open_index(wide), tiles=True)
        assert run(wide, prototypes, "r", index=open_index(wide), tiles=False).num_from_index == 2

    @pytest.mark.thorough
    def test_as_a_fiftyone_model(self, wide: fo.Dataset, models: Models, prototypes: Prototypes) -> None:
        run(wide, prototypes, "r", model=models, tiles=True, index=False)
        expected = boxes_of(wide)
        segmenter = Segmenter(prototypes, model=models, min_confidence=0.0, tiles=True)
        answers = [segmenter.predict(wide_image(0)), *segmenter.predict_all([np.asarray(wide_image(1))])]
        loaded = segmenter.build_get_item()({"filepath": wide.values("filepath")[1]})
        answers.append(segmenter.predict(loaded))
        found = [np.round([label.bounding_box for label in answer.detections], 6).tolist() for answer in answers]
        assert found == [expected[0], expected[1], expected[1]]
