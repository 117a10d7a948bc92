"""Masks at the image's size, many at once: as if each were resized by itself, and as if the whole grid were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from refseg.matching import cropping, full_size
from refseg.matching.full_size import FullSize, fits, resize
from tests.candidates.test_borders import candidates_of, every_kind, noise
from tests.candidates.test_packing import make_blobs
from tests.upsampling import upsample

SIDES_AND_SIZES = [
    (64, (64, 64)),
    (64, (65, 64)),
    (64, (96, 128)),
    (64, (481, 640)),
    (16, (333, 17)),
    (16, (16, 1000)),
    (65, (67, 131)),
]


def whole(masks: FullSize, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool: each mask at its place in the image."""
    found = torch.zeros(len(masks), *image_hw, dtype=torch.bool)
    for canvas, cut in zip(found, masks.masks(), strict=True):
        if cut is not None:
            mask, (x0, y0, x1, y1) = cut
            assert all(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
            canvas[y0:y1, x0:x1] = mask
    return found


def one_by_one(candidates: Candidates | PackedCandidates, rows: Tensor) -> list[tuple[Tensor, tuple[int, ...]] | None]:
    return list(cropping._one_by_one(candidates, rows))


def of_image(logits: Tensor, image_hw: tuple[int, int]) -> Candidates:
    return Candidates(logits, torch.ones(len(logits)), torch.ones(len(logits), 4) / 2, image_hw)


@pytest.mark.parametrize(("side", "image_hw"), SIDES_AND_SIZES)
@pytest.mark.parametrize("packed", [False, True])
class TestResize:
    def test_as_if_each_were_resized_by_itself(self, side: int, image_hw: tuple[int, int], packed: bool) -> None:
        candidates = of_image(every_kind(side), image_hw)
        given = pack(candidates) if packed else candidates
        rows = torch.randperm(len(given), generator=torch.Generator().manual_seed(1))
        found = list(resize(given, rows).masks())
        for own, expected in zip(found, one_by_one(given, rows), strict=True):
            assert (own is None) == (expected is None)
            if own is not None and expected is not None:
                assert own[1] == expected[1]
                assert torch.equal(own[0], expected[0])

    def test_as_if_the_whole_grid_were(self, side: int, image_hw: tuple[int, int], packed: bool) -> None:
        candidates = of_image(make_blobs(20, side).logits, image_hw)
        given, rows = pack(candidates) if packed else candidates, torch.arange(20)
        assert torch.equal(whole(resize(given, rows), image_hw), upsample(given.logits_of(rows), image_hw))

    def test_areas_and_shared_pixels(self, side: int, image_hw: tuple[int, int], packed: bool) -> None:
        candidates = of_image(torch.cat([make_blobs(8, side).logits, noise(4, side)]), image_hw)
        given, rows = pack(candidates) if packed else candidates, torch.arange(12)
        masks = resize(given, rows)
        flat = whole(masks, image_hw).flatten(1).double()
        assert masks.areas.tolist() == flat.sum(1).tolist()
        shared = [[masks.num_shared(one, other) for other in range(12)] for one in range(12)]
        assert shared == (flat @ flat.T).tolist()

    def test_boxes_hold_their_masks(self, side: int, image_hw: tuple[int, int], packed: bool) -> None:
        candidates = of_image(every_kind(side), image_hw)
        given = pack(candidates) if packed else candidates
        masks = resize(given, torch.arange(len(given)))
        for box, cut in zip(masks.boxes.tolist(), masks.masks(), strict=True):
            assert 0 <= box[0] < box[2] <= image_hw[1]
            assert 0 <= box[1] < box[3] <= image_hw[0]
            if cut is not None:
                x0, y0, x1, y1 = cut[1]
                assert box[0] <= x0 < x1 <= box[2]
                assert box[1] <= y0 < y1 <= box[3]


@pytest.mark.parametrize("step", [1, 5])
def test_in_steps_of_any_size(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    candidates = of_image(every_kind(16), (40, 50))
    rows = torch.arange(len(candidates))
    together = whole(resize(candidates, rows), (40, 50))
    monkeypatch.setattr(full_size, "MASKS_A_STEP", step)
    assert torch.equal(whole(resize(candidates, rows), (40, 50)), together)


def test_a_mask_that_vanishes_has_no_pixels() -> None:
    """No pixel lies in the middle of its cell."""
    logits = torch.full((2, 16, 16), -9.0)
    logits[0, 7, 7], logits[1, 3:9, 3:9] = 0.1, 9.0
    masks = resize(of_image(logits, (18, 18)), torch.arange(2))
    first, second = masks.masks()
    assert first is None
    assert second is not None
    assert masks.areas.tolist() == [0, int(second[0].sum())]
    assert masks.num_shared(0, 1) == masks.num_shared(1, 0) == 0


def test_half_way_between_equal_logits_is_outside() -> None:
    """Of three pixels to two cells the middle one is worth 0."""
    logits = torch.tensor([[1.0, -1.0], [1.0, -1.0]])[None]
    (cut,) = resize(of_image(logits, (3, 3)), torch.arange(1)).masks()
    assert cut is not None
    assert cut[1] == (0, 0, 1, 3)


@pytest.mark.parametrize(("image_hw", "expected"), [((16, 16), True), ((15, 90), False), ((90, 15), False), ((17, 16), True)])
def test_takes_images_no_smaller_than_the_grid(image_hw: tuple[int, int], expected: bool) -> None:
    assert fits(of_image(noise(1, 16), image_hw)) == expected
    assert not fits(of_image(torch.ones(1, 1, 1), image_hw))


def test_of_no_masks() -> None:
    masks = resize(candidates_of(noise(3, 16)), torch.zeros(0, dtype=torch.int64))
    assert (len(masks), list(masks.masks()), masks.areas.tolist()) == (0, [], [])
    assert masks.boxes.shape == (0, 4)
    assert np.asarray(masks.crops.words).size == 0
