"""How one decision changes the labels of an image, and how it is taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import fiftyone as fo
from bson import ObjectId, json_util
from bson.errors import InvalidId

from ..checks import names_of, refused, require_flags, require_names
from ..dataset import (
    ACCEPTED_FIELD,
    NEGATIVE_TAG,
    REFERENCE_TAG,
    REJECTED_FIELD,
    SAME_PLACE,
    Document,
    ImageEdit,
    ListEdit,
    box_iou,
    is_box,
    with_own_mask,
)
from ..errors import DatasetError
from ..notebook import facts, page, plain_page
from ..printing import counted

Kind = Literal["accept", "reject", "relabel", "fix"]

SAID = {"accept": "accepted", "reject": "rejected", "relabel": "renamed", "fix": "accepted to be corrected"}
"""What a decision says of an object."""


@dataclass(frozen=True)
class Replaced:
    """A label that a decision took away or changed, so that undoing can bring it back.

    Attributes:
        sample_id: of its image.
        field: that holds or held it.
        label_id: its id.
        prediction_id: of the prediction decided on.
        label: its class before.
        decision: what had been decided by it; None of a user's own label.
        by: ids of the labels written for the same prediction instead.
        is_gone: whether it was taken away, and not only changed.
        values: the label, or the values that were changed, in MongoDB's extended JSON.
        now: the values that a changed label was given, likewise; empty where decisions of earlier versions did not tell.
    """

    sample_id: str
    field: str
    label_id: str
    prediction_id: str
    label: str | None
    decision: str | None
    by: Sequence[str]
    is_gone: bool
    values: str
    now: str = ""

    _repr_html_ = plain_page

    @property
    def is_decision(self) -> bool:
        """Whether an earlier decision is not what it was; otherwise a label was only tagged."""
        return self.decision is not None and (self.is_gone or "decision" in json_util.loads(self.values))


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
        replaced: labels of earlier decisions, anybody's, that this one took away or changed.
        label: what objects were renamed to; None where they keep the names of the predictions.
        pairs: ids of the two labels, an accepted and a rejected one, that renaming an object wrote.
    """

    kind: Kind
    label_field: str
    accepted_ids: Sequence[str]
    rejected_ids: Sequence[str]
    prediction_ids: Sequence[str]
    accepted_field: str = ACCEPTED_FIELD
    rejected_field: str = REJECTED_FIELD
    sample_ids: Sequence[str] = ()
    replaced: Sequence[Replaced] = ()
    label: str | None = None
    pairs: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DatasetError(f"kind must be one of {', '.join(map(repr, get_args(Kind)))}, not {self.kind!r}.")
        fields = {name: getattr(self, name) for name in ("label_field", "accepted_field", "rejected_field")}
        require_names(**fields)
        require_names(or_none=True, label=self.label)
        for name in ("accepted_ids", "rejected_ids", "prediction_ids", "sample_ids"):
            # JSON knows no tuples.
            object.__setattr__(self, name, names_of(name, getattr(self, name), like="ids"))
        if not isinstance(self.replaced, (list, tuple)):
            raise refused("replaced", "a list of what a decision replaced", self.replaced)
        if not isinstance(self.pairs, (list, tuple)) or not all(isinstance(pair, (list, tuple)) for pair in self.pairs):
            raise refused("pairs", "a list of two ids each", self.pairs)
        object.__setattr__(self, "pairs", tuple(names_of("pairs", pair, like="ids") for pair in self.pairs))
        object.__setattr__(self, "replaced", tuple(map(_as_replaced, self.replaced)))

    def _repr_html_(self) -> str:
        """How many objects were decided on, what was written where, and what that replaced."""
        decided = f"{counted(len(self.prediction_ids), 'object')} {SAID[self.kind]}"
        return page(
            f"{decided} to {self.label!r}" if self.label else decided,
            facts(
                {
                    "images": len(self.sample_ids),
                    f"written to {self.accepted_field!r}": len(self.accepted_ids) or None,
                    f"written to {self.rejected_field!r}": len(self.rejected_ids) or None,
                }
            ),
            self.describe_replaced(),
        )

    def describe_replaced(self) -> str:
        """What was decided before on the same objects, in a sentence; empty where nothing was.

        Example:
            >>> Decision("reject", "predictions", (), (), ()).describe_replaced()
            ''
        """
        earlier: dict[str, str] = {}
        for one in self.replaced:
            if one.is_decision:
                earlier.setdefault(one.prediction_id, SAID.get(str(one.decision), str(one.decision)))
        if not earlier:
            return ""
        told = ", ".join(f"{number} {said}" for said, number in sorted(Counter(earlier.values()).items()))
        return f"This replaces {counted(len(earlier), 'earlier decision')}: {told}."


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

    @property
    def fields(self) -> tuple[str, str, str]:
        """Of predictions, of accepted and of rejected labels."""
        return self.label_field, self.accepted_field, self.rejected_field

    def name_of(self, prediction: Any) -> Any:
        """What the object is called once it is accepted."""
        return prediction.label if self.label is None else self.label


