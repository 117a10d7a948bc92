"""Deciding on predictions and learning from it: from Python, from the App's selections, and as a delegated job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.demo.world import NOVEL_PARTS
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


@pytest.fixture
def predicted(parts: fo.Dataset) -> fo.Dataset:
    """Predictions as a run of segment writes them: the ground truth, under its own name."""
    values = {}
    for sample in parts:
        copies = [label.copy() for label in sample.ground_truth.detections]
        for label in copies:
            label.confidence, label.tags = 0.8, []
        values[sample.id] = fo.Detections(detections=copies)
    parts.add_sample_field("predictions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    parts.set_values("predictions", values, key_field="id")
    run = parts.init_run(method="refseg/segment", label_field="predictions", classes=CLASSES, min_confidence=0.5)
    parts.register_run("run", run)
    return parts


def picked(sample: fo.Sample, field: str = "predictions") -> list[dict[str, str]]:
    return [{"label_id": label.id, "sample_id": sample.id, "field": field} for label in sample[field].detections]


def decided(dataset: fo.Dataset, field: str) -> list[fo.Detection]:
    dataset.reload()
    return dataset.values(f"{field}.detections", unwind=True) if dataset.has_field(field) else []


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
        assert texts == ["The decision is undone.", "There was nothing to undo: its labels are gone already."]

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


class TestTag:
    def test_predictions_are_copied(self, predicted: fo.Dataset) -> None:
        sample = predicted.last()
        ids = [label.id for label in sample.predictions.detections]
        result = call("tag_references", predicted, "predictions", label_ids=ids[:1])
        assert result == {"field": "accepted", "tag": "reference", "num_labels": 1, "untagged": False}
        (label,) = decided(predicted, "accepted")
        assert (label.prediction_id, label.tags) == (ids[0], ["reference"])
        result = call("tag_references", predicted, "predictions", label_ids=ids[1:], tag="mine", negative=True)
        assert (result["field"], result["num_labels"]) == ("rejected", len(ids) - 1)
        assert all(label.tags == ["negative", "mine"] for label in decided(predicted, "rejected"))
        assert predicted.count_label_tags(label_fields="predictions") == {}

    def test_own_labels_are_tagged_in_place_and_never_both(self, parts: fo.Dataset) -> None:
        sample = parts.first()
        messages = run_in_app(parts, "tag_references", {"negative": True}, selected_labels=picked(sample, "ground_truth"))
        assert {tag for label in parts.first().ground_truth.detections for tag in label.tags} == {"negative"}
        assert named(messages, "notify")[0]["message"] == "Tagged as 'negative': 2 objects."
        run_in_app(parts, "tag_references", {}, selected_labels=picked(sample, "ground_truth"))
        parts.reload()
        assert {tag for label in parts.first().ground_truth.detections for tag in label.tags} == {"reference"}

    def test_copies_in_the_app(self, predicted: fo.Dataset) -> None:
        params = {"field": "predictions"}
        messages = run_in_app(predicted, "tag_references", params, selected_labels=picked(predicted.first()))
        assert named(messages, "notify")[0]["message"] == (
            "Tagged as 'reference': 2 objects. They are copies in the field 'accepted', because the next run replaces the "
            "predictions."
        )
        assert "reload_dataset" in [message["operator_uri"] for message in messages]


class TestUpdate:
    def test_from_python(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes, "parts", min_confidence=0.0, max_detections=2)
        with_prototypes.reload()
        wrong = with_prototypes.last().predictions.detections[0].id
        call("review", with_prototypes, "reject", [wrong])
        result = call("update", with_prototypes, tag="reference")
        assert result["prototypes"] == "parts"
        assert result["classes"] == CLASSES
        # The fixture's prototypes were built without labels of the dataset.
        assert (len(result["references_added"]), len(result["references_removed"])) == (4, 2)
        assert len(result["negatives_added"]) == 1
        assert (result["reused"], result["skipped"]) == (0, [])
        assert result["segmentation"]["num_from_index"] == 4
        assert result["segmentation"]["changes"].keys() >= {"gained", "lost", "relabelled", "num_samples", "sample_ids"}

    def test_in_the_app(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes, "parts", "found", min_confidence=0.0)
        texts = []
        for _ in range(2):
            messages = run_in_app(with_prototypes, "update", {"label_field": "found"})
            order = [message["operator_uri"] for message in messages]
            assert order[-2:] == ["reload_dataset", "notify"]
            assert named(messages, "set_progress")[-1] == {"label": "images: 4 of 4", "progress": 1.0}
            texts.append(named(messages, "notify")[0]["message"])
        assert texts[0].startswith("Prototypes 'parts': 4 references added, 2 references removed. ")
        assert texts[1].startswith("Prototypes 'parts': the same references and negatives. ")
        assert "Nothing has changed since the last run." in texts[1]

    def test_delegated(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes[:2], "parts")
        with_prototypes.reload()
        execution = foo.get_operator(uri("update"))(with_prototypes, delegate=True)
        done = run_delegated(execution)
        assert done.run_state == "completed"
        assert done.status.label == "images: 2 of 2"
        assert done.result.result["segmentation"]["num_images"] == 2

    def test_error_is_a_sentence(self, predicted: fo.Dataset) -> None:
        messages = run_in_app(predicted, "update", {"tag": "nobody"})
        (note,) = named(messages, "notify")
        assert note["variant"] == "error"
        assert note["message"].startswith(f"No object of dataset {predicted.name!r} carries the tag 'nobody' (looked in ")

    @pytest.mark.parametrize(
        ("params", "field", "words"),
        [
            ({"label_field": "ground_truth"}, "label_field", "Predictions must be one of 'predictions', not 'ground_truth'."),
            ({"tag": " "}, "tag", "The tag must not be blank."),
            ({"negative_tag": " "}, "negative_tag", "The tag must not be blank."),
            ({"negative_tag": "reference"}, "same_tag", "References and negatives need different tags."),
        ],
    )
    def test_bad_values(self, predicted: fo.Dataset, params: dict[str, Any], field: str, words: str) -> None:
        problems = problems_of(form_of(predicted, "update", params))
        assert problems[field].startswith(words)

    def test_no_predictions(self, parts: fo.Dataset) -> None:
        sentence = f"The dataset {parts.name!r} holds no predictions yet: run 'Segment' first."
        assert problems_of(form_of(parts, "update"))["label_field"] == sentence


@pytest.mark.parametrize("name", ["review", "update"])
def test_bad_datasets(name: str, dataset: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
    assert problems_of(form_of(None, name)) == {"dataset_problem": "No dataset is open: open one first."}
    assert problems_of(form_of(dataset, name)) == {
        "dataset_problem": f"The dataset {dataset.name!r} is empty: add images first."
    }
    assert "dataset_problem" in problems_of(form_of(make_dataset([fo.Sample("a.mp4")]), name))
