"""How a decision is taken back, object by object: what a later decision has changed stays as that one left it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId, json_util

from ..dataset import Document, ImageEdit, ListEdit, clashes
from .deciding import Decision, Replaced

Lists = Mapping[str, Sequence[Document]]
"""The labels of the accepted and the rejected field of an image, as MongoDB has them."""


class Undoing:
    """A decision that is taken back, image by image.

    Args:
        decision: to be undone.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._written = {
            decision.accepted_field: frozenset(decision.accepted_ids),
            decision.rejected_field: frozenset(decision.rejected_ids),
        }
        self._pairs = {label_id: frozenset(pair) for pair in decision.pairs for label_id in pair}
        self._replaced: dict[str, list[Replaced]] = defaultdict(list)
        for one in decision.replaced:
            self._replaced[one.sample_id].append(one)

    def edit(self, sample_id: str, lists: Lists) -> ImageEdit:
        """What undoes the decision in one image."""
        objects: dict[Any, tuple[list[tuple[str, Document]], list[Replaced]]] = defaultdict(lambda: ([], []))
        for name, labels in lists.items():
            for label in labels:
                # What no decision wrote is nobody's to undo, whatever a request says.
                if label.get("decision") is not None and str(label["_id"]) in self._written.get(name, ()):
                    objects[label.get("prediction_id")][0].append((name, label))
        for one in self._replaced.get(sample_id, ()):
            if one.field in lists:
                objects[one.prediction_id][1].append(one)
        after = lists
        for written, earlier in objects.values():
            if self._is_as_left(written, earlier, after):
                after = _put_back(written, earlier, after) or after
        return ImageEdit({name: ListEdit.between(labels, after[name]) for name, labels in lists.items()})

    def _is_as_left(self, written: Sequence[tuple[str, Document]], earlier: Sequence[Replaced], lists: Lists) -> bool:
        """Whether no later decision has touched what this one wrote and changed for an object."""
        decision = self._decision
        ids = {str(label["_id"]) for _, label in written}
        for name, label in written:
            called = decision.label or label.get("predicted_label")
            is_renamed = name == decision.accepted_field and called is not None and label.get("label") != called
            is_half = not ids.issuperset(self._pairs.get(str(label["_id"]), ()))
            if label.get("decision") != decision.kind or is_renamed or is_half:
                return False
        there = {str(label["_id"]): label for labels in lists.values() for label in labels}
        for one in earlier:
            if not there.keys() >= set(one.by):
                return False
            values = json_util.loads(one.now) if one.now else {"decision": decision.kind} if one.is_decision else {}
            held = there.get(one.label_id)
            if not one.is_gone and (held is None or any(held.get(key) != value for key, value in values.items())):
                return False
        return True


def _put_back(written: Sequence[tuple[str, Document]], earlier: Sequence[Replaced], lists: Lists) -> Lists | None:
    """The labels of an image once an object's are as they were; None where a label of now says the same, or the opposite."""
    gone = {label["_id"] for _, label in written}
    after = {name: {label["_id"]: label for label in labels if label["_id"] not in gone} for name, labels in lists.items()}
    for one in earlier:
        labels, label_id = after[one.field], ObjectId(one.label_id)
        if not (one.is_gone and label_id in labels):
            labels[label_id] = {**labels.get(label_id, {}), **json_util.loads(one.values)}
    for one in earlier:
        label = after[one.field][ObjectId(one.label_id)]
        others = (other for labels in after.values() for other in labels.values() if other is not label)
        if label.get("decision") is not None and any(clashes(label, other) for other in others):
            return None
    return {name: list(labels.values()) for name, labels in after.items()}
