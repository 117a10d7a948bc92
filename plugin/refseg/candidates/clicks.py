"""SAM 2's mask decoder for single positive clicks: its weights and numbers, in a fraction of its arithmetic.

What does not depend on the prompt is computed once an image. A prompt's own image is never put together (prompted_images.py).
Of four masks only the best is upscaled, and none where its predicted IoU, which is known before, is too low. Memory grows with
the batch of prompts and with the masks kept.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..models import BatchKey, Models, batches_in_threads
from ..printing import one_line
from .cross_attention import attend_to_same_image, project, scaled_heads, split_heads
from .embedding import ImageEmbeddings
from .prompted_images import ImageTerms, PromptedImages, Rewritten
from .upscaling import Upscaling

PROMPTS_A_BATCH = {"cpu": 64, "mps": 64, "cuda": 128}
"""Prompts whose tokens go through the decoder at once, at most."""
SHARES_BYTES_A_BATCH = {"cpu": 2**24}
"""Of what is kept of their images meanwhile, where that matters: it should stay in the processor's cache."""
SHARES_BYTES_AT_ONCE = {"cpu": 2**20}
"""Of the images of prompts that are computed at once, one at least."""


@dataclass(frozen=True)
class ClickTerms:
    """All that the decoder needs of one image and that no prompt changes.

    Attributes:
        keys: (H, L, c) for the first attention of tokens.
        values: (H, L, c), likewise.
        image: for all that follows.
        fine: what is added to the upscaled features; see Upscaling.fine_terms.
    """

    keys: Tensor
    values: Tensor
    image: ImageTerms
    fine: tuple[Tensor, Tensor]

    __repr__ = one_line


