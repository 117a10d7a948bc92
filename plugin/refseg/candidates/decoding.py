"""SAM 2's answers to clicks and boxes on an image it has encoded.

A click is decoded with the weights and to the numbers of SAM 2's own mask decoder, in a third to a half of its arithmetic:
what does not depend on the prompt is computed once an image; projections are applied to eight tokens and not to every position
of the image (cross_attention.py); of four masks only the best is upscaled, and none where its predicted IoU, which is known
before, is too low. Memory grows with the batch of prompts and with the masks kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import normalize
from ..models import BatchKey, Models, Preset, in_batches
from ..printing import one_line
from .cleaning import clean_for
from .cross_attention import (
    add_attention_to_tokens,
    add_same_attention_to_tokens,
    attend_to_image,
    attend_to_same_image,
    split_heads,
)
from .prompts import coarse_prompts, open_prompts, prompt_grid
from .upscaling import Upscaling
from .voting import KEPT_MARGIN, VOTER_MARGIN, vote_masks

MIN_PREDICTED_IOU = 0.4
"""Answers of a lower one are dropped; see `least_predicted_iou`."""
PROMPTS_A_BATCH = {"cpu": 64, "mps": 64, "cuda": 128}
"""Prompts decoded at once, at most."""
IMAGE_BYTES_A_BATCH = {"cpu": 2**22}
"""Where it matters, of the prompts' images at once, two at least: a processor is faster while they lie in its cache."""


@dataclass(frozen=True)
class ImageEmbeddings:
    """What the segmenter's decoder needs of a batch of images.

    Attributes:
        coarse: (B, D, S/16, S/16).
        fine: the projected features at S/4 and S/8.
    """

    coarse: Tensor
    fine: tuple[Tensor, Tensor]

    __repr__ = one_line


@torch.inference_mode()
def embed_images(pixels: Tensor, models: Models) -> ImageEmbeddings:
    """Run the segmenter's image encoder on (B, 3, S, S) pixels in [0, 1] on the models' device."""
    sam2 = models.sam2
    # SAM 2's neck answers in float32 whatever the weights are.
    levels = [level.to(models.dtype) for level in sam2.image_encoder(normalize(pixels).to(models.dtype))["backbone_fpn"]]
    coarse = levels[2]
    if models.preset.add_no_memory:
        coarse = coarse + sam2.no_mem_embed.reshape(1, -1, 1, 1)
    return ImageEmbeddings(coarse, (sam2.sam_mask_decoder.conv_s0(levels[0]), sam2.sam_mask_decoder.conv_s1(levels[1])))


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
    logits, predicted, kept = decoder.decode(points, decoder.terms_of(embeddings, row))
    return logits, predicted[kept]


@torch.inference_mode()
def decode_grid(embeddings: ImageEmbeddings, row: int, models: Models) -> tuple[Tensor, Tensor]:
    """Masks at the preset's grid of clicks, see decode_points, voted and clean where the preset wants them so.

    A preset of adaptive prompts asks at a quarter of them, and then at those that their neighbours have not answered for.
    """
    per_side = models.preset.points_per_side
    points = prompt_grid(per_side, models.segmenter_side).to(models.device)
    if not models.preset.adaptive_prompts:
        return _finished(models.preset, *decode_points(points, embeddings, row, models))
    decoder = click_decoder(models)
    terms = decoder.terms_of(embeddings, row)
    coarse = coarse_prompts(per_side).to(models.device)
    logits, predicted, kept = decoder.decode(points[coarse], terms)
    fine = open_prompts(per_side, predicted, kept, logits > 0)
    more_logits, more_predicted, more_kept = decoder.decode(points[fine], terms)
    order = torch.cat([coarse[kept], fine[more_kept]]).argsort()
    every = torch.cat([logits, more_logits])[order]
    return _finished(models.preset, every, torch.cat([predicted[kept], more_predicted[more_kept]])[order])


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
    sam2 = models.sam2
    labels = torch.tensor([[2, 3]], dtype=torch.int, device=boxes.device).expand(len(boxes), -1)
    sparse, dense = sam2.sam_prompt_encoder(points=(boxes.reshape(-1, 2, 2), labels), boxes=None, masks=None)
    logits, _, _, _ = sam2.sam_mask_decoder(
        image_embeddings=embeddings.coarse[row : row + 1],
        image_pe=sam2.sam_prompt_encoder.get_dense_pe().to(models.dtype),
        sparse_prompt_embeddings=sparse.to(models.dtype),
        dense_prompt_embeddings=dense.to(models.dtype),
        multimask_output=False,
        repeat_image=True,
        high_res_features=[level[row : row + 1] for level in embeddings.fine],
    )
    return clean_for(models.preset, logits[:, 0])


