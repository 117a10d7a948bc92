"""From masks on the segmenter grid to masks at the image's size (method.md C3).

Each mask is resized within its own box: that takes as long as the objects are large, whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import Candidates, PackedCandidates, interpolation_matrix
from ..masks import encode_crop
from . import full_size
from .instances import Instances, Ranking

PIXELS_A_STRIP = 1 << 22
"""Upsampled logits of one mask held at once, in pixels."""
MASKS_A_CHUNK = 128
"""Masks resized at once: often fewer instances are wanted than there are."""


@torch.inference_mode()
def crop_instances(candidates: Candidates | PackedCandidates, ranking: Ranking, max_detections: int = 100) -> Instances:
    """Masks at the image's size for the first max_detections of a ranking that are not empty there (method.md C3, C5).

    Each mask is resized within its own box only: that takes as long as the objects are large, whatever the image's size.
    """
    masks: list[Tensor] = []
    boxes: list[tuple[int, int, int, int]] = []
    kept: list[int] = []
    every = enumerate(_full_size(candidates, ranking.rows, max_detections))
    # Nothing is asked for beyond the last one: it might be the first of many that are resized together.
    while len(kept) < max_detections and (found := next(every, None)) is not None:
        position, cut = found
        if cut is not None:
            masks.append(cut[0])
            boxes.append(cut[1])
            kept.append(position)
    index = torch.tensor(kept, dtype=torch.int64)
    return Instances(
        tuple(masks),
        torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4),
        ranking.labels[index],
        ranking.scores[index],
        ranking.rows[index],
        ranking.margins[index],
        ranking.runners_up[index],
    )


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize: weights (new, old), and between which old cells a new one looks and the other way round."""

    weights: Tensor
    old_from: NDArray[np.int64]
    old_to: NDArray[np.int64]
    new_from: NDArray[np.int64]
    new_to: NDArray[np.int64]


@lru_cache(maxsize=8)
def _axis(side: int, new_side: int) -> _Axis:
    weights = interpolation_matrix(side, new_side)
    used = weights.numpy() != 0
    return _Axis(weights, *_ends(used), *_ends(used.T))


def _ends(used: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)


@dataclass(frozen=True)
class _Reach:
    """The part of the image that cells of a box can fill, and the window of cells that decides it; xyxy, far edge excluded."""

    pixels: tuple[int, int, int, int]
    window: tuple[int, int, int, int]


def _reach(cells: Sequence[int], rows: _Axis, columns: _Axis) -> _Reach:
    x0, y0, x1, y1 = cells
    left, right = int(columns.new_from[x0 : x1 + 1].min()), int(columns.new_to[x0 : x1 + 1].max())
    top, bottom = int(rows.new_from[y0 : y1 + 1].min()), int(rows.new_to[y0 : y1 + 1].max())
    window = (columns.old_from[left], rows.old_from[top], columns.old_to[right - 1], rows.old_to[bottom - 1])
    return _Reach((left, top, right, bottom), (int(window[0]), int(window[1]), int(window[2]), int(window[3])))


def _resize(crop: Tensor, reach: _Reach, rows: _Axis, columns: _Axis) -> tuple[Tensor, tuple[int, int, int, int]] | None:
    """The tight mask and its box, xyxy pixels of the image, far edge excluded; None where nothing is left."""
    left, top, right, bottom = reach.pixels
    x0, y0, x1, y1 = reach.window
    across = columns.weights[left:right, x0:x1].T
    # In strips of rows: of the logits of a mask as large as its image there is never more than a strip.
    strips = rows.weights[top:bottom, y0:y1].split(max(1, PIXELS_A_STRIP // (right - left)))
    mask = torch.cat([strip @ crop @ across > 0 for strip in strips]).numpy()
    used_rows, used_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(used_rows):
        return None
    (y0, y1), (x0, x1) = used_rows[[0, -1]].tolist(), used_columns[[0, -1]].tolist()
    tight = torch.from_numpy(mask[y0 : y1 + 1, x0 : x1 + 1].copy())
    return tight, (left + x0, top + y0, left + x1 + 1, top + y1 + 1)


def full_size_codes(candidates: Candidates | PackedCandidates, rows: Tensor) -> list[dict[str, Any]]:
    """Whole masks of some candidates at the image's size, as run-length codes; see `refseg.masks.rle.encode_crop`."""
    nothing = np.zeros((0, 0), np.bool_), (0, 0)
    crops = [nothing if found is None else (found[0].numpy(), found[1][:2]) for found in _full_size(candidates, rows)]
    return [encode_crop(mask, corner, candidates.image_hw) for mask, corner in crops]


def _full_size(
    candidates: Candidates | PackedCandidates, rows: Tensor, at_once: int = MASKS_A_CHUNK
) -> Iterator[tuple[Tensor, tuple[int, int, int, int]] | None]:
    """For each of some candidates its tight mask at the image's size and its box there; None where nothing is left.

    Often no more than at_once are wanted.
    """
    if full_size.fits(candidates):
        for chunk in rows.split(max(1, min(at_once, MASKS_A_CHUNK))):
            yield from full_size.resize(candidates, chunk).masks()
        return
    yield from _one_by_one(candidates, rows)


def _one_by_one(
    candidates: Candidates | PackedCandidates, rows: Tensor
) -> Iterator[tuple[Tensor, tuple[int, int, int, int]] | None]:
    """The same for an image of any size, each mask resized by itself."""
    rows_axis, columns_axis = (_axis(candidates.grid_side, side) for side in candidates.image_hw)
    for chunk in rows.split(MASKS_A_CHUNK):
        reaches = [_reach(cells, rows_axis, columns_axis) for cells in candidates.boxes_of(chunk).int().tolist()]
        crops = candidates.crops(chunk, [reach.window for reach in reaches])
        for crop, reach in zip(crops, reaches, strict=True):
            yield _resize(crop, reach, rows_axis, columns_axis)
