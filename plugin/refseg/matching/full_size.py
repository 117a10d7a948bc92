"""Masks at the image's size as bits, many at once, for the cost of their outlines (method.md C3).

A line of pixels enters and leaves a mask within squares of cells that the mask covers in part (`refseg.candidates.borders`).
Between two columns of cells the resized logits of the line are a straight line too, so that one pixel has to be looked at.
This takes an image that is no smaller than the grid: resizing to a smaller one mixes more than four cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import (
    BITS,
    BitCrops,
    Borders,
    Candidates,
    PackedCandidates,
    count_bits,
    flip_at,
    interpolation_matrix,
    starts_of,
)
from ..printing import one_line

MASKS_A_STEP = 96
"""Masks resized at once: what is made of them on the way stays in the processor's cache, and needs no new memory each time."""

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class FullSize:
    """Masks of one image at its size.

    Attributes:
        crops: for each mask the bits of a rectangle around it: a line for each row of pixels of its box, in words of 64 pixels,
            counted from the left border of the image.
        boxes: (n, 4) int64 xyxy pixels, far edge excluded, that hold all of each mask: up to a cell more than is tight.
    """

    crops: BitCrops
    boxes: Whole

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.crops)

    def masks(self) -> Iterator[tuple[Tensor, tuple[int, int, int, int]] | None]:
        """The tight bool mask (h, w) of each and its box, xyxy pixels, far edge excluded; None where nothing is left of it."""
        for part, (left, top) in zip(self.crops.parts(), self.boxes[:, :2].tolist(), strict=True):
            yield _cut(part, top, left // BITS * BITS)

    @cached_property
    def areas(self) -> Whole:
        """(n,) int64, pixels of each."""
        return self.crops.areas

    @cached_property
    def _places(self) -> list[tuple[NDArray[np.uint64], int, int, int, int]]:
        """The bits of each, its first line and the one after its last, and the same of its words."""
        lefts, lines = self.boxes[:, 0] // BITS, self.boxes[:, 1::2]
        columns = (column.tolist() for column in (lines[:, 0], lines[:, 1], lefts, lefts + self.crops.widths))
        return list(zip(self.crops.parts(), *columns, strict=True))

    def num_shared(self, one: int, other: int) -> int:
        """Pixels that two of the masks have in common."""
        own, top, bottom, left, right = self._places[one]
        its, its_top, its_bottom, its_left, its_right = self._places[other]
        # Not max and min, which take longer than what is done with their answers.
        y0, y1 = top if top > its_top else its_top, bottom if bottom < its_bottom else its_bottom
        x0, x1 = left if left > its_left else its_left, right if right < its_right else its_right
        if y0 >= y1 or x0 >= x1:
            return 0
        here = own[y0 - top : y1 - top, x0 - left : x1 - left]
        there = its[y0 - its_top : y1 - its_top, x0 - its_left : x1 - its_left]
        return int(count_bits(here & there).sum())


def fits(candidates: Candidates | PackedCandidates) -> bool:
    """Whether masks of these candidates can be resized here: their image is no smaller than the grid."""
    return 2 <= candidates.grid_side <= min(candidates.image_hw)


def resize(candidates: Candidates | PackedCandidates, rows: Tensor) -> FullSize:
    """Some masks of an image that fits, at its size.

    Args:
        candidates: of the image.
        rows: (n,) int64, of masks that are not empty.

    Raises:
        ValueError: a code of packed candidates is damaged.
    """
    parts = [_resize(candidates, some) for some in rows.split(MASKS_A_STEP)]
    words, lines, widths, boxes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return FullSize(BitCrops(words, lines, widths), boxes)


def _resize(candidates: Candidates | PackedCandidates, rows: Tensor) -> tuple[NDArray[np.uint64], Whole, Whole, Whole]:
    """The words, lines and widths of BitCrops, and the boxes of FullSize."""
    vertical, horizontal = (_axis(candidates.grid_side, pixels) for pixels in candidates.image_hw)
    borders = candidates.borders(rows)
    boxes = _around(candidates.boxes_of(rows).numpy().astype(np.int64), vertical, horizontal)
    lefts = boxes[:, 0] // BITS
    lines, widths = boxes[:, 3] - boxes[:, 1], -(-boxes[:, 2] // BITS) - lefts
    starts = starts_of(lines * widths)
    square, line, pixel = _crossings(borders, vertical, horizontal)
    first = starts[:-1] - boxes[:, 1] * widths - lefts
    words = first.take(borders.masks).take(square) + line * widths.take(borders.masks).take(square)
    return flip_at(words * BITS + pixel, int(starts[-1])), lines, widths, boxes


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize to no fewer pixels than there were cells: each pixel lies between a cell and the next one.

    Attributes:
        first: (M + 2,) int64, the first pixel that lies between each cell and the next one, counted from a cell that would be
            before the first one; no pixel lies before the first cell or behind the last one, because those at the ends of the
            axis take the nearest cell alone.
        middle: (M + 1,) float32, where the middle of each cell, counted the same way, lies among the pixels.
        scale: pixels a cell.
        low: (pixels,) float32, what the cell counts.
        high: (pixels,) float32, what the next one counts.
    """

    first: Whole
    middle: NDArray[np.float32]
    scale: np.float32
    low: NDArray[np.float32]
    high: NDArray[np.float32]


@lru_cache(maxsize=8)
def _axis(side: int, pixels: int) -> _Axis:
    weights = interpolation_matrix(side, pixels).numpy()
    # A pixel in the middle of a cell, or beyond that of the last one, has one weight alone.
    cells = np.minimum((weights != 0).argmax(1), side - 2)
    first = np.concatenate([[0], np.searchsorted(cells, np.arange(side - 1)), [pixels, pixels]])
    middle = (np.arange(-1, side) + 0.5) * (pixels / side) - 0.5
    every = np.arange(pixels)
    return _Axis(first, middle.astype(np.float32), np.float32(pixels / side), weights[every, cells], weights[every, cells + 1])


def _around(boxes: Whole, vertical: _Axis, horizontal: _Axis) -> Whole:
    """(n, 4) int64: the pixels of the squares at the border of masks with these boxes of cells; see FullSize."""
    x0, y0, x1, y1 = boxes.T
    side = len(vertical.middle) - 1
    top, bottom = vertical.first[y0.clip(1)], vertical.first[y1.clip(max=side - 2) + 2]
    return np.stack([horizontal.first[x0], top, horizontal.first[x1 + 2], bottom], 1)


def _crossings(borders: Borders, vertical: _Axis, horizontal: _Axis) -> tuple[Whole, Whole, Whole]:
    """Where lines of pixels enter and leave masks: the square, the line, and the first pixel on the other side; in no order."""
    first = vertical.first.take(borders.rows + 1)
    counts = vertical.first.take(borders.rows + 2) - first
    upper_left, upper_right, lower_left, lower_right = borders.corners
    every, number = np.arange(len(borders)), 0
    found: list[tuple[NDArray[Any], ...]] = []
    # Line by line from the top of each square: nothing has to be copied for the lines of one square.
    while True:
        if (counts <= number).any():
            more = np.flatnonzero(counts > number)
            every, first, counts = every.take(more), first.take(more), counts.take(more)
            upper_left, upper_right, lower_left, lower_right = borders.corners.take(every, axis=1)
        if not len(every):
            break
        line = first + number
        low, high = vertical.low.take(line), vertical.high.take(line)
        left, right = low * upper_left + high * lower_left, low * upper_right + high * lower_right
        crossed = np.flatnonzero((left > 0) != (right > 0))
        found.append((every.take(crossed), line.take(crossed), left.take(crossed), right.take(crossed)))
        number += 1
    if not found:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    square, line, left, right = (np.concatenate(column) for column in zip(*found, strict=True))
    return square, line, _first_across(borders.columns.take(square) + 1, left, right, horizontal)


def _first_across(cells: Whole, left: NDArray[np.float32], right: NDArray[np.float32], axis: _Axis) -> Whole:
    """The first pixel from each cell on, counted as in an axis, that is on the side of the next one, of another sign."""
    # Where the straight line is 0: pixels further than half a pixel from there are clearly on one side or the other.
    zero = axis.middle.take(cells) + left / (left - right) * axis.scale
    nearest = np.rint(zero).astype(np.int64)
    value = axis.low.take(nearest, mode="clip") * left + axis.high.take(nearest, mode="clip") * right
    pixel: Whole = nearest + ((value > 0) == (left > 0))
    # At the ends of the axis masks end all the same.
    return np.minimum(np.maximum(pixel, axis.first.take(cells)), axis.first.take(cells + 1))


def _cut(part: NDArray[np.uint64], top: int, left: int) -> tuple[Tensor, tuple[int, int, int, int]] | None:
    rows = np.flatnonzero(np.bitwise_or.reduce(part, axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(part, axis=0).view(np.uint8), bitorder="little"))
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    octets = part[y0:y1].view(np.uint8)[:, x0 // 8 : (x1 + 7) // 8]
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    tight = torch.from_numpy(bits[:, x0 % 8 : x0 % 8 + x1 - x0].copy().view(np.bool_))
    return tight, (left + x0, top + y0, left + x1, top + y1)
