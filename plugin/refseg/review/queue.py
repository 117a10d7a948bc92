"""Which predictions to look at next, and what was decided so far.

Reads columns of numbers and names in bulk, never samples or masks: ten thousand images with two predictions each take a
quarter of a second. Imports neither torch nor Lance, so that the App can ask at each click.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from ..checks import require_names
from ..dataset import (
    ACCEPTED_FIELD,
    NO_BOX,
    REJECTED_FIELD,
    SAME_PLACE,
    every_image,
    image_view,
    is_box,
    name_of,
    newest_run,
    require_object_field,
    whole_of,
)
from ..errors import DatasetError
from .summary import ClassReview, ReviewSummary

PREDICTIONS_A_CHUNK = 10_000
"""Predictions compared with the decided labels of their images at a time: bounds the memory."""


@dataclass(frozen=True)
class QueueItem:
    """A prediction that nobody has decided on.

    Attributes:
        label_id: of the prediction.
        sample_id: of its image.
        label: its class.
        score: its confidence in [0, 1].
        runner_up: the second most similar class, or None.
        margin: how sure the model is: the least of its lead over the runner-up and over the threshold of its class.
        box: relative x, y, width, height.
    """

    label_id: str
    sample_id: str
    label: str
    score: float
    runner_up: str | None
    margin: float
    box: tuple[float, float, float, float]


def review_queue(
    view: Any,
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    order: Literal["teaching", "score"] = "teaching",
) -> list[QueueItem]:
    """The predictions nobody has decided on.

    A prediction is decided where a label was copied from it, or lies at its place (IoU of boxes from 0.7 on): in the accepted
    field under any name, in the rejected field under the prediction's. So a rejected object that is found again as another
    class is asked again.

    Args:
        view: a dataset or view of images; decisions count even where the view hides them.
        label_field: holds the predictions.
        accepted_field: see `accept`.
        rejected_field: see `reject`.
        order: "teaching" for what the model is least sure of first, of equals the best score; "score" for the best score first.

    Raises:
        DatasetError: no images, no such order, or a field that holds no predictions.
    """
    if order not in ("teaching", "score"):
        raise DatasetError(f"There is no order {order!r} of review: choose 'teaching' or 'score'.")
    require_names(label_field=label_field, accepted_field=accepted_field, rejected_field=rejected_field)
    view = image_view(view)
    predictions = _read_predictions(view, label_field)
    decided = _read_decided(view, accepted_field, rejected_field)
    return _queue(whole_of(view), label_field, predictions, decided, order)


def summarize(
    view: Any,
    label_field: str = "predictions",
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    *,
    counts_open: bool = True,
) -> ReviewSummary:
    """Count what was decided in the images of a view, in this round and in earlier ones, and what is open.

    Labels of these fields that no decision wrote do not count; a relabelled object, of which there are two labels, counts once.
    Errors and the other arguments are those of `review_queue`.

    Args:
        view: see `review_queue`.
        label_field: see `review_queue`.
        accepted_field: see `accept`.
        rejected_field: see `reject`.
        counts_open: False leaves the predictions unread, which takes most of the time; none then counts as open.
    """
    view = image_view(view)
    decided = _read_decided(view, accepted_field, rejected_field)
    open_ones: Counter[str] = Counter()
    if counts_open:
        predictions = _read_predictions(view, label_field)
        open_ones.update(item.label for item in _queue(whole_of(view), label_field, predictions, decided, "score"))
    counts = Counter(
        (str(decided.predicted_labels[row]), str(decision))
        for row, decision in enumerate(decided.decisions)
        if decision is not None and not (decision == "relabel" and decided.is_rejected[row])
    )
    names = sorted({*open_ones, *(name for name, _ in counts)})
    kinds = ("accept", "reject", "relabel", "fix")
    return ReviewSummary(tuple(ClassReview(name, open_ones[name], *(counts[name, kind] for kind in kinds)) for name in names))


@dataclass(frozen=True, eq=False)
class _Predictions:
    """Columns of P predictions, one row each."""

    ids: list[str]
    sample_ids: list[str]
    labels: list[str]
    scores: NDArray[np.float64]
    margins: NDArray[np.float64]
    runners_up: list[str | None]
    boxes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Decided:
    """Columns of D labels of both fields, one row each."""

    sample_ids: list[str]
    labels: list[Any]
    is_rejected: list[bool]
    prediction_ids: list[str | None]
    predicted_labels: list[Any]
    decisions: list[Any]
    boxes: list[list[float]]
    predicted_boxes: list[list[float] | None]


def _queue(dataset: Any, label_field: str, predictions: _Predictions, decided: _Decided, order: str) -> list[QueueItem]:
    known = {name for name in decided.prediction_ids if name is not None}
    by_id = np.fromiter((name in known for name in predictions.ids), bool, len(predictions.ids))
    open_rows = np.flatnonzero(~(by_id | _lies_on_decided(predictions, decided)))
    thresholds = _thresholds(dataset, label_field, predictions.labels)
    sureness = np.minimum(predictions.margins, predictions.scores - thresholds)
    keys = (-predictions.scores,) if order == "score" else (-predictions.scores, sureness)
    rows = open_rows[np.lexsort(tuple(key[open_rows] for key in keys))].tolist()
    scores, margins, boxes = predictions.scores.tolist(), sureness.tolist(), predictions.boxes.tolist()
    return [
        QueueItem(
            predictions.ids[row],
            predictions.sample_ids[row],
            predictions.labels[row],
            scores[row],
            predictions.runners_up[row],
            margins[row],
            tuple(boxes[row]),
        )
        for row in rows
    ]


def _read_predictions(view: Any, label_field: str) -> _Predictions:
    if require_object_field(view, label_field) is not fo.Detections:
        raise DatasetError(
            f"The field {label_field!r} of dataset {name_of(view)!r} does not hold Detections: choose one of predictions."
        )
    names = ("id", "label", "confidence", "bounding_box", "margin", "runner_up")
    sample_ids, (ids, labels, scores, boxes, margins, runners_up) = detection_columns(view, label_field, names)
    return _Predictions(
        ids,
        sample_ids,
        [str(label) for label in labels],
        np.array([0.0 if score is None else score for score in scores], float),
        # Predictions of older runs have no margin: then the threshold alone says how sure the model is.
        np.array([np.inf if margin is None else margin for margin in margins], float),
        runners_up,
        np.array([box if is_box(box) else NO_BOX for box in boxes], float).reshape(-1, 4),
    )


def _read_decided(view: Any, accepted_field: str, rejected_field: str) -> _Decided:
    whole = whole_of(view)
    if view is not whole:
        # Not read through the view, which may hide a part of them.
        whole = every_image(whole)
        whole = whole.select(view.values("id"))
    names = ("label", "prediction_id", "predicted_label", "decision", "bounding_box", "predicted_box")
    rows: list[tuple[Any, ...]] = []
    for field, is_rejected in ((accepted_field, False), (rejected_field, True)):
        if getattr(whole.get_field(field), "document_type", None) is fo.Detections:
            sample_ids, columns = detection_columns(whole.exists(field), field, names)
            rows += zip(sample_ids, [is_rejected] * len(sample_ids), *columns, strict=True)
    sample_ids, is_rejected_of, *columns = (
        (list(column) for column in zip(*rows, strict=True)) if rows else [[] for _ in range(8)]
    )
    labels, prediction_ids, predicted_labels, decisions, boxes, predicted_boxes = columns
    return _Decided(sample_ids, labels, is_rejected_of, prediction_ids, predicted_labels, decisions, boxes, predicted_boxes)


def detection_columns(view: Any, field: str, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """Sample id and attributes of each detection of a field; None where the field does not know an attribute."""
    path = f"{field}.detections"
    known = [name for name in names if view.get_field(f"{path}.{name}") is not None]
    sample_ids, *nested = view.values(["id", *(f"{path}.{name}" for name in known)])
    flat = {name: [item for items in column for item in (items or ())] for name, column in zip(known, nested, strict=True)}
    counted = nested[known.index(next(iter(known)))]
    owners = [sample_id for sample_id, items in zip(sample_ids, counted, strict=True) for _ in items or ()]
    return owners, [flat.get(name, [None] * len(owners)) for name in names]


def _thresholds(dataset: Any, label_field: str, labels: Sequence[str]) -> NDArray[np.float64]:
    """(P,) the score from which on the newest run wrote an object of each prediction's class; 0 where no run is known."""
    run = newest_run(dataset, label_field)
    config: Mapping[str, Any] = {} if run is None else run.config
    default = float(config.get("min_confidence") or 0.0)
    chosen = {str(name): float(least) for name, least in config.get("min_confidences") or ()}
    return np.fromiter((chosen.get(label, default) for label in labels), float, len(labels))


