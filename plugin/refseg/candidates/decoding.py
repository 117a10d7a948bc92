"""SAM 2's answers to clicks and boxes on an image it has encoded, as a preset wants them: which are kept, voted, clean."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import Models, Preset
from .cleaning import clean_for
from .clicks import click_decoder
from .embedding import ImageEmbeddings
from .prompts import JUDGED_IOU, prompt_grid, prompts_worth_asking
from .voting import KEPT_MARGIN, VOTER_MARGIN, vote_masks

MIN_PREDICTED_IOU = 0.4
"""Answers of a lower one are dropped; see `least_predicted_iou`."""


@torch.inference_mode()
def decode_points(points: Tensor, embeddings: ImageEmbeddings, row: int, models: Models) -> tuple[Tensor, Tensor]:
    """Masks at single positive clicks: of three answers the one with the highest predicted IoU, if that is enough.

    Args:
        points: (P, 2) xy pixels of the S by S input.
        embeddings: of the batch.
        row: of the image in the batch.
        models: a loaded preset.

    Returns:
        (N, M, M) logits and (N,) predicted IoU of the masks kept, in the order of the points.

    Raises:
        ModelMemoryError: one prompt alone does not fit into memory.
    """
    decoder = click_decoder(models)
    logits, predicted, kept = decoder.decode(points, decoder.terms_of(embeddings, row), least_predicted_iou(models.preset))
    return logits, predicted[kept]


@torch.inference_mode()
def decode_grid(embeddings: ImageEmbeddings, row: int, models: Models) -> tuple[Tensor, Tensor]:
    """Masks at the preset's grid of clicks, see decode_points, voted and clean where the preset wants them so.

    A preset of adaptive prompts judges them on an image embedding of half the side, and asks again at those that are worth it.
    """
    points = prompt_grid(models.preset.points_per_side, models.segmenter_side).to(models.device)
    if not models.preset.adaptive_prompts:
        return _finished(models.preset, *decode_points(points, embeddings, row, models))
    judge = click_decoder(models, halved=True)
    masks, judged, rows = judge.decode(points, judge.terms_of(embeddings.halved(), row), JUDGED_IOU)
    worth = rows[prompts_worth_asking(masks > 0, judged[rows])]
    return _finished(models.preset, *decode_points(points[worth], embeddings, row, models))


def _finished(preset: Preset, logits: Tensor, predicted_iou: Tensor) -> tuple[Tensor, Tensor]:
    if preset.vote_masks:
        logits, predicted_iou, _ = keep_voted(logits, predicted_iou)
    return clean_for(preset, logits), predicted_iou


def keep_voted(logits: Tensor, predicted_iou: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is kept of (N, M, M) logits and (N,) predicted IoU after the vote, see vote_masks, and which: (N,) bool."""
    logits, predicted_iou = vote_masks(logits, predicted_iou)
    kept = predicted_iou > MIN_PREDICTED_IOU - KEPT_MARGIN
    return logits[kept], predicted_iou[kept], kept


def least_predicted_iou(preset: Preset) -> float:
    """The predicted IoU that a mask must exceed: of masks that vote, somewhat worse ones have a voice too."""
    return MIN_PREDICTED_IOU - (VOTER_MARGIN if preset.vote_masks else 0)


@torch.inference_mode()
def decode_boxes(boxes: Tensor, embeddings: ImageEmbeddings, row: int, models: Models) -> Tensor:
    """The segmenter's single answer to each box, clean where the preset wants it so.

    Args:
        boxes: (B, 4) xyxy pixels of the S by S input.
        embeddings: of the batch.
        row: of the image in the batch.
        models: a loaded preset.

    Returns:
        (B, M, M) logits.
    """
    segmenter = models.segmenter
    labels = torch.tensor([[2, 3]], dtype=torch.int, device=boxes.device).expand(len(boxes), -1)
    sparse, dense = segmenter.prompt_encoder(points=(boxes.reshape(-1, 2, 2), labels), boxes=None, masks=None)
    logits, _, _, _ = segmenter.mask_decoder(
        image_embeddings=embeddings.coarse[row : row + 1],
        image_pe=segmenter.prompt_encoder.get_dense_pe().to(models.dtype),
        sparse_prompt_embeddings=sparse.to(models.dtype),
        dense_prompt_embeddings=dense.to(models.dtype),
        multimask_output=False,
        repeat_image=True,
        high_res_features=[level[row : row + 1] for level in embeddings.fine],
    )
    return clean_for(models.preset, logits[:, 0])
