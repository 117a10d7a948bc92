"""Segment a FiftyOne view with prototypes: predictions in bulk, bad images recorded, provenance as a FiftyOne run."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import torch

from .candidates import Candidates, propose_from_pixels
from .errors import DatasetError, PrototypeMismatchError
from .labels import needs_files, require_images, require_samples, semantic_map, to_detections
from .loading import IMAGES_A_BATCH, LoadedImage, load_batches, stack_pixels
from .matching import Instances, match
from .models import Models, load_models
from .progress import Progress, Watcher, drain
from .prototypes import Prototypes
from .store import dataset_folder, load_prototypes, run_key_from, write_prototypes

logger = logging.getLogger(__name__)

SEGMENT_METHOD = "refseg/segment"
BATCHES_A_WRITE = 8


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be segmented; its earlier predictions stay as they are."""

    sample_id: str
    filepath: str
    reason: str


@dataclass(frozen=True)
class SegmentReport:
    """What a run of segment did.

    Attributes:
        run_key: of the FiftyOne run that holds its settings.
        label_field: where the predictions are.
        num_images: images segmented.
        num_instances: instances written.
        skipped: images that could not be read.
        seconds: wall-clock time, writing included.
    """

    run_key: str
    label_field: str
    num_images: int
    num_instances: int
    skipped: tuple[SkippedImage, ...]
    seconds: float

    def __str__(self) -> str:
        rate = self.seconds / max(1, self.num_images)
        lines = [
            f"{self.num_instances} instances in {self.num_images} images in the field {self.label_field!r} "
            f"({self.seconds:.1f} s, {rate:.2f} s an image; run {self.run_key!r})"
        ]
        lines += [f"skipped {image.filepath}: {image.reason}" for image in self.skipped]
        return "\n".join(lines)


@dataclass(frozen=True)
class SegmentSettings:
    """How candidates become predictions.

    Attributes:
        min_confidence: lower scores are not written; None takes the preset's default.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder instead of into the database.
        semantic_field: also write a `Segmentation` map to this field.
    """

    min_confidence: float | None = None
    max_detections: int = 100
    mask_dir: str | None = None
    semantic_field: str | None = None

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise DatasetError(f"The minimum confidence must lie between 0 and 1, not {self.min_confidence}.")
        if self.max_detections < 1:
            raise DatasetError(f"The maximum number of detections must be at least 1, not {self.max_detections}.")


def models_for(prototypes: Prototypes, model: str | Models | None) -> Models:
    """The models that fit these prototypes.

    Raises:
        PrototypeMismatchError: the model's encoder is another than the one that built the prototypes.
    """
    models = model if isinstance(model, Models) else load_models(model or prototypes.model)
    if models.fingerprint != prototypes.fingerprint:
        raise PrototypeMismatchError(
            f"These prototypes were built by {prototypes.model!r} (encoder {prototypes.fingerprint}), not by "
            f"{models.preset.name!r} (encoder {models.fingerprint}): build them again with the model that is to use them."
        )
    return models


def match_image(candidates: Candidates, prototypes: Prototypes, models: Models, settings: SegmentSettings) -> Instances:
    """Instances of one image under the preset's profile."""
    chosen = settings.min_confidence
    return match(
        candidates,
        prototypes.matrix,
        max_detections=settings.max_detections,
        min_score=models.preset.min_confidence if chosen is None else chosen,
        as_published=models.preset.as_published,
    )


