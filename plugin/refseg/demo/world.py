"""Parts on a tray: procedurally drawn scenes with exact masks, the only data the demo models ever see.

A *family* is one kind of part: an outline (its part type), a height profile, a material, colours and a pattern. An
*instance* is a family drawn once, turned, scaled, lit and partly covered. Outlines are signed distance functions, so the
mask, the relief and the shading all follow from one formula. Drawing takes about 25 ms a scene of 300 by 400 pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .shapes import OUTLINES, Array

PROFILES = ("flat", "bevel", "dome", "ridge", "cup", "step")
MATERIALS = ("matte", "glossy", "brushed", "cast", "embossed")
PATTERNS = ("none", "none", "dot", "ring", "stripes", "halves", "rim", "spots")
MIN_VISIBLE = 0.35
"""An object with less than this share of its outline in view is left out of the labels."""


@dataclass(frozen=True)
class Family:
    """One kind of part; every field is fixed for all of its instances."""

    part: str
    shape: tuple[float, ...]
    profile: str
    material: str
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    pattern: str
    detail: tuple[float, ...]
    size: float


@dataclass(frozen=True)
class Scene:
    """A picture with exact labels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) uint8; 0 is background, i + 1 the visible pixels of object i.
        families: for object i, its row in the list of families the scene was drawn from.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    families: tuple[int, ...]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool, one mask per object, none overlapping."""
        return np.asarray(self.ids[None] == np.arange(1, len(self.families) + 1, dtype=np.uint8)[:, None, None])


# Outlines: (x, y) in units of the part's radius, v a vector of shape parameters in [0, 1]; negative inside.


NOVEL_PARTS = ("star", "tee", "crescent", "arrow", "clover", "bowtie", "key", "hook")
"""Part types that the demo models never see while they are trained."""
TRAINING_PARTS = tuple(name for name in OUTLINES if name not in NOVEL_PARTS)


def draw_family(rng: np.random.Generator, parts: Sequence[str] = TRAINING_PARTS) -> Family:
    """Draw a family of one of these part types; two draws are practically never alike."""
    return Family(
        part=str(rng.choice(parts)),
        shape=tuple(rng.uniform(0, 1, 6)),
        profile=str(rng.choice(PROFILES)),
        material=str(rng.choice(MATERIALS)),
        color=_draw_color(rng),
        accent=_draw_color(rng),
        pattern=str(rng.choice(PATTERNS)),
        detail=tuple(rng.uniform(0, 1, 4)),
        size=float(rng.uniform(0.75, 1.25)),
    )


def mutate_family(rng: np.random.Generator, family: Family, parts: Sequence[str] = TRAINING_PARTS) -> Family:
    """Draw a look-alike: the same family with its outline, its colours or its surface drawn anew."""
    other = draw_family(rng, parts)
    which = int(rng.integers(3))
    if which == 0:
        return replace(family, part=other.part, shape=other.shape)
    if which == 1:
        return replace(family, color=other.color, accent=other.accent)
    return replace(family, pattern=other.pattern, detail=other.detail, material=other.material, accent=other.accent)


def render_scene(
    rng: np.random.Generator,
    families: Sequence[Family],
    image_hw: tuple[int, int] = (300, 400),
    *,
    radius: tuple[float, float] = (0.07, 0.17),
    max_overlap: float = 0.25,
) -> Scene:
    """Draw one object of each family on a tray.

    Args:
        rng: the only source of chance.
        families: one object is drawn of each entry; name a family twice for two objects.
        image_hw: height and width in pixels.
        radius: smallest and largest radius of an object, as a share of the longer image side, before the family's size.
        max_overlap: the largest share of an object's bounding circle that may lie on another when it is placed.

    Returns:
        The scene; objects that ended up less than MIN_VISIBLE in view carry no label.
    """
    height, width = image_hw
    light = _unit(np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.5, 1.6)]))
    canvas = _background(rng, height, width, families)
    ids = np.zeros((height, width), np.uint8)
    areas: list[int] = []
    placed: list[tuple[float, float, float]] = []
    shadow = float(rng.uniform(0.0, 0.6))
    for number, family in enumerate(families):
        r = float(rng.uniform(*radius)) * max(height, width) * family.size
        cx, cy = _place(rng, placed, r, height, width, max_overlap)
        placed.append((cx, cy, r))
        areas.append(_draw_part(rng, canvas, ids, number + 1, family, (cx, cy, r), light, shadow))
    image = _photograph(rng, canvas)
    counts = np.bincount(ids.ravel(), minlength=len(areas) + 1)[1:]
    keep = [i for i, area in enumerate(areas) if area and counts[i] >= max(60, MIN_VISIBLE * area)]
    lookup = np.zeros(256, np.uint8)
    for new, old in enumerate(keep):
        lookup[old + 1] = new + 1
    return Scene(image, lookup[ids], tuple(keep))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))


def _draw_color(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.4:  # bare metal and plastic: hardly any hue
        hue, saturation, value = rng.choice([0.08, 0.12, 0.6]), rng.uniform(0, 0.3), rng.uniform(0.2, 0.95)
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.35, 1), rng.uniform(0.3, 1)
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return red, green, blue


def _noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> Array:
    """(height, width) smooth noise of about unit deviation, with features of cell_y by cell_x pixels."""
    rows, columns = int(height / cell_y) + 2, int(width / cell_x) + 2
    coarse = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32), mode="F")
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _background(rng: np.random.Generator, height: int, width: int, families: Sequence[Family]) -> Array:
    """An empty tray whose colour stands off from the parts', as people choose trays; not always by much."""
    colors = np.array([family.color for family in families] or [(0.5, 0.5, 0.5)])
    choices = [np.array(_draw_color(rng)) * rng.uniform(0.5, 1) for _ in range(6)]
    base = max(choices, key=lambda choice: float(np.abs(colors - choice).max(1).min()))
    canvas = np.ones((height, width, 3), np.float32) * base.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        cell = float(np.exp(rng.uniform(0, 4.2)))
        stretch = float(np.exp(rng.uniform(-2, 2))) if rng.random() < 0.4 else 1.0
        layer = _noise(rng, height, width, max(1.0, cell * stretch), max(1.0, cell / stretch))
        canvas += layer[..., None] * (rng.uniform(0.01, 0.08) * rng.uniform(0.6, 1, 3)).astype(np.float32)
    if rng.random() < 0.3:  # a ribbed or gridded tray
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(10, 60)
        wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        if rng.random() < 0.5:
            wave = np.maximum(wave, np.cos(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period))
        canvas += (np.clip(wave * 4 - 3, -1, 1) * rng.uniform(0.02, 0.08))[..., None]
    return canvas


