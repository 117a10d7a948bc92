"""COCO files: references and targets in, results out. No FiftyOne; all but the images of a file is held in memory."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pycocotools import mask as mask_utils

from .errors import CocoError, ImageError, NoReferencesError
from .images import read_image_hw
from .instances import Instances
from .reference_vectors import Reference
from .rle import annotation_rle, crop_mask, decode_mask, encode_mask, is_number

logger = logging.getLogger(__name__)

ImageId: TypeAlias = int | str
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
        annotations: as in the file; each belongs to one of the images and one of the categories.
    """

    source: str
    images: dict[ImageId, CocoImage]
    categories: dict[int, str]
    annotations: tuple[dict[str, Any], ...]

    def restrict(self, sizes: Mapping[ImageId, tuple[int, int]]) -> CocoDataset:
        """Only these images, at these heights and widths, with their annotations."""
        images = {image_id: replace(self.images[image_id], image_hw=image_hw) for image_id, image_hw in sizes.items()}
        kept = tuple(annotation for annotation in self.annotations if annotation["image_id"] in images)
        return replace(self, images=images, annotations=kept)


@contextmanager
def _collecting_no_garbage() -> Generator[None, None, None]:
    """Parsed JSON is no garbage: looking through its millions of lists again and again doubles the time of a large file."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_coco(path: str | Path, *, left_out: list[str] | None = None) -> CocoDataset:
    """Read and check a COCO annotation file; 'annotations' may be missing.

    An image without 'file_name' is called by the last two parts of its 'coco_url', as in LVIS: "val2017/000000397133.jpg".

    Args:
        path: the file.
        left_out: takes a sentence for each annotation that cannot be used, and the others are read; without it such an
            annotation is an error.

    Raises:
        CocoError: the file is missing, no JSON, lacks a part, or an annotation belongs to no image or category.
    """
    return parse_coco(read_json(path), str(path), left_out=left_out)


@_collecting_no_garbage()
def parse_coco(content: Any, source: str, *, left_out: list[str] | None = None) -> CocoDataset:
    """What `read_coco` does with what a file holds, for formats that say more than it reads.

    Args:
        content: of the file, from `read_json`.
        source: the file, for messages.
        left_out: see `read_coco`.

    Raises:
        CocoError: as in `read_coco`.
    """
    if not isinstance(content, dict):
        raise CocoError(f"{source} holds a JSON {type(content).__name__}, not an annotation file: is it a file of results?")
    images = _read_images(source, _list_of(content, "images", source))
    categories = _read_categories(source, _list_of(content, "categories", source))
    annotations = _list_of(content, "annotations", source) if content.get("annotations") is not None else []
    kept = []
    for position, annotation in enumerate(annotations):
        fault = _fault_of(annotation, images, categories)
        if not fault:
            kept.append(annotation)
            continue
        what = f"the annotation {annotation['id']!r}" if "id" in annotation else f"annotation {position}"
        if left_out is None:
            raise CocoError(f"{source}: {what} {fault}")
        left_out.append(f"{source}: {what} {fault}")
    return CocoDataset(source, images, categories, tuple(kept))


def read_references(path: str | Path, image_dir: str | Path) -> list[Reference]:
    """Read the objects of a COCO file as references.

    A polygon or run-length code becomes the mask; an object without is a box. Crowds are left out. An image that is
    missing or broken does not stop the others: `build_prototypes` records its references as skipped.

    Args:
        path: the COCO file.
        image_dir: folder that 'file_name' is relative to.

    Raises:
        CocoError: see read_coco; also a mask or an image's size that does not fit the image.
        NoReferencesError: the file has no annotation, or crowds alone.
    """
    coco = read_coco(path)
    references = objects_of(coco, image_dir, [entry for entry in coco.annotations if not entry.get("iscrowd")])
    crowds = len(coco.annotations) - len(references)
    if crowds:
        logger.warning("%s: %d crowd annotations are left out, a crowd shows no single object", coco.source, crowds)
    if not references:
        raise NoReferencesError(f"{coco.source} has no annotation of a single object: annotate at least one of each class.")
    return references


def read_crowds(path: str | Path, image_dir: str | Path) -> list[Reference]:
    """Read the crowds of a COCO file, without ids: what lies in one is no single object, and nothing strange either.

    A crowd whose mask cannot be used is left out.

    Args:
        path: the COCO file.
        image_dir: folder that 'file_name' is relative to.

    Raises:
        CocoError: see read_coco.
    """
    coco = read_coco(path)
    crowds: list[Reference] = []
    for annotation in coco.annotations:
        try:
            crowds += objects_of(coco, image_dir, [annotation] if annotation.get("iscrowd") else [])
        except CocoError as error:
            logger.warning("A crowd is left out: %s", error)
    return [replace(crowd, id="") for crowd in crowds]


def objects_of(coco: CocoDataset, image_dir: str | Path, annotations: Sequence[dict[str, Any]]) -> list[Reference]:
    """Annotations of a file as references, crowds too; an image that cannot be read is left to `build_prototypes`.

    Raises:
        CocoError: two annotations have one id, or a mask or an image's size does not fit the image.
    """
    sizes: dict[ImageId, tuple[int, int] | None] = {}
    references: list[Reference] = []
    seen: set[str] = set()
    for position, annotation in enumerate(annotations):
        name = str(annotation.get("id", f"#{position}"))
        if name in seen:
            raise CocoError(f"{coco.source} has two annotations with the id {name}: give each an id of its own.")
        seen.add(name)
        image = coco.images[annotation["image_id"]]
        file = Path(image_dir) / image.file_name
        if image.id not in sizes:
            sizes[image.id] = _size_of_file(file, image, coco.source)
        references.append(_to_reference(name, annotation, coco, file, sizes[image.id]))
    return references


def group_by_image(entries: Iterable[Entry]) -> dict[ImageId, list[Entry]]:
    """Annotations or results by the image they belong to, in their order."""
    groups: dict[ImageId, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry["image_id"], []).append(entry)
    return groups


def to_results(
    instances: Instances, category_ids: Sequence[int], image_id: ImageId, image_hw: tuple[int, int]
) -> list[dict[str, Any]]:
    """Instances of one image as entries of a COCO results file.

    Args:
        instances: from `refseg.matching.match`.
        category_ids: of each row of the prototypes.
        image_id: of the image.
        image_hw: its height and width.
    """
    results = []
    for mask, box, row, score in zip(
        instances.masks, instances.boxes.tolist(), instances.labels.tolist(), instances.scores.tolist(), strict=True
    ):
        code = encode_mask(mask.numpy(), box, image_hw)
        x0, y0, x1, y1 = (float(value) for value in box)
        results.append(
            {
                "image_id": image_id,
                "category_id": category_ids[row],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
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


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, complete or not at all; its folder is made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    draft.write_text(as_json(content), encoding="utf-8")
    draft.replace(target)


def as_json(content: Any) -> str:
    r"""JSON in plain letters, but where a file's name is no UTF-8: then in escapes, that read back as the name was.

    Example:
        >>> print(as_json(["größe"]), as_json(["gr\udcfc"]))
        ["größe"] ["gr\udcfc"]
    """
    text = json.dumps(content, ensure_ascii=False)
    return text if text.isascii() or _is_utf8(text) else json.dumps(content)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@_collecting_no_garbage()
def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        CocoError: the file is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise CocoError(f"There is no COCO file at {path}.") from error
    except OSError as error:
        raise CocoError(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise CocoError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; export it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise CocoError(f"{path} is not a JSON text in UTF-8: export it again.") from error


def _list_of(content: dict[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        missing = "has no" if value is None else "has a malformed"
        raise CocoError(f"{source} {missing} list '{key}': COCO needs 'images', 'categories' and 'annotations'.")
    return value


def _read_images(source: str, entries: Sequence[dict[str, Any]]) -> dict[ImageId, CocoImage]:
    images: dict[ImageId, CocoImage] = {}
    for position, entry in enumerate(entries):
        image_id, name = entry.get("id"), entry.get("file_name")
        if name is None and isinstance(entry.get("coco_url"), str):
            name = "/".join(entry["coco_url"].split("/")[-2:])
        if not isinstance(image_id, int | str) or not isinstance(name, str) or not name:
            raise CocoError(f"{source}: the image at position {position} of 'images' lacks an 'id' or a 'file_name'.")
        if image_id in images:
            raise CocoError(f"{source} has two images with the id {image_id!r}: give each an id of its own.")
        height, width = entry.get("height"), entry.get("width")
        known = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
        images[image_id] = CocoImage(image_id, name, (height, width) if known else None)  # type: ignore[arg-type]
    return images


def _read_categories(source: str, entries: Sequence[dict[str, Any]]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, entry in enumerate(entries):
        category_id, name = entry.get("id"), entry.get("name")
        if not isinstance(category_id, int) or not isinstance(name, str) or not name:
            raise CocoError(f"{source}: the category at position {position} of 'categories' lacks a number 'id' or a 'name'.")
        if category_id in categories or name in categories.values():
            raise CocoError(f"{source} has two categories with the id {category_id} or the name {name!r}: join them.")
        categories[category_id] = name
    return categories


def _fault_of(annotation: dict[str, Any], images: Mapping[ImageId, CocoImage], categories: Mapping[int, str]) -> str:
    """Why an annotation cannot be used, the rest of a sentence that begins with it; "" where it can."""
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not isinstance(image_id, int | str) or image_id not in images:
        return f"belongs to the image {image_id!r}, which is not in 'images': add the image or remove it."
    if not isinstance(category_id, int) or category_id not in categories:
        return f"has the category {category_id!r}, which is not in 'categories': add it there or correct it."
    box = annotation.get("bbox")
    if box and (not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0):
        return f"has the bbox {box!r}, but x, y, width and height in pixels are needed."
    if not box and not annotation.get("segmentation"):
        return "has neither a 'bbox' nor a 'segmentation': give it one or remove it."
    return ""


def _size_of_file(file: Path, image: CocoImage, source: str) -> tuple[int, int] | None:
    try:
        found = read_image_hw(file)
    except ImageError as error:
        logger.warning("A reference image cannot be read: %s", error)
        return None
    if image.image_hw is not None and image.image_hw != found:
        raise CocoError(f"{source}: {size_mismatch(image, found)}")
    return found


def size_mismatch(image: CocoImage, found: tuple[int, int]) -> str:
    """What to say of an image that is not of the height and width its entry lists."""
    height, width = image.image_hw or found
    return (
        f"{image.file_name} is listed with {width}×{height} pixels, but the upright image has {found[1]}×{found[0]}: "
        "annotate the image as it is."
    )


def _to_reference(
    name: str, annotation: dict[str, Any], coco: CocoDataset, file: Path, image_hw: tuple[int, int] | None
) -> Reference:
    label = coco.categories[annotation["category_id"]]
    box = _xyxy(annotation["bbox"]) if annotation.get("bbox") else None
    code = None if image_hw is None else annotation_rle(annotation, image_hw, coco.source)
    if image_hw is None or code is None:
        if box is None and image_hw is not None:
            raise CocoError(f"{coco.source}: the annotation {name} has no bbox and no polygon of three points or more.")
        return Reference(name, label, str(file), box or (0.0, 0.0, 1.0, 1.0))
    whole = decode_mask(code)
    # The mask ends at the image's border, so the part of the box beyond it says nothing.
    clipped = _clip(_xyxy(mask_utils.toBbox(code).tolist()) if box is None else box, image_hw)
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return Reference(name, label, str(file), clipped)
    return Reference(name, label, str(file), clipped, crop_mask(whole, clipped))


def _clip(box: Box, image_hw: tuple[int, int]) -> Box:
    height, width = image_hw
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


def _xyxy(xywh: Sequence[float]) -> Box:
    x, y, w, h = (float(value) for value in xywh)
    return x, y, x + w, y + h
