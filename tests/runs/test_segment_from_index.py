"""Segmenting from the index: the same answers as without it, no model where none is needed, no write where nothing changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import refseg.dataset.indexing
import refseg.matching.matcher
from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from refseg.dataset.file_states import file_state
from refseg.dataset.index import DatasetIndex, index_for
from refseg.dataset.index_finding import open_index
from refseg.dataset.index_records import index_records
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.errors import DatasetError, IndexDamagedError, IndexMismatchError, PrototypeMismatchError
from refseg.index.tables import FileState
from refseg.matching.ranking import match
from refseg.matching.similarity import Gallery, classify
from refseg.models.loaded import Models, load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.segmenting import SegmentSettings, iter_segment
from tests.runs.test_segmenting import content_of
from tests.tolerance import Score
from tests.trays import IMAGE_HW, PARTS, propose_truth, quick_models, tray_samples, whole_mask
from tests.trays import segment_all as run

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Four trays whose candidates are the ground truth."""
    folder = tmp_path / "images"
    folder.mkdir()
    dataset = make_dataset(tray_samples(folder))
    propose_truth(monkeypatch, dataset)
    return dataset


@pytest.fixture(autouse=True)
def two_images_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every device."""
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", {"cpu": 2, "mps": 2, "cuda": 2})


def build(view: Any, model: Any = "demo", **options: Any) -> Any:
    return build_index(view, model, num_workers=0, progress=False, **options)


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these functions fail."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("this was not to be called")

    for name in names:
        monkeypatch.setattr(name, fail)


def forbid_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed, and no model loaded."""
    forbid(
        monkeypatch,
        "refseg.dataset.sources.load_models",
        "refseg.dataset.indexing.load_models",
        "refseg.dataset.builder.propose_from_pixels",
    )


def modified_at(dataset: fo.Dataset) -> list[datetime]:
    """When each sample was last written."""
    dataset.reload()
    times: list[datetime] = dataset.values("last_modified_at")
    return times


@pytest.fixture(scope="module")
def models() -> Models:
    """The demo preset asked at 100 points an image instead of 256."""
    demo = load_models("demo")
    return dataclasses.replace(demo, preset=dataclasses.replace(demo.preset, points_per_side=10))


class TestSameAnswers:
    """On candidates of the demo segmenter itself, of images made larger than its mask grid."""

    @pytest.mark.parametrize("as_published", [False, True])
    def test_an_exact_index_answers_as_no_index(
        self,
        make_dataset: MakeDataset,
        tmp_path: Path,
        models: Models,
        as_published: bool,
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 3))
        models = dataclasses.replace(models, preset=dataclasses.replace(models.preset, as_published=as_published))
        prototypes = build_prototypes(collect_references(dataset[:2], "ground_truth"), "demo", progress=False)
        without = run(dataset, prototypes, "without", model=models, index=False)
        assert index_records(dataset) == []
        build(dataset, models, exact=True)
        kept = run(dataset, prototypes, "kept", model=models, index=open_index(dataset))
        assert (without.num_from_index, kept.num_from_index) == (0, 3)
        assert kept.num_instances == without.num_instances > 8
        for sample in dataset:
            own, other = sample.kept.detections, sample.without.detections
            assert [label.label for label in own] == [label.label for label in other]
            for label, expected in zip(own, other, strict=True):
                if as_published:
                    # Masks are merged at the image's size, where packed ones differ by some pixels; shares go in by a root.
                    assert label.confidence**2 == pytest.approx(expected.confidence**2, abs=0.02)
                else:
                    assert label.confidence == pytest.approx(expected.confidence, abs=1e-6)
                assert label.predicted_iou == expected.predicted_iou
                mask, truth = whole_mask(label), whole_mask(expected)
                assert (mask & truth).sum() / (mask | truth).sum() >= 0.98

    def test_without_near_duplicates_the_best_answers_stay(
        self, make_dataset: MakeDataset, tmp_path: Path, models: Models
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 2))
        prototypes = build_prototypes(collect_references(dataset, "ground_truth"), "demo", progress=False)
        run(dataset, prototypes, "every", model=models, index=False)
        run(dataset, prototypes, "fewer", model=models)
        assert not open_index(dataset).index.settings.exact
        for sample in dataset:
            best = {part: max(x.confidence for x in sample.every.detections if x.label == part) for part in PARTS}
            for part in PARTS:
                found = max(x.confidence for x in sample.fewer.detections if x.label == part)
                assert found == pytest.approx(best[part], abs=0.05)

    def test_the_run_that_computes_and_the_one_that_reads_write_the_same(
        self, make_dataset: MakeDataset, tmp_path: Path, models: Models
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 3))
        prototypes = build_prototypes(collect_references(dataset[:2], "ground_truth"), "demo", progress=False)
        computed = run(dataset, prototypes, "computed", model=models)
        read = run(dataset, prototypes, "read", model=models)
        assert (computed.num_from_index, read.num_from_index) == (0, 3)
        assert content_of(dataset, "read", with_run=False) == content_of(dataset, "computed", with_run=False)
        assert any(content_of(dataset, "read"))


