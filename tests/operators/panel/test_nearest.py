"""References beside an object under review: the nearest, and where nothing tells which those are, the most typical."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from refseg.dataset.index_finding import open_index
from tests.operators.app_panel import press, section
from tests.operators.panel.test_suggested import segmented

__all__ = ["segmented"]


def wanted(dataset: fo.Dataset) -> list[dict[str, Any]]:
    return [
        {name: item[name] for name in ("label_id", "sample_id", "label", "runner_up")}
        for item in section(dataset, "review")["items"]
    ]


def test_the_nearest(segmented: fo.Dataset) -> None:
    asked = wanted(segmented)
    answer = press(segmented, "nearest", {"wanted": asked})
    assert answer.notes == []
    assert answer.result.keys() == {item["label_id"] for item in asked}
    references = {label.id: label.label for label in segmented.first().ground_truth.detections}
    for item in asked:
        shown = answer.result[item["label_id"]]
        assert shown["short"] == "Most like"
        assert [entry["name"] for entry in shown["classes"]] == [item["label"], item["runner_up"]]
        for entry in shown["classes"]:
            assert {references[one["id"]] for one in entry["items"]} == {entry["name"]}
            assert all(one["field"] == "ground_truth" and -1 <= one["similarity"] <= 1 for one in entry["items"])


def test_the_most_typical_without_an_index(segmented: fo.Dataset) -> None:
    open_index(segmented, "demo").delete()
    item = wanted(segmented)[0]
    shown = press(segmented, "nearest", {"wanted": [item]}).result[item["label_id"]]
    assert shown["short"] == "Typical"
    ((name, items), _) = [(entry["name"], entry["items"]) for entry in shown["classes"]]
    assert name == item["label"]
    assert [one["similarity"] for one in items] == [None] * len(items) != []


def test_a_reference_that_is_none_any_more_is_not_shown(segmented: fo.Dataset) -> None:
    item = wanted(segmented)[0]
    segmented.first()
    segmented.untag_labels("reference", label_fields="ground_truth")
    shown = press(segmented, "nearest", {"wanted": [item]}).result[item["label_id"]]
    assert [entry["items"] for entry in shown["classes"]] == [[], []]
