"""What a score loses to masks around it: by hand, and against plain loops of the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refseg.candidates.grids import share_in_groups, shares_of
from refseg.matching import overlaps
from refseg.matching.overlaps import diffuse_shares, merge_shares
from refseg.matching.similarity import Gallery, classify
from tests.synthetic import WIDTH, box_mask, make_candidates, make_matrix
from tests.tolerance import assert_near


def merge_overlaps(masks: Tensor, features: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """The merge on masks (N, H, W) bool, best rank first."""
    every = torch.ones(len(masks), dtype=torch.bool)
    shares = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), labels, every)
    return merge_shares(shares, features, scores)


class TestMergeOverlaps:
    def test_by_hand(self) -> None:
        # The second lies half in the first and their features have cosine 0.6: 0.9·√(1 − 0.5·0.6). The third is alone.
        masks = torch.stack([box_mask(0, 0, 8, 8), box_mask(4, 0, 12, 8), box_mask(0, 12, 4, 16)])
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
        found = merge_overlaps(masks, features, torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 0]))
        assert_near(found, torch.tensor([0.5, 0.9 * 0.7**0.5, 0.8]))

    def test_other_labels_do_not_count(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        scores = torch.tensor([0.5, 0.9])
        assert torch.equal(merge_overlaps(masks, features, scores, torch.tensor([0, 1])), scores)

    def test_a_copy_falls_to_zero(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        found = merge_overlaps(masks, features, torch.tensor([0.5, 0.9]), torch.tensor([2, 2]))
        assert_near(found, torch.tensor([0.5, 0.0]))

    def test_opposite_features_do_not_raise_a_score(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        scores = torch.tensor([0.5, 0.9])
        assert torch.equal(merge_overlaps(masks, features, scores, torch.tensor([0, 0])), scores)

    def test_an_empty_mask_stays_finite(self) -> None:
        masks = torch.stack([box_mask(0, 0, 8, 8), box_mask(0, 0, 0, 0)])
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert merge_overlaps(masks, features, torch.ones(2), torch.tensor([0, 0])).tolist() == [1, 1]

    def test_is_a_loop_over_pairs_and_leaves_its_arguments(self) -> None:
        candidates = make_candidates(40, seed=3)
        classified = classify(candidates.features, Gallery(make_matrix()))
        scores, labels = classified.scores, classified.labels
        before = [tensor.clone() for tensor in (candidates.masks, candidates.features, scores, labels)]
        found = merge_overlaps(candidates.masks, candidates.features, scores, labels)
        for i in range(len(candidates)):
            decay = 0.0
            for j in range(i):
                if labels[i] == labels[j]:
                    share = float((candidates.masks[i] & candidates.masks[j]).sum() / candidates.masks[i].sum())
                    decay = max(decay, share * max(0.0, float(candidates.features[i] @ candidates.features[j])))
            assert float(found[i]) == pytest.approx(float(scores[i]) * (1 - decay) ** 0.5, abs=1e-4)
        assert bool((found < scores - 0.01).any())
        for tensor, copy in zip((candidates.masks, candidates.features, scores, labels), before, strict=True):
            assert torch.equal(tensor, copy)

    def test_of_nothing(self) -> None:
        empty = torch.zeros(0)
        found = merge_overlaps(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, WIDTH), empty, empty.long())
        assert found.shape == (0,)


def random_shares(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Shares as there may be: some masks lie in several others, most pairs lie apart."""
    rng = np.random.default_rng(seed)
    shares = rng.random((count, count)) * (rng.random((count, count)) < 0.3)
    np.fill_diagonal(shares, 1)
    return shares.astype(np.float32)


class TestMergeShares:
    def test_is_merging_masks(self) -> None:
        candidates = make_candidates(40, seed=3)
        classified = classify(candidates.features, Gallery(make_matrix()))
        every = torch.ones(40, dtype=torch.bool)
        shares = candidates.shares(torch.arange(40), classified.labels, every)
        found = merge_shares(shares, candidates.features, classified.scores)
        assert_near(found, merge_overlaps(candidates.masks, candidates.features, classified.scores, classified.labels))

    def test_of_nothing(self) -> None:
        assert merge_shares(np.zeros((0, 0), np.float32), torch.zeros(0, WIDTH), torch.zeros(0)).shape == (0,)


