"""What the demo encoder is shown in a step: scenes of some families, and crops of their instances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pool import MAX_FAMILIES, Pool
from ..world.camera import relight

PATCH = 14
MIN_SHARE = 0.003
"""Objects that cover less of a picture than this are left out."""
ERASED = 127
"""What a second look paints over everything that is not the object."""

Place = tuple[int, NDArray[np.float32]]
"""A picture's row, and the weight of each of its patches."""


@dataclass
class Step:
    """Scenes of some pairs, and where their families are.

    Attributes:
        scenes: (S, S, 3) pictures.
        first: for each family its place in one scene of its pair.
        second: in the other one.
        tray: places of empty tray.
        families: for each family the number of its pair, its number there, and which scene of the pair was taken first.
        channels: for each pair the order of its colour channels.
    """

    scenes: list[NDArray[np.uint8]] = field(default_factory=list)
    first: list[Place] = field(default_factory=list)
    second: list[Place] = field(default_factory=list)
    tray: list[Place] = field(default_factory=list)
    families: list[tuple[int, int, int]] = field(default_factory=list)
    channels: dict[int, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Crop:
    """An object looked at closely.

    Attributes:
        picture: (S, S, 3).
        weights: of its patches.
    """

    picture: NDArray[np.uint8]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Crops:
    """Crops of both instances of some families.

    Attributes:
        families: rows of Step.first.
        of: the crop from the first scene and from the second.
    """

    families: list[int]
    of: list[tuple[Crop, Crop]]


def draw_step(rng: np.random.Generator, pool: Pool, pairs: list[int], side: int, *, augment: bool = True) -> Step:
    """Both scenes of some pairs, and the patch weights of every object on them."""
    step = Step()
    for pair in pairs:
        first = 0 if rng.random() < 0.5 else 1
        step.channels[pair] = rng.permutation(3) if augment else np.arange(3)
        row = len(step.scenes)
        labels = []
        for view in (first, 1 - first):
            ids = pool.ids[pair, view]
            box = _frame(rng, ids.shape[0], ids.shape[1], augment)
            image = Image.fromarray(np.ascontiguousarray(pool.images[pair, view][..., step.channels[pair]]))
            picture = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
            step.scenes.append(relight(rng, picture) if augment else picture)
            labels.append(np.asarray(Image.fromarray(ids).resize((side, side), Image.Resampling.NEAREST, box)))
        for family in rng.permutation(np.arange(1, MAX_FAMILIES + 1)).tolist():
            covers = [own == family for own in labels]
            if min(cover.mean() for cover in covers) < MIN_SHARE:
                continue
            if augment:
                covers = [_sloppy(rng, cover) for cover in covers]
            step.families.append((pair, family, first))
            step.first.append((row, _patch_weights(covers[0])))
            step.second.append((row + 1, _patch_weights(covers[1])))
        for which in range(2):
            tray = _tray_mask(rng, labels[which])
            if tray is not None:
                step.tray.append((row + which, _patch_weights(tray)))
    return step


def draw_crops(
    rng: np.random.Generator,
    pool: Pool,
    step: Step,
    number: int,
    side: int,
    *,
    augment: bool = True,
    erased: bool | None = None,
) -> Crops:
    """Crops of both instances of some of a step's families, of each pair about as many.

    Args:
        rng: the only source of chance.
        pool: of the step.
        step: whose families are cropped.
        number: of families, at most.
        side: of the crops in pixels.
        augment: draw their frames, turns and light by chance.
        erased: paint over what is not the object; None for half of them.
    """
    share = -(-number // len(step.channels))
    taken: dict[int, int] = {}
    crops = Crops([], [])
    for row, (pair, family, first) in enumerate(step.families):
        if taken.get(pair, 0) >= share or len(crops.families) >= number:
            continue
        taken[pair] = taken.get(pair, 0) + 1
        erase = rng.random() < 0.5 if erased is None else erased
        views = (first, 1 - first)
        own = [_crop(rng, pool, (pair, view), family, step.channels[pair], side, augment, erase) for view in views]
        crops.families.append(row)
        crops.of.append((own[0], own[1]))
    return crops


def _crop(
    rng: np.random.Generator,
    pool: Pool,
    scene: tuple[int, int],
    family: int,
    channels: NDArray[Any],
    side: int,
    augment: bool,
    erase: bool,
) -> Crop:
    mask = np.asarray(pool.ids[scene] == family)
    if augment:
        mask = _sloppy(rng, mask)
    box = _zoom_box(mask, float(rng.uniform(1.1, 1.35)) if augment else 1.2)
    image = Image.fromarray(np.ascontiguousarray(pool.images[scene][..., channels]))
    picture = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BILINEAR, box)
    inside = np.asarray(cover) > 127
    if erase:
        picture = np.where(inside[..., None], picture, ERASED).astype(np.uint8)
    turns = int(rng.integers(4)) if augment else 0
    picture, inside = np.rot90(picture, turns), np.rot90(inside, turns)
    return Crop(np.ascontiguousarray(relight(rng, picture) if augment else picture), _patch_weights(inside))


def _patch_weights(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(patches,) share of each patch that a (S, S) mask covers."""
    patches = len(mask) // PATCH
    return np.asarray(mask.reshape(patches, PATCH, patches, PATCH).mean((1, 3), dtype=np.float32).reshape(-1))


def _zoom_box(mask: NDArray[np.bool_], margin: float) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    half = max(np.ptp(ys), np.ptp(xs)) * margin / 2 + 1
    cy, cx = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2
    height, width = mask.shape
    x0, y0 = max(0, int(cx - half)), max(0, int(cy - half))
    return x0, y0, min(width, int(cx + half) + 1), min(height, int(cy + half) + 1)


def _sloppy(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask as a segmenter might draw it: in half of the cases two pixels too small or too large."""
    chance = rng.random()
    if chance >= 0.5:
        return mask
    shifted = [np.roll(mask, shift, axis) for shift in (-2, 2) for axis in (0, 1)]
    if chance < 0.25:
        return np.asarray(np.logical_or.reduce([mask, *shifted]))
    smaller = np.logical_and.reduce([mask, *shifted])
    return np.asarray(smaller) if smaller.sum() > 100 else mask


def _tray_mask(rng: np.random.Generator, labels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """A disc of empty tray on (S, S) labels, or None where it would show too little of it."""
    side = len(labels)
    y, x = np.ogrid[:side, :side]
    r = rng.uniform(0.045, 0.135) * side
    disc = (y - rng.uniform(0, side)) ** 2 + (x - rng.uniform(0, side)) ** 2 < r * r
    free = disc & (labels == 0)
    return free if free.mean() > MIN_SHARE else None


def _frame(rng: np.random.Generator, height: int, width: int, augment: bool) -> tuple[int, int, int, int]:
    if not augment or rng.random() < 0.4:
        return 0, 0, width, height
    w, h = int(width * rng.uniform(0.55, 1)), int(height * rng.uniform(0.55, 1))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return x, y, x + w, y + h
