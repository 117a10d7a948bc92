from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from refseg.demo.world import draw_family
from refseg.demo.world.surfaces import relief, shade, surface, unit
from refseg.demo.world.textures import texture

LINE = np.linspace(-1, 1, 41, dtype=np.float32)
X, Y = np.meshgrid(LINE, LINE)
DISTANCE = (np.hypot(X, Y) - 0.95).astype(np.float32)


def test_unit() -> None:
    assert np.linalg.norm(unit(np.array([3.0, 4.0, 12.0]))) == pytest.approx(1)


@pytest.mark.parametrize("pattern", ["none", "dot", "ring", "stripes", "halves", "rim", "spots"])
def test_patterns_are_of_the_accent(pattern: str) -> None:
    family = replace(
        draw_family(np.random.default_rng(0)), color=(0.2, 0.2, 0.2), accent=(0.9, 0.9, 0.9), pattern=pattern, material="matte"
    )
    color = surface(np.random.default_rng(3), family, X, Y, DISTANCE)
    bright = (color.mean(-1) > 0.55).mean()
    assert (bright == 0) == (pattern == "none")
    assert bright < 1


def test_a_texture_takes_the_place_of_colours() -> None:
    family = replace(draw_family(np.random.default_rng(0)), material="matte")
    seed = next(seed for seed in range(100) if texture(seed)[0].std() > 0.1)
    plain = surface(np.random.default_rng(3), family, X, Y, DISTANCE)
    textured = surface(np.random.default_rng(3), replace(family, texture=seed), X, Y, DISTANCE)
    assert not np.allclose(plain, textured, atol=0.05)


def test_relief_is_lit() -> None:
    seed = next(seed for seed in range(100) if texture(seed)[1].any())
    family = replace(draw_family(np.random.default_rng(0)), texture=seed, material="matte", profile="flat")
    raised = relief(family, X, Y)
    assert raised is not None
    color, light = np.full((41, 41, 3), 0.5, np.float32), unit(np.array([1.0, 0.2, 0.7]))
    flat = shade(np.random.default_rng(0), family, color, DISTANCE, light, 20.0)
    lit = shade(np.random.default_rng(0), family, color, DISTANCE, light, 20.0, raised)
    assert lit[15:26, 15:26].std() > flat[15:26, 15:26].std()
    assert relief(replace(family, texture=None), X, Y) is None


def test_slopes_towards_the_lamp_are_brighter() -> None:
    family = replace(draw_family(np.random.default_rng(0)), profile="dome", material="matte")
    lit = shade(
        np.random.default_rng(0), family, np.full((41, 41, 3), 0.5, np.float32), DISTANCE, unit(np.array([-1.0, 0, 0.6])), 20.0
    )
    assert lit[20, 4].mean() > lit[20, 36].mean()
