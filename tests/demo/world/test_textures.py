from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.world import textures


def test_noise_has_about_unit_deviation() -> None:
    noise = textures.smooth_noise(np.random.default_rng(0), 200, 300, 8, 8)
    assert noise.shape == (200, 300)
    assert 0.5 < noise.std() < 1.2


@pytest.mark.parametrize("kind", textures.TEXTURES)
def test_textures_of_every_kind_are_colours(kind: str) -> None:
    colors = textures._colors(np.random.default_rng(1), kind)
    assert colors.shape == (textures.SIDE, textures.SIDE, 3)
    assert colors.dtype == np.float32
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert (colors.std((0, 1)).max() > 0.01) == (kind != "plain")


def test_a_seed_is_one_texture() -> None:
    first, again = textures.texture(5), textures.texture.__wrapped__(5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], textures.texture(6)[0])


def test_texture_at_reads_corners_and_middle() -> None:
    own = np.arange(textures.SIDE**2).reshape(textures.SIDE, -1)
    x, y = np.array([-1.1, 1.1, 0.0, 5.0]), np.array([-1.1, 1.1, 0.0, 5.0])
    middle = (textures.SIDE - 1) // 2
    assert textures.texture_at(own, x, y).tolist() == [0, own[-1, -1], own[middle, middle], own[-1, -1]]


def test_pieces_of_photographs_are_none_of_coins_or_cells() -> None:
    assert not {"coins", "cell", "cells3d", "human_mitosis", "immunohistochemistry"} & set(textures.PHOTOGRAPHS)
    piece = textures.photograph_piece(np.random.default_rng(0), 64)
    assert piece.shape == (64, 64, 3)
    assert piece.std() > 0.01


def test_blurring_keeps_the_range() -> None:
    values = np.zeros((32, 32), np.float32)
    values[16:] = 3
    soft = textures.blurred(values, 2)
    assert soft.min() >= 0
    assert soft.max() <= 3
    assert soft[:4].max() < 0.1
    assert soft[-4:].min() > 2.9
