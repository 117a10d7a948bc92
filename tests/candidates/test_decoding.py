"""The decoder against that of the sam2 package, run as it stands on every prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from refseg.candidates import decoding, upscaling
from refseg.candidates.decoding import (
    MIN_PREDICTED_IOU,
    ImageEmbeddings,
    click_decoder,
    decode_grid,
    decode_points,
    embed_images,
)
from refseg.candidates.prompts import coarse_prompts, open_prompts, prompt_grid
from refseg.candidates.proposing import propose_from_pixels
from refseg.errors import ModelMemoryError
from refseg.images.reading import segmenter_pixels
from refseg.models.loaded import Models, load_models
from tests.candidates.test_proposing import make_image
from tests.tolerance import assert_near

SIDE = 256
POINTS = prompt_grid(6, SIDE)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models("demo", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def adaptive(models: Models) -> Models:
    return replace(models, preset=replace(models.preset, adaptive_prompts=True))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return segmenter_pixels(make_image(5), SIDE)[None]


@pytest.fixture(scope="module")
def embeddings(models: Models, pixels: Tensor) -> ImageEmbeddings:
    return embed_images(pixels, models)


@torch.inference_mode()
def best_of_three(points: Tensor, embeddings: ImageEmbeddings, models: Models) -> tuple[Tensor, Tensor]:
    """(P, M, M) and (P,) of SAM 2's own mask decoder, all masks upscaled."""
    sam2: Any = models.sam2
    labels = torch.ones(len(points), 1, dtype=torch.int)
    sparse, dense = sam2.sam_prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
    logits, iou, _, _ = sam2.sam_mask_decoder(
        image_embeddings=embeddings.coarse,
        image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=True,
        high_res_features=list(embeddings.fine),
    )
    predicted, best = iou.max(1)
    return logits[torch.arange(len(points)), best], predicted


