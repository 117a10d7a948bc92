"""Whether two labels show the same object, and objects of which two labels say the opposite."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from ..errors import BadReferenceError
from ..printing import object_name
from .label_edits import Document, images_with_labels, read_documents
from .labels import is_box
from .views import name_of, sample_or_none

SAME_PLACE = 0.7
"""IoU of boxes from which on two labels show one object: predictions get new ids when an image is segmented again."""


def box_iou(box: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes, each x, y, width, height in the same unit.

    Example:
        >>> box_iou((0, 0, 2, 1), (1, 0, 2, 1))
        0.3333333333333333
    """
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = box[2] * box[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def require_no_contradictions(dataset: Any, fields: Sequence[str], rejected_field: str) -> None:
    """Refuse to learn from objects that were accepted and rejected as the same class.

    Two processes of earlier versions could decide both ways, and so can whoever copies labels; since, the later decision
    replaces the earlier one.

    Args:
        dataset: as from whole_of.
        fields: that hold accepted labels, among others; labels that no decision wrote are left out.
        rejected_field: that holds rejected ones.

    Raises:
        BadReferenceError: there is such an object; the message names both labels.
    """
    others = [name for name in fields if name != rejected_field]
    images = images_with_labels(dataset, rejected_field)
    attributes = ("_id", "label", "prediction_id", "bounding_box", "predicted_box")
    for sample_id, lists in read_documents(dataset, images, [*others, rejected_field], attributes):
        for name in others:
            for label, rejected in product(lists[name], lists[rejected_field]):
                if clashes(label, rejected):
                    sample = sample_or_none(dataset, sample_id)
                    path = sample_id if sample is None else sample.filepath
                    raise BadReferenceError(
                        f"The object {object_name(label.get('label'), path, str(label['_id']))} in the field {name!r} of "
                        f"dataset {name_of(dataset)!r} is rejected too, as {rejected['_id']} in {rejected_field!r}: decide on "
                        "it again, or delete one of the two labels."
                    )


def clashes(label: Document, other: Document) -> bool:
    """Whether two labels, as MongoDB has them, name one object the same: twice in one field, or the opposite in two."""
    return label.get("label") == other.get("label") and _is_one_object(label, other)


def _is_one_object(label: Document, other: Document) -> bool:
    sources = label.get("prediction_id"), other.get("prediction_id")
    if None in sources:
        return False
    return sources[0] == sources[1] or any(
        box_iou(one, two) >= SAME_PLACE for one, two in product(*map(_places, (label, other)))
    )


def _places(label: Document) -> list[list[float]]:
    """Where the object was predicted, and where a user may have moved it."""
    return [list(box) for key in ("predicted_box", "bounding_box") if is_box(box := label.get(key))]
