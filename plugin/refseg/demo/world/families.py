"""Families: kinds of parts. Every trait of a family is the same for all of its instances."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .outlines import NOVEL_PARTS, OUTLINES, part_of_grammar

PROFILES = ("flat", "bevel", "dome", "ridge", "cup", "step")
MATERIALS = ("matte", "glossy", "brushed", "cast", "embossed")
PATTERNS = ("none", "none", "dot", "ring", "stripes", "halves", "rim", "spots")
TRAINING_PARTS = tuple(name for name in OUTLINES if name not in NOVEL_PARTS)
GRAMMAR_SHARE = 0.8
"""Of rich families, those whose outline comes from the grammar; the others are of the named training types."""
TEXTURED_SHARE = 0.6
"""Of rich families, those with a texture of their own in place of colours and a pattern."""
COMPOUND_SHARE = 0.2
"""Of rich families, those made of two or three pieces of different surfaces."""


@dataclass(frozen=True)
class Piece:
    """A family fixed to another one.

    Attributes:
        family: of the piece.
        place: of its middle, in radii of what it is fixed to.
        turn: in radians.
        share: its radius as a share of that of what it is fixed to.
    """

    family: Family
    place: tuple[float, float]
    turn: float
    share: float


@dataclass(frozen=True)
class Family:
    """One kind of part; every field is fixed for all of its instances.

    Attributes:
        part: its outline's name: a type of OUTLINES, or one of the grammar.
        shape: six parameters of a named outline, in [0, 1].
        profile: one of PROFILES.
        material: one of MATERIALS.
        color: RGB in [0, 1].
        accent: RGB in [0, 1] of the pattern.
        pattern: one of PATTERNS.
        detail: four parameters of pattern and material, in [0, 1].
        size: factor on the radius.
        texture: seed of a texture that takes the place of colours and pattern; None for none.
        pieces: fixed to it, drawn over it, of the same object.
    """

    part: str
    shape: tuple[float, ...]
    profile: str
    material: str
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    pattern: str
    detail: tuple[float, ...]
    size: float
    texture: int | None = None
    pieces: tuple[Piece, ...] = ()


def draw_color(rng: np.random.Generator) -> tuple[float, float, float]:
    """An RGB colour in [0, 1]: bare metal or plastic, or a hue."""
    if rng.random() < 0.4:  # bare metal and plastic: hardly any hue
        hue, saturation, value = rng.choice([0.08, 0.12, 0.6]), rng.uniform(0, 0.3), rng.uniform(0.2, 0.95)
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.35, 1), rng.uniform(0.3, 1)
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return red, green, blue


def draw_family(rng: np.random.Generator, parts: Sequence[str] = TRAINING_PARTS) -> Family:
    """Draw a family of one of these part types; two draws are practically never alike."""
    return Family(
        part=str(rng.choice(parts)),
        shape=tuple(rng.uniform(0, 1, 6)),
        profile=str(rng.choice(PROFILES)),
        material=str(rng.choice(MATERIALS)),
        color=draw_color(rng),
        accent=draw_color(rng),
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


def draw_grammar_family(rng: np.random.Generator) -> Family:
    """A training family; four in five have an outline of the grammar instead of a named one."""
    family = draw_family(rng)
    return replace(family, part=part_of_grammar(rng)) if rng.random() < GRAMMAR_SHARE else family


def draw_rich_family(rng: np.random.Generator, compound: float = COMPOUND_SHARE) -> Family:
    """A training family with more to it: an outline of the grammar, a texture, a wider range of sizes, pieces."""
    family = replace(draw_grammar_family(rng), size=float(np.exp(rng.uniform(-0.45, 0.45))))
    if rng.random() < TEXTURED_SHARE:
        family = replace(family, texture=int(rng.integers(1 << 40)))
    if rng.random() < compound:
        family = replace(family, pieces=tuple(_draw_piece(rng) for _ in range(int(rng.integers(1, 3)))))
    return family


def mutate_rich_family(rng: np.random.Generator, family: Family) -> Family:
    """Draw a look-alike of a rich family: its outline, its colours and texture, or its surface drawn anew."""
    other = draw_rich_family(rng, 0.0)
    which = int(rng.integers(3))
    if which == 0:
        return replace(family, part=other.part, shape=other.shape)
    if which == 1:
        return replace(family, color=other.color, accent=other.accent, texture=other.texture)
    return replace(family, profile=other.profile, material=other.material, pattern=other.pattern, texture=other.texture)


def vary_family(rng: np.random.Generator, family: Family, amount: float) -> Family:
    """An individual of a family as living things and worn ones are: a little of its own in outline, colour and size.

    Args:
        rng: the only source of chance.
        family: of which an individual is drawn.
        amount: about the share by which its traits differ.
    """
    shape = np.clip(np.array(family.shape) + rng.normal(0, amount, 6), 0, 0.9999)
    color = np.clip(np.array(family.color) * np.exp(rng.normal(0, amount)), 0, 1)
    size = family.size * float(np.exp(rng.normal(0, amount)))
    return replace(family, shape=tuple(shape.tolist()), color=tuple(color.tolist()), size=size)


def _draw_piece(rng: np.random.Generator) -> Piece:
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9)
    place = (float(reach * np.cos(angle)), float(reach * np.sin(angle)))
    return Piece(draw_rich_family(rng, 0.0), place, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.35, 0.8)))