class TestFromIndex:
    def test_the_second_run_loads_no_model(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(trays, prototypes, "first")
        forbid_models(monkeypatch)
        second = run(trays, prototypes, "second")
        assert (first.num_from_index, second.num_from_index, second.num_images) == (0, 4, 4)
        assert (second.num_instances, second.num_written, second.index_trouble) == (8, 4, None)
        assert content_of(trays, "second", with_run=False) == content_of(trays, "first", with_run=False)
        assert "4 images came from the index" in str(second)

    def test_after_building_the_first_run_loads_no_model(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(trays)
        forbid_models(monkeypatch)
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_instances) == (4, 8)

    def test_is_recorded(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, "first")
        report = run(trays, prototypes, "second")
        config = trays.get_run_info(report.run_key).config
        assert (config.index_uri, config.exact, config.preview) == (open_index(trays).uri, False, False)
        assert (config.num_images, config.num_instances, config.num_written, config.num_from_index) == (4, 8, 4, 4)
        assert (config.revisions, config.dtype) == (load_models("demo").revisions, None)
        without = run(trays, prototypes, "third", index=False)
        config = trays.get_run_info(without.run_key).config
        assert (config.index_uri, config.exact, config.num_from_index) == (None, True, 0)

    def test_part_of_a_dataset(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays)
        report = run(trays[1:3], prototypes)
        assert (report.num_images, report.num_from_index, report.num_instances) == (2, 2, 4)
        assert [value is None for value in trays.values("predictions")] == [True, False, False, True]

    def test_the_rest_is_computed_and_kept(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[1:3])
        report = run(trays, prototypes)
        assert (report.num_images, report.num_from_index, report.num_instances, report.num_written) == (4, 2, 8, 4)
        assert open_index(trays).status().num_indexed == 4
        assert run(trays, prototypes, "again").num_from_index == 4

    def test_a_changed_image_is_computed_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        path = Path(trays.values("filepath")[1])
        Image.new("RGB", (90, 70), (9, 9, 9)).save(path)
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_images, report.num_written) == (3, 4, 1)
        assert [len(labels) for labels in content_of(trays)] == [2, 0, 2, 2]

    def test_an_image_that_cannot_be_read_any_more_is_named(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        before = content_of(trays)
        sample = trays[1:2].first()
        Path(sample.filepath).unlink()
        for _ in range(2):
            report = run(trays, prototypes, max_detections=1)
            assert [(image.sample_id, image.reason) for image in report.skipped] == [(sample.id, "the file does not exist")]
            assert (report.num_images, report.num_from_index) == (3, 3)
        assert content_of(trays)[1] == before[1]

    def test_progress(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays[:2])
        steps: list[Any] = []
        run(trays, prototypes, progress=steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [(0, 4, "images"), (2, 4, "images"), (4, 4, "images")]
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 1)
        steps.clear()
        run(trays, prototypes, progress=steps.append)
        assert [step.done for step in steps] == [0, 1, 2, 3, 4]

    def test_cancelled_half_way(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        settings = SegmentSettings(min_confidence=0.0)
        work = iter_segment(trays, prototypes, settings=settings, run_key="r", sources=SourceSettings(num_workers=0))
        assert [next(work).done, next(work).done] == [0, 2]
        work.close()
        config = trays.get_run_info("r").config
        assert (config.state, config.num_images, config.num_written) == ("cancelled", 2, 2)
        assert open_index(trays).index.images.keys() == set(trays[:2].values("id"))
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_written) == (2, 2)

    def test_candidates_computed_by_another_builder_meanwhile(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_STRETCH", 2)
        work = iter_segment(
            trays, prototypes, settings=SegmentSettings(min_confidence=0.0), run_key="r", sources=SourceSettings(num_workers=0)
        )
        assert [next(work).done, next(work).done] == [0, 2]
        build(trays)
        assert [step.done for step in work] == [4]
        assert [len(labels) for labels in content_of(trays)] == [2, 2, 2, 2]
        config = trays.get_run_info("r").config
        assert (config.num_images, config.num_from_index, config.num_instances) == (4, 2, 8)

    def test_without_an_index_none_is_made(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes, index=False)
        assert (report.num_from_index, report.num_images) == (0, 4)
        assert index_records(trays) == []

    def test_without_an_index_none_is_read(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        shutil.rmtree(Path(report.uri) / "candidates.lance")  # not even opened
        assert run(trays, prototypes, index=False).num_instances == 8

    def test_an_index_of_other_settings_serves_while_it_is_complete(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it lacks is computed with the preset as it is, into an index of its own: candidates are never mixed."""
        other = build(trays, quick_models())
        with monkeypatch.context() as patch:
            forbid_models(patch)
            assert run(trays, prototypes, "complete").num_from_index == 4
        sample = trays.first()
        sample.filepath = str(shutil.copy(sample.filepath, f"{sample.filepath}.copy.png"))
        sample.save()
        report = run(trays, prototypes, "own")
        assert (report.num_from_index, report.num_images) == (0, 4)
        assert open_index(trays).uri != other.uri
        assert open_index(trays).status().num_indexed == 4
        assert run(trays, prototypes, "again").num_from_index == 4

    def test_grouped_images(self, dataset: fo.Dataset, trays: fo.Dataset, prototypes: Prototypes) -> None:
        dataset.add_group_field("group", default="left")
        group = fo.Group()
        left, right = trays.values("filepath")[:2]
        dataset.add_samples(
            [fo.Sample(left, group=group.element("left")), fo.Sample(right, group=group.element("right"))], progress=False
        )
        flat = dataset.select_group_slices(media_type="image")
        assert run(flat, prototypes).num_written == 2
        again = run(flat, prototypes)
        assert (again.num_from_index, again.num_written, again.num_instances) == (2, 0, 4)


class TestHandle:
    def test_an_opened_index(
        self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(trays, uri=tmp_path / "mine")
        index = open_index(trays)
        build(trays)  # uses the same place; another index is used last:
        build(trays, exact=True)
        forbid_models(monkeypatch)
        report = run(trays, prototypes, index=index)
        assert report.num_from_index == 4
        assert trays.get_run_info(report.run_key).config.index_uri == str(tmp_path / "mine")

    def test_what_it_lacks_is_computed_into_it(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        build(trays[:1], uri=tmp_path / "mine", exact=True)
        index = open_index(trays)
        report = run(trays, prototypes, index=index)
        assert (report.num_from_index, report.num_images) == (1, 4)
        assert open_index(trays, uri=tmp_path / "mine").status().num_indexed == 4

    def test_what_was_built_since_it_was_opened_counts(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:1])
        index = open_index(trays)
        build(trays)
        assert run(trays, prototypes, index=index).num_from_index == 4

    def test_it_may_have_been_compacted_since(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:2])
        build(trays)
        index = open_index(trays)
        open_index(trays).compact()
        assert run(trays, prototypes, index=index).num_instances == 8

    def test_of_another_encoder(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays)
        index = open_index(trays)
        other = dataclasses.replace(prototypes, fingerprint="f" * 12)
        with pytest.raises(
            PrototypeMismatchError, match=rf"encoder f{{12}}\), but the index at {index.uri} holds candidates of 'demo'"
        ):
            run(trays, other, index=index)
        assert not trays.has_field("predictions")

    def test_of_another_dataset(self, trays: fo.Dataset, make_dataset: MakeDataset, prototypes: Prototypes) -> None:
        build(trays)
        other = make_dataset([fo.Sample(trays.first().filepath)])
        with pytest.raises(IndexMismatchError, match=f"is not one of the dataset {other.name!r}"):
            run(other, prototypes, index=open_index(trays))
        assert not other.has_field("predictions")


class TestOnlyChangesAreWritten:
    def test_the_same_again_writes_nothing(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        first = run(trays, prototypes)
        before, written = modified_at(trays), content_of(trays)
        second = run(trays, prototypes)
        assert (first.num_written, second.num_written, second.num_instances, second.num_images) == (4, 0, 8, 4)
        assert modified_at(trays) == before
        assert content_of(trays) == written
        assert trays.count_values("predictions.detections.run") == {first.run_key: 8}
        assert "predictions of 0 images were written" in str(second)

    def test_nor_where_no_prediction_is_the_answer(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        assert run(trays, prototypes, min_confidence=1.0).num_written == 4
        assert run(trays, prototypes, min_confidence=1.0).num_written == 0

    def test_the_real_segmenters(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 2))
        prototypes = build_prototypes(collect_references(dataset, "ground_truth"), "demo", progress=False)
        first = run(dataset, prototypes, model=quick_models())
        second = run(dataset, prototypes, model=quick_models())
        assert (first.num_written, second.num_written) == (2, 0)
        assert second.num_instances == first.num_instances > 4

    @pytest.mark.parametrize("edit", ["label removed", "relabelled", "box moved", "all removed", "score", "one added"])
    def test_what_a_user_has_edited_is_written_again(self, trays: fo.Dataset, prototypes: Prototypes, edit: str) -> None:
        run(trays, prototypes)
        before, answers = modified_at(trays), content_of(trays, with_run=False)
        sample = trays[2:3].first()
        labels = sample.predictions.detections
        if edit == "label removed":
            del labels[0]
        elif edit == "relabelled":
            labels[0].label = PARTS[1 - PARTS.index(labels[0].label)]
        elif edit == "box moved":
            x, y, w, h = labels[0].bounding_box
            labels[0].bounding_box = [x - 5 / IMAGE_HW[1], y, w, h]
        elif edit == "all removed":
            sample.predictions = None
        elif edit == "score":
            labels[1].confidence -= 0.01
        else:
            labels.append(labels[0].copy())
        sample.save()
        report = run(trays, prototypes)
        assert report.num_written == 1
        assert content_of(trays, with_run=False) == answers
        after = modified_at(trays)
        assert [now == then for now, then in zip(after, before, strict=True)] == [True, True, False, True]

    def test_one_more_reference_writes_only_what_it_changes(
        self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reference of one class, and images two of which show no object of it; only the margins of others move with it."""
        monkeypatch.setattr("refseg.runs.writing.MARGIN_TOLERANCE", 1.0)
        dataset = make_dataset(tray_samples(tmp_path))
        references = collect_references(dataset[:2], "ground_truth")
        for sample in dataset[2:]:
            sample.ground_truth.detections = [label for label in sample.ground_truth.detections if label.label == "tee"]
            sample.save()
        propose_truth(monkeypatch, dataset)
        stars = [reference for reference in references if reference.label == "star"]
        assert len(stars) == 2
        fewer = [reference for reference in references if reference is not stars[0]]
        run(dataset, build_prototypes(fewer, "demo", progress=False))
        before, answers = modified_at(dataset), content_of(dataset)
        assert [len(labels) for labels in answers] == [2, 2, 1, 1]
        report = run(dataset, build_prototypes(references, "demo", progress=False))
        assert report.num_written == 2
        after = modified_at(dataset)
        assert [now == then for now, then in zip(after, before, strict=True)] == [False, False, True, True]
        assert content_of(dataset)[2:] == answers[2:]
        assert content_of(dataset)[:2] != answers[:2]

    def test_another_threshold_writes_only_what_it_changes(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        scores = [[label.confidence for label in sample.predictions.detections] for sample in trays]
        least = min(min(part) for part in scores) + 1e-4
        assert run(trays, prototypes, min_confidence=least).num_written == sum(min(part) < least for part in scores) < 4
        assert min(trays.values("predictions.detections.confidence", unwind=True)) >= least

    @pytest.mark.parametrize(("edit", "num_written"), [("slightly", 0), ("clearly", 1), ("runner-up", 0), ("unknown", 4)])
    def test_margins(self, trays: fo.Dataset, prototypes: Prototypes, edit: str, num_written: int) -> None:
        """They move a little with references of other classes; an earlier version wrote none."""
        run(trays, prototypes)
        answers = content_of(trays, with_run=False)
        margins = trays.values("predictions.detections.margin", unwind=True)
        sample = trays[2:3].first()
        label = sample.predictions.detections[0]
        if edit == "runner-up":
            label.runner_up = "another"
        elif edit == "unknown":
            trays.set_values("predictions.detections.margin", [[None, None]] * 4)
            sample.reload()
        else:
            label.margin += 0.019 if edit == "slightly" else -0.021
        sample.save()
        report = run(trays, prototypes)
        assert (report.num_written, report.num_instances) == (num_written, 8)
        assert report.changes.num_samples == 0
        assert content_of(trays, with_run=False) == answers
        if num_written:
            assert trays.values("predictions.detections.margin", unwind=True) == list(map(Score, margins))

    def test_predictions_without_any_margin_are_replaced(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """As an earlier version left them: the field has no such attribute at all."""
        run(trays, prototypes, "now")
        for sample in trays.iter_samples(autosave=True):
            kept = [
                fo.Detection(
                    label=label.label,
                    bounding_box=label.bounding_box,
                    mask=label.mask,
                    confidence=label.confidence,
                    predicted_iou=label.predicted_iou,
                    run="earlier",
                )
                for label in sample.now.detections
            ]
            sample["predictions"] = fo.Detections(detections=kept)
        trays.add_dynamic_sample_fields()
        assert trays.get_field("predictions.detections.predicted_iou") is not None
        assert trays.get_field("predictions.detections.margin") is None
        trays.register_run("earlier", trays.init_run(method=SEGMENT_METHOD, label_field="predictions"))
        report = run(trays, prototypes)
        assert (report.num_written, report.changes.num_samples) == (4, 0)
        assert None not in trays.values("predictions.detections.margin", unwind=True)
        assert run(trays, prototypes).num_written == 0

    def test_a_filtered_view_does_not_hide_what_must_go(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """What a filter hides is still there, and a higher threshold must remove it."""
        run(trays, prototypes)
        scores = sorted(trays.values("predictions.detections.confidence", unwind=True))
        least = (scores[3] + scores[4]) / 2
        view = trays.filter_labels("predictions", fo.ViewField("confidence") >= least, only_matches=False)
        run(view, prototypes, min_confidence=least)
        assert sorted(trays.values("predictions.detections.confidence", unwind=True)) == list(map(Score, scores[4:]))

    def test_predictions_of_another_kind_are_replaced(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """Without score or predicted IoU: somebody's labels."""
        trays.clone_sample_field("ground_truth", "predictions")
        assert run(trays, prototypes, overwrite=True).num_written == 4
        assert trays.count("predictions.detections.run") == 8

    def test_masks_in_files_and_semantic_maps_are_written_each_time(
        self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path
    ) -> None:
        run(trays, prototypes)
        assert run(trays, prototypes, mask_dir=str(tmp_path / "masks")).num_written == 4
        assert all(label.mask_path for label in trays.first().predictions.detections)
        assert run(trays, prototypes, semantic_field="map").num_written == 4
        assert all(value is not None for value in trays.values("map"))

    @pytest.mark.parametrize("image_hw", [(20, 30), (50, 9)])
    def test_images_smaller_than_the_grid(
        self, make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, image_hw: Any
    ) -> None:
        """There a pixel is wider than a cell, and the boxes of masks lie further from those of the grid."""
        samples = tray_samples(tmp_path, 2)
        for sample in samples:
            Image.open(sample.filepath).resize(image_hw[::-1]).save(sample.filepath)
            sample.ground_truth.detections = [
                fo.Detection.from_mask(np.asarray(Image.fromarray(whole_mask(label)).resize(image_hw[::-1])), label=label.label)
                for label in sample.ground_truth.detections
            ]
        dataset = make_dataset(samples)
        propose_truth(monkeypatch, dataset)
        assert run(dataset, prototypes).num_written == 2
        assert run(dataset, prototypes).num_written == 0


def fill_index(dataset: fo.Dataset, packed: list[PackedCandidates]) -> DatasetIndex:
    """The dataset's index, with these candidates for its first samples."""
    index = index_for(dataset, load_models("demo"))
    ids, paths = dataset.values(["id", "filepath"])
    rows = []
    for sample_id, path, candidates in zip(ids, paths, packed, strict=False):
        state = file_state(path)
        assert state is not None
        rows.append((sample_id, state, candidates))
    index.index.append(rows)
    index.index.refresh()
    return index


def draw_candidates(count: int, seed: int) -> Candidates:
    """Discs within discs, the larger ones the better, so that many a best similarity does not survive merging."""
    generator = torch.Generator().manual_seed(seed)
    radius = 3 * 1.5 ** torch.arange(count)[:, None, None]
    center, line = 30 + 4 * torch.rand(count, 2, 1, 1, generator=generator), torch.arange(64) + 0.5
    square = (line[None, :] - center[:, 0]) ** 2 + (line[:, None] - center[:, 1]) ** 2
    features = torch.randn(count, load_models("demo").feature_width, generator=generator)
    features[:, 0] += 25 * torch.rand(count, generator=generator)  # one direction in common, in which the prototypes lie
    features = F.normalize(features, dim=1).half().float()
    return Candidates(4 * (1 - square / radius**2), torch.linspace(0.5, 0.9, count), features, (96, 128))


def draw_prototypes(seed: int = 0) -> Prototypes:
    """Two classes of one reference each, near the common direction."""
    models = load_models("demo")
    vectors = torch.randn(2, models.feature_width, generator=torch.Generator().manual_seed(seed))
    vectors[:, 0] += 20
    return Prototypes(PARTS, vectors, torch.arange(2), ("a", "b"), "demo", models.fingerprint)


class TestPreview:
    @pytest.fixture
    def drawn(self, make_dataset: MakeDataset, tmp_path: Path) -> tuple[fo.Dataset, list[PackedCandidates]]:
        """Sixteen images and candidates made up for them; the third has none."""
        samples = []
        for number in range(16):
            path = tmp_path / f"{number}.png"
            Image.new("RGB", (128, 96), (number, 0, 0)).save(path)
            samples.append(fo.Sample(str(path)))
        packed = [pack(draw_candidates(0 if number == 2 else 3 + number % 4, number)) for number in range(16)]
        return make_dataset(samples), packed

    @staticmethod
    def best_by_brute_force(
        dataset: fo.Dataset, packed: list[PackedCandidates], prototypes: Prototypes
    ) -> list[tuple[float, str]]:
        """Every image matched to the end."""
        found = []
        for sample_id, candidates in zip(dataset.values("id"), packed, strict=False):
            instances = match(candidates, Gallery(prototypes.matrix))
            if len(instances):
                found.append((float(instances.scores[0]), sample_id))
        return sorted(found, reverse=True)

    def test_merging_lowers_best_scores_here(self, drawn: Any) -> None:
        """What the tests below stand on: the order of the bounds is not that of the scores."""
        dataset, packed = drawn
        prototypes = draw_prototypes()
        bounds = {
            sample_id: float(classify(candidates.features, Gallery(prototypes.matrix)).scores.max())
            for sample_id, candidates in zip(dataset.values("id"), packed, strict=True)
            if len(candidates)
        }
        scores = {sample_id: score for score, sample_id in self.best_by_brute_force(dataset, packed, prototypes)}
        assert sum(scores[sample_id] < bounds[sample_id] - 0.02 for sample_id in scores) >= 4
        assert sorted(scores, key=lambda name: -scores[name])[:5] != sorted(bounds, key=lambda name: -bounds[name])[:5]

    @pytest.mark.parametrize(("previewed", "look"), [(1, 1), (3, 1), (3, 4), (5, 64), (100, 3)])
    @pytest.mark.parametrize("seed", range(2))
    def test_writes_the_images_with_the_best_scores(
        self, drawn: Any, monkeypatch: pytest.MonkeyPatch, previewed: int, look: int, seed: int
    ) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", previewed)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", look)
        forbid_models(monkeypatch)
        prototypes = draw_prototypes(seed)
        index = fill_index(dataset, packed)
        expected = self.best_by_brute_force(dataset, packed, prototypes)[:previewed]
        report = run(dataset, prototypes, preview=True, index=index)
        assert [sample_id for sample_id, _ in report.best] == [sample_id for _, sample_id in expected]
        assert [score for _, score in report.best] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert (report.num_images, report.num_written, report.num_left_out) == (16, len(expected), 0)
        chosen = {sample_id for _, sample_id in expected}
        for sample in dataset:
            assert (sample.predictions is not None) == (sample.id in chosen)
        assert report.num_instances == dataset.count("predictions.detections")

    def test_looks_no_further_than_it_must(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 2)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 2)
        real, looked_at = refseg.matching.matcher.rank, []

        def rank(candidates: Any, *arguments: Any, **options: Any) -> Any:
            looked_at.append(candidates)
            return real(candidates, *arguments, **options)

        monkeypatch.setattr("refseg.matching.matcher.rank", rank)
        run(dataset, draw_prototypes(), preview=True, index=fill_index(dataset, packed))
        assert 2 <= len(looked_at) < 16

    def test_is_what_a_whole_run_writes(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 4)
        fill_index(dataset, packed)
        preview = run(dataset, draw_prototypes(), "preview", preview=True)
        run(dataset, draw_prototypes(), "whole")
        chosen = dataset.select([sample_id for sample_id, _ in preview.best])
        assert content_of(chosen, "preview", with_run=False) == content_of(chosen, "whole", with_run=False)
        best = [sample.whole.detections[0].confidence for sample in dataset.select([x for x, _ in preview.best], ordered=True)]
        assert best == pytest.approx([score for _, score in preview.best], abs=1e-6)
        assert best == sorted(best, reverse=True)

    def test_a_least_confidence_leaves_images_out(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        prototypes = draw_prototypes()
        expected = self.best_by_brute_force(dataset, packed, prototypes)
        index = fill_index(dataset, packed)
        least = (expected[4][0] + expected[5][0]) / 2
        report = run(dataset, prototypes, preview=True, index=index, min_confidence=least)
        assert [sample_id for sample_id, _ in report.best] == [sample_id for _, sample_id in expected[:5]]
        assert min(dataset.values("predictions.detections.confidence", unwind=True)) >= least
        nothing = run(dataset, prototypes, "none", preview=True, index=index, min_confidence=1.0)
        assert (nothing.best, nothing.num_written, nothing.num_instances) == ((), 0, 0)

    @pytest.mark.parametrize("part", PARTS)
    def test_least_confidences_of_their_own(self, drawn: Any, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best similarity in an image may be one of a class that is not written at all."""
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 3)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 1)
        prototypes, index = draw_prototypes(), fill_index(dataset, packed)
        run(dataset, prototypes, "every", index=index)
        best = {
            sample.id: max((label.confidence for label in sample.every.detections if label.label == part), default=0.0)
            for sample in dataset
        }
        expected = sorted((name for name in best if best[name]), key=lambda name: -best[name])[:3]
        for options in ({"classes": [part]}, {"min_confidence": {PARTS[1 - PARTS.index(part)]: 1.0, part: 0.0}}):
            report = run(dataset, prototypes, f"preview_{len(options)}", preview=True, index=index, **options)
            assert [name for name, _ in report.best] == expected
            assert [score for _, score in report.best] == pytest.approx([best[name] for name in expected], abs=1e-6)

    def test_images_not_indexed_are_left_out_and_counted(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        forbid_models(monkeypatch)
        fill_index(dataset, packed[:10])
        report = run(dataset, draw_prototypes(), preview=True)
        assert (report.num_images, report.num_from_index, report.num_left_out) == (10, 10, 6)
        assert {sample_id for sample_id, _ in report.best} <= set(dataset[:10].values("id"))
        assert len(report.best) == 9
        assert "6 images are not indexed and were left out: build the index to see them too" in str(report)
        assert len(open_index(dataset).index.images) == 10

    def test_is_recorded(self, drawn: Any) -> None:
        dataset, packed = drawn
        fill_index(dataset, packed)
        report = run(dataset, draw_prototypes(), preview=True)
        config = dataset.get_run_info(report.run_key).config
        assert (config.state, config.preview, config.num_written) == ("completed", True, report.num_written)

    def test_the_same_again_writes_nothing(self, drawn: Any) -> None:
        dataset, packed = drawn
        fill_index(dataset, packed)
        first, second = (run(dataset, draw_prototypes(), preview=True) for _ in range(2))
        assert (first.num_written, second.num_written) == (15, 0)
        assert second.best == first.best

    def test_progress(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 10)
        fill_index(dataset, packed)
        steps: list[Any] = []
        run(dataset, draw_prototypes(), preview=True, progress=steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [
            (0, 16, "images"),
            (16, 16, "images"),
            (10, 16, "best images"),
            (16, 16, "best images"),
        ]

    @pytest.mark.parametrize("index", [True, False])
    def test_nothing_indexed(self, trays: fo.Dataset, prototypes: Prototypes, index: bool) -> None:
        with pytest.raises(DatasetError, match="none of these is indexed: build the index first"):
            run(trays, prototypes, preview=True, index=index)
        assert not trays.has_field("predictions")
        assert trays.list_runs() == []

    def test_none_of_the_view_indexed(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:2])
        with pytest.raises(DatasetError, match="none of these is indexed: build the index first"):
            run(trays[2:], prototypes, preview=True)


class TestTrouble:
    def test_an_index_that_cannot_be_written_stops_nothing(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file lies where Lance wants to make a folder."""
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        index = index_for(trays, load_models("demo"))
        blocked = Path(index.uri, "candidates.lance", "data")
        assert not blocked.exists()
        blocked.write_text("in the way")
        report = run(trays, prototypes)
        assert (report.num_images, report.num_instances, report.num_written, report.num_from_index) == (4, 8, 4, 0)
        assert report.index_trouble is not None
        assert report.index_trouble.startswith(f"Nothing more can be written to the candidate index at {index.uri}")
        assert f"Candidates were not kept: {report.index_trouble}" in str(report)
        assert caplog.text.count("Candidates are no longer kept") == 1  # not tried again with each batch
        assert trays.get_run_info(report.run_key).config.state == "completed"
        blocked.unlink()
        again = run(trays, prototypes)
        assert (again.index_trouble, again.num_from_index, again.num_written) == (None, 0, 0)
        assert run(trays, prototypes).num_from_index == 4

    def test_a_damaged_row_is_named(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """The tables can be read, but one mask is no mask."""
        build(trays)
        index = open_index(trays)
        bad = trays.values("id")[2]
        (chunk,) = index.index.scan([bad])
        packed = chunk.candidates(0)
        codes = [code[:-1] for code in packed.codes.to_pylist()]
        damaged = dataclasses.replace(packed, codes=pa.array(codes, pa.binary()))
        state: FileState = index.index.images[bad].file
        index.index.append([(bad, state, damaged)])
        with pytest.raises(IndexDamagedError, match=bad):
            run(trays, prototypes)

    def test_a_damaged_index_is_refused_before_anything_is_touched(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        for path in Path(report.uri, "images.lance", "data").iterdir():
            path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            run(trays, prototypes)
        assert not trays.has_field("predictions")

    def test_damaged_candidates_are_refused_before_anything_is_touched(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        index = open_index(trays)
        for path in Path(report.uri, "candidates.lance", "data").iterdir():
            path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            run(trays, prototypes, index=index, run_key="r")
        assert not trays.has_run("r")
        assert not trays.has_field("predictions")

    def test_candidates_damaged_meanwhile_fail_the_run_which_says_so(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        work = iter_segment(trays, prototypes, run_key="r", sources=SourceSettings(num_workers=0))
        next(work)
        for path in Path(report.uri, "candidates.lance", "data").iterdir():
            path.unlink()
        with pytest.raises(
            IndexDamagedError, match=f"The candidate index at {report.uri} cannot be read .*: delete it and build"
        ):
            list(work)
        config = trays.get_run_info("r").config
        assert (config.state, config.num_written) == ("failed", 0)
        assert config.error.startswith(f"IndexDamagedError: The candidate index at {report.uri} cannot be read")
