"""Where the segmenter is asked: a grid of clicks, and which of them may be left out because their neighbours have answered."""

from __future__ import annotations

import torch
from torch import Tensor

SAME_MASK_IOU = 0.9
"""Masks of neighbouring clicks that agree to this IoU answer for the clicks between them."""
PROMISING_IOU = 0.2
"""Predicted IoU from which on a click tells of an object nearby; less than a mask needs, for the sake of small objects."""


def prompt_grid(per_side: int, side: int) -> Tensor:
    """The (n², 2) xy prompts of the grid, pixels of the S by S input, row-major: as handed to SAM 2's prompt encoder.

    That adds half a pixel of its own, so the published clicks lie a whole one on (method.md A5).

    Example:
        >>> prompt_grid(2, 256).tolist()
        [[0.5, 0.5], [255.5, 0.5], [0.5, 255.5], [255.5, 255.5]]
    """
    line = torch.linspace(0, side - 1, per_side) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def coarse_prompts(per_side: int) -> Tensor:
    """The rows of every second prompt of every second line of the grid: int64, ascending, a quarter of all.

    Example:
        >>> coarse_prompts(4).tolist()
        [0, 2, 8, 10]
    """
    line = torch.arange(0, per_side, 2)
    return (line[:, None] * per_side + line).flatten()


def open_prompts(per_side: int, predicted_iou: Tensor, kept: Tensor, masks: Tensor) -> Tensor:
    """The prompts between the coarse ones that their neighbours have not answered for.

    A prompt has up to four coarse neighbours. It is answered for where none of them is promising, or where two of them got the
    same mask and it covers the prompt.

    Args:
        per_side: n of the n by n grid.
        predicted_iou: (c,) of the coarse prompts, in the order of coarse_prompts.
        kept: (k,) int64, which of them got a mask.
        masks: (k, M, M) bool, theirs.

    Returns:
        Rows of prompts, int64, ascending, on the device of the masks.

    Example:
        >>> empty = torch.zeros(1, 3, 3, dtype=torch.bool)
        >>> open_prompts(3, torch.tensor([0.9, 0, 0, 0]), torch.tensor([0]), empty).tolist()
        [1, 3, 4]
    """
    device = masks.device
    rows, neighbours = _between_coarse(per_side)
    rows, neighbours = rows.to(device), neighbours.to(device)
    is_promising = torch.cat([predicted_iou >= PROMISING_IOU, torch.zeros(1, dtype=torch.bool, device=device)])
    near = is_promising[neighbours].any(1)
    mask_of = torch.full((len(is_promising),), -1, dtype=torch.int64, device=device)
    mask_of[kept] = torch.arange(len(kept), device=device)
    candidates = mask_of[neighbours]  # (p, 4), -1 without a mask
    has_mask = candidates >= 0
    if not len(masks):
        return rows[near]
    cell = torch.linspace(0, masks.shape[-1] - 1, per_side, device=device).round().long()
    y, x = cell[rows // per_side], cell[rows % per_side]
    covers = has_mask & masks[candidates.clamp(min=0), y[:, None], x[:, None]]
    same = _ious(masks) >= SAME_MASK_IOU
    same.fill_diagonal_(False)
    pairs = same[candidates.clamp(min=0)[:, :, None], candidates.clamp(min=0)[:, None]]  # (p, 4, 4)
    agreed = (pairs & covers[:, :, None] & covers[:, None]).flatten(1).any(1)
    return rows[near & ~agreed]


def _between_coarse(per_side: int) -> tuple[Tensor, Tensor]:
    """Rows of the prompts that are not coarse, (p,), and which coarse ones are their neighbours, (p, 4): c for none."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(per_side), torch.arange(per_side), indexing="ij"))
    coarse_side = (per_side + 1) // 2
    fine = (y % 2 + x % 2) > 0
    y, x = y[fine], x[fine]
    up, down, left, right = y - y % 2, y + y % 2, x - x % 2, x + x % 2
    neighbours = []
    for row, column, is_new in (
        (up, left, torch.ones_like(y, dtype=torch.bool)),
        (up, right, right > left),
        (down, left, down > up),
        (down, right, (down > up) & (right > left)),
    ):
        inside = is_new & (row < per_side) & (column < per_side)
        neighbours.append(torch.where(inside, row // 2 * coarse_side + column // 2, coarse_side**2))
    return y * per_side + x, torch.stack(neighbours, 1)


def _ious(masks: Tensor) -> Tensor:
    flat = masks.flatten(1).float()
    shared, areas = flat @ flat.T, flat.sum(1)
    return shared / (areas[:, None] + areas[None] - shared).clamp(min=1)
