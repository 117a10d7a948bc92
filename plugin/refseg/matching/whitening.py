"""Whitening: vectors seen against what a dataset is full of. Pure tensor functions.

The mean of a sample of the dataset is taken off, and directions in which the sample spreads count less: cosines are then high
for what sets an object apart, and near 0 for what it has in common with everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..printing import one_line
from ..prototypes import SHRINKAGE

MIN_VECTORS = 32
"""Fewer vectors are no sample of a dataset."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """Centres and whitens vectors.

    Attributes:
        mean: (D,) float32.
        matrix: (D, D) float32, symmetric.
    """

    mean: Tensor
    matrix: Tensor

    __repr__ = one_line

    def apply(self, vectors: Tensor) -> Tensor:
        """(n, D) float32 of unit length, of (n, D) vectors; zeros for zeros, which stand for what nobody has seen."""
        seen = vectors.any(1, keepdim=True)
        return F.normalize((F.normalize(vectors.float(), dim=-1) - self.mean) @ self.matrix, dim=-1) * seen


def fit_whitening(vectors: Tensor, shrinkage: float = SHRINKAGE) -> Whitening | None:
    """The whitening of some vectors: by the inverse root of their covariance and so many times its mean eigenvalue.

    Args:
        vectors: (n, D), of unit length; rows of zeros do not count.
        shrinkage: see SHRINKAGE.

    Returns:
        None where there are fewer than MIN_VECTORS.

    Example:
        >>> drawn = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 1.0, 1.0])
        >>> spread = F.normalize(drawn, dim=-1)
        >>> whitened = fit_whitening(spread, 0.1).apply(spread)
        >>> [round(float(own.var(0)[0] / own.var(0)[1]), 1) for own in (spread, whitened)]
        [12.8, 3.9]
    """
    vectors = vectors[vectors.any(1)].float()
    if len(vectors) < MIN_VECTORS:
        return None
    mean = vectors.mean(0)
    spread = (vectors - mean).T @ (vectors - mean) / len(vectors)
    values, axes = torch.linalg.eigh(spread)
    roots = (values.clamp(min=0) + shrinkage * values.mean().clamp(min=1e-12)).rsqrt()
    return Whitening(mean, axes * roots @ axes.T)


def unwhitened(width: int) -> Whitening:
    """What leaves vectors of this width as they are."""
    return Whitening(torch.zeros(width), torch.eye(width))
