"""The list 'annotations' of a COCO file: each read into the one form that all else expects, or refused. No FiftyOne.

An annotation that is in that form already, as nearly all are, is looked at and handed on as it is: some microseconds each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias

from pycocotools import mask as mask_utils

from ..errors import CocoError
from ..masks import (
    Ids,
    ImageId,
    Refusal,
    are_plain_polygons,
    are_shares,
    box_of,
    check_fits,
    compressed,
    fitting_codes,
    flag_of,
    id_of,
    lies_outside,
    number_of,
    read_shape,
    refusal,
    shown_value,
    whole_number_of,
)

BadMasks: TypeAlias = Literal["leave out", "box", "ignore"]
"""What becomes of an object whose mask cannot be used: it is left out, as of references; it counts by its box alone, as of
targets; or no mask is looked at, because none will be, and all are taken away."""

MASK_LEFT_OUT = "mask_left_out"
"""Key of an annotation whose mask alone was left out."""
NUMBERS = (int, float)
MAX_AREA = 1e18
"""Sides and areas beyond are numbers of another kind; whole ones of hundreds of digits are no floats."""
FLAGS = (int, bool)


@dataclass(frozen=True)
class ReadAnnotations:
    """What a list of annotations comes to.

    Attributes:
        kept: those that can be used, in their order. 'image_id' and 'category_id' are of the file's lists; 'bbox' is absent or
            four numbers with an area, 'segmentation' empty, polygons or one run-length code (see `read_shape`) that fits its
            image, 'area' absent or above 0, 'iscrowd' absent, 0 or 1, 'id' absent, a number or a text.
        left_out: those that cannot.
        notes: what was put in place of values that cannot be used, a sentence each.
    """

    kept: tuple[dict[str, Any], ...]
    left_out: tuple[Refusal, ...]
    notes: tuple[str, ...]


def read_annotations(
    entries: Sequence[Any],
    source: str,
    sizes: Mapping[ImageId, tuple[int, int] | None],
    category_ids: Sequence[int] | Mapping[int, str],
    bad_masks: BadMasks = "leave out",
) -> ReadAnnotations:
    """Read a list of annotations; one that cannot be used does not stop the others.

    A box that is none, such as [0, 0, 0, 0], is replaced by that of the mask; an area that is none is left to whoever needs
    one. Where the size of an image is unknown its masks are read, but whether they fit is still to be found out:
    by this function once more, which leaves what it gave as it is.

    Args:
        entries: of the list 'annotations'.
        source: the file, for messages.
        sizes: height and width of each image; None where they are unknown.
        category_ids: of the file's categories.
        bad_masks: what becomes of an object whose mask cannot be used.
    """
    reader = _Reader(source, sizes, frozenset(category_ids), bad_masks)
    return reader.read(entries)


def mark_bare(
    entries: Sequence[dict[str, Any]], source: str, reason: str, *, boxes_count: bool = True
) -> tuple[tuple[dict[str, Any], ...], tuple[Refusal, ...]]:
    """Name the objects that have no mask: they count by their boxes alone, or are left out.

    Args:
        entries: read annotations.
        source: the file, for messages.
        reason: the rest of a sentence that begins with the annotation.
        boxes_count: such an object counts by its box; else it is left out.

    Returns:
        The annotations that stay, those without a mask marked, and what is to be said of these.

    Example:
        >>> kept, named = mark_bare([{"id": 7, "bbox": [0, 0, 2, 2]}], "a.json", "has no mask.")
        >>> kept[0][MASK_LEFT_OUT], str(named[0])
        (True, 'a.json: the annotation 7 has no mask. (segmentation: None)')
    """
    kept, named = [], []
    for position, entry in enumerate(entries):
        if entry.get("segmentation") or entry.get(MASK_LEFT_OUT):
            kept.append(entry)
            continue
        name = str(entry.get("id", f"#{position}"))
        named.append(refusal(source, name, "segmentation", None, reason, mask_alone=boxes_count))
        if boxes_count:
            kept.append({**entry, MASK_LEFT_OUT: True})
    return tuple(kept), tuple(named)


@dataclass
class _Reader:
    source: str
    sizes: Mapping[ImageId, tuple[int, int] | None]
    category_ids: frozenset[int]
    bad_masks: BadMasks
    left_out: list[Refusal] = field(default_factory=list)
    replaced: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = Ids(self.sizes)

    def read(self, entries: Sequence[Any]) -> ReadAnnotations:
        kept: list[dict[str, Any] | None] = []
        coded: list[int] = []  # positions of those that are clean if their code is
        for position, entry in enumerate(entries):
            state = self._state(entry)
            if state == "code":
                coded.append(position)
            kept.append(self._repaired(entry, position) if state == "unclear" else entry)
        shapes = [entries[position]["segmentation"] for position in coded]
        fits = fitting_codes([shape["counts"] for shape in shapes], [tuple(shape["size"]) for shape in shapes])
        for position, good in zip(coded, fits, strict=True):
            if not good:
                kept[position] = self._repaired(entries[position], position)
        usable = tuple(entry for entry in kept if entry is not None)
        if self.bad_masks == "ignore":
            usable = tuple({key: value for key, value in entry.items() if key != "segmentation"} for entry in usable)
        return ReadAnnotations(usable, tuple(self.left_out), tuple(self._notes()))

    def _state(self, entry: Any) -> Literal["clean", "code", "unclear"]:
        """Whether an annotation can stay as it is, or can if its run-length code is whole; told fast."""
        if type(entry) is not dict:
            return "unclear"
        image_id: Any = entry.get("image_id")
        name = entry.get("id", 0)
        if type(image_id) not in (int, str) or image_id not in self.sizes or type(name) not in (int, str) or name == "":
            return "unclear"
        if type(entry.get("category_id")) is not int or entry["category_id"] not in self.category_ids:
            return "unclear"
        crowd, area, box = entry.get("iscrowd", 0), entry.get("area", 1), entry.get("bbox")
        if type(crowd) not in FLAGS or not 0 <= crowd <= 1 or type(area) not in NUMBERS or not 0 < area < MAX_AREA:
            return "unclear"
        if "ignore" in entry or "difficult" in entry or type(box) is not list or len(box) != 4:
            return "unclear"
        x, y, w, h = box
        if type(x) not in NUMBERS or type(y) not in NUMBERS or type(w) not in NUMBERS or type(h) not in NUMBERS:
            return "unclear"
        image_hw, shape = self.sizes[image_id], entry.get("segmentation")
        height, width = image_hw or (inf, inf)
        if not (0 < w < MAX_AREA and 0 < h < MAX_AREA and -w < x < width and -h < y < height):
            return "unclear"
        if x + w <= 1 and y + h <= 1 and are_shares(box):
            return "unclear"
        if not shape and ("rotation" in entry or "attributes" in entry):
            return "unclear"
        if shape is None or self.bad_masks == "ignore" or are_plain_polygons(shape, image_hw):
            return "clean"
        if type(shape) is dict and len(shape) == 2 and type(shape.get("counts")) is str:
            size = shape.get("size")
            if type(size) is list and image_hw is not None and size == list(image_hw) and type(size[0]) is type(size[1]) is int:
                return "code"
        return "clean" if shape == [] else "unclear"

    def _repaired(self, entry: Any, position: int) -> dict[str, Any] | None:
        """An annotation in the form that is expected; None where it is refused."""
        name = f"#{position}"
        if not isinstance(entry, dict):
            self._refuse(name, "annotations", entry, "is no JSON object: remove it.")
            return None
        fixed = dict(entry)
        own = id_of(fixed.pop("id", None))
        if own is not None:
            fixed["id"], name = own, str(own)
        image_id, category_id = self._ids.find(entry.get("image_id")), whole_number_of(entry.get("category_id"))
        if image_id is None:
            value = shown_value(entry.get("image_id"))
            reason = f"belongs to the image {value}, which is not in 'images': add the image or remove it."
            self._refuse(name, "image_id", entry.get("image_id"), reason)
            return None
        if category_id is None or category_id not in self.category_ids:
            value = shown_value(entry.get("category_id"))
            reason = f"has the category {value}, which is not in 'categories': add it there or correct it."
            self._refuse(name, "category_id", entry.get("category_id"), reason)
            return None
        fixed["image_id"], fixed["category_id"] = image_id, category_id
        for key in ("iscrowd", "ignore", "difficult"):
            if key in fixed:
                flag = flag_of(fixed.pop(key))
                if flag is not None:
                    fixed[key] = int(flag)
                elif key == "iscrowd":
                    reason = f"has the flag {shown_value(entry[key])} as 'iscrowd', but 0 or 1 is needed."
                    self._refuse(name, key, entry[key], reason)
                    return None
        self._repair_area(fixed, name)
        return self._repair_region(fixed, name)

    def _repair_area(self, fixed: dict[str, Any], name: str) -> None:
        if "area" in fixed:
            value = fixed.pop("area")
            area = number_of(value)
            if area is not None and area > 0:
                fixed["area"] = area
            elif value is not None:
                self._replace("area", name, value)

    def _repair_region(self, fixed: dict[str, Any], name: str) -> dict[str, Any] | None:
        """Box and mask of an annotation: at least one of them, each in its form."""
        given, image_hw = fixed.pop("bbox", None), self.sizes[fixed["image_id"]]
        box = box_of(given)
        outside = box is not None and image_hw is not None and lies_outside(box, image_hw)
        box = None if outside or (box is not None and are_shares(box)) else box
        value = fixed.pop("segmentation", None)
        shape = None
        if self.bad_masks != "ignore":
            try:
                shape = read_shape(value)
                if shape is not None and image_hw is not None:
                    check_fits(shape, image_hw, shows=True)
            except CocoError as error:
                box = box or _extent_of(shape, image_hw)
                kept_by_box = self.bad_masks == "box" and box is not None
                self._refuse(name, "segmentation", value, f"cannot be read: its mask {error}", mask_alone=kept_by_box)
                return {**fixed, "bbox": box, MASK_LEFT_OUT: True} if kept_by_box else None
        if box is None and shape is not None and image_hw is not None:
            box = mask_utils.toBbox(compressed(shape, image_hw)).tolist()
        if box is None and shape is None:
            self._refuse(name, "bbox", given, self._boxless(given, outside, image_hw))
            return None
        if given and (box is None or box != box_of(given)):
            self._replace("bbox", name, given)
        angle = _angle_of(fixed)
        if shape is None and angle:
            self._replace("rotation", name, angle)
        if box is not None:
            fixed["bbox"] = box
        if shape is not None:
            fixed["segmentation"] = shape
        return fixed

    def _boxless(self, given: Any, outside: bool, image_hw: tuple[int, int] | None) -> str:
        if outside and image_hw is not None:
            return f"has the bbox {shown_value(given)}, which lies outside its image of {image_hw[1]}×{image_hw[0]} pixels."
        if given and box_of(given):
            return f"has the bbox {shown_value(given)}, in shares of its image's sides, but pixels are needed."
        if given:
            return f"has the bbox {shown_value(given)}, but x, y, width and height in pixels are needed."
        if self.bad_masks == "ignore":
            return "has no 'bbox'."
        return "has neither a 'bbox' nor a 'segmentation': give it one or remove it."

    def _refuse(self, name: str, field_name: str, value: Any, reason: str, *, mask_alone: bool = False) -> None:
        self.left_out.append(refusal(self.source, name, field_name, value, reason, mask_alone=mask_alone))

    def _replace(self, field_name: str, name: str, value: Any) -> None:
        self.replaced.setdefault(field_name, []).append(f"the annotation {name} with {shown_value(value)}")

    def _notes(self) -> list[str]:
        said = {
            "bbox": "a bbox that is no box of its image, that of the mask is used instead",
            "rotation": "a box that is said to be turned, which is taken as if it were not",
            "area": "an area that is no number of pixels, it is computed from the mask or box",
        }
        return [
            f"{self.source}: {len(found)} annotation{'s have' if len(found) > 1 else ' has'} {said[what]}; "
            f"the first is {found[0]}."
            for what, found in sorted(self.replaced.items())
        ]


def _extent_of(shape: Any, image_hw: tuple[int, int] | None) -> list[float] | None:
    """The box around polygons that show no pixel; None where it has no area, or is none of the image."""
    if not isinstance(shape, list) or image_hw is None:
        return None
    xs, ys = [x for polygon in shape for x in polygon[::2]], [y for polygon in shape for y in polygon[1::2]]
    box = box_of([min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)])
    if box is None or are_shares(box) or lies_outside(box, image_hw) or box[2] > image_hw[1] or box[3] > image_hw[0]:
        return None
    return box


def _angle_of(entry: Mapping[str, Any]) -> float | None:
    """By how many degrees a box is turned, where an exporter keeps that apart from it."""
    attributes = entry.get("attributes")
    given = entry.get("rotation", attributes.get("rotation") if isinstance(attributes, dict) else None)
    return number_of(given)
