"""Masks on a grid: their shares, near-duplicates, boxes, and features pooled over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from refseg.candidates.grids import (
    drop_near_duplicates,
    grid_boxes,
    interpolation_matrix,
    patch_weights,
    pool_features,
    share_in_groups,
    shares_of,
)
from refseg.errors import ShapeError
from tests.candidates.test_proposing import random_candidates
from tests.synthetic import GRID, box_mask
from tests.tolerance import assert_near


def share_plainly(masks: Tensor, groups: Tensor, wanted: Tensor) -> list[list[float]]:
    """Pair by pair."""
    count = len(masks)
    answer = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(count):
            alone = int((groups == groups[i]).sum()) == 1
            if wanted[i] and groups[i] == groups[j] and not alone and masks[i].any():
                answer[i][j] = float((masks[i] & masks[j]).sum() / masks[i].sum())
    return answer


class TestShares:
    def test_by_hand(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        masks[0, :2], masks[1, 1] = True, True  # eight cells, and four of which all lie in them; the third is empty
        assert shares_of(masks, masks).tolist() == [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]]

    def test_of_nothing(self) -> None:
        masks = torch.ones(3, 4, 4, dtype=torch.bool)
        assert shares_of(masks[:0], masks).shape == (0, 3)
        assert shares_of(masks, masks[:0]).shape == (3, 0)

    @pytest.mark.parametrize("seed", range(3))
    def test_in_groups_are_a_loop_over_pairs(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        masks = random_candidates(14, seed).masks
        masks[3] = False
        groups = torch.randint(0, 5, (14,), generator=generator) * 7 - 3
        wanted = torch.rand(14, generator=generator) > 0.4
        found = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), groups, wanted)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, share_plainly(masks, groups, wanted), rtol=0, atol=1e-6)
        assert (found > 0).any()

    def test_in_groups_asks_for_nothing_it_does_not_need(self) -> None:
        asked: list[tuple[list[int], list[int]]] = []

        def share(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
            asked.append((some.tolist(), others.tolist()))
            return np.ones((len(some), len(others)), np.float32)

        groups, wanted = torch.tensor([0, 1, 0, 1, 2]), torch.tensor([True, False, True, False, True])
        found = share_in_groups(share, groups, wanted)
        assert asked == [([0, 2], [0, 2])]  # none of group 1 is wanted, and 2 has one member
        assert found.tolist() == [[1, 0, 1, 0, 0], [0] * 5, [1, 0, 1, 0, 0], [0] * 5, [0] * 5]

    def test_in_groups_of_nothing(self) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert share_in_groups(lambda some, others: np.zeros((0, 0), np.float32), none, none.bool()).shape == (0, 0)


def drop_plainly(masks: Tensor, predicted_iou: Tensor, max_iou: float) -> list[int]:
    """One mask after the other, best first; of equally good ones the first."""
    kept: list[int] = []
    for row in sorted(range(len(masks)), key=lambda row: -float(predicted_iou[row])):
        for other in kept:
            both, either = int((masks[row] & masks[other]).sum()), int((masks[row] | masks[other]).sum())
            if either and both / either >= max_iou:
                break
        else:
            kept.append(row)
    return sorted(kept)


def families(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masks of which several are nearly the same, and predicted IoUs of which several are equal."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count // 4, 20, 20, generator=generator) > 0.5
    masks = first[torch.randint(0, len(first), (count,), generator=generator)]
    # The more cells are flipped the less two of a family agree: from 0.88 to 1.
    flips = torch.rand(count, 20, 20, generator=generator) < 0.03 * torch.rand(count, 1, 1, generator=generator)
    return masks ^ flips, torch.randint(0, 6, (count,), generator=generator) / 6


class TestDropNearDuplicates:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("max_iou", [0.9, 0.95, 1.0])
    def test_is_a_greedy_loop(self, seed: int, max_iou: float) -> None:
        masks, predicted = families(40, seed)
        found = drop_near_duplicates(masks, predicted, max_iou)
        assert found.dtype == torch.int64
        assert found.tolist() == drop_plainly(masks, predicted, max_iou)
        if max_iou < 1:
            assert 10 <= len(found) < 40

    def test_of_equally_good_ones_the_first_stays(self) -> None:
        masks = torch.ones(3, 4, 4, dtype=torch.bool)
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.5, 0.5]), 0.95).tolist() == [0]
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.6, 0.6]), 0.95).tolist() == [1]

    def test_what_a_dropped_mask_resembles_stays(self) -> None:
        # Twenty cells in a row, each mask two cells further: 18 / 22 for neighbours, 16 / 24 for the ends.
        masks = torch.zeros(3, 1, 24, dtype=torch.bool)
        for row in range(3):
            masks[row, 0, 2 * row : 2 * row + 20] = True
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8, 0.7]), 0.8).tolist() == [0, 2]
        assert drop_near_duplicates(masks, torch.tensor([0.8, 0.9, 0.7]), 0.8).tolist() == [1]

    def test_an_iou_of_just_the_limit_nearly_coincides(self) -> None:
        masks = torch.zeros(2, 1, 20, dtype=torch.bool)
        masks[0, 0], masks[1, 0, :19] = True, True
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8]), 0.95).tolist() == [0]
        masks[1, 0, 18] = False
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8]), 0.95).tolist() == [0, 1]

    def test_empty_masks_stay(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.9, 0.7]), 0.95).tolist() == [0, 1, 2]

    def test_order_of_the_masks_permutes_the_rows(self) -> None:
        masks, _ = families(40, 9)
        predicted = torch.rand(40, generator=torch.Generator().manual_seed(9))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        found = drop_near_duplicates(masks, predicted, 0.95)
        permuted = drop_near_duplicates(masks[order], predicted[order], 0.95)
        assert sorted(order[permuted].tolist()) == found.tolist()
        assert bool((permuted.diff() > 0).all())

    def test_changes_nothing_it_was_given(self) -> None:
        masks, predicted = families(40, 2)
        before = masks.clone(), predicted.clone()
        drop_near_duplicates(masks, predicted, 0.95)
        assert torch.equal(masks, before[0])
        assert torch.equal(predicted, before[1])

    def test_of_nothing(self) -> None:
        assert drop_near_duplicates(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0), 0.95).shape == (0,)


class TestPooling:
    def test_interpolation_by_hand(self) -> None:
        expected = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
        assert_near(interpolation_matrix(2, 4), expected)

    @pytest.mark.parametrize(("patches_side", "grid_side"), [(37, 256), (16, 64), (5, 3), (1, 8)])
    def test_interpolation_upsamples_one_axis(self, patches_side: int, grid_side: int) -> None:
        values = torch.randn(patches_side, patches_side, generator=torch.Generator().manual_seed(0))
        axis = interpolation_matrix(patches_side, grid_side)
        expected = F.interpolate(
            values[None, None], size=(grid_side, grid_side), mode="bilinear", align_corners=False, antialias=True
        )[0, 0]
        assert_near(axis @ values @ axis.T, expected)
        assert_near(axis.sum(1), torch.ones(grid_side))

    def test_weights_add_up_to_the_mask(self) -> None:
        masks = torch.rand(6, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.7
        assert_near(patch_weights(masks, 16).sum(1), masks.flatten(1).sum(1).float(), at_most=1e-3)

    def test_weights_of_one_patch_are_the_area(self) -> None:
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[0, 2:4, 1:6] = True
        assert_near(patch_weights(mask, 1), torch.tensor([[10.0]]))

    @pytest.mark.parametrize(("patches_side", "grid_side"), [(37, 256), (16, 64)])
    def test_adjoint_is_upsampling_and_averaging(self, patches_side: int, grid_side: int) -> None:
        generator = torch.Generator().manual_seed(2)
        features = torch.randn(patches_side**2, 12, generator=generator)
        coarse = torch.randn(10, 1, 9, 9, generator=generator)
        masks = F.interpolate(coarse, size=(grid_side, grid_side), mode="bicubic", align_corners=False)[:, 0] > 0.3
        single = torch.zeros_like(masks[:1])
        single[0, grid_side // 3, -1] = True
        masks = torch.cat([masks, single, torch.ones_like(single)])

        square = features.T.reshape(1, 12, patches_side, patches_side)
        full = F.interpolate(square, size=(grid_side, grid_side), mode="bilinear", align_corners=False, antialias=True)[0]
        literal = torch.stack([F.normalize(full[:, mask].mean(1), dim=0) for mask in masks])
        assert_near(pool_features(masks, features), literal, at_most=1e-5)

    def test_are_of_unit_length_and_permute_with_the_masks(self) -> None:
        generator = torch.Generator().manual_seed(2)
        masks = torch.rand(5, 64, 64, generator=generator) > 0.5
        features = torch.randn(256, 7, generator=generator)
        found = pool_features(masks, features)
        assert_near(found.norm(dim=1), torch.ones(5))
        order = torch.tensor([3, 0, 4, 2, 1])
        assert_near(pool_features(masks[order], features), found[order])

    def test_half_precision_features_are_pooled_in_float32(self) -> None:
        features = torch.randn(16, 7, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
        masks = torch.ones(1, 8, 8, dtype=torch.bool)
        found = pool_features(masks, features)
        assert found.dtype == torch.float32
        assert_near(found, pool_features(masks, features.float()))

    def test_empty_mask_has_no_direction(self) -> None:
        assert pool_features(torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(16, 3)).tolist() == [[0, 0, 0]]

    def test_of_nothing(self) -> None:
        assert pool_features(torch.zeros(0, 8, 8, dtype=torch.bool), torch.ones(16, 3)).shape == (0, 3)

    def test_patches_must_be_a_square(self) -> None:
        with pytest.raises(ShapeError, match="square of patches, but there are 17"):
            pool_features(torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(17, 3))


class TestGridBoxes:
    def test_is_a_loop_over_pixels(self) -> None:
        masks = torch.rand(20, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.97
        masks = masks[masks.flatten(1).any(1)]
        for mask, box in zip(masks, grid_boxes(masks).tolist(), strict=True):
            inside = mask.nonzero().tolist()
            ys, xs = [y for y, _ in inside], [x for _, x in inside]
            assert box == [min(xs), min(ys), max(xs), max(ys)]

    def test_full_and_single_pixel(self) -> None:
        single = box_mask(3, 5, 4, 6)
        full = torch.ones(GRID, GRID, dtype=torch.bool)
        assert grid_boxes(torch.stack([single, full])).tolist() == [[3, 5, 3, 5], [0, 0, 15, 15]]

    def test_of_nothing(self) -> None:
        assert grid_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)
