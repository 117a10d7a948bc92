"""Second looks: what is painted grey, what is kept of a crop, and that neighbours do not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refseg.candidates.crops import crop_corners, crop_weights, instance_vector
from refseg.candidates.proposing import encode_patches
from refseg.candidates.second_look import GREY, CutOut, _summary, look_again
from refseg.images.reading import encoder_pixels
from refseg.models.loaded import Models
from tests.tolerance import assert_near


def picture(seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def disc(side: int) -> torch.Tensor:
    line = torch.arange(side) - (side - 1) / 2
    return line[None] ** 2 + line[:, None] ** 2 <= (side / 2) ** 2


class TestCutOut:
    def test_by_hand(self) -> None:
        mask = torch.tensor([[True, False], [True, True]])
        found = CutOut(mask, (3, 1), (3, 1, 5, 3)).within((2, 0, 5, 3))
        assert found.int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]

    @pytest.mark.parametrize("corners", [(0, 0, 3, 1), (4, 3, 9, 9), (-5, -5, 0, 0)])
    def test_a_part_that_the_mask_does_not_reach(self, corners: tuple[int, int, int, int]) -> None:
        found = CutOut(torch.ones(2, 2, dtype=torch.bool), (0, 1), (0, 1, 2, 3)).within(corners)
        assert found.shape == (corners[3] - corners[1], corners[2] - corners[0])
        assert not found.any()

    def test_a_mask_that_reaches_beyond(self) -> None:
        assert CutOut(torch.ones(9, 9, dtype=torch.bool), (-2, -2), (0, 0, 4, 4)).within((0, 0, 4, 4)).all()


class TestSummary:
    def test_by_hand(self) -> None:
        features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]])
        found = _summary(features, torch.tensor([1.0, 1.0, 0.0]))
        mean, deviation = torch.tensor([2.0, 2.0]), torch.tensor([1.0, 2.0])
        expected = torch.cat([mean / mean.norm(), deviation / deviation.norm()]) / 2**0.5
        assert_near(found, expected)

    def test_no_patch_no_look(self) -> None:
        assert _summary(torch.ones(4, 3), torch.zeros(4)).tolist() == [0.0] * 6

    def test_an_even_object_has_no_deviation(self) -> None:
        found = _summary(torch.ones(4, 2), torch.ones(4))
        assert_near(found, torch.tensor([0.5**0.5, 0.5**0.5, 0.0, 0.0]))


class TestLookAgain:
    def test_is_what_it_says(self, models: Models) -> None:
        """Step by step: the crop, grey around the object, half the side, mean and deviation of its patches."""
        image, mask, box = picture(), disc(40), (50.0, 30.0, 90.0, 70.0)
        found = look_again(image, [CutOut(mask, (50, 30), box)], models)
        corners = crop_corners(box, (image.height, image.width))
        whole = torch.zeros(image.height, image.width, dtype=torch.bool)
        whole[30:70, 50:90] = mask
        own = whole[corners[1] : corners[3], corners[0] : corners[2]]
        pixels = torch.from_numpy(np.array(image.crop(corners))).permute(2, 0, 1).float() / 255
        pixels[:, ~own] = GREY
        side = models.look_side
        assert side * 2 == models.preset.encoder_side
        with torch.inference_mode():
            features = encode_patches(encoder_pixels(pixels[None], side), models)[0].float()
        weights = crop_weights(own, side, side // models.patch_size)
        mean = instance_vector(features, weights)
        assert mean is not None
        deviation = ((weights / weights.sum()) @ (features - mean) ** 2).sqrt()
        expected = torch.cat([F.normalize(mean, dim=0), F.normalize(deviation, dim=0)]) / 2**0.5
        assert_near(found[0], expected.half().float())
        assert found.shape == (1, models.look_width)
        assert float(found.norm()) == pytest.approx(1, abs=1e-3)

    def test_neighbours_do_not_count(self, models: Models) -> None:
        image, mask = picture(), disc(40)
        other = picture(1)
        other.paste(image.crop((50, 30, 90, 70)), (50, 30), Image.fromarray(mask.numpy().astype(np.uint8) * 255))
        item = CutOut(mask, (50, 30), (50.0, 30.0, 90.0, 70.0))
        first, second = (look_again(one, [item], models) for one in (image, other))
        assert torch.equal(first, second)
        assert not torch.equal(first, look_again(picture(1), [item], models))

    def test_many_are_as_each_alone(self, models: Models) -> None:
        image = picture(size=(300, 200))
        items = [CutOut(disc(side), (5 * side, 40), (5.0 * side, 40.0, 6.0 * side, 40.0 + side)) for side in range(20, 40, 2)]
        together = look_again(image, items, models)
        alone = torch.cat([look_again(image, [item], models) for item in items])
        assert_near(together, alone, at_most=2e-3)

    def test_of_nothing(self, models: Models) -> None:
        assert look_again(picture(), [], models).shape == (0, models.look_width)

    def test_an_object_of_no_pixels(self, models: Models) -> None:
        nothing = CutOut(torch.zeros(5, 5, dtype=torch.bool), (10, 10), (10.0, 10.0, 15.0, 15.0))
        assert not look_again(picture(), [nothing], models).any()
