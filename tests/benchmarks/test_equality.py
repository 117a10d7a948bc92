"""Comparing candidates, on masks made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.equality import align, compare, mask_iou, pair_in_order, recall
from refseg.candidates.proposing import Candidates
from refseg.errors import ShapeError

GRID = 12


def stripes(tops: list[int], predicted_iou: list[float], thick: int = 4) -> Candidates:
    """Candidates whose masks are horizontal stripes of so many rows."""
    logits = torch.full((len(tops), GRID, GRID), -1.0)
    for mask, top in zip(logits, tops, strict=True):
        mask[top : top + thick] = 1.0
    features = F.normalize(torch.tensor(tops, dtype=torch.float32)[:, None] + torch.arange(1.0, 4.0), dim=1)
    return Candidates(logits, torch.tensor(predicted_iou), features, (GRID, GRID))


class TestCompare:
    def test_with_itself(self) -> None:
        some = stripes([0, 2, 4, 6], [0.5, 0.6, 0.45, 0.9])
        found = compare(some, some)
        assert (found.num_pairs, found.num_alone, found.num_strays) == (4, 0, 0)
        assert (found.min_iou, found.iou_share, found.feature_difference, found.iou_difference) == (1, 1, 0, 0)

    def test_one_at_the_threshold_may_be_missing(self) -> None:
        both, all_of_them = stripes([0, 6], [0.5, 0.9]), stripes([0, 3, 6], [0.5, 0.4009, 0.9])
        for found in (compare(both, all_of_them), compare(all_of_them, both)):
            assert (found.num_pairs, found.num_alone, found.num_strays) == (2, 1, 0)
            assert found.farthest_alone == pytest.approx(0.0009, abs=1e-6)
            assert found.min_iou == 1

    def test_any_other_may_not(self) -> None:
        both, all_of_them = stripes([0, 6], [0.5, 0.9]), stripes([0, 3, 6], [0.5, 0.402, 0.9])
        assert compare(both, all_of_them).num_strays == 1
        assert compare(all_of_them, both).num_strays == 1
        assert compare(both, all_of_them, margin=0.03).num_strays == 0

    def test_one_missing_in_each(self) -> None:
        found = compare(stripes([0, 3, 8], [0.5, 0.4001, 0.9]), stripes([0, 5, 8], [0.5, 0.4002, 0.9], thick=2))
        assert found.num_pairs >= 2
        assert found.num_strays == 0

    def test_masks_that_differ(self) -> None:
        exact, baseline = stripes([0, 6], [0.5, 0.9]), stripes([0, 6], [0.5, 0.9])
        baseline.logits[1, 6, :] = -1.0  # 3 of 4 rows
        found = compare(exact, baseline)
        assert found.min_iou == pytest.approx(0.75)
        assert found.iou_share == 0.5

    def test_predicted_iou_that_differs(self) -> None:
        found = compare(stripes([0, 6], [0.5, 0.9]), stripes([0, 6], [0.5, 0.88]))
        assert found.iou_difference == pytest.approx(0.02, abs=1e-6)

    def test_features_that_differ_by_rounding_or_by_more(self) -> None:
        baseline = stripes([0, 6], [0.5, 0.9])
        rounded = replace(baseline, features=baseline.features.half().float())
        found = compare(rounded, baseline)
        assert 0 < found.feature_difference < 5e-4
        assert found.feature_excess == 0
        off = replace(baseline, features=baseline.features + torch.tensor([0.0, 0.0, 0.01]))
        found = compare(off, baseline)
        assert found.feature_difference == pytest.approx(0.01, abs=1e-6)
        assert 0.009 < found.feature_excess < 0.01
        assert found.feature_excess_of_equal == found.feature_excess

    def test_features_of_masks_that_differ_are_told_apart(self) -> None:
        exact, baseline = stripes([0, 6], [0.5, 0.9]), stripes([0, 6], [0.5, 0.9])
        exact.logits[1, 6, :] = -1.0
        exact.features[1] += 0.1
        exact.features[0] += 0.001
        found = compare(exact, baseline)
        assert found.feature_excess > 0.09
        assert 0 < found.feature_excess_of_equal < 0.002

    def test_nothing(self) -> None:
        nothing, one = stripes([], []), stripes([0], [0.7])
        found = compare(nothing, nothing)
        assert (found.num_pairs, found.num_alone, found.num_strays, found.min_iou) == (0, 0, 0, 1)
        found = compare(nothing, one)
        assert (found.num_pairs, found.num_alone, found.num_strays) == (0, 1, 1)

    def test_other_models_are_refused(self) -> None:
        some = stripes([0], [0.5])
        with pytest.raises(ShapeError, match="12 cells a side and 2 features cannot be compared with 12 cells and 3"):
            compare(replace(some, features=some.features[:, :2]), some)


def test_align_tells_equal_predicted_iou_apart_by_masks() -> None:
    exact, baseline = stripes([0, 4, 8], [0.5, 0.5, 0.5]), stripes([0, 8], [0.5, 0.5])
    rows, columns = align(exact, baseline)
    assert (rows.tolist(), columns.tolist()) == ([0, 2], [0, 1])


@pytest.mark.parametrize("there", [[0, 1], [0, 2], [1, 2]])
def test_align_tells_equal_masks_apart_by_predicted_iou(there: list[int]) -> None:
    predicted_iou = [0.5, 0.7, 0.9]
    rows, columns = align(stripes([2, 2, 2], predicted_iou), stripes([2, 2], [predicted_iou[row] for row in there]))
    assert (rows.tolist(), columns.tolist()) == (there, [0, 1])


class TestPairInOrder:
    @pytest.mark.parametrize("seed", range(4))
    def test_is_the_cheapest_of_all(self, seed: int) -> None:
        costs = np.random.default_rng(seed).random((4, 5))

        def total(pairs: tuple[list[int], list[int]]) -> float:
            return float(costs[pairs].sum() + 0.3 * (sum(costs.shape) - 2 * len(pairs[0])))

        def cheapest(row: int, column: int) -> float:
            if row == costs.shape[0] or column == costs.shape[1]:
                return 0.3 * (costs.shape[0] - row + costs.shape[1] - column)
            pair = costs[row, column] + cheapest(row + 1, column + 1)
            return min(pair, 0.3 + cheapest(row + 1, column), 0.3 + cheapest(row, column + 1))

        pairs = pair_in_order(costs, 0.3)
        assert all(a < b for line in pairs for a, b in pairwise(line))
        assert total(pairs) == pytest.approx(cheapest(0, 0))

    def test_nothing(self) -> None:
        assert pair_in_order(np.zeros((0, 3)), 0.5) == ([], [])
        assert pair_in_order(np.zeros((3, 0)), 0.5) == ([], [])


class TestRecall:
    def test_counts_good_candidates_that_are_found(self) -> None:
        exact = stripes([0, 3, 6, 8], [0.9, 0.71, 0.8, 0.7])  # the last is not above 0.7
        fast = stripes([6, 0, 8], [0.1, 0.9, 0.9])
        assert recall(fast, exact) == (2, 3)

    def test_a_match_below_the_wanted_overlap_is_none(self) -> None:
        exact, fast = stripes([0], [0.9], thick=10), stripes([0], [0.9], thick=9)
        assert recall(fast, exact) == (1, 1)
        fast.logits[0, 0, 0] = -1.0
        assert recall(fast, exact) == (0, 1)

    def test_nothing(self) -> None:
        some, nothing = stripes([0], [0.9]), stripes([], [])
        assert recall(nothing, some) == (0, 1)
        assert recall(some, nothing) == (0, 0)


def test_mask_iou_of_empty_masks() -> None:
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[1, 0] = True
    assert mask_iou(masks, masks).tolist() == [[1, 0], [0, 1]]
