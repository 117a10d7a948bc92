"""Against the transformer of the sam2 package, which puts every prompt's image together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor

from refseg.candidates.cross_attention import project, scaled_heads, split_heads
from refseg.candidates.prompted_images import PromptedImages, Rewritten, add_products, products
from tests.tolerance import assert_near

P, T, L, C, H = 3, 5, 12, 32, 4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGE, POSITION, UPSCALING = draw(L, C, seed=4), draw(L, C, seed=5), draw(24, C, seed=6)
TOKENS, PROMPTS = draw(P, T, C, seed=1), draw(P, T, C, seed=2)
LATER = draw(P, T, C, seed=3)


@pytest.fixture(scope="module")
def transformer() -> Any:
    """With norms whose weights and biases matter."""
    torch.manual_seed(0)
    made = TwoWayTransformer(depth=2, embedding_dim=C, num_heads=H, mlp_dim=16).eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if "norm" in name:
            value.normal_(1.0 if name.endswith("weight") else 0.0, 0.5)
    return made


@pytest.fixture(scope="module")
def images(transformer: Any) -> PromptedImages:
    return PromptedImages(transformer, POSITION, UPSCALING)


def attend(attention: Any, tokens: Tensor, prompts: Tensor, image: Tensor) -> Tensor:
    return attention(q=tokens + prompts, k=image + POSITION, v=image)


def rewritten(layer: Any, tokens: Tensor, prompts: Tensor, image: Tensor) -> Tensor:
    found = layer.cross_attn_image_to_token(q=image + POSITION, k=tokens + prompts, v=tokens)
    return layer.norm4(image + found)


def parts(attention: Any, tokens: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    return scaled_heads(attention.k_proj(tokens + prompts), H), split_heads(attention.v_proj(tokens), H)


def both(images: PromptedImages, transformer: Any, rows: slice) -> tuple[Rewritten, Tensor]:
    """Images after both layers in parts, and put together."""
    first, second = transformer.layers
    terms = images.terms_of(IMAGE)
    once = images.rewrite(*parts(first.cross_attn_image_to_token, TOKENS[rows], PROMPTS[rows]), terms)
    twice = images.rewrite_again(*parts(second.cross_attn_image_to_token, LATER[rows], PROMPTS[rows]), once, terms)
    whole = rewritten(first, TOKENS[rows], PROMPTS[rows], IMAGE.expand(len(TOKENS[rows]), -1, -1))
    return twice, rewritten(second, LATER[rows], PROMPTS[rows], whole)


@pytest.mark.parametrize("num_prompts", [P, 1])
def test_tokens_attend_after_one_layer(images: PromptedImages, transformer: Any, num_prompts: int) -> None:
    first, second = transformer.layers
    tokens, prompts, later = TOKENS[:num_prompts], PROMPTS[:num_prompts], LATER[:num_prompts]
    terms = images.terms_of(IMAGE)
    once = images.rewrite(*parts(first.cross_attn_image_to_token, tokens, prompts), terms)
    attention = second.cross_attn_token_to_image
    found = images.attend(scaled_heads(attention.q_proj(later + prompts), H), once, terms)
    whole = rewritten(first, tokens, prompts, IMAGE.expand(num_prompts, -1, -1))
    assert_near(project(attention, found), attend(attention, later, prompts, whole), at_most=1e-5)


@pytest.mark.parametrize(("num_prompts", "num_tokens"), [(P, T), (1, T), (P, 1), (1, 1)])
def test_tokens_attend_after_both_layers(images: PromptedImages, transformer: Any, num_prompts: int, num_tokens: int) -> None:
    twice, whole = both(images, transformer, slice(num_prompts))
    tokens, prompts = LATER[:num_prompts, :num_tokens], PROMPTS[:num_prompts, :num_tokens]
    attention = transformer.final_attn_token_to_image
    found = images.attend_last(scaled_heads(attention.q_proj(tokens + prompts), H), twice, images.terms_of(IMAGE))
    assert_near(project(attention, found), attend(attention, tokens, prompts, whole), at_most=1e-5)


def test_the_first_upscaling(images: PromptedImages, transformer: Any) -> None:
    twice, whole = both(images, transformer, slice(P))
    shares, outputs, scale = images.upscaling_of(twice)
    shared = images.terms_of(IMAGE).upscaled * scale[..., None]
    assert_near(shares.mT @ outputs + shared + images.upscaled_bias, whole @ UPSCALING.T, at_most=1e-4)


def test_some_prompts_are_taken(images: PromptedImages, transformer: Any) -> None:
    twice, _ = both(images, transformer, slice(P))
    taken = twice.take(torch.tensor([0, 2]))
    assert len(taken) == 2
    assert torch.equal(taken.shares, twice.shares[[0, 2]])
    assert taken.second_scale is not None
    assert twice.second_scale is not None
    assert torch.equal(taken.second_scale, twice.second_scale[[0, 2]])
    assert twice.take(torch.arange(P)) is twice
    once = Rewritten(twice.shares, twice.outputs, twice.scaled_outputs, twice.scale, twice.square)
    assert once.take(torch.tensor([1])).second_shares is None


@pytest.mark.parametrize("num_prompts", [P, 1, 0])
def test_products(num_prompts: int) -> None:
    tokens, image = draw(num_prompts, H, T, 8, seed=7), draw(H, 8, L, seed=8)
    expected = torch.einsum("phtc,hcl->phtl", tokens, image).flatten(1, 2)
    found = products(tokens, image)
    assert found.shape == (num_prompts, H * T, L)
    assert found.is_contiguous()
    if num_prompts:
        assert_near(found, expected, at_most=1e-5)
        sums = draw(num_prompts, H * T, L, seed=9)
        assert_near(add_products(sums.clone(), tokens, image), sums + expected, at_most=1e-5)
