"""How a decision is taken back in one image, as far as no later one has changed what it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId, json_util

from ..dataset import Document, ImageEdit, ListEdit, clashes
from .deciding import Decision, Replaced


def edit_back(sample_id: str, lists: dict[str, Any], decision: Decision) -> ImageEdit:
    """What undoes a decision in one image, object by object: what a later decision has changed stays as that one left it.

    Args:
        sample_id: of the image.
        lists: the labels of its accepted and rejected fields, as MongoDB has them.
        decision: to be undone.
    """
    edits = {name: ListEdit(labels) for name, labels in lists.items()}
    written = {decision.accepted_field: decision.accepted_ids, decision.rejected_field: decision.rejected_ids}
    # What no decision wrote is nobody's to undo, whatever a request says.
    own = [
        (name, label)
        for name, labels in lists.items()
        for label in labels
        if str(label["_id"]) in set(written.get(name, ())) and label.get("decision") is not None
    ]
    replaced = [one for one in decision.replaced if one.sample_id == sample_id and one.field in lists]
    for prediction_id in dict.fromkeys(
        [label.get("prediction_id") for _, label in own] + [one.prediction_id for one in replaced]
    ):
        mine = [(name, label) for name, label in own if label.get("prediction_id") == prediction_id]
        earlier = [one for one in replaced if one.prediction_id == prediction_id]
        if not _is_as_left(mine, earlier, lists, decision):
            continue
        after = _put_back(mine, earlier, lists)
        if after is None:
            continue
        for name, label in mine:
            edits[name].removed.add(label["_id"])
        for one in earlier:
            values = json_util.loads(one.values)
            if not one.is_gone:
                edits[one.field].changed[ObjectId(one.label_id)] = values
            elif ObjectId(one.label_id) not in edits[one.field].ids:
                edits[one.field].added.append(values)
        lists = after
    return ImageEdit(edits)


def _is_as_left(
    mine: Sequence[tuple[str, Document]], earlier: Sequence[Replaced], lists: Mapping[str, list[Document]], decision: Decision
) -> bool:
    """Whether no later decision has touched what this one wrote and changed for an object."""
    for name, label in mine:
        called = decision.label or label.get("predicted_label")
        is_renamed = name == decision.accepted_field and called is not None and label.get("label") != called
        if label.get("decision") != decision.kind or is_renamed:
            return False
    ids = {str(label["_id"]) for _, label in mine}
    if any(not ids.issuperset(pair) for pair in decision.pairs if ids.intersection(pair)):
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


def _put_back(
    mine: Sequence[tuple[str, Document]], earlier: Sequence[Replaced], lists: Mapping[str, list[Document]]
) -> dict[str, list[Document]] | None:
    """The labels of an image once an object's are as they were; None where a label of now says the same, or the opposite."""
    gone = {label["_id"] for _, label in mine}
    after = {name: {label["_id"]: label for label in labels if label["_id"] not in gone} for name, labels in lists.items()}
    for one in earlier:
        label_id = ObjectId(one.label_id)
        after[one.field][label_id] = {**after[one.field].get(label_id, {}), **json_util.loads(one.values)}
    for one in earlier:
        label = after[one.field][ObjectId(one.label_id)]
        others = (other for labels in after.values() for other in labels.values() if other is not label)
        if label.get("decision") is not None and any(clashes(label, other) for other in others):
            return None
    return {name: list(labels.values()) for name, labels in after.items()}
