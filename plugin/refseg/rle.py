"""Masks as COCO's run-length codes, checked before pycocotools sees them.

Files come from many tools. Given a polygon far outside its image pycocotools exhausts the memory, and from a code that
is too short it makes up the rest of the mask; neither is an error there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils

from .errors import CocoError

MAX_POLYGON_OUTSIDE = 1.0
"""How far a polygon may reach outside its image, in image sides; pycocotools walks every pixel of an edge."""


def annotation_rle(annotation: Mapping[str, Any], image_hw: tuple[int, int], source: str) -> dict[str, Any] | None:
    """The mask of an annotation or result as pycocotools' compressed run-length code, checked against its image.

    Args:
        annotation: its 'segmentation' may be polygons or either run-length code.
        image_hw: height and width of the image.
        source: the file, for messages.

    Returns:
        {"size": [H, W], "counts": bytes}, or None where there is no mask.

    Raises:
        CocoError: the mask does not fit the image.
    """
    shape = annotation.get("segmentation")
    what = f"The mask of annotation {annotation.get('id')!r} in {source}"
    if not shape:
        return None
    if isinstance(shape, dict):
        return _checked_rle(shape, image_hw, what)
    if not isinstance(shape, list):
        raise CocoError(f"{what} is neither polygons nor a run-length code.")
    polygons = [polygon for polygon in shape if isinstance(polygon, list) and len(polygon) >= 6]
    if not polygons:
        return None
    height, width = image_hw
    for polygon in polygons:
        if len(polygon) % 2 or not all(is_number(value) for value in polygon):
            raise CocoError(f"{what} has a polygon that is not a list of x, y, x, y, … numbers.")
        reach = MAX_POLYGON_OUTSIDE
        xs, ys = polygon[::2], polygon[1::2]
        if (
            min(xs) < -reach * width
            or max(xs) > (1 + reach) * width
            or min(ys) < -reach * height
            or max(ys) > (1 + reach) * height
        ):
            raise CocoError(f"{what} lies far outside its image of {width}×{height} pixels: coordinates must be pixels of it.")
    merged: dict[str, Any] = mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))
    return merged


def encode_mask(mask: NDArray[np.bool_], box: Sequence[float], image_hw: tuple[int, int]) -> dict[str, Any]:
    """Run-length code, in the coordinates of the whole image, of a mask that covers a box.

    Args:
        mask: (h, w) bool; stretched where it is more than a pixel larger or smaller than the box.
        box: x0, y0, x1, y1 pixels, far edge excluded.
        image_hw: height and width of the image.

    Returns:
        {"size": [H, W], "counts": bytes}.

    Example:
        >>> code = encode_mask(np.ones((1, 2), bool), (1, 0, 3, 1), (2, 4))
        >>> decode_mask(code).astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    x0, y0 = round(box[0]), round(box[1])
    h, w = max(1, round(box[3]) - y0), max(1, round(box[2]) - x0)
    # A pixel of difference is rounding by whoever cut the mask; stretching would only blur the true pixels.
    if mask.size and max(abs(mask.shape[0] - h), abs(mask.shape[1] - w)) > 1:
        stretched = Image.fromarray(mask.astype(np.uint8) * 255).resize((w, h), Image.Resampling.NEAREST)
        mask = np.asarray(stretched) > 0
    height, width = image_hw
    whole = np.zeros((height, width), np.uint8, order="F")
    top, left = max(0, y0), max(0, x0)
    bottom, right = min(height, y0 + mask.shape[0]), min(width, x0 + mask.shape[1])
    if bottom > top and right > left:
        whole[top:bottom, left:right] = mask[top - y0 : bottom - y0, left - x0 : right - x0]
    code: dict[str, Any] = mask_utils.encode(whole)
    return code


def decode_mask(code: Mapping[str, Any]) -> NDArray[np.bool_]:
    """(H, W) bool of a checked compressed code; pycocotools' own decoder warns under NumPy 2."""
    height, width = code["size"]
    runs = _run_lengths(code["counts"])
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def crop_mask(whole: NDArray[np.bool_], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(h, w) bool: the pixels of the box as prototypes place them, False beyond the image."""
    x0, y0 = round(box[0]), round(box[1])
    w, h = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    cut = whole[y0 : y0 + h, x0 : x0 + w]
    return np.pad(cut, ((0, h - cut.shape[0]), (0, w - cut.shape[1])))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _checked_rle(code: dict[str, Any], image_hw: tuple[int, int], what: str) -> dict[str, Any]:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or tuple(size) != image_hw:
        raise CocoError(f"{what} is made for the size {size} (height, width), but its image is {list(image_hw)}.")
    if isinstance(counts, bytes):  # never from JSON: our own encoder's
        return code
    try:
        runs = _run_lengths(counts.encode("ascii")) if isinstance(counts, str) else counts
        valid = isinstance(runs, list) and sum(runs) == size[0] * size[1] and min(runs) >= 0
    except (IndexError, TypeError, ValueError):
        valid = False
    if not valid:
        raise CocoError(f"{what} is a damaged run-length code: its runs do not add up to {size[1]}×{size[0]} pixels.")
    if isinstance(counts, str):
        return {"size": size, "counts": counts.encode("ascii")}
    compressed: dict[str, Any] = mask_utils.frPyObjects(code, *image_hw)
    return compressed


def _run_lengths(text: bytes) -> list[int]:
    """Run lengths of a compressed code: five bits a character, from the fourth on as differences to the last but one.

    Example:
        >>> _run_lengths(mask_utils.encode(np.asfortranarray(np.eye(3, dtype=np.uint8)))["counts"])
        [0, 1, 3, 1, 3, 1]
    """
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            digit = text[position] - 48
            if not 0 <= digit < 64:
                raise ValueError("not a character of a run-length code")
            value |= (digit & 31) << shift
            shift += 5
            position += 1
            more = bool(digit & 32)
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
