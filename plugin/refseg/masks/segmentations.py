"""The field 'segmentation' in the shapes that exporters give it, as one of two: polygons, or one run-length code. No FiftyOne.

Everything here raises a `CocoError` whose message is the rest of a sentence that begins with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from operator import mul
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as mask_utils

from ..errors import CocoError
from .run_lengths import run_lengths
from .values import number_of, size_of, whole_number_of

Polygons: TypeAlias = list[list[float]]

MAX_POLYGON_OUTSIDE = 1.0
"""How far a polygon may reach outside its image, in image sides; pycocotools walks every pixel of an edge."""
TOO_LARGE = 1 << 32
"""Pixels of an image in which pycocotools can tell no places: it counts them in 32 bits, and goes on from 0."""
CODES_AT_A_TIME = 512
"""Masks that are checked together, to bound the memory that takes."""


def read_shape(value: Any) -> Polygons | dict[str, Any] | None:
    """Polygons, each x, y, x, y, … of three points or more, or one code {"size": [H, W], "counts": text or list}.

    Read are lists of polygons, one polygon alone, polygons as lists of [x, y], a code, and lists of codes, which are joined;
    numbers may be texts. Parts of less than three points show nothing, and are left out of a mask that has others.

    Returns:
        None where there is no mask at all: null, or an empty list, object or text.

    Raises:
        CocoError: the mask cannot be used.

    Example:
        >>> read_shape([4, 2, 9, 2, 9, 8]), read_shape([[[4, 2], [9, 2], ["9", 8]]])
        ([[4, 2, 9, 2, 9, 8]], [[4, 2, 9, 2, 9.0, 8]])
    """
    if value is None or (isinstance(value, list | dict | str) and not value):
        return None
    if isinstance(value, dict):
        return _read_code(value)
    if not isinstance(value, list):
        raise CocoError("is neither polygons nor a run-length code.")
    if all(isinstance(part, dict) for part in value):
        return _joined([_read_code(part) for part in value])
    if all(not isinstance(part, list | dict) for part in value) or _are_points(value):
        value = [value]
    polygons = [_read_polygon(part) for part in value]
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    if not whole:
        raise CocoError("has no polygon of three points or more.")
    return whole


def check_fits(shape: Polygons | dict[str, Any], image_hw: tuple[int, int], *, shows: bool = False) -> None:
    """Check what `read_shape` gave against the image it belongs to.

    Args:
        shape: polygons or a code.
        image_hw: height and width of the image.
        shows: it must show something too.

    Raises:
        CocoError: the mask is made for another size, damaged, or lies far outside the image.
    """
    height, width = image_hw
    if height * width >= TOO_LARGE:
        raise CocoError(f"is of an image of {width}×{height} pixels, more than masks can count.")
    if isinstance(shape, dict):
        _check_code(shape, image_hw, shows)
        return
    inside = False
    for polygon in shape:
        xs, ys = polygon[::2], polygon[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        reach = MAX_POLYGON_OUTSIDE
        if left < -reach * width or right > (1 + reach) * width or top < -reach * height or bottom > (1 + reach) * height:
            raise CocoError(f"lies far outside its image of {width}×{height} pixels: coordinates must be pixels of it.")
        inside = inside or (left < width and right > 0 and top < height and bottom > 0 and right > left and bottom > top)
    # Only thin ones are drawn.
    if shows and not (inside and (any(map(_is_broad, shape)) or mask_utils.area(compressed(shape, image_hw)))):
        raise CocoError(f"shows no pixel of its image of {width}×{height}.")


def are_plain_polygons(shape: Any, image_hw: tuple[int, int] | None) -> bool:
    """Whether a mask is polygons that `read_shape` and `check_fits` would leave as they are, told at little cost.

    No is no answer: then these two are to be asked.
    """
    height, width = image_hw or (inf, inf)
    if not shape or (image_hw is not None and height * width >= TOO_LARGE):
        return False
    broad = False
    try:
        for polygon in shape:
            if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
                return False
            # A text or a list among the numbers is a TypeError; no number but NaN fails to be at least the least one.
            xs, ys = polygon[::2], polygon[1::2]
            left, right, top, bottom, total = min(xs), max(xs), min(ys), max(ys), sum(polygon)
            if not (-0.5 * width <= left < right <= 1.5 * width and -0.5 * height <= top < bottom <= 1.5 * height):
                return False
            if not (left < width and right > 0 and top < height and bottom > 0) or not -inf < total < inf:
                return False
            broad = broad or _is_broad(polygon)
    except (TypeError, OverflowError):  # of a whole number that is no float
        return False
    return broad


def _is_broad(polygon: Sequence[float]) -> bool:
    """Whether a polygon is too broad to slip between the pixels, told by its area."""
    xs, ys = polygon[::2], polygon[1::2]
    area: float = abs(sum(map(mul, xs, (*ys[1:], ys[0]))) - sum(map(mul, ys, (*xs[1:], xs[0])))) / 2
    return area > max(xs) - min(xs) + max(ys) - min(ys)


def fitting_codes(codes: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    """For each compressed code whether it fits its size and shows something; many at once take a tenth of the time."""
    fits: list[bool] = []
    for start in range(0, len(codes), CODES_AT_A_TIME):
        part, hws = codes[start : start + CODES_AT_A_TIME], sizes[start : start + CODES_AT_A_TIME]
        fits += _fitting(part, hws)
    return fits


def compressed(shape: Polygons | dict[str, Any], image_hw: tuple[int, int]) -> dict[str, Any]:
    """A checked mask as pycocotools takes it: {"size": [H, W], "counts": bytes}."""
    if isinstance(shape, list):
        drawn: dict[str, Any] = mask_utils.merge(mask_utils.frPyObjects(shape, *image_hw))
        return drawn
    counts = shape["counts"]
    if isinstance(counts, bytes):
        return shape
    if isinstance(counts, str):
        return {"size": shape["size"], "counts": counts.encode("ascii")}
    packed: dict[str, Any] = mask_utils.frPyObjects(shape, *image_hw)
    return packed


def _fitting(codes: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    try:
        runs, starts = run_lengths([code.encode("ascii") for code in codes])
    except ValueError:  # of characters outside of ASCII too
        return [False] if len(codes) == 1 else [_fitting([code], [hw])[0] for code, hw in zip(codes, sizes, strict=True)]
    # No sum of runs is below 0.
    areas = np.array([area if (area := height * width) < TOO_LARGE else -1 for height, width in sizes], np.int64)
    # Run by run first: sums of larger ones could overflow and come out right.
    within = (runs >= 0) & (runs <= np.repeat(areas, np.diff(starts)))
    shown = np.where((np.arange(len(runs)) - np.repeat(starts[:-1], np.diff(starts))) % 2 == 1, runs, 0)
    whole = np.logical_and.reduceat(within, starts[:-1]) & (np.add.reduceat(runs, starts[:-1]) == areas)
    fits: list[bool] = (whole & (np.add.reduceat(shown, starts[:-1]) > 0)).tolist()
    return fits


def _are_points(parts: Sequence[Any]) -> bool:
    """Whether a list holds [x, y] alone: as polygons these would be points, as points they are one polygon."""
    return all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in parts)


def _read_polygon(part: Any) -> list[float]:
    if isinstance(part, list) and part and _are_points(part):
        part = [value for point in part for value in point]
    numbers = [number_of(value) for value in part] if isinstance(part, list) else [None]
    known = [number for number in numbers if number is not None]
    if len(known) % 2 or len(known) < len(numbers):
        raise CocoError("has a polygon that is not a list of x, y, x, y, … numbers.")
    return known


def _read_code(code: dict[str, Any]) -> dict[str, Any]:
    size, counts = code.get("size"), code.get("counts")
    sides = [size_of(side) for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or None in sides:
        raise CocoError(f"is a run-length code of the size {size!r}, but height and width in pixels are needed.")
    if isinstance(counts, list):
        counts = [whole_number_of(run) for run in counts]
        counts = None if None in counts else counts
    if not isinstance(counts, list | str | bytes):
        raise CocoError("is a damaged run-length code: its 'counts' are neither a text nor whole numbers.")
    return {"size": sides, "counts": counts}


def _joined(codes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several codes as one, of all their pixels."""
    if len(codes) == 1:
        return codes[0]
    height, width = codes[0]["size"]
    for code in codes:
        # pycocotools makes up what a damaged code lacks.
        _check_code(code, (height, width), shows=False)
    merged = mask_utils.merge([compressed(code, (height, width)) for code in codes])
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def _check_code(code: dict[str, Any], image_hw: tuple[int, int], shows: bool) -> None:
    size, counts = code["size"], code["counts"]
    if tuple(size) != tuple(image_hw):
        raise CocoError(f"is made for the size {list(size)} (height, width), but its image is {list(image_hw)}.")
    if isinstance(counts, bytes):  # never from JSON: our own encoder's
        return
    try:
        runs = run_lengths([counts.encode("ascii")])[0].tolist() if isinstance(counts, str) else counts
        valid = sum(runs) == size[0] * size[1] and min(runs) >= 0
    except (IndexError, ValueError):
        valid = False
    if not valid:
        raise CocoError(f"is a damaged run-length code: its runs do not add up to {size[1]}×{size[0]} pixels.")
    if shows and not any(runs[1::2]):
        raise CocoError("is a run-length code without a pixel.")
