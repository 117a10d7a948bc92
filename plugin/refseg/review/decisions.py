"""What a user decides about predictions: accepted objects are copied to one label field, rejected ones to another.

Predictions stay what the model said, and a decision is a label like any other: the App shows, edits and exports it, and the
next run learns from it. A decision reads and writes the images that hold its objects and no others. Those made in one process
wait for each other; of two processes that decide on one image within the same milliseconds, one may undo the other's work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import fiftyone as fo
from bson import ObjectId

from ..checks import names_of, names_or_none, require_kind, require_names
from ..dataset import (
    ACCEPTED_FIELD,
    REJECTED_FIELD,
    add_labels_field,
    check_name,
    delete_labels,
    every_image,
    image_dataset,
    name_of,
    prediction_fields,
    require_object_field,
    write_values,
)
from ..errors import DatasetError
from .deciding import Decision, _Decided, _Request

SAMPLES_A_WRITE = 256

_lock = threading.Lock()


def accept(
    dataset: Any,
    label_ids: Iterable[str],
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    as_references: bool = False,
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
        as_references: also give the copies the label tag `reference`.
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
    as_references: bool = False,
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
        as_references: also give the accepted copies the label tag `reference`.
        sample_ids: the images that hold the predictions, where known: spares looking for them.

    Raises:
        DatasetError: a blank name, a prediction that is not there, no images, or a field that cannot serve.
    """
    require_kind(str, "a class's name", label=label)
    if not label.strip():
        raise DatasetError(f"{label!r} cannot name a class: give the name of what the object is.")
    request = _Request("relabel", label.strip(), label_field, accepted_field, rejected_field, as_references)
    return _decide(dataset, label_ids, request, sample_ids)


def fix(
    dataset: Any,
    label_id: str,
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    as_references: bool = False,
    sample_ids: Iterable[str] | None = None,
) -> Decision:
    """Accept a prediction whose outline is wrong; the copy is then edited with the App's annotation tools.

    Arguments and errors are those of `accept`. The copy counts as corrected by hand.
    """
    request = _Request("fix", None, label_field, accepted_field, rejected_field, as_references)
    require_names(label_id=label_id)
    return _decide(dataset, [label_id], request, sample_ids)


def undo(dataset: Any, decision: Decision) -> bool:
    """Remove the labels that a decision wrote; what it moved or changed does not come back.

    Returns:
        Whether any of them was still there.
    """
    require_kind(Decision, "a decision, such as refseg.accept returns", decision=decision)
    dataset = image_dataset(dataset)
    with _lock:
        fields = {decision.accepted_field: decision.accepted_ids, decision.rejected_field: decision.rejected_ids}
        found = [
            {"label_id": label_id, "sample_id": sample_id, "field": name}
            for name, ids in fields.items()
            for sample_id, label_ids in _find(dataset, name, set(ids), decision.sample_ids).items()
            for label_id in label_ids
        ]
        delete_labels(dataset, found)
    return bool(found)


def _decide(dataset: Any, label_ids: Iterable[str], request: _Request, sample_ids: Iterable[str] | None) -> Decision:
    request.check()
    ids = list(dict.fromkeys(names_of("label_ids", label_ids, like="ids")))
    sample_ids = names_or_none("sample_ids", sample_ids, like="ids")
    dataset = image_dataset(dataset)
    with _lock:
        _check_fields(dataset, request)
        by_sample = _find(dataset, request.label_field, set(ids), sample_ids)
        _require_found(dataset, request.label_field, ids, by_sample)
        accepted_ids: list[str] = []
        rejected_ids: list[str] = []
        if ids:
            _create_fields(dataset, request)
        samples = list(by_sample)
        for start in range(0, len(samples), SAMPLES_A_WRITE):
            chunk = samples[start : start + SAMPLES_A_WRITE]
            decided = _load_and_decide(dataset, {name: by_sample[name] for name in chunk}, request)
            for where, name in (("accepted", request.accepted_field), ("rejected", request.rejected_field)):
                values = {key: _detections(getattr(one, where)) for key, one in decided.items() if where in one.changes}
                if values:
                    write_values(dataset, name, values, dynamic=True)
            for one in decided.values():
                accepted_ids += one.accepted_ids
                rejected_ids += one.rejected_ids
    return Decision(
        request.kind,
        request.label_field,
        accepted_ids,
        rejected_ids,
        ids,
        request.accepted_field,
        request.rejected_field,
        samples,
    )


