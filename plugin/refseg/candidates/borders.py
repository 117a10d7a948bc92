"""Where masks end on the segmenter's grid: all that decides their pixels at the image's size, for the cost of their outlines.

A pixel between four cells that are inside a mask is inside it, whatever their logits are, and one between four cells outside
is not. What is left are the squares of four cells that a mask covers in part: a few hundred a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..masks import filled_runs
from ..printing import one_line
from .bit_crops import (
    BITS,
    BITS_BELOW,
    WORD,
    BitCrops,
    Whole,
    Words,
    bits_at,
    count_bits,
    flip_at,
    next_bits,
    previous_bits,
    set_bits,
    starts_of,
)

OUTSIDE = -1.0
"""Logit of what lies beyond the grid."""
CELLS_A_STEP = 1 << 18
"""Logits compared at once: what is made of them on the way stays in the processor's cache."""


@dataclass(frozen=True)
class Borders:
    """Squares of four neighbouring cells that masks cover in part: mask by mask, row by row, from left to right.

    Cells to the left and right of the grid count as outside, so that a line across a mask meets a square where it enters the
    mask and another one where it leaves it.

    Attributes:
        masks: (Q,) int64, the number of the mask.
        rows: (Q,) int64, the row of the upper two cells.
        columns: (Q,) int64, the column of the left two cells, -1 to M − 1.
        corners: (4, Q) float32 logits: upper left, upper right, lower left, lower right; OUTSIDE beyond the grid. Where the two
            cells of a square at the rim of the grid are both inside they may be right in sign alone.
    """

    masks: Whole
    rows: Whole
    columns: Whole
    corners: NDArray[np.float32]

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True)
class Cells:
    """The cells of masks as bits: for each the lines around its box, with a column more on both sides.

    Attributes:
        crops: the bits of each.
        tops: (n,) int64, the grid's row that is the first line of each.
        lefts: (n,) int64, the grid's column of the first bit of its lines; -1 where the mask touches the left border.
        side: M.
    """

    crops: BitCrops
    tops: Whole
    lefts: Whole
    side: int

    __repr__ = one_line


class Squares:
    """The squares that masks cover in part, before their logits are known.

    Attributes:
        cells: of the masks.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        words, widths = cells.crops.words, cells.crops.widths
        self._owner, line, column = _places(cells.crops)
        self._row = line + cells.tops[self._owner]
        self._column = column + cells.lefts[self._owner]
        self._below = np.minimum(np.arange(len(words)) + widths[self._owner], max(0, len(words) - 1))
        self._is_last = line == cells.crops.lines[self._owner] - 1
        self._above = np.arange(len(words)) - widths[self._owner]
        self._is_first = line == 0
        under = words[self._below]
        under[self._is_last] = 0
        some, every = words | under, words & under
        mixed = (some | next_bits(some)) & ~(every & next_bits(every))
        mixed[self._is_last] = 0
        self._mixed: Words = mixed
        self._at = set_bits(mixed)

    def edge_cells(self) -> Words:
        """(T,) uint64: the cells with a neighbour on the other side of the mask's edge, within the grid."""
        side = self.cells.side
        inner = self._mixed.copy()
        # What has one pair of cells beyond the grid does not count.
        for column in (-1, side - 1):
            bit = column - self._column
            here = np.flatnonzero((bit >= 0) & (bit < BITS))
            inner[here] &= ~(np.uint64(1) << bit[here].astype(WORD))
        wide = inner | previous_bits(inner)
        over = wide[self._above]
        over[self._is_first] = 0
        tall: Words = wide | over
        return tall

    def with_logits(self, logits: Tensor, rows: Tensor) -> Borders:
        """Of masks that are some rows of (N, M, M) logits, on whatever device these are."""
        masks, upper, left = self._where()
        side = self.cells.side
        base = (rows.numpy()[masks] * side + upper) * side
        both = [base + left.clip(0), base + (left + 1).clip(max=side - 1)]
        return self._finished(masks, upper, left, _pick(logits, np.stack([*both, both[0] + side, both[1] + side])))

    def with_heights(self, edges: Words, heights: NDArray[np.float32]) -> Borders:
        """Of masks of which the logits along the edges are known, but for their signs.

        Args:
            edges: from edge_cells.
            heights: one for each of these cells, mask by mask, row by row.
        """
        words, word, bit = self.cells.crops.words, self._at >> 6, self._at & 63
        masks, rows, columns = self._where()
        # One more, so that there is something to take where a rank is of no cell.
        signed = np.append(heights * (2 * bits_at(words, edges).view(np.int8) - 1), np.float32(OUTSIDE))
        before, below = starts_of(count_bits(edges)), BITS_BELOW.take(bit)
        corners = np.empty((4, len(word)), np.float32)
        for line, places in enumerate((word, self._below.take(word))):
            rank = before.take(places) + count_bits(edges.take(places) & below)
            corners[2 * line] = signed.take(rank)
            corners[2 * line + 1] = signed.take(rank + (columns >= 0), mode="clip")
            # All of a square lies along an edge, but for squares at the rim of the grid.
            for column, at_rim in ((0, columns == self.cells.side - 1), (1, columns < 0)):
                rim = np.flatnonzero(at_rim)
                is_inside = (words[places[rim]] >> (bit[rim] + column).astype(WORD)) & np.uint64(1) == 1
                corners[2 * line + column, rim] = np.where(is_inside, 1, -1) * np.abs(corners[2 * line + column, rim])
        return self._finished(masks, rows, columns, corners)

    def _where(self) -> tuple[Whole, Whole, Whole]:
        """(Q,) each: the mask, the upper row and the left column of the squares."""
        word = self._at >> 6
        return self._owner.take(word), self._row.take(word), self._column.take(word) + (self._at & 63)

    def _finished(self, masks: Whole, rows: Whole, columns: Whole, corners: NDArray[np.float32]) -> Borders:
        for first, outside in ((0, columns < 0), (1, columns == self.cells.side - 1)):
            there = np.flatnonzero(outside)
            corners[first, there] = corners[first + 2, there] = OUTSIDE
        return Borders(masks, rows, columns, corners)


