"""What is right, missed, wrong or confused in one image, for people to look at; scores are made elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from ..coco import Box, CocoDataset
from ..errors import CocoError
from ..masks import annotation_rle, crop_mask, decode_mask

logger = logging.getLogger(__name__)

Mask: TypeAlias = NDArray[np.bool_]
INSIDE_CROWD = 0.5
"""Share of a prediction's area inside a crowd of its class from which on it is neither right nor wrong."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One object or prediction.

    Attributes:
        label: its class.
        box: x0, y0, x1, y1 pixels, far edge excluded.
        mask: (h, w) bool over the box rounded to pixels, or a function that decodes it; None where there is a box alone.
        score: None for ground truth.
        crowd: ground truth that stands for no single object, or that is too difficult to count.
    """

    label: str
    box: Box
    mask: Mask | Callable[[], Mask | None] | None = None
    score: float | None = None
    crowd: bool = False

    def pixels(self) -> Mask | None:
        """The mask, decoded where it is not yet; decoded anew at each call, so that thousands of objects can be held."""
        return self.mask() if callable(self.mask) else self.mask


@dataclass(frozen=True)
class Judgement:
    """What became of the objects and predictions of one image; all are positions in `truth` and `found`.

    Attributes:
        pairs: object and prediction of the same class that lie on each other.
        missed: objects without a prediction of their class; crowds are none.
        wrong: predictions on no object.
        confused: object and prediction of different classes that lie on each other.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    missed: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    confused: tuple[tuple[int, int], ...] = ()

    @property
    def num_mistakes(self) -> int:
        """Objects missed and predictions that are not right."""
        return len(self.missed) + len(self.wrong) + len(self.confused)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where nothing is to be found and nothing was."""
        right = 2 * len(self.pairs)
        return right / (right + self.num_mistakes) if right or self.num_mistakes else 1.0


def judge(truth: Sequence[Shown], found: Sequence[Shown], min_iou: float = 0.5) -> Judgement:
    """Pair predictions with objects as COCO does: by falling score, each with the free object of its class it overlaps most.

    What is left over counts as confused where it lies on an object of another class, else as nothing where it lies in a crowd
    of its class, else as wrong. IoU is of masks where both have one, else of boxes; masks are decoded where boxes touch alone.

    Args:
        truth: of one image.
        found: of the same image.
        min_iou: from which on two lie on each other.

    Example:
        >>> truth = [Shown("cow", (0, 0, 4, 4)), Shown("cat", (6, 0, 9, 4))]
        >>> found = [Shown("cow", (0, 0, 4, 4), score=0.9), Shown("horse", (6, 0, 9, 4), score=0.8)]
        >>> judge(truth, found)
        Judgement(pairs=((0, 0),), missed=(1,), wrong=(), confused=((1, 1),))
    """
    pixels = _decoder()
    order = sorted(range(len(found)), key=lambda j: -(found[j].score or 0.0))
    counted = [i for i, item in enumerate(truth) if not item.crowd]
    free, pairs, left = set(counted), [], []
    for j in order:
        same = [i for i in counted if i in free and truth[i].label == found[j].label]
        i = _best(truth, same, found[j], min_iou, pixels)
        if i is None:
            left.append(j)
        else:
            free.discard(i)
            pairs.append((i, j))
    wrong, confused = [], []
    for j in left:
        others = [i for i in counted if truth[i].label != found[j].label]
        i = _best(truth, others, found[j], min_iou, pixels)
        if i is not None:
            confused.append((i, j))
        elif not _in_crowd(truth, found[j], pixels):
            wrong.append(j)
    return Judgement(tuple(pairs), tuple(sorted(free)), tuple(wrong), tuple(confused))


def overlap(first: Shown, second: Shown, masks: tuple[Mask | None, Mask | None] | None = None) -> tuple[float, float, float]:
    """Pixels that two share, and of each: of their masks where both have one, else of their boxes.

    Args:
        first: one.
        second: another of the same image.
        masks: theirs, where they are decoded already.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = first.box, second.box
    own, other = (first.pixels(), second.pixels()) if masks is None else masks
    if own is None or other is None:
        shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
        return shared, (ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0)
    left, top = round(ax0) - round(bx0), round(ay0) - round(by0)  # of the first mask in the second's pixels
    height = min(own.shape[0], other.shape[0] - top) - max(0, -top)
    width = min(own.shape[1], other.shape[1] - left) - max(0, -left)
    shared = 0.0
    if height > 0 and width > 0:
        y, x = max(0, -top), max(0, -left)
        cut = other[y + top : y + top + height, x + left : x + left + width]
        shared = float((own[y : y + height, x : x + width] & cut).sum())
    return shared, float(own.sum()), float(other.sum())


