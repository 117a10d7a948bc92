"""Decisions as labels: what is copied, moved, kept and undone."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.errors import DatasetError
from refseg.review.deciding import Decision
from refseg.review.decisions import accept, fix, reject, relabel, undo
from refseg.review.queue import review_queue
from tests.review.predictions import LEFT, ids_of, labels_in, predicted, record, segment_again

MakeDataset = Callable[..., fo.Dataset]


class TestAccept:
    def test_copy(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        decision = accept(dataset, [star])
        (label,) = labels_in(dataset, "accepted")
        assert (label.label, label.bounding_box, label.index, label.tags) == ("star", LEFT, 3, ["odd"])
        np.testing.assert_array_equal(label.mask, np.eye(4, dtype=bool))
        assert label.confidence is None
        assert (label.prediction_id, label.predicted_label, label.predicted_confidence) == (star, "star", 0.9)
        assert (label.decision, label.run) == ("accept", "first")
        assert label.id != star
        assert decision.accepted_ids == (label.id,)
        assert decision.prediction_ids == (star,)
        assert decision.sample_ids == (dataset.first().id,)
        assert not dataset.has_field("rejected")
        # Predictions stay what the model said.
        assert len(ids_of(dataset)) == 4
        assert labels_in(dataset, "predictions")[0].tags == ["odd"]

    def test_attributes_can_be_filtered_by_in_the_app(self, dataset: fo.Dataset) -> None:
        accept(dataset, ids_of(dataset))
        for name in ("prediction_id", "predicted_label", "predicted_confidence", "decision", "run"):
            assert dataset.get_field(f"accepted.detections.{name}") is not None

    def test_mask_in_a_file(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        """A decision has a mask of its own: the file goes when a run replaces the prediction, also between undo and redo."""
        path = tmp_path / "mask.png"
        mask = np.eye(4, dtype=bool)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        label = fo.Detection(label="star", bounding_box=LEFT, confidence=0.9, mask_path=str(path))
        dataset = make_dataset([fo.Sample("a.png", predictions=fo.Detections(detections=[label]))])
        accept(dataset, [label.id])
        rejection = reject(dataset, [label.id])
        path.unlink()
        (negative,) = labels_in(dataset, "rejected")
        undo(dataset, rejection)
        (copy,) = labels_in(dataset, "accepted")
        for decided in (negative, copy):
            assert decided.mask_path is None
            np.testing.assert_array_equal(decided.mask, mask)

    def test_undo_brings_back_the_mask_of_a_file(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        """Earlier versions let a copy share the prediction's file."""
        path = tmp_path / "mask.png"
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(path)
        label = fo.Detection(label="star", bounding_box=LEFT, confidence=0.9, mask_path=str(path))
        dataset = make_dataset([fo.Sample("a.png", predictions=fo.Detections(detections=[label]))])
        accept(dataset, [label.id])
        sample = dataset.first()
        sample.accepted.detections[0].mask = None
        sample.accepted.detections[0].mask_path = str(path)
        sample.save()
        rejection = reject(dataset, [label.id])
        path.unlink()
        undo(dataset, rejection)
        (copy,) = labels_in(dataset, "accepted")
        assert (copy.mask_path, copy.mask.shape) == (None, (4, 4))

    def test_mask_in_a_file_that_cannot_be_read(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        """The copy says what the prediction says."""
        label = fo.Detection(label="star", bounding_box=LEFT, confidence=0.9, mask_path=str(tmp_path / "gone.png"))
        dataset = make_dataset([fo.Sample("a.png", predictions=fo.Detections(detections=[label]))])
        accept(dataset, [label.id])
        (copy,) = labels_in(dataset, "accepted")
        assert (copy.mask, copy.mask_path) == (None, label.mask_path)

    def test_as_references(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        accept(dataset, [star])
        again = accept(dataset, [star], as_references=True)
        (label,) = labels_in(dataset, "accepted")
        assert label.tags == ["odd", "reference"]
        # It was changed, not written: undoing changes it back.
        assert (again.accepted_ids, again.describe_replaced()) == ((), "")
        assert undo(dataset, again) is True
        assert [label.tags for label in labels_in(dataset, "accepted")] == [["odd"]]

    def test_masks_of_several_pieces_become_no_references(self, dataset: fo.Dataset) -> None:
        star, tee = ids_of(dataset[:1])
        sample = dataset.first()
        sample.predictions.detections[0]["pieces"] = 2
        sample.save()
        accept(dataset, [star, tee], as_references="whole")
        tags = {label.prediction_id: label.tags for label in labels_in(dataset, "accepted")}
        assert ["reference" in tags[star], "reference" in tags[tee]] == [False, True]
        with pytest.raises(DatasetError, match="as_references must be True or False, not 'some'"):
            accept(dataset, [star], as_references="some")

    def test_undo_leaves_a_users_own_label(self, dataset: fo.Dataset) -> None:
        sample = dataset.first()
        found = sample.predictions.detections[0]
        own = fo.Detection(label=found.label, bounding_box=found.bounding_box, mask=found.mask)
        sample["ground_truth"] = fo.Detections(detections=[own])
        sample.save()
        decision = accept(dataset, [found.id], accepted_field="ground_truth", as_references=True)
        assert labels_in(dataset, "ground_truth")[0].tags == ["reference"]
        undo(dataset, decision)
        assert [(label.id, label.tags) for label in labels_in(dataset, "ground_truth")] == [(own.id, [])]

    def test_twice_changes_nothing(self, dataset: fo.Dataset) -> None:
        every = ids_of(dataset)
        accept(dataset, every)
        before = labels_in(dataset, "accepted")
        again = accept(dataset, every)
        assert again.accepted_ids == ()
        assert labels_in(dataset, "accepted") == before
        assert undo(dataset, again) is False
        assert len(labels_in(dataset, "accepted")) == 4

    def test_the_same_object_under_a_new_id(self, dataset: fo.Dataset) -> None:
        accept(dataset, ids_of(dataset)[:1])
        segment_again(dataset, 0.01)
        assert accept(dataset, ids_of(dataset)[:1]).accepted_ids == ()
        assert len(labels_in(dataset, "accepted")) == 1

    def test_two_objects_at_one_place_are_two(self, dataset: fo.Dataset) -> None:
        sample = dataset.first()
        sample.predictions.detections.append(predicted("tee", LEFT, 0.7))
        sample.save()
        star, _, tee = ids_of(dataset[:1])
        accept(dataset, [star])
        accept(dataset, [tee])
        assert [label.label for label in labels_in(dataset, "accepted")] == ["star", "tee"]

    def test_after_reject_moves(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        reject(dataset, [star])
        accept(dataset, [star])
        assert labels_in(dataset, "rejected") == []
        assert [label.tags for label in labels_in(dataset, "accepted")] == [["odd"]]

    def test_into_labels_of_the_users_own(self, dataset: fo.Dataset) -> None:
        """Ground truth is added to, never changed: where it shows the same object nothing is copied."""
        sample = dataset.first()
        sample["ground_truth"] = fo.Detections(detections=[fo.Detection(label="star", bounding_box=LEFT)])
        sample.save()
        star, tee = ids_of(dataset[:1])
        accept(dataset, [star, tee], accepted_field="ground_truth")
        reject(dataset, [star], accepted_field="ground_truth")
        own, copy = labels_in(dataset, "ground_truth")
        assert (own.label, own.tags, own.get_attribute_value("decision", None)) == ("star", [], None)
        assert (copy.label, copy.decision) == ("tee", "accept")

    def test_many_images_and_a_hint_that_is_wrong(self, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.dataset.label_edits.IMAGES_A_WRITE", 2)
        samples = [
            fo.Sample(f"{number}.png", predictions=fo.Detections(detections=[predicted("star", LEFT, 0.9)]))
            for number in range(5)
        ]
        dataset = make_dataset(samples)
        every = ids_of(dataset)
        decision = accept(dataset, every, sample_ids=[samples[0].id, "none"])
        assert len(decision.accepted_ids) == len(labels_in(dataset, "accepted")) == 5
        assert [own[0].prediction_id for own in dataset.values("accepted.detections")] == every

    def test_a_view_is_its_dataset(self, dataset: fo.Dataset) -> None:
        accept(dataset.to_patches("predictions")[:1], ids_of(dataset)[:1])
        assert len(labels_in(dataset, "accepted")) == 1

    def test_nothing(self, dataset: fo.Dataset) -> None:
        decision = accept(dataset, [])
        assert decision == Decision("accept", "predictions", (), (), ())
        assert not dataset.has_field("accepted")

    def test_at_the_same_time(self, dataset: fo.Dataset) -> None:
        """The App executes clicks on one image in several threads."""
        first, second = ids_of(dataset[:1])
        accept(dataset, [ids_of(dataset)[2]])
        threads = [threading.Thread(target=accept, args=(dataset, [one])) for one in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {label.prediction_id for label in labels_in(dataset[:1]._dataset, "accepted")} >= {first, second}


class TestReject:
    def test_copy(self, dataset: fo.Dataset) -> None:
        tee = ids_of(dataset)[1]
        decision = reject(dataset, [tee])
        (label,) = labels_in(dataset, "rejected")
        assert (label.label, label.tags, label.decision, label.confidence) == ("tee", ["negative"], "reject", None)
        assert (decision.accepted_ids, decision.rejected_ids) == ((), (label.id,))
        assert not dataset.has_field("accepted")

    def test_after_accept_moves(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        accept(dataset, [star], as_references=True)
        reject(dataset, [star])
        assert labels_in(dataset, "accepted") == []
        assert [label.tags for label in labels_in(dataset, "rejected")] == [["odd", "negative"]]

    def test_as_another_class_at_the_same_place(self, dataset: fo.Dataset) -> None:
        """Both names were wrong: two negatives. What was accepted under a third name stays."""
        star = ids_of(dataset)[0]
        relabel(dataset, [star], "gear")
        sample = dataset.first()
        sample.predictions.detections[0] = predicted("tee", LEFT, 0.9)
        sample.save()
        reject(dataset, [sample.predictions.detections[0].id])
        assert [label.label for label in labels_in(dataset, "rejected")] == ["star", "tee"]
        assert [label.label for label in labels_in(dataset, "accepted")] == ["gear"]


class TestRelabel:
    def test_both_copies(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        decision = relabel(dataset, [star], " gear ", as_references=True)
        (right,), (wrong,) = labels_in(dataset, "accepted"), labels_in(dataset, "rejected")
        assert (right.label, right.predicted_label, right.tags) == ("gear", "star", ["odd", "reference"])
        assert (wrong.label, wrong.tags) == ("star", ["odd", "negative"])
        assert (decision.accepted_ids, decision.rejected_ids) == ((right.id,), (wrong.id,))

    def test_objects_that_have_the_name_are_only_accepted(self, dataset: fo.Dataset) -> None:
        relabel(dataset, ids_of(dataset)[:2], "tee")
        assert [label.label for label in labels_in(dataset, "accepted")] == ["tee", "tee"]
        assert [label.label for label in labels_in(dataset, "rejected")] == ["star"]

    def test_then_accept_takes_the_negative_away(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        relabel(dataset, [star], "gear")
        accept(dataset, [star])
        assert [(label.label, label.decision) for label in labels_in(dataset, "accepted")] == [("star", "accept")]
        assert labels_in(dataset, "rejected") == []

    def test_then_reject(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        relabel(dataset, [star], "gear")
        reject(dataset, [star])
        assert labels_in(dataset, "accepted") == []
        assert [(label.label, label.decision) for label in labels_in(dataset, "rejected")] == [("star", "reject")]

    @pytest.mark.parametrize("name", ["", "  "])
    def test_without_a_name(self, dataset: fo.Dataset, name: str) -> None:
        with pytest.raises(DatasetError, match="cannot name a class: give the name"):
            relabel(dataset, ids_of(dataset)[:1], name)


class TestFix:
    def test_corrections_survive_a_second_look(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        fix(dataset, star)
        sample = dataset.first()
        sample.accepted.detections[0].bounding_box = [0.1, 0.1, 0.05, 0.05]
        sample.save()
        assert accept(dataset, [star]).accepted_ids == ()
        (label,) = labels_in(dataset, "accepted")
        assert (label.decision, label.bounding_box) == ("fix", [0.1, 0.1, 0.05, 0.05])
        # Its old place is decided too, whatever the prediction is called now.
        segment_again(dataset)
        assert ids_of(dataset)[0] not in {item.label_id for item in review_queue(dataset)}


class TestUndo:
    @pytest.mark.parametrize("kind", ["accept", "reject", "relabel"])
    def test_once(self, dataset: fo.Dataset, kind: str) -> None:
        before = review_queue(dataset)
        chosen = ids_of(dataset)[:3]
        accept(dataset, ids_of(dataset)[3:])
        decide = {"accept": accept, "reject": reject, "relabel": lambda one, ids: relabel(one, ids, "gear")}[kind]
        decision = decide(dataset, chosen)
        # As the App keeps it.
        decision = Decision(**json.loads(json.dumps(dataclasses.asdict(decision))))
        assert undo(dataset, decision) is True
        assert undo(dataset, decision) is False
        assert len(labels_in(dataset, "accepted")) == 1
        assert labels_in(dataset, "rejected") == []
        assert len(review_queue(dataset)) == len(before) - 1

    def test_a_field_that_is_gone(self, dataset: fo.Dataset) -> None:
        decision = accept(dataset, ids_of(dataset))
        dataset.delete_sample_field("accepted")
        assert undo(dataset, decision) is False


class TestBadInput:
    @pytest.mark.parametrize("label_id", ["0" * 24, "no id"])
    def test_unknown_prediction(self, dataset: fo.Dataset, label_id: str) -> None:
        with pytest.raises(DatasetError) as caught:
            accept(dataset, [ids_of(dataset)[0], label_id, "another"])
        assert str(caught.value) == (
            f"The prediction {label_id!r} and 1 more are not in the field 'predictions' of dataset {dataset.name!r}: the "
            "predictions may have been updated meanwhile, so look at the present ones."
        )
        assert not dataset.has_field("accepted")

    def test_a_field_that_the_next_run_replaces(self, dataset: fo.Dataset) -> None:
        dataset.add_sample_field("similar", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        record(dataset, "similar", "refseg/similar")
        with pytest.raises(DatasetError, match=r"'similar' .* holds predictions, which the next run replaces: choose another"):
            accept(dataset, ids_of(dataset), accepted_field="similar")

    def test_fields_of_another_type(self, dataset: fo.Dataset) -> None:
        dataset.add_sample_field("lanes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
        dataset.add_sample_field("done", fo.BooleanField)
        with pytest.raises(DatasetError, match=r"'lanes' .* holds Polylines, not Detections: choose another field"):
            accept(dataset, ids_of(dataset), accepted_field="lanes")
        with pytest.raises(DatasetError, match=r"'done' .* holds BooleanField, not Detections: choose another field"):
            reject(dataset, ids_of(dataset), rejected_field="done")
        with pytest.raises(DatasetError, match=r"'lanes' .* holds Polylines, .* choose one of 'predictions'"):
            accept(dataset, ids_of(dataset), "lanes")
        # A field that this decision does not write is the user's own business.
        accept(dataset, ids_of(dataset), rejected_field="done")
        assert len(labels_in(dataset, "accepted")) == 4

    @pytest.mark.parametrize("name", ["a.b", "_hidden", "", "x$"])
    def test_names_that_no_field_can_have(self, dataset: fo.Dataset, name: str) -> None:
        with pytest.raises(DatasetError, match="cannot name a field"):
            accept(dataset, ids_of(dataset), accepted_field=name)

    def test_one_field_for_two_things(self, dataset: fo.Dataset) -> None:
        for options in ({"accepted_field": "predictions"}, {"accepted_field": "same", "rejected_field": "same"}):
            with pytest.raises(DatasetError, match="each need a field of their own: choose three names"):
                relabel(dataset, ids_of(dataset), "gear", **options)

    def test_no_such_field(self, dataset: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"'nope' .* does not exist"):
            accept(dataset, ids_of(dataset), "nope")
        with pytest.raises(DatasetError, match=r"'nope' .* does not exist"):
            review_queue(dataset, "nope")
