"""From ranked candidates to fields of predictions: which samples changed, in what, and what is written to them, in bulk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from ..candidates import Candidates, PackedCandidates
from ..dataset import (
    RUN,
    add_labels_field,
    check_name,
    dataset_folder,
    holds_labels_of_others,
    is_box,
    name_of,
    needs_files,
    prediction_example,
    read_detections,
    sample_or_none,
    to_document,
    whole_of,
    write_detections,
    write_values,
)
from ..errors import DatasetError, IndexDamagedError
from ..failpoints import reach
from ..matching import Instances, Ranking, crop_instances, semantic_map
from .changes import SAME_SCORE, TENTHS, Changes, Named, Tally, kinds_of
from .mask_files import MaskFiles
from .presence import classes_told, write_presence
from .settings import SegmentSettings

IMAGES_A_WRITE = 256
SECONDS_A_WRITE = 5.0
"""Predictions are written when either is reached: what a killed process loses."""
SECONDS_FIRST = 1.0
SHARE_WAITED = 0.25
"""The first are written sooner, after this share of the time that the run has taken, because somebody waits to see them."""
CELLS_HELD = 1 << 27
"""And when candidates that are not packed, 4 bytes a cell, take half a gigabyte."""
PIXELS_A_WRITE = 1 << 26
"""Masks and maps at the images' size, a byte a pixel, are written when there are so many, whatever the number of images."""
MARGIN_TOLERANCE = 0.02
"""A margin that moved by less is not worth a write: one more reference of any class moves those of all others a little."""


Written = list[tuple[Any, ...]]
"""Label, run, score, predicted IoU, margin and relative xywh box of each detection of a sample, as it holds them now."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found in one image.

    Attributes:
        candidates: of the image.
        ranking: of these.
        is_final: no other answer follows in this run.
    """

    candidates: Candidates | PackedCandidates
    ranking: Ranking
    is_final: bool = True


@dataclass(frozen=True)
class Provisional:
    """What an image held before a run, and what the run wrote that has still to write another answer; labels, boxes, scores."""

    before: list[Named] | None
    now: list[Named]
    scores: list[float]


