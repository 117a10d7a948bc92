"""What a dataset says of its decisions: the figures."""

from __future__ import annotations

import fiftyone as fo
import pytest

from refseg.review.decisions import accept, fix, reject, relabel
from refseg.review.queue import summarize
from refseg.review.summary import ClassReview, ReviewSummary
from tests.review.predictions import ids_of


class TestSummary:
    def test_counts(self, dataset: fo.Dataset) -> None:
        sample = dataset.first()
        sample["accepted"] = fo.Detections(detections=[fo.Detection(label="own", bounding_box=[0.9, 0.9, 0.1, 0.1])])
        sample.save()
        every = ids_of(dataset)
        accept(dataset, every[:1])
        relabel(dataset, every[1:2], "gear")
        reject(dataset, every[2:3])
        summary = summarize(dataset)
        assert summary == ReviewSummary((ClassReview("star", 1, 1, 1, 0, 0), ClassReview("tee", 0, 0, 0, 1, 0)))
        assert (summary.num_open, summary.num_accepted, summary.num_rejected, summary.num_relabelled) == (1, 1, 1, 1)
        assert summary.acceptance_rate == pytest.approx(1 / 3)
        assert summary.corrections_per_hundred == pytest.approx(200 / 3)
        fix(dataset, every[3])
        summary = summarize(dataset)
        assert (summary.num_open, summary.num_fixed, summary.acceptance_rate) == (0, 1, 0.25)
        assert str(summary) == (
            "1 accepted, 1 rejected, 1 relabelled, 1 corrected by hand; 0 to review; 75 corrections in a hundred objects"
        )
        assert summarize(dataset[1:]).num_decided == 2

    def test_nothing_decided(self, dataset: fo.Dataset) -> None:
        summary = summarize(dataset)
        assert (summary.num_open, summary.acceptance_rate, summary.corrections_per_hundred) == (4, None, None)
        assert str(summary).endswith("; 4 to review")
