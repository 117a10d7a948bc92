"""Masks on the segmenter's grid: their boxes, what they share, and features pooled under them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShapeError


@torch.inference_mode()
def drop_near_duplicates(masks: Tensor, predicted_iou: Tensor, max_iou: float, most: int = 1) -> Tensor:
    """Rows of the masks that are left when, of those that nearly coincide, only the few of highest predicted IoU stay.

    Clicks next to each other mostly mean the same object: half of the demo segmenter's masks are such repeats. Memory is that
    of the masks as float32, and time grows with N².

    Args:
        masks: (N, M, M) bool, segmenter grid.
        predicted_iou: (N,).
        max_iou: masks with at least this IoU nearly coincide.
        most: how many of them stay: a mask goes where so many that nearly coincide with it have stayed.

    Returns:
        (n,) int64, ascending.

    Example:
        >>> masks = torch.zeros(3, 2, 2, dtype=torch.bool)
        >>> masks[0, 0], masks[1, 0], masks[2, 1] = True, True, True
        >>> drop_near_duplicates(masks, torch.tensor([0.5, 0.9, 0.7]), 0.95).tolist()
        [1, 2]
    """
    flat = masks.flatten(1).float()
    areas = flat.sum(1)
    shared = flat @ flat.T
    alike = (shared >= max_iou * (areas[:, None] + areas[None] - shared).clamp(min=1)).cpu().numpy()
    num_alike = np.zeros(len(alike), int)
    kept = []
    for row in predicted_iou.argsort(descending=True, stable=True).tolist():
        if num_alike[row] < most:
            kept.append(row)
            num_alike += alike[row]
    return torch.tensor(sorted(kept), dtype=torch.int64, device=masks.device)


def shares_of(masks: Tensor, others: Tensor) -> Tensor:
    """(n, k) float32: how much of each of n bool masks (n, H, W) lies inside each of k others; 0 for an empty mask."""
    flat = masks.flatten(1).float()
    return (flat @ others.flatten(1).float().T) / flat.sum(1).clamp(min=1)[:, None]


def share_in_groups(
    share: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]], groups: Tensor, wanted: Tensor
) -> NDArray[np.float32]:
    """How much of each mask lies inside each other mask of its group.

    In numpy, because these arrays are so small that torch's threads cost more than they save.

    Args:
        share: gives the (n, k) shares of some masks in others, of which it gets the positions.
        groups: (N,) int64, the group of each mask.
        wanted: (N,) bool, the masks whose shares are needed.

    Returns:
        (N, N) float32, 0 between groups and in rows that are not wanted.
    """
    shares = np.zeros((len(groups), len(groups)), np.float32)
    order = np.argsort(groups.numpy(), kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(groups.numpy()[order])) + 1):
        some = members[wanted.numpy()[members]]
        if len(members) > 1 and len(some):
            shares[some[:, None], members] = share(some, members)
    return shares


def grid_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 xyxy: smallest and largest cell index of each mask (N, H, W), which must not be empty.

    Example:
        >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> mask[0, 1:3, 2] = True
        >>> grid_boxes(mask).tolist()
        [[2.0, 1.0, 2.0, 2.0]]
    """
    columns, rows = masks.any(1), masks.any(2)
    width, height = masks.shape[2], masks.shape[1]
    x0, y0 = columns.int().argmax(1), rows.int().argmax(1)
    x1 = width - 1 - columns.flip(1).int().argmax(1)
    y1 = height - 1 - rows.flip(1).int().argmax(1)
    return torch.stack([x0, y0, x1, y1], 1).float()


@lru_cache(maxsize=8)
def interpolation_matrix(side: int, new_side: int) -> Tensor:
    """(new side, side) float32: one axis of bilinear resizing, corners not aligned, antialias on."""
    with torch.inference_mode(False):
        identity = torch.eye(side)[None, None]
        resized = F.interpolate(identity, size=(new_side, side), mode="bilinear", align_corners=False, antialias=True)
        return resized[0, 0].contiguous()


def patch_weights(masks: Tensor, patches_side: int) -> Tensor:
    """What each patch contributes to the mean over each mask: the adjoint of upsampling the features.

    Upsampling is linear, so the mean over a mask of U F Uᵀ is the inner product of F with Uᵀ m U: the same number for a few
    per cent of the arithmetic and without the M² × C tensor (method.md A8).

    Args:
        masks: (N, M, M) bool or float, segmenter grid.
        patches_side: G.

    Returns:
        (N, G²) float32 weights, row-major; not normalised.
    """
    axis = interpolation_matrix(patches_side, masks.shape[-1]).to(masks.device)
    return (axis.T @ masks.float() @ axis).flatten(1)


def pool_features(masks: Tensor, patch_features: Tensor) -> Tensor:
    """The mean of the upsampled patch features over each mask, at unit length (method.md A8).

    Args:
        masks: (N, M, M) bool, segmenter grid.
        patch_features: (G², C), row-major.

    Returns:
        (N, C) float32; zeros for an empty mask.

    Raises:
        ShapeError: the number of patches is no square.
    """
    side = round(len(patch_features) ** 0.5)
    if side * side != len(patch_features):
        raise ShapeError(f"Patch features must cover a square of patches, but there are {len(patch_features)}.")
    return F.normalize(patch_weights(masks, side) @ patch_features.float(), dim=-1)
