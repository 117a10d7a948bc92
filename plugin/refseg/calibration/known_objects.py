"""What is known of images, as calibration takes it: labelled objects as masks, and images that hold none. No FiftyOne."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import Candidates, PackedCandidates, pack
from ..masks import MAX_SIDES
from ..prototypes import KnownObject, Surroundings, paste_mask

BOX_IOU = 0.7
"""A box stands for the mask of the candidate that fits it best, where the two boxes have this IoU."""
MAX_EMPTY = 200
"""Images known to be empty whose candidates calibration keeps, evenly spread over all there are: each takes up to 96 KB."""
MAX_STRANGERS = 20_000
"""Candidates that overlap no known object, of all images together: 40 MB of features of width 1024."""


def known_object(
    name: str, box: Sequence[float], mask: NDArray[np.bool_] | None, candidates: Candidates | PackedCandidates
) -> KnownObject | None:
    """A labelled object as `prototypes.surroundings.look_around` takes it; None where its box is empty or outside the image.

    Of an object known by its box alone the candidate that fits the box best stands for the mask, so that no model is asked;
    where none fits, the whole box does.

    Args:
        name: id of the reference; "" for an object that is none.
        box: x0, y0, x1, y1 in pixels of the upright image, far edge excluded.
        mask: (h, w) bool, stretched over the box; None for a box alone.
        candidates: of the image.
    """
    height, width = candidates.image_hw
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)) or not (x1 > x0 and y1 > y0) or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return None
    if x1 - x0 > MAX_SIDES * width or y1 - y0 > MAX_SIDES * height:
        return None
    if mask is not None:
        return KnownObject(name, paste_mask(mask, box, (height, width)))
    fitting = _fitting(box, candidates)
    return KnownObject(name, paste_mask(np.ones((1, 1), bool), box, (height, width)) if fitting is None else fitting)


def spread(count: int, most: int = MAX_EMPTY) -> list[int]:
    """Rows of at most so many of a list, evenly spread.

    Example:
        >>> spread(7, 3), spread(2, 3)
        ([0, 3, 6], [0, 1])
    """
    return [int(row) for row in np.linspace(0, count - 1, min(count, most)).round()]


def join_surroundings(parts: Sequence[Surroundings]) -> Surroundings:
    """Those of several images, at least one, none of them twice; of very many that show no reference some, evenly spread."""
    every = Surroundings.join(parts)
    strangers = [row for row, name in enumerate(every.shown) if not name]
    if len(strangers) <= MAX_STRANGERS:
        return every
    kept = {strangers[row] for row in spread(len(strangers), MAX_STRANGERS)}
    return every.take([row for row, name in enumerate(every.shown) if name or row in kept])


def _fitting(box: Sequence[float], candidates: Candidates | PackedCandidates) -> Tensor | None:
    """(M, M) bool: the mask of the candidate whose box fits this one best, if it does."""
    from torchvision.ops import box_iou  # takes two seconds, and nobody's first click should wait for it

    packed = candidates if isinstance(candidates, PackedCandidates) else pack(candidates)
    if not len(packed):
        return None
    height, width = packed.image_hw
    scale = torch.tensor([packed.grid_side / width, packed.grid_side / height] * 2)
    # Boxes of candidates end with their last cell.
    cells = packed.boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
    fits = box_iou((torch.tensor(box, dtype=torch.float32) * scale)[None], cells)[0]
    best = int(fits.argmax())
    return packed.logits_of(torch.tensor([best]))[0] > 0 if fits[best] >= BOX_IOU else None
