"""Surfaces: the colour of a part before and after light falls on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .families import Family
from .outlines import Array
from .textures import smooth_noise, texture, texture_at


def surface(rng: np.random.Generator, family: Family, px: Array, py: Array, distance: Array) -> Array:
    """(s, s, 3) colour of the part before any light falls on it.

    Args:
        rng: the only source of chance.
        family: of the part.
        px: (s, s) the part's own coordinates, in radii.
        py: (s, s), likewise.
        distance: (s, s) signed, to the outline, in radii.
    """
    d = family.detail
    jitter = rng.normal(0, 0.03, 3)
    base = np.clip(np.array(family.color) + jitter, 0.03, 1).astype(np.float32)
    accent = np.clip(np.array(family.accent) + jitter, 0.03, 1).astype(np.float32)
    radius = np.hypot(px, py)
    patterns: dict[str, Callable[[], Any]] = {
        "none": lambda: np.zeros(px.shape, bool),
        "dot": lambda: radius < 0.2 + 0.25 * d[0],
        "ring": lambda: np.abs(radius - 0.3 - 0.3 * d[0]) < 0.06 + 0.1 * d[1],
        "stripes": lambda: np.mod(px * (1.5 + 2.5 * d[0]) + d[1], 1) < 0.3 + 0.3 * d[2],
        "halves": lambda: px * np.cos(6.3 * d[0]) + py * np.sin(6.3 * d[0]) > 0,
        "rim": lambda: distance > -0.08 - 0.1 * d[0],
        "spots": lambda: np.hypot(np.mod(px * (2 + 2 * d[0]), 1) - 0.5, np.mod(py * (2 + 2 * d[0]), 1) - 0.5) < 0.28,
    }
    if family.texture is None:
        color = np.where(patterns[family.pattern]()[..., None], accent, base).astype(np.float32)
    else:
        color = np.clip(texture_at(texture(family.texture)[0], px, py) + jitter, 0.03, 1).astype(np.float32)
    side = px.shape[0]
    if family.material == "brushed":
        streaks = smooth_noise(rng, 1, 256, 1, 1.5)[0]
        color *= 1 + 0.12 * streaks[np.clip((py + 1.1) * 115, 0, 255).astype(int)][..., None]
    elif family.material == "cast":
        color *= 1 + (0.08 + 0.1 * d[3]) * smooth_noise(rng, side, side, 1.6, 1.6)[..., None]
    elif rng.random() < 0.5:  # wear
        color *= 1 + 0.05 * smooth_noise(rng, side, side, side / 5, side / 5)[..., None]
    return color


def relief(family: Family, px: Array, py: Array) -> Array | None:
    """(s, s) height in radii of what stands out of a texture; None for nothing."""
    if family.texture is None:
        return None
    height = texture(family.texture)[1]
    return texture_at(height, px, py) if height.any() else None


def shade(
    rng: np.random.Generator,
    family: Family,
    color: Array,
    distance: Array,
    light: NDArray[np.float64],
    r: float,
    raised: Array | None = None,
) -> Array:
    """The lit colour.

    Args:
        rng: the only source of chance.
        family: of the part.
        color: (s, s, 3) unlit.
        distance: (s, s) signed, to the outline, in radii.
        light: unit vector towards the lamp, x right, y down, z to the viewer.
        r: radius in pixels.
        raised: (s, s) height in radii on top of the family's profile.
    """
    depth = np.clip(-distance, 0, 1)
    profiles: dict[str, Callable[[], Any]] = {
        "flat": lambda: np.clip(depth / 0.06, 0, 1) * 0.03,
        "bevel": lambda: np.clip(depth / 0.2, 0, 1) * 0.16,
        "dome": lambda: np.sqrt(np.clip(1 - (1 - np.clip(depth / 0.6, 0, 1)) ** 2, 0, 1)) * 0.35,
        "ridge": lambda: depth * 0.7,
        "cup": lambda: np.clip(depth / 0.1, 0, 1) * 0.1 - np.clip(depth - 0.1, 0, 1) * 0.5,
        "step": lambda: (np.clip(depth / 0.05, 0, 1) + np.clip((depth - 0.18) / 0.05, 0, 1)) * 0.06,
    }
    height = profiles[family.profile]()
    if family.material == "embossed":
        grain = max(2.0, r * (0.12 + 0.15 * family.detail[3]))
        height = height + 0.025 * smooth_noise(rng, distance.shape[0], distance.shape[1], grain, grain)
    if raised is not None:
        height = height + raised
    slope_y, slope_x = np.gradient(height.astype(np.float32) * r)
    steep = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (-slope_x * light[0] - slope_y * light[1] + light[2]) * steep
    shiny = {"matte": 0.0, "cast": 0.1, "embossed": 0.25, "glossy": 0.7, "brushed": 0.45}[family.material]
    half = unit(light + np.array([0, 0, 1]))
    gleam = np.clip((-slope_x * half[0] - slope_y * half[1] + half[2]) * steep, 0, 1) ** 24
    lit = color * (0.42 + 0.68 * np.clip(facing, 0, 1))[..., None] + (shiny * 0.45 * gleam)[..., None]
    return np.asarray(lit, np.float32)


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector at length one."""
    return np.asarray(vector / np.linalg.norm(vector))
