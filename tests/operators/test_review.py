"""Deciding on predictions: from Python and from the App's selections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.demo.world import NOVEL_PARTS
from tests.operators.deciding import decided, picked
from tests.operators.helpers import call, form_of, named, problems_of, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


class TestReview:
    def test_from_python_and_back(self, predicted: fo.Dataset) -> None:
        ids = [label.id for label in predicted.first().predictions.detections]
        result = call("review", predicted, "accept", ids, as_references=True)
        assert (result["kind"], result["field"], result["num_predictions"]) == ("accept", "predictions", len(ids))
        labels = decided(predicted, "accepted")
        assert [label.id for label in labels] == result["written"]["accepted_ids"]
        assert {tag for label in labels for tag in label.tags} == {"reference"}
        assert call("review", predicted, "undo", written=result["written"])["undone"] is True
        assert call("review", predicted, "undo", written=result["written"])["undone"] is False
        assert decided(predicted, "accepted") == []

    def test_other_decisions_and_fields(self, predicted: fo.Dataset) -> None:
        first, second, third = predicted.values("predictions.detections.id", unwind=True)[:3]
        call("review", predicted[:1], "reject", [first], rejected_field="wrong")
        call("review", predicted, "relabel", [second], label="gear", accepted_field="right", rejected_field="wrong")
        call("review", predicted, "fix", [third], accepted_field="right")
        assert [label.decision for label in decided(predicted, "right")] == ["relabel", "fix"]
        assert [label.decision for label in decided(predicted, "wrong")] == ["reject", "relabel"]

    def test_labels_selected_in_the_app(self, predicted: fo.Dataset) -> None:
        messages = run_in_app(predicted, "review", {"decision": "reject"}, selected_labels=picked(predicted.last()))
        number = len(predicted.last().predictions.detections)
        assert len(decided(predicted, "rejected")) == number
        assert [message["operator_uri"] for message in messages][-2:] == ["reload_dataset", "notify"]
        text = f"Rejected {number} predictions, now in the field 'rejected'."
        assert named(messages, "notify") == [{"message": text, "variant": "success"}]

    def test_patches_selected_in_the_app(self, predicted: fo.Dataset) -> None:
        view = predicted.to_patches("predictions")
        chosen = view.limit(2).values("id")
        messages = run_in_app(predicted, "review", {"decision": "relabel", "label": "gear"}, view=view, selected=chosen)
        assert [label.prediction_id for label in decided(predicted, "accepted")] == chosen
        assert named(messages, "notify")[0]["message"] == "Renamed 2 predictions, now in the field 'accepted'."

    def test_undo_in_the_app(self, predicted: fo.Dataset) -> None:
        ids = predicted.values("predictions.detections.id", unwind=True)
        written = call("review", predicted, "accept", ids)["written"]
        params = {"decision": "undo", "written": written}
        assert form_of(predicted, "review", params)["selection"]["view"]["label"] == f"To be removed: {len(ids)} labels"
        texts = [named(run_in_app(predicted, "review", params), "notify")[0]["message"] for _ in range(2)]
        assert texts == ["The decision is undone.", "There was nothing to undo: its labels are gone, or decided on anew."]

    def test_predictions_that_are_gone(self, predicted: fo.Dataset) -> None:
        messages = run_in_app(predicted, "review", {"label_ids": ["0" * 24]})
        (note,) = named(messages, "notify")
        assert note["variant"] == "error"
        assert "the predictions may have been updated meanwhile" in note["message"]

    @pytest.mark.parametrize(
        ("params", "field", "words"),
        [
            ({"label_ids": []}, "selection", "No prediction is selected: select some in an image, or patches in the grid."),
            ({"decision": "guess"}, "decision", "Decision must be one of 'accept', 'reject', 'relabel', 'fix', not 'guess'."),
            ({"decision": "undo"}, "decision", "Decision must be one of 'accept', 'reject', 'relabel', 'fix', not 'undo'."),
            ({"decision": "undo", "written": {"kind": "accept"}}, "selection", "To undo a decision, give the 'written' of its"),
            ({"decision": "relabel", "label_ids": ["7f"]}, "label", "Give the name of what the object is."),
            ({"decision": "relabel", "label_ids": ["7f"], "label": " "}, "label", "Give the name of what the object is."),
            (
                {"decision": "fix", "label_ids": ["7f", "7e"]},
                "selection",
                "One prediction at a time is corrected by hand, not 2",
            ),
            ({"label_ids": ["7f"], "field": "ground_truth"}, "field", "Predictions must be one of 'predictions', not 'ground"),
            ({"label_ids": ["7f"], "accepted_field": "a.b"}, "accepted_field", "'a.b' cannot name a field: use letters"),
            ({"label_ids": ["7f"], "accepted_field": "predictions"}, "accepted_field", "The field 'predictions' holds predic"),
            (
                {"label_ids": ["7f"], "accepted_field": "filepath"},
                "accepted_field",
                "The field 'filepath' holds something else",
            ),
            ({"label_ids": ["7f"], "accepted_field": "rejected"}, "accepted_field", "Accepted and rejected labels need fields"),
            ({"decision": "reject", "label_ids": ["7f"], "rejected_field": "_a"}, "rejected_field", "'_a' cannot name a field"),
        ],
    )
    def test_bad_values(self, predicted: fo.Dataset, params: dict[str, Any], field: str, words: str) -> None:
        problems = problems_of(form_of(predicted, "review", params))
        assert problems[field].startswith(words)
        with pytest.raises(ExecutionError) as caught:
            foo.execute_operator(uri("review"), {"dataset": predicted, "params": params})
        assert problems[field] in str(caught.value)

    def test_no_predictions(self, parts: fo.Dataset) -> None:
        sentence = f"The dataset {parts.name!r} holds no predictions yet: run 'Segment' first."
        assert problems_of(form_of(parts, "review"))["field"] == sentence


@pytest.mark.parametrize("name", ["review", "update"])
def test_bad_datasets(name: str, dataset: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
    assert problems_of(form_of(None, name)) == {"dataset_problem": "No dataset is open: open one first."}
    assert problems_of(form_of(dataset, name)) == {
        "dataset_problem": f"The dataset {dataset.name!r} is empty: add images first."
    }
    assert "dataset_problem" in problems_of(form_of(make_dataset([fo.Sample("a.mp4")]), name))
