"""Masks without the small islands and holes that a segmenter leaves, on its own grid.

An island stretches the box of a mask to itself, and both change what is pooled under it: they go before boxes and features are
made. A second piece nearly as large as the largest stays: such a mask may show two objects, which is for people to judge, and
`count_pieces` finds it. Works on the CPU, on each mask within its box: 90 masks take 5 ms on a grid of 64, 27 on one of 256.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import Preset

MIN_ISLAND = 0.3
"""Share of a mask's largest piece that another one needs to stay (docs/quality.md). More is worth box AP where much lies about,
costs mask AP where little does, and takes a part from objects that something lies across."""
MAX_HOLE = 0.01
"""Share of a mask from which on a hole stays: those of rings and plates are larger, and filling more gains nothing."""

# What a line of one cell joins is one piece: corners count. So they close a hole.
PIECE_NEIGHBOURS, HOLE_NEIGHBOURS = 8, 4

LEAST_LOGIT = 2.0**-14
"""Of a cell that was filled, at least: every dtype of logits has this number, so it stays above 0 whatever it is cast to."""

Box = tuple[slice, slice]


def cleaning_of(preset: Preset) -> tuple[str | float, ...]:
    """What tells the masks of a preset from those of another that cleans otherwise; empty where it leaves them as they are."""
    return ("clean masks", MIN_ISLAND, MAX_HOLE) if preset.clean_masks else ()


def clean_for(preset: Preset, logits: Tensor) -> Tensor:
    """Masks as a preset wants them, clean or as they are; see clean_masks."""
    return clean_masks(logits) if preset.clean_masks else logits


@torch.inference_mode()
def clean_masks(logits: Tensor) -> Tensor:
    """Masks without islands below MIN_ISLAND of their largest piece and without holes below MAX_HOLE of what is left.

    Cells that change turn the sign of their logit and keep its height, so that what is left is resized as smoothly as before.
    What is open to the border of the grid is no hole.

    Args:
        logits: (N, M, M) of any floating dtype, on any device; the masks are where they are above 0.

    Returns:
        (N, M, M) likewise; the same tensor where there is nothing to clean.

    Example:
        >>> clean_masks(torch.tensor([[[2.0, 3.0, -1.0, 0.5], [1.0, 1.0, -1.0, -1.0]]]))[0].tolist()
        [[2.0, 3.0, -1.0, -0.5], [1.0, 1.0, -1.0, -1.0]]
    """
    masks: NDArray[np.bool_] = (logits > 0).cpu().numpy()
    turned: list[NDArray[np.int64]] = []
    for row, (rows, columns) in _boxes(masks):
        mask = np.ascontiguousarray(masks[row, rows, columns])
        y, x = np.nonzero(mask ^ _cleaned(mask))
        turned.append((row * masks.shape[1] + rows.start + y) * masks.shape[2] + columns.start + x)
    if not sum(map(len, turned)):
        return logits
    cells = torch.from_numpy(np.concatenate(turned)).to(logits.device)
    cleaned = logits.flatten().clone()
    own = cleaned[cells]
    # A logit of 0 is outside, and has no sign to turn.
    cleaned[cells] = torch.where(own > 0, -own, own.abs().clamp(min=LEAST_LOGIT))
    return cleaned.view(logits.shape)


def count_pieces(mask: NDArray[np.bool_]) -> int:
    """Pieces of a mask with at least MIN_ISLAND of its largest one; 0 for an empty mask.

    Args:
        mask: (h, w) bool.

    Example:
        >>> count_pieces(np.array([[True, True, False, True], [True, True, False, False]]))
        1
        >>> count_pieces(np.array([[True, True, False, True], [False, False, False, True]]))
        2
    """
    mask = np.ascontiguousarray(mask)
    if not mask.any():
        return 0
    if _outlines(mask)[0] == 1:
        return 1
    _, areas = _parts(mask, PIECE_NEIGHBOURS)
    return int((areas[1:] >= MIN_ISLAND * areas[1:].max()).sum())


def _boxes(masks: NDArray[np.bool_]) -> Iterator[tuple[int, Box]]:
    """Row and tight box of each mask that is not empty."""
    rows, columns = np.logical_or.reduce(masks, 2), np.logical_or.reduce(masks, 1)
    (top, bottom), (left, right) = _ends(rows), _ends(columns)
    for row in np.flatnonzero(rows.any(1)).tolist():
        yield row, (slice(top[row], bottom[row]), slice(left[row], right[row]))


def _ends(used: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    return used.argmax(1).tolist(), (used.shape[1] - used[:, ::-1].argmax(1)).tolist()


def _cleaned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A tight mask without its islands and holes."""
    num_pieces, num_holes = _outlines(mask)
    if num_pieces > 1:
        labels, areas = _parts(mask, PIECE_NEIGHBOURS)
        areas[0] = 0
        mask = (areas >= MIN_ISLAND * areas.max())[labels]
    if num_holes:
        labels, areas = _parts(~mask, HOLE_NEIGHBOURS)
        is_hole = areas < MAX_HOLE * np.count_nonzero(mask)
        # Around its box there is nothing of the mask: what touches an edge of it is open, or reaches the border of the grid.
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            is_hole[edge] = False
        is_hole[0] = False
        mask = mask | is_hole[labels]
    return mask


def _outlines(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """How many pieces and holes a mask has that is not empty: most have one and none, which is seen sooner than parts are."""
    _, family = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    is_hole = np.asarray(family)[0, :, 3] >= 0
    return int((~is_hole).sum()), int(is_hole.sum())


def _parts(mask: NDArray[np.bool_], neighbours: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The connected part that each cell belongs to, 0 outside the mask, and how many cells each of them has."""
    number, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=neighbours)
    return np.asarray(labels, np.int32), np.bincount(labels.ravel(), minlength=number)
