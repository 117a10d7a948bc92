"""Labels of a view as pycocotools needs them, and what was assumed or left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pycocotools import mask as mask_utils

from ..coco import (
    MASK_LEFT_OUT,
    AveragePrecision,
    CocoDataset,
    CocoImage,
    FramedImage,
    evaluate_results,
    has_masks,
)
from ..dataset import (
    has_box,
    image_hw_of,
    is_crowd,
    object_box,
    object_region,
    objects_of,
)
from ..errors import DatasetError, ImageError, LabelError, MaskError
from ..images import read_orientation
from ..masks import ImageId, encode_mask
from ..printing import counted, object_name
from .confusion import Confusion, find_confusion

logger = logging.getLogger(__name__)


@dataclass
class Gathered:
    """Labels of a view as pycocotools needs them; classes get their ids in the order they are met."""

    images: dict[ImageId, CocoImage] = field(default_factory=dict)
    class_ids: dict[str, int] = field(default_factory=dict)
    truth: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_ids: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    by_box: list[tuple[str, str, str]] = field(default_factory=list)
    framed: list[FramedImage] = field(default_factory=list)
    misstated: list[str] = field(default_factory=list)
    boxless: list[tuple[str, str, str]] = field(default_factory=list)
    failure: str = ""
    _class_names: dict[int, str] = field(default_factory=dict)

    def add(self, sample: Any, pred_field: str, gt_field: str) -> None:
        """Take the labels of one sample, once.

        Raises:
            DatasetError: a prediction without confidence.
        """
        if sample.id in self.images:
            return
        try:
            image_hw, is_misstated = image_hw_of(sample)
        except ImageError as error:
            self.skipped.append((sample.filepath, error.reason))
            self.skipped_ids.append(sample.id)
            logger.warning("Left out of the evaluation: %s", error)
            return
        self.images[sample.id] = CocoImage(sample.id, sample.filepath, image_hw)
        if is_misstated:
            self.misstated.append(sample.filepath)
        truth = [{**entry, "iscrowd": is_crowd(label)} for label, entry in self._entries(sample, gt_field, image_hw, is_crowd)]
        found = [
            {**entry, "score": confidence_of(label, sample, pred_field)}
            for label, entry in self._entries(sample, pred_field, image_hw, _check_confidence)
        ]
        for entry in truth:
            if "segmentation" in entry and not mask_utils.area(entry["segmentation"]):
                # Nothing could be found there.
                self._count_by_box(entry, "its mask holds no pixel")
        self.truth += truth
        self.predictions += found
        self._frame(sample, image_hw, truth, found)

    def notes(self, *, names_one: bool) -> tuple[str, ...]:
        """What was assumed, a sentence each, with or without an example by name."""
        notes = []
        if self.misstated:
            example = f", such as that of {self.misstated[0]}" if names_one else ""
            notes.append(
                f"The metadata of {counted(len(self.misstated), 'sample')} lists another size than the image has{example}: the "
                "image's own was used; dataset.compute_metadata(overwrite=True) renews it."
            )
        if self.boxless:
            path, label_id, label = self.boxless[0]
            example = f", such as {label!r} in {path} ({label_id})" if names_one else ""
            boxless = counted(len(self.boxless), "label has", "labels have")
            notes.append(
                f"{boxless} a mask of the whole image and no box{example}: its own box was used; "
                "FiftyOne's evaluation, which cannot do without, was left out."
            )
        if self.by_box:
            path, label_id, reason = self.by_box[0]
            what = "labels count by their boxes" if len(self.by_box) > 1 else "label counts by its box"
            example = f", such as, in {path}, {reason} ({label_id})" if names_one else ", without a mask that can be used"
            notes.append(
                f"{len(self.by_box)} {what} alone{example}. FiftyOne's own figure of masks takes what is found there for wrong."
            )
        return (*notes, self.failure) if self.failure else tuple(notes)

    def usable(self, view: Any, *fields: str, masked: bool) -> Any:
        """The view without what was left out, of masks also without what counts by its box."""
        if self.skipped_ids:
            view = view.exclude(self.skipped_ids)
        gone = [label_id for _, label_id, _ in (*self.left_out, *(self.by_box if masked else ()))]
        for name in fields if gone else ():
            view = view.exclude_labels(ids=gone, fields=name, omit_empty=False)
        return view

    @property
    def true_classes(self) -> set[str]:
        """Classes of ground truth, crowds apart."""
        names = {number: name for name, number in self.class_ids.items()}
        return {names[entry["category_id"]] for entry in self.truth if not entry["iscrowd"]}

    def compare(self, classes: Sequence[str] | None) -> tuple[AveragePrecision | None, AveragePrecision]:
        """Figures of masks, where every label has one, and of boxes."""
        for name in sorted(classes or ()):
            self.class_ids.setdefault(name, len(self.class_ids) + 1)
        names = {number: name for name, number in sorted(self.class_ids.items())}
        boxes = evaluate_results(self._dataset(self.truth, names), self.predictions, "bbox")
        for entries in (self.truth, self.predictions):
            if any("segmentation" in entry for entry in entries):
                for entry in entries:
                    if "segmentation" not in entry and MASK_LEFT_OUT not in entry:
                        self._count_by_box(entry, "it has no mask, as others of its field have")
        if has_masks(self.truth) and has_masks(self.predictions):
            masked = [entry for entry in self.predictions if MASK_LEFT_OUT not in entry]
            return evaluate_results(self._dataset(self.truth, names), masked, "segm"), boxes
        bare = sum("segmentation" not in entry for entry in self.truth)
        bare_predictions = sum("segmentation" not in entry for entry in self.predictions)
        logger.warning(
            "Only boxes are compared: %d of %d objects and %d of %d predictions have no mask",
            *(bare, len(self.truth), bare_predictions, len(self.predictions)),
        )
        return None, boxes

    def confusion(self, least: Mapping[str, float], *, masked: bool) -> Confusion:
        """What was found, missed and taken for something else; see find_confusion."""
        names = {number: name for name, number in self.class_ids.items()}
        return find_confusion(self.truth, self.predictions, names, least, masked=masked)

    def _count_by_box(self, entry: dict[str, Any], reason: str) -> None:
        entry.pop("segmentation", None)
        entry[MASK_LEFT_OUT] = True
        label = self._class_names[entry["category_id"]]
        self.by_box.append((self.images[entry["image_id"]].file_name, entry["id"], _of_class(label, reason)))

    def _dataset(self, annotations: Sequence[dict[str, Any]], names: dict[int, str]) -> CocoDataset:
        return CocoDataset("the view", self.images, names, tuple(annotations))

    def _entries(
        self, sample: Any, name: str, image_hw: tuple[int, int], check: Callable[[Any], object]
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The labels of a field that can be used, each as an entry; the others are noted."""
        for label in objects_of(sample[name]):
            try:
                check(label)
                entry = self._entry(label, sample, image_hw)
            except LabelError as error:
                self.left_out.append((sample.filepath, error.label_id, _of_class(error.label, error.reason)))
                logger.warning("Left out of the evaluation: %s in the field %r of %s", error, name, sample.filepath)
                continue
            if not has_box(label):
                self.boxless.append((sample.filepath, label.id, label.label))
            yield label, entry

    def _frame(
        self, sample: Any, image_hw: tuple[int, int], truth: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
    ) -> None:
        """Note what tells whether annotations were made on the image as it is stored."""
        try:
            orientation = read_orientation(sample.filepath) if truth else 1
        except ImageError:
            return
        if orientation != 1:
            corners = [
                [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in entries if not entry.get("iscrowd"))]
                for entries in (truth, found)
            ]
            self.framed.append(FramedImage(orientation, image_hw, *corners))

    def _entry(self, label: Any, sample: Any, image_hw: tuple[int, int]) -> dict[str, Any]:
        if label.label is None:
            raise LabelError(label.id, None, "it has no class: name it or remove it")
        mask, reason = None, ""
        try:
            box, mask = object_region(label, image_hw)
        except MaskError as error:
            if not has_box(label):
                raise
            box, reason = object_box(label, image_hw), error.reason
        x0, y0, x1, y1 = box
        category_id = self.class_ids.setdefault(label.label, len(self.class_ids) + 1)
        self._class_names[category_id] = label.label
        entry: dict[str, Any] = {
            "id": label.id,
            "image_id": sample.id,
            "category_id": category_id,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        if mask is not None:
            entry["segmentation"] = encode_mask(mask, box, image_hw)
        elif reason:
            self._count_by_box(entry, reason)
        return entry


def _of_class(label: str | None, reason: str) -> str:
    return f"{object_name(label)}: {reason}"


def _check_confidence(label: Any) -> None:
    if label.confidence is not None and not math.isfinite(label.confidence):
        raise LabelError(label.id, label.label, f"its confidence is {label.confidence}")


def confidence_of(label: Any, sample: Any, pred_field: str) -> float:
    """The score of a prediction.

    Raises:
        DatasetError: it has none.
    """
    if label.confidence is None:
        raise DatasetError(
            f"The prediction {label.label!r} in the field {pred_field!r} of {sample.filepath} ({label.id}) has no confidence, "
            "which ranks predictions: are these predictions, and not ground truth?"
        )
    return float(label.confidence)
