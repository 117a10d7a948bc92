"""Files that say which objects are the references, so that others' draws can be repeated. No FiftyOne."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pycocotools import mask as mask_utils

from ..coco import CocoDataset, CocoImage, parse_coco, read_json
from ..errors import CocoError
from ..masks import ImageId, Refusal, box_of, id_of, refusal, shown_value, summary_of

logger = logging.getLogger(__name__)

SAME_OBJECT = 0.95
"""IoU of boxes from which on a box in a file of references is taken for an object of the pool: such files round theirs."""


def reference_file_for(template: str, shots: int | None, seed: int) -> Path:
    """The path for a number of shots and a seed, from one with "{shots}" and "{seed}" in it.

    Example:
        >>> reference_file_for("seeds/seed{seed}/{shots}shot.json", 10, 3).as_posix()
        'seeds/seed3/10shot.json'
    """
    return Path(template.replace("{shots}", "all" if shots is None else str(shots)).replace("{seed}", str(seed)))


def depends_on(template: str, name: Literal["shots", "seed"]) -> bool:
    """Whether a path names another file for another number of shots or another seed.

    Example:
        >>> depends_on("seeds/{shots}shot.json", "shots"), depends_on("seeds/{shots}shot.json", "seed")
        (True, False)
    """
    return f"{{{name}}}" in template


def read_reference_file(path: Path, folder: Path, targets: CocoDataset, pool: CocoDataset | None) -> CocoDataset:
    """Read the objects that are to be the references, with the ids that their classes have in the targets.

    The file is a COCO file, or lists objects by class: {"cow": [{"image": "000000000009.jpg", "bbox": [x, y, w, h]}]}. There
    a class is a name or an id, an image its COCO id, its file name, with or without folders, or a whole path. An object that
    the pool knows, of this class and with this box in this image, lends its mask where the file has none. An object that
    cannot be used is left out and listed.

    Args:
        path: the file.
        folder: that the file names of the pool and of the result are relative to.
        targets: whose classes may be named.
        pool: whose images and masks may be used.

    Raises:
        CocoError: the file is missing or malformed, or names a class or an image that is found nowhere.
    """
    content = read_json(path)
    finder = _Finder(str(path), folder, pool)
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
        read = _from_coco(parse_coco(content, str(path)), targets, finder)
    else:
        read = _from_lists(content, str(path), targets, finder)
    if not read.annotations:
        unusable = f" {summary_of(read.left_out)}" if read.left_out else ""
        raise CocoError(
            f"{path} lists no object{' that can be used' if unusable else ''}: name at least one of each class.{unusable}"
        )
    return read if pool is None else _with_masks(read, pool)


@dataclass
class _Finder:
    """Finds images by what files call them.

    Attributes:
        source: the file, for messages.
        folder: that file names are relative to.
        pool: images known by id and name.
        by_last: the pool's images by the last part of their names.
    """

    source: str
    folder: Path
    pool: CocoDataset | None
    by_last: dict[str, list[CocoImage]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for image in self.pool.images.values() if self.pool is not None else ():
            self.by_last[PurePosixPath(image.file_name).name].append(image)

    def find(self, name: ImageId, what: str) -> CocoImage:
        """The image of this id, name or path.

        Raises:
            CocoError: there is none, or several; `what` says whose.
        """
        known = {} if self.pool is None else self.pool.images
        if name in known:
            return known[name]
        if str(name).isdecimal() and int(name) in known:
            return known[int(name)]
        found = self.named(str(name), what)
        if found is not None:
            return found
        if isinstance(name, str) and name and (self.folder / name).is_file():
            return CocoImage(name, name)
        raise CocoError(
            f"{self.source}: {what} shows the image {name!r}, found neither by the annotations nor in {self.folder}."
        )

    def named(self, name: str, what: str) -> CocoImage | None:
        """The pool's image that this name or path ends like, or, where none does, the only one with the same last part."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts:
            return None
        # COCO's images of 2014 are those of 2017 under longer names.
        last = re.sub(r"^COCO_(train|val)2014_", "", parts[-1])
        alike = self.by_last.get(parts[-1]) or self.by_last.get(last) or []
        ends = [image for image in alike if _ends_alike(parts, PurePosixPath(image.file_name).parts)]
        chosen = ends or alike
        if len(chosen) > 1:
            several = ", ".join(sorted(image.file_name for image in chosen)[:3])
            raise CocoError(f"{self.source}: {what} shows the image {name!r}, which may be any of {several}: name its folder.")
        return chosen[0] if chosen else None


def _ends_alike(first: Sequence[str], second: Sequence[str]) -> bool:
    shared = min(len(first), len(second))
    return tuple(first[-shared:]) == tuple(second[-shared:])


