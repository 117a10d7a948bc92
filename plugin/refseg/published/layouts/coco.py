"""COCO 2017 and 2014 as they unpack: COCO-FSOD, the two-class toy set, and COCO-20i. Reading train2017 takes 3 GB of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...coco import MASK_LEFT_OUT, BadMasks, CocoDataset
from ...masks import ImageId
from ..classes import COCO_20I_FOLDS, COCO_NAMES, COCO_NOVEL_IDS, TOY
from ..suite import ANY_SHOTS, Part, Problems, Split, Suite
from .common import (
    LeftOut,
    check_names,
    check_same_classes,
    check_targets,
    choose,
    ids_of_names,
    of_classes,
    read,
    rename,
    with_masks,
    with_sizes,
    within,
)

ANNOTATIONS_2017 = "unpack annotations_trainval2017.zip there"
ANNOTATIONS_2014 = "unpack annotations_trainval2014.zip there"


def find_fsod(
    data: Path, problems: Problems, classes: Sequence[str] | None = None, *, left_out: LeftOut | None = None
) -> Suite | None:
    """COCO-FSOD: references of train2017, targets of val2017.

    Args:
        data: folder with annotations, train2017 and val2017.
        problems: takes what is missing.
        classes: None or ["novel"] for the 20 novel ones, ["all"] for all of the file, or names.
        left_out: takes what cannot be used and is left out.
    """
    pool = _read(data, "train2017", problems, left_out, ANNOTATIONS_2017)
    targets = _read_targets(data, "val2017", problems, left_out, ANNOTATIONS_2017)
    if targets is None or pool is None:
        return None
    split = _split(classes, targets, problems)
    check_same_classes(pool, targets, split.category_ids, problems)
    part = Part("", targets, (split,), {ANY_SHOTS: of_classes(pool, split.category_ids)})
    if not split.category_ids:
        return None
    return Suite("coco-fsod", "COCO-FSOD", data, (part,), (1, 2, 3, 5, 10, 30), "coco", ("box AP", "mask AP"))


def find_toy(data: Path, problems: Problems, *, left_out: LeftOut | None = None) -> Suite | None:
    """The two-class set: one reference of each class and ten targets, all of train2017.

    Args:
        data: folder with annotations and train2017.
        problems: takes what is missing.
        left_out: takes what cannot be used and is left out.
    """
    coco = _read(data, "train2017", problems, left_out, ANNOTATIONS_2017, bad_masks="box")
    if coco is None:
        return None
    ids = {name: category_id for category_id, name in COCO_NAMES.items() if name in TOY.references}
    check_names(coco, {category_id: name for name, category_id in ids.items()}, problems)
    unlisted = [str(image_id) for image_id in (*TOY.references.values(), *TOY.targets) if image_id not in coco.images]
    if unlisted:
        problems.add(f"{coco.source} does not list the images {', '.join(unlisted)} of the toy set: is it COCO's train2017?")
        return None
    largest = {name: _largest(coco, TOY.references[name], category_id) for name, category_id in ids.items()}
    for name in [name for name, annotation in largest.items() if annotation is None]:
        problems.add(f"{coco.source} has no {name} in the image {TOY.references[name]}: is it COCO's train2017?")
    references = tuple(annotation for annotation in largest.values() if annotation is not None)
    targets = with_masks(with_sizes(data, _of_images(coco, TOY.targets), problems, left_out), left_out)
    check_targets(data, targets, problems, "unpack train2017.zip there")
    if len(references) < len(ids):
        return None
    pool = replace(_of_images(coco, list(TOY.references.values())), annotations=references)
    part = Part("", targets, (Split("toy", tuple(sorted(ids.values()))),), {1: pool}, rule=None)
    return Suite("toy", "Boats and birds", data, (part,), (1,), "coco", ("box AP", "mask AP"))


def find_20i(
    data: Path, problems: Problems, only: Sequence[str] | None = None, *, left_out: LeftOut | None = None
) -> Suite | None:
    """COCO-20i: references and targets of val2014, four folds of 20 classes.

    Args:
        data: folder with annotations and val2014.
        problems: takes what is missing.
        only: of "fold0" … "fold3"; by default all.
        left_out: takes what cannot be used and is left out.
    """
    folds = {f"fold{fold}": ids for fold, ids in enumerate(COCO_20I_FOLDS)}
    chosen = choose(only, list(folds), problems, "fold")
    targets = _read_targets(data, "val2014", problems, left_out, ANNOTATIONS_2014, boxes_count=False)
    if targets is None or not chosen:
        return None
    splits = tuple(Split(key, folds[key]) for key in chosen)
    check_names(targets, {number: COCO_NAMES[number] for split in splits for number in split.category_ids}, problems)
    part = Part("", targets, splits, {ANY_SHOTS: targets})
    return Suite("coco-20i", "COCO-20i", data, (part,), (1, 5), "miou", ("mIoU",))


def _read(
    data: Path,
    images: str,
    problems: Problems,
    left_out: LeftOut | None,
    hint: str,
    *,
    bad_masks: BadMasks = "leave out",
) -> CocoDataset | None:
    path = data / "annotations" / f"instances_{images}.json"
    coco = read(path, problems, left_out, hint=hint, bad_masks=bad_masks)
    return None if coco is None else rename(coco, within(images))


def _read_targets(
    data: Path, images: str, problems: Problems, left_out: LeftOut | None, hint: str, *, boxes_count: bool = True
) -> CocoDataset | None:
    """Targets of masks; an object whose mask cannot be used counts by its box, or not at all."""
    coco = _read(data, images, problems, left_out, hint, bad_masks="box" if boxes_count else "leave out")
    if coco is None:
        return None
    check_targets(data, coco, problems, f"unpack {images}.zip there")
    return with_masks(with_sizes(data, coco, problems, left_out), left_out, boxes_count=boxes_count)


def _split(classes: Sequence[str] | None, targets: CocoDataset, problems: Problems) -> Split:
    """The novel classes, all, or some; those that the file does not list are a problem."""
    if classes is None or list(classes) == ["novel"]:
        check_names(targets, {number: COCO_NAMES[number] for number in COCO_NOVEL_IDS}, problems)
        return Split("novel", tuple(number for number in COCO_NOVEL_IDS if number in targets.categories))
    if list(classes) == ["all"]:
        return Split("all", tuple(sorted(targets.categories)))
    if not classes:
        problems.add("No class is chosen: name some, or take 'novel' or 'all'.")
    return Split("chosen", ids_of_names(classes, targets, problems))


def _of_images(coco: CocoDataset, image_ids: Sequence[ImageId]) -> CocoDataset:
    wanted: Mapping[ImageId, Any] = {image_id: coco.images[image_id] for image_id in image_ids}
    kept = tuple(annotation for annotation in coco.annotations if annotation["image_id"] in wanted)
    return replace(coco, images=dict(wanted), annotations=kept)


def _largest(coco: CocoDataset, image_id: ImageId, category_id: int) -> dict[str, Any] | None:
    """The object of a class with the largest box in an image; crowds are none."""
    found = [
        annotation
        for annotation in coco.annotations
        if annotation["image_id"] == image_id
        and annotation["category_id"] == category_id
        and annotation.get("bbox")
        and not annotation.get("iscrowd")
        and not annotation.get(MASK_LEFT_OUT)
    ]
    return max(found, key=lambda annotation: float(annotation["bbox"][2] * annotation["bbox"][3]), default=None)
