"""Against the attention of the sam2 package, with images and tokens of every prompt written out."""

from __future__ import annotations

import pytest
import torch
from sam2.modeling.sam.transformer import Attention
from torch import Tensor

from refseg.candidates.cross_attention import split_heads
from refseg.demo.training.cross_attention import (
    add_attention_to_tokens,
    add_same_attention_to_tokens,
    gather_from_image,
    looks_at_image,
)
from tests.tolerance import assert_near

P, T, L, C, H = 3, 5, 12, 16, 4


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(C, H, downsample_rate=2).eval().requires_grad_(False)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TOKENS, VALUES = draw(P, T, C, seed=1), draw(P, T, C, seed=2)
IMAGES, IMAGE, POSITION = draw(P, L, C, seed=3), draw(L, C, seed=4), draw(L, C, seed=5)


@pytest.mark.parametrize("num_prompts", [P, 1, 0])
def test_tokens_attend_to_their_own_image(attention: Attention, num_prompts: int) -> None:
    tokens, images = TOKENS[:num_prompts], IMAGES[:num_prompts]
    positional = split_heads(torch.nn.functional.linear(POSITION, attention.k_proj.weight), H)
    found = gather_from_image(attention, looks_at_image(attention, tokens, images, positional), images)
    assert found.shape == (num_prompts, T, C)
    if num_prompts:
        assert_near(found, attention(q=tokens, k=images + POSITION, v=images), at_most=1e-5)


def test_the_same_image_attends_to_tokens(attention: Attention) -> None:
    queries = (IMAGE + POSITION).expand(P, -1, -1)
    expected = IMAGE + attention(q=queries, k=TOKENS, v=VALUES)
    found = add_same_attention_to_tokens(
        attention, TOKENS, VALUES, IMAGE + attention.out_proj.bias, split_heads(attention.q_proj(IMAGE + POSITION), H)
    )
    assert_near(found, expected, at_most=1e-5)


def test_images_attend_to_tokens(attention: Attention) -> None:
    expected = IMAGES + attention(q=IMAGES + POSITION, k=TOKENS, v=VALUES)
    before = IMAGES.clone()
    found = add_attention_to_tokens(attention, TOKENS, VALUES, IMAGES, split_heads(attention.q_proj(POSITION), H))
    assert_near(found + attention.out_proj.bias, expected, at_most=1e-5)
    assert torch.equal(before, IMAGES)
