"""Trays: what parts lie on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .families import Family, draw_color
from .outlines import Array
from .textures import cloudy_noise, photograph_piece, smooth_noise


def plain_tray(rng: np.random.Generator, height: int, width: int, families: Sequence[Family]) -> Array:
    """An empty tray whose colour stands off from the parts', as people choose trays; not always by much."""
    colors = np.array([family.color for family in families] or [(0.5, 0.5, 0.5)])
    choices = [np.array(draw_color(rng)) * rng.uniform(0.5, 1) for _ in range(6)]
    base = max(choices, key=lambda choice: float(np.abs(colors - choice).max(1).min()))
    canvas = np.ones((height, width, 3), np.float32) * base.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        cell = float(np.exp(rng.uniform(0, 4.2)))
        stretch = float(np.exp(rng.uniform(-2, 2))) if rng.random() < 0.4 else 1.0
        layer = smooth_noise(rng, height, width, max(1.0, cell * stretch), max(1.0, cell / stretch))
        canvas += layer[..., None] * (rng.uniform(0.01, 0.08) * rng.uniform(0.6, 1, 3)).astype(np.float32)
    if rng.random() < 0.3:  # a ribbed or gridded tray
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(10, 60)
        wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        if rng.random() < 0.5:
            wave = np.maximum(wave, np.cos(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period))
        canvas += (np.clip(wave * 4 - 3, -1, 1) * rng.uniform(0.02, 0.08))[..., None]
    return canvas


def rich_tray(rng: np.random.Generator, height: int, width: int, families: Sequence[Family]) -> Array:
    """Any ground: a plain tray, one that hardly stands off from a part, a dark one, a photograph, drifting colours."""
    kind = rng.random()
    if kind < 0.3:
        return plain_tray(rng, height, width, families)
    side = max(height, width)
    if kind < 0.55:
        own = families[int(rng.integers(len(families)))].color if families else draw_color(rng)
        return _flat(rng, height, width, np.clip(np.array(own) + rng.uniform(-0.18, 0.18, 3), 0.02, 1))
    if kind < 0.65:
        return _flat(rng, height, width, np.array(draw_color(rng)) * rng.uniform(0.02, 0.25))
    if kind < 0.85:
        canvas = photograph_piece(rng, side)[:height, :width]
        mean = canvas.mean((0, 1), keepdims=True)
        return np.asarray(mean + (canvas - mean) * rng.uniform(0.2, 0.9), np.float32)
    canvas = plain_tray(rng, height, width, families)
    for _ in range(int(rng.integers(2, 8))):
        share = np.clip(cloudy_noise(rng, side)[:height, :width] * rng.uniform(0.3, 1.2), 0, 1)[..., None]
        canvas = canvas + share * (np.array(draw_color(rng), np.float32) - canvas) * rng.uniform(0.1, 0.5)
    return np.asarray(canvas, np.float32)


def _flat(rng: np.random.Generator, height: int, width: int, color: Any) -> Array:
    cell = float(np.exp(rng.uniform(0, 4.5)))
    uneven = smooth_noise(rng, height, width, cell, cell)[..., None] * rng.uniform(0, 0.06)
    return np.asarray(np.asarray(color, np.float32) * (1 + uneven) + uneven * 0.1, np.float32)
