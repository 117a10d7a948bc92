"""Predictions, and what was decided on them, as columns: read from MongoDB's documents, never as samples or masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import NO_BOX, Rows, is_box, labels_in
from ..printing import one_line

PREDICTION_FIELDS = ("_id", "label", "confidence", "bounding_box", "margin", "runner_up")
DECIDED_FIELDS = ("label", "prediction_id", "predicted_label", "decision", "bounding_box", "predicted_box")


class Names:
    """Names of classes by number, so that columns hold numbers."""

    def __init__(self) -> None:
        self.listed: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a name; a new one gets the next."""
        if name not in self._numbers:
            self._numbers[name] = len(self.listed)
            self.listed.append(name)
        return self._numbers[name]


@dataclass(frozen=True, eq=False)
class PredictionRows(Rows):
    """P predictions.

    Attributes:
        ids: (P,) of the labels, text.
        labels: (P,) int64, numbers of their names.
        scores: (P,) float64, NaN where there is none.
        margins: (P,) float64, infinite where there is none, as of older runs: then the threshold says how sure the model is.
        runners_up: (P,) text or None.
        boxes: (P, 4) float64, NO_BOX where there is none.
    """

    ids: NDArray[np.object_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    margins: NDArray[np.float64]
    runners_up: NDArray[np.object_]
    boxes: NDArray[np.float64]

    __repr__ = one_line


@dataclass(frozen=True, eq=False)
class DecidedRows(Rows):
    """D labels of the accepted and the rejected field.

    Attributes:
        labels: (D,) text or None.
        is_rejected: (D,) bool, the field.
        prediction_ids: (D,) of the prediction that it was copied from, or None.
        predicted_labels: (D,) what that was taken for.
        decisions: (D,) what was decided, or None where it was no decision that wrote the label.
        boxes: (D, 4) float64, NaN where there is none.
        predicted_boxes: (D, 4) float64, where the prediction was.
    """

    labels: NDArray[np.object_]
    is_rejected: NDArray[np.bool_]
    prediction_ids: NDArray[np.object_]
    predicted_labels: NDArray[np.object_]
    decisions: NDArray[np.object_]
    boxes: NDArray[np.float64]
    predicted_boxes: NDArray[np.float64]

    __repr__ = one_line


def projection(field: str, attributes: Sequence[str]) -> dict[str, bool]:
    """These attributes of a field's detections, as MongoDB's $project takes them."""
    return {f"{field}.detections.{name}": True for name in attributes}


def read_predictions(
    documents: Sequence[Mapping[str, Any]], numbers: Sequence[int], field: str, names: Names
) -> PredictionRows:
    """The predictions of samples with these numbers; names gets those of their classes."""
    rows = [(number, one) for number, document in zip(numbers, documents, strict=True) for one in labels_in(document, field)]
    labels = [one for _, one in rows]
    return PredictionRows(
        np.array([number for number, _ in rows], np.int64),
        _objects(str(one["_id"]) for one in labels),
        np.fromiter((names.number(str(one.get("label"))) for one in labels), np.int64),
        _floats((one.get("confidence") for one in labels), np.nan),
        _floats((one.get("margin") for one in labels), np.inf),
        _objects(one.get("runner_up") for one in labels),
        _boxes((one.get("bounding_box") for one in labels), NO_BOX),
    )


def read_decided(
    documents: Sequence[Mapping[str, Any]], numbers: Sequence[int], accepted: str | None, rejected: str | None
) -> DecidedRows:
    """The decided labels of samples with these numbers; None for a field that holds none."""
    rows = [
        (number, one, is_rejected)
        for number, document in zip(numbers, documents, strict=True)
        for field, is_rejected in ((accepted, False), (rejected, True))
        for one in (labels_in(document, field) if field is not None else ())
    ]
    labels = [one for _, one, _ in rows]
    nowhere = (np.nan,) * 4
    return DecidedRows(
        np.array([number for number, _, _ in rows], np.int64),
        _objects(one.get("label") for one in labels),
        np.array([is_rejected for _, _, is_rejected in rows], bool),
        _objects(one.get("prediction_id") for one in labels),
        _objects(one.get("predicted_label") for one in labels),
        _objects(one.get("decision") for one in labels),
        _boxes((one.get("bounding_box") for one in labels), nowhere),
        _boxes((one.get("predicted_box") for one in labels), nowhere),
    )


def _objects(values: Iterable[Any]) -> NDArray[np.object_]:
    # Not np.array, which would look into what it is given.
    return np.fromiter(values, object)


def _floats(values: Iterable[Any], otherwise: float) -> NDArray[np.float64]:
    return np.array([float(value) if isinstance(value, int | float) else otherwise for value in values], float)


def _boxes(values: Iterable[Any], otherwise: Sequence[float]) -> NDArray[np.float64]:
    return np.array([value if is_box(value) else otherwise for value in values], float).reshape(-1, 4)
