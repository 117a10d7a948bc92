"""How large labelled objects are, in pixels of their upright images: from their masks as MongoDB holds them, without images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as mask_utils

from ..dataset import (
    Document,
    StoredImage,
    as_object,
    has_box,
    is_box,
    object_box,
    object_region,
    stored_mask,
)
from ..errors import MaskError
from ..masks import encode_mask

EDGE = 1e-9
"""Shares of a side by which a box may leave its image through rounding."""


def area_of(label: Document, image: StoredImage) -> tuple[float, str]:
    """The area of an object in pixels of its image, and why its box alone counts although it has a mask, or "".

    Args:
        label: a Detection or Polyline as MongoDB holds it; of a mask the pixels that are set count, of an object without one
            those of its box within the image, of a line those that it surrounds.
        image: that it lies in.

    Raises:
        ImageError: neither the image's file nor its metadata tells its size.
        LabelError: the object has no place in its image.
    """
    box = label.get("bounding_box")
    if label.get("_cls") == "Polyline" or not _lies_inside(box):
        return _area_in_image(label, image)
    reason = ""
    try:
        mask = stored_mask(label)
    except MaskError as error:
        mask, reason = None, error.reason
    whole = box[2] * box[3] * image.num_pixels
    if mask is None:
        return whole, reason
    number = int(np.count_nonzero(mask))
    # A pixel of difference on each side is rounding by whoever cut the mask; a mask of another size is stretched over its box.
    is_to_scale = abs(mask.size - whole) <= sum(mask.shape) + 1
    return (float(number) if is_to_scale else number * whole / mask.size), ""


def _area_in_image(label: Document, image: StoredImage) -> tuple[float, str]:
    """The same of an object that may leave its image, which takes longer."""
    reason = ""
    try:
        box, mask = object_region(as_object(label), image.hw)
    except MaskError as error:
        bare = as_object(label, with_mask=False)
        if not has_box(bare):
            raise
        box, mask, reason = object_box(bare, image.hw), None, error.reason
    if mask is not None:
        return float(mask_utils.area(encode_mask(mask, box, image.hw))), ""
    height, width = image.hw
    sides = min(box[2], width) - max(box[0], 0), min(box[3], height) - max(box[1], 0)
    return float(sides[0] * sides[1]), reason


def _lies_inside(box: Any) -> TypeGuard[Sequence[float]]:
    """Whether a box, x, y, width and height as shares of its image, has an area and lies within the image."""
    if not is_box(box) or min(box[2:]) <= 0:
        return False
    return min(box[:2]) >= -EDGE and max(box[0] + box[2], box[1] + box[3]) <= 1 + EDGE
