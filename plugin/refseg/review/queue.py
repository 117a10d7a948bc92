"""Which predictions to look at next, and what was decided so far.

Reads columns of numbers and names in bulk, never samples or masks: ten thousand images with two predictions each take a
third of a second; see `kept_review` for what asks again and again. Imports neither torch nor Lance, so that the App can ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from ..checks import require_names
from ..dataset import (
    ACCEPTED_FIELD,
    REJECTED_FIELD,
    SAME_PLACE,
    PastRun,
    every_image,
    image_view,
    in_chunks,
    newest_run,
    require_predictions,
    whole_of,
)
from ..errors import DatasetError
from ..notebook import plain_page
from ..printing import one_line
from .rows import (
    DECIDED_FIELDS,
    PREDICTION_FIELDS,
    DecidedRows,
    Names,
    PredictionRows,
    projection,
    read_decided,
    read_predictions,
)
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

    _repr_html_ = plain_page


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
    sample_ids, predictions, names = _read_predictions(view, label_field)
    decided = _read_decided(view, accepted_field, rejected_field, sample_ids)
    found = find_open(predictions, names, decided, newest_run(whole_of(view), label_field))
    return found.items(sample_ids, order)


def summarize(
    view: Any,
    label_field: str = "predictions",
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
) -> ReviewSummary:
    """Count what was decided in the images of a view, in this round and in earlier ones, and what is open.

    Labels of these fields that no decision wrote do not count; a relabelled object, of which there are two labels, counts once.
    Arguments and errors are those of `review_queue`.
    """
    view = image_view(view)
    sample_ids, predictions, names = _read_predictions(view, label_field)
    decided = _read_decided(view, accepted_field, rejected_field, sample_ids)
    return count_decisions(decided, find_open(predictions, names, decided, None).counts)


@dataclass(frozen=True, eq=False)
class OpenPredictions:
    """The predictions nobody has decided on.

    Attributes:
        predictions: those with others.
        names: of their classes.
        rows: (n,) their rows.
        sureness: (P,) how sure the model is of each of all, see QueueItem.margin.
    """

    predictions: PredictionRows
    names: Sequence[str]
    rows: NDArray[np.int64]
    sureness: NDArray[np.float64]

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each class that has any."""
        numbers = np.bincount(self.predictions.labels[self.rows], minlength=len(self.names))
        return {name: number for name, number in zip(self.names, numbers.tolist(), strict=True) if number}

    def among(self, label_ids: Collection[str]) -> set[str]:
        """Those of these ids that are open."""
        return {one for one in self.predictions.ids[self.rows].tolist() if one in label_ids}

    def hundredths(self, label: str | None = None) -> NDArray[np.int64]:
        """(101,) how many of a class, or of all, have a score of 0.00 to 0.01, 0.01 to 0.02, …, and of 1."""
        counts: NDArray[np.int64] = np.bincount(_hundredths(self.predictions.scores[self._of(label)]), minlength=101)
        return counts

    def from_hundredth(self, least: int, label: str | None = None) -> list[tuple[str, int]]:
        """Id and number of the sample of those of a class, or of all, whose score is at least this, the best first.

        Args:
            least: in hundredths, 0 to 100: as many as `hundredths` counts from there on.
            label: of the class; None for all.
        """
        rows = self._of(label)
        rows = rows[_hundredths(self.predictions.scores[rows]) >= least]
        rows = rows[np.argsort(-np.nan_to_num(self.predictions.scores[rows]), kind="stable")]
        return [(self.predictions.ids[row], int(self.predictions.numbers[row])) for row in rows.tolist()]

    def _of(self, label: str | None) -> NDArray[np.int64]:
        if label is None:
            return self.rows
        is_own = np.array([name == label for name in self.names], bool)
        return self.rows[is_own[self.predictions.labels[self.rows]]] if len(is_own) else self.rows

    def items(self, sample_ids: Sequence[Any], order: str, number: int | None = None) -> list[QueueItem]:
        """The first so many, or all, in an order of `review_queue`; sample_ids are what the predictions' numbers count."""
        all_of = self.predictions
        scores = np.nan_to_num(all_of.scores)
        keys = (-scores,) if order == "score" else (self.sureness, -scores)
        rows = self.rows
        if number is not None and 0 < number < len(rows):
            # To sort all for the sake of a few takes most of the time.
            first = keys[0][rows]
            rows = rows[first <= np.partition(first, number - 1)[number - 1]]
        rows = rows[np.lexsort((all_of.numbers[rows], *(key[rows] for key in reversed(keys))))][:number]
        return [
            QueueItem(
                all_of.ids[row],
                str(sample_ids[all_of.numbers[row]]),
                self.names[all_of.labels[row]],
                float(scores[row]),
                all_of.runners_up[row],
                float(self.sureness[row]),
                tuple(all_of.boxes[row].tolist()),
            )
            for row in rows.tolist()
        ]