def pack_bits(logits: Tensor) -> Words:
    """(N, M, ⌈M / 64⌉) uint64: the masks of (N, M, M) logits, row by row, on the CPU wherever the logits are."""
    count, side = logits.shape[:2]
    width = -(-side // BITS)
    packed = np.zeros((count, side, width * 8), np.uint8)
    step = max(1, CELLS_A_STEP // max(1, side * side))
    pack = _pack_here if _is_here(logits) else _pack_there
    for start in range(0, count, step):
        packed[start : start + step, :, : -(-side // 8)] = pack(logits[start : start + step])
    return packed.view(WORD)


def _is_here(logits: Tensor) -> bool:
    """Whether numpy can read them where they are."""
    return logits.device.type == "cpu"


def _pick(logits: Tensor, index: Whole) -> NDArray[np.float32]:
    """float32 logits of these numbers, wherever they are."""
    flat = logits.reshape(-1)
    if _is_here(flat):
        return flat.numpy().take(index).astype(np.float32, copy=False)
    picked: NDArray[np.float32] = flat[torch.from_numpy(index).to(flat.device)].float().cpu().numpy()
    return picked


def _pack_here(logits: Tensor) -> NDArray[np.uint8]:
    return np.packbits(logits.numpy() > 0, axis=-1, bitorder="little")


def _pack_there(logits: Tensor) -> NDArray[np.uint8]:
    """The same on the device of the logits, from which an eighth of a byte a cell is fetched."""
    side = logits.shape[-1]
    inside = torch.nn.functional.pad(logits > 0, (0, -side % 8)).unflatten(-1, (-1, 8))
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=logits.device)
    packed: NDArray[np.uint8] = (inside * weights).sum(-1, dtype=torch.uint8).cpu().numpy()
    return packed


def boxes_of_bits(bits: Words, side: int) -> tuple[NDArray[np.bool_], Whole]:
    """(N,) bool, which masks hold a cell, and (N, 4) int64 xyxy, the smallest and largest cell index of those.

    Args:
        bits: (N, M, W) from pack_bits.
        side: M.
    """
    rows = _any(bits.transpose(2, 0, 1)) != 0
    across = _any(bits.transpose(1, 0, 2))
    columns = np.unpackbits(across.view(np.uint8), axis=1, count=side, bitorder="little").view(np.bool_)
    (y0, y1), (x0, x1) = _span(rows), _span(columns)
    return rows.any(1), np.stack([x0, y0, x1, y1], 1)


def _any(parts: Words) -> Words:
    """(n, m) from (k, n, m): one part after the other, because numpy's own reduction of such short rows takes longer."""
    found: Words = np.zeros(parts.shape[1:], WORD)
    for part in parts:
        found |= part
    return found


def _span(used: NDArray[np.bool_]) -> tuple[Whole, Whole]:
    return used.argmax(1), used.shape[1] - 1 - used[:, ::-1].argmax(1)


def cells_of_bits(bits: Words, rows: NDArray[np.int64], boxes: Whole) -> Cells:
    """The cells of some masks of a grid.

    Args:
        bits: (N, M, W) from pack_bits.
        rows: (n,) int64.
        boxes: (n, 4) int64 xyxy of these, which must not be empty.
    """
    side, width = bits.shape[1:]
    cells = _around(boxes, side)
    owner, line, column = _places(cells.crops)
    source = (rows[owner] * side + cells.tops[owner] + line) * width
    column = column + cells.lefts[owner]
    word, shift = column >> 6, (column & 63).astype(WORD)
    flat = bits.reshape(-1)

    def at(place: Whole) -> Words:
        within = (place >= 0) & (place < width)
        found: Words = np.where(within, flat[source + place.clip(0, width - 1)], np.uint64(0))
        return found

    cells.crops.words[:] = (at(word) >> shift) | ((at(word + 1) << np.uint64(1)) << (np.uint64(63) - shift))
    return cells


def cells_of_codes(codes: Sequence[bytes], side: int, boxes: Whole) -> Cells:
    """The cells of masks known by run-length codes, which run down one column after the other.

    Args:
        codes: n compressed codes.
        side: M.
        boxes: (n, 4) int64 xyxy, the smallest and largest cell index of each mask.

    Raises:
        ValueError: a code is damaged, made for another grid, or does not fit its box.
    """
    cells = _around(boxes, side)
    upright = _columns_of(codes, side, boxes)
    owner, column, row = _places(upright)
    before = upright.words[np.arange(len(upright.words)) - upright.widths[owner]]
    before[column == 0] = 0
    # Where a column of cells differs from the one before it, the bits of a row change.
    at = set_bits(upright.words ^ before)
    word = at >> 6
    mask, column, row = owner[word], column[word], row[word] + (at & 63)
    # A run through several columns fills what is left of their words below the box too.
    within = row < _heights(boxes)[mask]
    mask, column, row = mask[within], column[within] + boxes[mask[within], 0], row[within] + boxes[mask[within], 1]
    line = cells.crops.starts[mask] + (row - cells.tops[mask]) * cells.crops.widths[mask]
    cells.crops.words[:] = flip_at(line * BITS + column - cells.lefts[mask], len(cells.crops.words))
    return cells


def _columns_of(codes: Sequence[bytes], side: int, boxes: Whole) -> BitCrops:
    """For masks as cells_of_codes takes them a line of bits for each column of their box, and an empty one behind it."""
    begins, ends = filled_runs(codes, side * side)
    mask = begins // side**2
    x0, y0, x1, _ = boxes.T
    lines, widths = x1 - x0 + 2, (_heights(boxes) - 1) // BITS + 1
    starts = starts_of(lines * widths)

    def place(cell: Whole) -> Whole:
        column, row = cell // side - mask * side - x0[mask], cell % side - y0[mask]
        if ((column < 0) | (column > lines[mask] - 2) | (row < 0) | (row >= _heights(boxes)[mask])).any():
            raise ValueError("a run-length code does not fit the box of its mask")
        places: Whole = (starts[mask] + column * widths[mask]) * BITS + row
        return places

    return BitCrops(flip_at(np.concatenate([place(begins), place(ends - 1) + 1]), int(starts[-1])), lines, widths)


def _heights(boxes: Whole) -> Whole:
    return boxes[:, 3] - boxes[:, 1] + 1


def _around(boxes: Whole, side: int) -> Cells:
    """Empty cells around boxes."""
    x0, y0, x1, y1 = boxes.T
    tops, lefts = (y0 - 1).clip(0), x0 - 1
    lines, widths = (y1 + 1).clip(max=side - 1) - tops + 1, (x1 - x0 + 2) // BITS + 1
    return Cells(BitCrops(np.zeros(int((lines * widths).sum()), WORD), lines, widths), tops, lefts, side)


def _places(crops: BitCrops) -> tuple[Whole, Whole, Whole]:
    """(T,) each: of every word the number of its crop, its line there, and the number of its first bit in that line."""
    owner = np.repeat(np.arange(len(crops)), crops.sizes)
    within = np.arange(len(crops.words)) - crops.starts[owner]
    widths = crops.widths[owner]
    line = within // np.maximum(widths, 1)
    return owner, line, (within - line * widths) * BITS
