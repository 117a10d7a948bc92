"""One reader of instance masks as people store them: arrays of any kind, and picture files. No FiftyOne, no torch.

Editors and exporters write the same mask as one bit, as grey, in colour, with a palette, or with an alpha channel that is
opaque everywhere, or that is the mask itself.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SOFT_THRESHOLD = 0.5
"""Above which a mask of shares, 0 to 1, holds a pixel."""
MOST_CHANNELS = 4


def as_mask(values: Any) -> NDArray[np.bool_]:
    """The pixels that a stored mask holds.

    Args:
        values: (h, w), (1, h, w), or (h, w, c) with one channel, grey and alpha, colours, or colours and alpha. What is not 0
            is the mask; of floats up to 1 what is above SOFT_THRESHOLD. Alpha counts where it differs from pixel to pixel.

    Returns:
        (h, w) bool.

    Raises:
        ValueError: the array has another shape, or holds no numbers.

    Example:
        >>> opaque = np.full((1, 2, 4), 255, np.uint8)
        >>> opaque[0, 0, :3] = 0
        >>> as_mask(opaque).tolist(), as_mask([[0.2, 0.7]]).tolist()
        ([[False, True]], [[False, True]])
    """
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise ValueError("it holds no numbers")
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > MOST_CHANNELS:
        array = array[0]
    if array.ndim == 3 and array.shape[2] in (1, 3):
        return np.asarray(_is_set(array).any(-1))
    if array.ndim == 3 and array.shape[2] in (2, 4):
        colours, alpha = np.asarray(_is_set(array[..., :-1]).any(-1)), array[..., -1]
        if not alpha.size or (alpha == alpha.flat[0]).all():
            return colours
        opaque = _is_set(alpha)
        is_plain = (array[..., :-1] == array[:1, :1, :-1]).all()
        return opaque if is_plain else colours & opaque
    if array.ndim != 2:
        raise ValueError(f"it has the shape {array.shape}, not (height, width)")
    return _is_set(array)


def read_mask_file(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """The mask in a picture file, (h, w) bool.

    The numbers of a palette count, 0 for background, unless all of its colours are greys, which then count themselves. Of a
    JPEG what is brighter than half of its brightest pixel counts, because compression leaves traces around the object.

    Raises:
        OSError: the file is missing or no picture.
        ValueError: its pixels are no mask.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.format == "JPEG":
                grey = np.asarray(image.convert("RGB")).max(-1)
                return np.asarray(grey > grey.max() / 2)
            if image.mode == "PA":
                return as_mask(np.asarray(image)[..., 0])
            if image.mode == "P" and _is_grey(image):
                return as_mask(np.asarray(image.convert("L")))
            return as_mask(np.asarray(image))
    except (SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _is_set(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind != "f":
        return np.asarray(values != 0)
    known = np.nan_to_num(values)
    is_share = bool(known.size) and known.max() <= 1
    return np.asarray(known > SOFT_THRESHOLD if is_share else known > 0)


def _is_grey(image: Image.Image) -> bool:
    """Whether every colour that the picture uses is a grey."""
    used = np.unique(np.asarray(image))
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours = colours[used[used < len(colours)]]
    return bool((colours == colours[:, :1]).all())
