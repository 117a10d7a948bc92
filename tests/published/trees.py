"""The published benchmarks' layouts in small, drawn from the demo world: 20 families of parts stand for VOC's 20 classes.

Scenes are drawn once and shared by all formats: those of `shots` for references, those of `targets` to look for objects.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils
from skimage.measure import find_contours

from refseg.demo.world import OUTLINES, Family, draw_family, render_scene
from refseg.masks.rle import decode_mask
from refseg.published.classes import CD_FSOD, COCO_NAMES, COCO_NOVEL_IDS, TOY, VOC_CLASSES, VOC_TO_COCO

IMAGE_HW = (240, 320)
NUM_FAMILIES = 20
SHOTS_SCENES = 22
TARGET_SCENES = 10
EMPTY_TARGET = 9
"""The target scene without any object."""
CROWD_TARGET = 4
"""The target scene with two objects of one class, which are one crowd in COCO's layouts."""

LVIS_CATEGORIES: Mapping[int, tuple[str, str]] = {
    3: ("air_conditioner", "f"),
    12: ("apple", "f"),
    45: ("awning", "c"),
    190: ("cannon", "c"),
    700: ("milestone", "r"),
    1203: ("zucchini", "r"),
}
"""Name and frequency by id; the families in this order."""
LVIS_FAMILIES = (0, 2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Part:
    """An object of a scene: its family and its mask, (H, W) bool."""

    family: int
    mask: NDArray[np.bool_]

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height."""
        ys, xs = self.mask.nonzero()
        x, y = int(xs.min()), int(ys.min())
        return x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y

    @property
    def suits(self) -> bool:
        """Whether it may be drawn as a reference: 40 pixels a side, 10 from the border."""
        (x, y, w, h), (height, width) = self.box, IMAGE_HW
        return min(w, h) >= 40 and min(x, y) >= 10 and x + w <= width - 10 and y + h <= height - 10


@dataclass(frozen=True)
class Picture:
    """A scene as a JPEG file."""

    jpeg: bytes
    parts: tuple[Part, ...]

    def of(self, families: Iterable[int]) -> tuple[Part, ...]:
        wanted = set(families)
        return tuple(part for part in self.parts if part.family in wanted)


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """One of each part type, all of one size but the flat half disc."""
    rng = np.random.default_rng(20)
    return tuple(replace(draw_family(rng, (part,)), size=1.2 if part == "half disc" else 1.0) for part in OUTLINES)


@lru_cache(maxsize=1)
def shots() -> tuple[Picture, ...]:
    """Three objects each, all families in turn; of several attempts the one with most objects that suit as references."""
    rng = np.random.default_rng(41)
    return tuple(_draw(rng, [(3 * number + i) % NUM_FAMILIES for i in range(3)], attempts=6) for number in range(SHOTS_SCENES))


@lru_cache(maxsize=1)
def targets() -> tuple[Picture, ...]:
    """Two to four objects each, one without any; in CROWD_TARGET two are of one family."""
    rng = np.random.default_rng(22)
    pictures = []
    for number in range(TARGET_SCENES):
        rows = [(2 * number + i) % NUM_FAMILIES for i in (0, 1, 9, 14)][: 2 + number % 3]
        if number == CROWD_TARGET:
            rows = [rows[0], rows[0], rows[1]]
        pictures.append(_draw(rng, [] if number == EMPTY_TARGET else rows, attempts=1))
    return tuple(pictures)


def _draw(rng: np.random.Generator, rows: Sequence[int], attempts: int) -> Picture:
    best: tuple[NDArray[np.uint8], tuple[Part, ...]] | None = None
    for _ in range(attempts):
        scene = render_scene(rng, [families()[row] for row in rows], IMAGE_HW, radius=(0.11, 0.13), max_overlap=0.0)
        parts = tuple(Part(rows[drawn], mask) for drawn, mask in zip(scene.families, scene.masks, strict=True))
        if best is None or sum(part.suits for part in parts) > sum(part.suits for part in best[1]):
            best = scene.image, parts
        if all(part.suits for part in best[1]):
            break
    assert best is not None
    stream = io.BytesIO()
    Image.fromarray(best[0]).save(stream, "JPEG", quality=90)
    return Picture(stream.getvalue(), best[1])


def _save(picture: Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture.jpeg)


def _write_json(content: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def polygons(mask: NDArray[np.bool_]) -> list[list[float]] | None:
    """Outlines along the pixels' edges; None for a mask with a hole, which polygons cannot show."""
    height, width = mask.shape
    found: list[list[float]] = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float64), 0.5):
        # find_contours gives (row, column) of pixel centres in the padded mask; COCO counts from the first pixel's corner.
        points = np.clip(contour[:-1, ::-1] - 0.5, 0, (width, height))
        found.append([round(float(value), 2) for value in points.ravel()])
    if not found:
        return None
    merged = decode_mask(mask_utils.merge(mask_utils.frPyObjects(found, height, width)))
    return found if np.logical_xor(merged, mask).sum() < 0.1 * mask.sum() else None


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed code: column by column, background first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


