"""Decisions in the panel: on one object, on several, and taken back."""

from __future__ import annotations

import threading
from typing import Any

import fiftyone as fo
import pytest

from tests.operators.app_panel import choose, label_of, press, section
from tests.operators.helpers import named
from tests.operators.panel.shelf import kept, loaded


class TestDecide:
    def test_each_kind_and_back(self, shelf: fo.Dataset) -> None:
        items = section(shelf, "review")["items"]
        ids = [item["label_id"] for item in items]
        shown = press(shelf, "decide", {"kind": "accept", "item": items[0]}).data["review"]
        assert [item["label_id"] for item in shown["items"]] == ids[1:]
        press(shelf, "decide", {"kind": "reject", "item": items[1]})
        press(shelf, "decide", {"kind": "relabel", "item": items[2], "label": "gear"})
        answer = press(shelf, "decide", {"kind": "fix", "item": items[3]})
        assert answer.result is True
        assert named(answer.messages, "open_sample") == [{"id": items[3]["sample_id"], "mode": "annotate"}]
        shown = answer.data["review"]
        counts = [shown[f"num_{name}"] for name in ("open", "accepted", "rejected", "relabelled", "fixed")]
        assert counts == [2, 1, 1, 1, 1]
        assert sorted(label.label for label in kept(shelf, "accepted")).count("gear") == 1

        # The last first; the queue grows again.
        for number in (3, 4, 5, 6):
            answer = press(shelf, "undo")
            assert answer.notes == []
            assert set(answer.data) >= {"review", "references"}
            assert answer.data["review"]["num_open"] == number
        assert kept(shelf, "accepted") == kept(shelf, "rejected") == []
        assert press(shelf, "undo").error == "There is no decision to take back."

    def test_settings_count(self, shelf: fo.Dataset) -> None:
        choose(shelf, accepted_field="good", as_references=False)
        press(shelf, "decide", {"kind": "accept", "item": section(shelf, "review")["items"][0]})
        (label,) = kept(shelf, "good")
        assert label.tags == []

    def test_undo_of_what_is_gone(self, shelf: fo.Dataset) -> None:
        items = section(shelf, "review")["items"]
        for item in items[:2]:
            press(shelf, "decide", {"kind": "accept", "item": item})
        shelf.delete_labels(ids=[kept(shelf, "accepted")[-1].id], fields="accepted")
        assert press(shelf, "undo").notes == [("info", "The last decision had been taken back already.")]
        assert press(shelf, "undo").notes == []
        assert kept(shelf, "accepted") == []

    def test_a_slower_request_tells_what_was_decided_since_it_began(
        self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its dataset is older than the field of the first decision."""
        item = section(shelf, "review")["items"][0]
        background = loaded("acting").background
        real, decided = background.isolate, threading.Event()

        def isolate(ctx: Any) -> None:
            real(ctx)
            if not decided.is_set():
                decided.set()
                other = threading.Thread(target=press, args=(shelf, "decide", {"kind": "reject", "item": item}))
                other.start()
                other.join()

        monkeypatch.setattr(background, "isolate", isolate)
        shown = press(shelf, "on_change_current_sample").data["review"]
        assert (shown["num_open"], shown["num_rejected"]) == (5, 1)

    def test_only_so_many_can_be_undone(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("acting"), "DECISIONS_KEPT", 2)
        for item in section(shelf, "review")["items"][:3]:
            press(shelf, "decide", {"kind": "accept", "item": item})
        assert [press(shelf, "undo").notes for _ in range(2)] == [[], []]
        assert press(shelf, "undo").error == "There is no decision to take back."
        assert len(kept(shelf, "accepted")) == 1

    def test_a_prediction_that_is_gone_leaves_the_queue(self, shelf: fo.Dataset) -> None:
        item = section(shelf, "review")["items"][0]
        shelf.delete_labels(ids=[item["label_id"]], fields="predictions")
        answer = press(shelf, "decide", {"kind": "accept", "item": item})
        assert answer.result is None
        assert answer.error.endswith("the predictions may have been updated meanwhile, so look at the present ones.")
        assert item["label_id"] not in [other["label_id"] for other in answer.data["review"]["items"]]
        assert answer.data["review"]["num_open"] == 5
        assert kept(shelf, "accepted") == []

    @pytest.mark.parametrize(
        ("params", "text"),
        [
            ({"kind": "relabel"}, "Choose the class that it belongs to."),
            ({"kind": "relabel", "label": ""}, "Choose the class that it belongs to."),
            ({"kind": "relabel", "label": " "}, "' ' cannot name a class: give the name of what the object is."),
            ({"kind": "guess"}, "There is no decision 'guess'."),
        ],
    )
    def test_bad_input(self, shelf: fo.Dataset, params: dict[str, Any], text: str) -> None:
        item = section(shelf, "review")["items"][0]
        answer = press(shelf, "decide", {"item": item, **params})
        assert (answer.error, answer.result) == (text, None)
        assert section(shelf, "review")["num_open"] == 6
        assert press(shelf, "undo").error == "There is no decision to take back."

    def test_a_target_that_cannot_serve(self, shelf: fo.Dataset) -> None:
        shelf.add_sample_field("accepted", fo.StringField)
        answer = press(shelf, "decide", {"kind": "accept", "item": section(shelf, "review")["items"][0]})
        assert "'accepted'" in answer.error
        assert "choose another field" in answer.error


class TestDecideSelected:
    @pytest.mark.parametrize(
        ("kind", "field", "text"),
        [
            ("accept", "accepted", "Accepted 2 objects."),
            ("reject", "rejected", "Rejected 2 objects."),
            ("relabel", "accepted", "Relabelled 2 objects."),
        ],
    )
    def test_labels_of_several_fields(self, shelf: fo.Dataset, kind: str, field: str, text: str) -> None:
        sample = shelf.first()
        chosen = [label_of(sample, 0, "predictions"), label_of(sample, 1, "predictions", "alt"), label_of(sample, 0)]
        answer = press(shelf, "decide_selected", {"kind": kind, "label": "gear"}, selected_labels=chosen)
        assert answer.notes == [("success", text)]
        assert set(answer.data) >= {"review", "references"}
        assert answer.data["review"]["num_open"] == 4
        assert [label.prediction_id for label in kept(shelf, field)] == [item["label_id"] for item in chosen[:2]]
        # Taken back together.
        assert press(shelf, "undo").data["review"]["num_open"] == 6

    def test_patches(self, shelf: fo.Dataset) -> None:
        view = shelf.to_patches("predictions")
        chosen = [{"id": label_id, "type": "default"} for label_id in view.values("id")[2:5]]
        assert press(shelf, "decide_selected", {"kind": "accept"}, view=view, selected_samples=chosen).notes == [
            ("success", "Accepted 3 objects.")
        ]
        assert len(kept(shelf, "accepted")) == 3

    @pytest.mark.parametrize("field", [None, "ground_truth"])
    def test_nothing_of_the_predictions_is_selected(self, shelf: fo.Dataset, field: str | None) -> None:
        chosen = [] if field is None else [label_of(shelf.first(), 0, field)]
        text = press(shelf, "decide_selected", {"kind": "accept"}, selected_labels=chosen).error
        assert text.startswith("No object of the field 'predictions' is selected: select some in an image, or press 'Show in")

    @pytest.mark.parametrize("kind", ["fix", "guess"])
    def test_what_cannot_be_decided_of_several(self, shelf: fo.Dataset, kind: str) -> None:
        chosen = [label_of(shelf.first(), row, "predictions") for row in (0, 1)]
        text = press(shelf, "decide_selected", {"kind": kind}, selected_labels=chosen).error
        assert text == f"Of several objects one can decide 'accept', 'reject', 'relabel', not {kind!r}."
        assert kept(shelf, "accepted") == []

    def test_one_is_gone(self, shelf: fo.Dataset) -> None:
        chosen = [label_of(shelf.first(), 0, "predictions"), label_of(shelf.first(), 1, "predictions") | {"label_id": "0" * 24}]
        answer = press(shelf, "decide_selected", {"kind": "accept"}, selected_labels=chosen)
        assert "is not in the field 'predictions'" in answer.error
        assert kept(shelf, "accepted") == []


def scores_of(dataset: fo.Dataset) -> list[float]:
    """Scores of the predictions that were accepted."""
    scores = dict(
        zip(*dataset.values(["predictions.detections.id", "predictions.detections.confidence"], unwind=True), strict=True)
    )
    return sorted(scores[label.prediction_id] for label in kept(dataset, "accepted"))


class TestAcceptAbove:
    @pytest.fixture
    def scored(self, shelf: fo.Dataset) -> fo.Dataset:
        for sample in shelf:
            for label, score in zip(sample.predictions.detections, (0.29, 0.58, 1.0), strict=True):
                label.confidence = score
            sample.save()
        return shelf

    def test_as_many_as_the_histogram_counts(self, scored: fo.Dataset) -> None:
        counts = press(scored, "scores").result["counts"]
        assert {number: count for number, count in enumerate(counts) if count} == {29: 2, 58: 2, 100: 2}
        answer = press(scored, "accept_above", {"least": 58})
        assert (answer.result, answer.notes) == ({"num": 4}, [("success", "Accepted 4 objects.")])
        assert answer.data["review"]["num_open"] == 2
        assert scores_of(scored) == [0.58, 0.58, 1.0, 1.0]
        assert sum(press(scored, "scores").result["counts"]) == 2

        # One decision.
        assert press(scored, "undo").data["review"]["num_open"] == 6
        assert kept(scored, "accepted") == []

    def test_of_one_class(self, scored: fo.Dataset) -> None:
        assert sum(press(scored, "scores", {"label": "$c"}).result["counts"]) == 2
        assert press(scored, "accept_above", {"label": "$c", "least": 0}).result == {"num": 2}
        assert {label.label for label in kept(scored, "accepted")} == {"$c"}
        text = "No prediction of the class '$c' that nobody has decided on has a score of 0.00 or more."
        assert press(scored, "accept_above", {"label": "$c", "least": 0}).error == text
        assert sum(press(scored, "scores", {"label": "nope"}).result["counts"]) == 0

    def test_the_best_where_there_are_too_many(self, scored: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("reviewing"), "MOST_AT_ONCE", 2)
        assert press(scored, "scores").result["most"] == 2
        assert press(scored, "accept_above", {"least": 0}).result == {"num": 2}
        assert scores_of(scored) == [1.0, 1.0]

    def test_decisions_that_are_kept_have_an_end(self, scored: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kept together they must fit into one document: of the oldest the objects stay decided."""
        monkeypatch.setattr(loaded("acting"), "OBJECTS_KEPT", 3)
        press(scored, "accept_above", {"least": 58})
        press(scored, "accept_above", {"least": 0})
        assert press(scored, "undo").data["review"]["num_open"] == 2
        assert press(scored, "undo").error == "There is no decision to take back."
        assert len(kept(scored, "accepted")) == 4
