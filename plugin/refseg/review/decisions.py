"""What a user decides about predictions: accepted objects are copied to one label field, rejected ones to another.

Predictions stay what the model said, and a decision is a label like any other: the App shows, edits and exports it, and the
next run learns from it. A decision reads and writes the images that hold its objects and no others, each by one atomic update
that survives a crash of MongoDB. Of two decisions on one object, by whomever, the later one replaces the earlier one whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import fiftyone as fo

from ..checks import class_name, names_of, names_or_none, require_kind, require_names
from ..dataset import (
    ACCEPTED_FIELD,
    REJECTED_FIELD,
    ImageEdit,
    add_labels_field,
    edit_labels,
    image_dataset,
    images_that_hold,
    name_of,
    read_documents,
    require_own_field,
    require_predictions,
)
from ..errors import DatasetError
from .deciding import Decision, _Decided, _Request, copy_example
from .undoing import Undoing


def accept(
    dataset: Any,
    label_ids: Iterable[str],
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    as_references: bool | str = False,
    sample_ids: Iterable[str] | None = None,
) -> Decision:
    """Copy predictions to the accepted field, as labels without confidence.

    A prediction that was rejected before moves. One that was accepted before stays as it is, a user's changes to it included.

    Args:
        dataset: a dataset of images, or a view of it.
        label_ids: the predictions.
        label_field: holds them.
        accepted_field: a new field, or one of Detections that no run writes to.
        rejected_field: from which earlier rejections of the same objects are taken.
        as_references: also give the copies the label tag `reference`; "whole" gives it to those alone whose mask is one piece.
        sample_ids: the images that hold the predictions, where known: spares looking for them.

    Raises:
        DatasetError: a prediction that is not there, no images, or a field that cannot serve.
    """
    request = _Request("accept", None, label_field, accepted_field, rejected_field, as_references)
    return _decide(dataset, label_ids, request, sample_ids)


def reject(
    dataset: Any,
    label_ids: Iterable[str],
    label_field: str = "predictions",
    *,
    rejected_field: str = REJECTED_FIELD,
    accepted_field: str = ACCEPTED_FIELD,
    sample_ids: Iterable[str] | None = None,
) -> Decision:
    """Copy predictions to the rejected field with the label tag `negative`: examples of what their class is not.

    A prediction that was accepted before moves.

    Args:
        dataset: a dataset of images, or a view of it.
        label_ids: the predictions.
        label_field: holds them.
        rejected_field: a new field, or one of Detections that no run writes to.
        accepted_field: from which earlier acceptances of the same objects are taken.
        sample_ids: the images that hold the predictions, where known: spares looking for them.

    Raises:
        DatasetError: a prediction that is not there, no images, or a field that cannot serve.
    """
    request = _Request("reject", None, label_field, accepted_field, rejected_field, False)
    return _decide(dataset, label_ids, request, sample_ids)


def relabel(
    dataset: Any,
    label_ids: Iterable[str],
    label: str,
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    as_references: bool | str = False,
    sample_ids: Iterable[str] | None = None,
) -> Decision:
    """Accept predictions under another name, and keep them as negatives of the name they had.

    Args:
        dataset: a dataset of images, or a view of it.
        label_ids: the predictions; those that have the name already are only accepted.
        label: what the objects are.
        label_field: holds the predictions.
        accepted_field: see `accept`.
        rejected_field: see `reject`.
        as_references: also give the accepted copies the label tag `reference`; see `accept`.
        sample_ids: the images that hold the predictions, where known: spares looking for them.

    Raises:
        DatasetError: a blank name, a prediction that is not there, no images, or a field that cannot serve.
    """
    require_kind(str, "a class's name", label=label)
    request = _Request("relabel", class_name(label), label_field, accepted_field, rejected_field, as_references)
    return _decide(dataset, label_ids, request, sample_ids)


def fix(
    dataset: Any,
    label_id: str,
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    as_references: bool | str = False,
    sample_ids: Iterable[str] | None = None,
) -> Decision:
    """Accept a prediction whose outline is wrong; the copy is then edited with the App's annotation tools.

    Arguments and errors are those of `accept`. The copy counts as corrected by hand.
    """
    request = _Request("fix", None, label_field, accepted_field, rejected_field, as_references)
    require_names(label_id=label_id)
    return _decide(dataset, [label_id], request, sample_ids)


def undo(dataset: Any, decision: Decision) -> bool:
    """Take a decision back: remove the labels that it wrote, and bring back those that it took away or changed.

    What a later decision has replaced stays as that one left it.

    Returns:
        Whether there was anything to take back.
    """
    require_kind(Decision, "a decision, such as refseg.accept returns", decision=decision)
    dataset = image_dataset(dataset)
    written = {decision.accepted_field: decision.accepted_ids, decision.rejected_field: decision.rejected_ids}
    for name in {one.field for one in decision.replaced if one.is_gone} & written.keys():
        # Somebody may have deleted the field meanwhile.
        add_labels_field(dataset, name, copy_example(decision.kind))
    names = [name for name in written if holds_detections(dataset, name)]
    images = {*decision.sample_ids, *(one.sample_id for one in decision.replaced)}
    if not decision.sample_ids:
        # Decisions of earlier versions did not tell.
        images |= {image for name in names for image in images_that_hold(dataset, name, written[name])}
    undoing = Undoing(decision)
    undone: set[str] = set()

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        undone.difference_update(ids)
        found = {name: undoing.edit(name, lists) for name, lists in read_documents(dataset, ids, names)}
        undone.update(name for name, edit in found.items() if any(edit.lists.values()))
        return found

    edit_labels(dataset, images, edits_of)
    return bool(undone)


def _decide(dataset: Any, label_ids: Iterable[str], request: _Request, sample_ids: Iterable[str] | None) -> Decision:
    request.check()
    ids = list(dict.fromkeys(names_of("label_ids", label_ids, like="ids")))
    sample_ids = names_or_none("sample_ids", sample_ids, like="ids")
    dataset = image_dataset(dataset)
    _check_fields(dataset, request)
    by_sample = images_that_hold(dataset, request.label_field, ids, sample_ids)
    _require_found(dataset, request.label_field, ids, by_sample)
    if ids:
        for name in _targets(request):
            add_labels_field(dataset, name, copy_example(request.kind))
    # What a user keeps under the name of a field that this decision does not write is none of its business. One that is not
    # there yet may be added by another process at this moment.
    names = [name for name in request.fields if dataset.get_field(name) is None or holds_detections(dataset, name)]
    decided: dict[str, _Decided] = {}

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        edits = {}
        for name in ids:
            decided.pop(name, None)
        for sample_id, lists in read_documents(dataset, ids, names):
            wanted = set(by_sample[sample_id])
            decided[sample_id] = image = _Decided.of(sample_id, lists, request)
            for prediction in lists[request.label_field]:
                if str(prediction["_id"]) in wanted:
                    image.decide(prediction, request)
            edits[sample_id] = image.edit(request)
        return edits

    edit_labels(dataset, by_sample, edits_of)
    every = [decided[name] for name in by_sample if name in decided]
    done = {one for image in every for one in image.decided_ids}
    if not done:
        # All were replaced between being found and being decided on.
        _require_found(dataset, request.label_field, ids, {})
    return Decision(
        request.kind,
        request.label_field,
        [one for image in every for one in image.accepted_ids],
        [one for image in every for one in image.rejected_ids],
        [one for one in ids if one in done],
        request.accepted_field,
        request.rejected_field,
        list(by_sample),
        [one for image in every for one in image.replaced],
        request.label,
        [pair for image in every for pair in image.pairs],
    )


def _require_found(dataset: Any, label_field: str, label_ids: Sequence[str], by_sample: dict[str, list[str]]) -> None:
    found = {label_id for ids in by_sample.values() for label_id in ids}
    missing = [label_id for label_id in label_ids if label_id not in found]
    if missing:
        which = f"The prediction {missing[0]!r} " + ("is" if len(missing) == 1 else f"and {len(missing) - 1} more are")
        raise DatasetError(
            f"{which} not in the field {label_field!r} of dataset {name_of(dataset)!r}: the predictions may have been updated "
            "meanwhile, so look at the present ones."
        )


def _check_fields(dataset: Any, request: _Request) -> None:
    require_predictions(dataset, request.label_field)
    targets = _targets(request)
    if len({request.label_field, request.accepted_field, request.rejected_field}) < 3:
        raise DatasetError(
            f"Predictions ({request.label_field!r}), accepted ({request.accepted_field!r}) and rejected labels "
            f"({request.rejected_field!r}) each need a field of their own: choose three names."
        )
    for name in targets:
        require_own_field(dataset, name)


def _targets(request: _Request) -> list[str]:
    """The fields that a decision of this kind writes to."""
    accepts = [] if request.kind == "reject" else [request.accepted_field]
    return accepts + ([request.rejected_field] if request.kind in ("reject", "relabel") else [])


def holds_detections(dataset: Any, name: str) -> bool:
    """Whether a field of a dataset or view is there and holds Detections."""
    return getattr(dataset.get_field(name), "document_type", None) is fo.Detections
