"""Decisions of two users, each with a dataset object of its own, one of them older than what the other did."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset.contradictions import require_no_contradictions
from refseg.errors import BadReferenceError, DatasetError
from refseg.review.deciding import Decision
from refseg.review.decisions import accept, fix, reject, relabel, undo
from refseg.review.queue import review_queue, summarize
from tests.at_once import at_once, other_process
from tests.review.predictions import LEFT, RIGHT, ids_of, labels_in, predicted, record, segment_again

MakeDataset = Callable[..., fo.Dataset]


def decided(dataset: fo.Dataset) -> dict[str, list[str]]:
    """In which fields each prediction has a copy."""
    found: dict[str, list[str]] = {}
    for field in ("accepted", "rejected"):
        for label in labels_in(dataset, field):
            found.setdefault(label.prediction_id, []).append(field)
    return found


@pytest.fixture
def older(dataset: fo.Dataset) -> fo.Dataset:
    """The dataset as another process loaded it before anything was decided."""
    return other_process(dataset)


def before_writing(monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """Let something happen once between the reading of a decision and its writing."""
    from refseg.dataset import label_edits

    whole, waiting = label_edits.write_edits, [do]

    def late(*args: Any) -> Any:
        while waiting:
            waiting.pop()()
        return whole(*args)

    monkeypatch.setattr(label_edits, "write_edits", late)


class TestAnOlderObject:
    """FiftyOne knows the fields of the moment when a dataset was loaded."""

    def test_the_later_decision_counts(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        every = ids_of(dataset)
        accept(dataset, every)
        decision = reject(older, every)
        assert decided(dataset) == {one: ["rejected"] for one in every}
        assert decision.describe_replaced() == "This replaces 4 earlier decisions: 4 accepted."
        assert {(one.field, one.decision, one.is_gone) for one in decision.replaced} == {("accepted", "accept", True)}
        assert [one.prediction_id for one in decision.replaced] == every

    def test_it_keeps_the_fields_of_others(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        accept(dataset, ids_of(dataset)[:1])
        reject(older, ids_of(dataset)[1:2])
        assert {"accepted", "rejected"} <= set(other_process(dataset).get_field_schema())

    def test_the_queue_and_the_summary_know_what_others_decided(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        accept(dataset, ids_of(dataset)[:3])
        assert [item.label_id for item in review_queue(older)] == ids_of(dataset)[3:]
        assert summarize(other_process(dataset)).num_accepted == summarize(older).num_accepted == 3

    def test_what_is_in_memory_and_not_saved_stays(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        sample = dataset.first()
        sample["note"] = "not saved"
        accept(older, ids_of(dataset)[2:3])
        review_queue(dataset)
        assert sample.note == "not saved"

    def test_labels_changed_meanwhile_are_kept(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        star, tee = ids_of(dataset[:1])
        accept(dataset, [star])
        held = older.first()
        sample = other_process(dataset).first()
        sample.accepted.detections[0].bounding_box = [0.3, 0.3, 0.1, 0.1]
        sample.save()
        accept(older, [tee])
        assert held.id == sample.id
        assert [label.bounding_box for label in labels_in(dataset, "accepted")] == [[0.3, 0.3, 0.1, 0.1], RIGHT]


class TestUndo:
    def test_brings_back_what_was_replaced(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        reject(dataset, [star])
        before = labels_in(dataset, "rejected")
        decision = accept(dataset, [star])
        assert (decided(dataset), decision.describe_replaced()) == (
            {star: ["accepted"]},
            "This replaces 1 earlier decision: 1 rejected.",
        )
        # As the App keeps it.
        assert undo(dataset, Decision(**json.loads(json.dumps(dataclasses.asdict(decision))))) is True
        after = labels_in(dataset, "rejected")
        assert [label.to_dict() for label in after] == [label.to_dict() for label in before]
        assert labels_in(dataset, "accepted") == []

    @pytest.mark.parametrize("first", [accept, reject, lambda one, ids: relabel(one, ids, "gear")])
    @pytest.mark.parametrize(
        "second",
        [
            accept,
            reject,
            lambda one, ids: relabel(one, ids, "gear"),
            lambda one, ids: relabel(one, ids, "bolt", as_references=True),
            lambda one, ids: fix(one, ids[0]),
        ],
    )
    @pytest.mark.sampled(3)
    def test_is_the_way_back(self, dataset: fo.Dataset, first: Callable[..., Any], second: Callable[..., Any]) -> None:
        star = ids_of(dataset)[0]
        first(dataset, [star])
        before = {field: [label.to_dict() for label in labels_in(dataset, field)] for field in ("accepted", "rejected")}
        undo(dataset, second(dataset, [star]))
        assert {field: [label.to_dict() for label in labels_in(dataset, field)] for field in before} == before

    def test_a_later_decision_stays(self, dataset: fo.Dataset, older: fo.Dataset) -> None:
        star, tee, *_ = ids_of(dataset)
        reject(dataset, [star])
        mine = accept(dataset, [star, tee])
        theirs = reject(older, [star])
        # Mine is replaced in one object and stands in the other.
        assert undo(dataset, mine) is True
        assert decided(dataset) == {star: ["rejected"]}
        assert len(labels_in(dataset, "rejected")) == 1
        assert undo(older, theirs) is True
        assert decided(dataset) == {star: ["accepted"]}

    def test_a_field_that_is_gone_comes_back_for_what_was_replaced(self, dataset: fo.Dataset) -> None:
        star = ids_of(dataset)[0]
        reject(dataset, [star])
        decision = accept(dataset, [star])
        dataset.delete_sample_field("rejected")
        assert undo(dataset, decision) is True
        assert [label.label for label in labels_in(dataset, "rejected")] == ["star"]

    def test_what_no_decision_wrote_is_not_removed(self, dataset: fo.Dataset) -> None:
        """A browser can send any ids."""
        star = ids_of(dataset)[0]
        crafted = Decision(
            "accept", "predictions", [star], [], [], accepted_field="predictions", sample_ids=[dataset.first().id]
        )
        assert undo(dataset, crafted) is False
        assert star in ids_of(dataset)

    @pytest.mark.parametrize(
        "replaced",
        [
            [{"sample_id": "x"}],
            ["no label"],
            [{**dict.fromkeys(("sample_id", "field", "label_id", "prediction_id"), "x"), "by": [], "values": "{}"}],
            [
                {
                    "sample_id": "0" * 24,
                    "field": "accepted",
                    "label_id": "0" * 24,
                    "prediction_id": "0" * 24,
                    "label": "star",
                    "decision": "accept",
                    "by": [],
                    "is_gone": True,
                    "values": '{"_id": 3}',
                }
            ],
        ],
    )
    def test_what_never_was_replaced(self, replaced: list[Any]) -> None:
        with pytest.raises(DatasetError, match=r"an item of replaced, cannot be .*: pass what refseg\.accept"):
            Decision("accept", "predictions", (), (), (), replaced=replaced)


class TestOneWrite:
    """A kill between two writes would leave half of a decision, so there is one."""

    @pytest.mark.parametrize("kind", ["relabel", "reject after accept"])
    def test_both_fields_change_at_once(self, dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        star = ids_of(dataset)[0]
        if kind != "relabel":
            accept(dataset, [star])
        writes = []
        collection = type(dataset._sample_collection)
        whole = collection.bulk_write

        def counted(self: Any, requests: Any, *args: Any, **options: Any) -> Any:
            writes.append((len(requests), self.write_concern.document))
            return whole(self, requests, *args, **options)

        monkeypatch.setattr(collection, "bulk_write", counted)
        relabel(dataset, [star], "gear") if kind == "relabel" else reject(dataset, [star])
        # Acknowledged once the journal has it.
        assert writes == [(1, {"w": "majority", "wtimeout": 60_000, "j": True})]
        assert decided(dataset)[star] == (["accepted", "rejected"] if kind == "relabel" else ["rejected"])

    def test_an_image_that_changes_meanwhile_is_looked_at_again(
        self, dataset: fo.Dataset, older: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        star, tee, *others = ids_of(dataset)
        before_writing(monkeypatch, lambda: accept(older, [star]))
        decision = reject(dataset, [star, tee, *others])
        assert decided(dataset) == {one: ["rejected"] for one in (star, tee, *others)}
        assert len(decision.rejected_ids) == 4
        assert [(one.prediction_id, one.decision) for one in decision.replaced] == [(star, "accept")]

    def test_what_is_undone_is_decided_otherwise_meanwhile(
        self, dataset: fo.Dataset, older: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The label is the same one, and says something else."""
        star = ids_of(dataset)[0]
        decision = accept(dataset, [star])
        before_writing(monkeypatch, lambda: fix(older, star))
        assert undo(dataset, decision) is False
        assert [label.decision for label in labels_in(dataset, "accepted")] == ["fix"]

    def test_predictions_that_are_replaced_meanwhile(self, dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        every = ids_of(dataset)
        before_writing(monkeypatch, lambda: segment_again(dataset))
        with pytest.raises(DatasetError, match="the predictions may have been updated meanwhile"):
            accept(dataset, every)
        assert labels_in(dataset, "accepted") == []

    def test_an_image_that_others_change_all_the_time(self, dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.dataset.label_edits.write_edits", lambda dataset, edits: set(edits))
        with pytest.raises(DatasetError, match=r"Others keep changing the labels of the image [0-9a-f]{24} "):
            accept(dataset, ids_of(dataset)[:1])

    def test_a_class_with_a_name_like_a_field(self, dataset: fo.Dataset) -> None:
        """MongoDB would take it for the value of the field."""
        star = ids_of(dataset)[0]
        relabel(dataset, [star], "$filepath")
        assert [label.label for label in labels_in(dataset, "accepted")] == ["$filepath"]
        accept(dataset, [star])
        undo(dataset, relabel(dataset, [star], "$$ROOT"))
        assert [label.label for label in labels_in(dataset, "accepted")] == ["star"]


def decide_on_all(dataset: fo.Dataset, kind: str, times: int) -> list[str]:
    """Decide on every prediction, again and again; what failed."""
    errors = []
    for _ in range(times):
        try:
            {"accept": accept, "reject": reject}[kind](dataset, ids_of(dataset))
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


@pytest.mark.thorough
def test_accept_all_beside_reject_all(make_dataset: MakeDataset) -> None:
    """Neither field is there when both begin; each object ends in one of the two."""
    images = [
        fo.Sample(
            f"{number}.png", predictions=fo.Detections(detections=[predicted("star", LEFT, 0.9), predicted("tee", RIGHT, 0.6)])
        )
        for number in range(26)
    ]
    dataset = make_dataset(persistent=True)
    dataset.add_samples(images, dynamic=True, progress=False)
    record(dataset)
    assert at_once(decide_on_all, dataset.name, ("accept", 5), ("reject", 5)) == [[], []]
    assert Counter(len(fields) for fields in decided(dataset).values()) == {1: 52}
    require_no_contradictions(other_process(dataset), ["accepted"], "rejected")


class TestContradictions:
    """What processes of earlier versions, or copies of labels, have left in both fields."""

    @pytest.fixture
    def torn(self, dataset: fo.Dataset) -> fo.Dataset:
        accept(dataset, ids_of(dataset)[:1])
        (label,) = labels_in(dataset, "accepted")
        other = label.copy()
        sample = dataset.first()
        sample["rejected"] = fo.Detections(detections=[other])
        sample.save()
        return dataset

    def test_are_refused(self, torn: fo.Dataset) -> None:
        (label,), (other,) = labels_in(torn, "accepted"), labels_in(torn, "rejected")
        with pytest.raises(BadReferenceError) as caught:
            require_no_contradictions(torn, ["accepted", "rejected"], "rejected")
        assert str(caught.value) == (
            f"The object 'star' in {Path(torn.first().filepath).name} ({label.id}) in the field 'accepted' of dataset "
            f"{torn.name!r} is rejected too, as {other.id} in 'rejected': decide on it again, or delete one of the two labels."
        )

    def test_deciding_again_mends_them(self, torn: fo.Dataset) -> None:
        reject(torn, ids_of(torn)[:1])
        require_no_contradictions(torn, ["accepted", "rejected"], "rejected")
        assert decided(torn) == {ids_of(torn)[0]: ["rejected"]}

    def test_under_another_id_at_the_same_place(self, torn: fo.Dataset) -> None:
        sample = torn.first()
        sample.rejected.detections[0]["prediction_id"] = "f" * 24
        sample.save()
        with pytest.raises(BadReferenceError, match="is rejected too"):
            require_no_contradictions(torn, ["accepted"], "rejected")
        sample.rejected.detections[0]["predicted_box"] = sample.rejected.detections[0].bounding_box = RIGHT
        sample.save()
        require_no_contradictions(torn, ["accepted"], "rejected")

    def test_another_name_is_none(self, dataset: fo.Dataset) -> None:
        relabel(dataset, ids_of(dataset)[:1], "gear")
        require_no_contradictions(dataset, ["accepted"], "rejected")
