"""What a run writes: nothing that stays as it is, nothing over the labels of others, a few samples at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.references import collect_references
from refseg.errors import DatasetError
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.review.decisions import accept
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.writing import Writer
from tests.runs.test_segmenting import content_of
from tests.tolerance import Score
from tests.trays import IMAGE_HW, PARTS, propose_truth, quick_models, tray_samples, whole_mask
from tests.trays import segment_all as run

MakeDataset = Callable[..., fo.Dataset]


class TestLabelsOfOthers:
    """Nothing that no run of RefSeg wrote is lost without being asked for."""

    @pytest.fixture
    def mine(self, trays: fo.Dataset) -> fo.Dataset:
        """One image labelled by hand, in a field of detections, and in one of maps."""
        sample = trays.first()
        sample["mine"] = fo.Detections(detections=[fo.Detection(label="star", bounding_box=[0.1, 0.1, 0.2, 0.2])])
        sample["map"] = fo.Segmentation(mask=np.ones((8, 8), np.uint8))
        sample.save()
        return trays

    @pytest.mark.parametrize("images", ["all", "those without labels"])
    def test_detections_are_refused(self, mine: fo.Dataset, prototypes: Prototypes, images: str) -> None:
        words = rf"'mine' of dataset {mine.name!r} holds labels that no run of RefSeg wrote.*, or pass overwrite=True"
        with pytest.raises(DatasetError, match=words):
            run(mine if images == "all" else mine[1:], prototypes, "mine")
        assert mine.count("mine.detections") == 1
        assert mine.list_runs() == []

    def test_a_map_is_refused(self, mine: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match=r"'map' of dataset .* holds labels that no run of RefSeg wrote"):
            run(mine, prototypes, semantic_field="map")
        assert not mine.has_field("predictions")
        run(mine, prototypes, semantic_field="map", overwrite=True)
        run(mine, prototypes, semantic_field="map")
        assert mine.first().map.mask.shape != (8, 8)

    def test_a_field_without_labels_is_taken(self, mine: fo.Dataset, prototypes: Prototypes) -> None:
        mine.clear_sample_field("mine")
        mine.set_values("mine", [fo.Detections()] * 4)
        assert run(mine, prototypes, "mine").num_written == 4

    def test_a_part_of_a_dataset_has_its_predictions(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """And not its runs; decisions, which name a run too, are somebody's."""
        run(trays, prototypes, run_key="r")
        accept(trays, [trays.first().predictions.detections[0].id])
        part = trays[:2].clone()
        try:
            assert run(part, prototypes).num_written == 2
            with pytest.raises(DatasetError, match=r"'accepted' of dataset .* holds labels that no run of RefSeg wrote"):
                run(part, prototypes, "accepted")
        finally:
            part.delete()

    def test_what_comes_after_a_run_is_not_lost(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, max_detections=1)
        trays.delete_sample_field("predictions")
        sample = trays.first()
        sample["predictions"] = fo.Detections(detections=[fo.Detection(label="mine", bounding_box=[0.1, 0.1, 0.2, 0.2])])
        sample.save()
        report = run(trays, prototypes)
        assert (report.protected, report.num_written) == ((sample.id,), 3)
        assert f"1 image kept as before, such as {sample.filepath}: no run wrote" in str(report)
        trays.reload()
        assert trays.first().predictions.detections[0].label == "mine"
        assert trays.get_run_info(report.run_key).config.num_protected == 1
        assert run(trays, prototypes, overwrite=True).protected == ()
        assert "mine" not in trays.distinct("predictions.detections.label")

    def test_a_field_that_is_read_only_is_refused(self, mine: fo.Dataset, prototypes: Prototypes) -> None:
        run(mine, prototypes)
        field = mine.get_field("predictions")
        field.read_only = True
        field.save()
        with pytest.raises(DatasetError, match=r"'predictions' of dataset .* is read-only: choose another field"):
            run(mine, prototypes, min_confidence=1.0)
        assert mine.count("predictions.detections") == 8

    def test_a_field_of_another_run_is_taken(self, mine: fo.Dataset, prototypes: Prototypes) -> None:
        mine.register_run("like", mine.init_run(method="refseg/similar", label_field="mine"))
        assert run(mine, prototypes, "mine").num_written == 4


class TestPortions:
    """However few pixels or cells may wait, what is written is the same."""

    @pytest.fixture
    def writes(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Gets the number of samples of each write."""
        sizes: list[int] = []
        write = Writer._write

        def counted(self: Writer, labels: dict[str, Any], maps: dict[str, Any]) -> None:
            sizes.append(len(labels))
            write(self, labels, maps)

        monkeypatch.setattr(Writer, "_write", counted)
        return sizes

    def test_large_masks_are_written_a_few_at_a_time(
        self, trays: fo.Dataset, prototypes: Prototypes, writes: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(trays, prototypes, "at_once", index=False)
        assert max(writes) > 1
        writes.clear()
        monkeypatch.setattr("refseg.runs.writing.PIXELS_A_WRITE", 1)
        report = run(trays, prototypes, "apart", index=False)
        assert max(writes) == 1
        assert report.num_written == 4
        assert trays.values("apart.detections.bounding_box") == trays.values("at_once.detections.bounding_box")

    def test_candidates_that_are_not_packed_do_not_pile_up(
        self, trays: fo.Dataset, prototypes: Prototypes, writes: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", dict.fromkeys(("cpu", "mps", "cuda"), 1))
        monkeypatch.setattr("refseg.runs.writing.CELLS_HELD", 1)
        run(trays, prototypes, index=False)
        assert [size for size in writes if size] == [1, 1, 1, 1]


def modified_at(dataset: fo.Dataset) -> list[datetime]:
    """When each sample was last written."""
    dataset.reload()
    times: list[datetime] = dataset.values("last_modified_at")
    return times


@pytest.mark.usefixtures("two_images_a_batch")
class TestOnlyChangesAreWritten:
    def test_the_same_again_writes_nothing(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        first = run(trays, prototypes)
        before, written = modified_at(trays), content_of(trays)
        second = run(trays, prototypes)
        assert (first.num_written, second.num_written, second.num_instances, second.num_images) == (4, 0, 8, 4)
        assert modified_at(trays) == before
        assert content_of(trays) == written
        assert trays.count_values("predictions.detections.run") == {first.run_key: 8}
        assert "answers of 0 images were written" in str(second)

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
