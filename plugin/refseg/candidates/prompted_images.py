"""The image as each prompt's tokens have changed it, in parts that are never put together.

SAM 2's decoder rewrites the image for every prompt, twice: X₁ = norm(X₀ + S₁ O₁) and X₂ = norm(X₁ + S₂ O₂). X₀ is the image,
the same for all prompts; O is what a prompt's tokens hand out, S the share that each position takes of each token in each head.
Written out, that is a million numbers a prompt at SAM 2's own size. But all that is asked of such an image, its keys, queries,
values and upscaled features, is linear in it, and so is a sum: of X₀ projected, which is done once an image, and of small
products with S. The scale of a norm is one number a position, a quadratic form in S. So L · R numbers a prompt are enough,
R = H · T, and less than half of the arithmetic. The answers are the same up to rounding.

Letters: P prompts, T tokens a prompt, L positions of the image, C width, H heads of c each, R = H · T rows, head by head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..printing import one_line
from .cross_attention import split_heads


@dataclass(frozen=True)
class ImageTerms:
    """What no prompt changes of an image; c-wide parts are (H, c, L), values (H, L, c).

    Attributes:
        queries: for the first attention of the image to tokens.
        square: (L,) float32, of the centred image X₀.
        scaled_square: (L,) float32, of the centred image after the first norm's weight.
        scaled_bias: (L,) float32, product of that and of what the second norm adds.
        outputs: X₀ against the outputs of the first attention.
        scaled_outputs: the same after the first norm's weight.
        second_keys: of X₀ for the second layer.
        second_values: likewise.
        second_queries: likewise.
        second_outputs: of X₀ against the outputs of the second attention.
        last_keys: of X₀ for the last attention.
        last_values: likewise.
        upscaled: (L, 4·c₁) X₀ after the first upscaling.
    """

    queries: Tensor
    square: Tensor
    scaled_square: Tensor
    scaled_bias: Tensor
    outputs: Tensor
    scaled_outputs: Tensor
    second_keys: Tensor
    second_values: Tensor
    second_queries: Tensor
    second_outputs: Tensor
    last_keys: Tensor
    last_values: Tensor
    upscaled: Tensor

    __repr__ = one_line


@dataclass(frozen=True)
class Rewritten:
    """The images of some prompts after the first rewriting, or after both.

    Attributes:
        shares: (P, R, L), S₁.
        outputs: (P, R, C), O₁, centred.
        scaled_outputs: (P, R, C), O₁ after the norm's weight, centred again.
        scale: (P, L), one over the deviation of each position.
        square: (P, L) float32, of the centred sum after the norm's weight.
        second_shares: S₂; the others likewise.
    """

    shares: Tensor
    outputs: Tensor
    scaled_outputs: Tensor
    scale: Tensor
    square: Tensor
    second_shares: Tensor | None = None
    second_outputs: Tensor | None = None
    second_scale: Tensor | None = None

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.shares)

    def take(self, rows: Tensor) -> Rewritten:
        """Those of some prompts, by number."""
        if len(rows) == len(self):
            return self
        held = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: value[rows] for name, value in held.items() if value is not None})


class PromptedImages:
    """The arithmetic of such images, with what depends on the weights alone computed once.

    Args:
        transformer: `sam2.modeling.sam.transformer.TwoWayTransformer` of two layers.
        position: (L, C) positional codes of the image.
        upscaling: (4·c₁, C) weights of the first upscaling.
    """

    def __init__(self, transformer: Any, position: Tensor, upscaling: Tensor) -> None:
        first, second = transformer.layers
        heads = self._num_heads = first.self_attn.num_heads
        to_first, to_second = first.cross_attn_image_to_token, second.cross_attn_image_to_token
        from_second, last = second.cross_attn_token_to_image, transformer.final_attn_token_to_image
        (weight, bias), (last_weight, last_bias) = ((layer.norm4.weight, layer.norm4.bias) for layer in (first, second))
        self._norms = first.norm4.eps, second.norm4.eps
        self._weight, self._position = weight, position
        self._first_query, self._first_bias = to_first.q_proj, to_first.out_proj.bias

        # What the tokens' values become in the image: their outputs, centred as the norms do.
        self._outputs = _centred(to_first.out_proj.weight.T.unflatten(0, (heads, -1)))  # (H, c, C)
        self._scaled_outputs = _centred(self._outputs * weight)
        self._second_outputs = _centred(to_second.out_proj.weight.T.unflatten(0, (heads, -1)))
        self._bias = _centred(bias + to_second.out_proj.bias)  # added to the image between the norms

        # Projections of the image, (H, c, C); a norm's weight goes into them, its bias into what is added to each position.
        self._key, self._value, self._query = (
            (projection.weight * weight).unflatten(0, (heads, -1))
            for projection in (from_second.k_proj, from_second.v_proj, to_second.q_proj)
        )
        self._last_key, self._last_value = (
            (projection.weight * last_weight).unflatten(0, (heads, -1)) for projection in (last.k_proj, last.v_proj)
        )
        self._value_bias = from_second.v_proj(bias).view(heads, 1, -1)
        self._last_value_bias = last.v_proj(last_bias).view(heads, 1, -1)
        # A key's bias adds the same to all positions, which softmax takes away.
        self._position_keys = self._rows(F.linear(position, from_second.k_proj.weight))
        self._position_queries = self._rows(to_second.q_proj(position + bias))
        self._last_position_keys = self._rows(F.linear(position, last.k_proj.weight))

        self._upscaling = upscaling * last_weight
        self._upscaled_bias = self._upscaling @ self._bias
        self.upscaled_bias = upscaling @ last_bias
        """(4·c₁,): is to be added to what upscaling adds to each position."""

    def terms_of(self, image: Tensor) -> ImageTerms:
        """What no prompt changes of an (L, C) image."""
        centred = _centred(image + self._first_bias)
        scaled = _centred(centred * self._weight)
        return ImageTerms(
            self._rows(self._first_query(image + self._position)),
            centred.float().square().sum(-1),
            scaled.float().square().sum(-1),
            scaled.float() @ self._bias.float(),
            self._rows(F.linear(centred, self._outputs.flatten(0, 1))),
            self._rows(F.linear(scaled, self._scaled_outputs.flatten(0, 1))),
            self._rows(F.linear(centred, self._key.flatten(0, 1))),
            self._columns(F.linear(centred, self._value.flatten(0, 1))),
            self._rows(F.linear(centred, self._query.flatten(0, 1))),
            self._rows(F.linear(scaled, self._second_outputs.flatten(0, 1))),
            self._rows(F.linear(scaled, self._last_key.flatten(0, 1))),
            self._columns(F.linear(scaled, self._last_value.flatten(0, 1))),
            F.linear(scaled, self._upscaling),
        )

    def rewrite(self, keys: Tensor, values: Tensor, terms: ImageTerms) -> Rewritten:
        """The images after the first layer, of the tokens' (P, H, T, c) scaled keys and values."""
        shares = _shares(products(keys, terms.queries), keys.shape[1:3])
        outputs, scaled_outputs = products(values, self._outputs), products(values, self._scaled_outputs)
        square = _square(shares, values, terms.outputs, outputs) + terms.square
        scaled_square = _square(shares, values, terms.scaled_outputs, scaled_outputs) + terms.scaled_square
        return Rewritten(shares, outputs, scaled_outputs, self._scale(square, 0, outputs), scaled_square)

    def attend(self, queries: Tensor, image: Rewritten, terms: ImageTerms) -> Tensor:
        """What tokens find in images after the first layer: (P, H, T, c) values of (P, H, T, c) scaled queries."""
        folded = products(queries, self._key) @ image.outputs.mT
        scores = products(queries, terms.second_keys).baddbmm_(folded, image.shares).mul_(image.scale[:, None])
        looks = add_products(scores, queries, self._position_keys).softmax(-1).mul_(image.scale[:, None])
        found = (looks @ image.shares.mT) @ image.outputs
        answer: Tensor = _gather(looks, terms.second_values) + _gather(found, self._value.mT) + self._value_bias
        return answer

    def rewrite_again(self, keys: Tensor, values: Tensor, image: Rewritten, terms: ImageTerms) -> Rewritten:
        """The images after both layers, see rewrite."""
        folded = products(keys, self._query) @ image.outputs.mT
        scores = products(keys, terms.second_queries).baddbmm_(folded, image.shares).mul_(image.scale[:, None])
        shares = _shares(add_products(scores, keys, self._position_queries), keys.shape[1:3])
        outputs = products(values, self._second_outputs)

        # |d·(X + S₁O₁) + b + S₂O₂|², where the first of the three squares is known.
        sums = products(values, terms.second_outputs).baddbmm_(outputs @ image.scaled_outputs.mT, image.shares)
        sums = sums.mul_(2 * image.scale[:, None]).baddbmm_(outputs @ outputs.mT, shares)
        sums = sums.add_(2 * (outputs @ self._bias)[..., None]).mul_(shares).sum(1, dtype=torch.float32)
        scale = image.scale.float()
        with_bias = terms.scaled_bias + ((image.scaled_outputs @ self._bias)[:, None] @ image.shares)[:, 0].float()
        square = sums + scale * (scale * image.square + 2 * with_bias) + self._bias.float().square().sum()
        return Rewritten(
            image.shares,
            image.outputs,
            image.scaled_outputs,
            image.scale,
            image.square,
            shares,
            outputs,
            self._scale(square, 1, outputs),
        )

    def attend_last(self, queries: Tensor, image: Rewritten, terms: ImageTerms) -> Tensor:
        """What tokens find in images after both layers, see attend; of any number of tokens."""
        shares, outputs, scale = _second(image)
        folded = products(queries, self._last_key)  # (P, H·T, C)
        scores = products(queries, terms.last_keys).baddbmm_(folded @ image.scaled_outputs.mT, image.shares)
        scores = scores.mul_(image.scale[:, None]).baddbmm_(folded @ outputs.mT, shares)
        scores = scores.add_((folded @ self._bias)[..., None]).mul_(scale[:, None])
        looks = add_products(scores, queries, self._last_position_keys).softmax(-1).mul_(scale[:, None])
        found = (looks @ shares.mT) @ outputs + looks.sum(-1, keepdim=True) * self._bias
        looks = looks.mul_(image.scale[:, None])
        found = found + (looks @ image.shares.mT) @ image.scaled_outputs
        answer: Tensor = _gather(looks, terms.last_values) + _gather(found, self._last_value.mT) + self._last_value_bias
        return answer

    def upscaling_of(self, image: Rewritten) -> tuple[Tensor, Tensor, Tensor]:
        """Images after both layers and the first upscaling, in parts: see Upscaling.logits_of.

        Returns:
            (P, K, L) shares of (P, K, 4·c₁) outputs, and the (P, L) scale of ImageTerms.upscaled, all of which are to be added.
        """
        shares, outputs, scale = _second(image)
        both = image.scale * scale
        bias = self._upscaled_bias.expand(len(shares), 1, -1)
        added = [image.scaled_outputs @ self._upscaling.T, outputs @ self._upscaling.T, bias]
        rows = torch.cat([image.shares * both[:, None], shares * scale[:, None], scale[:, None]], 1)
        return rows, torch.cat(added, 1), both

    def _scale(self, square: Tensor, layer: int, like: Tensor) -> Tensor:
        answer: Tensor = (square / like.shape[-1] + self._norms[layer]).rsqrt().to(like.dtype)
        return answer

    def _rows(self, projected: Tensor) -> Tensor:
        """(L, H·c) to (H, c, L)."""
        answer: Tensor = projected.T.unflatten(0, (self._num_heads, -1)).contiguous()
        return answer

    def _columns(self, projected: Tensor) -> Tensor:
        """(L, H·c) to (H, L, c)."""
        return split_heads(projected, self._num_heads).contiguous()


