"""The review of a dataset as this process keeps it: what asks again and again reads only images that were written since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import ACCEPTED_FIELD, REJECTED_FIELD, Content, KeptRows, PastRun, keep_rows, newest_run, require_predictions
from .queue import OpenPredictions, QueueItem, count_decisions, decided_field, find_open
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
from .summary import ReviewSummary


@dataclass(frozen=True, eq=False)
class Review:
    """How far a review is at one moment.

    Attributes:
        sample_ids: of all images.
        open: the predictions nobody has decided on.
        decided: the labels that decisions wrote.
        run: that wrote the predictions, or None.
    """

    sample_ids: Sequence[Any]
    open: OpenPredictions
    decided: DecidedRows
    run: PastRun | None

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,) of all predictions that have one."""
        scores = self.open.predictions.scores
        return scores[~np.isnan(scores)]

    @property
    def summary(self) -> ReviewSummary:
        """What was decided, as `summarize` counts it."""
        return count_decisions(self.decided, self.open.counts)

    def queue(self, order: str, number: int) -> list[QueueItem]:
        """The first so many items of `review_queue`."""
        return self.open.items(self.sample_ids, order, number)


def look_at_review(
    dataset: Any,
    label_field: str = "predictions",
    *,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    slices: Iterable[str] | None = None,
    waits: bool = True,
) -> Review | None:
    """What `review_queue` and `summarize` tell of a whole dataset, without reading again what has not changed.

    Args:
        dataset: a dataset of images, or the view of all frames of one.
        label_field: see `review_queue`.
        accepted_field: see `accept`.
        rejected_field: see `reject`.
        slices: of grouped data, the slices that are looked at.
        waits: however much has to be read, as it has at first; else for a quarter of a second.

    Returns:
        None where that takes longer. Reading goes on beside the caller: ask again.

    Raises:
        DatasetError: no such field, or one that holds no predictions.
    """
    require_predictions(dataset, label_field)
    fields = decided_field(dataset, accepted_field), decided_field(dataset, rejected_field)
    kept = keep_rows(_KeptReview, dataset, label_field, *fields, slices=slices)
    content = kept.look(waits=waits)
    return None if content is None else kept.review_of(content, newest_run(dataset, label_field))


class _KeptReview(KeptRows):
    def __init__(self, samples: Any, slices: Any, label_field: str, accepted: str | None, rejected: str | None) -> None:
        super().__init__(samples, slices)
        self._label_field, self._decided = label_field, (accepted, rejected)
        self._names = Names()
        self._last: tuple[Content, PastRun | None, Review] | None = None

    def review_of(self, content: Content, run: PastRun | None) -> Review:
        """What it comes to; the same as the last time where nothing has changed since."""
        last = self._last
        if last is None or last[0] is not content or last[1] != run:
            predictions, decided = content.rows
            found = find_open(predictions, self._names, decided, run)
            last = self._last = content, run, Review(content.ids, found, decided, run)
        return last[2]

    @property
    def read_fields(self) -> Mapping[str, Any]:
        fields = {name: True for field in self._decided if field for name in projection(field, DECIDED_FIELDS)}
        return {**fields, **projection(self._label_field, PREDICTION_FIELDS)}

    def read(self, documents: Sequence[Mapping[str, Any]], numbers: NDArray[np.int64]) -> tuple[PredictionRows, DecidedRows]:
        return (
            read_predictions(documents, numbers.tolist(), self._label_field, self._names),
            read_decided(documents, numbers.tolist(), *self._decided),
        )
