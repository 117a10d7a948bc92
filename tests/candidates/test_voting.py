"""Masks that neighbouring clicks agree on: averages and agreement by hand, and what a preset of voting masks gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from refseg.candidates import decoding
from refseg.candidates.cleaning import clean_masks
from refseg.candidates.decoding import decode_grid, least_predicted_iou
from refseg.candidates.embedding import embed_images
from refseg.candidates.voting import KEPT_MARGIN, VOTE_IOU, VOTER_MARGIN, vote_masks
from refseg.images.reading import segmenter_pixels
from refseg.models.loaded import Models, load_models
from refseg.models.presets import PRESETS
from tests.candidates.test_proposing import make_image

SIDE = 320


def disc(radius: float, x: float = 20, y: float = 20, height: float = 1.0) -> torch.Tensor:
    """(40, 40) logits above 0 within a circle."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    return height * (radius - ((columns - x) ** 2 + (rows - y) ** 2).sqrt())


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(((first > 0) & (second > 0)).sum() / ((first > 0) | (second > 0)).sum())


class TestVoteMasks:
    def test_what_nearly_coincides_is_averaged_and_the_rest_is_left(self) -> None:
        logits = torch.stack([disc(10), disc(10.4), disc(5, 33, 33)])
        assert overlap(logits[0], logits[1]) >= VOTE_IOU
        voted, _ = vote_masks(logits, torch.tensor([0.8, 0.7, 0.6]))
        torch.testing.assert_close(voted[0], (logits[0] + logits[1]) / 2)
        torch.testing.assert_close(voted[1], (logits[0] + logits[1]) / 2)
        torch.testing.assert_close(voted[2], logits[2])

    def test_predicted_iou_tells_how_many_agree_and_how_far(self) -> None:
        logits, quality = torch.stack([disc(10), disc(10.4), disc(8), disc(5, 33, 33)]), torch.tensor([0.8, 0.6, 0.9, 0.6])
        alike, other, third = (overlap(logits[i], logits[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
        assert alike >= VOTE_IOU > other > third >= 0.5
        _, predicted = vote_masks(logits, quality)
        agreed = (0.8 + 0.6 * alike + 0.9 * other) / 2.3
        assert predicted[0] == pytest.approx((0.8 * agreed * (1 + alike) / (2 + alike)) ** 0.5, abs=1e-6)
        agreed = (0.8 * other + 0.6 * third + 0.9) / 2.3
        assert predicted[2] == pytest.approx((0.9 * agreed / 2) ** 0.5, abs=1e-6)
        assert predicted[3] == pytest.approx(0.3**0.5, abs=1e-6)

    def test_the_better_mask_of_a_place_comes_first_where_the_segmenter_is_too_sure(self) -> None:
        """Five clicks agree, one that is surer has cut the object in half."""
        half = disc(10).where(torch.arange(40)[None] < 23, torch.tensor(-1.0))
        logits = torch.stack([half, *(disc(10 + 0.1 * number) for number in range(5))])
        quality = torch.tensor([0.95, 0.8, 0.8, 0.8, 0.8, 0.8])
        assert vote_masks(logits, quality)[1].argmax() > 0

    @pytest.mark.parametrize("number", [0, 1])
    def test_few(self, number: int) -> None:
        logits, quality = disc(10)[None][:number], torch.full((number,), 0.8)
        voted, predicted = vote_masks(logits, quality)
        assert torch.equal(voted, logits)
        assert predicted.tolist() == pytest.approx([0.4**0.5] * number)

    def test_empty_masks_and_a_predicted_iou_of_zero_or_less(self) -> None:
        logits = torch.stack([torch.full((40, 40), -1.0), torch.full((40, 40), -3.0), disc(10)])
        voted, predicted = vote_masks(logits, torch.tensor([0.0, 0.5, -0.1]))
        assert torch.equal(voted, logits)
        assert predicted.tolist() == [0.0, 0.5, 0.0]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_stays(self, dtype: torch.dtype) -> None:
        logits = torch.stack([disc(10), disc(10.4)])
        voted, predicted = vote_masks(logits.to(dtype), torch.tensor([0.8, 0.7], dtype=dtype))
        exact, expected = vote_masks(logits, torch.tensor([0.8, 0.7]))
        assert voted.dtype == predicted.dtype == dtype
        torch.testing.assert_close(voted.float(), exact, atol=0.1, rtol=0.01)
        torch.testing.assert_close(predicted.float(), expected, atol=0.01, rtol=0.01)


class TestPresets:
    def test_those_of_small_models_vote(self) -> None:
        assert {name for name, preset in PRESETS.items() if preset.vote_masks} == {"demo", "demo-fast"}

    @pytest.mark.parametrize("adaptive_prompts", [False, True])
    def test_the_grid_votes_and_is_cleaned_afterwards(self, adaptive_prompts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        models = load_models("demo", device="cpu", dtype=torch.float32)
        asked = asked_as(models, adaptive_prompts=adaptive_prompts)
        silent = asked_as(models, adaptive_prompts=adaptive_prompts, vote_masks=False, clean_masks=False)
        embeddings = embed_images(segmenter_pixels(make_image(5), SIDE)[None], models)
        found, predicted = decode_grid(embeddings, 0, asked)
        monkeypatch.setattr(decoding, "MIN_PREDICTED_IOU", least_predicted_iou(asked.preset))
        voted, expected = vote_masks(*decode_grid(embeddings, 0, silent))
        monkeypatch.undo()
        kept = expected > decoding.MIN_PREDICTED_IOU - KEPT_MARGIN
        assert 0 < kept.sum() <= len(kept)
        assert torch.equal(predicted, expected[kept])
        assert torch.equal(found, clean_masks(voted[kept]))

    def test_what_must_be_exceeded(self) -> None:
        assert least_predicted_iou(PRESETS["demo"]) == pytest.approx(decoding.MIN_PREDICTED_IOU - VOTER_MARGIN)
        assert least_predicted_iou(PRESETS["paper"]) == decoding.MIN_PREDICTED_IOU


def asked_as(models: Models, **settings: bool) -> Models:
    return replace(models, preset=replace(models.preset, **settings))