@cache
def _shape_of(kind: str, scene: int, row: int) -> tuple[Any, int]:
    part = (shots() if kind == "shots" else targets())[scene].parts[row]
    return polygons(part.mask) or run_lengths(part.mask), int(part.mask.sum())


def _annotation(number: int, image_id: int | str, category_id: int, kind: str, scene: int, row: int) -> dict[str, Any]:
    part = (shots() if kind == "shots" else targets())[scene].parts[row]
    segmentation, area = _shape_of(kind, scene, row)
    return {
        "segmentation": segmentation,
        "area": float(area),
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": [float(value) for value in part.box],
        "category_id": category_id,
        "id": number,
    }


def _annotations(
    kind: str, images: Mapping[int, int], category_ids: Mapping[int, int], *, first: int = 1, crowds: bool = False
) -> list[dict[str, Any]]:
    """Of these scenes (image id by scene), the objects whose family has a category."""
    pictures, found, number = shots() if kind == "shots" else targets(), [], first
    for scene, image_id in images.items():
        crowd: list[Part] = []
        for row, part in enumerate(pictures[scene].parts):
            if part.family not in category_ids:
                continue
            twins = [other for other in pictures[scene].parts if other.family == part.family]
            if crowds and len(twins) > 1:
                crowd = twins
                continue
            found.append(_annotation(number, image_id, category_ids[part.family], kind, scene, row))
            number += 1
        if crowd:
            found.append(_crowd(900_000 + number, image_id, category_ids[crowd[0].family], crowd))
    return found


def _crowd(number: int, image_id: int, category_id: int, parts: Sequence[Part]) -> dict[str, Any]:
    joined = Part(parts[0].family, np.any([part.mask for part in parts], axis=0))
    return {
        "segmentation": run_lengths(joined.mask),
        "area": int(joined.mask.sum()),
        "iscrowd": 1,
        "image_id": image_id,
        "bbox": list(joined.box),
        "category_id": category_id,
        "id": number,
    }


def _coco_image(image_id: int, name: str, folder: str) -> dict[str, Any]:
    height, width = IMAGE_HW
    return {
        "license": 4,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{folder}/{name}",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.staticflickr.com/6116/{image_id}_z.jpg",
        "id": image_id,
    }


def _coco_file(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"supercategory": "part", "id": number, "name": name} for number, name in COCO_NAMES.items()],
    }


NOVEL = dict(enumerate(COCO_NOVEL_IDS))
"""Category id in COCO by family."""
SHOT_IDS = {scene: 1000 + 37 * scene for scene in range(SHOTS_SCENES)}
"""Image id in train2017 by scene."""
TARGET_IDS = {scene: 139 + 285 * scene for scene in range(TARGET_SCENES)}
"""Image id in val2017 by scene."""


def write_coco_2017(folder: Path) -> None:
    """train2017, with the toy set's images, and val2017, with a crowd and an image without objects; 80 categories."""
    toy_images, toy_annotations = _toy(folder)
    train = [_coco_image(image_id, f"{image_id:012d}.jpg", "train2017") for image_id in SHOT_IDS.values()]
    annotations = _annotations("shots", SHOT_IDS, NOVEL)
    _write_json(_coco_file(train + toy_images, annotations + toy_annotations), folder / "annotations/instances_train2017.json")
    val = [_coco_image(image_id, f"{image_id:012d}.jpg", "val2017") for image_id in TARGET_IDS.values()]
    content = _coco_file(val, _annotations("targets", TARGET_IDS, NOVEL, first=5001, crowds=True))
    _write_json(content, folder / "annotations/instances_val2017.json")
    _save_coco_images(folder)


def _save_coco_images(folder: Path) -> None:
    for scene, image_id in SHOT_IDS.items():
        _save(shots()[scene], folder / f"train2017/{image_id:012d}.jpg")
    for scene, image_id in TARGET_IDS.items():
        _save(targets()[scene], folder / f"val2017/{image_id:012d}.jpg")


