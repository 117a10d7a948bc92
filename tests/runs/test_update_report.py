"""What an update says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import SegmentReport
from refseg.runs.update_report import report_of
from tests.synthetic import make_full, seen_twice

FULL = seen_twice(make_full("aabbcc"))
RUN = SegmentReport("run", "predictions", 3, 2, 1, 3, 0, (), 0.5)


def grown(number: int) -> Prototypes:
    assert FULL.cohort is not None
    return replace(FULL, cohort=replace(FULL.cohort, num_images=number))


@pytest.mark.parametrize(
    ("before", "now", "growth"),
    [
        (grown(20), grown(30), (20, 30)),
        (grown(20), grown(29), None),
        (grown(0), grown(12), (0, 12)),
        (grown(0), grown(0), None),
        (None, grown(30), None),
        (replace(FULL, cohort=None), grown(30), None),
    ],
    ids=str,
)
def test_growth_by_half(before: Prototypes | None, now: Prototypes, growth: tuple[int, int] | None) -> None:
    config = {"classes": list(FULL.classes), "reference_ids": list(FULL.reference_ids)}
    report = report_of("parts", now, before, config, RUN)
    assert report.growth == growth
    said = "the index has grown from" in str(report)
    assert said == (growth is not None)
    if growth is not None:
        assert f"from {growth[0]} other images to {growth[1]}: what the dataset is full of was looked at anew" in str(report)
