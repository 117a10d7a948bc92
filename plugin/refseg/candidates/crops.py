"""An object cut out of its image: where the crop lies, how much of each patch the object fills, and the mean of its patches.

References are looked at this way (method.md, B1 and B2), and candidates when they are looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

CROP_MARGIN = 1.2
"""Side of the square crop, as a multiple of the box's longer side (method.md B1)."""

SNAP = 1e-6
"""A corner this near to a whole pixel is that pixel: relative boxes do not come back to the last digit."""


def instance_vector(patch_features: Tensor, weights: Tensor) -> Tensor | None:
    """The weighted mean of patch features (method.md B2), or None where the weights sum to 0.

    Args:
        patch_features: (G², C), row-major.
        weights: (G²,) in [0, 1].
    """
    total = weights.sum()
    if not total > 0:
        return None
    return (weights.to(patch_features.dtype) @ patch_features) / total


def crop_corners(box: Sequence[float], image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a box, whose corners are cut to whole pixels first, cut at the image's border (method.md B1).

    Args:
        box: x0, y0, x1, y1 in pixels.
        image_hw: height and width of the image.

    Returns:
        x0, y0, x1, y1 in whole pixels, far edge excluded, at least one pixel wide and high.

    Example:
        >>> crop_corners((10.7, 10.2, 30.9, 20), (100, 100))
        (8, 3, 32, 27)
    """
    x0, y0, x1, y1 = (math.trunc(side + math.copysign(SNAP, side)) for side in box)
    half = max(x1 - x0, y1 - y0) * CROP_MARGIN / 2
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = image_hw
    left = min(max(0, int(center_x - half)), width - 1)
    top = min(max(0, int(center_y - half)), height - 1)
    right, bottom = min(width, int(center_x + half)), min(height, int(center_y + half))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def crop_weights(mask: Tensor, encoder_side: int, patches_side: int) -> Tensor:
    """Weight of each patch of a crop: the mask bilinear to E × E, then nearest to G × G (method.md B1).

    Args:
        mask: (h, w) bool, the crop's pixels.
        encoder_side: E.
        patches_side: G.

    Returns:
        (G²,) float32 in [0, 1], row-major.
    """
    fine = F.interpolate(mask[None, None].float(), size=(encoder_side, encoder_side), mode="bilinear", align_corners=False)
    return F.interpolate(fine, size=(patches_side, patches_side), mode="nearest").flatten()
