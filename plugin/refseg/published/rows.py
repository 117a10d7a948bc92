"""Published numbers to stand beside ours, each with its source. Nothing is entered that was not read in a paper."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

AVERAGE = "average"
"""As a part: the mean over a benchmark's parts; as a split: over the splits of a part."""
ALL_SHOTS = 0
"""As a number of shots: the mean over the numbers of shots that are published."""

PAPER = "No Time to Train"
REPORTED = "No Time to Train, as reported"
DIFFUSION = "FSOD-VFM"
MATCHER = "Matcher"


@dataclass(frozen=True)
class PublishedRow:
    """One published figure.

    Attributes:
        benchmark: as on the command line.
        part: "" where the benchmark has a single part; or AVERAGE.
        split: as `Split.key`; "" where the part has one split alone; or AVERAGE.
        shots: references a class; or ALL_SHOTS.
        figure: such as "box AP", as in results.
        value: per cent, as in the paper.
        spread: standard deviation over seeds, per cent; None where it is not published.
        method: its short name.
        source: paper, and which of its results.
    """

    benchmark: str
    part: str
    split: str
    shots: int
    figure: str
    value: float
    spread: float | None
    method: str
    source: str


_PAPER = "arXiv 2507.02798"
_DIFFUSION = "arXiv 2602.03137"

_COCO: Mapping[int, tuple[float, float, float, float]] = {  # box AP, its deviation, mask AP, its deviation
    1: (24.5, 1.5, 22.9, 1.6),
    2: (29.5, 2.0, 27.5, 1.9),
    3: (32.3, 1.3, 30.1, 1.3),
    5: (34.4, 0.8, 32.1, 0.7),
    10: (35.9, 0.5, 33.4, 0.5),
    30: (37.0, 0.2, 34.4, 0.2),
}
_VOC_SHOTS = (1, 2, 3, 5, 10)
_VOC: Mapping[str, Sequence[float]] = {
    "split1": (70.8, 72.3, 73.3, 77.2, 79.1),
    "split2": (54.5, 67.0, 76.3, 75.9, 78.2),
    "split3": (61.1, 67.9, 71.3, 70.8, 72.6),
}
_CD_SHOTS = (1, 5, 10)
_CD: Mapping[str, Sequence[float]] = {
    "ArTaxOr": (28.2, 35.7, 35.0),
    "clipart1k": (18.9, 24.9, 25.9),
    "DIOR": (14.9, 18.5, 16.4),
    "FISH": (30.5, 29.6, 29.6),
    "NEU-DET": (5.5, 5.2, 5.5),
    "UODD": (10.0, 20.2, 16.0),
    AVERAGE: (18.0, 22.4, 21.4),
}


AVERAGED_OVER: Mapping[str, tuple[str, ...]] = {
    "voc-fsod": tuple(_VOC),
    "cd-fsod": tuple(name for name in _CD if name != AVERAGE),
    "coco-20i": ("fold0", "fold1", "fold2", "fold3"),
}
"""The splits or parts that a benchmark's published averages are of."""
AVERAGED_SHOTS: Mapping[str, tuple[int, ...]] = {"voc-fsod": _VOC_SHOTS}
"""The numbers of shots that its rows of ALL_SHOTS are of."""


def _coco_rows() -> Iterator[PublishedRow]:
    source = f"{_PAPER}, COCO-FSOD, mean of ten seeds"
    for shots, (box, box_spread, mask, mask_spread) in _COCO.items():
        yield PublishedRow("coco-fsod", "", "novel", shots, "box AP", box, box_spread, PAPER, source)
        yield PublishedRow("coco-fsod", "", "novel", shots, "mask AP", mask, mask_spread, PAPER, source)
    source = f"{_PAPER}, COCO-FSOD, the run of the comparison"
    yield PublishedRow("coco-fsod", "", "novel", 30, "box AP", 36.8, None, REPORTED, source)
    yield PublishedRow("coco-fsod", "", "novel", 30, "mask AP", 34.2, None, REPORTED, source)
    source = f"{_DIFFUSION}, COCO few-shot"
    for shots, value in ((10, 44.0), (30, 45.8)):
        yield PublishedRow("coco-fsod", "", "novel", shots, "box AP", value, None, DIFFUSION, source)


def _voc_rows() -> Iterator[PublishedRow]:
    source = f"{_PAPER}, Pascal VOC few-shot"
    for split, values in _VOC.items():
        for shots, value in zip(_VOC_SHOTS, values, strict=True):
            yield PublishedRow("voc-fsod", "", split, shots, "box AP50", value, None, PAPER, source)
    for shots, of_splits in zip(_VOC_SHOTS, zip(*_VOC.values(), strict=True), strict=True):
        mean = round(statistics.mean(of_splits), 1)
        computed = f"{source}, the mean of its three splits computed here"
        yield PublishedRow("voc-fsod", "", AVERAGE, shots, "box AP50", mean, None, PAPER, computed)
    yield PublishedRow("voc-fsod", "", AVERAGE, ALL_SHOTS, "box AP50", 71.2, None, PAPER, source)
    source = f"{_DIFFUSION}, Pascal VOC few-shot"
    yield PublishedRow("voc-fsod", "", AVERAGE, ALL_SHOTS, "box AP50", 77.5, None, DIFFUSION, source)


def _cd_rows() -> Iterator[PublishedRow]:
    source = f"{_PAPER}, CD-FSOD"
    for part, values in _CD.items():
        for shots, value in zip(_CD_SHOTS, values, strict=True):
            yield PublishedRow("cd-fsod", part, "", shots, "box AP", value, None, PAPER, source)
    source = f"{_DIFFUSION}, CD-FSOD"
    for shots, value in zip(_CD_SHOTS, (25.3, 31.3, 31.6), strict=True):
        yield PublishedRow("cd-fsod", AVERAGE, "", shots, "box AP", value, None, DIFFUSION, source)


def _other_rows() -> Iterator[PublishedRow]:
    source = f"{_PAPER}, two classes of COCO train2017, ten images"
    yield PublishedRow("toy", "", "", 1, "box AP", 47.8, None, PAPER, source)
    yield PublishedRow("toy", "", "", 1, "mask AP", 45.8, None, PAPER, source)
    source = "arXiv 2305.13310, abstract: COCO-20i with one example, mean of the four folds"
    yield PublishedRow("coco-20i", "", AVERAGE, 1, "mIoU", 52.7, None, MATCHER, source)


ROWS: tuple[PublishedRow, ...] = (*_coco_rows(), *_voc_rows(), *_cd_rows(), *_other_rows())


def rows_for(benchmark: str) -> tuple[PublishedRow, ...]:
    """The published rows of a benchmark, none where none were found: `lvis` and `custom`.

    Example:
        >>> [row.value for row in rows_for("toy")]
        [47.8, 45.8]
    """
    return tuple(row for row in ROWS if row.benchmark == benchmark)