def _load_and_decide(dataset: Any, by_sample: dict[str, list[str]], request: _Request) -> dict[str, _Decided]:
    wanted = {label_id for ids in by_sample.values() for label_id in ids}
    names = [request.label_field, request.accepted_field, request.rejected_field]
    # What a user keeps under the name of a field that this decision does not write is none of its business.
    present = [name for name in names if _holds_detections(dataset, name)]
    rows = every_image(dataset).select(list(by_sample)).values(["id", *(f"{name}.detections" for name in present)])
    decided = {}
    for sample_id, *columns in zip(*rows, strict=True):
        held = {name: list(labels or ()) for name, labels in zip(present, columns, strict=True)}
        predictions = held[request.label_field]
        current = {prediction.id for prediction in predictions}
        one = _Decided(current, held.get(request.accepted_field, []), held.get(request.rejected_field, []))
        for prediction in predictions:
            if prediction.id in wanted:
                one.decide(prediction, request)
        decided[sample_id] = one
    return decided


def _find(dataset: Any, name: str, label_ids: set[str], sample_ids: Iterable[str] | None) -> dict[str, list[str]]:
    """The images that hold these labels of a field, each with the ids of its own; first looked for where they should be."""
    if not label_ids or not _holds_detections(dataset, name):
        return {}
    hint = [sample_id for sample_id in sample_ids or () if ObjectId.is_valid(sample_id)]
    views = [every_image(dataset).select(hint), every_image(dataset)] if hint else [every_image(dataset)]
    found: dict[str, list[str]] = {}
    for view in views:
        rows = zip(*view.values(["id", f"{name}.detections.id"]), strict=True)
        found = {sample_id: own for sample_id, ids in rows if (own := [one for one in ids or () if one in label_ids])}
        if sum(map(len, found.values())) == len(label_ids):
            break
    return found


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
    if require_object_field(dataset, request.label_field) is not fo.Detections:
        name = request.label_field
        raise DatasetError(
            f"The field {name!r} of dataset {name_of(dataset)!r} does not hold Detections: choose one of predictions."
        )
    targets = _targets(request)
    if len({request.label_field, request.accepted_field, request.rejected_field}) < 3:
        raise DatasetError(
            f"Predictions ({request.label_field!r}), accepted ({request.accepted_field!r}) and rejected labels "
            f"({request.rejected_field!r}) each need a field of their own: choose three names."
        )
    predicted = prediction_fields(dataset)
    for name in targets:
        if name in predicted:
            raise DatasetError(
                f"The field {name!r} of dataset {name_of(dataset)!r} holds predictions, which the next run replaces: choose "
                "another field for what you decide."
            )
        existing = dataset.get_field(name)
        if existing is None:
            check_name(dataset, name)
        elif not _holds_detections(dataset, name):
            held = getattr(existing, "document_type", type(existing)).__name__
            raise DatasetError(
                f"The field {name!r} of dataset {name_of(dataset)!r} holds {held}, not Detections: choose another field, so "
                "that nothing is overwritten."
            )


def _targets(request: _Request) -> list[str]:
    """The fields that a decision of this kind writes to."""
    accepts = [] if request.kind == "reject" else [request.accepted_field]
    return accepts + ([request.rejected_field] if request.kind in ("reject", "relabel") else [])


def _create_fields(dataset: Any, request: _Request) -> None:
    for name in _targets(request):
        if dataset.get_field(name) is None:
            add_labels_field(dataset, name, fo.Detections)


def _holds_detections(dataset: Any, name: str) -> bool:
    return getattr(dataset.get_field(name), "document_type", None) is fo.Detections


def _detections(labels: list[Any]) -> fo.Detections:
    return fo.Detections(detections=labels)
