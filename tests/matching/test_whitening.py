"""Whitening: against a plain inverse root, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refseg.matching.whitening import MIN_VECTORS, SHRINKAGE, fit_whitening, unwhitened
from tests.synthetic import random_unit
from tests.tolerance import assert_near


def sample(number: int = 400, width: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([5.0, 2.0, 1.0, 1.0, 0.5, 0.2])[:width]
    return F.normalize(
        torch.randn(number, width, generator=generator) * scales + torch.tensor([3.0] + [0.0] * (width - 1)), dim=-1
    )


@pytest.mark.parametrize("shrinkage", [0.1, SHRINKAGE, 10.0])
def test_is_the_inverse_root_of_the_covariance(shrinkage: float) -> None:
    vectors = sample()
    found = fit_whitening(vectors, shrinkage)
    assert found is not None
    covariance = np.cov(vectors.numpy().T, bias=True)
    shrunk = covariance + shrinkage * np.trace(covariance) / 6 * np.eye(6)
    assert_near(found.mean, vectors.mean(0))
    assert_near(found.matrix @ found.matrix @ torch.from_numpy(shrunk).float(), torch.eye(6), at_most=1e-3)


def test_units_and_zeros() -> None:
    found = fit_whitening(sample())
    assert found is not None
    own = torch.cat([random_unit(torch.Generator().manual_seed(3), 5, 6) * 4, torch.zeros(2, 6)])
    white = found.apply(own)
    assert_near(white[:5].norm(dim=1), torch.ones(5))
    assert not white[5:].any(), "what nobody has seen stays unseen"
    assert_near(found.apply(own / 2), white)


def test_vectors_that_differ_from_all_else_are_told_apart() -> None:
    """Two objects that share what the whole dataset shares are alike before, and not after."""
    generator = torch.Generator().manual_seed(1)
    common = torch.tensor([5.0, 0, 0, 0, 0, 0, 0, 0])
    vectors = F.normalize(common + 0.5 * torch.randn(300, 8, generator=generator), dim=-1)
    first, second = (F.normalize(common + torch.eye(8)[axis], dim=-1) for axis in (2, 5))
    found = fit_whitening(vectors)
    assert found is not None
    assert float(first @ second) > 0.95
    whitened = found.apply(torch.stack([first, second]))
    assert float(whitened[0] @ whitened[1]) < 0.3


def test_few_vectors_are_no_sample() -> None:
    assert fit_whitening(sample(MIN_VECTORS - 1)) is None
    assert fit_whitening(torch.cat([sample(MIN_VECTORS - 1), torch.zeros(9, 6)])) is None, "rows of zeros do not count"
    assert fit_whitening(torch.zeros(0, 6)) is None
    assert fit_whitening(sample(MIN_VECTORS)) is not None


def test_vectors_all_alike() -> None:
    """A dataset of one picture: nothing is divided by zero."""
    found = fit_whitening(torch.ones(40, 3) / 3**0.5)
    assert found is not None
    assert bool(found.matrix.isfinite().all())
    assert bool(found.apply(torch.eye(3)).isfinite().all())


def test_order_does_not_matter() -> None:
    vectors = sample()
    first, second = fit_whitening(vectors), fit_whitening(vectors.flip(0))
    assert first is not None
    assert second is not None
    assert_near(first.matrix, second.matrix, at_most=1e-3)


def test_without_whitening() -> None:
    own = random_unit(torch.Generator().manual_seed(3), 5, 6)
    assert_near(unwhitened(6).apply(own * 3), own)
