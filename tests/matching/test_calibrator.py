"""Similarities and probabilities: there and back, order, and least scores."""

from __future__ import annotations

import math

import pytest
import torch

from refseg.matching.calibrator import Calibrator

CALIBRATOR = Calibrator(8.0, torch.tensor([0.4, 0.6]))


def test_is_a_logistic_function() -> None:
    found = CALIBRATOR.probability(torch.tensor([0.3, 0.9]), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(0.8)), 1 / (1 + math.exp(-2.4))])


@pytest.mark.parametrize("least", [0.05, 0.5, 0.97])
def test_there_and_back(least: float) -> None:
    similar = CALIBRATOR.similarity(torch.full((2,), least))
    assert CALIBRATOR.probability(similar, torch.tensor([0, 1])).tolist() == pytest.approx([least] * 2, abs=1e-5)


def test_least_scores_at_the_ends() -> None:
    """0 lets everything through, 1 and infinity nothing."""
    found = CALIBRATOR.similarity(torch.tensor([0.0, float("inf")]))
    assert float(found[0]) <= 0
    assert found[1] == float("inf")
    assert CALIBRATOR.similarity(torch.tensor([1.0, 1.0])).tolist() == [float("inf")] * 2


def test_rises_strictly() -> None:
    similar = torch.linspace(0.01, 1, 100)
    assert bool((CALIBRATOR.probability(similar, torch.zeros(100, dtype=torch.int64)).diff() > 0).all())
