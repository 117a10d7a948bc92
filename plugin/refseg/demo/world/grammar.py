"""Outlines from a grammar: unions, cuts and folds of a few primitives, moved, turned, scaled, mirrored, wobbled and warped.

So many kinds of outlines that a model cannot learn them by heart. One that comes close to a novel type is drawn again, so that
those stay unseen in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .outlines import NOVEL_PARTS, OUTLINES, Array, Outline, polygon

TRIES = 100
GRID = 49
"""Cells a side of the grid on which outlines are judged."""
REACH = 1.6
MIN_FILL = 0.14
"""Least share of its circle that an outline fills."""
ALIKE_IOU = 0.9
"""An outline that overlaps a novel type's by this, after the best turn and mirror, is not used."""
TURNS, SHAPES = 36, 24
"""Turns, and draws of the shape parameters, of each novel type that outlines are compared to."""

Distance = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Element:
    """A primitive in its place, and how it is joined to what comes before it: "union", "smooth" or "cut"."""

    primitive: Distance
    place: tuple[float, float]
    turn: float
    scale: float
    join: str


@dataclass(frozen=True)
class Composite:
    """One outline of the grammar.

    Attributes:
        elements: joined in their order.
        mirrored: the half below the x axis is the mirrored upper one.
        folds: so many equal sectors about the middle; 0 for none.
        wobble: depth, number and phase of waves around the edge.
        warp: strength, frequency and phase of a bend.
        scale: of a unit circle to the outline's own.
        middle: of the outline's own circle.
    """

    elements: tuple[Element, ...]
    mirrored: bool
    folds: int
    wobble: tuple[float, int, float]
    warp: tuple[float, float, float]
    scale: float = 1.0
    middle: tuple[float, float] = (0.0, 0.0)

    def __call__(self, x: Array, y: Array, v: Array) -> Any:
        """The signed distance at (x, y); v is not used."""
        return self.raw(x * self.scale + self.middle[0], y * self.scale + self.middle[1]) / self.scale

    def raw(self, x: Any, y: Any) -> Any:
        """The distance before the outline is moved and scaled into the unit circle."""
        if self.folds:
            wedge = 2 * np.pi / self.folds
            angle = np.mod(np.arctan2(y, x) + wedge / 2, wedge) - wedge / 2
            radius = np.hypot(x, y)
            x, y = radius * np.cos(angle) - 0.35, radius * np.sin(angle)
        if self.mirrored:
            y = np.abs(y)
        strength, frequency, phase = self.warp
        x = x + strength * np.sin(frequency * y + phase)
        total = _placed(self.elements[0], x, y)
        for element in self.elements[1:]:
            total = _joined(total, _placed(element, x, y), element.join)
        depth, waves, phase = self.wobble
        return total + depth * np.cos(waves * np.arctan2(y, x) + phase) if depth else total


@lru_cache(maxsize=512)
def grammar_outline(number: int) -> Outline:
    """The outline of this number, always the same one: a single piece, not too thin, unlike any novel type."""
    return draw_outline(number)[0]


def draw_outline(number: int) -> tuple[Composite, int]:
    """The outline of a number, and how many were not used because they came close to a novel type."""
    too_alike = 0
    for salt in range(TRIES):
        composite = _fitted(_draw_composite(np.random.default_rng((77, number, salt))))
        if composite is None:
            continue
        if likeness(composite) < ALIKE_IOU:
            return composite, too_alike
        too_alike += 1
    raise AssertionError(f"No outline came of number {number}.")


def likeness(outline: Outline) -> float:
    """The largest overlap (IoU) of an outline with one of a novel type, over turns and mirror images."""
    own = _cells(outline, np.zeros(6, np.float32)).reshape(-1).astype(np.float32)
    known, areas = _novel_masks()
    shared = known @ own
    return float((shared / (areas + own.sum() - shared)).max())