def diffuse_plainly(shares: NDArray[np.float32], scores: list[float]) -> list[float]:
    """The formula (method.md, "graph diffusion"), one number at a time, to the end of its steps."""
    count = len(scores)
    before = [[float(shares[i, j]) if j < i else 0.0 for j in range(count)] for i in range(count)]
    flow = [1 / count] * count
    for _ in range(30):
        flow = [
            min(1.0, 0.3 * sum(a * f for a, f in zip(before[i], flow, strict=True)) + 0.7 * max(before[i]))
            for i in range(count)
        ]
    return [score * (1 - part) ** 0.5 for score, part in zip(scores, flow, strict=True)]


class TestDiffuseShares:
    @pytest.mark.parametrize("seed", range(4))
    def test_is_a_plain_loop(self, seed: int) -> None:
        shares, scores = random_shares(25, seed), torch.rand(25, generator=torch.Generator().manual_seed(seed))
        found = diffuse_shares(shares, scores)
        assert found.tolist() == pytest.approx(diffuse_plainly(shares, scores.tolist()), abs=1e-4)
        assert found.dtype == torch.float32
        assert bool((found < scores - 0.01).any())

    def test_along_a_chain_each_loses_more(self) -> None:
        # Half in the one before: π = 0, then 0.35, then 0.35 + 0.15·0.35, …
        chain = np.eye(4, dtype=np.float32) + 0.5 * np.eye(4, k=-1, dtype=np.float32)
        flow = [0.0, 0.35, 0.35 + 0.15 * 0.35, 0.35 + 0.15 * (0.35 + 0.15 * 0.35)]
        assert_near(diffuse_shares(chain, torch.ones(4)), torch.tensor([(1 - part) ** 0.5 for part in flow]))

    def test_a_mask_in_none_keeps_its_score(self) -> None:
        shares = np.eye(5, dtype=np.float32)
        shares[3, 1] = 0.8
        scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
        found = diffuse_shares(shares, scores)
        assert_near(found[[0, 1, 2, 4]], scores[[0, 1, 2, 4]])
        assert_near(found[3], torch.tensor(0.6 * (1 - 0.7 * 0.8) ** 0.5))

    def test_masks_ranked_after_do_not_count(self) -> None:
        upper = np.triu(random_shares(8))
        scores = torch.rand(8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(diffuse_shares(upper, scores), scores)

    def test_many_masks_around_one_leave_a_score_in_bounds(self) -> None:
        found = diffuse_shares(np.tril(np.ones((40, 40), np.float32)), torch.ones(40))
        assert bool(found.isfinite().all())
        assert float(found.min()) >= 0
        assert found[[0, -1]].tolist() == [1.0, 0.0]

    def test_stops_where_nothing_changes_any_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shares, scores = random_shares(12), torch.ones(12)
        settled = diffuse_shares(shares, scores)
        monkeypatch.setattr(overlaps, "DIFFUSION_STEPS", 1000)
        assert torch.equal(diffuse_shares(shares, scores), settled)
        monkeypatch.setattr(overlaps, "DIFFUSION_STEPS", 1)
        assert not torch.allclose(diffuse_shares(shares, scores), settled)

    def test_begins_with_equal_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # After one step from a half each: 0.3·0.5·0.5 + 0.7·0.5.
        monkeypatch.setattr(overlaps, "DIFFUSION_STEPS", 1)
        found = diffuse_shares(np.array([[1, 0], [0.5, 1]], np.float32), torch.ones(2))
        assert_near(found, torch.tensor([1.0, (1 - 0.425) ** 0.5]))

    def test_leaves_its_arguments(self) -> None:
        shares, scores = random_shares(6), torch.ones(6)
        copies = shares.copy(), scores.clone()
        diffuse_shares(shares, scores)
        assert np.array_equal(shares, copies[0])
        assert torch.equal(scores, copies[1])

    @pytest.mark.parametrize("count", [0, 1])
    def test_of_none_or_one(self, count: int) -> None:
        scores = torch.full((count,), 0.4)
        assert torch.equal(diffuse_shares(np.ones((count, count), np.float32), scores), scores)