@dataclass
class _Decided:
    """The labels of one image while decisions are made on it.

    Attributes:
        sample_id: of the image.
        current: ids of all its predictions.
        accepted: labels of the accepted field.
        rejected: labels of the rejected field.
        decided_ids: of the predictions decided on.
        accepted_ids: of the labels written to the accepted field.
        rejected_ids: of those written to the rejected field.
        replaced: what was taken away or changed.
        pairs: of labels that were written for one object.
    """

    sample_id: str
    current: set[str]
    accepted: list[Any]
    rejected: list[Any]
    decided_ids: list[str] = field(default_factory=list)
    accepted_ids: list[str] = field(default_factory=list)
    rejected_ids: list[str] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    pairs: list[tuple[str, ...]] = field(default_factory=list)
    _edits: dict[str, ListEdit] = field(default_factory=dict)
    _documents: dict[str, Document] = field(default_factory=dict)

    @classmethod
    def of(cls, sample_id: str, lists: dict[str, Any], request: _Request) -> _Decided:
        """The labels of an image as MongoDB has them, by field."""
        held = {name: lists.get(name, []) for name in (request.accepted_field, request.rejected_field)}
        current = {str(prediction["_id"]) for prediction in lists[request.label_field]}
        accepted, rejected = ([as_label(label) for label in labels] for labels in held.values())
        documents = {str(label["_id"]): label for labels in held.values() for label in labels}
        edits = {"accepted": ListEdit(held[request.accepted_field]), "rejected": ListEdit(held[request.rejected_field])}
        return cls(sample_id, current, accepted, rejected, _edits=edits, _documents=documents)

    def edit(self, request: _Request) -> ImageEdit:
        """What has to be written, as long as the predictions are still there."""
        lists = {request.accepted_field: self._edits["accepted"], request.rejected_field: self._edits["rejected"]}
        return ImageEdit(lists, {request.label_field: [ObjectId(name) for name in self.decided_ids]})

    def decide(self, document: dict[str, Any], request: _Request) -> None:
        """Copy, move or change labels as the request says for one prediction, given as MongoDB has it."""
        prediction = as_label(document)
        name = request.name_of(prediction)
        self.decided_ids.append(prediction.id)
        written = len(self.accepted_ids), len(self.rejected_ids)
        replaced, self.replaced = self.replaced, []
        if request.kind == "reject":
            self.accepted = self._without("accepted", prediction, prediction.label, request)
        else:
            self.rejected = self._without("rejected", prediction, name, request)
            self._accept(prediction, document, name, request)
        if request.kind == "reject" or name != prediction.label:
            self._reject(prediction, document, request)
        by = (*self.accepted_ids[written[0] :], *self.rejected_ids[written[1] :])
        if len(by) > 1:
            self.pairs.append(by)
        self.replaced = [*replaced, *(replace(one, by=by) for one in self.replaced)]

    def _accept(self, prediction: Any, document: dict[str, Any], name: str, request: _Request) -> None:
        tags = [REFERENCE_TAG] if request.as_references else []
        for label in self.accepted:
            own = _decision_of(label) is not None
            # A user's own label is no copy: it may be a reference, but is never renamed.
            if self._is_copy(label, prediction) if own else label.label == name and _same_place(label, prediction):
                kind = "fix" if own and _decision_of(label) == "fix" and label.label == name else request.kind
                self._change("accepted", label, tags, {"label": name, "decision": kind} if own else {}, prediction, request)
                return
        self._add("accepted", _copy_of(prediction, name, request.kind, tags, NEGATIVE_TAG), document)

    def _reject(self, prediction: Any, document: dict[str, Any], request: _Request) -> None:
        for label in self.rejected:
            if label.label == prediction.label and self._is_copy(label, prediction):
                values = {} if _decision_of(label) is None else {"decision": request.kind}
                self._change("rejected", label, [NEGATIVE_TAG], values, prediction, request)
                return
        self._add("rejected", _copy_of(prediction, prediction.label, request.kind, [NEGATIVE_TAG], REFERENCE_TAG), document)

    def _without(self, where: str, prediction: Any, name: str, request: _Request) -> list[Any]:
        """The labels but copies of this prediction that say the opposite."""
        kept = []
        for label in getattr(self, where):
            of_it = label.get_attribute_value("prediction_id", None) == prediction.id
            if where == "rejected" and of_it:
                # A negative of the name that the object had before it was relabelled stays one.
                of_it = label.label == name
            stale = of_it or (label.label == name and self._is_copy(label, prediction))
            if not stale or _decision_of(label) is None:
                kept.append(label)
                continue
            self._edits[where].removed.add(ObjectId(label.id))
            self._note(where, label, prediction, request, with_own_mask(self._documents[label.id]))
        return kept

    def _is_copy(self, label: Any, prediction: Any) -> bool:
        """Whether a label was copied from this prediction, or from an earlier one of the same object."""
        source = label.get_attribute_value("prediction_id", None)
        return source == prediction.id or (source not in self.current and _same_place(label, prediction))

    def _add(self, where: str, label: Any, document: dict[str, Any]) -> None:
        written = label.to_dict()
        if document.get("mask") is not None:
            # As it is stored: unpacking and packing thousands of masks takes seconds.
            written["mask"] = document["mask"]
        # The file is the prediction's, and goes with it.
        written = with_own_mask(written)
        self._edits[where].added.append(written)
        getattr(self, where).append(label)
        self._documents[label.id] = written
        (self.accepted_ids if where == "accepted" else self.rejected_ids).append(label.id)

    def _change(
        self, where: str, label: Any, tags: Sequence[str], values: dict[str, Any], prediction: Any, request: _Request
    ) -> None:
        """Give a label tags and values that it lacks."""
        new = {name: value for name, value in values.items() if label.get_attribute_value(name, None) != value}
        if not set(tags) <= set(label.tags):
            new["tags"] = [*label.tags, *(tag for tag in tags if tag not in label.tags)]
        if not new:
            return
        earlier = {name: label.get_attribute_value(name, None) for name in new}
        earlier = {**earlier, "tags": list(label.tags)} if "tags" in new else earlier
        self._note(where, label, prediction, request, earlier, now=new)
        self._edits[where].changed.setdefault(ObjectId(label.id), {}).update(new)
        for name, value in new.items():
            label[name] = value

    def _note(
        self,
        where: str,
        label: Any,
        prediction: Any,
        request: _Request,
        values: dict[str, Any],
        *,
        now: Mapping[str, Any] | None = None,
    ) -> None:
        name = request.accepted_field if where == "accepted" else request.rejected_field
        self.replaced.append(
            Replaced(
                self.sample_id,
                name,
                label.id,
                prediction.id,
                label.label,
                _decision_of(label),
                (),
                now is None,
                json_util.dumps(values),
                "" if now is None else json_util.dumps(now),
            )
        )


