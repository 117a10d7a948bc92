"""The decoder against that of the sam2 package, run as it stands on every prompt."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refseg.candidates import clicks, decoding, upscaling
from refseg.candidates.cleaning import clean_masks
from refseg.candidates.clicks import click_decoder
from refseg.candidates.decoding import (
    MIN_PREDICTED_IOU,
    decode_boxes,
    decode_grid,
    decode_points,
)
from refseg.candidates.embedding import ImageEmbeddings, embed_images
from refseg.candidates.prompts import JUDGED_IOU, prompt_grid, prompts_worth_asking
from refseg.candidates.proposing import propose_from_pixels
from refseg.errors import ModelMemoryError
from refseg.images.reading import segmenter_pixels
from refseg.models.loaded import Models, load_models
from tests.candidates.test_proposing import make_image
from tests.tolerance import assert_near

SIDE = 320
POINTS = prompt_grid(6, SIDE)


@pytest.fixture(scope="module")
def models() -> Models:
    """The preset `demo`, which leaves masks as the package's decoder gives them."""
    return raw(load_models("demo", device="cpu", dtype=torch.float32))


def raw(models: Models) -> Models:
    return replace(models, preset=replace(models.preset, clean_masks=False, vote_masks=False))


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
    sam2: Any = models.segmenter.sam2
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
        assert (logits.shape, predicted.shape) == ((0, 80, 80), (0,))

    def test_each_row_of_a_batch_has_its_own_image(self, models: Models, pixels: Tensor) -> None:
        both = embed_images(torch.cat([pixels.flip(3), pixels]), models)
        _, predicted = decode_points(POINTS, both, 1, models)
        _, expected = decode_points(POINTS, embed_images(pixels, models), 0, models)
        assert_near(predicted, expected, at_most=1e-4)

    def test_a_batch_that_does_not_fit_is_halved(
        self, models: Models, embeddings: ImageEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, _ = decode_points(POINTS, embeddings, 0, models)
        real, sizes = clicks.ClickDecoder._transform, []

        def transform(self: Any, prompts: Tensor, terms: Any) -> tuple[Tensor, Tensor]:
            sizes.append(len(prompts))
            if len(prompts) > 9:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return real(self, prompts, terms)

        monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
        monkeypatch.setattr(clicks.ClickDecoder, "_transform", transform)
        monkeypatch.setitem(clicks.PROMPTS_A_BATCH, "cpu", 36)
        monkeypatch.setattr(clicks, "SHARES_BYTES_A_BATCH", {})
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # else each thread has a share of its own
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
        monkeypatch.setattr(clicks.ClickDecoder, "_transform", transform)
        with pytest.raises(ModelMemoryError, match="one at a time of its prompts"):
            decode_points(POINTS, embeddings, 0, models)


def test_the_decoder_is_made_once_for_models(models: Models) -> None:
    assert click_decoder(models) is click_decoder(models)
    assert click_decoder(replace(models)) is not click_decoder(models)


def test_bfloat16_masks_are_nearly_those_of_float32(models: Models, pixels: Tensor) -> None:
    (expected,) = propose_from_pixels(pixels, [(120, 160)], models)
    half = raw(load_models("demo", device="cpu", dtype=torch.bfloat16))
    (found,) = propose_from_pixels(pixels, [(120, 160)], half)
    assert abs(len(found) - len(expected)) <= 0.1 * len(expected)
    best = ious(expected.masks, found.masks).max(1).values
    assert float((best >= 0.95).float().mean()) >= 0.9


def ious(masks: Tensor, others: Tensor) -> Tensor:
    flat, other = masks.flatten(1).float(), others.flatten(1).float()
    shared = flat @ other.T
    return shared / (flat.sum(1)[:, None] + other.sum(1)[None] - shared).clamp(min=1)


class TestAdaptivePrompts:
    @torch.inference_mode()
    def test_are_judged_by_the_package_decoder_at_half_the_side(self, models: Models, embeddings: ImageEmbeddings) -> None:
        sam2, halved = models.segmenter.sam2, embeddings.halved()
        assert [tuple(level.shape[-2:]) for level in (halved.coarse, *halved.fine)] == [(10, 10), (40, 40), (20, 20)]
        labels = torch.ones(len(POINTS), 1, dtype=torch.int)
        sparse, _ = sam2.sam_prompt_encoder(points=(POINTS[:, None], labels), boxes=None, masks=None)
        logits, iou, _, _ = sam2.sam_mask_decoder(
            image_embeddings=halved.coarse,
            image_pe=sam2.sam_prompt_encoder.pe_layer((10, 10))[None],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=sam2.sam_prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
                len(POINTS), -1, 10, 10
            ),
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(halved.fine),
        )
        expected, best = iou.max(1)
        judge = click_decoder(models, halved=True)
        found, predicted, rows = judge.decode(POINTS, judge.terms_of(halved, 0), -1.0)
        assert rows.tolist() == list(range(len(POINTS)))
        assert_near(predicted, expected, at_most=1e-5)
        assert_near(found, logits[torch.arange(len(POINTS)), best], at_most=1e-3)

    def test_are_those_worth_asking_in_the_order_of_the_grid(
        self, models: Models, adaptive: Models, embeddings: ImageEmbeddings
    ) -> None:
        points = prompt_grid(models.preset.points_per_side, SIDE)
        decoder, judge = click_decoder(models), click_decoder(models, halved=True)
        masks, judged, rows = judge.decode(points, judge.terms_of(embeddings.halved(), 0), JUDGED_IOU)
        worth = rows[prompts_worth_asking(masks > 0, judged[rows])]
        assert 0 < len(worth) < 0.5 * len(points)
        logits, predicted, kept = decoder.decode(points, decoder.terms_of(embeddings, 0), MIN_PREDICTED_IOU)
        asked = torch.isin(kept, worth)
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
        assert (logits.shape, predicted.shape) == ((0, 80, 80), (0,))