@dataclass
class _Writer:
    """Collects the labels of some images and writes them in bulk."""

    dataset: Any
    label_field: str
    run_key: str
    classes: tuple[str, ...]
    settings: SegmentSettings
    labels: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Any] = field(default_factory=dict)
    num_images: int = 0
    num_instances: int = 0

    def add(self, sample_id: str, instances: Instances, candidates: Candidates) -> None:
        quality = candidates.predicted_iou[instances.rows].tolist()
        folder = self._mask_folder(sample_id, instances)
        self.labels[sample_id] = to_detections(instances, self.classes, quality, candidates.image_hw, self.run_key, folder)
        if self.settings.semantic_field:
            self.maps[sample_id] = fo.Segmentation(mask=semantic_map(instances, candidates.image_hw))
        self.num_images += 1
        self.num_instances += len(instances)

    def flush(self) -> None:
        if self.labels:
            self.dataset.set_values(self.label_field, self.labels, key_field="id", dynamic=True)
        if self.maps:
            self.dataset.set_values(self.settings.semantic_field, self.maps, key_field="id")
        self.labels, self.maps = {}, {}

    def _mask_folder(self, sample_id: str, instances: Instances) -> Path | None:
        if self.settings.mask_dir is not None:
            # FiftyOne keeps mask paths as they are written: a relative one would be lost with the working directory.
            return Path(self.settings.mask_dir).expanduser().absolute() / sample_id
        if needs_files(instances):
            return dataset_folder(self.dataset) / "masks" / self.run_key / sample_id
        return None


def iter_segment(
    view: Any,
    prototypes: Prototypes | str,
    label_field: str = "predictions",
    *,
    model: str | Models | None = None,
    settings: SegmentSettings | None = None,
    run_key: str | None = None,
    num_workers: int | None = None,
) -> Generator[Progress, None, SegmentReport]:
    """The generator behind segment: yields after each batch; closing it writes what is done and marks the run cancelled."""
    started = time.monotonic()
    settings = settings or SegmentSettings()
    require_images(view)
    require_samples(view)
    dataset = view._dataset
    if isinstance(prototypes, str):
        prototypes = load_prototypes(dataset, prototypes)
    fields = _check_fields(dataset, label_field, settings)
    key = run_key or _free_key(dataset, label_field)
    _check_key(dataset, key)
    models = models_for(prototypes, model)
    _create_fields(dataset, fields, prototypes.classes)
    config = _register(view, key, prototypes, models, label_field, settings)
    writer = _Writer(dataset, label_field, key, prototypes.classes, settings)
    skipped: list[SkippedImage] = []
    config.state = "failed"
    try:
        yield from _segment_images(view, prototypes, models, writer, skipped, num_workers)
        config.state = "completed"
    except GeneratorExit:
        config.state = "cancelled"
        raise
    except Exception as error:
        config.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        writer.flush()
        config.num_images, config.num_instances = writer.num_images, writer.num_instances
        config.skipped = [[image.sample_id, image.filepath, image.reason] for image in skipped]
        config.seconds = round(time.monotonic() - started, 3)
        dataset.update_run_config(key, config)
    for image in skipped:
        logger.warning("Skipped %s: %s", image.filepath, image.reason)
    return SegmentReport(key, label_field, writer.num_images, writer.num_instances, tuple(skipped), time.monotonic() - started)


