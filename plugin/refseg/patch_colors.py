"""Patches as colours and parts: principal components and k-means of their features, in torch alone.

Each costs milliseconds for tens of thousands of patches; the components take C² numbers of memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def principal_colors(features: Tensor, inside: Tensor) -> Tensor:
    """Patches as colours: red, green and blue are the first three principal components of the patches inside the objects.

    Each component runs from 0 at its second percentile inside to 1 at its 98th; one that hardly varies inside is 0.5.

    Args:
        features: (N, C) float32, C at least 3.
        inside: (N,) bool, the patches whose components count, at least one.

    Returns:
        (N, 3) float32 in [0, 1].
    """
    chosen = features[inside]
    middle = chosen.mean(0)
    _, vectors = torch.linalg.eigh((chosen - middle).T @ (chosen - middle))  # ascending
    axes = vectors[:, -3:].flip(1)
    # An axis may point either way; its largest entry decides, so that colours are the same on every machine.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    values = (features - middle) @ axes  # (N, 3)
    low, high = torch.quantile(values[inside], torch.tensor([0.02, 0.98]), dim=0)
    span = high - low
    flat = span <= 0.02 * span[0].clamp(min=1e-6)
    return torch.where(flat, 0.5, ((values - low) / span.clamp(min=1e-6)).clamp(0, 1))


def find_parts(features: Tensor, num_parts: int, generator: torch.Generator, max_rounds: int = 50) -> Tensor:
    """The centres of k-means, begun as k-means++ does.

    Args:
        features: (N, C) float32, at least one.
        num_parts: centres at most; equal features share one.
        generator: of the first centres, on the CPU.
        max_rounds: after which the centres are taken as they are.

    Returns:
        (k, C) float32, that of the largest part first.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [0.5], [9.0], [9.5]])
        >>> find_parts(points, 2, torch.Generator().manual_seed(0)).tolist()
        [[0.5], [9.25]]
    """
    chosen = [int(torch.randint(len(features), (1,), generator=generator))]
    distances = torch.full((len(features),), float("inf"))
    while len(chosen) < num_parts:
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
