"""Masks at the image's size: each resized in its own box as if the whole image were resized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refseg.candidates.grids import interpolation_matrix
from refseg.candidates.packing import pack
from refseg.candidates.proposing import Candidates
from refseg.masks.rle import decode_mask
from refseg.matching import cropping
from refseg.matching.cropping import crop_instances, full_size_codes
from refseg.matching.instances import Ranking
from tests.candidates.test_packing import make_blobs
from tests.synthetic import (
    GRID,
    WIDTH,
    assert_consistent,
    make_candidates,
    rank_all,
    take,
    whole_masks,
)
from tests.upsampling import upsample


class TestUpsample:
    def test_of_that_size_is_the_sign(self) -> None:
        logits = make_candidates(3).logits
        assert torch.equal(upsample(logits, (GRID, GRID)), logits > 0)

    def test_zero_is_outside(self) -> None:
        assert not upsample(torch.zeros(1, 4, 4), (8, 8)).any()

    def test_by_hand(self) -> None:
        # One row of (-1, 3), twice as wide: -1, 0, 2, 3.
        logits = torch.tensor([[-1.0, 3.0], [-1.0, 3.0]])[None]
        assert upsample(logits, (2, 4)).tolist() == [[[False, False, True, True]] * 2]

    @pytest.mark.parametrize("image_hw", [(1, 5000), (5000, 1), (2, 3), (48, 64)])
    def test_shapes(self, image_hw: tuple[int, int]) -> None:
        masks = upsample(make_candidates(2).logits, image_hw)
        assert masks.shape == (2, *image_hw)
        assert masks.dtype == torch.bool

    def test_of_nothing(self) -> None:
        assert upsample(torch.zeros(0, 4, 4), (5, 7)).shape == (0, 5, 7)


FULL_SIZES = [(64, 64), (96, 128), (481, 640), (50, 700), (30, 20), (7, 300), (300, 7), (1, 400), (400, 1), (1, 1), (65, 63)]


class TestCropInstances:
    @pytest.mark.parametrize("image_hw", FULL_SIZES)
    @pytest.mark.parametrize("packed", [False, True])
    def test_are_the_masks_of_the_whole_image_resized(self, image_hw: tuple[int, int], packed: bool) -> None:
        blobs = make_blobs(30, image_hw=image_hw)
        candidates = pack(blobs) if packed else blobs
        rows_axis, columns_axis = (interpolation_matrix(64, side) for side in image_hw)
        full = rows_axis @ candidates.logits_of(torch.arange(30)) @ columns_axis.T
        found = crop_instances(candidates, rank_all(candidates))
        masks = torch.zeros(30, *image_hw, dtype=torch.bool)
        masks[found.rows] = whole_masks(found, image_hw)
        # Values so close to 0 may fall to either side, with the order of the additions.
        assert not bool(((masks != (full > 0)) & (full.abs() > 1e-4)).any())
        assert not bool(((masks != upsample(candidates.logits_of(torch.arange(30)), image_hw)) & (full.abs() > 1e-4)).any())
        for mask in found.masks:
            assert all(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))

    def test_small_masks_in_large_images(self) -> None:
        """Each alone in a corner, at a border, or in the middle: the window around it must hold all that is looked at."""
        logits = torch.full((5, 16, 16), -0.01)
        for row, (y, x) in enumerate([(0, 0), (15, 15), (0, 15), (8, 0), (7, 9)]):
            logits[row, y, x] = 9.0
        candidates = Candidates(logits, torch.ones(5), torch.ones(5, WIDTH), (333, 201))
        found = crop_instances(candidates, rank_all(candidates))
        assert torch.equal(whole_masks(found, (333, 201)), upsample(logits, (333, 201)))

    def test_masks_that_vanish_give_way(self) -> None:
        logits = torch.full((4, GRID, GRID), -5.0)
        logits[[0, 2], 2, 2] = 5.0  # averaged away in an image of 3 × 2 pixels
        logits[[1, 3], :, 9:] = 5.0
        candidates = Candidates(logits, torch.ones(4), torch.ones(4, WIDTH), (2, 3))
        for given in (candidates, pack(candidates)):
            assert crop_instances(given, rank_all(given)).rows.tolist() == [1, 3]
            assert crop_instances(given, rank_all(given), 1).rows.tolist() == [1]
            assert crop_instances(given, rank_all(given)).runners_up.tolist() == [11, 13]

    def test_no_more_than_asked_for_across_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates = make_blobs(20)
        every = crop_instances(candidates, rank_all(candidates))
        monkeypatch.setattr(cropping, "MASKS_A_CHUNK", 3)
        assert crop_instances(candidates, rank_all(candidates)).rows.tolist() == every.rows.tolist() == list(range(20))
        for count in (1, 3, 4, 19, 20, 21):
            found = crop_instances(candidates, rank_all(candidates), count)
            assert found.rows.tolist() == list(range(min(count, 20)))
            assert torch.equal(found.boxes, every.boxes[:count])

    @pytest.mark.parametrize("pixels", [1, 300])
    def test_the_same_in_strips(self, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
        candidates = make_blobs(8)
        every = crop_instances(candidates, rank_all(candidates))
        monkeypatch.setattr(cropping, "PIXELS_A_STRIP", pixels)
        found = crop_instances(candidates, rank_all(candidates))
        assert torch.equal(found.boxes, every.boxes)
        for mask, whole in zip(found.masks, every.masks, strict=True):
            assert torch.equal(mask, whole)

    def test_order_is_that_of_the_ranking(self) -> None:
        candidates = make_blobs(6)
        columns = torch.tensor([2, 0]), torch.tensor([0.9, 0.3]), torch.tensor([0.5, 0.1]), torch.tensor([0, 1])
        ranking = Ranking(torch.tensor([4, 1]), *columns)
        found = crop_instances(candidates, ranking)
        assert (found.rows.tolist(), found.labels.tolist()) == ([4, 1], [2, 0])
        assert torch.equal(found.scores, ranking.scores)
        assert torch.equal(found.margins, ranking.margins)
        assert torch.equal(found.runners_up, ranking.runners_up)

    def test_of_nothing(self) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        for candidates in (empty, pack(empty)):
            assert_consistent(crop_instances(candidates, rank_all(candidates)), empty)


class TestFullSizeCodes:
    def test_are_the_whole_masks(self) -> None:
        candidates, rows = make_candidates(40), torch.arange(39, -1, -1)
        whole = upsample(candidates.logits[rows], candidates.image_hw).numpy()
        found = [decode_mask(code) for code in full_size_codes(candidates, rows)]
        assert (np.stack(found) == whole).all()

    def test_a_mask_that_vanishes_is_empty(self) -> None:
        candidates = make_candidates(2)
        gone = replace(candidates, logits=torch.full_like(candidates.logits, -1.0))
        assert not any(decode_mask(code).any() for code in full_size_codes(gone, torch.tensor([1])))

    def test_of_nothing(self) -> None:
        assert full_size_codes(make_candidates(2), torch.zeros(0, dtype=torch.int64)) == []
