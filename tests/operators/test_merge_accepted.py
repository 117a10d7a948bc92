"""Merging accepted objects from Python, in the App and by the delegated service, and taking it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri


@pytest.fixture
def accepted(predicted: fo.Dataset) -> fo.Dataset:
    """Eight predictions, which are the ground truth, all accepted."""
    call("review", predicted, "accept", predicted.values("predictions.detections.id", unwind=True))
    predicted.reload()
    return predicted


def count_in(dataset: fo.Dataset, field: str) -> int:
    dataset.reload()
    return int(dataset.count(f"{field}.detections")) if dataset.has_field(field) else 0


def test_from_python_and_back(accepted: fo.Dataset) -> None:
    number = count_in(accepted, "accepted")
    result = call("merge_accepted", accepted)
    assert (result["into"], result["num_accepted"], result["num_there"], result["num_added"]) == (
        "ground_truth",
        number,
        number,
        0,
    )
    result = call("merge_accepted", accepted.limit(2), "reviewed", iou=0.9)
    assert count_in(accepted, "reviewed") == result["num_added"] == sum(found for _, found in result["classes"])
    assert (result["num_images"], result["num_removed"], result["conflicts"], result["left_out"]) == (2, None, [], [])
    assert call("merge_accepted", accepted.limit(2), "reviewed")["num_added"] == 0
    back = call("merge_accepted", accepted, written=result["written"])
    assert (back["num_removed"], back["into"], count_in(accepted, "reviewed")) == (result["num_added"], "reviewed", 0)
    with pytest.raises(ExecutionError, match=r"The field 'predictions' holds predictions, which the next run replaces"):
        foo.get_operator(uri("merge_accepted"))(accepted, "predictions")


def test_in_the_app(accepted: fo.Dataset) -> None:
    form = form_of(accepted, "merge_accepted")
    assert (problems_of(form), form["accepted_field"]["default"], form["into"]["default"]) == ({}, "accepted", "ground_truth")
    messages = run_in_app(accepted, "merge_accepted", {"into": "reviewed"})
    number = count_in(accepted, "accepted")
    assert named(messages, "notify") == [{"message": f"Added {number} objects to 'reviewed'.", "variant": "success"}]
    assert len(named(messages, "reload_dataset")) == 1
    (note,) = named(run_in_app(accepted, "merge_accepted", {"into": "reviewed"}), "notify")
    assert note == {"message": f"Added no object to 'reviewed'. {number} were there already.", "variant": "info"}


def test_conflicts_warn(accepted: fo.Dataset) -> None:
    sample = accepted.first()
    sample.ground_truth.detections[0].label = "gear"
    sample.save()
    (note,) = named(run_in_app(accepted, "merge_accepted"), "notify")
    assert note["variant"] == "warning"
    assert "1 lies where an object of another class is, and was not added." in note["message"]
    result = call("merge_accepted", accepted, add_conflicting=True)
    (conflict,) = result["conflicts"]
    assert (conflict[0], conflict[3], conflict[4]) == (sample.id, sample.ground_truth.detections[0].id, "gear")
    assert (result["num_added"], result["num_conflicting"]) == (1, 0)


def test_taken_back_in_the_app(accepted: fo.Dataset) -> None:
    written = call("merge_accepted", accepted, "reviewed")["written"]
    number = len(written["added"])
    form = form_of(accepted, "merge_accepted", {"written": written})
    assert form["written"]["view"]["label"] == f"To be taken out of 'reviewed': {number} objects"
    sample = accepted.first()
    sample.reviewed.detections[0].label = "gear"
    sample.save()
    (note,) = named(run_in_app(accepted, "merge_accepted", {"written": written}), "notify")
    assert note["message"] == (
        f"Took {number - 1} objects out of 'reviewed'. 1 object that somebody has changed or removed since: left alone."
    )
    assert count_in(accepted, "reviewed") == 1
    for wrong in (
        {},
        {"into": "a", "accepted_field": "b", "added": [["x"]]},
        {**written, "into": 5},
        [],
        {**written, "added": [[1, 2, 3]]},
    ):
        problems = problems_of(form_of(accepted, "merge_accepted", {"written": wrong}))
        assert problems == {"written": "To take a merge back, give the 'written' of its result."}


def test_bad_input(accepted: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
    for params, name, words in (
        ({"into": "no name"}, "into", "'no name' cannot name a field"),
        ({"into": "accepted"}, "into", "Accepted objects are in this field already"),
        ({"into": "predictions"}, "into", "The field 'predictions' holds predictions, which the next run replaces"),
        ({"into": "rejected"}, "into", "The field 'rejected' holds rejected objects"),
        ({"into": "filepath"}, "into", "The field 'filepath' holds something else than detections"),
        ({"accepted_field": "predictions"}, "accepted_field", "Accepted must be one of 'accepted'"),
        ({"iou": 2}, "iou", "Overlap must be a number from 0 to 1, not 2."),
        ({"iou": 0}, "no_overlap", "The overlap must be above 0"),
    ):
        assert problems_of(form_of(accepted, "merge_accepted", params))[name].startswith(words)
    bare = make_dataset([fo.Sample("a.png")])
    missing = problems_of(form_of(bare, "merge_accepted"))["accepted_field"]
    assert missing == f"The dataset {bare.name!r} holds no accepted objects yet: accept some predictions first."


def test_delegated(accepted: fo.Dataset) -> None:
    done: Any = run_delegated(foo.get_operator(uri("merge_accepted"))(accepted, "reviewed", delegate=True))
    assert done.run_state == "completed"
    assert done.result.result["num_added"] == count_in(accepted, "reviewed") == count_in(accepted, "accepted")
