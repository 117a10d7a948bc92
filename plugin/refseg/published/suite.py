"""What a published benchmark consists of, whatever files it comes in: values alone. No FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..coco import CocoDataset
from ..masks import ImageId

Metric: TypeAlias = Literal["coco", "voc", "lvis", "miou"]

ANY_SHOTS = 0
"""The key of a pool from which any number of references is drawn."""


@dataclass(frozen=True)
class Split:
    """Classes that are looked for together.

    Attributes:
        key: short, such as "novel", "split1", "fold0"; a part of file and field names.
        category_ids: of the classes, in the targets and in the pools alike.
        groups: classes that get a figure of their own, by a suffix of its name: {"r": (…)} makes "box APr".
    """

    key: str
    category_ids: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawRule:
    """Which objects may be drawn as references (method.md, "Published numbers").

    Attributes:
        min_side: pixels; boxes with a shorter side are passed over.
        border: pixels; boxes nearer to the image's edge are passed over.
        relaxed: a class without any suitable object is drawn from its others, apart from crowds.
    """

    min_side: float = 32
    border: float = 10
    relaxed: bool = False


@dataclass(frozen=True)
class Draw:
    """References of one split, number of shots and seed.

    Attributes:
        annotations: of the pool, in the order of classes; each class's in the order they were drawn.
        short: for each class with fewer suitable objects than shots, how many there are; 0 for a class without any.
        relaxed: classes drawn from objects that the rule passes over.
    """

    annotations: tuple[dict[str, Any], ...]
    short: Mapping[str, int] = field(default_factory=dict)
    relaxed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Federated:
    """What LVIS says of one image beyond its objects.

    Attributes:
        absent: ids of classes that are known not to be in it.
        not_exhaustive: ids of classes of which some objects may be unmarked.
    """

    absent: frozenset[int]
    not_exhaustive: frozenset[int]


@dataclass(frozen=True)
class Part:
    """One set of target images with what is drawn on to find their objects.

    Attributes:
        key: "" where a benchmark has a single part, else such as "DIOR".
        targets: images to segment, all with their height and width, and their ground truth.
        splits: at least one.
        pools: references to choose from, by the number of shots; under ANY_SHOTS, those that any number is drawn from.
        rule: of drawing; None takes all objects of the pool, or, where a number of shots is asked for, the first so many.
        federated: by image; None where every class is marked in every image.
    """

    key: str
    targets: CocoDataset
    splits: tuple[Split, ...]
    pools: Mapping[int, CocoDataset]
    rule: DrawRule | None = DrawRule()
    federated: Mapping[ImageId, Federated] | None = None


@dataclass(frozen=True)
class Suite:
    """A benchmark as it lies on this machine.

    Attributes:
        name: as on the command line, such as "coco-fsod".
        title: for headings.
        folder: that every file name is relative to.
        parts: at least one.
        shots: that are published; what is run where nobody asks for others.
        metric: how it is scored.
        figures: those that a table shows, the first of which is published: "box AP", "mask AP", "box AP50", "mIoU", …
        max_detections: the best so many of an image count.
    """

    name: str
    title: str
    folder: Path
    parts: tuple[Part, ...]
    shots: tuple[int, ...]
    metric: Metric
    figures: tuple[str, ...]
    max_detections: int = 100


@dataclass
class Problems:
    """What is missing before a run can start, gathered so that one message can name all of it."""

    found: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note one: a sentence that names the file or class and says what to do."""
        if problem not in self.found:
            self.found.append(problem)