def write_toy(folder: Path) -> None:
    """train2017 with the twelve images of the toy set alone."""
    images, annotations = _toy(folder)
    _write_json(_coco_file(images, annotations), folder / "annotations/instances_train2017.json")


TOY_FAMILIES = (13, 12)
"""A tee is the bird, a star the boat."""


@lru_cache(maxsize=1)
def toy() -> dict[int, Picture]:
    """By image id. In the bird's reference image a smaller bird stands beside it; one target is without both classes."""
    rng, (bird, boat) = np.random.default_rng(23), TOY_FAMILIES
    small = replace(families()[bird], size=0.6)
    kinds = [[bird, bird], [boat], [bird], [boat], [bird, boat], [boat, bird, 3], [5]]
    pictures = {}
    for number, image_id in enumerate((*TOY.references.values(), *TOY.targets)):
        rows = kinds[number if number < 2 else 2 + number % 5]
        drawn = [small if number == 0 and i == 1 else families()[row] for i, row in enumerate(rows)]
        scene = render_scene(rng, drawn, IMAGE_HW, radius=(0.13, 0.15), max_overlap=0.0)
        parts = tuple(Part(rows[found], mask) for found, mask in zip(scene.families, scene.masks, strict=True))
        stream = io.BytesIO()
        Image.fromarray(scene.image).save(stream, "JPEG", quality=90)
        pictures[image_id] = Picture(stream.getvalue(), parts)
    return pictures