@dataclass
class Writer:
    """Collects the answers of some images and writes those that differ from what the samples hold, in bulk.

    Attributes:
        view: whose samples are written to.
        label_field: holds Detections.
        run_key: written on each of them.
        classes: name of each prototype's row.
        settings: of the run.
        compares: whether samples may hold an earlier answer; otherwise each is written, and none is a change.
        map_threshold: least score of an instance on a semantic map.
        overwrite: labels that no run wrote are replaced too; else their images stay as they are, and what others wrote of
            presence stays beside what is written.
        answers: what is not written yet, by sample id.
        num_images: answers taken.
        num_instances: instances in the answers dealt with.
        written: ids of the samples written, predictions or presence.
        protected: ids of samples that stay as they are, because no run wrote some of their labels in this field.
        changes: what differs from earlier answers, in the samples written.
    """

    view: Any
    label_field: str
    run_key: str
    classes: tuple[str, ...]
    settings: SegmentSettings
    compares: bool
    map_threshold: float = 0.0
    overwrite: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)
    num_images: int = 0
    num_instances: int = 0
    written: set[str] = field(default_factory=set)
    protected: dict[str, None] = field(default_factory=dict)
    _awaited: set[str] = field(default_factory=set)
    _provisional: dict[str, Provisional] = field(default_factory=dict)
    _began_at: float = field(default_factory=time.monotonic)
    _written_at: float = field(default_factory=time.monotonic)
    _tally: Tally = field(default_factory=lambda: Tally())
    _kinds: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def changes(self) -> Changes:
        """What was changed so far."""
        return self._tally.changes

    @property
    def scores(self) -> dict[str, tuple[int, ...]]:
        """For each class how many of its instances have a score in each tenth from 0 to 1."""
        labels = sorted({label for (label, _), number in self._kinds.items() if number})
        return {label: tuple(self._kinds[label, tenth] for tenth in range(TENTHS)) for label in labels}

    @cached_property
    def _mask_files(self) -> MaskFiles:
        return MaskFiles(self.view, self.label_field, self.settings.mask_folder)

    @cached_property
    def _known(self) -> frozenset[str]:
        """The classes that presence was ever told of."""
        told = classes_told(whole_of(self.view), self.settings.presence_field) if self.settings.presence_field else ()
        return frozenset((*self.classes, *told))

    def add(
        self, sample_id: str, candidates: Candidates | PackedCandidates, ranking: Ranking, *, is_final: bool = True
    ) -> None:
        """Take the answer of one image; after one that is not final another follows, and changes are told of that."""
        self.answers[sample_id] = Answer(candidates, ranking, is_final)
        self.num_images += sample_id not in self._awaited
        if is_final:
            self._awaited.discard(sample_id)
        else:
            self._awaited.add(sample_id)

    def flush_if_due(self) -> None:
        """Write where many answers, or old ones, have gathered."""
        every = [answer.candidates for answer in self.answers.values()]
        cells = sum(len(found) * found.grid_side**2 for found in every if isinstance(found, Candidates))
        now = time.monotonic()
        late = now - self._written_at >= min(SECONDS_A_WRITE, max(SECONDS_FIRST, SHARE_WAITED * (now - self._began_at)))
        if late or len(self.answers) >= IMAGES_A_WRITE or cells >= CELLS_HELD:
            self.flush()

    def flush(self) -> None:
        """Write every answer that differs from what its sample holds."""
        answers, self.answers = self.answers, {}
        labels: dict[str, Any] = {}
        maps: dict[str, Any] = {}
        presence: dict[str, Any] = {}
        num_pixels = 0
        held = self._held(list(answers)) if self.compares else {}
        for sample_id, answer in answers.items():
            before = held.get(sample_id)
            if before is not None and not self.overwrite and any(run is None for _, run, *_ in before):
                self.protected[sample_id] = None
                continue
            if answer.ranking.presence is not None:
                presence[sample_id] = answer.ranking.presence
            instances = self._cut(sample_id, answer, before)
            earlier = None if before is None else [(label, box) for label, *_, box in before]
            if instances is None:
                self._tell(sample_id, answer, earlier, earlier or [], [score for _, _, score, *_ in before or ()])
                continue
            image_hw = answer.candidates.image_hw
            quality = answer.candidates.predicted_iou[instances.rows].tolist()
            folder = self._mask_folder(sample_id, instances)
            try:
                labels[sample_id] = to_document(instances, self.classes, quality, image_hw, self.run_key, folder)
            except OSError as error:
                raise DatasetError(
                    f"The masks of the image {self._path_of(sample_id)} cannot be written to the folder {folder} ({error}): "
                    "make room there, or name another mask_dir."
                ) from error
            if self.settings.semantic_field:
                maps[sample_id] = fo.Segmentation(mask=semantic_map(instances, image_hw, self.map_threshold))
            now = [(label["label"], label["bounding_box"]) for label in labels[sample_id]["detections"]]
            self._tell(sample_id, answer, earlier, now, [label["confidence"] for label in labels[sample_id]["detections"]])
            num_pixels += sum(mask.numel() for mask in instances.masks) if folder is None else 0
            num_pixels += image_hw[0] * image_hw[1] if self.settings.semantic_field else 0
            del instances  # before those of the next image are made: of a large one they take hundreds of megabytes
            if num_pixels >= PIXELS_A_WRITE:
                self._write(labels, maps)
                labels, maps, num_pixels = {}, {}, 0
        self._write(labels, maps)
        if self.settings.presence_field and presence:
            # Apart from predictions: where these are the same they stay, with all that somebody has noted on them.
            told = self.classes if self.settings.classes is None else self.settings.classes
            about = self.settings.presence_field, presence, self.classes, told, self._known
            self.written.update(write_presence(self.view, *about, overwrite=self.overwrite))
        self._written_at = time.monotonic()

    def settle(self) -> None:
        """Let answers that were to be followed by others be the last."""
        left, self._provisional = self._provisional, {}
        for sample_id, answer in left.items():
            if answer.before is not None:
                self._tally.compare(sample_id, answer.before, answer.now)

    def _cut(self, sample_id: str, answer: Answer, before: Written | None) -> Instances | None:
        """The instances of an answer; None where they are those that the sample holds."""
        candidates, ranking, limit = answer.candidates, answer.ranking, self.settings.max_detections
        # Masks in files, and maps, are not compared: they are written again.
        same = None if self.settings.mask_dir or self.settings.semantic_field else before
        if same is not None and not _same_scores(same, candidates, ranking, self.classes, limit):
            same = None
        if same is not None and _boxes_near(same, candidates, ranking):
            return None
        try:
            instances = crop_instances(candidates, ranking, limit)
        except ValueError as error:
            raise IndexDamagedError(
                f"The candidates of the image {self._path_of(sample_id)} are damaged ({error}): let "
                "refseg.open_index(dataset).verify() find all such images, and build the index again."
            ) from error
        return None if same is not None and _same_boxes(same, instances, candidates.image_hw) else instances

    def _tell(self, sample_id: str, answer: Answer, before: list[Named] | None, now: list[Named], scores: list[float]) -> None:
        """Count what an answer holds and changes; where one came before it in this run, in place of that."""
        earlier = self._provisional.pop(sample_id, None)
        self.num_instances += len(scores)
        self._kinds.update(kinds_of(now, scores))
        if earlier is not None:
            self.num_instances -= len(earlier.scores)
            self._kinds.subtract(kinds_of(earlier.now, earlier.scores))
            before = earlier.before
        if not answer.is_final:
            self._provisional[sample_id] = Provisional(before, now, scores)
        elif before is not None and before is not now:
            self._tally.compare(sample_id, before, now)

    def _write(self, labels: dict[str, Any], maps: dict[str, Any]) -> None:
        replaced = self._mask_files.of(labels)
        reach("predictions.masks")
        write_detections(self.view, self.label_field, labels)
        reach("predictions.labels")
        # Only now: until then the labels that there were point to them.
        self._mask_files.remove(replaced)
        reach("predictions.removed")
        if maps:
            assert self.settings.semantic_field is not None
            write_values(self.view, self.settings.semantic_field, maps)
        self.written.update(labels)

    def _held(self, sample_ids: list[str]) -> dict[str, Written]:
        """What the samples hold that have been segmented, or labelled by others, in this field."""
        names = ("label", RUN, "confidence", "predicted_iou", "margin", "bounding_box")
        found = read_detections(self.view, self.label_field, sample_ids, names)
        # Labels of others, and of earlier versions, lack some of these.
        return {sample_id: [tuple(map(label.get, names)) for label in labels] for sample_id, labels in found}

    def _path_of(self, sample_id: str) -> str:
        sample = sample_or_none(self.view, sample_id)
        return sample_id if sample is None else str(sample.filepath)

    @property
    def first_protected(self) -> str:
        """Path of the first image that stays as it is; "" where there is none."""
        return next((self._path_of(sample_id) for sample_id in self.protected), "")

    def _mask_folder(self, sample_id: str, instances: Instances) -> Path | None:
        folder = self.settings.mask_folder
        if folder is not None:
            return folder / sample_id
        if needs_files(instances):
            return dataset_folder(self.view) / "masks" / self.run_key / sample_id
        return None


