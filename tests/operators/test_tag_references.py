"""Tagging references among predictions: from Python and from the App."""

from __future__ import annotations

import fiftyone as fo

from tests.operators.deciding import decided, picked
from tests.operators.helpers import call, named, run_in_app


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
