"""The FiftyOne dataset of a benchmark's part: its target images with ground truth, and what the run it shows gave and took."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from ..coco import CocoDataset, CocoImage, group_by_image
from ..dataset import REFERENCE_TAG, index_records
from ..errors import CocoError, ImageError
from ..images import read_image_hw
from ..masks import ImageId, annotation_rle, decode_mask
from ..progress import Progress
from ..prototypes import Reference
from .job import BenchmarkJob
from .suite import Part, Suite

logger = logging.getLogger(__name__)

TRUTH_FIELD, REFERENCES_FIELD, PREDICTIONS_FIELD = "ground_truth", "references", "predictions"
DIGEST_FIELD = "annotations_digest"
"""Of each target: what its ground truth was made from, to be renewed where the annotations have changed."""
TARGET_TAG = "target"
INFO = "refseg_benchmark"
IMAGES_A_BATCH = 100


@dataclass(frozen=True)
class TargetSamples:
    """The dataset, and where in it the targets are.

    Attributes:
        dataset: a persistent FiftyOne dataset.
        sample_ids: by the id of the target image; a file may be listed as several images.
    """

    dataset: Any
    sample_ids: Mapping[ImageId, str]

    @property
    def view(self) -> Any:
        """The targets alone."""
        return self.dataset.select(sorted(set(self.sample_ids.values())))


@dataclass(frozen=True)
class KnownDataset:
    """Where the dataset of a part is, or is to be.

    Attributes:
        name: of the dataset.
        exists: whether an earlier run has made it.
        others: datasets of this benchmark on files in other folders: their indexes are not used.
    """

    name: str
    exists: bool
    others: tuple[str, ...]

    def index_bytes(self, model: str) -> int:
        """What its indexes for a preset take."""
        records = index_records(fo.load_dataset(self.name)) if self.exists else []
        return sum(int(record["num_bytes"] or 0) for record in records if record["model"] == model)


def find_dataset(suite: Suite, part: Part, job: BenchmarkJob) -> KnownDataset:
    """The dataset of a part's files, whatever settings it was made with; one that somebody else has made is passed over."""
    origin = _origin(suite, part, job)
    words = ["refseg", suite.name, part.key, "" if job.targets is None else job.targets.stem]
    base = "-".join("".join(c if c.isalnum() else "-" for c in word).strip("-") for word in words if word).lower()
    # FiftyOne tells names apart by their slugs.
    slugs = {fo.core.utils.to_slug(name): name for name in fo.list_datasets()}
    others: list[str] = []
    name, number = base, 2
    while (taken := slugs.get(fo.core.utils.to_slug(name))) is not None:
        found = fo.load_dataset(taken).info.get(INFO)
        if found is not None and found.get("origin") == origin:
            return KnownDataset(taken, True, tuple(others))
        if found is not None:
            others.append(taken)
        name, number = f"{base}-{number}", number + 1
    return KnownDataset(name, False, tuple(others))


