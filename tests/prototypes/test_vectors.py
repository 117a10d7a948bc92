"""From a labelled object to its vectors: each step by hand, and what a digest depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refseg.candidates.proposing import encode_patches
from refseg.images.reading import encoder_pixels, read_image
from refseg.models.loaded import Models
from refseg.prototypes.vectors import (
    BACKGROUND_VECTORS,
    Reference,
    ReferenceVector,
    background_vectors,
    crop_corners,
    crop_weights,
    instance_vector,
    paste_mask,
    reference_digest,
    reference_vector,
)
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


class TestReferenceDigest:
    def test_is_sixteen_digits_and_always_the_same(
        self, references: list[Reference], models: Models, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = references[0]
        digest = reference_digest(first, models)
        assert digest is not None
        assert len(digest) == 16
        assert int(digest, 16) >= 0
        assert first.mask is not None
        monkeypatch.chdir(Path(first.image).parent)
        again = replace(
            first,
            image=Path(first.image).name,
            box=tuple(np.array(first.box, np.float32)),
            mask=np.asfortranarray(first.mask),
            label="nut",
        )
        assert reference_digest(again, models) == digest

    def test_tells_references_and_models_apart(self, references: list[Reference], models: Models) -> None:
        alone = replace(references[0], mask=None)
        narrow = replace(models, dtype=torch.bfloat16)
        segmenter = replace(models, revisions={**models.revisions, "sam2": "another"})
        raw = replace(models, preset=replace(models.preset, clean_masks=False))
        found = [reference_digest(reference, models) for reference in (*references, alone)]
        found += [reference_digest(references[0], narrow), reference_digest(alone, segmenter), reference_digest(alone, raw)]
        assert len(set(found)) == len(found)
        for others in (segmenter, raw):
            assert reference_digest(references[0], others) == found[0]

    @pytest.mark.parametrize("path", ["nowhere/a.png", "", "a\0.png"])
    def test_no_file(self, references: list[Reference], models: Models, path: str) -> None:
        assert reference_digest(replace(references[0], image=path), models) is None

    @pytest.mark.parametrize("side", [float("nan"), float("inf")])
    def test_odd_box(self, references: list[Reference], models: Models, side: float) -> None:
        assert reference_digest(replace(references[0], box=(0, 0, side, 5)), models) is not None


class TestPasteMask:
    def test_by_hand(self) -> None:
        whole = paste_mask(np.array([[True, False], [True, True]]), (3, 1, 5, 3), (5, 6))
        assert whole.nonzero().tolist() == [[1, 3], [2, 3], [2, 4]]

    def test_is_stretched_over_the_rounded_box(self) -> None:
        whole = paste_mask(np.array([[True, False]]), (0.6, 1.4, 4.6, 3.4), (5, 6))
        assert whole.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]

    def test_what_lies_outside_the_image_is_cut_off(self) -> None:
        mask = np.arange(16).reshape(4, 4) % 4 == 3  # its right column
        assert paste_mask(mask, (-2, -2, 2, 2), (5, 6)).nonzero().tolist() == [[0, 1], [1, 1]]
        assert not paste_mask(mask, (4, 3, 8, 7), (5, 6)).any()

    @pytest.mark.parametrize(
        ("mask", "box"), [(np.ones((0, 3), bool), (1, 1, 4, 4)), (np.ones((2, 2), bool), (20, 20, 22, 22))]
    )
    def test_of_nothing(self, mask: np.ndarray, box: tuple[float, ...]) -> None:
        assert paste_mask(mask, box, (5, 6)).shape == (5, 6)
        assert not paste_mask(mask, box, (5, 6)).any()


class TestBackgroundVectors:
    def test_are_the_directions_of_what_is_there_the_most_frequent_first(self) -> None:
        kinds = torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.1]])
        found = background_vectors(kinds.repeat_interleave(torch.tensor([3, 9, 6]), 0))
        assert found.shape == (BACKGROUND_VECTORS, 3)
        assert found.dtype == torch.float32
        # Their lengths do not count, and there are no more kinds than these.
        assert_near(found[:3], torch.eye(3)[[0, 2, 1]])
        assert not found[3:].any()

    def test_each_patch_is_near_to_one(self) -> None:
        generator = torch.Generator().manual_seed(0)
        kinds = F.normalize(torch.randn(BACKGROUND_VECTORS, 16, generator=generator), dim=1)
        patches = kinds.repeat(20, 1) * 3 + 0.05 * torch.randn(160, 16, generator=generator)
        found = background_vectors(patches)
        assert_near(found.norm(dim=1), torch.ones(BACKGROUND_VECTORS))
        assert float((F.normalize(patches, dim=1) @ found.T).amax(1).median()) > 0.95

    def test_is_always_the_same_and_changes_nothing(self) -> None:
        patches = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        copy, state = patches.clone(), torch.get_rng_state()
        assert torch.equal(background_vectors(patches), background_vectors(patches))
        assert torch.equal(patches, copy)
        assert torch.equal(torch.get_rng_state(), state)

    def test_of_nothing(self) -> None:
        assert torch.equal(background_vectors(torch.zeros(0, 5)), torch.zeros(BACKGROUND_VECTORS, 5))


class TestReferenceVector:
    def test_background_is_of_the_patches_outside_the_object(self, references: list[Reference], models: Models) -> None:
        reference = references[0]
        image = read_image(reference.image)
        found = reference_vector(image, reference, models)
        assert isinstance(found, ReferenceVector)
        assert found.background is not None
        left, top, right, bottom = crop_corners(reference.box, (image.height, image.width))
        pixels = torch.from_numpy(np.array(image.crop((left, top, right, bottom)))).permute(2, 0, 1)[None] / 255
        features = encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models)[0]
        assert reference.mask is not None
        mask = paste_mask(reference.mask, reference.box, (image.height, image.width))[top:bottom, left:right]
        weights = crop_weights(mask, models.preset.encoder_side, models.patches_side)
        outside = F.normalize(features[weights < 0.05], dim=1)
        assert 8 < len(outside) < models.patches_side**2
        # Unit vectors among these patches: nearer to some of them than to the object.
        assert_near(found.background.norm(dim=1), torch.ones(BACKGROUND_VECTORS))
        inside = F.normalize(features[weights > 0.5], dim=1)
        to_outside, to_inside = (found.background @ patches.T for patches in (outside, inside))
        assert bool((to_outside.amax(1) > to_inside.mean(1)).all())
        assert_near(found.background, background_vectors(features[weights < 0.05]), at_most=1e-3)

    def test_an_object_that_fills_its_crop_has_none(self, references: list[Reference], models: Models) -> None:
        image = read_image(references[0].image)
        whole = Reference("whole", "gear", references[0].image, (0, 0, image.width, image.height), np.ones((2, 2), bool))
        found = reference_vector(image, whole, models)
        assert isinstance(found, ReferenceVector)
        assert found.background is not None
        assert not found.background.any()

    def test_why_not(self, references: list[Reference], models: Models) -> None:
        image = read_image(references[0].image)
        empty = replace(references[0], mask=np.zeros((3, 3), bool))
        assert reference_vector(image, empty, models) == "its mask is empty"
