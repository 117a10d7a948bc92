"""What the demo segmenter is shown in a step: parts of scenes, clicks and boxes on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..pool import Pool
from ..world.camera import photograph_again

MIXTURE = {"plain": 0.34, "rich": 0.2, "leaves": 0.21, "crowds": 0.25}
"""How often a picture comes from each pool."""
CLICKS = 20
BOXES = 4
TRAY_CLICKS = {"plain": 3, "rich": 2, "leaves": 0, "crowds": 3}
"""Of the clicks, those beside all objects. On leaves there is hardly a place beside them."""
MIN_PIXELS = 40
SCALES = (0.7, 1.8)
"""Smallest and largest side of a scene's pixel in the picture."""


@dataclass(frozen=True)
class Shown:
    """A picture with prompts.

    Attributes:
        picture: (S, S, 3) uint8.
        labels: (S, S) uint8; 0 is background.
        points: (P, 2) float32 xy pixels of clicks.
        clicked: (P,) int64, the object under each; 0 beside them.
        corners: (Q, 2, 2) float32 xy pixels of boxes.
        boxed: (Q,) int64, the object in each.
    """

    picture: NDArray[np.uint8]
    labels: Tensor
    points: Tensor
    clicked: Tensor
    corners: Tensor
    boxed: Tensor


def draw_shown(rng: np.random.Generator, pools: Mapping[str, Pool], side: int) -> Shown:
    """A picture of one of the pools, with prompts."""
    names = [name for name in MIXTURE if name in pools]
    shares = np.array([MIXTURE[name] for name in names])
    while True:
        name = str(rng.choice(names, p=shares / shares.sum()))
        pool = pools[name]
        row, view = int(rng.integers(len(pool.images))), int(rng.integers(pool.images.shape[1]))
        picture, labels = _crop(rng, pool.images[row, view], pool.ids[row, view], side)
        counts = np.bincount(labels.ravel(), minlength=2)
        present = [number for number in range(1, len(counts)) if counts[number] >= MIN_PIXELS]
        if not present:
            continue
        on_tray = TRAY_CLICKS[name] if counts[0] >= 400 else 0
        clicked = [int(number) for number in rng.choice(present, CLICKS - on_tray)] + [0] * on_tray
        boxed = [int(number) for number in rng.choice(present, BOXES)]
        points = np.array([_pixel(rng, labels == number) for number in clicked], np.float32)
        corners = np.array([_box(rng, labels == number) for number in boxed], np.float32)
        tensors = [torch.from_numpy(part) for part in (labels, points, np.array(clicked), corners, np.array(boxed))]
        return Shown(photograph_again(rng, picture), *tensors)


def covered(labels: Tensor, owners: Tensor) -> Tensor:
    """(P, S/4, S/4) share of each cell of (S, S) labels that belongs to each of (P,) owners."""
    return F.avg_pool2d((labels[None] == owners[:, None, None]).float()[:, None], 4)[:, 0]


def _crop(rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8], side: int) -> tuple[Any, Any]:
    """A part of a scene at about its own scale, turned, mirrored, its colours exchanged."""
    height, width = ids.shape
    scale = np.exp(rng.uniform(*np.log(SCALES))) * np.exp(rng.uniform(-0.15, 0.15, 2))
    h, w = min(height, int(side / scale[0])), min(width, int(side / scale[1]))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    box = (x, y, x + w, y + h)
    picture = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box))
    labels = np.asarray(Image.fromarray(ids).resize((side, side), Image.Resampling.NEAREST, box))
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    picture, labels = np.rot90(picture, turns), np.rot90(labels, turns)
    if flip:
        picture, labels = picture[:, ::-1], labels[:, ::-1]
    return picture[:, :, rng.permutation(3)].copy(), labels.copy()


def _pixel(rng: np.random.Generator, mask: NDArray[np.bool_]) -> tuple[int, int]:
    pixels = np.flatnonzero(mask)
    y, x = divmod(int(pixels[int(rng.integers(len(pixels)))]), mask.shape[1])
    return x, y


def _box(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Corners (2, 2) of a mask's box, for most each moved by up to a tenth of the side."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], float)
    corners += rng.uniform(-0.1, 0.1, (2, 2)) * (corners[1] - corners[0]) * (rng.random() < 0.7)
    return np.asarray(np.clip(corners, 0, len(mask)))