def segment(
    view: Any,
    prototypes: Prototypes | str,
    label_field: str = "predictions",
    *,
    model: str | Models | None = None,
    min_confidence: float | None = None,
    max_detections: int = 100,
    mask_dir: str | None = None,
    semantic_field: str | None = None,
    run_key: str | None = None,
    num_workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> SegmentReport:
    """Find and segment the prototypes' classes in every image of a view.

    Predictions are `Detections` with tight boolean masks, label, confidence, boxes on whole pixels, and the attributes
    `predicted_iou` and `run`; those of an earlier run on the same image and field are replaced. An image that cannot be read
    is skipped, recorded on the run, and reported.

    Args:
        view: a dataset or view of images.
        prototypes: or the name under which the dataset keeps them.
        label_field: where to write; a new field, or one of Detections.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        min_confidence: lower scores are not written; by default the preset's.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder (`mask_path`) instead of into the database.
        semantic_field: also write a `Segmentation` map here; 0 is background, class k of the prototypes is k + 1.
        run_key: of the FiftyOne run; by default made from the field's name.
        num_workers: processes that decode images; 0 for none.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, a field of another type, a limit out of range, unknown prototypes.
        PrototypeMismatchError: the model is another than the one that built the prototypes.
    """
    settings = SegmentSettings(min_confidence, max_detections, mask_dir, semantic_field)
    work = iter_segment(view, prototypes, label_field, model=model, settings=settings, run_key=run_key, num_workers=num_workers)
    return drain(work, progress)


def _segment_images(
    view: Any,
    prototypes: Prototypes,
    models: Models,
    writer: _Writer,
    skipped: list[SkippedImage],
    num_workers: int | None,
) -> Generator[Progress, None, None]:
    sample_ids, paths = view.values(["id", "filepath"])
    done = 0
    yield Progress(0, len(paths), "images")
    batches = load_batches(paths, models.segmenter_side, batch_size=IMAGES_A_BATCH[models.device.type], num_workers=num_workers)
    for number, batch in enumerate(batches, 1):
        good = [image for image in batch if image.error is None]
        for image in batch:
            if image.error is not None:
                skipped.append(SkippedImage(sample_ids[image.index], paths[image.index], image.error))
        for image, candidates in zip(good, _candidates(good, models), strict=True):
            writer.add(sample_ids[image.index], match_image(candidates, prototypes, models, writer.settings), candidates)
        if number % BATCHES_A_WRITE == 0:
            writer.flush()
        done += len(batch)
        yield Progress(done, len(paths), "images")


def _candidates(batch: Sequence[LoadedImage], models: Models) -> list[Candidates]:
    if not batch:
        return []
    with torch.inference_mode():
        return propose_from_pixels(stack_pixels(batch), [image.image_hw for image in batch], models)


def _check_fields(dataset: Any, label_field: str, settings: SegmentSettings) -> dict[str, type]:
    """The fields to write and their label types; raises where one holds something else, before anything is changed."""
    fields: dict[str, type] = {label_field: fo.Detections}
    if settings.semantic_field:
        if settings.semantic_field == label_field:
            raise DatasetError(f"The semantic map needs a field of its own, not {label_field!r} again.")
        fields[settings.semantic_field] = fo.Segmentation
    for name, kind in fields.items():
        existing = dataset.get_field(name)
        if existing is not None and getattr(existing, "document_type", None) is not kind:
            held = getattr(existing, "document_type", type(existing)).__name__
            raise DatasetError(
                f"The field {name!r} of dataset {dataset.name!r} holds {held}, not {kind.__name__}: choose another field, so "
                "that nothing is overwritten."
            )
    return fields


def _create_fields(dataset: Any, fields: dict[str, type], classes: Sequence[str]) -> None:
    for name, kind in fields.items():
        if dataset.get_field(name) is None:
            try:
                dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=kind)
            except ValueError as error:
                raise DatasetError(f"{name!r} cannot name a field of dataset {dataset.name!r}: {error}") from error
        if kind is fo.Segmentation:
            targets = {index + 1: label for index, label in enumerate(classes)}
            dataset.mask_targets = {**dataset.mask_targets, name: targets}
            dataset.save()


def _free_key(dataset: Any, label_field: str) -> str:
    base = run_key_from(f"{label_field}_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}")
    key, number = base, 2
    while dataset.has_run(key):
        key, number = f"{base}_{number}", number + 1
    return key


def _check_key(dataset: Any, key: str) -> None:
    if not key.isidentifier():
        raise DatasetError(f"{key!r} cannot name a run: use letters, digits and underscores, such as {run_key_from(key)!r}.")
    if dataset.has_run(key):
        raise DatasetError(f"The dataset {dataset.name!r} has a run named {key!r} already: choose another run key.")


def _register(view: Any, key: str, prototypes: Prototypes, models: Models, label_field: str, settings: SegmentSettings) -> Any:
    """Record the run before work starts, so that even a killed one can be traced."""
    dataset = view._dataset
    stored = write_prototypes(dataset, prototypes)
    default = models.preset.min_confidence
    config = dataset.init_run(
        method=SEGMENT_METHOD,
        state="running",
        label_field=label_field,
        classes=list(prototypes.classes),
        prototypes_path=stored.path,
        prototypes_sha256=stored.sha256,
        reference_ids=list(prototypes.reference_ids),
        model=models.preset.name,
        revisions=models.revisions,
        dtype=str(models.dtype),
        min_confidence=default if settings.min_confidence is None else settings.min_confidence,
        max_detections=settings.max_detections,
        mask_dir=settings.mask_dir,
        semantic_field=settings.semantic_field,
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    view.register_run(key, config)
    return config
