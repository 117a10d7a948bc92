"""Similarities and probabilities: there and back, order, and least scores."""

from __future__ import annotations

import math

import pytest
import torch

from refseg.matching.calibrator import Calibrator
from refseg.matching.instances import Ranking

CALIBRATOR = Calibrator(8.0, torch.tensor([0.4, 0.6]))


def ranking(scores: list[float], labels: list[int]) -> Ranking:
    count = len(scores)
    rows = torch.arange(count) + 10
    return Ranking(
        rows, torch.tensor(labels, dtype=torch.int64), torch.tensor(scores), torch.linspace(0, 1, count), torch.arange(count)
    )


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


def test_a_ranking_keeps_what_belongs_together_and_is_put_in_order() -> None:
    """A class that is hard to be sure of falls behind one that is easy, and takes everything of its own along."""
    before = ranking([0.7, 0.6, 0.5], [1, 1, 0])
    after = CALIBRATOR.calibrate(before)
    assert after.scores.tolist() == sorted(after.scores.tolist(), reverse=True)
    own = CALIBRATOR.probability(before.scores, before.labels)
    for row, score, label, margin in zip(after.rows, after.scores, after.labels, after.margins, strict=True):
        place = before.rows.tolist().index(int(row))
        assert (float(score), int(label), float(margin)) == (
            float(own[place]),
            int(before.labels[place]),
            float(before.margins[place]),
        )
    assert after.rows.tolist() == [10, 12, 11]


def test_of_nothing() -> None:
    assert len(CALIBRATOR.calibrate(ranking([], []))) == 0