class TestDecodePoints:
    def test_agrees_with_the_packages_decoder(self, models: Models, embeddings: ImageEmbeddings) -> None:
        expected_logits, expected = best_of_three(POINTS, embeddings, models)
        kept = expected > MIN_PREDICTED_IOU
        assert 0 < int(kept.sum()) < len(POINTS)
        logits, predicted = decode_points(POINTS, embeddings, 0, models)
        assert len(logits) == int(kept.sum())
        assert_near(predicted, expected[kept], at_most=1e-5)
        assert_near(logits, expected_logits[kept], at_most=1e-3)

    @pytest.mark.parametrize("numbers", [1, 3000, 10**9])
    def test_what_is_upscaled_at_once_does_not_matter(
        self, models: Models, embeddings: ImageEmbeddings, monkeypatch: pytest.MonkeyPatch, numbers: int
    ) -> None:
        points = POINTS[14:18] if numbers == 1 else POINTS
        monkeypatch.setattr(decoding, "MIN_PREDICTED_IOU", -1.0)
        expected, _ = decode_points(points, embeddings, 0, models)
        monkeypatch.setitem(upscaling.UPSCALED_NUMBERS_A_BATCH, "cpu", numbers)
        found, _ = decode_points(points, embeddings, 0, models)
        assert_near(found, expected, at_most=1e-3)

    def test_no_prompts(self, models: Models, embeddings: ImageEmbeddings) -> None:
        logits, predicted = decode_points(torch.zeros(0, 2), embeddings, 0, models)
        assert (logits.shape, predicted.shape) == ((0, 64, 64), (0,))

    def test_each_row_of_a_batch_has_its_own_image(self, models: Models, pixels: Tensor) -> None:
        both = embed_images(torch.cat([pixels.flip(3), pixels]), models)
        _, predicted = decode_points(POINTS, both, 1, models)
        _, expected = decode_points(POINTS, embed_images(pixels, models), 0, models)
        assert_near(predicted, expected, at_most=1e-4)

    def test_a_batch_that_does_not_fit_is_halved(
        self, models: Models, embeddings: ImageEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, _ = decode_points(POINTS, embeddings, 0, models)
        real, sizes = decoding.ClickDecoder._transform, []

        def transform(self: Any, prompts: Tensor, terms: Any) -> tuple[Tensor, Tensor]:
            sizes.append(len(prompts))
            if len(prompts) > 9:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return real(self, prompts, terms)

        monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
        monkeypatch.setattr(decoding.ClickDecoder, "_transform", transform)
        monkeypatch.setitem(decoding.PROMPTS_A_BATCH, "cpu", 36)
        monkeypatch.setattr(decoding, "IMAGE_BYTES_A_BATCH", {})
        found, _ = decode_points(POINTS, embeddings, 0, models)
        assert sizes == [36, 18, 9, 9, 9, 9]
        assert_near(found, expected, at_most=1e-3)
        decode_points(POINTS, embeddings, 0, models)
        assert sizes[6:] == [9, 9, 9, 9]

    def test_no_memory_for_a_single_prompt(
        self, models: Models, embeddings: ImageEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def transform(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
        monkeypatch.setattr(decoding.ClickDecoder, "_transform", transform)
        with pytest.raises(ModelMemoryError, match="one at a time of its prompts"):
            decode_points(POINTS, embeddings, 0, models)


def test_the_decoder_is_made_once_for_models(models: Models) -> None:
    assert click_decoder(models) is click_decoder(models)
    assert click_decoder(replace(models)) is not click_decoder(models)


def test_bfloat16_masks_are_nearly_those_of_float32(models: Models, pixels: Tensor) -> None:
    (expected,) = propose_from_pixels(pixels, [(120, 160)], models)
    half = load_models("demo", device="cpu", dtype=torch.bfloat16)
    (found,) = propose_from_pixels(pixels, [(120, 160)], half)
    assert abs(len(found) - len(expected)) <= 0.1 * len(expected)
    best = ious(expected.masks, found.masks).max(1).values
    assert float((best >= 0.95).float().mean()) >= 0.9


def ious(masks: Tensor, others: Tensor) -> Tensor:
    flat, other = masks.flatten(1).float(), others.flatten(1).float()
    shared = flat @ other.T
    return shared / (flat.sum(1)[:, None] + other.sum(1)[None] - shared).clamp(min=1)


class TestAdaptivePrompts:
    def test_are_those_of_the_rule_in_the_order_of_the_grid(
        self, models: Models, adaptive: Models, embeddings: ImageEmbeddings
    ) -> None:
        per_side = models.preset.points_per_side
        points, coarse = prompt_grid(per_side, SIDE), coarse_prompts(per_side)
        logits, predicted, kept = click_decoder(models).decode(points, click_decoder(models).terms_of(embeddings, 0))
        is_coarse = torch.isin(kept, coarse)
        fine = open_prompts(per_side, predicted[coarse], torch.isin(coarse, kept).nonzero()[:, 0], logits[is_coarse] > 0)
        assert 0 < len(fine) < len(points) - len(coarse)
        asked = is_coarse | torch.isin(kept, fine)
        found_logits, found = decode_grid(embeddings, 0, adaptive)
        assert_near(found, predicted[kept][asked], at_most=1e-5)
        assert_near(found_logits, logits[asked], at_most=1e-3)

    def test_find_nearly_all_that_is_good(self, models: Models, adaptive: Models, embeddings: ImageEmbeddings) -> None:
        logits, predicted = decode_grid(embeddings, 0, models)
        found, _ = decode_grid(embeddings, 0, adaptive)
        good = logits[predicted > 0.7] > 0
        assert len(good) > 5
        assert float((ious(good, found > 0).max(1).values >= 0.9).float().mean()) >= 0.95

    def test_an_image_without_any_mask(
        self, adaptive: Models, embeddings: ImageEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "MIN_PREDICTED_IOU", 2.0)
        logits, predicted = decode_grid(embeddings, 0, adaptive)
        assert (logits.shape, predicted.shape) == ((0, 64, 64), (0,))
