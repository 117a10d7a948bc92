"""k-means: parts of objects, groups of references, kinds of background. Pure tensor functions; time grows with N × k."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def find_clusters(features: Tensor, num_clusters: int, generator: torch.Generator, max_rounds: int = 50) -> Tensor:
    """The centres of k-means, begun as k-means++ does.

    Args:
        features: (N, C) float32, at least one.
        num_clusters: centres at most; equal features share one.
        generator: of the first centres, on the CPU.
        max_rounds: after which the centres are taken as they are.

    Returns:
        (k, C) float32, that of the largest cluster first.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [0.5], [9.0], [9.5]])
        >>> find_clusters(points, 2, torch.Generator().manual_seed(0)).tolist()
        [[0.5], [9.25]]
    """
    chosen = [int(torch.randint(len(features), (1,), generator=generator))]
    distances = torch.full((len(features),), float("inf"))
    while len(chosen) < num_clusters:
        distances = distances.minimum((features - features[chosen[-1]]).square().sum(1))
        if not distances.sum() > 0:
            break
        chosen.append(int(torch.multinomial(distances, 1, generator=generator)))
    centers = features[chosen]
    for _ in range(max_rounds):
        members = F.one_hot(nearest(features, centers), len(centers)).to(features.dtype)  # (N, k)
        sizes = members.sum(0)[:, None]
        moved = torch.where(sizes > 0, members.T @ features / sizes.clamp(min=1), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    sizes = torch.bincount(nearest(features, centers), minlength=len(centers))
    return centers[sizes.argsort(descending=True, stable=True)]


def nearest(features: Tensor, centers: Tensor) -> Tensor:
    """(N,) int64: the row of the nearest of (k, C) centres to each of (N, C) features."""
    return torch.cdist(features, centers).argmin(1)
