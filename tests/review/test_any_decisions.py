"""Whatever is decided in whatever order: one copy of an object at most, and undoing is the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import fiftyone as fo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refseg.dataset.contradictions import SAME_PLACE, box_iou, require_no_contradictions
from refseg.review.deciding import Decision
from refseg.review.decisions import accept, fix, reject, relabel, undo
from tests.review.predictions import ids_of, segment_again, two_images

KINDS = ("accept", "reject", "relabel", "fix", "as reference", "undo the last", "undo any", "segment again")
Step = tuple[str, tuple[int, ...], str]
steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(tuple),
        st.sampled_from(["star", "tee", "$gear"]),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def decided_on() -> Iterator[fo.Dataset]:
    """Two images with two predictions each, for all examples."""
    made: list[fo.Dataset] = []

    def make(samples: Any = ()) -> fo.Dataset:
        dataset = fo.Dataset()
        dataset.add_samples(samples, progress=False)
        made.append(dataset)
        return dataset

    yield two_images(make)
    for dataset in made:
        dataset.delete()


def take(dataset: fo.Dataset, step: Step, made: list[Decision]) -> None:
    kind, places, name = step
    every = ids_of(dataset)
    ids = [every[place] for place in places]
    calls: dict[str, Callable[[], Any]] = {
        "accept": lambda: made.append(accept(dataset, ids)),
        "reject": lambda: made.append(reject(dataset, ids)),
        "relabel": lambda: made.append(relabel(dataset, ids, name)),
        "fix": lambda: made.append(fix(dataset, ids[0])),
        "as reference": lambda: made.append(accept(dataset, ids, as_references=True)),
        "undo the last": lambda: made and undo(dataset, made.pop()),
        "undo any": lambda: made and undo(dataset, made.pop(places[0] % len(made))),
        "segment again": lambda: segment_again(dataset, 0.004),
    }
    calls[kind]()


def state(dataset: fo.Dataset) -> dict[str, Any]:
    """The labels of both fields of each image, in any order."""
    documents = dataset._sample_collection.find({}, {"accepted": True, "rejected": True})
    return {
        (document["_id"], name, str(label["_id"])): label
        for document in documents
        for name in ("accepted", "rejected")
        for label in (document.get(name) or {}).get("detections") or []
    }


def doubled(dataset: fo.Dataset) -> list[tuple[str, str, str]]:
    """Labels of one field that say the same of one object: field and their ids."""
    held = [(image, field, label) for (image, field, _), label in state(dataset).items()]
    return [
        (field, str(one["_id"]), str(other["_id"]))
        for (image, field, one), (own, same, other) in combinations(held, 2)
        if (image, field) == (own, same)
        and (field == "accepted" or one["label"] == other["label"])
        and box_iou(one["bounding_box"], other["bounding_box"]) >= SAME_PLACE
    ]


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps, last=steps.filter(bool))
def test_undo_is_the_way_back(decided_on: fo.Dataset, steps: list[Step], last: list[Step]) -> None:
    dataset = decided_on
    for name in ("accepted", "rejected"):
        if dataset.has_field(name):
            dataset.clear_sample_field(name)
    made: list[Decision] = []
    for step in steps:
        take(dataset, step, made)
        assert doubled(dataset) == []
        require_no_contradictions(dataset, ["accepted"], "rejected")
    before = state(dataset)
    kept: list[Decision] = []
    for step in last:
        if step[0] not in ("undo the last", "undo any", "segment again"):
            take(dataset, step, kept)
    for decision in reversed(kept):
        undo(dataset, decision)
    assert state(dataset) == before