def _hundredths(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    # 0.29 times a hundred is a little less than 29.
    hundredths: NDArray[np.int64] = np.floor(np.nan_to_num(scores).clip(0, 1) * 100 + 1e-6).astype(np.int64)
    return hundredths


def find_open(predictions: PredictionRows, names: Names, decided: DecidedRows, run: PastRun | None) -> OpenPredictions:
    """Which of the predictions nobody has decided on; their run, where it is known, says from which scores on it wrote them."""
    listed = list(names.listed)
    known = {name for name in decided.prediction_ids if name is not None}
    is_decided = _lies_on_decided(predictions, listed, decided)
    if known:
        is_decided |= np.fromiter((name in known for name in predictions.ids), bool, len(is_decided))
    above = np.nan_to_num(predictions.scores) - _thresholds(listed, run)[predictions.labels]
    return OpenPredictions(predictions, listed, np.flatnonzero(~is_decided), np.minimum(predictions.margins, above))


def count_decisions(decided: DecidedRows, open_ones: Mapping[str, int]) -> ReviewSummary:
    """Decisions by class, beside how many predictions of each class are open."""
    counts = Counter(
        (str(label), str(decision))
        for label, decision, is_rejected in zip(
            decided.predicted_labels, decided.decisions, decided.is_rejected.tolist(), strict=True
        )
        if decision is not None and not (decision == "relabel" and is_rejected)
    )
    names = sorted({*open_ones, *(name for name, _ in counts)})
    rows = [[counts[name, kind] for kind in ("accept", "reject", "relabel", "fix")] for name in names]
    return ReviewSummary(tuple(ClassReview(name, open_ones.get(name, 0), *row) for name, row in zip(names, rows, strict=True)))


def decided_field(dataset: Any, field: str) -> str | None:
    """The field, where it can hold what was decided: what a user keeps under its name of another kind is no decision."""
    entry = dataset.get_field(field)
    return field if entry is None or getattr(entry, "document_type", None) is fo.Detections else None


def _read_predictions(view: Any, label_field: str) -> tuple[list[Any], PredictionRows, Names]:
    """Ids of the samples of a view, their predictions, and the names of their classes."""
    require_predictions(view, label_field)
    names = Names()
    sample_ids: list[Any] = []
    parts = [read_predictions([], [], label_field, names)]
    for documents in in_chunks(view._aggregate(post_pipeline=[{"$project": projection(label_field, PREDICTION_FIELDS)}])):
        numbers = range(len(sample_ids), len(sample_ids) + len(documents))
        parts.append(read_predictions(documents, numbers, label_field, names))
        sample_ids += [one["_id"] for one in documents]
    return sample_ids, PredictionRows.join(parts), names


def _read_decided(view: Any, accepted_field: str, rejected_field: str, sample_ids: Sequence[Any]) -> DecidedRows:
    # Not read through the view, which may hide a part of them.
    whole = every_image(whole_of(view))
    fields = decided_field(whole, accepted_field), decided_field(whole, rejected_field)
    project = {name: True for field in fields if field for name in projection(field, DECIDED_FIELDS)}
    numbers = {name: number for number, name in enumerate(sample_ids)}
    chosen = [] if view is whole else [{"$match": {"_id": {"$in": list(sample_ids)}}}]
    parts = [read_decided([], [], *fields)]
    for documents in in_chunks(whole._aggregate(post_pipeline=[*chosen, {"$project": {"_id": True, **project}}])):
        held = [one for one in documents if one["_id"] in numbers]
        parts.append(read_decided(held, [numbers[one["_id"]] for one in held], *fields))
    return DecidedRows.join(parts)


def _thresholds(names: Sequence[str], run: PastRun | None) -> NDArray[np.float64]:
    """(K,) the score from which on a run wrote an object of each class; 0 where no run is known."""
    config: Mapping[str, Any] = {} if run is None else run.config
    default = float(config.get("min_confidence") or 0.0)
    chosen = {str(name): float(least) for name, least in config.get("min_confidences") or ()}
    return np.array([chosen.get(name, default) for name in names], float)


def _lies_on_decided(predictions: PredictionRows, names: Sequence[str], decided: DecidedRows) -> NDArray[np.bool_]:
    """(P,) whether each prediction lies at the place of a decided label of its image that speaks of it."""
    found = np.zeros(len(predictions.numbers), bool)
    # A label may have been moved since: then it stands for its old place too.
    boxes = np.concatenate([decided.boxes, decided.predicted_boxes])
    places = np.flatnonzero(np.isfinite(boxes).all(1))
    if not len(places):
        return found
    samples = np.tile(decided.numbers, 2)[places]
    places = places[np.argsort(samples, kind="stable")]
    samples, boxes = np.sort(samples), boxes[places]
    places %= len(decided.numbers)
    # Of all predictions, those in images where something was decided.
    near = np.flatnonzero(np.isin(predictions.numbers, samples))
    codes = {name: code for code, name in enumerate(names)}
    speaking = zip(decided.labels[places], decided.is_rejected[places], strict=True)
    # What was accepted speaks of every class.
    wanted = np.fromiter((codes.get(name, -2) if rejected else -1 for name, rejected in speaking), int, len(places))
    own_codes = predictions.labels[near]
    own = predictions.numbers[near]
    first, last = np.searchsorted(samples, own, "left"), np.searchsorted(samples, own, "right")
    for start in range(0, len(near), PREDICTIONS_A_CHUNK):
        chunk = slice(start, start + PREDICTIONS_A_CHUNK)
        counts = last[chunk] - first[chunk]
        rows = np.repeat(np.arange(len(counts)) + start, counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        others = first[rows] + within
        speaks = (wanted[others] == -1) | (wanted[others] == own_codes[rows])
        is_same = _paired_iou(predictions.boxes[near[rows]], boxes[others]) >= SAME_PLACE
        found[near[rows[speaks & is_same]]] = True
    return found


def _paired_iou(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) IoU of each box, x, y, width, height, with the one at its row."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
