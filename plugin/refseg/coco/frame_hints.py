"""What `frames.frame_hint` asks for, of COCO files: opens the header of each image that has an object. No FiftyOne."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ImageError
from ..images import read_orientation
from .files import Box, CocoDataset, group_by_image
from .frames import FramedImage


def framed_images(targets: CocoDataset, folder: Path, results: Iterable[Mapping[str, Any]]) -> Iterator[FramedImage]:
    """Of targets that are not stored upright, what is annotated and what was found."""
    found = group_by_image(results)
    for image_id, entries in group_by_image(targets.annotations).items():
        image = targets.images[image_id]
        framed = framed_image(folder / image.file_name, image.image_hw, entries, found.get(image_id, ()))
        if framed is not None:
            yield framed


def framed_image(
    path: Path,
    image_hw: tuple[int, int] | None,
    entries: Iterable[Mapping[str, Any]],
    results: Iterable[Mapping[str, Any]],
) -> FramedImage | None:
    """What is annotated in an image, crowds apart, and found; None where it is stored upright or cannot be read."""
    try:
        orientation = 1 if image_hw is None else read_orientation(path)
    except ImageError:
        return None
    if orientation == 1 or image_hw is None:
        return None
    boxes = [_corners(entry["bbox"]) for entry in entries if entry.get("bbox") and not entry.get("iscrowd")]
    return FramedImage(orientation, image_hw, boxes, [_corners(result["bbox"]) for result in results])


def _corners(box: Sequence[float]) -> Box:
    x, y, w, h = box
    return x, y, x + w, y + h
