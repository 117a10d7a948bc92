"""LVIS v1 minival: COCO's images, 1,203 classes in three groups, not all of them marked in every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...coco import BadMasks, CocoDataset, parse_coco, read_json
from ...errors import CocoError
from ...masks import ImageId, whole_number_of
from ...printing import counted
from ..classes import LVIS_GROUPS
from ..suite import ANY_SHOTS, DrawRule, Federated, Part, Problems, Split, Suite
from .common import (
    LeftOut,
    check_same_classes,
    check_targets,
    find_file,
    names_in,
    note,
    shorten,
    with_masks,
    with_sizes,
)

MINIVAL = ("lvis_v1_minival.json", "lvis_v1_minival_inserted_image_name.json")
TRAIN = ("lvis_v1_train.json",)
FOLDERS = ("", "annotations", "lvis")
"""Where annotation files are looked for."""
IMAGES = ("val2017", "train2017")
"""COCO's folders, in the order in which a name without folder is looked for."""
FIGURES = tuple(f"{kind} AP{group}" for kind in ("box", "mask") for group in ("", *LVIS_GROUPS))


def find(data: Path, problems: Problems, *, left_out: LeftOut | None = None) -> Suite | None:
    """LVIS v1: references of its training set, targets of minival.

    Args:
        data: folder with train2017 and val2017, and with the two annotation files in it, in annotations or in lvis.
        problems: takes what is missing.
        left_out: takes what cannot be used and is left out.
    """
    listed = {folder: names_in(data / folder) for folder in IMAGES}
    train = _read(data, TRAIN, listed, problems, left_out)
    pool = None if train is None else train[0]
    del train  # what the file holds beyond the pool takes a gigabyte
    minival = _read(data, MINIVAL, listed, problems, left_out, bad_masks="box")
    if minival is None or pool is None:
        return None
    targets, content = minival
    check_targets(data, targets, problems, "unpack val2017.zip there")
    targets = with_masks(with_sizes(data, targets, problems, left_out), left_out)
    category_ids = tuple(sorted(targets.categories))
    check_same_classes(pool, targets, category_ids, problems)
    split = Split("all", category_ids, _groups(content, targets.source, problems))
    part = Part("", targets, (split,), {ANY_SHOTS: pool}, DrawRule(relaxed=True), _federated(content, targets.source, problems))
    return Suite("lvis", "LVIS v1 minival", data, (part,), (10,), "lvis", FIGURES, max_detections=300)


def _read(
    data: Path,
    names: tuple[str, ...],
    listed: Mapping[str, frozenset[str]],
    problems: Problems,
    left_out: LeftOut | None,
    *,
    bad_masks: BadMasks = "leave out",
) -> tuple[CocoDataset, dict[str, Any]] | None:
    """An annotation file, and what it says of images and categories beyond COCO."""
    path = find_file([data / folder / name for folder in FOLDERS for name in names])
    if path is None:
        problems.add(f"There is no {' or '.join(names)} in {data}, {data / 'annotations'} or {data / 'lvis'}: put it there.")
        return None
    try:
        content = read_json(path)
        coco = parse_coco(content, str(path), bad_masks=bad_masks)
    except CocoError as error:
        problems.add(str(error))
        return None
    note(coco.left_out, str(path), left_out)
    place = _placer({name: image.get("coco_url") for name, image in zip(coco.images, content["images"], strict=True)}, listed)
    images = {image_id: replace(image, file_name=place(image_id, image.file_name)) for image_id, image in coco.images.items()}
    # By the ids that were read: the file may write them as texts or floats.
    facts = [{**image, "id": name} for name, image in zip(coco.images, content["images"], strict=True)]
    classes = [{**entry, "id": whole_number_of(entry["id"])} for entry in content["categories"]]
    known = [entry for entry in classes if entry["id"] in coco.categories]
    return replace(coco, images=images), {"images": facts, "categories": known}


def _placer(urls: Mapping[ImageId, Any], listed: Mapping[str, frozenset[str]]) -> Callable[[ImageId, str], str]:
    def place(image_id: ImageId, name: str) -> str:
        """A name with its folder: as it is, else of the URL, else where the file lies."""
        if "/" in name:
            return name
        url = urls.get(image_id)
        if isinstance(url, str) and url.count("/") > 1:
            return f"{url.split('/')[-2]}/{name}"
        return f"{next((folder for folder in IMAGES if name in listed[folder]), IMAGES[0])}/{name}"

    return place


def _groups(content: Mapping[str, Any], source: str, problems: Problems) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = {key: [] for key in LVIS_GROUPS}
    without = []
    for category in content["categories"]:
        group = groups.get(str(category.get("frequency")))
        if group is None:
            without.append(category["name"])
        else:
            group.append(category["id"])
    if without:
        problems.add(
            f"{source} lists no 'frequency' (r, c or f) of {counted(len(without), 'class')}: {shorten(without)}: take the "
            "released file."
        )
    return {key: tuple(sorted(ids)) for key, ids in groups.items()}


def _class_ids(values: Any) -> frozenset[int] | None:
    numbers = [whole_number_of(value) for value in values] if isinstance(values, list) else [None]
    return None if None in numbers else frozenset(number for number in numbers if number is not None)


def _federated(content: Mapping[str, Any], source: str, problems: Problems) -> dict[ImageId, Federated]:
    found: dict[ImageId, Federated] = {}
    without = []
    for image in content["images"]:
        absent, partial = image.get("neg_category_ids"), image.get("not_exhaustive_category_ids")
        lists = [_class_ids(absent), _class_ids(partial)]
        if None not in lists:
            found[image["id"]] = Federated(*(ids for ids in lists if ids is not None))
        else:
            without.append(str(image["id"]))
    if without:
        problems.add(
            f"{source} lists no 'neg_category_ids' and 'not_exhaustive_category_ids' of {counted(len(without), 'image')}: "
            f"{shorten(without)}: take the released file."
        )
    return found