class TestCleanMasks:
    @pytest.mark.parametrize("adaptive_prompts", [False, True])
    def test_of_the_grid(self, models: Models, embeddings: ImageEmbeddings, adaptive_prompts: bool) -> None:
        """The same prompts are asked, and the same masks kept, in the same order."""
        asked, cleaning = (
            replace(models, preset=replace(models.preset, adaptive_prompts=adaptive_prompts, clean_masks=clean))
            for clean in (False, True)
        )
        logits, predicted = decode_grid(embeddings, 0, asked)
        cleaned, same = decode_grid(embeddings, 0, cleaning)
        assert torch.equal(same, predicted)
        assert torch.equal(cleaned, clean_masks(logits))
        assert not torch.equal(cleaned > 0, logits > 0)

    def test_of_boxes(self, models: Models, embeddings: ImageEmbeddings) -> None:
        cleaning = replace(models, preset=replace(models.preset, clean_masks=True))
        boxes = torch.tensor([[10.0, 20.0, 90.0, 70.0], [100.0, 120.0, 250.0, 255.0], [0.0, 0.0, 320.0, 320.0]])
        logits = decode_boxes(boxes, embeddings, 0, models)
        cleaned = decode_boxes(boxes, embeddings, 0, cleaning)
        assert torch.equal(cleaned, clean_masks(logits))
        assert not torch.equal(cleaned > 0, logits > 0)


def embed(image: Image.Image, models: Models) -> ImageEmbeddings:
    return embed_images(segmenter_pixels(image, SIDE)[None], models)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Of the segmenter's side, so that no resize comes between two ways of running it."""
    return make_image(4, (SIDE, SIDE))


@pytest.fixture(scope="module")
def predictor(models: Models, image: Image.Image) -> Any:
    return predictor_for(models, image)


def predictor_for(models: Models, image: Image.Image) -> Any:
    """The sam2 package's own predictor, with a square image set."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it scripts its resize, which torch discourages by now
        predictor = SAM2ImagePredictor(models.segmenter.sam2)
    # The package writes the sizes for an input of 1024 pixels into the class.
    predictor._bb_feat_sizes = [(image.width // scale, image.width // scale) for scale in (4, 8, 16)]
    predictor.set_image(np.array(image))
    return predictor


class TestDecode:
    """Against `SAM2ImagePredictor` of the sam2 package, which the default presets must agree with."""

    @pytest.mark.usefixtures("keep_every_mask")
    def test_points_are_the_predictors_best_of_three(self, models: Models, image: Image.Image, predictor: Any) -> None:
        points = torch.tensor([[10.0, 20.0], [128.0, 99.0], [200.0, 240.0], [255.0, 0.0]])
        logits, predicted = decode_points(points, embed(image, models), 0, models)
        assert logits.shape == (4, 80, 80)
        for point, found, iou in zip(points.numpy(), logits, predicted, strict=True):
            _, scores, low_res = predictor.predict(point[None], np.ones(1), multimask_output=True)
            best = scores.argmax()
            assert float(iou) == pytest.approx(float(scores[best]), abs=1e-4)
            # The predictor cuts its logits at ±32.
            assert_near(found.clamp(-32, 32), torch.from_numpy(low_res[best]), at_most=1e-3)

    def test_boxes_are_the_predictors_single_answer(self, models: Models, image: Image.Image, predictor: Any) -> None:
        boxes = torch.tensor([[10.0, 20.0, 90.0, 70.0], [100.0, 120.0, 250.0, 255.0]])
        logits = decode_boxes(boxes, embed(image, models), 0, models)
        assert logits.shape == (2, 80, 80)
        for box, found in zip(boxes.numpy(), logits, strict=True):
            _, _, low_res = predictor.predict(box=box, multimask_output=False)
            assert_near(found.clamp(-32, 32), torch.from_numpy(low_res[0]), at_most=1e-3)

    @pytest.mark.usefixtures("keep_every_mask")
    def test_prompts_a_batch_do_not_matter(self, models: Models, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
        points, embeddings = prompt_grid(3, SIDE), embed(image, models)
        at_once = decode_points(points, embeddings, 0, models)
        monkeypatch.setattr("refseg.candidates.clicks.PROMPTS_A_BATCH", {"cpu": 4})  # 4, 4 and a last batch of 1
        in_parts = decode_points(points, embeddings, 0, models)
        assert_near(in_parts[0], at_once[0], at_most=1e-3)
        assert_near(in_parts[1], at_once[1], at_most=1e-4)

    def test_masks_above_the_limit_are_kept_in_order(
        self, models: Models, image: Image.Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        points, embeddings = prompt_grid(4, SIDE), embed(image, models)
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
        every_logits, every_iou = decode_points(points, embeddings, 0, models)
        limit = float(every_iou.sort().values[8])
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", limit)
        logits, predicted = decode_points(points, embeddings, 0, models)
        keep = every_iou > limit
        assert 0 < int(keep.sum()) < len(points)
        assert torch.equal(predicted, every_iou[keep])
        assert_near(logits, every_logits[keep], at_most=1e-3)  # the last digits follow what is computed at once

    def test_profile_paper_leaves_out_the_no_memory_embedding(self, models: Models, image: Image.Image) -> None:
        from dataclasses import replace

        paper = replace(models, preset=replace(models.preset, add_no_memory=False))
        difference = embed(image, models).coarse - embed(image, paper).coarse
        assert_near(difference, models.segmenter.no_memory.detach().reshape(1, -1, 1, 1).expand_as(difference), at_most=1e-5)
