"""Outlines of parts by their names: signed distances, in shares of a part's radius.

An outline takes (x, y) in units of the part's radius and six shape parameters v in [0, 1], and is negative inside. The named
ones are here; those of names that start with GRAMMAR are drawn by the grammar from the number in their name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Outline = Callable[[Array, Array, Array], Any]

GRAMMAR = "grammar "
NOVEL_PARTS = ("star", "tee", "crescent", "arrow", "clover", "bowtie", "key", "hook")
"""Part types that the demo models never see while they are trained."""


def _box(x: Array, y: Array, a: float, b: float) -> Any:
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def polygon(x: Array, y: Array, sides: int, radius: float = 0.95) -> Any:
    """A regular polygon with one corner on the positive x axis."""
    wedge = 2 * np.pi / sides
    angle = np.mod(np.arctan2(y, x), wedge) - wedge / 2
    return np.asarray(np.hypot(x, y) * np.cos(angle) - radius * np.cos(wedge / 2), np.float32)


def _disc(x: Array, y: Array, v: Array) -> Any:
    return np.hypot(x, y / (0.6 + 0.4 * v[0])) - 0.95


def _ring(x: Array, y: Array, v: Array) -> Any:
    inner = 0.3 + 0.35 * v[0]
    return np.abs(np.hypot(x, y) - (0.95 + inner) / 2) - (0.95 - inner) / 2


def _nut(x: Array, y: Array, v: Array) -> Any:
    return np.maximum(polygon(x, y, 5 + int(v[0] * 3.99)), 0.25 + 0.25 * v[1] - np.hypot(x, y))


def _plate(x: Array, y: Array, v: Array) -> Any:
    body = _box(x, y, 0.85, 0.45 + 0.4 * v[0])
    return np.maximum(body, 0.12 + 0.12 * v[1] - np.hypot(np.abs(x) - 0.5, y))


def _capsule(x: Array, y: Array, v: Array) -> Any:
    half = 0.2 + 0.25 * v[0]
    return np.hypot(np.maximum(np.abs(x) - (0.95 - half), 0), y) - half


def _gear(x: Array, y: Array, v: Array) -> Any:
    teeth = 6 + int(v[0] * 8)
    edge = 0.82 + 0.12 * np.clip(3 * np.cos(teeth * np.arctan2(y, x)), -1, 1)
    return np.maximum(np.hypot(x, y) - edge, 0.15 + 0.25 * v[1] - np.hypot(x, y))


def _triangle(x: Array, y: Array, v: Array) -> Any:
    return polygon(x, y * (1 + 0.5 * v[0]), 3)


def _bracket(x: Array, y: Array, v: Array) -> Any:
    wide = 0.2 + 0.15 * v[0]
    return np.minimum(_box(x + 0.85 - wide, y, wide, 0.85), _box(x, y - 0.85 + wide, 0.85, wide))


def _blob(x: Array, y: Array, v: Array) -> Any:
    angle = np.arctan2(y, x)
    edge = 0.72 + sum(0.11 * (v[k] - 0.3) * np.cos((k + 2) * angle + 6.3 * v[5 - k]) for k in range(3))
    return np.asarray(np.hypot(x, y) - edge, np.float32)


def _half_disc(x: Array, y: Array, v: Array) -> Any:
    return np.maximum(np.hypot(x, y - 0.4) - 0.95, y - 0.4 - 0.15 * v[0])


def _cross(x: Array, y: Array, v: Array) -> Any:
    wide = 0.2 + 0.2 * v[0]
    return np.minimum(_box(x, y, 0.9, wide), _box(x, y, wide, 0.9))


def _bolt(x: Array, y: Array, v: Array) -> Any:
    return np.minimum(_box(x + 0.65, y, 0.28, 0.5), _box(x, y, 0.93, 0.15 + 0.15 * v[0]))


def _star(x: Array, y: Array, v: Array) -> Any:
    points = 4 + int(v[0] * 3.99)
    wedge = 2 * np.pi / points
    angle = np.abs(np.mod(np.arctan2(y, x), wedge) - wedge / 2)
    px, py = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    inner = 0.36 + 0.18 * v[1]
    tip = np.array([np.cos(wedge / 2), np.sin(wedge / 2)]) * 0.97
    normal = np.array([tip[1], inner - tip[0]])
    normal = normal / np.hypot(*normal)
    return np.asarray((px - inner) * normal[0] + py * normal[1], np.float32)


def _tee(x: Array, y: Array, v: Array) -> Any:
    bar = 0.2 + 0.12 * v[0]
    return np.minimum(_box(x, y + 0.9 - bar, 0.9, bar), _box(x, y, 0.2 + 0.12 * v[1], 0.9))


def _crescent(x: Array, y: Array, v: Array) -> Any:
    return np.maximum(np.hypot(x, y) - 0.95, 0.72 + 0.1 * v[0] - np.hypot(x - 0.42, y))


def _arrow(x: Array, y: Array, v: Array) -> Any:
    head = np.maximum(-x - 0.05, np.abs(y) * 0.75 + x * 0.75 - 0.7)
    return np.minimum(head, _box(x + 0.45, y, 0.5, 0.16 + 0.16 * v[0]))


def _clover(x: Array, y: Array, v: Array) -> Any:
    leaves = 3 + int(v[0] * 1.99)
    angle = np.arctan2(y, x)
    return np.asarray(np.hypot(x, y) - (0.66 + 0.3 * np.cos(leaves * angle)), np.float32)


def _bowtie(x: Array, y: Array, v: Array) -> Any:
    return np.maximum(np.abs(x) - 0.93, np.abs(y) - (0.14 + 0.1 * v[0] + 0.62 * np.abs(x)))


def _key(x: Array, y: Array, v: Array) -> Any:
    bow = np.abs(np.hypot(x + 0.55, y) - 0.27) - 0.14
    bit = _box(x - 0.75, y - 0.25, 0.13, 0.25)
    return np.minimum(np.minimum(bow, _box(x - 0.35, y, 0.58, 0.1 + 0.06 * v[0])), bit)


def _hook(x: Array, y: Array, v: Array) -> Any:
    wide = 0.17 + 0.08 * v[0]
    bend = np.maximum(np.abs(np.hypot(x, y - 0.25) - 0.5) - wide, 0.25 - y)
    return np.minimum(bend, _box(x - 0.5, y + 0.35, wide, 0.6))


OUTLINES: dict[str, Outline] = {
    "disc": _disc,
    "ring": _ring,
    "nut": _nut,
    "plate": _plate,
    "capsule": _capsule,
    "gear": _gear,
    "triangle": _triangle,
    "bracket": _bracket,
    "blob": _blob,
    "half disc": _half_disc,
    "cross": _cross,
    "bolt": _bolt,
    "star": _star,
    "tee": _tee,
    "crescent": _crescent,
    "arrow": _arrow,
    "clover": _clover,
    "bowtie": _bowtie,
    "key": _key,
    "hook": _hook,
}


def outline_of(part: str) -> Outline:
    """The outline of this name."""
    if not part.startswith(GRAMMAR):
        return OUTLINES[part]
    from .grammar import grammar_outline

    return grammar_outline(int(part.removeprefix(GRAMMAR)))


def part_of_grammar(rng: np.random.Generator) -> str:
    """The name of an outline of the grammar."""
    return f"{GRAMMAR}{rng.integers(1 << 40)}"
