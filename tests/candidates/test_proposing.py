from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refseg.candidates.embedding import ImageEmbeddings, embed_images
from refseg.candidates.grids import drop_near_duplicates, interpolation_matrix, pool_features, share_in_groups, shares_of
from refseg.candidates.prompts import prompt_grid
from refseg.candidates.proposing import Candidates, encode_patches, propose, propose_from_pixels
from refseg.demo.world import draw_family, render_scene
from refseg.errors import ShapeError
from refseg.images.reading import MEAN, STD, encoder_pixels, segmenter_pixels
from refseg.models.loaded import Models, load_models
from refseg.models.threads import in_threads
from tests.tolerance import assert_near

SIDE = 320


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models("demo", device="cpu", dtype=torch.float32)


def make_image(seed: int, image_hw: tuple[int, int] = (120, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(render_scene(rng, [draw_family(rng) for _ in range(4)], image_hw).image)


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask at 5 × 5 points: what is tested does not depend on their number, the time it takes does."""
    monkeypatch.setattr("refseg.candidates.decoding.prompt_grid", lambda per_side, side: prompt_grid(5, side))


def random_candidates(count: int, seed: int = 0) -> Candidates:
    """Noise on a grid of 12 × 12 cells."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 12, 12, generator=generator) + torch.linspace(-1, 1, count)[:, None, None]
    return Candidates(logits, torch.rand(count, generator=generator), torch.ones(count, 3), (5, 7))


class TestCandidates:
    def test_masks_are_where_logits_are_positive(self) -> None:
        logits = torch.tensor([[[1.0, 0.0], [-1.0, 2.0]]])
        found = Candidates(logits, torch.ones(1), torch.ones(1, 3), (5, 7))
        assert found.masks.tolist() == [[[True, False], [False, True]]]
        assert len(found) == 1

    @pytest.mark.parametrize("counts", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
    def test_disagreeing_parts_are_refused(self, counts: tuple[int, int, int]) -> None:
        with pytest.raises(ShapeError, match="there are {}, {} and {}".format(*counts)):
            Candidates(torch.zeros(counts[0], 4, 4), torch.zeros(counts[1]), torch.zeros(counts[2], 3), (5, 7))

    def test_filled_are_those_with_a_cell(self) -> None:
        logits = torch.full((3, 4, 4), -1.0)
        logits[1, 2, 3], logits[2] = 1.0, 0.0
        assert Candidates(logits, torch.ones(3), torch.ones(3, 3), (5, 7)).filled.tolist() == [False, True, False]

    def test_parts_of_some_masks(self) -> None:
        candidates = random_candidates(6)
        rows = torch.tensor([4, 1, 1])
        assert candidates.grid_side == 12
        assert torch.equal(candidates.logits_of(rows), candidates.logits[rows])
        for box, row in zip(candidates.boxes_of(rows).tolist(), rows, strict=True):
            ys, xs = candidates.masks[row].nonzero().T
            assert box == [xs.min(), ys.min(), xs.max(), ys.max()]

    def test_crops_are_slices(self) -> None:
        candidates = random_candidates(6)
        crops = candidates.crops(torch.tensor([4, 1]), [(2, 3, 7, 12), (0, 0, 1, 1)])
        assert torch.equal(crops[0], candidates.logits[4, 3:12, 2:7])
        assert torch.equal(crops[1], candidates.logits[1, :1, :1])

    def test_shares_are_those_of_its_masks(self) -> None:
        candidates = random_candidates(9)
        rows, groups = torch.tensor([8, 2, 5, 0]), torch.tensor([1, 0, 1, 1])
        wanted = torch.tensor([True, True, False, True])
        masks = candidates.masks[rows]
        expected = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), groups, wanted)
        np.testing.assert_array_equal(candidates.shares(rows, groups, wanted), expected)

    def test_of_nothing(self) -> None:
        nothing = random_candidates(0)
        rows = torch.zeros(0, dtype=torch.int64)
        assert nothing.boxes_of(rows).shape == (0, 4)
        assert nothing.crops(rows, []) == []
        assert nothing.shares(rows, rows, rows.bool()).shape == (0, 0)


class TestEncodePatches:
    def test_are_the_encoders_patch_tokens(self, models: Models) -> None:
        pixels = encoder_pixels(segmenter_pixels(make_image(0), SIDE)[None], models.preset.encoder_side)
        found = encode_patches(pixels, models)
        assert found.shape == (1, models.patches_side**2, models.feature_width)
        normalized = torch.stack([(pixels[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
        with torch.no_grad():
            tokens = models.dinov2(normalized).last_hidden_state
        assert tokens.shape[1] == models.patches_side**2 + 1  # the class token comes first
        assert_near(found, tokens[:, 1:])

    def test_are_row_major(self, models: Models) -> None:
        # A change in the lower left corner moves the token of that corner most.
        side = models.preset.encoder_side
        plain = torch.full((1, 3, side, side), 0.5)
        marked = plain.clone()
        marked[:, :, -14:, :14] = torch.rand(3, 14, 14, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            patch_embeddings = models.dinov2.embeddings.patch_embeddings
            moved = (patch_embeddings(marked) - patch_embeddings(plain)).norm(dim=-1)[0]
        assert int(moved.argmax()) == models.patches_side * (models.patches_side - 1)


class TestPropose:
    @pytest.mark.usefixtures("keep_every_mask")
    def test_shapes_and_sizes(self, models: Models) -> None:
        (found,) = propose([make_image(0, (50, 90))], models)
        count = models.preset.points_per_side**2
        assert len(found) == count
        assert found.logits.shape == (count, 80, 80)
        assert found.predicted_iou.shape == (count,)
        assert found.features.shape == (count, models.feature_width)
        assert found.image_hw == (50, 90)
        for tensor in (found.logits, found.predicted_iou, found.features):
            assert tensor.dtype == torch.float32
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad
        lengths = found.features.norm(dim=1)[found.masks.flatten(1).any(1)]
        assert_near(lengths, torch.ones_like(lengths), at_most=5e-4)  # half precision
        assert_near(found.features, found.features.half().float(), at_most=0)

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_two_images_at_once_are_each_alone(self, models: Models) -> None:
        images = [make_image(1), make_image(2, (200, 90))]
        together = propose(images, models)
        for image, found in zip(images, together, strict=True):
            (alone,) = propose([image], models)
            assert found.image_hw == alone.image_hw == (image.height, image.width)
            assert_near(found.predicted_iou, alone.predicted_iou, at_most=1e-4)
            assert_near(found.features, alone.features, at_most=1e-4)
            assert_near(found.logits, alone.logits, at_most=1e-2)

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_features_are_pooled_over_the_masks(self, models: Models) -> None:
        image = make_image(3)
        (found,) = propose([image], models)
        pixels = segmenter_pixels(image, SIDE)[None]
        patches = encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models)[0]
        assert_near(found.features, pool_features(found.masks, patches), at_most=1e-4)

    @pytest.mark.usefixtures("few_prompts")
    def test_no_surviving_mask_is_an_answer(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 1.1)
        for found in propose([make_image(1), make_image(2)], models):
            assert len(found) == 0
            assert found.logits.shape == (0, 80, 80)
            assert found.predicted_iou.shape == (0,)
            assert found.features.shape == (0, models.feature_width)

    @pytest.mark.usefixtures("few_prompts")
    def test_gradients_stay_as_they_were(self, models: Models) -> None:
        propose([make_image(1)], models)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        parameters = [*models.segmenter.parameters(), *models.dinov2.parameters()]
        assert all(parameter.grad is None for parameter in parameters)
        # The cached interpolation must not be an inference tensor: training pools with it too.
        assert not interpolation_matrix(models.patches_side, models.grid_side).is_inference()

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_from_pixels_is_from_images(self, models: Models) -> None:
        image = make_image(5)
        (found,) = propose([image], models)
        pixels: Tensor = segmenter_pixels(image, SIDE)[None]
        (same,) = propose_from_pixels(pixels, [(120, 160)], models)
        assert torch.equal(found.logits, same.logits)
        assert torch.equal(found.features, same.features)
        assert same.image_hw == (120, 160)

    @pytest.mark.usefixtures("keep_every_mask")
    def test_near_duplicates_are_those_dropped_from_all(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.prompt_grid", lambda per_side, side: prompt_grid(8, side))
        image = make_image(6)
        (every,) = propose([image], models)
        (found,) = propose([image], models, max_iou=0.95)
        kept = drop_near_duplicates(every.masks, every.predicted_iou, 0.95)
        assert 1 < len(found) == len(kept) < len(every)
        assert torch.equal(found.logits, every.logits[kept])
        assert torch.equal(found.predicted_iou, every.predicted_iou[kept])
        assert_near(found.features, every.features[kept], at_most=1e-3)  # half precision


@pytest.mark.thorough
def test_images_that_do_not_fit_together_are_looked_at_one_by_one(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator, which encodes them together."""
    monkeypatch.setattr("refseg.candidates.proposing.looks_side_by_side", lambda models: False)
    pixels = torch.stack([segmenter_pixels(make_image(seed), SIDE) for seed in (3, 4, 5)])
    sizes = [(120, 160), (60, 80), (30, 40)]
    expected = propose_from_pixels(pixels, sizes, models)
    seen: list[int] = []

    def embed_few(some: Tensor, models: Models) -> ImageEmbeddings:
        seen.append(len(some))
        if len(some) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return embed_images(some, models)

    monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
    monkeypatch.setattr("refseg.candidates.proposing.embed_images", embed_few)
    found = propose_from_pixels(pixels, sizes, models)
    assert seen == [3, 1, 1, 1]
    assert [one.image_hw for one in found] == sizes
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        assert_near(one.predicted_iou, other.predicted_iou, at_most=1e-4)


def test_images_that_do_not_fit_side_by_side_are_looked_at_one_by_one(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor."""
    pixels = torch.stack([segmenter_pixels(make_image(seed), SIDE) for seed in (3, 4)])
    sizes = [(120, 160), (60, 80)]
    expected = propose_from_pixels(pixels, sizes, models)
    seen: list[int] = []

    def few_in_threads(items: Sequence[int], device: torch.device, run: Callable[[int], Any]) -> list[Any]:
        seen.append(len(items))
        if len(items) > 1:
            raise MemoryError
        return in_threads(items, device, run)

    monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
    monkeypatch.setattr("refseg.candidates.proposing.in_threads", few_in_threads)
    found = propose_from_pixels(pixels, sizes, models)
    assert seen == [2, 1, 1]
    assert [one.image_hw for one in found] == sizes
    for one, other in zip(found, expected, strict=True):
        assert_near(one.predicted_iou, other.predicted_iou, at_most=1e-4)


def test_side_by_side_as_together(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.stack([segmenter_pixels(make_image(seed), SIDE) for seed in (3, 4, 5)])
    sizes = [(120, 160)] * 3
    apart = propose_from_pixels(pixels, sizes, models)
    monkeypatch.setattr("refseg.candidates.proposing.looks_side_by_side", lambda models: False)
    for one, other in zip(apart, propose_from_pixels(pixels, sizes, models), strict=True):
        assert len(one) == len(other) > 0
        assert_near(one.predicted_iou, other.predicted_iou, at_most=1e-4)
        assert_near(one.features, other.features, at_most=1e-3)
