"""From ranked candidates to fields of predictions: which samples changed, what is written to them, in bulk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.odm import validate_field_name

from .candidates import Candidates
from .errors import DatasetError, IndexDamagedError
from .labels import needs_files, semantic_map, to_detections
from .matching import Instances, Ranking, crop_instances
from .packing import PackedCandidates
from .store import dataset_folder

IMAGES_A_WRITE = 256
SECONDS_A_WRITE = 5.0
"""Predictions are written when either is reached: what a killed process loses."""
SAME_SCORE = 1e-6
"""Scores may differ by this much with the company in which they were computed."""


@dataclass(frozen=True)
class SegmentSettings:
    """How candidates become predictions.

    Attributes:
        min_confidence: lower scores are not written; None takes the preset's default.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder instead of into the database.
        semantic_field: also write a `Segmentation` map to this field.
        preview: write the hundred images with the best scores alone, of those that are indexed.
    """

    min_confidence: float | None = None
    max_detections: int = 100
    mask_dir: str | None = None
    semantic_field: str | None = None
    preview: bool = False

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise DatasetError(f"The minimum confidence must lie between 0 and 1, not {self.min_confidence}.")
        if self.max_detections < 1:
            raise DatasetError(f"The maximum number of detections must be at least 1, not {self.max_detections}.")


Written = list[tuple[Any, ...]]
"""Label, score, predicted IoU and relative xywh box of each detection of a sample, as it holds them now."""


@dataclass
class Writer:
    """Collects the answers of some images and writes those that differ from what the samples hold, in bulk.

    Attributes:
        view: whose samples are written to.
        label_field: holds Detections.
        run_key: written on each of them.
        classes: name of each prototype's row.
        settings: of the run.
        compares: whether samples may hold the same answer already; otherwise each is written.
        answers: what is not written yet, by sample id.
        num_images: answers taken.
        num_instances: instances in the answers dealt with.
        num_written: samples written.
    """

    view: Any
    label_field: str
    run_key: str
    classes: tuple[str, ...]
    settings: SegmentSettings
    compares: bool
    answers: dict[str, tuple[Candidates | PackedCandidates, Ranking]] = field(default_factory=dict)
    num_images: int = 0
    num_instances: int = 0
    num_written: int = 0
    _written_at: float = field(default_factory=time.monotonic)

    def add(self, sample_id: str, candidates: Candidates | PackedCandidates, ranking: Ranking) -> None:
        """Take the answer of one image."""
        self.answers[sample_id] = candidates, ranking
        self.num_images += 1

    def flush_if_due(self) -> None:
        """Write where many answers, or old ones, have gathered."""
        if len(self.answers) >= IMAGES_A_WRITE or time.monotonic() - self._written_at >= SECONDS_A_WRITE:
            self.flush()

    def flush(self) -> None:
        """Write every answer that differs from what its sample holds."""
        answers, self.answers = self.answers, {}
        labels: dict[str, Any] = {}
        maps: dict[str, Any] = {}
        written = self._written_answers(list(answers)) if self.compares else {}
        for sample_id, (candidates, ranking) in answers.items():
            limit = self.settings.max_detections
            before = written.get(sample_id)
            if before is not None and not _same_scores(before, candidates, ranking, self.classes, limit):
                before = None
            if before is not None and _boxes_near(before, candidates, ranking):
                self.num_instances += len(before)
                continue
            try:
                instances = crop_instances(candidates, ranking, limit)
            except ValueError as error:
                raise IndexDamagedError(
                    f"The candidates of the sample {sample_id} are damaged ({error}): let refseg.open_index(dataset).verify() "
                    "find all such samples, and build the index again."
                ) from error
            self.num_instances += len(instances)
            if before is not None and _same_boxes(before, instances, candidates.image_hw):
                continue
            quality = candidates.predicted_iou[instances.rows].tolist()
            folder = self._mask_folder(sample_id, instances)
            labels[sample_id] = to_detections(instances, self.classes, quality, candidates.image_hw, self.run_key, folder)
            if self.settings.semantic_field:
                maps[sample_id] = fo.Segmentation(mask=semantic_map(instances, candidates.image_hw))
        dataset = self.view._dataset
        if labels:
            dataset.set_values(self.label_field, labels, key_field="id", dynamic=True)
        if maps:
            dataset.set_values(self.settings.semantic_field, maps, key_field="id")
        self.num_written += len(labels)
        self._written_at = time.monotonic()

    def _written_answers(self, sample_ids: list[str]) -> dict[str, Written]:
        """The answers of earlier runs in the samples that hold one."""
        # Not read through the view, which may hide a part of them.
        dataset = self.view._dataset
        whole = dataset.select_group_slices(media_type="image") if dataset.media_type == "group" else dataset
        path = f"{self.label_field}.detections"
        names = ["label", "confidence", "predicted_iou", "bounding_box"]
        has_scores = dataset.get_field(f"{path}.predicted_iou") is not None
        columns = whole.select(sample_ids).values(["id", *(f"{path}.{name}" for name in (names if has_scores else names[:1]))])
        return {
            sample_id: list(zip(*values, strict=True))
            for sample_id, *values in zip(*columns, strict=True)
            # Labels without scores are not RefSeg's, but no labels at all are an answer too.
            if values[0] is not None and (has_scores or not values[0])
        }

    def _mask_folder(self, sample_id: str, instances: Instances) -> Path | None:
        if self.settings.mask_dir is not None:
            # FiftyOne keeps mask paths as they are written: a relative one would be lost with the working directory.
            return Path(self.settings.mask_dir).expanduser().absolute() / sample_id
        if needs_files(instances):
            return dataset_folder(self.view._dataset) / "masks" / self.run_key / sample_id
        return None


def _same_scores(
    before: Written,
    candidates: Candidates | PackedCandidates,
    ranking: Ranking,
    classes: Sequence[str],
    max_detections: int,
) -> bool:
    """Whether labels, scores and predicted IoU are those of the ranking, in its order."""
    rows = ranking.rows[:max_detections]
    if len(before) != len(rows):
        return False
    new = zip(ranking.labels.tolist(), ranking.scores.tolist(), candidates.predicted_iou[rows].tolist(), strict=False)
    return all(
        label == classes[row]
        and score is not None
        and quality is not None
        and abs(score - new_score) <= SAME_SCORE
        and abs(quality - new_quality) <= SAME_SCORE
        for (label, score, quality, _), (row, new_score, new_quality) in zip(before, new, strict=False)
    )


def _boxes_near(before: Written, candidates: Candidates | PackedCandidates, ranking: Ranking) -> bool:
    """Whether each box lies within a cell and a half of that of its candidate: nobody has moved it."""
    if not before:
        return True
    x, y, w, h = np.array([box for *_, box in before]).T
    cells = candidates.boxes_of(ranking.rows[: len(before)]).numpy() + np.array([0, 0, 1, 1])
    apart = np.abs(np.stack([x, y, x + w, y + h], 1) * candidates.grid_side - cells)
    return bool((apart <= 1.5).all())


def _same_boxes(before: Written, instances: Instances, image_hw: tuple[int, int]) -> bool:
    """Whether each box is that of its instance to the pixel."""
    if len(before) != len(instances):
        return False
    x, y, w, h = np.array([box for *_, box in before]).reshape(-1, 4).T
    height, width = image_hw
    pixels = np.stack([x * width, y * height, (x + w) * width, (y + h) * height], 1)
    return bool((np.abs(pixels - instances.boxes.numpy()) < 0.01).all())


def check_fields(dataset: Any, label_field: str, settings: SegmentSettings) -> dict[str, type]:
    """The fields to write and their label types; raises where one holds something else, before anything is changed."""
    fields: dict[str, type] = {label_field: fo.Detections}
    if settings.semantic_field:
        if settings.semantic_field == label_field:
            raise DatasetError(f"The semantic map needs a field of its own, not {label_field!r} again.")
        fields[settings.semantic_field] = fo.Segmentation
    for name, kind in fields.items():
        existing = dataset.get_field(name)
        if existing is None:
            check_name(dataset, name)
        elif getattr(existing, "document_type", None) is not kind:
            held = getattr(existing, "document_type", type(existing)).__name__
            raise DatasetError(
                f"The field {name!r} of dataset {dataset.name!r} holds {held}, not {kind.__name__}: choose another field, so "
                "that nothing is overwritten."
            )
    return fields


def check_name(dataset: Any, name: str) -> None:
    """Refuse a name that no new field can have.

    Raises:
        DatasetError: FiftyOne does not allow it, or it has a dot.
    """
    try:
        validate_field_name(name, media_type=dataset.media_type)
        if "." in name:
            raise ValueError("predictions need a field of their own, without a dot in its name")
    except ValueError as error:
        raise DatasetError(f"{name!r} cannot name a field of dataset {dataset.name!r}: {error}") from error


def create_fields(dataset: Any, fields: dict[str, type], classes: Sequence[str]) -> None:
    """Add the fields that are not there yet, and say what the values of a semantic map mean."""
    for name, kind in fields.items():
        if dataset.get_field(name) is None:
            dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=kind)
        if kind is fo.Segmentation:
            targets = {index + 1: label for index, label in enumerate(classes)}
            dataset.mask_targets = {**dataset.mask_targets, name: targets}
            dataset.save()