def _toy(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    category_ids = dict(zip(TOY_FAMILIES, (16, 9), strict=True))
    images, annotations = [], []
    for image_id, picture in toy().items():
        _save(picture, folder / f"train2017/{image_id:012d}.jpg")
        images.append(_coco_image(image_id, f"{image_id:012d}.jpg", "train2017"))
        for part in picture.of(category_ids):
            annotations.append(
                {
                    "segmentation": polygons(part.mask) or run_lengths(part.mask),
                    "area": float(part.mask.sum()),
                    "iscrowd": 0,
                    "image_id": image_id,
                    "bbox": [float(value) for value in part.box],
                    "category_id": category_ids[part.family],
                    "id": 700_000 + len(annotations),
                }
            )
    return images, annotations


IDS_2014 = {scene: 42 + 31 * scene for scene in range(14)}
"""Image id in val2014 by scene."""


def write_coco_2014(folder: Path) -> None:
    """val2014: objects of the 20 classes in at least two images each, of all four folds."""
    images = []
    for scene, image_id in IDS_2014.items():
        name = f"COCO_val2014_{image_id:012d}.jpg"
        _save(shots()[scene], folder / "val2014" / name)
        images.append(_coco_image(image_id, name, "val2014"))
    content = _coco_file(images, _annotations("shots", IDS_2014, NOVEL))
    _write_json(content, folder / "annotations/instances_val2014.json")


LVIS_LATE_TRAIN = 3
"""The scene of LVIS's training set whose image lies in val2017, as some do."""


def write_lvis(folder: Path) -> None:
    """LVIS v1 beside COCO 2017's images: train and minival, six categories, two of each group."""
    category_ids = dict(zip(LVIS_FAMILIES, LVIS_CATEGORIES, strict=True))
    _save_coco_images(folder)
    _save(shots()[LVIS_LATE_TRAIN], folder / f"val2017/{SHOT_IDS[LVIS_LATE_TRAIN]:012d}.jpg")
    (folder / f"train2017/{SHOT_IDS[LVIS_LATE_TRAIN]:012d}.jpg").unlink()
    train = _lvis_file("shots", SHOT_IDS, category_ids)
    image_id = SHOT_IDS[LVIS_LATE_TRAIN]
    (late,) = [image for image in train["images"] if image["id"] == image_id]
    late["coco_url"] = late["coco_url"].replace("train2017", "val2017")
    _write_json(train, folder / "annotations/lvis_v1_train.json")
    _write_json(_lvis_file("targets", TARGET_IDS, category_ids), folder / "annotations/lvis_v1_minival.json")


def _lvis_file(kind: str, ids: Mapping[int, int], category_ids: Mapping[int, int]) -> dict[str, Any]:
    annotations = _annotations(kind, ids, category_ids)
    for annotation in annotations:
        del annotation["iscrowd"]
    images = []
    for number, image_id in enumerate(ids.values()):
        image = _coco_image(image_id, f"{image_id:012d}.jpg", "train2017" if kind == "shots" else "val2017")
        del image["file_name"]
        present = {entry["category_id"] for entry in annotations if entry["image_id"] == image_id}
        absent = [category_id for category_id in LVIS_CATEGORIES if category_id not in present]
        image["neg_category_ids"] = absent[: 1 + number % 3]
        image["not_exhaustive_category_ids"] = sorted(present)[:1] if number % 4 == 0 else []
        images.append(image)
    counts = {number: [a for a in annotations if a["category_id"] == number] for number in LVIS_CATEGORIES}
    categories = [
        {
            "id": number,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "def": "a part on a tray",
            "frequency": frequency,
            "image_count": len({entry["image_id"] for entry in counts[number]}),
            "instance_count": len(counts[number]),
        }
        for number, (name, frequency) in LVIS_CATEGORIES.items()
    ]
    return {"info": {"version": "v1.0"}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


VOC_NAMES = {
    family: name
    for family, category_id in NOVEL.items()
    for name in VOC_CLASSES
    if VOC_TO_COCO.get(name, name) == COCO_NAMES[category_id]
}
"""VOC's class by family."""


def write_voc(folder: Path) -> None:
    """VOCdevkit with 2007 (trainval and test) and 2012 (trainval); some objects are difficult, persons have parts."""
    half = SHOTS_SCENES // 2
    listed = {
        ("VOC2007", "trainval"): [(f"{5 + 2 * scene:06d}", shots()[scene]) for scene in range(half)],
        ("VOC2007", "test"): [(f"{1001 + 3 * scene:06d}", picture) for scene, picture in enumerate(targets())],
        ("VOC2012", "trainval"): [(f"2008_{scene:06d}", shots()[scene]) for scene in range(half, SHOTS_SCENES)],
    }
    for (year, chosen), pictures in listed.items():
        root = folder / "VOCdevkit" / year
        names = root / "ImageSets/Main" / f"{chosen}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text("".join(f"{name}\n" for name, _ in pictures))
        (root / "Annotations").mkdir(exist_ok=True)
        for number, (name, picture) in enumerate(pictures):
            path = root / "JPEGImages" / f"{name}.jpg"
            _save(picture, path)
            tree = _voc_tree(year, name, picture, difficult=chosen == "test" and number % 3 == 0)
            ElementTree.indent(tree, "\t")
            ElementTree.ElementTree(tree).write(root / "Annotations" / f"{name}.xml")


def _voc_tree(year: str, name: str, picture: Picture, *, difficult: bool) -> ElementTree.Element:
    tree = ElementTree.Element("annotation")
    _add(tree, {"folder": year, "filename": f"{name}.jpg"})
    _add(_child(tree, "source"), {"database": "The VOC Database", "annotation": "PASCAL VOC", "image": "flickr"})
    _add(_child(tree, "size"), {"width": IMAGE_HW[1], "height": IMAGE_HW[0], "depth": 3})
    _add(tree, {"segmented": 0})
    for row, part in enumerate(picture.parts):
        entry = _child(tree, "object")
        label = VOC_NAMES[part.family]
        _add(entry, {"name": label, "pose": "Unspecified", "truncated": 0, "difficult": int(difficult and row == 0)})
        x, y, w, h = part.box
        _add(_child(entry, "bndbox"), {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h})
        if label == "person":
            head = _child(entry, "part")
            _add(head, {"name": "head"})
            _add(_child(head, "bndbox"), {"xmin": x + 3, "ymin": y + 3, "xmax": x + 9, "ymax": y + 9})
    return tree


def _child(parent: ElementTree.Element, tag: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag)


def _add(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for tag, value in values.items():
        _child(parent, tag).text = str(value)


def write_cd_fsod(folder: Path) -> None:
    """The six datasets: images in train and test, boxes as polygons too; of each class the shots, or as many as there are."""
    for number, (name, num_classes) in enumerate(CD_FSOD.items()):
        root, first = folder / name, number % 2
        # Some of the files count from 0 and some from 1.
        category_ids = {family: first + family for family in range(num_classes)}
        tests = {scene: 1 + scene for scene in range(3 if num_classes > 1 else 2)}
        for shot in (1, 5, 10):
            drawn = _shots_of(category_ids, shot)
            used = dict.fromkeys(scene for scene, _ in drawn)
            images = [_cd_image(scene, f"{name.lower()}_{scene:04d}.jpg") for scene in used]
            annotations = [
                _boxed(_annotation(i, scene, category_ids[shots()[scene].parts[row].family], "shots", scene, row))
                for i, (scene, row) in enumerate(drawn)
            ]
            _write_json(_cd_file(images, annotations, category_ids), root / f"annotations/{shot}_shot.json")
            for scene in used:
                _save(shots()[scene], root / f"train/{name.lower()}_{scene:04d}.jpg")
        images = [_cd_image(image_id, f"{name.lower()}_test_{scene:04d}.jpg") for scene, image_id in tests.items()]
        for scene in tests:
            _save(targets()[scene], root / f"test/{name.lower()}_test_{scene:04d}.jpg")
        annotations = [_boxed(entry) for entry in _annotations("targets", tests, category_ids)]
        _write_json(_cd_file(images, annotations, category_ids), root / "annotations/test.json")


def _shots_of(category_ids: Mapping[int, int], shot: int) -> list[tuple[int, int]]:
    """Scene and row of the first so many objects of each family that suit."""
    counts, drawn = dict.fromkeys(category_ids, 0), []
    for scene, picture in enumerate(shots()):
        for row, part in enumerate(picture.parts):
            if part.suits and counts.get(part.family, shot) < shot:
                counts[part.family] += 1
                drawn.append((scene, row))
    return drawn


def _cd_image(image_id: int, name: str) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "height": IMAGE_HW[0], "width": IMAGE_HW[1]}


def _boxed(annotation: dict[str, Any]) -> dict[str, Any]:
    """With the box as a polygon in place of the mask, as these files have it."""
    x, y, w, h = annotation["bbox"]
    corners = [x, y, x, y + h, x + w, y + h, x + w, y]
    return {**annotation, "segmentation": [corners], "area": w * h, "ignore": 0}


def _cd_file(images: Any, annotations: Any, category_ids: Mapping[int, int]) -> dict[str, Any]:
    categories = [{"id": number, "name": f"class {family}"} for family, number in category_ids.items()]
    return {"images": images, "annotations": annotations, "type": "instances", "categories": categories}


@dataclass(frozen=True)
class CustomPaths:
    """What `refseg benchmark custom` is told."""

    images: Path
    references: Path
    targets: Path


def write_custom(folder: Path) -> CustomPaths:
    """Two COCO files of three classes, with ids of their own; the targets list no height and width."""
    names = {0: "washer", 1: "spring", 2: "pin"}
    used = {scene: scene for scene in range(4)}
    content = _custom_file("shots", used, {0: 5, 1: 6, 2: 9}, names)
    references = _write_json(content, folder / "references.json")
    seen = {scene: 100 + scene for scene in range(3)}
    content = _custom_file("targets", seen, {2: 1, 0: 2, 1: 3}, names)
    for image in content["images"]:
        del image["height"], image["width"]
    listed = _write_json(content, folder / "targets.json")
    for scene in used:
        _save(shots()[scene], folder / f"images/shots_{scene}.jpg")
    for scene in seen:
        _save(targets()[scene], folder / f"images/targets_{scene}.jpg")
    return CustomPaths(folder / "images", references, listed)


def as_tiffs(paths: CustomPaths, *, deep: bool) -> CustomPaths:
    """The same pictures as TIFFs beside them, of eight bits, or of 12 in five bands of which 4, 2 and 0 show what there is."""
    folder = paths.images.with_name("deep" if deep else "eight")
    folder.mkdir()
    for path in paths.images.iterdir():
        picture = np.asarray(Image.open(path))
        target = folder / f"{path.stem}.tif"
        if deep:
            values, empty = picture.astype(np.uint16) * 16, np.zeros(picture.shape[:2], np.uint16)
            bands = np.stack([values[..., 2], empty, values[..., 1], empty, values[..., 0]], -1)
            tifffile.imwrite(target, bands, photometric="minisblack", planarconfig="contig")
        else:
            Image.fromarray(picture).save(target)
    files = []
    for file in (paths.references, paths.targets):
        content = file.read_text().replace(".jpg", ".tif")
        files.append(folder.with_name(f"{folder.name}-{file.name}"))
        files[-1].write_text(content)
    return CustomPaths(folder, *files)


def _custom_file(
    kind: str, images: Mapping[int, int], category_ids: Mapping[int, int], names: Mapping[int, str]
) -> dict[str, Any]:
    height, width = IMAGE_HW
    listed = [
        {"id": image_id, "file_name": f"{kind}_{scene}.jpg", "height": height, "width": width}
        for scene, image_id in images.items()
    ]
    categories = [{"id": category_id, "name": names[family]} for family, category_id in category_ids.items()]
    return {"images": listed, "annotations": _annotations(kind, images, category_ids), "categories": categories}
