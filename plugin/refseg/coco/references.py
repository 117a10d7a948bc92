"""Objects of COCO files as references."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils

from ..errors import CocoError, NoReferencesError
from ..masks import (
    ImageId,
    annotation_rle,
    decode_parts,
    summary_of,
)
from ..printing import counted
from ..prototypes import Reference
from .files import Box, CocoDataset, checked_size, read_coco, with_file_sizes

logger = logging.getLogger(__name__)


def read_references(path: str | Path, image_dir: str | Path, *, strict: bool = False) -> list[Reference]:
    """Read the objects of a COCO file as references.

    A polygon or run-length code becomes the mask; an object without is a box. Crowds are left out, and so are annotations
    that cannot be used: these are logged. An image that is missing or broken does not stop the others: `build_prototypes`
    records its references as skipped.

    Args:
        path: the COCO file.
        image_dir: folder that 'file_name' is relative to.
        strict: an annotation that cannot be used is an error.

    Raises:
        CocoError: see read_coco.
        NoReferencesError: the file has no annotation of a single object that can be used.
    """
    return references_in(with_file_sizes(read_coco(path, strict=strict), image_dir, strict=strict), image_dir)


def references_in(coco: CocoDataset, image_dir: str | Path) -> list[Reference]:
    """What `read_references` gives, of a file read before with `with_file_sizes`."""
    references = objects_of(coco, image_dir, [entry for entry in coco.annotations if not entry.get("iscrowd")])
    crowds = len(coco.annotations) - len(references)
    if crowds:
        some = counted(crowds, "crowd annotation is", "crowd annotations are")
        logger.warning("%s: %s left out, a crowd shows no single object", coco.source, some)
    if not references:
        unusable = f" {summary_of(coco.left_out)}" if coco.left_out else ""
        raise NoReferencesError(
            f"{coco.source} has no annotation of a single object{' that can be used' if unusable else ''}: annotate at least "
            f"one of each class.{unusable}"
        )
    return references


def read_crowds(path: str | Path, image_dir: str | Path) -> list[Reference]:
    """Read the crowds of a COCO file, without ids: what lies in one is no single object, and nothing strange either.

    Args:
        path: the COCO file.
        image_dir: folder that 'file_name' is relative to.

    Raises:
        CocoError: see read_coco.
    """
    return crowds_in(with_file_sizes(read_coco(path), image_dir), image_dir)


def crowds_in(coco: CocoDataset, image_dir: str | Path) -> list[Reference]:
    """What `read_crowds` gives, of a file read before with `with_file_sizes`."""
    crowds = objects_of(coco, image_dir, [entry for entry in coco.annotations if entry.get("iscrowd")])
    return [replace(crowd, id="") for crowd in crowds]


def objects_of(coco: CocoDataset, image_dir: str | Path, annotations: Sequence[dict[str, Any]]) -> list[Reference]:
    """Annotations of a file as references, crowds too; an image that cannot be read is left to `build_prototypes`.

    Each gets an id of its own: its annotation's, or, where it has none or one that others have too, one made of its position.

    Raises:
        CocoError: a mask or an image's size does not fit the image.
    """
    sizes: dict[ImageId, tuple[int, int] | None] = {}
    references: list[Reference] = []
    codes: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, annotation in enumerate(annotations):
        name = str(annotation.get("id", f"#{position}"))
        if name in seen:
            name = next(new for new in (f"{name}#{number}" for number in count(position)) if new not in seen)
        seen.add(name)
        image = coco.images[annotation["image_id"]]
        file = Path(image_dir) / image.file_name
        if image.id not in sizes:
            sizes[image.id] = checked_size(file, image, coco.source)
        reference, code = _to_reference(name, annotation, coco, file, sizes[image.id])
        if code is not None:
            codes[position] = code
        references.append(reference)
    # One after the other they would take twice the time.
    boxes = [references[position].mask_box or (0, 0, 0, 0) for position in codes]
    for position, mask in zip(codes, decode_parts(list(codes.values()), boxes), strict=True):
        references[position] = replace(references[position], mask=mask)
    return references


def _to_reference(
    name: str, annotation: dict[str, Any], coco: CocoDataset, file: Path, image_hw: tuple[int, int] | None
) -> tuple[Reference, dict[str, Any] | None]:
    """A reference without its mask, and the code of that, which covers its mask_box; None where it is a box alone."""
    label = coco.categories[annotation["category_id"]]
    box = _xyxy(annotation["bbox"]) if annotation.get("bbox") else None
    code = None if image_hw is None else annotation_rle(annotation, image_hw, coco.source)
    if image_hw is None or code is None:
        if box is None and image_hw is not None:
            raise CocoError(f"{coco.source}: the annotation {name} has no bbox and no polygon of three points or more.")
        return Reference(name, label, str(file), box or (0.0, 0.0, 1.0, 1.0)), None
    extent = _xyxy(mask_utils.toBbox(code).tolist())
    # The mask ends at the image's border, so the part of the box beyond it says nothing.
    clipped = _clip(extent if box is None else box, image_hw)
    x0, y0, x1, y1 = (round(side) for side in extent)
    return Reference(name, label, str(file), clipped, mask_box=(x0, y0, x1, y1)), code


def _clip(box: Box, image_hw: tuple[int, int]) -> Box:
    height, width = image_hw
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


def _xyxy(xywh: Sequence[float]) -> Box:
    x, y, w, h = (float(value) for value in xywh)
    return x, y, x + w, y + h
