"""Against the attention of the sam2 package, with tokens and images of every prompt written out."""

from __future__ import annotations

import torch
from sam2.modeling.sam.transformer import Attention

from refseg.candidates.cross_attention import attend_to_same_image, scaled_heads, split_heads
from tests.tolerance import assert_near

P, T, L, C, H = 3, 5, 12, 16, 4


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_split_heads() -> None:
    assert split_heads(torch.arange(8).view(1, 2, 4), 2).tolist() == [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]


def test_scaled_heads() -> None:
    assert scaled_heads(torch.arange(8.0).view(1, 1, 8), 2).tolist() == [[[[0, 0.5, 1, 1.5]], [[2, 2.5, 3, 3.5]]]]


def test_tokens_attend_to_the_same_image() -> None:
    torch.manual_seed(0)
    attention = Attention(C, H, downsample_rate=2).eval().requires_grad_(False)
    tokens, image, position = draw(P, T, C, seed=1), draw(L, C, seed=4), draw(L, C, seed=5)
    expected = attention(q=tokens, k=(image + position).expand(P, -1, -1), v=image.expand(P, -1, -1))
    keys = split_heads(attention.k_proj(image + position), H)
    found = attend_to_same_image(attention, tokens, keys, split_heads(attention.v_proj(image), H))
    assert_near(found, expected, at_most=1e-5)