def _from_coco(read: CocoDataset, targets: CocoDataset, finder: _Finder) -> CocoDataset:
    """A COCO file with the targets' category ids, and images where they are."""
    ids = {name: category_id for category_id, name in targets.categories.items()}
    annotations = []
    for entry in read.annotations:
        name = read.categories[entry["category_id"]]
        if name not in ids:
            raise CocoError(f"{read.source}: the annotation {entry.get('id')!r} is of the class {name!r}, {_unknown(targets)}")
        annotations.append({**entry, "category_id": ids[name]})
    images = {}
    for image in read.images.values():
        known = None
        if not (finder.folder / image.file_name).is_file():
            known = finder.named(image.file_name, f"the image {image.id!r}")
        images[image.id] = image if known is None else replace(known, id=image.id)
    return replace(read, images=images, categories=dict(targets.categories), annotations=tuple(annotations))


def _from_lists(content: Any, source: str, targets: CocoDataset, finder: _Finder) -> CocoDataset:
    """Lists of objects by class."""
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise CocoError(f"{source} is neither a COCO file nor lists of objects by class: see docs/reproduce.md.")
    ids = {str(category_id): category_id for category_id in targets.categories}
    ids |= {name: category_id for category_id, name in targets.categories.items()}
    images: dict[ImageId, CocoImage] = {}
    annotations = []
    left_out: list[Refusal] = []
    for name, entries in content.items():
        if name not in ids:
            raise CocoError(f"{source}: the class {name!r} is {_unknown(targets)}")
        for number, entry in enumerate(entries, 1):
            what = f"entry {number} of the class {name!r}"
            checked = _checked(entry, source, what)
            if isinstance(checked, Refusal):
                left_out.append(checked)
                continue
            image = finder.find(checked[0], what)
            images[image.id] = image
            annotations.append({"id": f"{name} {number}", "image_id": image.id, "category_id": ids[name], "bbox": checked[1]})
    if left_out:
        logger.warning("%s", summary_of(left_out))
    return CocoDataset(source, images, dict(targets.categories), tuple(annotations), tuple(left_out))


def _checked(entry: Any, source: str, what: str) -> tuple[ImageId, list[float]] | Refusal:
    """What an entry calls its image, and its box; or why it cannot be used."""
    if not isinstance(entry, dict):
        return refusal(source, what, "entry", entry, "needs an 'image' and a 'bbox', but is no JSON object.")
    name, box = id_of(entry.get("image")), box_of(entry.get("bbox"))
    if name is None:
        return refusal(source, what, "image", entry.get("image"), "needs an 'image', a name or an id.")
    if box is None:
        given = entry.get("bbox")
        reason = f"has the bbox {shown_value(given)}, but x, y, width and height in pixels are needed."
        return refusal(source, what, "bbox", given, reason)
    return name, box


def _unknown(targets: CocoDataset) -> str:
    listed = ", ".join(sorted(targets.categories.values())[:5])
    more = len(targets.categories) - 5
    return f"none of the targets' classes, which are {listed}{f' and {more} more' if more > 0 else ''}: correct it."


def _with_masks(read: CocoDataset, pool: CocoDataset) -> CocoDataset:
    """Objects without mask get that of the pool's object with the same class, image and box."""
    bare = [entry for entry in read.annotations if not entry.get("segmentation")]
    names = {read.images[entry["image_id"]].file_name for entry in bare}
    wanted = {image.id for image in pool.images.values() if image.file_name in names}
    masked: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for entry in pool.annotations if wanted else ():
        if entry["image_id"] in wanted and entry.get("segmentation") and entry.get("bbox") and not entry.get("iscrowd"):
            masked[pool.images[entry["image_id"]].file_name, pool.categories[entry["category_id"]]].append(entry)
    annotations = []
    for entry in read.annotations:
        near = masked.get((read.images[entry["image_id"]].file_name, read.categories[entry["category_id"]]), [])
        mask = None if entry.get("segmentation") else _mask_of_same(entry["bbox"], near)
        annotations.append(entry if mask is None else {**entry, "segmentation": mask})
    return replace(read, annotations=tuple(annotations))


def _mask_of_same(box: Sequence[float], objects: Sequence[Mapping[str, Any]]) -> Any:
    """The mask of the object with this box; None where there is none."""
    if not objects:
        return None
    others = np.array([entry["bbox"] for entry in objects], float)
    ious = mask_utils.iou(np.array([box], float), others, [0] * len(objects))[0]
    best = int(ious.argmax())
    return objects[best]["segmentation"] if ious[best] >= SAME_OBJECT else None