def _lies_on_decided(predictions: _Predictions, decided: _Decided) -> NDArray[np.bool_]:
    """(P,) whether each prediction lies at the place of a decided label of its image that speaks of it."""
    sample_numbers: dict[str, int] = {}
    for name in predictions.sample_ids:
        sample_numbers.setdefault(name, len(sample_numbers))
    codes: dict[Any, int] = {}
    # A label may have been moved since: then it stands for its old place too.
    places = [
        (sample_numbers[sample_id], codes.setdefault(label, len(codes)) if is_rejected else -1, box)
        for sample_id, label, is_rejected, *boxes in zip(
            decided.sample_ids, decided.labels, decided.is_rejected, decided.boxes, decided.predicted_boxes, strict=True
        )
        if sample_id in sample_numbers
        for box in boxes
        if is_box(box)
    ]
    found = np.zeros(len(predictions.ids), bool)
    if not places:
        return found
    places.sort(key=lambda place: place[0])
    samples = np.array([place[0] for place in places])
    wanted = np.array([place[1] for place in places])
    boxes = np.array([place[2] for place in places], float)
    own_samples = np.fromiter((sample_numbers[name] for name in predictions.sample_ids), int, len(found))
    own_codes = np.fromiter((codes.get(label, -2) for label in predictions.labels), int, len(found))
    first, last = np.searchsorted(samples, own_samples, "left"), np.searchsorted(samples, own_samples, "right")
    for start in range(0, len(found), PREDICTIONS_A_CHUNK):
        chunk = slice(start, start + PREDICTIONS_A_CHUNK)
        counts = last[chunk] - first[chunk]
        rows = np.repeat(np.arange(len(counts)) + start, counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        others = first[rows] + within
        speaks = (wanted[others] == -1) | (wanted[others] == own_codes[rows])
        found[rows[speaks & (_paired_iou(predictions.boxes[rows], boxes[others]) >= SAME_PLACE)]] = True
    return found


def _paired_iou(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) IoU of each box, x, y, width, height, with the one at its row."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