class ClickDecoder:
    """SAM 2's mask decoder for single positive clicks, with what depends on the weights alone computed once.

    Args:
        models: a loaded preset; its weights must not change afterwards.
        halved: for embeddings of half the side, see ImageEmbeddings.halved.
    """

    def __init__(self, models: Models, *, halved: bool = False) -> None:
        self._key, self._device = BatchKey.of("prompts", models), models.device
        # On a processor such small products gain nothing in half precision, and masks lose by it.
        self._dtype = torch.float32 if models.device.type == "cpu" else models.dtype
        self._prompts, decoder = models.segmenter.prompt_encoder, models.segmenter.mask_decoder
        with torch.inference_mode(False):  # so that it is a module like any other
            self._decoder = decoder if models.dtype == self._dtype else copy.deepcopy(decoder).to(self._dtype)
        self._transformer = self._decoder.transformer
        self._first, self._second = self._transformer.layers
        self._num_heads = self._first.self_attn.num_heads
        self._iou_token = 1 if self._decoder.pred_obj_scores else 0
        height, width = (side // 2 if halved else side for side in self._prompts.image_embedding_size)
        self._position = self._prompts.pe_layer((height, width)).to(self._dtype).flatten(1).T  # (L, C)
        self._upscaling = Upscaling(self._decoder.output_upscaling)
        self._images = PromptedImages(self._transformer, self._position, self._upscaling.first_weight)

    @torch.inference_mode()
    def terms_of(self, embeddings: ImageEmbeddings, row: int) -> ClickTerms:
        """What no prompt changes, of an image of a batch."""
        coarse = embeddings.coarse[row].to(self._dtype) + self._prompts.no_mask_embed.weight.to(self._dtype)[0, :, None, None]
        image = coarse.flatten(1).T.contiguous()
        attention = self._first.cross_attn_token_to_image
        finer, finest = self._upscaling.fine_terms(*(level[row].to(self._dtype) for level in embeddings.fine))
        return ClickTerms(
            split_heads(attention.k_proj(image + self._position), self._num_heads).contiguous(),
            split_heads(attention.v_proj(image), self._num_heads).contiguous(),
            self._images.terms_of(image),
            (finer + self._images.upscaled_bias.view(4, -1), finest),
        )

    @torch.inference_mode()
    def decode(self, points: Tensor, terms: ClickTerms, least: float) -> tuple[Tensor, Tensor, Tensor]:
        """Masks at clicks: of three answers the one of the highest predicted IoU, where that is enough.

        Args:
            points: (P, 2) xy pixels of the S by S input.
            terms: of the image.
            least: predicted IoU that a mask must exceed.

        Returns:
            (N, M, M) logits, the (P,) predicted IoU of every point's best mask, and the (N,) rows of the points with logits,
            ascending.

        Raises:
            ModelMemoryError: one prompt alone does not fit into memory.
        """
        at_once = PROMPTS_A_BATCH[self._device.type]
        if most := SHARES_BYTES_A_BATCH.get(self._device.type):
            at_once = min(at_once, max(1, most // self._share_bytes(terms)))
        parts = batches_in_threads(points, self._key, at_once, lambda some: self._decode(some, terms, least))
        starts = accumulate((len(predicted) for _, predicted, _ in parts), initial=0)
        rows = [kept + start for (_, _, kept), start in zip(parts, starts, strict=False)]
        side, empty = _grid_side(terms), points.new_empty
        return (
            torch.cat([logits for logits, _, _ in parts] or [empty(0, side, side, dtype=self._dtype)]),
            torch.cat([predicted for _, predicted, _ in parts] or [empty(0, dtype=self._dtype)]),
            torch.cat(rows or [empty(0, dtype=torch.int64)]),
        )

    def _decode(self, points: Tensor, terms: ClickTerms, least: float) -> tuple[Tensor, Tensor, Tensor]:
        prompts = self._tokens_of(points)
        tokens, images = self._transform(prompts, terms)
        iou = slice(self._iou_token, self._iou_token + 1)
        quality = self._last_tokens(tokens[:, iou], prompts[:, iou], images, terms)
        predicted, best = self._decoder.iou_prediction_head(quality)[:, 1:].max(1)
        rows = (predicted > least).nonzero()[:, 0]
        if not len(rows):
            return prompts.new_empty(0, *[_grid_side(terms)] * 2), predicted, rows
        images, best = _take(images, rows), best[rows]
        mask = self._iou_token + 2 + best  # the mask token of a single answer, which is not asked for, comes before
        chosen = self._last_tokens(tokens[rows, mask][:, None], prompts[rows, mask][:, None], images, terms)
        of_each = torch.stack([layers(chosen) for layers in self._decoder.output_hypernetworks_mlps[1:]], 1)
        weights = of_each[torch.arange(len(rows), device=rows.device), best].split([len(image) for image in images])
        masks = [
            self._upscaling.logits_of(self._images.upscaling_of(image), terms.image.upscaled, some, terms.fine)
            for image, some in zip(images, weights, strict=True)
        ]
        return torch.cat(masks), predicted, rows

    def _tokens_of(self, points: Tensor) -> Tensor:
        """(P, T, C): the decoder's own tokens and those of the click."""
        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        clicks, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(own).expand(len(points), -1, -1), clicks.to(self._dtype)], 1)

    def _transform(self, prompts: Tensor, terms: ClickTerms) -> tuple[Tensor, list[Rewritten]]:
        """Two layers of attention back and forth: the (P, T, C) tokens of (P, T, C) prompts, and their images, some at once."""
        heads, at_once = self._num_heads, self._at_once(prompts, terms)
        layer = self._first
        tokens = layer.norm1(layer.self_attn(q=prompts, k=prompts, v=prompts))
        found = attend_to_same_image(layer.cross_attn_token_to_image, tokens + prompts, terms.keys, terms.values)
        tokens = layer.norm2(tokens + found)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        keys = scaled_heads(attention.k_proj(tokens + prompts), heads).split(at_once)
        values = split_heads(attention.v_proj(tokens), heads).split(at_once)
        images = [self._images.rewrite(key, value, terms.image) for key, value in zip(keys, values, strict=True)]

        layer = self._second
        positioned = tokens + prompts
        tokens = layer.norm1(tokens + layer.self_attn(q=positioned, k=positioned, v=tokens))
        attention = layer.cross_attn_token_to_image
        queries = scaled_heads(attention.q_proj(tokens + prompts), heads).split(at_once)
        some = [self._images.attend(query, image, terms.image) for query, image in zip(queries, images, strict=True)]
        tokens = layer.norm2(tokens + project(attention, torch.cat(some)))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        keys = scaled_heads(attention.k_proj(tokens + prompts), heads).split(at_once)
        values = split_heads(attention.v_proj(tokens), heads).split(at_once)
        parts = zip(keys, values, images, strict=True)
        return tokens, [self._images.rewrite_again(key, value, image, terms.image) for key, value, image in parts]

    def _last_tokens(self, tokens: Tensor, prompts: Tensor, images: list[Rewritten], terms: ClickTerms) -> Tensor:
        """(P, C): one token each, of (P, 1, C), after the last attention to the image."""
        attention = self._transformer.final_attn_token_to_image
        queries = scaled_heads(attention.q_proj(tokens + prompts), self._num_heads).split([len(image) for image in images])
        found = [self._images.attend_last(query, image, terms.image) for query, image in zip(queries, images, strict=True)]
        answer: Tensor = self._transformer.norm_final_attn(tokens + project(attention, torch.cat(found)))[:, 0]
        return answer

    def _at_once(self, prompts: Tensor, terms: ClickTerms) -> int:
        """How many prompts' images are computed at once."""
        most = SHARES_BYTES_AT_ONCE.get(self._device.type)
        return len(prompts) if most is None else max(1, most // self._share_bytes(terms))

    def _share_bytes(self, terms: ClickTerms) -> int:
        """Bytes of the shares of one prompt, of one rewriting."""
        tokens: int = self._iou_token + 1 + self._decoder.num_mask_tokens + 2
        return tokens * terms.keys.element_size() * len(terms.keys) * terms.keys.shape[1]


def _grid_side(terms: ClickTerms) -> int:
    side: float = terms.keys.shape[1] ** 0.5
    return 4 * round(side)


def _take(images: list[Rewritten], rows: Tensor) -> list[Rewritten]:
    """Those of some prompts, by (n,) ascending numbers over all parts, n > 0; parts without any are left out."""
    if len(images) == 1:
        return [images[0].take(rows)]
    firsts = [0, *accumulate(len(image) for image in images)]
    bounds = torch.searchsorted(rows.cpu(), torch.tensor(firsts)).tolist()
    return [
        image.take(rows[start:stop] - first)
        for image, first, start, stop in zip(images, firsts[:-1], bounds[:-1], bounds[1:], strict=True)
        if stop > start
    ]


_decoders: WeakKeyDictionary[Models, dict[bool, ClickDecoder]] = WeakKeyDictionary()
_making = threading.Lock()


@torch.inference_mode()
def click_decoder(models: Models, *, halved: bool = False) -> ClickDecoder:
    """The decoder of these models, made once; see ClickDecoder."""
    with _making:
        made = _decoders.setdefault(models, {})
        if halved not in made:
            made[halved] = ClickDecoder(models, halved=halved)
        return made[halved]
