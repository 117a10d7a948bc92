"""How one decision changes the labels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import fiftyone as fo

from ..checks import names_of, require_flags, require_names
from ..dataset import (
    ACCEPTED_FIELD,
    NEGATIVE_TAG,
    REFERENCE_TAG,
    REJECTED_FIELD,
    is_box,
)
from ..errors import DatasetError

Kind = Literal["accept", "reject", "relabel", "fix"]


SAME_PLACE = 0.7
"""IoU of boxes from which on two labels show one object: predictions get new ids when an image is segmented again."""


@dataclass(frozen=True)
class Decision:
    """What a decision wrote; every attribute survives JSON.

    Attributes:
        kind: what was decided.
        label_field: of the predictions.
        accepted_ids: of the labels written to the accepted field; those only changed there are not among them.
        rejected_ids: of the labels written to the rejected field, likewise.
        prediction_ids: of the predictions decided on.
        accepted_field: where accepted labels are.
        rejected_field: where rejected labels are.
        sample_ids: of the images that hold the predictions.
    """

    kind: Kind
    label_field: str
    accepted_ids: Sequence[str]
    rejected_ids: Sequence[str]
    prediction_ids: Sequence[str]
    accepted_field: str = ACCEPTED_FIELD
    rejected_field: str = REJECTED_FIELD
    sample_ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DatasetError(f"kind must be one of {', '.join(map(repr, get_args(Kind)))}, not {self.kind!r}.")
        fields = {name: getattr(self, name) for name in ("label_field", "accepted_field", "rejected_field")}
        require_names(**fields)
        for name in ("accepted_ids", "rejected_ids", "prediction_ids", "sample_ids"):
            # JSON knows no tuples.
            object.__setattr__(self, name, names_of(name, getattr(self, name), like="ids"))


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


@dataclass(frozen=True)
class _Request:
    kind: Kind
    label: str | None
    label_field: str
    accepted_field: str
    rejected_field: str
    as_references: bool

    def check(self) -> None:
        """Refuse what is no field's name, or neither yes nor no."""
        fields = {name: getattr(self, name) for name in ("label_field", "accepted_field", "rejected_field")}
        require_names(**fields)
        require_flags(as_references=self.as_references)

    def name_of(self, prediction: Any) -> Any:
        """What the object is called once it is accepted."""
        return prediction.label if self.label is None else self.label


@dataclass
class _Decided:
    """The labels of one image while decisions are made on it."""

    current: set[str]
    accepted: list[Any]
    rejected: list[Any]
    accepted_ids: list[str] = field(default_factory=list)
    rejected_ids: list[str] = field(default_factory=list)
    changes: set[str] = field(default_factory=set)

    def decide(self, prediction: Any, request: _Request) -> None:
        """Copy, move or change labels as the request says for one prediction."""
        name = request.name_of(prediction)
        if request.kind == "reject":
            self.accepted = self._without(self.accepted, "accepted", prediction, prediction.label)
        else:
            self.rejected = self._without(self.rejected, "rejected", prediction, name)
            self._accept(prediction, name, request)
        if request.kind == "reject" or name != prediction.label:
            self._reject(prediction, request)

    def _accept(self, prediction: Any, name: str, request: _Request) -> None:
        tags = [REFERENCE_TAG] if request.as_references else []
        for label in self.accepted:
            own = _decision_of(label) is not None
            # A user's own label is no copy: it may be a reference, but is never renamed.
            if self._is_copy(label, prediction) if own else label.label == name and _same_place(label, prediction):
                kind = "fix" if own and _decision_of(label) == "fix" and label.label == name else request.kind
                if _change(label, tags, {"label": name, "decision": kind} if own else {}):
                    self.changes.add("accepted")
                return
        label = _copy_of(prediction, name, request.kind, tags, NEGATIVE_TAG)
        self.accepted.append(label)
        self._note("accepted", label)

    def _reject(self, prediction: Any, request: _Request) -> None:
        for label in self.rejected:
            if label.label == prediction.label and self._is_copy(label, prediction):
                values = {} if _decision_of(label) is None else {"decision": request.kind}
                if _change(label, [NEGATIVE_TAG], values):
                    self.changes.add("rejected")
                return
        label = _copy_of(prediction, prediction.label, request.kind, [NEGATIVE_TAG], REFERENCE_TAG)
        self.rejected.append(label)
        self._note("rejected", label)

    def _without(self, labels: list[Any], where: str, prediction: Any, name: str) -> list[Any]:
        """The labels but copies of this prediction that say the opposite."""
        kept = []
        for label in labels:
            of_it = label.get_attribute_value("prediction_id", None) == prediction.id
            if where == "rejected" and of_it:
                # A negative of the name that the object had before it was relabelled stays one.
                of_it = label.label == name
            stale = of_it or (label.label == name and self._is_copy(label, prediction))
            if not stale or _decision_of(label) is None:
                kept.append(label)
        if len(kept) < len(labels):
            self.changes.add(where)
        return kept

    def _is_copy(self, label: Any, prediction: Any) -> bool:
        """Whether a label was copied from this prediction, or from an earlier one of the same object."""
        source = label.get_attribute_value("prediction_id", None)
        return source == prediction.id or (source not in self.current and _same_place(label, prediction))

    def _note(self, where: str, label: Any) -> None:
        self.changes.add(where)
        (self.accepted_ids if where == "accepted" else self.rejected_ids).append(label.id)


def _copy_of(prediction: Any, name: str, kind: Kind, tags: Sequence[str], opposite: str) -> fo.Detection:
    """A label of a prediction's object, for a user's field."""
    return fo.Detection(
        label=name,
        bounding_box=list(prediction.bounding_box or ()),
        mask=prediction.mask,
        mask_path=prediction.mask_path,
        index=prediction.index,
        tags=list(dict.fromkeys([*(tag for tag in prediction.tags if tag != opposite), *tags])),
        prediction_id=prediction.id,
        predicted_label=prediction.label,
        predicted_confidence=prediction.confidence,
        # Kept, because a user may move the copy's own.
        predicted_box=list(prediction.bounding_box or ()),
        decision=kind,
        run=prediction.get_attribute_value("run", None),
    )


def _change(label: Any, tags: Sequence[str], values: dict[str, Any]) -> bool:
    """Give a label tags and values; returns whether it lacked any."""
    lacking = [tag for tag in tags if tag not in label.tags]
    other = {name: value for name, value in values.items() if label.get_attribute_value(name, None) != value}
    label.tags = [*label.tags, *lacking]
    for name, value in other.items():
        label[name] = value
    return bool(lacking or other)


def _same_place(label: Any, prediction: Any) -> bool:
    places = [label.bounding_box, label.get_attribute_value("predicted_box", None)]
    if not is_box(prediction.bounding_box):
        return False
    return any(is_box(box) and box_iou(box, prediction.bounding_box) >= SAME_PLACE for box in places)


def _decision_of(label: Any) -> Any:
    return label.get_attribute_value("decision", None)
