"""How much labels of one image, as MongoDB holds them, overlap."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as mask_utils

from ..dataset import Document, StoredImage, as_object, box_iou, has_box, object_region, relative_box
from ..errors import ImageError, LabelError
from ..masks import encode_mask


class Overlaps:
    """IoU of the labels of an image; masks are read where boxes overlap, and once.

    Args:
        image: that they lie in.
    """

    def __init__(self, image: StoredImage) -> None:
        self._image = image
        self._boxes: dict[Any, tuple[float, ...] | None] = {}
        self._codes: dict[Any, dict[str, Any] | None] = {}

    def has_place(self, label: Document) -> bool:
        """Whether a label has a box in its image, or a mask."""
        return self._box(label) is not None or self._code(label) is not None

    def iou(self, label: Document, other: Document) -> float:
        """IoU of two labels, from 0 to 1: of their masks where both have one that holds a pixel, else of their boxes."""
        boxes = self._box(label), self._box(other)
        boxes_iou = None if boxes[0] is None or boxes[1] is None else box_iou(boxes[0], boxes[1])
        if boxes_iou == 0:
            return 0.0
        codes = self._code(label), self._code(other)
        if codes[0] is None or codes[1] is None:
            return boxes_iou or 0.0
        return float(mask_utils.iou([codes[0]], [codes[1]], [0])[0][0])

    def _box(self, label: Document) -> tuple[float, ...] | None:
        """x, y, width and height as shares of the image."""
        name = label["_id"]
        if name not in self._boxes:
            bare = as_object(label, with_mask=False)
            self._boxes[name] = relative_box(bare) if has_box(bare) else None
        return self._boxes[name]

    def _code(self, label: Document) -> dict[str, Any] | None:
        """The mask's run-length code in the image; None where there is none, or the image's size is not known."""
        name = label["_id"]
        if name not in self._codes:
            self._codes[name] = self._encoded(label)
        return self._codes[name]

    def _encoded(self, label: Document) -> dict[str, Any] | None:
        if label.get("mask") is None and not label.get("mask_path"):
            return None
        try:
            box, mask = object_region(as_object(label), self._image.hw)
        except (ImageError, LabelError):
            return None
        code = None if mask is None else encode_mask(mask, box, self._image.hw)
        return code if code is not None and mask_utils.area(code) else None