def products(tokens: Tensor, image: Tensor) -> Tensor:
    """(P, R, L) products of (P, H, T, c) tokens and the (H, c, L) image that is the same for all.

    One product a head for all prompts, put in order afterwards; that of a single prompt is in order.
    """
    prompts, _, num_tokens, _ = tokens.shape
    by_head = torch.bmm(tokens.transpose(0, 1).flatten(1, 2), image)  # (H, P·T, L)
    answer: Tensor = by_head.unflatten(1, (prompts, num_tokens)).transpose(0, 1).flatten(1, 2)
    return answer


def add_products(sums: Tensor, tokens: Tensor, image: Tensor) -> Tensor:
    """The (P, R, L) sums with products added in place, see products."""
    prompts, heads, num_tokens, _ = tokens.shape
    if prompts != 1:
        return sums.add_(products(tokens, image))
    sums.view(heads, num_tokens, -1).baddbmm_(tokens[0], image)
    return sums


def _gather(looks: Tensor, values: Tensor) -> Tensor:
    """(P, H, T, c) of (P, R, L) looks at the (H, L, c) values that are the same for all."""
    prompts, heads = len(looks), len(values)
    by_head = looks.unflatten(1, (heads, -1)).transpose(0, 1).flatten(1, 2)
    answer: Tensor = torch.bmm(by_head, values).unflatten(1, (prompts, -1)).transpose(0, 1)
    return answer


def _shares(scores: Tensor, heads_and_tokens: torch.Size) -> Tensor:
    """(P, R, L) scores to shares that sum to 1 over the tokens of each head."""
    answer: Tensor = scores.unflatten(1, tuple(heads_and_tokens)).softmax(2).flatten(1, 2)
    return answer


def _square(shares: Tensor, values: Tensor, image_outputs: Tensor, outputs: Tensor) -> Tensor:
    """(P, L) float32: |X + S O|² - |X|² at each position."""
    sums = products(2 * values, image_outputs).baddbmm_(outputs @ outputs.mT, shares)
    return sums.mul_(shares).sum(1, dtype=torch.float32)


def _second(image: Rewritten) -> tuple[Tensor, Tensor, Tensor]:
    assert image.second_shares is not None
    assert image.second_outputs is not None
    assert image.second_scale is not None
    return image.second_shares, image.second_outputs, image.second_scale


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)
