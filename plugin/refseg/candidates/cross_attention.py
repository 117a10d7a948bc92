"""Attention between the few tokens of a prompt and the many positions of an image.

Letters: P prompts, T tokens a prompt, L positions of the image, C width, H heads of c each.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def split_heads(projected: Tensor, num_heads: int) -> Tensor:
    """(…, n, H·c) to (…, H, n, c)."""
    split: Tensor = projected.unflatten(-1, (num_heads, projected.shape[-1] // num_heads)).transpose(-2, -3)
    return split


def scaled_heads(projected: Tensor, num_heads: int) -> Tensor:
    """(…, n, H·c) to (…, H, n, c), divided by the root of c, as one side of each attention is."""
    split = split_heads(projected, num_heads)
    scale: float = split.shape[-1] ** -0.5
    return split * scale


def project(attention: Any, values: Tensor) -> Tensor:
    """The output projection, (P, T, C), of (P, H, T, c)."""
    projected: Tensor = attention.out_proj(values.transpose(1, 2).flatten(2))
    return projected


def attend_to_same_image(attention: Any, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens attend to an image that is the same for every prompt.

    Args:
        attention: `sam2.modeling.sam.transformer.Attention`.
        tokens: (P, T, C), positional part added.
        keys: (H, L, c) of the image, projected.
        values: (H, L, c), projected.

    Returns:
        (P, T, C).
    """
    queries = split_heads(attention.q_proj(tokens), len(keys)).transpose(0, 1).flatten(1, 2)  # (H, P·T, c)
    found = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
    return project(attention, found.unflatten(1, tokens.shape[:2]).transpose(0, 1))
