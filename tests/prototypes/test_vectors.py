"""From a labelled object to its vectors: each step by hand, and what a digest depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refseg.candidates.crops import crop_corners, crop_weights
from refseg.candidates.proposing import encode_patches
from refseg.images.reading import encoder_pixels, read_image
from refseg.models.loaded import Models
from refseg.prototypes.vectors import (
    BACKGROUND_VECTORS,
    Reference,
    ReferenceVector,
    background_vectors,
    paste_mask,
    reference_digest,
    reference_vector,
)
from tests.tolerance import assert_near


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

    def test_turned_is_the_mean_of_eight_views(self, references: list[Reference], models: Models, tmp_path: Path) -> None:
        whole, reference = read_image(references[0].image), references[0]
        assert reference.mask is not None
        box = tuple(round(side) for side in reference.box)
        mask = paste_mask(reference.mask, reference.box, (whole.height, whole.width)).numpy()
        vectors, looks = [], []
        for quarters in range(4):
            for mirrored in (False, True):
                # Turned as arrays, by another way than the library's.
                pixels, where = np.rot90(np.asarray(whole), quarters), np.rot90(mask, quarters)
                corner = np.zeros(mask.shape, bool)
                corner[box[1] : box[3], box[0] : box[2]] = True
                corner = np.rot90(corner, quarters)
                if mirrored:
                    pixels, where, corner = pixels[:, ::-1], where[:, ::-1], corner[:, ::-1]
                ys, xs = np.nonzero(corner)
                own = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
                view = Reference("view", "gear", "view.png", own, where[own[1] : own[3], own[0] : own[2]])
                found = reference_vector(Image.fromarray(np.ascontiguousarray(pixels)), view, models)
                assert isinstance(found, ReferenceVector)
                assert found.look is not None
                vectors.append(found.vector)
                looks.append(found.look)
        turned = reference_vector(whole, reference, models, turned=True)
        assert isinstance(turned, ReferenceVector)
        assert turned.look is not None
        # A crop may lie half a pixel further where the picture is turned.
        mean = torch.stack(vectors).mean(0)
        assert F.cosine_similarity(turned.vector, mean, dim=0) > 0.9995
        assert F.cosine_similarity(turned.vector, vectors[0], dim=0) < F.cosine_similarity(turned.vector, mean, dim=0)
        assert F.cosine_similarity(turned.look, torch.stack(looks).mean(0), dim=0) > 0.9995
        assert_near(turned.look.norm(), torch.tensor(1.0))

    def test_why_not(self, references: list[Reference], models: Models) -> None:
        image = read_image(references[0].image)
        empty = replace(references[0], mask=np.zeros((3, 3), bool))
        assert reference_vector(image, empty, models) == "its mask is empty"