def shown_of(
    coco: CocoDataset, entries: Sequence[Mapping[str, Any]], names: Mapping[int, str], image_hw: tuple[int, int] | None
) -> list[Shown]:
    """Annotations or results of one image as what is shown of it.

    A mask that does not fit the image is left out with a warning; without a box either, its entry is.

    Args:
        coco: where they belong, for messages.
        entries: of COCO's 'annotations' or of a results file; crowds, "ignore" and VOC's "difficult" become crowds.
        names: of the classes wanted, by category id; entries of others are left out.
        image_hw: height and width of the image; None shows boxes alone.
    """
    shown = []
    for entry in entries:
        label = names.get(entry["category_id"])
        if label is None:
            continue
        xywh = entry.get("bbox")
        if not xywh:
            code = _code_of(entry, image_hw, coco.source)
            xywh = None if code is None else mask_utils.toBbox(code).tolist()
        box = None if xywh is None else _xyxy(xywh, image_hw)
        if box is not None:
            mask = partial(_decode, entry, box, image_hw, coco.source) if entry.get("segmentation") else None
            crowd = any(entry.get(key) for key in ("iscrowd", "ignore", "difficult"))
            shown.append(Shown(label, box, mask, entry.get("score"), crowd))
    return shown


def _decoder() -> Callable[[Shown], Mask | None]:
    """`Shown.pixels` that decodes each mask of an image once, and only if it is asked for."""
    decoded: dict[int, Mask | None] = {}

    def pixels(item: Shown) -> Mask | None:
        if id(item) not in decoded:
            decoded[id(item)] = item.pixels()
        return decoded[id(item)]

    return pixels


def _best(
    truth: Sequence[Shown], among: Sequence[int], item: Shown, min_iou: float, pixels: Callable[[Shown], Mask | None]
) -> int | None:
    """Which of some objects a prediction overlaps most, by min_iou at least."""
    best, best_iou = None, 0.0
    for i in among:
        if _boxes_touch(truth[i], item):
            shared, own, other = overlap(truth[i], item, (pixels(truth[i]), pixels(item)))
            iou = shared / (own + other - shared) if own + other > shared else 0.0
            if iou >= min_iou and iou > best_iou:
                best, best_iou = i, iou
    return best


def _in_crowd(truth: Sequence[Shown], item: Shown, pixels: Callable[[Shown], Mask | None]) -> bool:
    for other in truth:
        if other.crowd and other.label == item.label and _boxes_touch(other, item):
            shared, _, own = overlap(other, item, (pixels(other), pixels(item)))
            if own and shared / own >= INSIDE_CROWD:
                return True
    return False


def _boxes_touch(first: Shown, second: Shown) -> bool:
    a, b = first.box, second.box
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _xyxy(xywh: Sequence[float], image_hw: tuple[int, int] | None) -> Box | None:
    """A box within its image; None where nothing of it is."""
    x, y, w, h = (float(value) for value in xywh)
    x0, y0, x1, y1 = x, y, x + w, y + h
    if image_hw is not None:
        # A mask ends at the image's border, so its box must.
        x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(float(image_hw[1]), x1), min(float(image_hw[0]), y1)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _code_of(entry: Mapping[str, Any], image_hw: tuple[int, int] | None, source: str) -> dict[str, Any] | None:
    try:
        return None if image_hw is None else annotation_rle(entry, image_hw, source)
    except CocoError as error:
        logger.warning("A mask is not shown: %s", error)
        return None


def _decode(entry: Mapping[str, Any], box: Box, image_hw: tuple[int, int] | None, source: str) -> Mask | None:
    code = _code_of(entry, image_hw, source)
    return None if code is None else crop_mask(decode_mask(code), box)
