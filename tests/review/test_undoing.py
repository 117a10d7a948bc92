"""Every order of four steps on one object: undoing doubles nothing, contradicts nothing, and loses no later decision."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from bson import ObjectId

from refseg.dataset.contradictions import clashes
from refseg.dataset.label_edits import ImageEdit
from refseg.review.deciding import Decision, _Decided, _Request
from refseg.review.undoing import Undoing

Lists = dict[str, list[dict[str, Any]]]
Said = list[tuple[str, str, str, str]]
DECISIONS: dict[str, tuple[Any, str | None, bool]] = {
    "accept": ("accept", None, False),
    "accept as reference": ("accept", None, True),
    "reject": ("reject", None, False),
    "relabel to star": ("relabel", "star", False),
    "relabel to gear": ("relabel", "gear", False),
    "fix": ("fix", None, False),
}
UNDO = {"undo the last": 1, "undo the last but one": 2, "undo the last but two": 3}
STEPS = (*DECISIONS, *UNDO, "segment again")
NUM_STEPS = 4
SAMPLE_ID = str(ObjectId())
DECIDED = ("accepted", "rejected")


class Object:
    """A predicted tee, and what was decided on it.

    Attributes:
        lists: the labels of each field, as MongoDB has them.
        made: decisions that are not undone, each with what was said right after it.
        previous: what there was a step before.
    """

    def __init__(self, previous: Object | None = None) -> None:
        found = {"predictions": [prediction(0)], "accepted": [], "rejected": []} if previous is None else previous.lists
        self.lists: Lists = {name: list(labels) for name, labels in found.items()}
        self.made: list[tuple[Decision, Said]] = [] if previous is None else list(previous.made)
        self.previous = previous

    def can(self, step: str) -> bool:
        return UNDO.get(step, 0) <= len(self.made)

    def take(self, step: str) -> None:
        if step == "segment again":
            self.lists["predictions"] = [prediction(len(self.made) % 2)]
        elif step in UNDO:
            decision, _ = self.made.pop(-UNDO[step])
            self._apply(Undoing(decision).edit(SAMPLE_ID, {name: self.lists[name] for name in DECIDED}))
        else:
            kind, name, as_references = DECISIONS[step]
            request = _Request(kind, name, "predictions", *DECIDED, as_references)
            image = _Decided.of(SAMPLE_ID, self.lists, request)
            image.decide(self.lists["predictions"][0], request)
            decision = Decision(
                kind,
                "predictions",
                image.accepted_ids,
                image.rejected_ids,
                image.decided_ids,
                sample_ids=[SAMPLE_ID],
                replaced=image.replaced,
                label=name,
                pairs=image.pairs,
            )
            self._apply(image.edit(request))
            self.made.append((decision, self.said))

    @property
    def said(self) -> Said:
        """Everything but tags."""
        return sorted((f, str(one["_id"]), one["label"], one["decision"]) for f in DECIDED for one in self.lists[f])

    @property
    def decided(self) -> dict[str, dict[str, Any]]:
        """Every label by field and id: what is put back comes last in its list."""
        return {f"{name} {label['_id']}": label for name in DECIDED for label in self.lists[name]}

    def _apply(self, edit: ImageEdit) -> None:
        for name, one in edit.lists.items():
            kept = [label for label in self.lists[name] if label["_id"] not in one.removed]
            self.lists[name] = [{**label, **one.changed.get(label["_id"], {})} for label in kept] + one.added


def prediction(number: int) -> dict[str, Any]:
    box = [0.1 + 0.001 * number, 0.1, 0.3, 0.3]
    return {
        "_id": ObjectId(),
        "_cls": "Detection",
        "tags": [],
        "label": "tee",
        "bounding_box": box,
        "confidence": 0.5,
        "run": "run",
    }


def walk(seen: Object, steps: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object, Object]]:
    """Steps, and what there is before the last of them and after it."""
    for step in STEPS if len(steps) < NUM_STEPS else ():
        if seen.can(step):
            after = Object(seen)
            after.take(step)
            yield (*steps, step), seen, after
            yield from walk(after, (*steps, step))


def test_every_order() -> None:
    num_orders = 0
    for steps, before, after in walk(Object()):
        num_orders += 1
        held = [label for name in DECIDED for label in after.lists[name]]
        assert not any(clashes(one, other) for one, other in combinations(held, 2)), steps
        assert len(after.lists["accepted"]) <= 1, steps
        if steps[-1] in UNDO:
            (decision, said), *later = before.made[-UNDO[steps[-1]] :]
            # What two equal decisions leave cannot be told apart.
            is_told = all((one.kind, one.label) != (decision.kind, decision.label) for one, _ in later)
            if is_told and said != before.said:
                assert after.said == before.said, f"{steps}: a later decision stands"
        if len(steps) > 1 and steps[-1] == "undo the last" and steps[-2] in DECISIONS:
            assert before.previous is not None
            assert after.decided == before.previous.decided, f"{steps}: undoing is the way back"
    assert num_orders > 4000
