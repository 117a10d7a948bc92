"""The rule by which the published few-shot benchmark draws references (method.md), wherever the objects lie; what was drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeAlias, TypeVar

import numpy as np

from ..images import crop_picture
from ..notebook import PICTURES, bars, details, gallery, page
from ..printing import counted

V = TypeVar("V")
Place: TypeAlias = tuple[str, tuple[float, float, float, float]]
"""Path of an image, and x, y, width, height in it as shares of the upright image."""

ROUNDING = 1e-6
"""Pixels by which a relative box may fall short of the whole pixels it was made from."""


@dataclass(frozen=True)
class SampledReferences:
    """What sample_references drew.

    Attributes:
        label_ids: for each class the ids of the labels drawn, now tagged.
        short: for each class with too few suitable objects, how many were found.
        left_out: id of each label that cannot be read, and in words what it is and why.
        places: for the id of each label drawn the path of its image, and its box: x, y, width, height as shares of the upright
            image.
    """

    label_ids: dict[str, list[str]]
    short: dict[str, int]
    left_out: tuple[tuple[str, str], ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)

    def _repr_html_(self) -> str:
        """Crops of what was drawn, as many of each class."""
        # A row of each class's first, then of each one's second: all classes are seen where not all references are.
        rows = zip_longest(*([(label, one) for one in ids] for label, ids in self.label_ids.items()))
        drawn = [pair for row in rows for pair in row if pair is not None]
        pictures = []
        for label, label_id in drawn[:PICTURES]:
            path, box = self.places.get(label_id, ("", None))
            pictures.append(crop_picture(path, box, label, os.path.basename(path) or label_id))
        lacking = [
            f"{label!r} has {counted(number, 'suitable object')}, fewer than asked for" for label, number in self.short.items()
        ]
        return page(
            f"{counted(len(drawn), 'reference')} of {counted(len(self.label_ids), 'class')} drawn and tagged",
            gallery(pictures, len(drawn)),
            bars({label: len(ids) for label, ids in self.label_ids.items()}) if len(drawn) > PICTURES else None,
            *lacking[:PICTURES],
            details(f"{counted(len(self.left_out), 'label')} left out", [f"{why} ({one})" for one, why in self.left_out]),
        )


def is_whole(box: Sequence[float], image_hw: tuple[int, int], min_side: float, border: float) -> bool:
    """Whether an object is large enough to be a reference, and far enough from the edge to be seen whole.

    Args:
        box: x0, y0, x1, y1 pixels.
        image_hw: height and width of its image.
        min_side: pixels that both sides must have.
        border: pixels that must lie between the box and each edge of the image.
    """
    x0, y0, x1, y1 = box
    height, width = image_hw
    margin = min(x0, y0, width - x1, height - y1)
    return margin >= border - ROUNDING and min(x1 - x0, y1 - y0) >= min_side - ROUNDING


def draw_one_each(groups: Sequence[Sequence[V]], count: int | None, seed: Sequence[int]) -> list[V]:
    """Draw groups, and from each of them one member; the first of many draws are those of fewer.

    Args:
        groups: such as the objects of a class in each image; sorted, where the draw is not to depend on the order they come in.
        count: how many groups; None for all of them. Fewer where there are fewer.
        seed: of the draw.

    Example:
        >>> images = [["a", "b"], ["c"], ["d", "e"]]
        >>> draw_one_each(images, 2, (33, 0)) == draw_one_each(images, 3, (33, 0))[:2]
        True
    """
    rng = np.random.default_rng(tuple(seed))
    return [groups[pick][rng.choice(len(groups[pick]))] for pick in rng.permutation(len(groups))[:count]]
