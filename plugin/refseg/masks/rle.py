"""Masks as COCO's run-length codes, checked before pycocotools sees them.

Files come from many tools. Given a polygon far outside its image pycocotools exhausts the memory, and from a code that
is too short it makes up the rest of the mask; neither is an error there.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils

from ..errors import CocoError
from .run_lengths import require_whole_masks, run_lengths
from .segmentations import CODES_AT_A_TIME, are_plain_polygons, check_fits, compressed, read_shape


def annotation_rle(annotation: Mapping[str, Any], image_hw: tuple[int, int], source: str) -> dict[str, Any] | None:
    """The mask of an annotation or result as pycocotools' compressed run-length code, checked against its image.

    Args:
        annotation: its 'segmentation' may be of any shape that `refseg.masks.segmentations.read_shape` reads.
        image_hw: height and width of the image.
        source: the file, for messages.

    Returns:
        {"size": [H, W], "counts": bytes}, or None where there is no mask.

    Raises:
        CocoError: the mask cannot be used, or does not fit the image.
    """
    try:
        shape: Any = annotation.get("segmentation")
        if not are_plain_polygons(shape, image_hw):
            shape = read_shape(shape)
            if shape is None:
                return None
            check_fits(shape, image_hw)
        return compressed(shape, image_hw)
    except CocoError as error:
        raise CocoError(f"The mask of annotation {annotation.get('id')!r} in {source} {error}") from error


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
    top, left = max(0, y0), max(0, x0)
    bottom, right = max(top, min(height, y0 + mask.shape[0])), max(left, min(width, x0 + mask.shape[1]))
    return encode_crop(mask[top - y0 : bottom - y0, left - x0 : right - x0], (left, top), image_hw)


def encode_crop(mask: NDArray[np.bool_], corner: tuple[int, int], image_hw: tuple[int, int]) -> dict[str, Any]:
    """encode_mask for a mask that lies within its image, at the cost of the mask alone.

    Args:
        mask: (h, w) bool; it may be empty.
        corner: x and y of its first pixel in the image.
        image_hw: height and width of the image.

    Example:
        >>> encode_crop(np.ones((1, 2), bool), (1, 0), (2, 4)) == encode_mask(np.ones((1, 2), bool), (1, 0, 3, 1), (2, 4))
        True
    """
    height, width = image_hw
    columns, rows = np.nonzero(mask.T)
    cells = (columns + corner[0]) * height + rows + corner[1]  # column-major
    breaks = np.flatnonzero(np.diff(cells) > 1)
    begins = np.concatenate([cells[:1], cells[breaks + 1]])
    ends = np.concatenate([cells[breaks], cells[-1:]]) + 1
    edges = np.concatenate([[0], np.stack([begins, ends], 1).ravel(), [height * width]])
    runs = np.diff(edges)
    # A code does not end with a run of nothing.
    counts = runs[:-1] if runs[-1] == 0 else runs
    code: dict[str, Any] = mask_utils.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return code


def decode_mask(code: Mapping[str, Any]) -> NDArray[np.bool_]:
    """(H, W) bool of a checked compressed code; pycocotools' own decoder warns under NumPy 2."""
    height, width = code["size"]
    mask: NDArray[np.bool_] = decode_masks([code["counts"]], (height, width))[0]
    return mask


def decode_parts(
    codes: Sequence[Mapping[str, Any]], boxes: Sequence[tuple[int, int, int, int]]
) -> Generator[NDArray[np.bool_], None, None]:
    """(h, w) bool of each code: the pixels of a box in the mask, at the cost of the columns of the box alone.

    Args:
        codes: checked and compressed, each of a whole image.
        boxes: x0, y0, x1, y1 whole pixels within the image of each, far edge excluded.

    Example:
        >>> [part] = decode_parts([encode_crop(np.ones((1, 2), bool), (1, 0), (2, 4))], [(2, 0, 4, 1)])
        >>> part.astype(int).tolist()
        [[1, 0]]
    """
    for first in range(0, len(codes), CODES_AT_A_TIME):
        some = codes[first : first + CODES_AT_A_TIME]
        runs, starts = run_lengths([code["counts"] for code in some])
        ends = np.concatenate([[0], np.cumsum(runs)])
        for code, (x0, y0, x1, y1), start, stop in zip(some, boxes[first:], starts, starts[1:], strict=False):
            height = int(code["size"][0])
            within = (ends[start : stop + 1] - ends[start]).clip(x0 * height, x1 * height)
            inside = np.arange(stop - start) % 2 == 1
            yield np.repeat(inside, np.diff(within)).reshape(x1 - x0, height).T[y0:y1]


def crop_mask(whole: NDArray[np.bool_], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(h, w) bool: the pixels of the box as prototypes place them, False beyond the image."""
    x0, y0 = round(box[0]), round(box[1])
    w, h = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    cut = whole[y0 : y0 + h, x0 : x0 + w]
    return np.pad(cut, ((0, h - cut.shape[0]), (0, w - cut.shape[1])))


def decode_masks(codes: Sequence[bytes], mask_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """(n, h, w) bool of many compressed codes of one size at once.

    Raises:
        ValueError: a code is damaged or made for another size.
    """
    height, width = mask_hw
    runs, starts = run_lengths(codes)
    require_whole_masks(runs, starts, height * width)
    # Runs alternate from background on; each mask begins anew.
    inside = (np.arange(len(runs)) - np.repeat(starts[:-1], np.diff(starts))) % 2 == 1
    return np.repeat(inside, runs).reshape(len(codes), width, height).transpose(0, 2, 1)
