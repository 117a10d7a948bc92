"""Accepted objects are copied to ground truth once, clean, beside what others do, and can be taken back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.references import collect_references, tag_references, tagged_references
from refseg.dataset.tagged_labels import look_at_tagged
from refseg.errors import DatasetError
from refseg.review.decisions import accept, reject, undo
from refseg.review.merge_report import MergeConflict, MergeReport
from refseg.review.merging import iter_merge_accepted, merge_accepted, undo_merge
from tests.at_once import at_once, other_process
from tests.review.predictions import ids_of, labels_in, record

MakeDataset = Callable[..., fo.Dataset]
SIDE = 100
TRUTH = "ground_truth"


def square(x: int, y: int, label: str = "star", *, width: int = 20, **attributes: Any) -> fo.Detection:
    """A filled rectangle, 20 pixels high."""
    attributes.setdefault("mask", np.ones((20, width), bool))
    return fo.Detection(label=label, bounding_box=[x / SIDE, y / SIDE, width / SIDE, 20 / SIDE], **attributes)


@pytest.fixture
def make(make_dataset: MakeDataset, tmp_path: Path) -> Callable[..., fo.Dataset]:
    """A function that makes one image from its accepted objects and its ground truth."""

    def made(accepted: list[fo.Detection], truth: list[fo.Detection] | None = None, **options: Any) -> fo.Dataset:
        path = tmp_path / "a.png"
        Image.new("L", (SIDE, SIDE)).save(path)
        sample = fo.Sample(str(path), accepted=fo.Detections(detections=accepted))
        if truth is not None:
            sample[TRUTH] = fo.Detections(detections=truth)
        dataset = make_dataset(**options)
        dataset.add_samples([sample], dynamic=True, progress=False)
        return dataset

    return made


def merge(dataset: Any, into: str = TRUTH, **options: Any) -> MergeReport:
    return merge_accepted(dataset, into, progress=False, **options)


def boxes_in(dataset: fo.Dataset, field: str = TRUTH) -> list[tuple[str, int, int]]:
    """Class, left and top of each label."""
    return [(one.label, *(round(SIDE * side) for side in one.bounding_box[:2])) for one in labels_in(dataset, field)]


class TestWhatIsAdded:
    def test_a_new_field(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0), square(50, 50, "tee")])
        report = merge(dataset)
        assert boxes_in(dataset) == [("star", 0, 0), ("tee", 50, 50)]
        assert (report.num_images, report.num_accepted, report.num_added, report.num_there) == (1, 2, 2, 0)
        assert report.classes == {"star": 1, "tee": 1}
        assert isinstance(other_process(dataset).get_field(f"{TRUTH}.detections.merged_from"), fo.StringField)
        assert len(labels_in(dataset, "accepted")) == 2

    @pytest.mark.parametrize(
        ("shift", "iou", "is_there"),
        [
            # Of 20 by 20 pixels, moved by 5: 15 of 25 columns; by 8: 12 of 28; by 10: a third.
            *((0, 1.0, True), (5, 0.6, True), (5, 0.61, False)),
            *((8, 0.5, False), (8, 12 / 28, True), (10, 1 / 3, True), (10, 0.34, False)),
            (20, 0.001, False),
        ],
    )
    @pytest.mark.parametrize("masked", [True, False])
    def test_to_the_limit(self, make: Callable[..., fo.Dataset], shift: int, iou: float, is_there: bool, masked: bool) -> None:
        options = {} if masked else {"mask": None}
        dataset = make([square(30 + shift, 30, **options)], [square(30, 30, **options)])
        report = merge(dataset, iou=iou)
        assert (report.num_there, report.num_added) == ((1, 0) if is_there else (0, 1))
        assert len(labels_in(dataset, TRUTH)) == (1 if is_there else 2)

    def test_masks_are_compared_and_not_boxes(self, make: Callable[..., fo.Dataset], tmp_path: Path) -> None:
        """In a document and in a file."""
        left, right = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        left[:, :10] = right[:, 10:] = True
        path = tmp_path / "mask.png"
        Image.fromarray(right).save(path)
        dataset = make([square(30, 30, mask=left)], [square(30, 30, mask=None, mask_path=str(path))])
        assert merge(dataset).num_added == 1

    def test_again_nothing(self, make: Callable[..., fo.Dataset]) -> None:
        empty = square(70, 70, mask=np.zeros((20, 20), bool))
        dataset = make([square(0, 0), square(50, 50, "tee"), empty], [])
        merge(dataset, iou=1.0)
        before = boxes_in(dataset)
        report = merge(other_process(dataset), iou=1.0)
        assert (report.num_added, report.num_there) == (0, 3)
        assert boxes_in(dataset) == before

    def test_a_copy_that_was_moved_is_there(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0)])
        merge(dataset)
        sample = dataset.first()
        sample[TRUTH].detections[0].bounding_box = [0.7, 0.7, 0.2, 0.2]
        sample.save()
        assert merge(dataset).num_there == 1
        assert boxes_in(dataset) == [("star", 70, 70)]

    def test_of_two_that_overlap_the_first(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0), square(2, 0), square(60, 60), square(60, 60, "tee")], [])
        report = merge(dataset)
        assert boxes_in(dataset) == [("star", 0, 0), ("star", 60, 60)]
        assert (report.num_added, report.num_there, report.num_conflicting) == (2, 1, 1)
        assert report.conflicts[0].other_id == report.added[1].label_id

    def test_another_class_is_told_and_not_added(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(30, 30)], [square(35, 30, "tee")])
        report = merge(dataset)
        (accepted,), (other,) = ids_of(dataset, "accepted"), ids_of(dataset, TRUTH)
        conflict = MergeConflict(dataset.first().id, accepted, "star", other, "tee", pytest.approx(0.6), False)
        assert report.conflicts == (conflict,)
        assert boxes_in(dataset) == [("tee", 35, 30)]
        assert "1 lies where an object of another class is, and was not added." in str(report)
        report = merge(dataset, add_conflicting=True)
        assert (report.num_added, report.num_conflicting, report.conflicts[0].is_added) == (1, 0, True)
        assert merge(dataset, add_conflicting=True).num_added == 0

    def test_the_same_class_counts_where_both_lie(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(30, 30)], [square(30, 30, "tee"), square(30, 30)])
        report = merge(dataset)
        assert (report.num_there, report.conflicts) == (1, ())

    def test_what_cannot_be_added(self, make: Callable[..., fo.Dataset]) -> None:
        accepted = [
            square(0, 0, label=" "),
            fo.Detection(label="star"),
            square(0, 0, tags=["negative"]),
            square(30, 30, decision="fix"),
        ]
        dataset = make(accepted)
        report = merge(dataset)
        assert [(name, why.split(":")[0]) for _, name, why in report.left_out] == [
            (accepted[0].id, "it has no class"),
            (accepted[1].id, "it has no place in its image"),
        ]
        assert (report.num_negative, report.num_added, report.num_accepted) == (1, 1, 4)

    def test_nothing_accepted(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([])
        report = merge(dataset)
        assert (report.num_images, report.num_added, str(report)) == (0, 0, "Added no object to 'ground_truth'.")
        assert not dataset.has_field(TRUTH)

    def test_of_a_view_what_it_shows(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0), square(50, 50, "tee")])
        merge(dataset.filter_labels("accepted", fo.ViewField("label") == "tee"))
        assert boxes_in(dataset) == [("tee", 50, 50)]

    def test_an_image_that_is_gone_compares_boxes(self, make: Callable[..., fo.Dataset], tmp_path: Path) -> None:
        dataset = make([square(30, 30)], [square(32, 30)])
        (tmp_path / "a.png").unlink()
        assert merge(dataset).num_there == 1


class TestCopies:
    def test_are_clean(self, make: Callable[..., fo.Dataset]) -> None:
        about = {"confidence": 0.9, "predicted_iou": 0.9, "margin": 0.1, "runner_up": "tee", "run": "first", "pieces": 2}
        decided = {"decision": "accept", "prediction_id": "0" * 24, "predicted_label": "tee", "predicted_box": [0.0] * 4}
        own = {"rust": "much", "iscrowd": False, "index": 4, "tags": ["reference", "odd"]}
        dataset = make([square(0, 0, **about, **decided, **own)], [square(60, 60)])
        dataset.evaluate_detections("accepted", gt_field=TRUTH, eval_key="eval", use_masks=False)
        merge(dataset)
        held = labels_in(dataset, TRUTH)[1]
        told = {name for name in held.field_names if held[name] is not None}
        names = {"id", "attributes", "tags", "label", "bounding_box", "mask", "index", "rust", "iscrowd", "merged_from"}
        assert told == names
        accepted = labels_in(dataset, "accepted")[0]
        assert (held.tags, held.rust, held.index, held.merged_from) == (["odd"], "much", 4, accepted.id)
        assert held.id != accepted.id
        assert np.array_equal(held.mask, accepted.mask)
        assert "reference" in accepted.tags
        assert "ground_truth.detections.rust" in other_process(dataset).get_field_schema(flat=True)

    def test_attributes_of_another_type_stay_behind(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0, rust="much", wear=0.5)], [square(60, 60, rust=3)])
        merge(dataset)
        held = labels_in(dataset, TRUTH)[1]
        assert (held.get_attribute_value("rust", None), held.wear) == (None, 0.5)

    def test_bring_their_mask_along(self, make: Callable[..., fo.Dataset], tmp_path: Path) -> None:
        """The file goes with the prediction."""
        path = tmp_path / "mask.png"
        mask = np.eye(20, dtype=bool)
        Image.fromarray(mask).save(path)
        dataset = make([square(0, 0, mask=None, mask_path=str(path))])
        merge(dataset)
        path.unlink()
        (held,) = labels_in(dataset, TRUTH)
        assert held.mask_path is None
        assert np.array_equal(held.mask, mask)


class TestReferences:
    """A reference that was merged is one reference."""

    def count(self, dataset: fo.Dataset) -> tuple[int, int]:
        """As learning counts them, and as the panel does."""
        shown = look_at_tagged(other_process(dataset))
        assert shown is not None
        return len(tagged_references(other_process(dataset))), sum(not one.is_negative for one in shown.labels)

    def test_of_labels(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0, tags=["reference"]), square(60, 60)])
        merge(dataset)
        assert self.count(dataset) == (1, 1)
        # Also where somebody tags the copy, until the label itself is gone.
        tag_references(dataset, ids_of(dataset, TRUTH), TRUTH)
        assert self.count(dataset) == (2, 2)
        assert {one.id for one in tagged_references(dataset)} == {ids_of(dataset, "accepted")[0], ids_of(dataset, TRUTH)[1]}
        dataset.delete_labels(ids=ids_of(dataset, "accepted"), fields="accepted")
        assert self.count(dataset) == (2, 2)

    @pytest.mark.parametrize("truth", [None, [square(30, 0, "tee")]])
    def test_of_a_whole_image(self, make: Callable[..., fo.Dataset], truth: Any) -> None:
        dataset = make([square(0, 0), square(60, 60)], truth and [one.copy() for one in truth])
        dataset.tag_samples("reference")
        number = 2 + len(truth or ())
        merge(dataset)
        merge(dataset, "more")
        assert self.count(dataset) == (number, number)
        assert len(collect_references(dataset, TRUTH, tags="reference")) == number
        # Without the labels that they were copied from, of two copies one counts.
        dataset.delete_labels(ids=ids_of(dataset, "accepted"), fields="accepted")
        assert self.count(dataset) == (number, number)


class TestOthers:
    def test_labels_that_others_add_meanwhile_are_seen(
        self, make: Callable[..., fo.Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from refseg.dataset import label_edits

        dataset = make([square(0, 0), square(60, 60)], [])
        whole, waiting = label_edits.write_edits, [True]

        def late(*args: Any) -> Any:
            if waiting:
                waiting.pop()
                sample = other_process(dataset).first()
                sample[TRUTH].detections.append(square(1, 0))
                sample.save()
            return whole(*args)

        monkeypatch.setattr(label_edits, "write_edits", late)
        report = merge(dataset)
        assert boxes_in(dataset) == [("star", 1, 0), ("star", 60, 60)]
        assert (report.num_added, report.num_there) == (1, 1)

    def test_an_object_that_is_rejected_meanwhile(
        self, make: Callable[..., fo.Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from refseg.dataset import label_edits

        dataset = make([])
        record(dataset)
        sample = dataset.first()
        sample["predictions"] = fo.Detections(detections=[square(0, 0, confidence=0.9), square(60, 60, confidence=0.9)])
        sample.save()
        accept(dataset, ids_of(dataset))
        whole, waiting = label_edits.write_edits, [True]

        def late(*args: Any) -> Any:
            if waiting:
                waiting.pop()
                reject(other_process(dataset), ids_of(dataset)[:1])
            return whole(*args)

        monkeypatch.setattr(label_edits, "write_edits", late)
        assert merge(dataset).num_accepted == 1
        assert boxes_in(dataset) == [("star", 60, 60)]

    @pytest.mark.thorough
    def test_several_at_once(self, make_dataset: MakeDataset) -> None:
        images = [
            fo.Sample(f"{number}.png", accepted=fo.Detections(detections=[square(0, 0), square(60, 60)]))
            for number in range(20)
        ]
        dataset = make_dataset(images, persistent=True)
        assert at_once(merge_twice, dataset.name, (1,), (2,)) == [2, 2]
        assert other_process(dataset).count(f"{TRUTH}.detections") == 40


def merge_twice(dataset: fo.Dataset, _: int) -> int:
    """How often merging came to an end."""
    return sum(merge(dataset).num_accepted == 40 for _ in range(2))


class TestUndo:
    def test_is_the_way_back(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(0, 0), square(60, 60, "tee")], [square(30, 30)])
        before = [one.to_dict() for one in labels_in(dataset, TRUTH)]
        report = merge(dataset)
        # As the App keeps it.
        assert undo_merge(dataset, MergeReport(**json.loads(json.dumps(dataclasses.asdict(report))))) == 2
        assert [one.to_dict() for one in labels_in(dataset, TRUTH)] == before
        assert undo_merge(dataset, report) == 0
        assert merge(dataset).num_added == 2

    def test_what_somebody_has_changed_stays(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([square(x, y) for x in (0, 40, 80) for y in (0, 40)], [])
        report = merge(dataset)
        sample = other_process(dataset).first()
        renamed, moved, redrawn, tagged, noted, _ = sample[TRUTH].detections
        renamed.label = "tee"
        moved.bounding_box = [0.1, 0.1, 0.2, 0.2]
        redrawn.mask = np.eye(20, dtype=bool)
        tagged.tags = ["reference"]
        noted["eval"] = "tp"
        sample.save()
        assert undo_merge(dataset, report) == 2
        assert ids_of(dataset, TRUTH) == [one.id for one in (renamed, moved, redrawn, tagged)]

    def test_what_no_merge_wrote_is_not_removed(self, make: Callable[..., fo.Dataset]) -> None:
        """A browser can send any ids."""
        dataset = make([square(0, 0)], [square(30, 30)])
        report = merge(dataset)
        (own,) = [one.id for one in labels_in(dataset, TRUTH) if one.get_attribute_value("merged_from", None) is None]
        crafted = dataclasses.replace(report, added=[dataclasses.replace(report.added[0], label_id=own)])
        assert undo_merge(dataset, crafted) == 0
        other = dataclasses.replace(report, into="accepted")
        assert undo_merge(dataset, other) == undo_merge(dataset, dataclasses.replace(report, into="no field")) == 0
        assert (len(labels_in(dataset, TRUTH)), len(labels_in(dataset, "accepted"))) == (2, 1)

    @pytest.mark.parametrize("added", [["x"], [{"sample_id": "x"}], [{**dict.fromkeys(("sample_id", "label_id"), "x")}], [5]])
    def test_what_never_was_merged(self, added: list[Any]) -> None:
        with pytest.raises(DatasetError, match=r"An item of added cannot be .*: pass what refseg\.merge_accepted returned"):
            MergeReport(TRUTH, "accepted", added)

    def test_undoing_the_decision_leaves_the_copy(self, make: Callable[..., fo.Dataset]) -> None:
        dataset = make([])
        record(dataset)
        sample = dataset.first()
        sample["predictions"] = fo.Detections(detections=[square(0, 0, confidence=0.9)])
        sample.save()
        decision = accept(dataset, ids_of(dataset))
        report = merge(dataset)
        undo(dataset, decision)
        assert (boxes_in(dataset, "accepted"), boxes_in(dataset)) == ([], [("star", 0, 0)])
        assert undo_merge(dataset, report) == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                {"into": "lines"},
                r"holds Polylines, and accepted objects are Detections: .* \(fiftyone\.Polyline\.to_detection\)",
            ),
            ({"into": "one"}, "holds Detection, and accepted objects are Detections: merge them into a new field"),
            ({"into": "filepath"}, "holds StringField, and accepted objects are Detections"),
            ({"into": "predictions"}, "holds predictions, which the next run replaces: choose another field"),
            ({"into": "rejected"}, "holds rejected objects: choose another field to merge into"),
            ({"into": "refused"}, "holds rejected objects: choose another field to merge into"),
            ({"into": "accepted"}, "are in the field 'accepted' .* already: choose another field"),
            ({"into": "a.b"}, "'a.b' cannot name a field"),
            ({"into": "read"}, "is read-only: choose another field"),
            ({"accepted_field": "nothing"}, "'nothing' .* does not exist, so it holds no accepted objects: accept some first"),
            ({"accepted_field": "lines"}, "'lines' .* holds something else than Detections"),
            ({"accepted_field": "predictions"}, "holds predictions that nobody has accepted"),
            ({"accepted_field": "refused"}, "holds rejected objects: choose another field of accepted objects"),
            ({"iou": 0}, "iou must be above 0"),
            ({"iou": 1.5}, "iou must be a number from 0 to 1"),
        ],
    )
    @pytest.mark.sampled(3)
    def test_what_cannot_serve(self, make: Callable[..., fo.Dataset], options: dict[str, Any], words: str) -> None:
        dataset = make([square(0, 0)])
        sample = dataset.first()
        sample["lines"] = fo.Polylines()
        sample["one"] = fo.Detection(label="star", bounding_box=[0.0, 0.0, 0.1, 0.1])
        sample["predictions"] = fo.Detections()
        sample["read"] = fo.Detections()
        sample["refused"] = fo.Detections(detections=[square(0, 0, decision="reject")])
        sample.save()
        record(dataset)
        read = dataset.get_field("read")
        read.read_only = True
        read.save()
        before = dataset.first().to_dict()
        with pytest.raises(DatasetError, match=words):
            merge(dataset, **options)
        assert dataset.first().to_dict() == before


def test_progress_ends_at_the_total(make: Callable[..., fo.Dataset]) -> None:
    steps = list(iter_merge_accepted(make([square(0, 0)])))
    assert [(step.done, step.total) for step in steps] == [(0, 1), (1, 1)]
