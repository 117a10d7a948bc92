"""Attention between the few tokens of a prompt and the many positions of an image, with gradients.

SAM 2's decoder projects every position of every prompt's own image to keys, values or queries, of which eight tokens then make
little use. A projection can as well be applied to the tokens: q·(W x) is (Wᵀ q)·x, and Σ p (W x + b) is W Σ p x + b, as the
shares p sum to 1. That halves the arithmetic, and no projected image is kept. The numbers are the same up to rounding.

Letters: P prompts, T tokens a prompt, L positions of the image, C width, H heads of c each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...candidates.cross_attention import split_heads


def looks_at_image(attention: Any, tokens: Tensor, image: Tensor, positional_keys: Tensor) -> Tensor:
    """Where tokens look on their own prompt's image: (P, H, T, L) shares that sum to 1.

    Args:
        attention: `sam2.modeling.sam.transformer.Attention`.
        tokens: (P, T, C), positional part added.
        image: (P, L, C), positional part not added.
        positional_keys: (H, L, c), the positional part of the image, projected to keys without the bias: that adds the same to
            each position, which softmax takes away.
    """
    heads, width = len(positional_keys), positional_keys.shape[-1]
    queries = split_heads(attention.q_proj(tokens), heads) * width**-0.5  # (P, H, T, c)
    folded = (queries @ attention.k_proj.weight.unflatten(0, (heads, width))).flatten(1, 2)  # (P, H·T, C)
    scores = _scores(queries, positional_keys).baddbmm_(folded, image.transpose(1, 2))
    shares: Tensor = scores.softmax(-1).unflatten(1, (heads, tokens.shape[1]))
    return shares


def gather_from_image(attention: Any, shares: Tensor, image: Tensor) -> Tensor:
    """What (P, H, T, L) shares take from (P, L, C) images: (P, T, C); see looks_at_image."""
    heads, num_tokens = shares.shape[1:3]
    means = torch.bmm(shares.flatten(1, 2), image).unflatten(1, (heads, num_tokens))  # (P, H, T, C)
    by_head = attention.v_proj.weight.unflatten(0, (heads, -1))
    values = means @ by_head.transpose(1, 2)
    return _project(attention, values.transpose(1, 2) + attention.v_proj.bias.unflatten(0, (heads, -1)))


def add_same_attention_to_tokens(attention: Any, keys: Tensor, values: Tensor, image: Tensor, queries: Tensor) -> Tensor:
    """An image that is the same for every prompt, and what it attends to in each prompt's tokens.

    Args:
        attention: `sam2.modeling.sam.transformer.Attention`.
        keys: (P, T, C) tokens, positional part added.
        values: (P, T, C) tokens.
        image: (L, C), with the bias of the output projection.
        queries: (H, L, c) of the image, projected.

    Returns:
        (P, L, C).
    """
    scores = _scores(_scaled_keys(attention, keys, len(queries)), queries)
    return _add_values(attention, scores, values, image[None], len(queries))


def add_attention_to_tokens(attention: Any, keys: Tensor, values: Tensor, image: Tensor, positional_queries: Tensor) -> Tensor:
    """Each prompt's own image, and what it attends to in the prompt's tokens, without the bias of the output projection.

    Args:
        attention: `sam2.modeling.sam.transformer.Attention`.
        keys: (P, T, C) tokens, positional part added.
        values: (P, T, C) tokens.
        image: (P, L, C), positional part not added.
        positional_queries: (H, L, c), the positional part of the image, projected to queries with the bias.

    Returns:
        (P, L, C).
    """
    heads, width = len(positional_queries), positional_queries.shape[-1]
    scaled = _scaled_keys(attention, keys, heads)
    folded = (scaled @ attention.q_proj.weight.unflatten(0, (heads, width))).flatten(1, 2)  # (P, H·T, C)
    scores = _scores(scaled, positional_queries).baddbmm_(folded, image.transpose(1, 2))
    return _add_values(attention, scores, values, image, heads)


def _scaled_keys(attention: Any, tokens: Tensor, heads: int) -> Tensor:
    keys = split_heads(attention.k_proj(tokens), heads)
    scale: float = keys.shape[-1] ** -0.5
    return keys * scale


def _add_values(attention: Any, scores: Tensor, values: Tensor, image: Tensor, heads: int) -> Tensor:
    """The image, plus the outputs of the tokens shared out by (P, H·T, L) scores: a softmax over each head's T tokens."""
    shares = scores.unflatten(1, (heads, values.shape[1])).softmax(2).flatten(1, 2)
    out = split_heads(attention.out_proj.weight, heads).transpose(1, 2)  # (H, c, C)
    outputs = (split_heads(attention.v_proj(values), heads) @ out).flatten(1, 2)  # (P, H·T, C)
    return torch.baddbmm(image, shares.transpose(1, 2), outputs)


def _by_head(tokens: Tensor) -> Tensor:
    """(P, H, T, c) to (H, P·T, c)."""
    return tokens.transpose(0, 1).flatten(1, 2)


def _scores(tokens: Tensor, image: Tensor) -> Tensor:
    """(P, H·T, L) products of (P, H, T, c) and (H, L, c).

    One product a head for all prompts, put in order afterwards: broadcast as it is, the image would be copied for each prompt.
    """
    by_head = torch.bmm(_by_head(tokens), image.transpose(1, 2))  # (H, P·T, L)
    in_order: Tensor = by_head.unflatten(1, (len(tokens), tokens.shape[2])).transpose(0, 1).flatten(1, 2)
    return in_order.contiguous()


def _project(attention: Any, values: Tensor) -> Tensor:
    """The output projection of (P, T, H, c)."""
    projected: Tensor = attention.out_proj(values.flatten(2))
    return projected