@dataclass(frozen=True)
class ImageTerms:
    """All that the decoder needs of one image and that no prompt changes.

    Attributes:
        image: (L, C) the embedding, with the bias of the first attention to tokens.
        keys: (H, L, c) for the first attention of tokens.
        values: (H, L, c), likewise.
        queries: (H, L, c) for the first attention to tokens.
        fine: (L, 4, c₁) and (L, 16, c₂): what is added to the upscaled features, with the biases of the upscaling. The second
            axis runs over the cells of a position: (y, x), and (y, x) of each of those four.
    """

    image: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor
    fine: tuple[Tensor, Tensor]

    __repr__ = one_line


class ClickDecoder:
    """SAM 2's mask decoder for single positive clicks, with what depends on the weights alone computed once.

    Args:
        models: a loaded preset; its weights must not change afterwards.
    """

    def __init__(self, models: Models) -> None:
        sam2 = models.sam2
        self._key, self._device, self._dtype = BatchKey.of("prompts", models), models.device, models.dtype
        self._preset = models.preset
        self._prompts, self._decoder = sam2.sam_prompt_encoder, sam2.sam_mask_decoder
        self._transformer = self._decoder.transformer
        self._first, self._second = self._transformer.layers
        self._num_heads = self._first.self_attn.num_heads
        self._iou_token = 1 if self._decoder.pred_obj_scores else 0
        self._upscaling = Upscaling(self._decoder.output_upscaling)
        self._position = self._prompts.get_dense_pe().to(self._dtype).flatten(2)[0].T  # (L, C)
        self._second_keys = self._positional_keys(self._second.cross_attn_token_to_image)
        self._second_queries = self._split(self._second.cross_attn_image_to_token.q_proj(self._position))
        self._last_keys = self._positional_keys(self._transformer.final_attn_token_to_image)

    @torch.inference_mode()
    def terms_of(self, embeddings: ImageEmbeddings, row: int) -> ImageTerms:
        """What no prompt changes, of an image of a batch."""
        coarse = embeddings.coarse[row] + self._prompts.no_mask_embed.weight.to(self._dtype)[0, :, None, None]
        image = coarse.flatten(1).T.contiguous()
        to_image, to_tokens = self._first.cross_attn_token_to_image, self._first.cross_attn_image_to_token
        positioned = image + self._position
        return ImageTerms(
            image + to_tokens.out_proj.bias,
            self._split(to_image.k_proj(positioned)).contiguous(),
            self._split(to_image.v_proj(image)).contiguous(),
            self._split(to_tokens.q_proj(positioned)).contiguous(),
            self._upscaling.fine_terms(embeddings.fine[0][row], embeddings.fine[1][row]),
        )

    @torch.inference_mode()
    def decode(self, points: Tensor, terms: ImageTerms) -> tuple[Tensor, Tensor, Tensor]:
        """Masks at clicks whose predicted IoU is above that of `least_predicted_iou`.

        Args:
            points: (P, 2) xy pixels of the S by S input.
            terms: of the image.

        Returns:
            (N, M, M) logits, the (P,) predicted IoU of every point's best mask, and the (N,) rows of the points with logits,
            ascending.
        """
        at_once = PROMPTS_A_BATCH[self._device.type]
        if most := IMAGE_BYTES_A_BATCH.get(self._device.type):
            at_once = min(at_once, max(2, most // terms.image.nbytes))
        parts = in_batches(points, self._key, at_once, lambda some: self._decode(some, terms))
        starts = accumulate((len(predicted) for _, predicted, _ in parts), initial=0)
        rows = [kept + start for (_, _, kept), start in zip(parts, starts, strict=False)]
        side = 4 * round(len(terms.image) ** 0.5)
        empty = points.new_empty
        return (
            torch.cat([logits for logits, _, _ in parts] or [empty(0, side, side, dtype=self._dtype)]),
            torch.cat([predicted for _, predicted, _ in parts] or [empty(0, dtype=self._dtype)]),
            torch.cat(rows or [empty(0, dtype=torch.int64)]),
        )

    def _decode(self, points: Tensor, terms: ImageTerms) -> tuple[Tensor, Tensor, Tensor]:
        prompts = self._tokens_of(points)
        tokens, image = self._transform(prompts, terms)
        first = self._iou_token
        quality = self._last_tokens(tokens[:, first : first + 1], prompts[:, first : first + 1], image)
        predicted, best = self._decoder.iou_prediction_head(quality)[:, 1:].max(1)
        rows = (predicted > least_predicted_iou(self._preset)).nonzero()[:, 0]
        mask_tokens = first + 2 + best[rows]  # the mask token of a single answer, which is not asked for, comes before
        chosen = self._last_tokens(tokens[rows, mask_tokens][:, None], prompts[rows, mask_tokens][:, None], image, rows)
        of_each = torch.stack([layers(chosen) for layers in self._decoder.output_hypernetworks_mlps[1:]], 1)
        weights = of_each[torch.arange(len(rows), device=rows.device), best[rows]]
        return self._upscaling.logits_at(rows, image, weights, terms.fine), predicted, rows

    def _tokens_of(self, points: Tensor) -> Tensor:
        """(P, T, C): the decoder's own tokens and those of the click."""
        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        clicks, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(own).expand(len(points), -1, -1), clicks.to(self._dtype)], 1)

    def _transform(self, prompts: Tensor, terms: ImageTerms) -> tuple[Tensor, Tensor]:
        """Two layers of attention back and forth: (P, T, C) tokens and (P, L, C) images of (P, T, C) prompts."""
        layer = self._first
        tokens = layer.norm1(layer.self_attn(q=prompts, k=prompts, v=prompts))
        found = attend_to_same_image(layer.cross_attn_token_to_image, tokens + prompts, terms.keys, terms.values)
        tokens = layer.norm2(tokens + found)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        image = layer.norm4(add_same_attention_to_tokens(attention, tokens + prompts, tokens, terms.image, terms.queries))

        layer = self._second
        positioned = tokens + prompts
        tokens = layer.norm1(tokens + layer.self_attn(q=positioned, k=positioned, v=tokens))
        found = attend_to_image(layer.cross_attn_token_to_image, tokens + prompts, image, self._second_keys)
        tokens = layer.norm2(tokens + found)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        image = add_attention_to_tokens(attention, tokens + prompts, tokens, image, self._second_queries)
        return tokens, layer.norm4(image.add_(attention.out_proj.bias))

    def _last_tokens(self, tokens: Tensor, prompts: Tensor, image: Tensor, rows: Tensor | None = None) -> Tensor:
        """(P, C): one token each after the last attention to the image; of some rows of the images."""
        transformer = self._transformer
        own = image if rows is None or len(rows) == len(image) else image[rows]
        found = attend_to_image(transformer.final_attn_token_to_image, tokens + prompts, own, self._last_keys)
        answer: Tensor = transformer.norm_final_attn(tokens + found)[:, 0]
        return answer

    def _split(self, projected: Tensor) -> Tensor:
        return split_heads(projected, self._num_heads)

    def _positional_keys(self, attention: Any) -> Tensor:
        return self._split(F.linear(self._position, attention.k_proj.weight)).contiguous()


_decoders: WeakKeyDictionary[Models, ClickDecoder] = WeakKeyDictionary()


@torch.inference_mode()
def click_decoder(models: Models) -> ClickDecoder:
    """The decoder of these models, made once."""
    with models.lock:
        if models not in _decoders:
            _decoders[models] = ClickDecoder(models)
        return _decoders[models]