def _grid(reach: float) -> tuple[Any, Any]:
    line = np.linspace(-reach, reach, GRID, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _cells(outline: Outline, v: Array, turn: float = 0.0) -> NDArray[np.bool_]:
    x, y = _grid(1.05)
    return np.asarray(outline(*_turned(x, y, turn), v) < 0)


@lru_cache(maxsize=1)
def _novel_masks() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(K, GRID²) masks of the novel types in all turns and both mirror images, and their (K,) areas."""
    rng = np.random.default_rng(78)
    masks = []
    for part in NOVEL_PARTS:
        for _ in range(SHAPES):
            own = _centered(OUTLINES[part], rng.uniform(0, 1, 6).astype(np.float32))
            for turn in np.arange(TURNS) * 2 * np.pi / TURNS:
                cells = _cells(own, np.zeros(6, np.float32), float(turn))
                masks += [cells, cells[::-1]]
    flat = np.stack(masks).reshape(len(masks), -1).astype(np.float32)
    return flat, flat.sum(1)


def _centered(outline: Outline, v: Array) -> Outline:
    """A named outline in the circle that the grammar's are moved and scaled into."""
    x, y = _grid(REACH)
    scale, (left, top) = _circle(x, y, np.asarray(outline(x, y, v) < 0))
    return lambda x, y, _: outline(x * scale + left, y * scale + top, v) / scale


def _circle(x: Any, y: Any, inside: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Radius, for 0.95 of which an outline is drawn, and middle of the circle about what is inside."""
    xs, ys = x[inside], y[inside]
    middle = float(xs.min() + xs.max()) / 2, float(ys.min() + ys.max()) / 2
    return float(np.hypot(xs - middle[0], ys - middle[1]).max()) / 0.95, middle


def _turned(x: Any, y: Any, angle: float) -> tuple[Any, Any]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _placed(element: Element, x: Any, y: Any) -> Any:
    moved = (x - element.place[0]) / element.scale, (y - element.place[1]) / element.scale
    return element.primitive(*_turned(*moved, element.turn)) * element.scale


def _joined(total: Any, other: Any, join: str) -> Any:
    if join == "cut":
        return np.maximum(total, -other)
    if join == "smooth":
        share = np.clip(0.5 + 0.5 * (total - other) / 0.25, 0, 1)
        return total + (other - total) * share - 0.25 * share * (1 - share)
    return np.minimum(total, other)


def _draw_composite(rng: np.random.Generator) -> Composite:
    elements = []
    for row in range(int(rng.choice([1, 2, 2, 3, 3, 4]))):
        join = str(rng.choice(["union", "union", "smooth", "cut"])) if row else "union"
        reach = 0.0 if row == 0 and rng.random() < 0.5 else 0.7
        place = float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach))
        scale = float(np.exp(rng.uniform(-0.7, 0.2)))
        elements.append(Element(_draw_primitive(rng), place, float(rng.uniform(0, 2 * np.pi)), scale, join))
    return Composite(
        tuple(elements),
        mirrored=rng.random() < 0.35,
        folds=int(rng.integers(2, 7)) if rng.random() < 0.22 else 0,
        wobble=(rng.uniform(0.02, 0.1), int(rng.integers(3, 12)), rng.uniform(0, 6.3)) if rng.random() < 0.3 else (0, 1, 0),
        warp=(rng.uniform(-0.25, 0.25), rng.uniform(1, 5), rng.uniform(0, 6.3)) if rng.random() < 0.25 else (0, 1, 0),
    )


def _fitted(composite: Composite) -> Composite | None:
    """The outline moved and scaled into the unit circle; None where it is no single, stout piece."""
    import cv2

    x, y = _grid(REACH)
    inside = np.asarray(composite.raw(x, y) < 0)
    if not inside.any() or inside[[0, -1]].any() or inside[:, [0, -1]].any():
        return None
    _, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    if np.bincount(labels.ravel())[1:].max() < 0.98 * inside.sum():
        return None
    scale, middle = _circle(x, y, inside)
    area = inside.mean() * (2 * REACH) ** 2
    if scale < 0.2 or area < MIN_FILL * np.pi * (0.95 * scale) ** 2:
        return None
    return replace(composite, scale=scale, middle=middle)


def _draw_primitive(rng: np.random.Generator) -> Distance:
    p = rng.uniform(0, 1, 4)
    draw = (_ellipse, _rounded_box, _sides, _rod, _arc, _flower, _wedge)[int(rng.integers(7))]
    return lambda x, y: draw(x, y, p)


def _ellipse(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    a, b = 0.3 + 0.6 * p[0], 0.3 + 0.6 * p[1]
    return (np.hypot(x / a, y / b) - 1) * min(a, b)


def _rounded_box(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    corner = 0.25 * p[2]
    beside, above = np.abs(x) - 0.15 - 0.75 * p[0] + corner, np.abs(y) - 0.15 - 0.75 * p[1] + corner
    return np.hypot(np.maximum(beside, 0), np.maximum(above, 0)) + np.minimum(np.maximum(beside, above), 0) - corner


def _sides(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    return polygon(x, y, 3 + int(p[0] * 5.99), 0.4 + 0.5 * p[1])


def _rod(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    return np.hypot(np.maximum(np.abs(x) - (0.3 + 0.6 * p[1]), 0), y) - (0.08 + 0.22 * p[0])


def _arc(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    half = 0.08 + 0.2 * p[1]
    ring = np.abs(np.hypot(x, y) - 0.2 - 0.5 * p[0] - half) - half
    return ring if p[2] < 0.5 else np.maximum(ring, np.abs(np.arctan2(y, x)) - np.pi * (0.3 + 0.6 * p[3]))


def _flower(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    petals = 2 + int(p[0] * 6.99)
    return np.hypot(x, y) - (0.45 + 0.35 * p[1] + 0.18 * p[2] * np.cos(petals * np.arctan2(y, x) + 6.3 * p[3]))


def _wedge(x: Any, y: Any, p: NDArray[np.float64]) -> Any:
    slope = 0.3 + 1.2 * p[0]
    return np.maximum(np.maximum(np.abs(y) - 0.8 * p[1] - 0.15, x - 0.8), -x - 0.8 + slope * np.abs(y))