def _place(
    rng: np.random.Generator,
    placed: list[tuple[float, float, float]],
    r: float,
    height: int,
    width: int,
    max_overlap: float,
) -> tuple[float, float]:
    margin = 0.45 * r
    best, best_gap = (width / 2, height / 2), -np.inf
    for _ in range(40):
        x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        gap = min((np.hypot(x - px, y - py) / (r + pr) for px, py, pr in placed), default=np.inf)
        if gap > best_gap:
            best, best_gap = (float(x), float(y)), float(gap)
        if gap >= 1 - max_overlap * rng.random():
            break
    return best


def _draw_part(
    rng: np.random.Generator,
    canvas: Array,
    ids: NDArray[np.uint8],
    number: int,
    family: Family,
    place: tuple[float, float, float],
    light: NDArray[np.float64],
    shadow: float,
) -> int:
    """Paint one part and its shadow in place; return the whole area of its outline, in pixels, in or out of view."""
    cx, cy, r = place
    height, width = ids.shape
    reach = int(np.ceil(r * 1.05)) + 1
    x0, y0 = int(cx) - reach, int(cy) - reach
    side = 2 * reach + 1
    rows, columns = np.mgrid[y0 : y0 + side, x0 : x0 + side].astype(np.float32)
    dx, dy = (columns - cx) / r, (rows - cy) / r
    angle, flip = rng.uniform(0, 2 * np.pi), 1 if rng.random() < 0.5 else -1
    px = np.asarray(dx * np.cos(angle) + dy * np.sin(angle), np.float32)
    py = np.asarray((dy * np.cos(angle) - dx * np.sin(angle)) * flip, np.float32)
    distance = np.asarray(OUTLINES[family.part](px, py, np.array(family.shape, np.float32)), np.float32)
    color = _surface(rng, family, px, py, distance)
    color = _shade(rng, family, color, distance, light, r)
    alpha = np.clip(0.5 - distance * r, 0, 1)
    inside = distance < 0

    top, left = max(0, -y0), max(0, -x0)
    bottom, right = min(side, height - y0), min(side, width - x0)
    if bottom <= top or right <= left:
        return 0
    cut = np.s_[top:bottom, left:right]
    there = np.s_[y0 + top : y0 + bottom, x0 + left : x0 + right]
    if shadow > 0.1:
        _cast_shadow(canvas, inside, (y0, x0), light, r, shadow)
    canvas[there] += alpha[cut][..., None] * (color[cut] - canvas[there])
    ids[there][inside[cut]] = number
    return int(inside.sum())


