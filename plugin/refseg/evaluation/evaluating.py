"""Predictions against ground truth, twice: by FiftyOne, to browse in the App, by pycocotools, the numbers to publish.

FiftyOne's pass dominates: about half a second for an image of 640 by 480 pixels with 70 predictions, in one process.
pycocotools holds the masks of all images at once, a few hundred bytes each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F
from pycocotools import mask as mask_utils

from ..checks import names_or_none, require_names, share_of
from ..coco import (
    MASK_LEFT_OUT,
    AveragePrecision,
    CocoDataset,
    CocoImage,
    FramedImage,
    evaluate_results,
    format_table,
    frame_hint,
    has_masks,
)
from ..coco.files import ImageId
from ..dataset import (
    LIST_FIELDS,
    has_box,
    image_hw_of,
    image_view,
    is_crowd,
    newest_run,
    object_box,
    object_region,
    objects_of,
    require_object_field,
    require_samples,
    whole_of,
)
from ..errors import DatasetError, ImageError, LabelError, MaskError
from ..images import read_orientation
from ..masks import encode_mask
from ..names import free_run_key
from ..progress import Progress, Watcher, drain
from .fiftyone_evaluation import check_key, default_key, iter_evaluate_in_fiftyone

logger = logging.getLogger(__name__)

EVALUATION_METHOD = "refseg/evaluation"
LISTED = 10
"""Labels left out that a printed report names."""


@dataclass(frozen=True)
class EvaluationReport:
    """COCO's figures; None where nothing can be measured, such as masks where ground truth has boxes alone.

    Attributes:
        mask_ap: average precision of masks by pycocotools, mean over IoU 0.50 to 0.95 and the classes.
        mask_ap50: at IoU 0.50.
        mask_ap75: at IoU 0.75.
        mask_ap_small: over objects under 32² pixels.
        mask_ap_medium: over objects of 32² to 96² pixels.
        mask_ap_large: over larger objects.
        box_ap: the same of boxes; as in COCO, an object's size is that of its mask.
        box_ap50: at IoU 0.50.
        box_ap75: at IoU 0.75.
        box_ap_small: over objects under 32² pixels.
        box_ap_medium: over objects of 32² to 96² pixels.
        box_ap_large: over larger objects.
        per_class: for each class its mask_ap and box_ap.
        fiftyone_mask_ap: mAP of masks by FiftyOne, under eval_key.
        num_images: images compared.
        num_ground_truth: objects in them, crowds not counted.
        num_predictions: predictions in them.
        eval_key: of FiftyOne's evaluation; None where FiftyOne cannot compare the two fields.
        skipped: path and reason of each image left out, because neither its file nor its metadata tells its size.
        left_out: path, label id and reason of each object or prediction left out, because it has no class, no place in its
            image, or a confidence that is no number.
        by_box: path, label id and reason of each that counts by its box alone, because it has no mask as others of its field
            have, or one that cannot be read or holds no pixel.
        without_references: classes of ground truth of which the run that wrote the predictions had no reference; they count as
            never found.
        notes: what else was assumed, a sentence each.
        hint: advice where annotations seem to be made on images as they are stored, not upright; or "".
    """

    mask_ap: float | None
    mask_ap50: float | None
    mask_ap75: float | None
    mask_ap_small: float | None
    mask_ap_medium: float | None
    mask_ap_large: float | None
    box_ap: float | None
    box_ap50: float | None
    box_ap75: float | None
    box_ap_small: float | None
    box_ap_medium: float | None
    box_ap_large: float | None
    per_class: dict[str, dict[str, float | None]]
    fiftyone_mask_ap: float | None
    num_images: int
    num_ground_truth: int
    num_predictions: int
    eval_key: str | None
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()
    by_box: tuple[tuple[str, str, str], ...] = ()
    without_references: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        masks = None if self.mask_ap is None else self._figures("mask")
        lines = [
            f"{self.num_predictions} predictions, {self.num_ground_truth} objects in {self.num_images} images",
            format_table(masks, self._figures("box")),
        ]
        if self.fiftyone_mask_ap is not None:
            lines.append(f"\nFiftyOne's mask mAP: {self.fiftyone_mask_ap:.3f} (evaluation {self.eval_key!r})")
        if self.without_references:
            lines.append(f"Without a reference, so never found: {', '.join(self.without_references)}")
        lines += [*self.notes, *([self.hint] if self.hint else [])]
        lines += [f"left out {path}: {reason}" for path, reason in self.skipped]
        lines += [f"left out the label {label_id} of {path}: {reason}" for path, label_id, reason in self.left_out[:LISTED]]
        if len(self.left_out) > LISTED:
            lines.append(f"left out {len(self.left_out) - LISTED} more labels, see left_out")
        return "\n".join(lines)

    def _figures(self, kind: str) -> AveragePrecision:
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        ap, ap50, ap75, small, medium, large = (getattr(self, f"{kind}_{name}") for name in names)
        per_class = {label: scores[f"{kind}_ap"] for label, scores in self.per_class.items()}
        return AveragePrecision(ap, ap50, ap75, small, medium, large, per_class)


def iter_evaluate(
    view: Any,
    pred_field: str,
    gt_field: str,
    *,
    eval_key: str | None = None,
    classes: Sequence[str] | None = None,
) -> Generator[Progress, None, EvaluationReport]:
    """The generator behind evaluate: yields after each image; closing it removes the unfinished evaluation."""
    require_names(pred_field=pred_field, gt_field=gt_field)
    require_names(or_none=True, eval_key=eval_key)
    classes = names_or_none("classes", classes)
    view = image_view(view)
    kind = _check_fields(view, pred_field, gt_field)
    key = default_key(whole_of(view), pred_field) if eval_key is None else eval_key
    check_key(whole_of(view), key, pred_field, gt_field)
    if classes is not None:
        view = _only_classes(view, (pred_field, gt_field), classes)
    comparable = kind is fo.Detections
    if not comparable:
        logger.warning(
            "FiftyOne cannot compare Detections with the %s of the field %r: only pycocotools is asked",
            kind.__name__,
            gt_field,
        )
    num_images = len(view)
    total = 3 * num_images if comparable else num_images
    yield Progress(0, total, "evaluation steps")
    gathered = _Gathered()
    for done, sample in enumerate(view.select_fields([pred_field, gt_field]).iter_samples(progress=False), 1):
        gathered.add(sample, pred_field, gt_field)
        yield Progress(done, total, "evaluation steps")
    if not gathered.images:
        path, reason = gathered.skipped[0]
        raise DatasetError(f"None of the {num_images} images can be evaluated; the first is {path}: {reason}.")
    masks, boxes = gathered.compare(classes)
    known = _known_classes(whole_of(view), pred_field)
    if not comparable or not boxes.per_class or gathered.boxless:
        yield Progress(total, total, "evaluation steps")
        return _recorded(view, pred_field, gt_field, _report(masks, boxes, gathered, None, None, known), gathered)
    try:
        mean = yield from iter_evaluate_in_fiftyone(
            gathered.usable(view, pred_field, gt_field, masked=masks is not None),
            pred_field,
            gt_field,
            key=key,
            classes=sorted(boxes.per_class),
            use_masks=masks is not None,
            start=num_images,
        )
    except Exception as error:
        # The figures are there already, and the App can do without this one.
        logger.warning("FiftyOne's own evaluation failed", exc_info=error)
        gathered.failure = f"FiftyOne's own evaluation failed ({type(error).__name__}: {error}), so the App shows none."
        yield Progress(total, total, "evaluation steps")
        return _recorded(view, pred_field, gt_field, _report(masks, boxes, gathered, None, None, known), gathered)
    yield Progress(total, total, "evaluation steps")
    report = _report(masks, boxes, gathered, mean if masks is not None and mean >= 0 else None, key, known)
    return _recorded(view, pred_field, gt_field, report, gathered)


def evaluate(
    view: Any,
    pred_field: str,
    gt_field: str,
    *,
    eval_key: str | None = None,
    classes: Sequence[str] | None = None,
    progress: bool | Watcher | None = None,
) -> EvaluationReport:
    """Compare predictions with ground truth by COCO's rules.

    Both judges use the same labels and agree to rounding, with two exceptions. Of predictions with equal confidence
    FiftyOne ranks the right ones first. And pycocotools does not count predictions that lie in a crowd, or where masks are
    compared in the box of an object without one, while FiftyOne takes them for wrong. Objects of a class that was never
    predicted count as not found, and so do those of images without predictions. A label that cannot be used is left out and
    listed. The figures do not depend on the order of the view.

    Args:
        view: a dataset or view of images.
        pred_field: Detections with confidence.
        gt_field: Detections; also Polylines or single labels, which FiftyOne's own evaluation cannot take. Objects
            whose attribute `iscrowd` is set are crowds.
        eval_key: where the App finds FiftyOne's evaluation; by default made from pred_field. An earlier one of the same
            two fields is replaced.
        classes: evaluate these alone; by default all in either field.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, a field that is missing or of another type, a prediction without
            confidence, an eval_key that is invalid or taken.
    """
    return drain(iter_evaluate(view, pred_field, gt_field, eval_key=eval_key, classes=classes), progress)


def false_positives_per_empty_image(
    view: Any, pred_field: str, gt_field: str, min_confidence: float | Mapping[str, float]
) -> float:
    """Mean number of predictions on the images that hold no ground truth object.

    Args:
        view: a dataset or view of images.
        pred_field: Detections with confidence.
        gt_field: objects; an image with a crowd alone is not empty.
        min_confidence: predictions below do not count; one number, or one for each class named, where all others count.

    Returns:
        The mean; not a number where no image is empty.

    Raises:
        DatasetError: no images, an empty view, a field that is missing or of another type.
    """
    view = image_view(view)
    _check_fields(view, pred_field, gt_field)
    chosen = min_confidence if isinstance(min_confidence, Mapping) else {}
    own = {name: share_of("min_confidence", least) for name, least in chosen.items()}
    general = 0.0 if isinstance(min_confidence, Mapping) else share_of("min_confidence", min_confidence)
    counts = []
    for sample in view.select_fields([pred_field, gt_field]).iter_samples(progress=False):
        if not objects_of(sample[gt_field]):
            found = objects_of(sample[pred_field])
            counts.append(sum(_confidence(label, sample, pred_field) >= own.get(label.label, general) for label in found))
    return sum(counts) / len(counts) if counts else float("nan")


@dataclass
class _Gathered:
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
    boxless: list[tuple[str, str]] = field(default_factory=list)
    failure: str = ""

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
            {**entry, "score": _confidence(label, sample, pred_field)}
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
                f"The metadata of {len(self.misstated)} samples lists another size than their images have{example}: the "
                "images' own was used; dataset.compute_metadata(overwrite=True) renews it."
            )
        if self.boxless:
            path, label_id = self.boxless[0]
            example = f", such as {label_id} of {path}" if names_one else ""
            notes.append(
                f"{len(self.boxless)} labels have a mask of the whole image and no box{example}: its own box was used; "
                "FiftyOne's evaluation, which cannot do without, was left out."
            )
        if self.by_box:
            path, label_id, reason = self.by_box[0]
            what = "labels count by their boxes" if len(self.by_box) > 1 else "label counts by its box"
            example = f", such as {label_id} of {path}: {reason}" if names_one else ", without a mask that can be used"
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

    def _count_by_box(self, entry: dict[str, Any], reason: str) -> None:
        entry.pop("segmentation", None)
        entry[MASK_LEFT_OUT] = True
        self.by_box.append((self.images[entry["image_id"]].file_name, entry["id"], reason))

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
                self.left_out.append((sample.filepath, error.label_id, error.reason))
                logger.warning("Left out of the evaluation: %s in the field %r of %s", error, name, sample.filepath)
                continue
            if not has_box(label):
                self.boxless.append((sample.filepath, label.id))
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
        entry: dict[str, Any] = {
            "id": label.id,
            "image_id": sample.id,
            "category_id": self.class_ids.setdefault(label.label, len(self.class_ids) + 1),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        if mask is not None:
            entry["segmentation"] = encode_mask(mask, box, image_hw)
        elif reason:
            self._count_by_box(entry, reason)
        return entry


def _check_fields(view: Any, pred_field: str, gt_field: str) -> type:
    """Refuse what cannot be evaluated; the label type of ground truth."""
    require_samples(view)
    if require_object_field(view, pred_field) is not fo.Detections:
        raise DatasetError(f"The predictions in the field {pred_field!r} must be Detections.")
    if pred_field == gt_field:
        raise DatasetError(f"Predictions and ground truth are the same field, {pred_field!r}: choose two.")
    return require_object_field(view, gt_field)


def _only_classes(view: Any, fields: Sequence[str], classes: Sequence[str]) -> Any:
    """The view with the labels of these classes alone, all of its samples kept."""
    known: set[str] = set()
    for name in fields:
        inner = LIST_FIELDS.get(require_object_field(view, name).__name__)
        known |= {str(label) for label in view.distinct(f"{name}.{inner}.label" if inner else f"{name}.label")}
        view = view.filter_labels(name, F("label").is_in(list(classes)), only_matches=False)
    if not known & set(classes):
        listed = ", ".join(sorted(map(repr, known))) or "none at all"
        raise DatasetError(f"None of the classes {', '.join(map(repr, classes))} is in the view, which holds {listed}.")
    return view


def _known_classes(dataset: Any, pred_field: str) -> set[str] | None:
    """The classes that the run which wrote a field had references of; None where no run is known."""
    run = newest_run(dataset, pred_field)
    return None if run is None else set(map(str, run.config.get("classes") or ()))


def _check_confidence(label: Any) -> None:
    if label.confidence is not None and not math.isfinite(label.confidence):
        raise LabelError(label.id, label.label, f"its confidence is {label.confidence}")


def _confidence(label: Any, sample: Any, pred_field: str) -> float:
    if label.confidence is None:
        raise DatasetError(
            f"The prediction {label.id} in the field {pred_field!r} of sample {sample.id} ({sample.filepath}) has no "
            "confidence, which ranks predictions: are these predictions, and not ground truth?"
        )
    return float(label.confidence)


def _recorded(view: Any, pred_field: str, gt_field: str, report: EvaluationReport, gathered: _Gathered) -> EvaluationReport:
    """The report, after its figures were kept with the dataset in place of earlier ones of the same predictions."""
    dataset = whole_of(view)
    lists = ("per_class", "skipped", "left_out", "by_box", "notes", "without_references")
    figures = {name: value for name, value in asdict(report).items() if name not in lists}
    config = dataset.init_run(
        method=EVALUATION_METHOD,
        pred_field=pred_field,
        gt_field=gt_field,
        # Pairs, not a mapping: class names may hold dots and dollar signs, which MongoDB refuses in keys.
        per_class=[[name, scores["mask_ap"], scores["box_ap"]] for name, scores in report.per_class.items()],
        num_skipped=len(report.skipped),
        num_left_out=len(report.left_out),
        without_references=list(report.without_references),
        # For the panel, which shows neither paths nor ids.
        notes=list(gathered.notes(names_one=False)),
        evaluated_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **figures,
    )
    key = free_run_key(
        dataset,
        f"evaluation_of_{pred_field}",
        lambda known: (known.method, getattr(known, "pred_field", None)) == (EVALUATION_METHOD, pred_field),
    )
    dataset.register_run(key, config, overwrite=True)
    return report


def _report(
    masks: AveragePrecision | None,
    boxes: AveragePrecision,
    gathered: _Gathered,
    fiftyone_ap: float | None,
    key: str | None,
    known_classes: set[str] | None,
) -> EvaluationReport:
    m = masks or AveragePrecision(None, None, None, None, None, None, dict.fromkeys(boxes.per_class))
    return EvaluationReport(
        *(m.ap, m.ap50, m.ap75, m.small, m.medium, m.large),
        *(boxes.ap, boxes.ap50, boxes.ap75, boxes.small, boxes.medium, boxes.large),
        per_class={name: {"mask_ap": m.per_class[name], "box_ap": boxes.per_class[name]} for name in sorted(boxes.per_class)},
        fiftyone_mask_ap=fiftyone_ap,
        num_images=len(gathered.images),
        num_ground_truth=sum(not entry["iscrowd"] for entry in gathered.truth),
        num_predictions=len(gathered.predictions),
        eval_key=key,
        skipped=tuple(gathered.skipped),
        left_out=tuple(gathered.left_out),
        by_box=tuple(gathered.by_box),
        without_references=() if known_classes is None else tuple(sorted(gathered.true_classes - known_classes)),
        notes=gathered.notes(names_one=True),
        hint=frame_hint(gathered.framed) or "",
    )
