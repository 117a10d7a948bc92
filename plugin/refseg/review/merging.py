"""Accepted objects become ground truth: copied to a field of labels, where they are not there yet.

Reads and writes the images that hold accepted objects and no others, each by one atomic update, as decisions are written. What
others add, remove or rename meanwhile stays, and is looked at again. Masks are read where boxes overlap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import bson
import fiftyone as fo
from bson import ObjectId

from ..checks import require_flags, require_kind, require_names, share_of
from ..dataset import (
    ACCEPTED_FIELD,
    MERGED_FROM,
    NEGATIVE_TAG,
    REFERENCE_TAG,
    REJECTED_FIELD,
    Document,
    ImageEdit,
    ListEdit,
    add_labels_field,
    check_name,
    collection_of,
    edit_labels,
    image_dataset,
    image_view,
    name_of,
    prediction_fields,
    read_documents,
    require_samples,
    stored_images,
    whole_of,
    with_own_mask,
)
from ..errors import DatasetError
from ..progress import Progress, Watcher, drain
from .decisions import holds_detections
from .merge_report import MergeConflict, MergedObject, MergeReport
from .overlaps import Overlaps

ROUNDING = 1e-9
IMAGES_A_STEP = 256
OF_PREDICTIONS = frozenset(
    [
        *("confidence", "predicted_iou", "margin", "runner_up", "pieces", "run"),
        *("decision", "prediction_id", "predicted_label", "predicted_confidence", "predicted_box"),
        *("loo_score", "loo_similarity", "hurts", "expected_change", "reason"),
    ]
)
"""Attributes that say what a model thought, and how it was decided on: an object of ground truth has none of them."""
ALWAYS_THERE = frozenset(fo.Detection._fields_ordered)
WRITTEN = ("label", "bounding_box", "mask", "mask_path", "tags", MERGED_FROM)
"""What undoing compares: an object whose class, outline or tags somebody has changed since is theirs."""


def merge_accepted(
    view: Any,
    into: str = "ground_truth",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    iou: float = 0.5,
    add_conflicting: bool = False,
    progress: bool | Watcher | None = None,
) -> MergeReport:
    """Copy accepted objects to a field of ground truth, but for those that are there already.

    An object is there already where one of its class overlaps it by so much, or where it was merged before, though the copy was
    moved since. So merging again adds nothing, and of two accepted objects that overlap by so much the first is added. Where an
    object of another class lies, one of the two is wrong: the accepted one is not added, and both are named in `conflicts`.

    A copy has the class, the outline and the user's own attributes and tags, without scores, decisions and the tags `reference`
    and `negative`. It is not a second reference: where an accepted object is one, its copy does not count. The accepted objects
    stay as they are.

    Args:
        view: a dataset or view of images; accepted objects that it hides are not merged.
        into: a new field, or one of Detections that no run writes to.
        accepted_field: where accepted objects are.
        iou: from which on two objects are one: of their masks where both have one, else of their boxes. Above 0, at most 1.
        add_conflicting: add what overlaps an object of another class too.
        progress: see `refseg.progress.drain`.

    Returns:
        What was added and what was not, which `undo_merge` takes back.

    Raises:
        DatasetError: no images, an empty view, a field that cannot serve, or an IoU out of range.

    Example:
        >>> import refseg
        >>> merged = refseg.merge_accepted(dataset, "ground_truth")  # doctest: +SKIP
        >>> refseg.undo_merge(dataset, merged)  # doctest: +SKIP
    """
    work = iter_merge_accepted(view, into, accepted_field=accepted_field, iou=iou, add_conflicting=add_conflicting)
    return drain(work, progress)


def iter_merge_accepted(
    view: Any,
    into: str = "ground_truth",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    iou: float = 0.5,
    add_conflicting: bool = False,
) -> Generator[Progress, None, MergeReport]:
    """The generator behind merge_accepted: yields after some hundred images; when it is closed, what is written stays."""
    require_names(into=into, accepted_field=accepted_field)
    require_flags(add_conflicting=add_conflicting)
    least = share_of("iou", iou)
    if not least:
        raise DatasetError("iou must be above 0, or every accepted object would count as there already.")
    view = image_view(view)
    require_samples(view)
    whole = whole_of(view)
    _check_fields(view, whole, into, accepted_field)
    shown = dict(zip(*view.values(["id", f"{accepted_field}.detections.id"]), strict=True))
    wanted = {sample_id: frozenset(ids) for sample_id, ids in shown.items() if ids}
    rules = _Rules(into, accepted_field, least, add_conflicting, _not_copied(whole, into, accepted_field))
    if wanted:
        example = fo.Detection(label="", bounding_box=[0.0] * 4, **{MERGED_FROM: ""})
        add_labels_field(whole, into, fo.Detections(detections=[example]))
    merged: dict[str, _ImageMerge] = {}

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        chosen = list(ids)
        images = stored_images(whole, chosen)
        for name in chosen:
            merged.pop(name, None)
        for sample_id, lists in read_documents(whole, chosen, [into, accepted_field]):
            if sample_id in images:
                merged[sample_id] = one = _ImageMerge(sample_id, lists, rules, Overlaps(images[sample_id]))
                one.merge(wanted[sample_id])
        found = {name: merged[name] for name in chosen if name in merged}
        _declare(whole, rules, [copy for one in found.values() for copy in one.copies])
        return {name: one.edit() for name, one in found.items()}

    every = list(wanted)
    yield Progress(0, len(every), "images")
    for start in range(0, len(every), IMAGES_A_STEP):
        edit_labels(whole, every[start : start + IMAGES_A_STEP], edits_of)
        yield Progress(min(start + IMAGES_A_STEP, len(every)), len(every), "images")
    found = [merged[name] for name in every if name in merged]
    return MergeReport(
        into,
        accepted_field,
        [one for image in found for one in image.added],
        len(found),
        sum(image.num_accepted for image in found),
        sum(image.num_there for image in found),
        [one for image in found for one in image.conflicts],
        sum(image.num_negative for image in found),
        [one for image in found for one in image.left_out],
    )


def undo_merge(dataset: Any, merged: MergeReport) -> int:
    """Take a merge back: remove the objects that it added, but those whose class, outline or tags somebody has changed since.

    Args:
        dataset: a dataset of images, or a view of it.
        merged: what merge_accepted returned.

    Returns:
        How many objects were removed.

    Raises:
        DatasetError: no images, or something else than a report of a merge.
    """
    require_kind(MergeReport, "what refseg.merge_accepted returned", merged=merged)
    dataset = image_dataset(dataset)
    if not holds_detections(dataset, merged.into):
        return 0
    digests = {one.label_id: one.digest for one in merged.added}
    removed: dict[str, set[ObjectId]] = {}

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        edits = {}
        for name in ids:
            removed.pop(name, None)
        for sample_id, lists in read_documents(dataset, ids, [merged.into]):
            held = lists[merged.into]
            removed[sample_id] = {label["_id"] for label in held if _is_as_written(label, digests)}
            edits[sample_id] = ImageEdit({merged.into: ListEdit(held, removed=removed[sample_id])})
        return edits

    edit_labels(dataset, dict.fromkeys(one.sample_id for one in merged.added), edits_of)
    return sum(map(len, removed.values()))


@dataclass(frozen=True)
class _Rules:
    into: str
    accepted_field: str
    least: float
    adds_conflicting: bool
    not_copied: frozenset[str]


@dataclass
class _ImageMerge:
    """What is added to one image, and what is not."""

    sample_id: str
    lists: Mapping[str, list[Document]]
    rules: _Rules
    overlaps: Overlaps
    copies: list[Document] = field(default_factory=list)
    added: list[MergedObject] = field(default_factory=list)
    conflicts: list[MergeConflict] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    num_accepted: int = 0
    num_there: int = 0
    num_negative: int = 0

    def merge(self, wanted: Collection[str]) -> None:
        """Look at the accepted labels of these ids."""
        there = self.lists[self.rules.into]
        known = {str(value) for label in there for value in (label["_id"], label.get(MERGED_FROM)) if value is not None}
        for label in self.lists[self.rules.accepted_field]:
            name = str(label["_id"])
            if name not in wanted:
                continue
            self.num_accepted += 1
            reason = self._unusable(label)
            if _is_negative(label):
                self.num_negative += 1
            elif reason:
                self.left_out.append((self.sample_id, name, reason))
            elif {name, _origin_of(label)} & known:
                self.num_there += 1
            else:
                self._place(label, [*there, *self.copies])

    def edit(self) -> ImageEdit:
        """What has to be written, as long as the accepted labels are what they were."""
        into, accepted_field = self.rules.into, self.rules.accepted_field
        lists = {into: ListEdit(self.lists[into], added=self.copies), accepted_field: ListEdit(self.lists[accepted_field])}
        return ImageEdit(lists)

    def _place(self, label: Document, there: list[Document]) -> None:
        """Add a label, unless something lies at its place."""
        ious = [(self.overlaps.iou(label, other), other) for other in there]
        near = [(iou, other) for iou, other in ious if iou >= self.rules.least - ROUNDING]
        if any(other.get("label") == label["label"] and not _is_negative(other) for _, other in near):
            self.num_there += 1
            return
        adds = not near or self.rules.adds_conflicting
        if near:
            iou, other = max(near, key=lambda one: one[0])
            self.conflicts.append(
                MergeConflict(
                    self.sample_id, str(label["_id"]), label["label"], str(other["_id"]), other.get("label"), iou, adds
                )
            )
        if adds:
            copy = self._copy(label)
            self.copies.append(copy)
            ids = self.sample_id, str(copy["_id"]), str(label["_id"])
            self.added.append(MergedObject(*ids, label["label"], _digest(copy)))

    def _copy(self, label: Document) -> Document:
        # The file of a mask is the prediction's, and goes with it.
        kept = {name: value for name, value in with_own_mask(label).items() if name not in self.rules.not_copied}
        tags = [tag for tag in label.get("tags") or () if tag not in (REFERENCE_TAG, NEGATIVE_TAG)]
        return {**kept, "_id": ObjectId(), "tags": tags, MERGED_FROM: _origin_of(label)}

    def _unusable(self, label: Document) -> str:
        """Why a label cannot be added, or ""."""
        name = label.get("label")
        if not isinstance(name, str) or not name.strip():
            return "it has no class: name it or remove it"
        return "" if self.overlaps.has_place(label) else "it has no place in its image: draw it or remove it"


def _check_fields(view: Any, whole: Any, into: str, accepted_field: str) -> None:
    of = f"of dataset {name_of(view)!r}"
    if not holds_detections(view, accepted_field):
        what = "holds something else than Detections" if view.has_field(accepted_field) else "does not exist"
        raise DatasetError(f"The field {accepted_field!r} {of} {what}, so it holds no accepted objects: accept some first.")
    predicted = prediction_fields(whole)
    if accepted_field in predicted:
        raise DatasetError(f"The field {accepted_field!r} {of} holds predictions that nobody has accepted: accept some first.")
    if into == accepted_field:
        raise DatasetError(f"Accepted objects are in the field {into!r} {of} already: choose another field to merge them into.")
    if into in predicted:
        raise DatasetError(f"The field {into!r} {of} holds predictions, which the next run replaces: choose another field.")
    held = whole.get_field(into)
    if held is None:
        check_name(whole, into)
    elif not holds_detections(whole, into):
        kind = getattr(getattr(held, "document_type", type(held)), "__name__", "something else")
        turn = ", or make Detections of its lines first (fiftyone.Polyline.to_detection)" if kind.startswith("Polyline") else ""
        raise DatasetError(
            f"The field {into!r} {of} holds {kind}, and accepted objects are Detections: merge them into a new field{turn}."
        )
    elif held.read_only:
        raise DatasetError(
            f"The field {into!r} {of} is read-only: choose another field, or set its read_only to False and save it."
        )
    for name, use in ((into, "to merge into"), (accepted_field, "of accepted objects")):
        if name == REJECTED_FIELD or _holds_rejected(whole, name):
            raise DatasetError(f"The field {name!r} {of} holds rejected objects: choose another field {use}.")


def _holds_rejected(whole: Any, name: str) -> bool:
    return collection_of(whole).find_one({f"{name}.detections.decision": "reject"}, {"_id": True}) is not None


def _not_copied(whole: Any, into: str, accepted_field: str) -> frozenset[str]:
    """Attributes that no copy has: those of predictions and evaluations, and those that the other field has of another type."""
    root = whole._root_dataset
    evaluated = {f"{key}{end}" for key in root.list_evaluations() for end in ("", "_id", "_iou")}
    own, others = (_attributes(whole, name) for name in (accepted_field, into))
    differing = {name for name in own.keys() & others.keys() - ALWAYS_THERE if own[name] != others[name]}
    return OF_PREDICTIONS | evaluated | differing


def _attributes(whole: Any, name: str) -> dict[str, str]:
    """The attributes that the labels of a field declare, each with its type in words; none where there is no such field."""
    held = whole.get_field(f"{name}.detections")
    return {} if held is None else {key: str(value) for key, value in held.field.get_field_schema().items()}


def _declare(whole: Any, rules: _Rules, copies: Iterable[Document]) -> None:
    """Give the field the attributes of copies that it lacks and the accepted field declares, so that the App shows them."""
    lacking = _attributes(whole, rules.accepted_field).keys() - _attributes(whole, rules.into).keys() - rules.not_copied
    for copy in copies:
        found = {name for name in lacking if copy.get(name) is not None}
        if found:
            example = {name: copy[name] for name in ("_cls", "_id", *found)}
            add_labels_field(whole, rules.into, fo.Detections.from_dict({"_cls": "Detections", "detections": [example]}))
            lacking -= found


def _is_negative(label: Document) -> bool:
    return NEGATIVE_TAG in (label.get("tags") or ()) or label.get("decision") == "reject"


def _origin_of(label: Document) -> str:
    return str(label.get(MERGED_FROM) or label["_id"])


def _is_as_written(label: Document, digests: Mapping[str, str]) -> bool:
    """Whether a label is one that was added, and nobody has changed it."""
    return label.get(MERGED_FROM) is not None and digests.get(str(label["_id"])) == _digest(label)


def _digest(label: Document) -> str:
    return hashlib.sha256(bson.encode({name: label.get(name) for name in WRITTEN})).hexdigest()[:16]
