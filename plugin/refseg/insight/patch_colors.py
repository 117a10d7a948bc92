"""Patches as colours and parts: principal components and k-means of their features, in torch alone.

Each costs milliseconds for tens of thousands of patches; the components take C² numbers of memory.
"""

from __future__ import annotations

import torch
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