def iter_dataset(suite: Suite, part: Part, job: BenchmarkJob) -> Generator[Progress, None, TargetSamples]:
    """The dataset of a part, with every target image in it: yields after each batch of images that it lacks.

    A dataset of an earlier run on the same files is used again, so that its index is, too; ground truth that has changed is
    renewed.
    """
    known = find_dataset(suite, part, job)
    dataset = fo.load_dataset(known.name) if known.exists else _create(known.name, _origin(suite, part, job))
    images: dict[str, list[CocoImage]] = {}
    for image in part.targets.images.values():
        images.setdefault(_normal(suite.folder / image.file_name), []).append(image)
    annotations = _by_path(part.targets, images)
    digests = {path: _digest(annotations.get(path, []), part.targets) for path in images}
    targets = dataset.match_tags(TARGET_TAG)
    held = {path: (name, digest) for path, name, digest in zip(*targets.values(["filepath", "id", DIGEST_FIELD]), strict=True)}
    missing = [path for path in images if path not in held]
    changed = [path for path in images if path in held and held[path][1] != digests[path]]
    # An image that was there as a reference alone comes again with its ground truth.
    dataset.delete_samples(dataset.select_by("filepath", missing))
    done, label = len(images) - len(missing) - len(changed), f"images of {dataset.name}"
    yield Progress(done, len(images), label)
    for paths in _batches(missing):
        samples = [_sample(path, images[path][0], annotations.get(path, []), part.targets, digests[path]) for path in paths]
        held.update(zip(paths, ((name, "") for name in dataset.add_samples(samples, progress=False)), strict=True))
        done += len(paths)
        yield Progress(done, len(images), label)
    for paths in _batches(changed):
        truths = {held[p][0]: _truths(annotations.get(p, []), part.targets, _hw(images[p][0])) for p in paths}
        dataset.set_values(TRUTH_FIELD, truths, key_field="id", dynamic=True)
        dataset.set_values(DIGEST_FIELD, {held[path][0]: digests[path] for path in paths}, key_field="id")
        done += len(paths)
        yield Progress(done, len(images), label)
    return TargetSamples(dataset, {image.id: held[path][0] for path, listed in images.items() for image in listed})


def show_references(dataset: Any, references: Sequence[Reference], field: str) -> None:
    """Write references to a field of a dataset, in place of those that it holds; images that it lacks are added."""
    _clear(dataset, field)
    grouped: dict[str, list[Reference]] = {}
    for reference in references:
        grouped.setdefault(_normal(reference.image), []).append(reference)
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
            metadata = fo.ImageMetadata(width=width, height=height)
            new.append(fo.Sample(path, tags=[REFERENCE_TAG], metadata=metadata, **{field: shown}))
    if new:
        dataset.add_samples(new, progress=False)
    if values:
        dataset.set_values(field, values, key_field="id", dynamic=True)


def iter_predictions(
    targets: TargetSamples, coco: CocoDataset, results: Sequence[Mapping[str, Any]], threshold: float, field: str
) -> Generator[Progress, None, None]:
    """Write the results of a threshold and above to a field, in place of what it holds: yields after each batch.

    Args:
        targets: the dataset.
        coco: the images, with their height and width.
        results: entries of a COCO results file.
        threshold: least score.
        field: of detections.
    """
    _clear(targets.dataset, field)
    found = group_by_image(result for result in results if result["score"] >= threshold)
    images, done = list(coco.images.values()), 0
    yield Progress(0, len(images), field)
    for start in range(0, len(images), IMAGES_A_BATCH):
        batch = images[start : start + IMAGES_A_BATCH]
        values = {}
        for image in batch:
            labels = [_labelled(result, coco, _hw(image), confidence=result["score"]) for result in found.get(image.id, ())]
            values[targets.sample_ids[image.id]] = fo.Detections(detections=[label for label in labels if label is not None])
        targets.dataset.set_values(field, values, key_field="id", dynamic=True)
        done += len(batch)
        yield Progress(done, len(images), field)


def show_maps(targets: TargetSamples, maps: Mapping[ImageId, NDArray[np.uint16]], classes: Sequence[str], field: str) -> None:
    """Write maps of classes to a field of a dataset, in place of those it holds: 0 is background, k + 1 the class at k."""
    dataset = targets.dataset
    _clear(dataset, field)
    values = {targets.sample_ids[image_id]: fo.Segmentation(mask=canvas) for image_id, canvas in maps.items()}
    dataset.set_values(field, values, key_field="id")
    dataset.mask_targets = {**dataset.mask_targets, field: dict(enumerate(classes, 1))}
    dataset.save()


def shown_in(dataset: Any, field: str) -> Any:
    """What `note_shown` noted of a field; None where nothing was."""
    return dataset.info.get(INFO, {}).get("shown", {}).get(field)


def note_shown(dataset: Any, field: str, what: Mapping[str, Any]) -> None:
    """Keep with a dataset what a field shows."""
    about = dataset.info.get(INFO, {})
    dataset.info[INFO] = {**about, "shown": {**about.get("shown", {}), field: dict(what)}}
    dataset.save()