def copy_example(kind: Kind) -> fo.Detections:
    """A copy of a prediction that has every attribute: fields of decided labels know them all from the start."""
    like = fo.Detection(id=str(ObjectId()), label="", bounding_box=[0.0] * 4, confidence=0.0, run="")
    return fo.Detections(detections=[_copy_of(like, "", kind, (), "")])


def as_label(document: dict[str, Any]) -> Any:
    """A label that MongoDB holds, without its mask, which takes time to unpack."""
    return fo.Detection.from_dict({name: value for name, value in document.items() if name != "mask"})


def _as_replaced(given: Any) -> Replaced:
    """What was replaced, also as JSON gives it back."""
    if isinstance(given, Replaced):
        return given
    try:
        found = Replaced(**given)
        require_names(sample_id=found.sample_id, field=found.field, label_id=found.label_id, prediction_id=found.prediction_id)
        values, now = json_util.loads(found.values), json_util.loads(found.now or "{}")
        if (
            not isinstance(values, dict)
            or not isinstance(now, dict)
            or (found.is_gone and values.get("_id") != ObjectId(found.label_id))
        ):
            raise ValueError("its values are not those of the label")
    except (TypeError, ValueError, InvalidId) as error:
        raise DatasetError(
            f"What a decision replaced, an item of replaced, cannot be {given!r} ({error}): pass what refseg.accept and its "
            "like returned."
        ) from error
    return replace(found, by=names_of("by", found.by, like="ids"))


def _copy_of(prediction: Any, name: str, kind: Kind, tags: Sequence[str], opposite: str) -> fo.Detection:
    """A label of a prediction's object, for a user's field."""
    return fo.Detection(
        label=name,
        bounding_box=list(prediction.bounding_box or ()),
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


def _same_place(label: Any, prediction: Any) -> bool:
    places = [label.bounding_box, label.get_attribute_value("predicted_box", None)]
    if not is_box(prediction.bounding_box):
        return False
    return any(is_box(box) and box_iou(box, prediction.bounding_box) >= SAME_PLACE for box in places)


def _decision_of(label: Any) -> Any:
    return label.get_attribute_value("decision", None)
