"""Textures: noise, strokes and pieces of photographs, for surfaces and trays.

The photographs are those that scikit-image ships, which is needed for training alone; none of coins or of cells is among them,
because the models are tried on such pictures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .families import draw_color
from .outlines import Array

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel"),
    *("moon", "page", "retina", "rocket", "stereo_motorcycle", "text"),
)
TEXTURES = ("noise", "photograph", "strokes", "gradient", "checker", "sectors", "plain")
SIDE = 128


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> Array:
    """(height, width) smooth noise of about unit deviation, with features of cell_y by cell_x pixels."""
    rows, columns = int(height / cell_y) + 2, int(width / cell_x) + 2
    coarse = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32), mode="F")
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def cloudy_noise(rng: np.random.Generator, side: int) -> Array:
    """(side, side) noise of four scales, each half of the one before."""
    total = np.zeros((side, side), np.float32)
    for octave in range(4):
        cell = side / 2 / 2**octave
        total += smooth_noise(rng, side, side, cell, cell) * 0.6**octave
    return total


def photograph_piece(rng: np.random.Generator, side: int) -> Array:
    """(side, side, 3) in [0, 1]: a piece of a photograph, turned, most often in two other colours."""
    photographs = _photographs()
    whole = photographs[int(rng.integers(len(photographs)))]
    height, width = whole.shape[:2]
    cut = int(min(height, width) * np.exp(rng.uniform(np.log(0.12), 0)))
    top, left = int(rng.integers(0, height - cut + 1)), int(rng.integers(0, width - cut + 1))
    piece = Image.fromarray(whole[top : top + cut, left : left + cut]).resize((side, side), Image.Resampling.BICUBIC)
    colors: Any = np.rot90(np.asarray(piece, np.float32) / 255, int(rng.integers(4)))
    if rng.random() < 0.7:
        grey = colors.mean(-1)
        grey = (grey - grey.min()) / (np.ptp(grey) + 1e-6)
        colors = _between(draw_color(rng), draw_color(rng), grey)
    return np.ascontiguousarray(colors, np.float32)


def strokes(rng: np.random.Generator, side: int, number: int) -> Array:
    """(side, side) in [0, 1]: lines, rings and letters."""
    picture = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(picture)
    for _ in range(number):
        points = rng.uniform(0.05, 0.95, (int(rng.integers(2, 5)), 2)) * side
        width, ink, kind = int(rng.integers(2, max(3, side // 12))), int(rng.integers(120, 256)), rng.random()
        if kind < 0.5:
            pen.line([(float(x), float(y)) for x, y in points], fill=ink, width=width, joint="curve")
        elif kind < 0.8:
            (x0, y0), (x1, y1) = np.sort(points[:2], 0).tolist()
            pen.ellipse((x0, y0, x1 + 2, y1 + 2), outline=ink, width=width)
        else:
            letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTXYZ0123456789"), 3))
            pen.text(
                (float(points[0, 0]), float(points[0, 1])), letters, fill=255, font_size=int(side * rng.uniform(0.12, 0.4))
            )
    return np.asarray(np.asarray(picture, np.float32) / 255)


@lru_cache(maxsize=64)
def texture(seed: int) -> tuple[Array, Array]:
    """Colours (SIDE, SIDE, 3) in [0, 1] and relief (SIDE, SIDE) in radii of the texture of this seed."""
    rng = np.random.default_rng((78, seed))
    colors = _colors(rng, str(rng.choice(TEXTURES)))
    relief = np.zeros((SIDE, SIDE), np.float32)
    if rng.random() < 0.45:
        relief = strokes(rng, SIDE, int(rng.integers(4, 16))) if rng.random() < 0.6 else cloudy_noise(rng, SIDE) * 0.4
        relief = blurred(relief, float(rng.uniform(0.8, 3))) * float(rng.uniform(0.02, 0.12))
    return colors, np.asarray(relief, np.float32)


def texture_at(own: NDArray[Any], x: Array, y: Array) -> NDArray[Any]:
    """Values of a (SIDE, SIDE, …) texture at (x, y) in radii."""
    column, row = (np.clip((axis + 1.1) / 2.2 * (SIDE - 1), 0, SIDE - 1).astype(int) for axis in (x, y))
    return np.asarray(own[row, column])


def blurred(values: Array, radius: float) -> Array:
    """(H, W) values, blurred."""
    picture = Image.fromarray(((values - values.min()) / (np.ptp(values) + 1e-6) * 255).astype(np.uint8))
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    return np.asarray(soft * np.ptp(values) + values.min(), np.float32)


def _between(first: tuple[float, float, float], second: tuple[float, float, float], share: Any) -> Array:
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    return np.asarray(a + (b - a) * share[..., None], np.float32)


def _colors(rng: np.random.Generator, kind: str) -> Array:
    a, b, c = draw_color(rng), draw_color(rng), draw_color(rng)
    y, x = np.mgrid[-1.1 : 1.1 : SIDE * 1j, -1.1 : 1.1 : SIDE * 1j]
    if kind == "noise":
        noise = cloudy_noise(rng, SIDE)
        colors = _between(a, b, noise > rng.uniform(-0.5, 0.5))
        return np.asarray(np.where((noise > rng.uniform(0.6, 1.2))[..., None], np.array(c, np.float32), colors), np.float32)
    if kind == "photograph":
        return photograph_piece(rng, SIDE)
    if kind == "strokes":
        return _between(a, b, strokes(rng, SIDE, int(rng.integers(3, 14))))
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        return _between(a, b, np.clip(0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1))
    if kind == "checker":
        frequency = rng.uniform(1.5, 5)
        return _between(a, b, (np.floor(x * frequency) + np.floor(y * frequency)) % 2 > 0)
    if kind == "sectors":
        waves = np.cos(int(rng.integers(2, 9)) * np.arctan2(y, x) + rng.uniform(0, 6))
        return _between(a, b, waves > rng.uniform(-0.5, 0.5))
    return _between(a, a, np.zeros((SIDE, SIDE), np.float32))


@lru_cache(maxsize=1)
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    from skimage import data

    found = []
    for name in PHOTOGRAPHS:
        try:
            pixels = getattr(data, name)()
        except (ImportError, OSError, ValueError):  # not in this release's wheel: it would have to be downloaded
            continue
        pixels = np.asarray(pixels[0] if isinstance(pixels, tuple) else pixels)
        found.append(np.ascontiguousarray(np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels[..., :3]))
    return tuple(found)