def _cast_shadow(
    canvas: Array,
    inside: NDArray[np.bool_],
    corner: tuple[int, int],
    light: NDArray[np.float64],
    r: float,
    strength: float,
) -> None:
    soft = max(2, int(r * 0.12))
    pad = 3 * soft
    shape = Image.fromarray(np.pad(inside, pad).astype(np.uint8) * 255)
    blurred = np.asarray(shape.filter(ImageFilter.GaussianBlur(soft)), np.float32) / 255
    y0 = corner[0] - pad - int(light[1] * r * 0.15)
    x0 = corner[1] - pad - int(light[0] * r * 0.15)
    top, left = max(0, -y0), max(0, -x0)
    bottom, right = min(blurred.shape[0], canvas.shape[0] - y0), min(blurred.shape[1], canvas.shape[1] - x0)
    if bottom > top and right > left:
        canvas[y0 + top : y0 + bottom, x0 + left : x0 + right] *= 1 - strength * blurred[top:bottom, left:right, None]


def _surface(rng: np.random.Generator, family: Family, px: Array, py: Array, distance: Array) -> Array:
    """(s, s, 3) colour of the part before any light falls on it."""
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
    color = np.where(patterns[family.pattern]()[..., None], accent, base).astype(np.float32)
    side = px.shape[0]
    if family.material == "brushed":
        streaks = _noise(rng, 1, 256, 1, 1.5)[0]
        color *= 1 + 0.12 * streaks[np.clip((py + 1.1) * 115, 0, 255).astype(int)][..., None]
    elif family.material == "cast":
        color *= 1 + (0.08 + 0.1 * d[3]) * _noise(rng, side, side, 1.6, 1.6)[..., None]
    elif rng.random() < 0.5:  # wear
        color *= 1 + 0.05 * _noise(rng, side, side, side / 5, side / 5)[..., None]
    return color


def _shade(
    rng: np.random.Generator,
    family: Family,
    color: Array,
    distance: Array,
    light: NDArray[np.float64],
    r: float,
) -> Array:
    """The lit colour; light is a unit vector towards the lamp, x right, y down, z to the viewer."""
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
        relief = max(2.0, r * (0.12 + 0.15 * family.detail[3]))
        height = height + 0.025 * _noise(rng, distance.shape[0], distance.shape[1], relief, relief)
    slope_y, slope_x = np.gradient(height.astype(np.float32) * r)
    steep = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (-slope_x * light[0] - slope_y * light[1] + light[2]) * steep
    shiny = {"matte": 0.0, "cast": 0.1, "embossed": 0.25, "glossy": 0.7, "brushed": 0.45}[family.material]
    half = _unit(light + np.array([0, 0, 1]))
    gleam = np.clip((-slope_x * half[0] - slope_y * half[1] + half[2]) * steep, 0, 1) ** 24
    lit = color * (0.42 + 0.68 * np.clip(facing, 0, 1))[..., None] + (shiny * 0.45 * gleam)[..., None]
    return np.asarray(lit, np.float32)


def _photograph(rng: np.random.Generator, canvas: Array) -> NDArray[np.uint8]:
    """What a camera makes of the scene: uneven light, colour cast, blur, noise."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)) * rng.uniform(0, 0.5)
    lit: Any = canvas * (1 + slope[..., None]) * (rng.uniform(0.75, 1.15) * rng.uniform(0.95, 1.05, 3))
    if rng.random() < 0.03:
        lit = np.repeat(lit.mean(-1, keepdims=True), 3, -1)
    lit = lit + rng.normal(0, rng.uniform(0.004, 0.02), lit.shape)
    picture = Image.fromarray((np.clip(lit, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    return np.asarray(picture)
