"""Whether annotations were made on images as they are stored, while everything else sees them upright. Values alone.

Cameras write how to turn a picture beside its pixels. A program that does not turn it annotates another frame, and where the
two are of one size nothing in a file tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as mask_utils

MIN_IOU = 0.5
"""From which on a box lies on an object."""
MOST_AS_ANNOTATED, LEAST_TURNED = 0.1, 0.5
"""Shares of objects that something lies on, as they are annotated and once they are turned, up to and from which on they are
taken to be annotated on the stored images."""
MIN_OBJECTS = 3
"""Fewer say nothing."""


@dataclass(frozen=True, eq=False)
class FramedImage:
    """One image, what is annotated in it and what was found in it, of whatever class.

    Attributes:
        orientation: of its file, from `refseg.images.reading.read_orientation`: 1 to 8, where 1 is upright.
        image_hw: height and width of the upright image.
        truth: (N, 4) boxes of objects, x0, y0, x1, y1 pixels.
        found: (M, 4) boxes of predictions, pixels of the upright image.
        candidates: (L, 4) boxes of all that may be an object, where they are known: where references were annotated in the
            other frame too, predictions are of anything.
    """

    orientation: int
    image_hw: tuple[int, int]
    truth: ArrayLike
    found: ArrayLike
    candidates: ArrayLike | None = None


def turned_boxes(boxes: ArrayLike, orientation: int, image_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes of the stored image as boxes of the upright one.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 pixels of the stored image.
        orientation: EXIF's, 1 to 8; others are 1.
        image_hw: height and width of the upright image.

    Returns:
        (N, 4) pixels of the upright image.

    Example:
        >>> turned_boxes([[0, 0, 3, 1]], 3, (10, 20)).tolist(), turned_boxes([[0, 0, 3, 1]], 6, (10, 20)).tolist()
        ([[17.0, 9.0, 20.0, 10.0]], [[19.0, 0.0, 20.0, 3.0]])
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    height, width = image_hw
    if orientation in (5, 6, 7, 8):
        x0, y0, x1, y1 = y0, x0, y1, x1
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return np.stack([x0, y0, x1, y1], 1)


def frame_hint(images: Iterable[FramedImage]) -> str | None:
    """A sentence of advice where annotations fit once they are turned upright, and hardly as they are; else None.

    Args:
        images: any; those that are stored upright, or hold no object, are passed over.
    """
    counted, objects, as_annotated, turned, by_chance = 0, 0, 0, 0, 0
    for image in images:
        truth = np.asarray(image.truth, np.float64).reshape(-1, 4)
        if image.orientation not in range(2, 9) or not len(truth):
            continue
        counted += 1
        objects += len(truth)
        as_annotated += _num_covered(truth, image.found)
        boxes = image.found if image.candidates is None else image.candidates
        turned += _num_covered(turned_boxes(truth, image.orientation, image.image_hw), boxes)
        # Among hundreds of candidates some lie on any box.
        by_chance += _num_covered(truth, boxes)
    if objects < MIN_OBJECTS or as_annotated > MOST_AS_ANNOTATED * objects:
        return None
    if turned < LEAST_TURNED * objects or turned < 2 * by_chance:
        return None
    return (
        f"{counted} image{'s are' if counted > 1 else ' is'} turned upright as an EXIF orientation tag asks for, and the "
        f"annotations seem to be made on the images as they are stored: of {objects} objects {as_annotated} are met as they "
        f"are annotated, and {turned} if they are turned. Turn the annotations too, or remove the tag from the files."
    )


def _num_covered(truth: NDArray[np.float64], found: ArrayLike) -> int:
    """How many boxes another lies on."""
    others = np.asarray(found, np.float64).reshape(-1, 4)
    if not len(others):
        return 0
    ious = mask_utils.iou(_xywh(others), _xywh(truth), [0] * len(truth))
    return int((np.asarray(ious).max(0) >= MIN_IOU).sum())


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