def _same_scores(
    before: Written,
    candidates: Candidates | PackedCandidates,
    ranking: Ranking,
    classes: Sequence[str],
    max_detections: int,
) -> bool:
    """Whether labels, scores, predicted IoU and, roughly, margins are those of the ranking, in its order."""
    rows = ranking.rows[:max_detections]
    if len(before) != len(rows):
        return False
    columns = ranking.scores[: len(rows)], candidates.predicted_iou[rows], ranking.margins[: len(rows)]
    new = zip(ranking.labels.tolist(), *(column.tolist() for column in columns), strict=False)
    return all(
        label == classes[row]
        and _near(score, new_score, SAME_SCORE)
        and _near(quality, new_quality, SAME_SCORE)
        and _near(margin, new_margin, MARGIN_TOLERANCE)
        for (label, _, score, quality, margin, _), (row, new_score, new_quality, new_margin) in zip(before, new, strict=False)
    )


def _near(before: float | None, now: float, tolerance: float) -> bool:
    return before is not None and abs(before - now) <= tolerance


def _boxes_near(before: Written, candidates: Candidates | PackedCandidates, ranking: Ranking) -> bool:
    """Whether each box lies within a cell and a half of that of its candidate: nobody has moved it."""
    if not before:
        return True
    side = candidates.grid_side
    cells = candidates.boxes_of(ranking.rows[: len(before)]).tolist()
    # Of so few boxes Python's numbers are faster than numpy.
    for (*_, box), (x0, y0, x1, y1) in zip(before, cells, strict=True):
        if not is_box(box):
            return False
        x, y, w, h = box
        apart = x * side - x0, y * side - y0, (x + w) * side - x1 - 1, (y + h) * side - y1 - 1
        if max(apart) > 1.5 or min(apart) < -1.5:
            return False
    return True


