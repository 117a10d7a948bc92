"""Suggested references in the panel: when they can be asked for, one press, and taken back."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import pytest

import refseg
from tests.operators.app_panel import choose, press, run_job, section
from tests.operators.panel.shelf import kept
from tests.operators.panel.tagging import index_and_choose, learn, tag

NOTHING = {"is_possible": False, "was_asked": False, "num_found": 0, "num_open": 0, "classes": []}


@pytest.fixture
def segmented(trays: fo.Dataset) -> fo.Dataset:
    """Four trays with predictions and an index; the objects of the first are references."""
    tag(trays[:1], "reference")
    learn(trays)
    index_and_choose(trays)
    refseg.segment(trays, "parts", num_workers=0, progress=False)
    trays.reload()
    return trays


def place(item: dict[str, Any]) -> dict[str, str]:
    return {"label_id": item["id"], "sample_id": item["sample_id"]}


def items_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for entry in shown["classes"] for item in entry["items"]]


def test_asked_for_used_and_taken_back(segmented: fo.Dataset) -> None:
    assert section(segmented, "suggested") == NOTHING | {"is_possible": True}
    answer = run_job(segmented, "suggest")
    expected = refseg.suggest_references(segmented, progress=False)
    assert len(expected) == 2
    assert answer.notes == [("success", "2 suggested references of 2 classes: use those that are right.")]
    assert "set_view" not in answer.operators
    shown = answer.data["suggested"]
    assert (shown["was_asked"], shown["num_found"], shown["num_open"]) == (True, 2, 2)
    assert [entry["name"] for entry in shown["classes"]] == sorted(item.label for item in expected)
    by_id = {item.label_id: item for item in expected}
    for item in items_of(shown):
        one = by_id[item["id"]]
        assert item == {
            "id": one.label_id,
            "sample_id": one.sample_id,
            "field": "predictions",
            "score": round(one.score, 3),
            "reason": one.reason,
        }
    wanted = [{name: item[name] for name in ("id", "field", "sample_id")} for item in items_of(shown)]
    assert press(segmented, "pictures", {"wanted": wanted}).result.keys() == by_id.keys()

    # They become references, whatever is chosen for all else that is accepted.
    choose(segmented, as_references=False)
    first, second = items_of(shown)
    answer = press(segmented, "decide", {"kind": "accept", "items": [place(first)], "as_references": True})
    (label,) = kept(segmented, "accepted")
    assert (label.prediction_id, label.tags) == (first["id"], ["reference"])
    assert items_of(answer.data["suggested"]) == [second]
    assert answer.data["references"]["num_references"] == 3
    assert answer.data["review"]["num_accepted"] == 1

    answer = press(segmented, "undo")
    assert kept(segmented, "accepted") == []
    assert items_of(answer.data["suggested"]) == [first, second]

    # All at once are taken back at once.
    press(segmented, "decide", {"kind": "accept", "items": [place(first), place(second)], "as_references": True})
    shown = section(segmented, "suggested")
    assert (shown["was_asked"], shown["num_found"], shown["num_open"], len(kept(segmented, "accepted"))) == (True, 2, 0, 2)
    assert items_of(press(segmented, "undo").data["suggested"]) == [first, second]

    # One that is reviewed is not suggested any more either.
    answer = press(segmented, "decide", {"kind": "reject", "item": place(first)})
    assert items_of(answer.data["suggested"]) == [second]

    # What a run before was asked says nothing of this one.
    refseg.segment(segmented, "parts", num_workers=0, progress=False)
    assert section(segmented, "suggested") == NOTHING | {"is_possible": True}


def test_objects_accepted_in_the_chosen_field_are_not_suggested(segmented: fo.Dataset) -> None:
    choose(segmented, accepted_field="checked")
    first, _ = refseg.suggest_references(segmented, progress=False)
    press(segmented, "decide", {"kind": "accept", "item": {"label_id": first.label_id, "sample_id": first.sample_id}})
    shown = run_job(segmented, "suggest").data["suggested"]
    assert first.label_id not in {item["id"] for item in items_of(shown)}
    assert shown["num_found"] == 1


def test_shown_where_there_is_something_to_suggest_from(segmented: fo.Dataset, shelf: fo.Dataset) -> None:
    assert section(shelf, "suggested") == NOTHING, "its run has not ended, and it has no index"
    (key,) = segmented.list_runs(method="refseg/segment")
    config = segmented.get_run_info(key).config
    config.state = "failed"
    segmented.update_run_config(key, config)
    assert section(segmented, "suggested") == NOTHING
    config.state = "completed"
    segmented.update_run_config(key, config)
    assert section(segmented, "suggested")["is_possible"]
    choose(segmented, label_field="others")
    assert section(segmented, "suggested") == NOTHING
    choose(segmented, label_field="predictions")
    refseg.open_index(segmented).delete()
    assert section(segmented, "suggested") == NOTHING


def test_suggestions_that_were_replaced(segmented: fo.Dataset) -> None:
    items = items_of(run_job(segmented, "suggest").data["suggested"])
    segmented.delete_labels(ids=[items[0]["id"]], fields="predictions")
    answer = press(segmented, "decide", {"kind": "accept", "items": [place(item) for item in items], "as_references": True})
    assert answer.error.endswith("the predictions may have been updated meanwhile, so look at the present ones.")
    assert items_of(answer.data["suggested"]) == items[1:]
    assert kept(segmented, "accepted") == []
