"""What else is to be seen in the images of references, and in images known to be empty: candidates that teach where to say no.

Needs the candidates of these images, from an index or proposed anew; choosing among them takes about a millisecond an image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor
from torchvision.ops import nms

from ..candidates import Candidates, PackedCandidates, pack
from ..errors import ShapeError
from ..printing import counted, one_line

SHOWS_IOU = 0.5
"""A candidate shows a reference when its mask has this IoU with the reference's."""
MAX_INSIDE = 0.1
"""A candidate of which less lies inside any known object overlaps none."""
SAME_PLACE_IOU = 0.5
"""Of candidates whose boxes have more IoU than this only one counts, as after the NMS of matching."""
MAX_AN_IMAGE = 48
"""Candidates around references that are kept of one image, those of the highest predicted IoU."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Candidates of images whose objects are known.

    Attributes:
        features: (N, C) float16, unit length, pooled features as of any candidate.
        images: key of the image of each, see image_key.
        shown: id of the reference that each shows; "" for one that overlaps no known object.
    """

    features: Tensor
    images: tuple[str, ...]
    shown: tuple[str, ...]

    def __repr__(self) -> str:
        showing, images = sum(map(bool, self.shown)), len(set(self.images))
        return f"Surroundings({len(self)} candidates of {counted(images, 'image')}: {showing} show references)"

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.images) == len(self.shown):
            raise ShapeError(
                f"Surroundings need one feature, image and reference each, but there are {len(self.features)}, "
                f"{len(self.images)} and {len(self.shown)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def add(self, other: Surroundings) -> Surroundings:
        """These and other's together; an image in both is as in other."""
        newer = set(other.images)
        own = self._take([row for row, image in enumerate(self.images) if image not in newer])
        return Surroundings(torch.cat([own.features, other.features]), own.images + other.images, own.shown + other.shown)

    def remove(self, ids: Collection[str]) -> Surroundings:
        """Without the candidates that show some references: their objects are no references any more, but no strangers."""
        return self._take([row for row, name in enumerate(self.shown) if name not in ids])

    def _take(self, rows: Sequence[int]) -> Surroundings:
        return Surroundings(
            self.features[list(rows)], tuple(self.images[row] for row in rows), tuple(self.shown[row] for row in rows)
        )


@dataclass(frozen=True, eq=False)
class KnownObject:
    """An object of an image whose candidates are looked at.

    Attributes:
        id: of the reference; "" for an object that is labelled and no reference: what shows it is left out.
        mask: (H, W) bool, of the whole image, at whatever size.
    """

    id: str
    mask: Tensor

    __repr__ = one_line


def image_key(path: str) -> str:
    """What stands for an image among references and their surroundings: twelve hexadecimal digits of its path."""
    return hashlib.sha256(os.path.abspath(path).encode(errors="surrogatepass")).hexdigest()[:12]


def look_around(candidates: Candidates | PackedCandidates, objects: Sequence[KnownObject], image: str) -> Surroundings:
    """Of the candidates of one image, those that show references and those that overlap no known object.

    Of the candidates that show a reference the one of the highest predicted IoU stands for it, as the NMS of matching would
    have it.

    Args:
        candidates: of the image.
        objects: every object that is known to lie in it, of any class; none for an empty image.
        image: its key.
    """
    packed = candidates if isinstance(candidates, PackedCandidates) else pack(candidates)
    iou, inside = _overlaps(packed, objects)
    quality = packed.predicted_iou.numpy()
    rows, shown = [], []
    for column, known in enumerate(objects):
        showing = np.flatnonzero(iou[:, column] >= SHOWS_IOU)
        if known.id and len(showing):
            rows.append(int(showing[quality[showing].argmax()]))
            shown.append(known.id)
    free = np.flatnonzero(inside.max(1, initial=0) < MAX_INSIDE)
    apart = nms(packed.boxes[free], packed.predicted_iou[free], SAME_PLACE_IOU)[:MAX_AN_IMAGE]
    rows += free[apart.numpy()].tolist()
    shown += [""] * len(apart)
    return Surroundings(packed.features[rows].half(), (image,) * len(rows), tuple(shown))


def _overlaps(packed: PackedCandidates, objects: Sequence[KnownObject]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, R) IoU of each candidate with each object on the mask grid, and how much of the candidate lies inside it."""
    if not len(packed) or not objects:
        empty = np.zeros((len(packed), len(objects)))
        return empty, empty
    size = [packed.grid_side, packed.grid_side]
    codes = [{"size": size, "counts": code} for code in packed.codes.to_pylist()]
    cells = [F.interpolate(known.mask[None, None].float(), size=size, mode="area")[0, 0] > 0.5 for known in objects]
    known_codes = [mask_utils.encode(np.asfortranarray(cell.numpy().astype(np.uint8))) for cell in cells]
    # With the objects marked as crowds pycocotools divides the intersection by the area of the candidate alone.
    iou = mask_utils.iou(codes, known_codes, [0] * len(objects))
    return iou, mask_utils.iou(codes, known_codes, [1] * len(objects))
