"""The FiftyOne dataset of a benchmark's part: its target images with ground truth, and the references of the run it shows."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from ..coco import CocoDataset, CocoImage, ImageId
from ..errors import CocoError, ImageError
from ..fields import REFERENCE_TAG
from ..images import read_image_hw
from ..progress import Progress
from ..reference_vectors import Reference
from ..rle import annotation_rle, decode_mask
from .job import Plan
from .suite import Part

logger = logging.getLogger(__name__)

TRUTH_FIELD, REFERENCES_FIELD = "ground_truth", "references"
TARGET_TAG = "target"
INFO = "refseg_benchmark"
IMAGES_A_BATCH = 100


@dataclass(frozen=True)
class TargetSamples:
    """The dataset, and where in it the targets are.

    Attributes:
        dataset: a persistent FiftyOne dataset.
        sample_ids: by the id of the target image.
    """

    dataset: Any
    sample_ids: Mapping[ImageId, str]

    @property
    def view(self) -> Any:
        """The targets alone."""
        return self.dataset.select(list(self.sample_ids.values()))


def iter_dataset(plan: Plan, part: Part) -> Generator[Progress, None, TargetSamples]:
    """The dataset of a part, with every target image in it: yields after each batch of images that it lacks.

    A dataset of an earlier run on the same files is used again, so that its index is, too; one that somebody else has made
    under its name is left alone.
    """
    dataset = _open(plan, part)
    folder = plan.suite.folder
    paths = {image.id: str(folder / image.file_name) for image in part.targets.images.values()}
    known = dict(zip(*dataset.match_tags(TARGET_TAG).values(["filepath", "id"]), strict=True))
    missing = [image for image in part.targets.images.values() if paths[image.id] not in known]
    # An image that was there as a reference alone comes again with its ground truth.
    dataset.delete_samples(dataset.select_by("filepath", [paths[image.id] for image in missing]))
    labels = _by_image(part.targets, {image.id for image in missing})
    label = f"images of {dataset.name}"
    yield Progress(len(paths) - len(missing), len(paths), label)
    for start in range(0, len(missing), IMAGES_A_BATCH):
        batch = missing[start : start + IMAGES_A_BATCH]
        samples = [_sample(image, paths[image.id], labels.get(image.id, []), part.targets) for image in batch]
        known.update(zip([sample.filepath for sample in samples], dataset.add_samples(samples, progress=False), strict=True))
        yield Progress(len(paths) - len(missing) + start + len(batch), len(paths), label)
    return TargetSamples(dataset, {image_id: known[path] for image_id, path in paths.items()})


def show_references(dataset: Any, references: Sequence[Reference], field: str) -> None:
    """Write references to a field of a dataset, in place of those that it holds; images that it lacks are added."""
    if dataset.has_field(field):
        dataset.clear_sample_field(field)
    grouped: dict[str, list[Reference]] = {}
    for reference in references:
        grouped.setdefault(reference.image, []).append(reference)
    known = dict(zip(*dataset.values(["filepath", "id"]), strict=True))
    values, new = {}, []
    for path, members in grouped.items():
        try:
            height, width = read_image_hw(path)
        except ImageError as error:
            logger.warning("A reference is not shown: %s", error)
            continue
        shown = fo.Detections(detections=[_reference(item, (height, width)) for item in members])
        if path in known:
            values[known[path]] = shown
        else:
            new.append(
                fo.Sample(path, tags=[REFERENCE_TAG], metadata=fo.ImageMetadata(width=width, height=height), **{field: shown})
            )
    if new:
        dataset.add_samples(new, progress=False)
    if values:
        dataset.set_values(field, values, key_field="id", dynamic=True)


def show_maps(targets: TargetSamples, maps: Mapping[ImageId, NDArray[np.uint16]], classes: Sequence[str], field: str) -> None:
    """Write maps of classes to a field of a dataset: 0 is background, k + 1 the class at k."""
    dataset = targets.dataset
    values = {targets.sample_ids[image_id]: fo.Segmentation(mask=canvas) for image_id, canvas in maps.items()}
    if dataset.has_field(field):
        dataset.clear_sample_field(field)
    dataset.set_values(field, values, key_field="id")
    dataset.mask_targets = {**dataset.mask_targets, field: dict(enumerate(classes, 1))}
    dataset.save()


def _open(plan: Plan, part: Part) -> Any:
    job, origin = plan.job, {"name": plan.suite.name, "part": part.key, "folder": str(plan.suite.folder)}
    stem = "" if job.targets is None else job.targets.stem
    base = "-".join(word for word in ("refseg", plan.suite.name, part.key, stem) if word)
    name, number = base, 2
    while fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if dataset.info.get(INFO) == origin:
            return dataset
        name, number = f"{base}-{number}", number + 1
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[INFO] = origin
    dataset.save()
    dataset.save_view("targets", dataset.match_tags(TARGET_TAG), "Images that are segmented and scored")
    return dataset


def _by_image(coco: CocoDataset, wanted: set[ImageId]) -> dict[ImageId, list[dict[str, Any]]]:
    found: dict[ImageId, list[dict[str, Any]]] = {}
    for annotation in coco.annotations:
        if annotation["image_id"] in wanted:
            found.setdefault(annotation["image_id"], []).append(annotation)
    return found


def _sample(image: CocoImage, path: str, annotations: Sequence[dict[str, Any]], coco: CocoDataset) -> Any:
    assert image.image_hw is not None
    height, width = image.image_hw
    labels = [_truth(annotation, coco, image.image_hw) for annotation in annotations]
    return fo.Sample(
        path,
        tags=[TARGET_TAG],
        metadata=fo.ImageMetadata(width=width, height=height),
        image_id=str(image.id),
        **{TRUTH_FIELD: fo.Detections(detections=[label for label in labels if label is not None])},
    )


def _truth(annotation: dict[str, Any], coco: CocoDataset, image_hw: tuple[int, int]) -> Any:
    """An annotation as a label; None for one that lies outside its image."""
    height, width = image_hw
    try:
        code = annotation_rle(annotation, image_hw, coco.source)
    except CocoError as error:
        logger.warning("Shown by its box alone: %s", error)
        code = None
    x, y, w, h = annotation.get("bbox") or mask_utils.toBbox(code).tolist()
    label = {"label": coco.categories[annotation["category_id"]], "iscrowd": bool(annotation.get("iscrowd"))}
    if code is None:
        return fo.Detection(bounding_box=[x / width, y / height, w / width, h / height], **label)
    x0, y0, x1, y1 = max(0, floor(x)), max(0, floor(y)), min(width, ceil(x + w)), min(height, ceil(y + h))
    if x0 >= x1 or y0 >= y1:
        return None
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    return fo.Detection(bounding_box=box, mask=decode_mask(code)[y0:y1, x0:x1], **label)


def _reference(item: Reference, image_hw: tuple[int, int]) -> Any:
    height, width = image_hw
    x0, y0, x1, y1 = item.box
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    return fo.Detection(label=item.label, bounding_box=box, mask=item.mask, tags=[REFERENCE_TAG], annotation_id=item.id)
