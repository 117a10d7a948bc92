"""Crops of objects: corners, weights and means worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refseg.candidates.crops import crop_corners, crop_weights, instance_vector
from tests.tolerance import assert_near


class TestInstanceVector:
    def test_by_hand(self) -> None:
        features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
        found = instance_vector(features, torch.tensor([0.5, 0.25, 0.0]))
        assert found is not None
        assert_near(found, torch.tensor([(0.5 + 0.75) / 0.75, 1.0 / 0.75]))

    def test_is_a_loop_over_patches(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features, weights = torch.randn(49, 6, generator=generator), torch.rand(49, generator=generator)
        total, mean = 0.0, torch.zeros(6)
        for feature, weight in zip(features, weights, strict=True):
            total += float(weight)
            mean += float(weight) * feature
        found = instance_vector(features, weights)
        assert found is not None
        assert_near(found, mean / total)

    def test_permuted_patches(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features, weights = torch.randn(49, 6, generator=generator), torch.rand(49, generator=generator)
        order = torch.randperm(49, generator=generator)
        found, permuted = instance_vector(features, weights), instance_vector(features[order], weights[order])
        assert found is not None
        assert permuted is not None
        assert_near(permuted, found)

    def test_no_weight_no_vector(self) -> None:
        assert instance_vector(torch.ones(4, 2), torch.zeros(4)) is None


class TestCropCorners:
    @pytest.mark.parametrize(
        ("box", "corners"),
        [
            ((40, 40, 60, 50), (38, 33, 62, 57)),  # 24 a side around (50, 45)
            ((40, 40, 45, 45), (39, 39, 45, 45)),  # 42.5 ± 3: truncated, not rounded
            ((0, 0, 10, 20), (0, 0, 17, 22)),  # cut at the border
            ((90, 60, 100, 80), (83, 58, 100, 80)),
            ((-20, 30, 10, 40), (0, 17, 13, 53)),  # a box that reaches out of the image
            ((0, 0, 0.5, 0.5), (0, 0, 1, 1)),  # never less than a pixel
            ((99.6, 79.6, 99.9, 79.9), (99, 79, 100, 80)),
            ((10.9, 20.9, 30.2, 40.8), (8, 18, 32, 42)),  # cut to (10, 20, 30, 40) first
            ((9.9999999, 20, 30, 40), (8, 18, 32, 42)),  # a rounding error is no pixel
            ((-20.9, 30, 10, 40), (0, 17, 13, 53)),
        ],
    )
    def test_by_hand(self, box: tuple[float, ...], corners: tuple[int, ...]) -> None:
        assert crop_corners(box, (80, 100)) == corners

    def test_stay_in_the_image_and_hold_the_box(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(500):
            height, width = (int(side) for side in rng.integers(1, 200, 2))
            (x0, x1), (y0, y1) = sorted(rng.uniform(-50, width + 50, 2)), sorted(rng.uniform(-50, height + 50, 2))
            left, top, right, bottom = crop_corners((x0, y0, x1, y1), (height, width))
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            if x1 - x0 > 12 and y1 - y0 > 12 and min(x0, y0) >= 0 and x1 <= width and y1 <= height:
                assert left <= x0
                assert top <= y0
                assert right >= int(x1)
                assert bottom >= int(y1)


class TestCropWeights:
    def test_whole_and_half(self) -> None:
        mask = torch.zeros(50, 80, dtype=torch.bool)
        assert torch.equal(crop_weights(~mask, 224, 16), torch.ones(256))
        mask[:, :40] = True
        expected = torch.zeros(16, 16)
        expected[:, :8] = 1.0
        # Column 8 is pixel 112 of 224: at 112.5·80/224 − 0.5 = 39.679 of 80, and pixel 39 is the mask's last.
        expected[:, 8] = 40 - (112.5 * 80 / 224 - 0.5)
        assert_near(crop_weights(mask, 224, 16), expected.flatten())

    def test_is_row_major(self) -> None:
        mask = torch.zeros(40, 40, dtype=torch.bool)
        mask[:10] = True
        assert crop_weights(mask, 56, 4).reshape(4, 4)[0].sum() > 2
        assert crop_weights(mask, 56, 4).reshape(4, 4)[2:].sum() == 0

    @pytest.mark.parametrize("hw", [(1, 1), (1, 500), (300, 7)])
    def test_any_crop_gives_weights_in_bounds(self, hw: tuple[int, int]) -> None:
        weights = crop_weights(torch.rand(*hw, generator=torch.Generator().manual_seed(0)) > 0.5, 224, 16)
        assert weights.shape == (256,)
        assert weights.dtype == torch.float32
        assert 0 <= weights.min() <= weights.max() <= 1

    def test_a_single_pixel_off_the_samples_is_lost(self) -> None:
        # Patch centres are not looked at: nearest takes pixels 0, 14, 28, … of 224; pixel 37 of 240 lands on 34 and 35.
        mask = torch.zeros(240, 240, dtype=torch.bool)
        mask[37, 37] = True
        assert crop_weights(mask, 224, 16).sum() == 0
