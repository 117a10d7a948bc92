"""What a mask's score loses to better-ranked masks of its label that it lies in: the published merge, and diffusion.

`shares` are (N, N) float32 in [0, 1] in the order of the rank: how much of mask i lies inside mask j, 0 between labels. The
arrays are so small that torch's threads would cost more than they save: numpy.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIFFUSION_ALPHA = 0.3
"""How much of what a mask loses comes from the masks it lies in, not from its own share (method.md, "Past the paper")."""
DIFFUSION_DECAY = 0.5
DIFFUSION_STEPS = 30
DIFFUSION_TOLERANCE = 1e-6


def merge_shares(shares: NDArray[np.float32], features: Tensor, scores: Tensor) -> Tensor:
    """Lower the score of each mask inside better-ranked ones: s_i·sqrt(1 − max_j shares_ij·max(0, u_i·u_j)), j ranked before i.

    Source: arXiv 2507.02798, soft merging; method.md C4.

    Args:
        shares: (N, N), see above.
        features: (N, C) float32, unit length.
        scores: (N,) float32.

    Returns:
        (N,) float32 new scores, same order.
    """
    lower, upper = np.nonzero(np.tril(shares, -1))
    vectors = features.numpy()
    alike = np.einsum("nc,nc->n", vectors[lower], vectors[upper]).clip(0)
    decay = np.zeros(len(scores), np.float32)
    np.maximum.at(decay, lower, shares[lower, upper] * alike)
    return scores * torch.from_numpy(1 - decay.clip(0, 1)).sqrt()


def diffuse_shares(shares: NDArray[np.float32], scores: Tensor) -> Tensor:
    """Lower the score of masks inside others along whole chains of them, whatever they look like.

    Source: arXiv 2602.03137, graph diffusion; method.md, "Past the paper". With A the shares in masks ranked before, w_i the
    largest of row i, π ← α·A·π + (1 − α)·w from π = 1/N; a score becomes s·(1 − π)^0.5.

    Args:
        shares: (N, N), see above.
        scores: (N,) float32.

    Returns:
        (N,) float32 new scores, same order.

    Example:
        >>> chain = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], np.float32)
        >>> diffuse_shares(chain, torch.ones(3))
        tensor([1.0000, 0.5477, 0.3000])
    """
    before = np.tril(shares, -1).astype(np.float64)
    if not before.any():
        return scores
    own = before.max(1)
    flow = np.full(len(before), 1 / len(before))
    for _ in range(DIFFUSION_STEPS):
        moved = (DIFFUSION_ALPHA * before @ flow + (1 - DIFFUSION_ALPHA) * own).clip(0, 1)
        settled = np.abs(moved - flow).max() < DIFFUSION_TOLERANCE
        flow = moved
        if settled:
            break
    return scores * torch.from_numpy((1 - flow) ** DIFFUSION_DECAY).float()
