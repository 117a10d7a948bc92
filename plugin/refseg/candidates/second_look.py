"""A second look: an object alone, cut out as references are, at half the encoder's side, everything else painted grey.

The first look pools a candidate's feature from the whole image, where a small object fills few patches and neighbours shine
through. The second look costs a quarter of a pass over the whole image, so only the best candidates of an image get one. What
is kept of it is the mean and the deviation of the object's patches: how it looks, and how much its parts differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..images import encoder_pixels
from ..models import BatchKey, Models, batches_in_threads
from ..printing import one_line
from .crops import crop_corners, crop_weights, instance_vector
from .proposing import encode_patches

GREY = 0.5
"""What is not the object is painted in this shade, in candidates and references alike."""
LOOK_VERSION = 1
"""To be raised by whoever changes what comes out for an object, so that no older look is compared with a newer one."""
CROPS_A_BATCH = {"cpu": 8, "cuda": 64, "mps": 16}


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object of an image.

    Attributes:
        mask: (h, w) bool, the object.
        corner: x and y of the mask's first pixel in the image; it may reach beyond the image.
        box: x0, y0, x1, y1 in pixels of the image, far edge excluded: what the crop is made around.
    """

    mask: Tensor
    corner: tuple[int, int]
    box: tuple[float, float, float, float]

    __repr__ = one_line

    def within(self, corners: tuple[int, int, int, int]) -> Tensor:
        """(h, w) bool: the mask in a part of the image, xyxy pixels, far edge excluded."""
        left, top, right, bottom = corners
        part = torch.zeros(bottom - top, right - left, dtype=torch.bool)
        (x, y), (height, width) = self.corner, self.mask.shape
        x0, y0, x1, y1 = max(left, x), max(top, y), min(right, x + width), min(bottom, y + height)
        if x1 > x0 and y1 > y0:
            part[y0 - top : y1 - top, x0 - left : x1 - left] = self.mask[y0 - y : y1 - y, x0 - x : x1 - x]
        return part


@torch.inference_mode()
def look_again(image: Image.Image, objects: Sequence[CutOut], models: Models) -> Tensor:
    """Second looks at some objects of an image, on the CPU, rounded as an index keeps them.

    Args:
        image: upright RGB.
        objects: any number.
        models: whose encoder looks.

    Returns:
        (n, D) float32, D = 2C: the mean of the patches, weighted by how much of each the object fills, and their deviation,
        each of unit length, the two together too; zeros where the object is too thin to fill any patch.

    Raises:
        ModelMemoryError: one crop alone does not fit into memory.
    """
    if not objects:
        return torch.zeros(0, models.look_width)
    image.load()  # before threads cut from it

    def look(some: Sequence[CutOut]) -> list[Tensor]:
        crops, weights = zip(*[_painted(image, item, models) for item in some], strict=True)
        features = encode_patches(torch.stack(crops).to(models.device), models).float().cpu()
        return [_summary(own, weight) for own, weight in zip(features, weights, strict=True)]

    start = CROPS_A_BATCH[models.device.type]
    with models.lock:
        answers = batches_in_threads(objects, BatchKey.of("crops", models), start, look)
    return torch.stack([one for some in answers for one in some]).half().float()


def _painted(image: Image.Image, item: CutOut, models: Models) -> tuple[Tensor, Tensor]:
    """The encoder's (3, E/2, E/2) pixels of an object, all else grey, and how much of each patch the object fills, (G²,)."""
    corners = crop_corners(item.box, (image.height, image.width))
    own = item.within(corners)
    pixels = torch.from_numpy(np.array(image.crop(corners))).permute(2, 0, 1).float() / 255
    pixels[:, ~own] = GREY
    side = models.look_side
    return encoder_pixels(pixels[None], side)[0], crop_weights(own, side, side // models.patch_size)


def _summary(features: Tensor, weights: Tensor) -> Tensor:
    """(2C,) of (G², C) patches and (G²,) weights."""
    mean = instance_vector(features, weights)
    if mean is None:
        return torch.zeros(2 * features.shape[1])
    deviation = ((weights / weights.sum()) @ (features - mean).square()).sqrt()
    return F.normalize(torch.cat([F.normalize(mean, dim=-1), F.normalize(deviation, dim=-1)]), dim=-1)