def _same_boxes(before: Written, instances: Instances, image_hw: tuple[int, int]) -> bool:
    """Whether each box is that of its instance to the pixel."""
    if len(before) != len(instances) or not all(is_box(box) for *_, box in before):
        return False
    x, y, w, h = np.array([box for *_, box in before]).reshape(-1, 4).T
    height, width = image_hw
    pixels = np.stack([x * width, y * height, (x + w) * width, (y + h) * height], 1)
    return bool((np.abs(pixels - instances.boxes.numpy()) < 0.01).all())


def check_fields(dataset: Any, label_field: str, settings: SegmentSettings, *, overwrite: bool = False) -> dict[str, type]:
    """The fields to write and their label types.

    Args:
        dataset: that they are fields of.
        label_field: of the predictions.
        settings: may name a field of semantic maps, and one of presence.
        overwrite: labels that no run of RefSeg wrote may be replaced too.

    Raises:
        DatasetError: one holds something else, or labels of others that may not be replaced.
    """
    fields: dict[str, type] = {label_field: fo.Detections}
    if settings.semantic_field:
        if settings.semantic_field == label_field:
            raise DatasetError(f"The semantic map needs a field of its own, not {label_field!r} again.")
        fields[settings.semantic_field] = fo.Segmentation
    if settings.presence_field:
        if settings.presence_field in fields:
            raise DatasetError(f"Presence needs a field of its own, not {settings.presence_field!r} again.")
        fields[settings.presence_field] = fo.Classifications
    for name, kind in fields.items():
        existing = dataset.get_field(name)
        if existing is None:
            check_name(dataset, name)
        elif getattr(existing, "document_type", None) is not kind:
            held = getattr(existing, "document_type", type(existing)).__name__
            raise DatasetError(
                f"The field {name!r} of dataset {name_of(dataset)!r} holds {held}, not {kind.__name__}: choose another field, "
                "so that nothing is overwritten."
            )
        elif existing.read_only:
            raise DatasetError(
                f"The field {name!r} of dataset {name_of(dataset)!r} is read-only: choose another field, or set its read_only "
                "to False and save it."
            )
        elif not overwrite and holds_labels_of_others(dataset, name):
            raise DatasetError(
                f"The field {name!r} of dataset {name_of(dataset)!r} holds labels that no run of RefSeg wrote, and they would "
                "be replaced: choose another field, or pass overwrite=True to lose them (in the App: tick 'Replace labels')."
            )
    return fields


def create_fields(dataset: Any, fields: dict[str, type], classes: Sequence[str]) -> None:
    """Add the fields that are not there yet, and say what the values of a semantic map mean."""
    for name, kind in fields.items():
        if dataset.get_field(name) is None:
            add_labels_field(dataset, name, prediction_example() if kind is fo.Detections else kind())
        if kind is fo.Segmentation:
            targets = {index + 1: label for index, label in enumerate(classes)}
            dataset.mask_targets = {**dataset.mask_targets, name: targets}
            dataset._root_dataset.save()