def _origin(suite: Suite, part: Part, job: BenchmarkJob) -> dict[str, str]:
    targets = "" if job.targets is None else _normal(job.targets)
    return {"name": suite.name, "part": part.key, "folder": str(suite.folder), "targets": targets}


def _create(name: str, origin: Mapping[str, str]) -> Any:
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[INFO] = {"origin": dict(origin)}
    dataset.add_sample_field(DIGEST_FIELD, fo.StringField)
    dataset.add_sample_field("image_id", fo.StringField)
    dataset.add_sample_field(TRUTH_FIELD, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.save()
    dataset.save_view("targets", dataset.match_tags(TARGET_TAG), "Images that are segmented and scored")
    return dataset


def _normal(path: str | os.PathLike[str]) -> str:
    """As FiftyOne keeps paths."""
    return os.path.abspath(path)


def _batches(paths: Sequence[str]) -> list[Sequence[str]]:
    return [paths[start : start + IMAGES_A_BATCH] for start in range(0, len(paths), IMAGES_A_BATCH)]


def _clear(dataset: Any, field: str) -> None:
    if dataset.has_field(field):
        dataset.clear_sample_field(field)


def _hw(image: CocoImage) -> tuple[int, int]:
    assert image.image_hw is not None
    return image.image_hw


def _by_path(coco: CocoDataset, images: Mapping[str, Sequence[CocoImage]]) -> dict[str, list[dict[str, Any]]]:
    paths = {image.id: path for path, listed in images.items() for image in listed}
    found: dict[str, list[dict[str, Any]]] = {}
    for annotation in coco.annotations:
        found.setdefault(paths[annotation["image_id"]], []).append(annotation)
    return found


def _digest(annotations: Sequence[dict[str, Any]], coco: CocoDataset) -> str:
    about = [[coco.categories[entry["category_id"]], entry] for entry in annotations]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _sample(path: str, image: CocoImage, annotations: Sequence[dict[str, Any]], coco: CocoDataset, digest: str) -> Any:
    height, width = _hw(image)
    return fo.Sample(
        path,
        tags=[TARGET_TAG],
        metadata=fo.ImageMetadata(width=width, height=height),
        image_id=str(image.id),
        **{TRUTH_FIELD: _truths(annotations, coco, (height, width)), DIGEST_FIELD: digest},
    )


def _truths(annotations: Sequence[dict[str, Any]], coco: CocoDataset, image_hw: tuple[int, int]) -> Any:
    labels = [_labelled(entry, coco, image_hw, iscrowd=bool(entry.get("iscrowd"))) for entry in annotations]
    return fo.Detections(detections=[label for label in labels if label is not None])


def _labelled(entry: Mapping[str, Any], coco: CocoDataset, image_hw: tuple[int, int], **attributes: Any) -> Any:
    """An annotation or a result as a label; None for one that lies outside its image."""
    height, width = image_hw
    try:
        code = annotation_rle(entry, image_hw, coco.source)
    except CocoError as error:
        logger.warning("Shown by its box alone: %s", error)
        code = None
    x, y, w, h = entry.get("bbox") or mask_utils.toBbox(code).tolist()
    label = coco.categories[entry["category_id"]]
    if code is None:
        return fo.Detection(label=label, bounding_box=[x / width, y / height, w / width, h / height], **attributes)
    x0, y0, x1, y1 = max(0, floor(x)), max(0, floor(y)), min(width, ceil(x + w)), min(height, ceil(y + h))
    if x0 >= x1 or y0 >= y1:
        return None
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    return fo.Detection(label=label, bounding_box=box, mask=decode_mask(code)[y0:y1, x0:x1], **attributes)


def _reference(item: Reference, image_hw: tuple[int, int]) -> Any:
    height, width = image_hw
    x0, y0, x1, y1 = item.extent
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    return fo.Detection(label=item.label, bounding_box=box, mask=item.mask, tags=[REFERENCE_TAG], annotation_id=item.id)
