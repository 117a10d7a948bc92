"""Scenes: parts on a tray, drawn with exact masks, the only data that the demo models ever see.

A *family* is one kind of part: an outline (its part type), a height profile, a material, colours and a pattern. An
*instance* is a family drawn once, turned, scaled, lit and partly covered. Outlines are signed distance functions, so the
mask, the relief and the shading all follow from one formula. Drawing takes about 25 ms a scene of 300 by 400 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .camera import photograph
from .families import Family, vary_family
from .outlines import Array, outline_of
from .surfaces import relief, shade, surface, unit
from .trays import plain_tray

MIN_VISIBLE = 0.35
"""An object with less than this share of its outline in view is left out of the labels."""
MIN_PIXELS = 60
MIN_CROWD_PIXELS = 35
MOST_OBJECTS = 250

Tray = Callable[[np.random.Generator, int, int, Sequence[Family]], Array]
Place = tuple[float, float, float]
"""x, y and radius in pixels."""


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


def render_scene(
    rng: np.random.Generator,
    families: Sequence[Family],
    image_hw: tuple[int, int] = (300, 400),
    *,
    radius: tuple[float, float] = (0.07, 0.17),
    max_overlap: float = 0.25,
    min_visible: float = MIN_VISIBLE,
    tray: Tray = plain_tray,
) -> Scene:
    """Draw one object of each family on a tray.

    Args:
        rng: the only source of chance.
        families: one object is drawn of each entry; name a family twice for two objects.
        image_hw: height and width in pixels.
        radius: smallest and largest radius of an object, as a share of the longer image side, before the family's size.
        max_overlap: the largest share of an object's bounding circle that may lie on another when it is placed.
        min_visible: objects that end up with less than this share of their outline in view carry no label.
        tray: draws what the objects lie on.

    Returns:
        The scene.
    """

    def placed() -> Iterator[tuple[int, Family, Place]]:
        before: list[Place] = []
        for row, family in enumerate(families):
            r = float(rng.uniform(*radius)) * max(image_hw) * family.size
            before.append((*_place(rng, before, r, *image_hw, max_overlap), r))
            yield row, family, before[-1]

    return _render(rng, families, placed(), image_hw, (min_visible, MIN_PIXELS), tray)


def render_crowd(
    rng: np.random.Generator,
    families: Sequence[Family],
    image_hw: tuple[int, int] = (300, 400),
    *,
    radius: float,
    spacing: float,
    variety: float = 0.1,
    min_visible: float = 0.2,
    tray: Tray = plain_tray,
) -> Scene:
    """Draw many objects of few families side by side, as coins, cells, pills and stones lie: touching where spacing is small.

    Args:
        rng: the only source of chance.
        families: an object is of any of them.
        image_hw: height and width in pixels.
        radius: of an object in pixels, before the family's size.
        spacing: between middles, in radii.
        variety: how much individuals of a family differ, see `vary_family`.
        min_visible: see `render_scene`.
        tray: draws what the objects lie on.
    """
    places = _spread(rng, image_hw, radius * spacing)

    def placed() -> Iterator[tuple[int, Family, Place]]:
        for x, y in places:
            row = int(rng.integers(len(families)))
            own = vary_family(rng, families[row], variety)
            yield row, own, (x, y, radius * own.size)

    return _render(rng, families, placed(), image_hw, (min_visible, MIN_CROWD_PIXELS), tray)


def _render(
    rng: np.random.Generator,
    families: Sequence[Family],
    placed: Iterable[tuple[int, Family, Place]],
    image_hw: tuple[int, int],
    least: tuple[float, int],
    tray: Tray,
) -> Scene:
    height, width = image_hw
    light = unit(np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.5, 1.6)]))
    canvas = tray(rng, height, width, families)
    ids = np.zeros((height, width), np.uint8)
    rows: list[int] = []
    areas: list[int] = []
    shadow = float(rng.uniform(0.0, 0.6))
    for row, family, place in placed:
        rows.append(row)
        areas.append(_draw_part(rng, canvas, ids, len(rows), family, place, light, shadow))
    image = photograph(rng, canvas)
    counts = np.bincount(ids.ravel(), minlength=len(areas) + 1)[1:]
    keep = [i for i, area in enumerate(areas) if area and counts[i] >= max(least[1], least[0] * area)]
    lookup = np.zeros(256, np.uint8)
    for new, old in enumerate(keep):
        lookup[old + 1] = new + 1
    return Scene(image, lookup[ids], tuple(rows[i] for i in keep))


def _spread(rng: np.random.Generator, image_hw: tuple[int, int], step: float) -> list[tuple[float, float]]:
    """Middles on a shaken triangular grid, in clusters for some pictures, and at most MOST_OBJECTS."""
    height, width = image_hw
    rows, columns = np.arange(-1, height / (step * 0.866) + 1), np.arange(-1, width / step + 1)
    row, column = np.meshgrid(rows, columns, indexing="ij")
    places = np.stack([(column + 0.5 * (row % 2)) * step, row * step * 0.866], -1).reshape(-1, 2)
    places = places + rng.normal(0, step * rng.uniform(0, 0.18), places.shape)
    share = rng.uniform(0.35, 1)
    if rng.random() < 0.5:  # in clusters
        middles = rng.uniform(0, 1, (int(rng.integers(1, 6)), 2)) * (width, height)
        near = np.hypot(*(places[:, None] - middles).transpose(2, 0, 1)).min(1)
        places = places[near < np.quantile(near, share)]
    else:
        places = places[rng.random(len(places)) < share]
    inside = (places > -0.3 * step).all(1) & (places < np.array([width, height]) + 0.3 * step).all(1)
    places = rng.permutation(places[inside])[:MOST_OBJECTS]
    return [(float(x), float(y)) for x, y in places]


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
    place: Place,
    light: NDArray[np.float64],
    shadow: float,
) -> int:
    """Paint one part and its shadow in place; return the whole area of its outline, in pixels, in or out of view."""
    angle, flip = float(rng.uniform(0, 2 * np.pi)), 1 if rng.random() < 0.5 else -1
    area = _draw_piece(rng, canvas, ids, number, family, place, (angle, flip), light, shadow)
    for piece in family.pieces:
        x, y = piece.place[0], piece.place[1] * flip
        cosine, sine = np.cos(angle), np.sin(angle)
        middle = place[0] + place[2] * (x * cosine - y * sine), place[1] + place[2] * (x * sine + y * cosine)
        turned = angle + flip * piece.turn, flip
        radius = place[2] * piece.share
        _draw_piece(rng, canvas, ids, number, piece.family, (*middle, radius), turned, light, 0.0)
    return max(area, int((ids == number).sum())) if family.pieces else area


def _draw_piece(
    rng: np.random.Generator,
    canvas: Array,
    ids: NDArray[np.uint8],
    number: int,
    family: Family,
    place: Place,
    turned: tuple[float, int],
    light: NDArray[np.float64],
    shadow: float,
) -> int:
    cx, cy, r = place
    angle, flip = turned
    height, width = ids.shape
    reach = int(np.ceil(r * 1.05)) + 1
    x0, y0 = int(cx) - reach, int(cy) - reach
    side = 2 * reach + 1
    rows, columns = np.mgrid[y0 : y0 + side, x0 : x0 + side].astype(np.float32)
    dx, dy = (columns - cx) / r, (rows - cy) / r
    px = np.asarray(dx * np.cos(angle) + dy * np.sin(angle), np.float32)
    py = np.asarray((dy * np.cos(angle) - dx * np.sin(angle)) * flip, np.float32)
    distance = np.asarray(outline_of(family.part)(px, py, np.array(family.shape, np.float32)), np.float32)
    color = surface(rng, family, px, py, distance)
    color = shade(rng, family, color, distance, light, r, relief(family, px, py))
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
