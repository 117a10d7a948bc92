"""COCO files: references and targets in, results out. No FiftyOne; all but the images of a file is held in memory."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..errors import CocoError, ImageError
from ..images import read_image_hw
from ..masks import (
    ImageId,
    Refusal,
    encode_mask,
    id_of,
    listed,
    refusal,
    shown_value,
    size_of,
    summary_of,
    whole_number_of,
)
from ..matching import Instances
from ..printing import counted, one_line
from .annotations import BadMasks, mark_bare, read_annotations
from .json_files import collecting_no_garbage, read_json

logger = logging.getLogger(__name__)

Box: TypeAlias = tuple[float, float, float, float]
Entry = TypeVar("Entry", bound=Mapping[str, Any])


@dataclass(frozen=True)
class CocoImage:
    """An entry of the list 'images'.

    Attributes:
        id: of the image.
        file_name: relative to the folder of images.
        image_hw: height and width in pixels, where the file lists them.
    """

    id: ImageId
    file_name: str
    image_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class CocoDataset:
    """A checked annotation file.

    Attributes:
        source: the file, for messages.
        images: by id.
        categories: name by id.
        annotations: those that can be used, in the form that `refseg.coco.annotations` gives them.
        left_out: those that cannot, and masks that cannot of those that count by their box.
        notes: what was put in place of values that cannot be used, or ignored, a sentence each.
        bad_masks: what becomes of an object whose mask cannot be used.
    """

    source: str
    images: dict[ImageId, CocoImage]
    categories: dict[int, str]
    annotations: tuple[dict[str, Any], ...]
    left_out: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    bad_masks: BadMasks = "leave out"

    __repr__ = one_line

    def restrict(self, sizes: Mapping[ImageId, tuple[int, int]]) -> CocoDataset:
        """Only these images, at these heights and widths, with their annotations."""
        images = {image_id: replace(self.images[image_id], image_hw=image_hw) for image_id, image_hw in sizes.items()}
        kept = tuple(annotation for annotation in self.annotations if annotation["image_id"] in images)
        return replace(self, images=images, annotations=kept)

    def with_sizes(self, sizes: Mapping[ImageId, tuple[int, int]], *, strict: bool = False) -> CocoDataset:
        """With heights and widths that the file does not list; whether masks fit their images can be told from here on.

        Raises:
            CocoError: `strict`, and an annotation cannot be used.
        """
        if not sizes:
            return self
        images = {
            image_id: replace(image, image_hw=sizes[image_id]) if image_id in sizes else image
            for image_id, image in self.images.items()
        }
        hws = {image_id: image.image_hw for image_id, image in images.items()}
        read = read_annotations(self.annotations, self.source, hws, self.categories, self.bad_masks)
        _say(read.left_out, read.notes, strict)
        left_out, notes = (*self.left_out, *read.left_out), (*self.notes, *read.notes)
        return replace(self, images=images, annotations=read.kept, left_out=left_out, notes=notes)


def read_coco(path: str | Path, *, bad_masks: BadMasks = "leave out", strict: bool = False) -> CocoDataset:
    """Read and check a COCO annotation file; 'annotations' may be missing.

    An annotation that cannot be used does not stop the others: it is left out, logged, and listed in the dataset. An image
    without 'file_name' is called by the last two parts of its 'coco_url', as in LVIS: "val2017/000000397133.jpg".

    Args:
        path: the file.
        bad_masks: what becomes of an object whose mask cannot be used.
        strict: an annotation that cannot be used is an error.

    Raises:
        CocoError: the file is missing, no JSON, or lacks a part; see also `strict`.
    """
    return parse_coco(read_json(path), str(path), bad_masks=bad_masks, strict=strict)


@collecting_no_garbage()
def parse_coco(content: Any, source: str, *, bad_masks: BadMasks = "leave out", strict: bool = False) -> CocoDataset:
    """What `read_coco` does with what a file holds, for formats that say more than it reads.

    Args:
        content: of the file, from `read_json`.
        source: the file, for messages.
        bad_masks: see `read_coco`.
        strict: see `read_coco`.

    Raises:
        CocoError: as in `read_coco`.
    """
    if not isinstance(content, dict):
        raise CocoError(f"{source} holds a JSON {type(content).__name__}, not an annotation file: is it a file of results?")
    notes: list[str] = []
    images = _read_images(source, _list_of(content, "images", source), notes)
    annotations = content.get("annotations")
    if not isinstance(annotations, list | None):
        raise CocoError(f"{source} has a malformed list 'annotations': COCO needs 'images', 'categories' and 'annotations'.")
    categories = _read_categories(source, _list_of(content, "categories", source), annotations or [], notes)
    sizes = {image_id: image.image_hw for image_id, image in images.items()}
    read = read_annotations(annotations or [], source, sizes, categories, bad_masks)
    _say(read.left_out, (*notes, *read.notes), strict)
    return CocoDataset(source, images, categories, read.kept, read.left_out, (*notes, *read.notes), bad_masks)


def _say(left_out: Sequence[Refusal], notes: Sequence[str], strict: bool) -> None:
    for note in notes:
        logger.warning("%s", note)
    if left_out and strict:
        several = f"{len(left_out)} annotations cannot be used: {listed(left_out)}"
        raise CocoError(several if len(left_out) > 1 else str(left_out[0]))
    if left_out:
        logger.warning("%s", summary_of(left_out))


def with_file_sizes(coco: CocoDataset, image_dir: str | Path, *, strict: bool = False) -> CocoDataset:
    """With the size of each image that has annotations as its file has it: what is annotated in another frame is left out.

    Args:
        coco: of references.
        image_dir: folder that file names are relative to.
        strict: an annotation that cannot be used is an error.

    Raises:
        CocoError: see `strict`.
    """
    sizes: dict[ImageId, tuple[int, int]] = {}
    wrong: dict[ImageId, tuple[int, int]] = {}
    for image_id in dict.fromkeys(entry["image_id"] for entry in coco.annotations):
        image = coco.images[image_id]
        found = _size_of_file(Path(image_dir) / image.file_name)
        if found is not None and image.image_hw is None:
            sizes[image_id] = found
        elif found is not None and found != image.image_hw:
            wrong[image_id] = found
    kept, refused = [], []
    for position, entry in enumerate(coco.annotations):
        image = coco.images[entry["image_id"]]
        if image.id in wrong:
            reason = f"is of an image of another size: {size_mismatch(image, wrong[image.id])}"
            refused.append(refusal(coco.source, str(entry.get("id", f"#{position}")), "width, height", image.image_hw, reason))
        else:
            kept.append(entry)
    names = [str(entry["id"]) if "id" in entry else "" for entry in kept if not entry.get("iscrowd")]
    alike = len(names) - len(set(names) - {""})
    have = "annotations have" if alike > 1 else "annotation has"
    said = f"{coco.source}: {alike} {have} no id, or that of another: positions in the file are made a part of their ids."
    notes = [said] if alike else []
    _say(refused, notes, strict)
    coco = replace(coco, annotations=tuple(kept), left_out=(*coco.left_out, *refused), notes=(*coco.notes, *notes))
    return coco.with_sizes(sizes, strict=strict)


def marked_where_bare(targets: CocoDataset, category_ids: Collection[int]) -> tuple[CocoDataset, tuple[Refusal, ...]]:
    """Where some objects of these classes have a mask, those that have none count by their boxes alone, and are named.

    Returns:
        The targets, and what was named; it is in their `left_out` too.
    """
    asked = [entry for entry in targets.annotations if entry["category_id"] in category_ids]
    kept, named = mark_bare(asked, targets.source, "has no mask, as others of its file have.")
    if not named or not any(entry.get("segmentation") for entry in kept):
        return targets, ()
    others = (entry for entry in targets.annotations if entry["category_id"] not in category_ids)
    return replace(targets, annotations=(*kept, *others), left_out=(*targets.left_out, *named)), named


def group_by_image(entries: Iterable[Entry]) -> dict[ImageId, list[Entry]]:
    """Annotations or results by the image they belong to, in their order."""
    groups: dict[ImageId, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry["image_id"], []).append(entry)
    return groups


def to_results(
    instances: Instances,
    category_ids: Sequence[int],
    image_id: ImageId,
    image_hw: tuple[int, int],
    *,
    as_published: bool = False,
) -> list[dict[str, Any]]:
    """Instances of one image as entries of a COCO results file.

    Args:
        instances: from `refseg.matching.ranking.match`.
        category_ids: of each row of the prototypes.
        image_id: of the image.
        image_hw: its height and width.
        as_published: boxes run from the first to the last pixel of their masks, and so are a pixel short (method.md C5);
            otherwise they enclose them.
    """
    results = []
    short = 1.0 if as_published else 0.0
    for mask, box, row, score in zip(
        instances.masks, instances.boxes.tolist(), instances.labels.tolist(), instances.scores.tolist(), strict=True
    ):
        code = encode_mask(mask.numpy(), box, image_hw)
        x0, y0, x1, y1 = (float(value) for value in box)
        results.append(
            {
                "image_id": image_id,
                "category_id": category_ids[row],
                "bbox": [x0, y0, x1 - x0 - short, y1 - y0 - short],
                "score": score,
                "segmentation": {"size": list(image_hw), "counts": code["counts"].decode("ascii")},
            }
        )
    return results


def to_listing(images: Sequence[CocoImage], categories: Mapping[int, str]) -> dict[str, Any]:
    """An annotation file without annotations: what the ids of a results file stand for."""
    listed = []
    for image in images:
        height, width = image.image_hw or (None, None)
        listed.append({"id": image.id, "file_name": image.file_name, "height": height, "width": width})
    names = [{"id": category_id, "name": name} for category_id, name in categories.items()]
    return {"images": listed, "categories": names, "annotations": []}


def _list_of(content: dict[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        missing = "has no" if value is None else "has a malformed"
        raise CocoError(f"{source} {missing} list '{key}': COCO needs 'images', 'categories' and 'annotations'.")
    return value


def _read_images(source: str, entries: Sequence[dict[str, Any]], notes: list[str]) -> dict[ImageId, CocoImage]:
    images: dict[ImageId, CocoImage] = {}
    odd: list[str] = []
    for position, entry in enumerate(entries):
        image_id, name = id_of(entry.get("id")), entry.get("file_name")
        if name is None and isinstance(entry.get("coco_url"), str):
            name = "/".join(entry["coco_url"].split("/")[-2:])
        if image_id is None or not isinstance(name, str) or not name:
            raise CocoError(f"{source}: the image at position {position} of 'images' lacks an 'id' or a 'file_name'.")
        if image_id in images:
            raise CocoError(f"{source} has two images with the id {image_id!r}: give each an id of its own.")
        height, width = size_of(entry.get("height")), size_of(entry.get("width"))
        image_hw = None if height is None or width is None else (height, width)
        if image_hw is None and (entry.get("height") is not None or entry.get("width") is not None):
            odd.append(f"{name} with {shown_value([entry.get('width'), entry.get('height')])}")
        images[image_id] = CocoImage(image_id, name, image_hw)
    if odd:
        notes.append(
            f"{source}: the width or height of {counted(len(odd), 'image')} is no number of pixels: what the file says is "
            f"used; the first is {odd[0]}."
        )
    return images


def _read_categories(
    source: str, entries: Sequence[dict[str, Any]], annotations: Sequence[Any], notes: list[str]
) -> dict[int, str]:
    named: dict[str, list[int]] = {}
    categories: dict[int, str] = {}
    for position, entry in enumerate(entries):
        category_id, name = whole_number_of(entry.get("id")), entry.get("name")
        if category_id is None or not isinstance(name, str) or not name.strip():
            raise CocoError(f"{source}: the category at position {position} of 'categories' lacks a number 'id' or a 'name'.")
        if category_id in categories:
            raise CocoError(f"{source} has two categories with the id {category_id}: give each an id of its own.")
        categories[category_id] = name
        named.setdefault(name, []).append(category_id)
    twins = [ids for ids in named.values() if len(ids) > 1]
    if not twins:
        return categories
    shown = {whole_number_of(entry.get("category_id")) for entry in annotations if isinstance(entry, dict)}
    parents = {whole_number_of(entry.get("id")): entry.get("supercategory") for entry in entries}
    idle: set[int] = set()
    for ids in twins:
        name = categories[ids[0]]
        # Some exporters list the project itself as a class, which is the parent of all others and has no object.
        used = [number for number in ids if number in shown] or [number for number in ids if parents[number] == name]
        if len(used) != 1:
            raise CocoError(f"{source} has two categories with the name {name!r} ({', '.join(map(str, ids))}): join them.")
        empty = [number for number in ids if number not in used]
        notes.append(
            f"{source}: the category {name!r} is listed {len(ids)} times; {empty} without an object ignored, {used[0]} taken."
        )
        idle.update(empty)
    return {number: name for number, name in categories.items() if number not in idle}


def _size_of_file(file: Path) -> tuple[int, int] | None:
    try:
        return read_image_hw(file)
    except ImageError as error:
        logger.warning("A reference image cannot be read: %s", error)
        return None


def checked_size(file: Path, image: CocoImage, source: str) -> tuple[int, int] | None:
    """Height and width of an image by its file; None where that cannot be read.

    Raises:
        CocoError: its entry lists another size.
    """
    found = _size_of_file(file)
    if found is not None and image.image_hw is not None and image.image_hw != found:
        raise CocoError(f"{source}: {size_mismatch(image, found)}")
    return found


def size_mismatch(image: CocoImage, found: tuple[int, int]) -> str:
    """What to say of an image that is not of the height and width its entry lists."""
    height, width = image.image_hw or found
    return (
        f"{image.file_name} is listed with {width}×{height} pixels, but the upright image has {found[1]}×{found[0]}: "
        "annotate the image as it is."
    )
