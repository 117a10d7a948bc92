"""The rule by which the published few-shot benchmark draws references (method.md), wherever the objects lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

V = TypeVar("V")

ROUNDING = 1e-6
"""Pixels by which a relative box may fall short of the whole pixels it was made from."""


def is_whole(box: Sequence[float], image_hw: tuple[int, int], min_side: float, border: float) -> bool:
    """Whether an object is large enough to be a reference, and far enough from the edge to be seen whole; see unsuitable."""
    return unsuitable(box, image_hw, min_side, border) is None


def unsuitable(box: Sequence[float], image_hw: tuple[int, int], min_side: float, border: float) -> str | None:
    """Why an object is no reference: "border" where it may not be seen whole, "small", or None where it can be one.

    Args:
        box: x0, y0, x1, y1 pixels.
        image_hw: height and width of its image.
        min_side: pixels that both sides must have.
        border: pixels that must lie between the box and each edge of the image.
    """
    x0, y0, x1, y1 = box
    height, width = image_hw
    margin = min(x0, y0, width - x1, height - y1)
    if min(x1 - x0, y1 - y0) < min_side - ROUNDING:
        return "small"
    return "border" if margin < border - ROUNDING else None


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
