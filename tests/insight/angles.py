"""Prototypes of references at angles of a plane."""

from __future__ import annotations

import math

import torch

from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings

ODD = "r2"


def at(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def make_prototypes(
    angles: list[float], labels: list[int], shown_at: list[float] | None = None, strangers: dict[str, float] | None = None
) -> Prototypes:
    """References at angles of a plane, each in an image of its own, with a candidate that shows it, and strangers by image."""
    classes = ("star", "tee")[: max(labels) + 1]
    ids = tuple(f"r{number}" for number in range(len(labels)))
    images = tuple(f"i{number}" for number in range(len(labels)))
    around = None
    if shown_at is not None:
        more = strangers or {}
        features = torch.tensor([at(angle) for angle in [*shown_at, *more.values()]]).half()
        around = Surroundings(features, (*images, *more), (*ids, *[""] * len(more)))
    vectors = torch.tensor([at(angle) for angle in angles])
    return Prototypes(classes, vectors, torch.tensor(labels), ids, "demo", "encoder", images=images, surroundings=around)
