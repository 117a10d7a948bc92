"""Predictions against ground truth, twice: by FiftyOne, to browse in the App, by pycocotools, the numbers to publish.

FiftyOne's pass dominates: about half a second for an image of 640 by 480 pixels with 70 predictions, in one process.
pycocotools holds the masks of all images at once, a few hundred bytes each.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from ..checks import names_or_none, require_names, share_of
from ..coco import (
    AveragePrecision,
    frame_hint,
)
from ..dataset import (
    LIST_FIELDS,
    claim,
    count_samples,
    every_image,
    image_view,
    newest_run,
    objects_of,
    require_object_field,
    require_predictions,
    require_samples,
    whole_of,
)
from ..errors import DatasetError
from ..progress import Progress, Watcher, drain
from .confusion import CELLS_KEPT, cells_as_text
from .fiftyone_evaluation import check_key, default_key, iter_evaluate_in_fiftyone
from .gathering import Gathered, confidence_of
from .report import ClassFigures, EvaluationReport

logger = logging.getLogger(__name__)

EVALUATION_METHOD = "refseg/evaluation"
SKIPPED_KEPT = 1000
"""Images left out that the dataset keeps the ids of."""


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
    not_compared: tuple[tuple[str, int], ...] = ()
    if classes is not None:
        view, not_compared = _only_classes(view, (pred_field, gt_field), classes)
    comparable = kind is fo.Detections
    if not comparable:
        logger.warning(
            "FiftyOne cannot compare Detections with the %s of the field %r: only pycocotools is asked",
            kind.__name__,
            gt_field,
        )
    num_images = count_samples(view)
    total = 3 * num_images if comparable else num_images
    yield Progress(0, total, "evaluation steps")
    gathered = Gathered()
    for done, sample in enumerate(view.select_fields([pred_field, gt_field]).iter_samples(progress=False), 1):
        gathered.add(sample, pred_field, gt_field)
        yield Progress(done, total, "evaluation steps")
    if not gathered.images:
        path, reason = gathered.skipped[0]
        raise DatasetError(f"No image of {num_images} can be evaluated; the first is {path}: {reason}.")
    masks, boxes = gathered.compare(classes)
    about = _About(_known_classes(whole_of(view), pred_field), _least_scores(whole_of(view), pred_field), not_compared)
    about.num_outside = max(0, count_samples(every_image(whole_of(view))) - num_images)
    if not comparable or not boxes.per_class or gathered.boxless:
        yield Progress(total, total, "evaluation steps")
        return _recorded(view, pred_field, gt_field, _report(masks, boxes, gathered, None, None, about), gathered)
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
        return _recorded(view, pred_field, gt_field, _report(masks, boxes, gathered, None, None, about), gathered)
    yield Progress(total, total, "evaluation steps")
    report = _report(masks, boxes, gathered, mean if masks is not None and mean >= 0 else None, key, about)
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
    work = iter_evaluate(view, pred_field, gt_field, eval_key=eval_key, classes=classes)
    return drain(work, progress, "evaluating")


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
            counts.append(sum(confidence_of(label, sample, pred_field) >= own.get(label.label, general) for label in found))
    return sum(counts) / len(counts) if counts else float("nan")


def _check_fields(view: Any, pred_field: str, gt_field: str) -> type:
    """Refuse what cannot be evaluated; the label type of ground truth."""
    require_samples(view)
    require_predictions(view, pred_field)
    if pred_field == gt_field:
        raise DatasetError(f"Predictions and ground truth are the same field, {pred_field!r}: choose two.")
    return require_object_field(view, gt_field)


@dataclass
class _About:
    """What is known of the fields apart from their labels.

    Attributes:
        known_classes: of which the run that wrote the predictions had references; None where no run is known.
        least: the score from which on that run wrote each class.
        not_compared: classes of ground truth that were left out, with their objects.
        num_outside: images of the dataset that are not compared.
    """

    known_classes: set[str] | None
    least: Mapping[str, float]
    not_compared: tuple[tuple[str, int], ...]
    num_outside: int = 0


def _only_classes(view: Any, fields: tuple[str, str], classes: Sequence[str]) -> tuple[Any, tuple[tuple[str, int], ...]]:
    """The view with the labels of these classes alone, all of its samples kept, and how many objects of others it had."""
    known: set[str] = set()
    others: dict[str, int] = {}
    for name in fields:
        inner = LIST_FIELDS.get(require_object_field(view, name).__name__)
        numbers = view.count_values(f"{name}.{inner}.label" if inner else f"{name}.label")
        held = {str(label): number for label, number in numbers.items() if label is not None}
        known |= set(held)
        others = {label: number for label, number in held.items() if label not in classes}
        view = view.filter_labels(name, F("label").is_in(list(classes)), only_matches=False)
    if not known & set(classes):
        listed = ", ".join(sorted(map(repr, known))) or "none at all"
        raise DatasetError(f"None of the classes {', '.join(map(repr, classes))} is in the view, which holds {listed}.")
    # Of the last field, which is that of ground truth.
    return view, tuple(sorted(others.items()))


def _known_classes(dataset: Any, pred_field: str) -> set[str] | None:
    """The classes that the run which wrote a field had references of; None where no run is known."""
    run = newest_run(dataset, pred_field)
    return None if run is None else set(map(str, run.config.get("classes") or ()))


def _least_scores(dataset: Any, pred_field: str) -> dict[str, float]:
    """The score from which on the run that wrote a field wrote each class; empty where no run is known."""
    run = newest_run(dataset, pred_field)
    return {} if run is None else {str(name): float(least) for name, least in run.config.get("min_confidences") or ()}


def _recorded(view: Any, pred_field: str, gt_field: str, report: EvaluationReport, gathered: Gathered) -> EvaluationReport:
    """The report, after its figures were kept with the dataset in place of earlier ones of the same predictions."""
    dataset = whole_of(view)
    lists = (
        *("per_class", "skipped", "left_out", "by_box", "notes", "without_references"),
        *("classes", "cells", "not_compared"),
    )
    figures = {name: value for name, value in asdict(report).items() if name not in lists}
    config = dataset.init_run(
        method=EVALUATION_METHOD,
        pred_field=pred_field,
        gt_field=gt_field,
        # Pairs, not a mapping: class names may hold dots and dollar signs, which MongoDB refuses in keys.
        per_class=[[name, scores["mask_ap"], scores["box_ap"]] for name, scores in report.per_class.items()],
        classes=[[*astuple(one), one.precision, one.recall] for one in report.classes],
        numbers=[[cell.truth, cell.predicted, cell.number] for cell in report.cells[:CELLS_KEPT]],
        cells=cells_as_text(report.cells),
        not_compared=[list(pair) for pair in report.not_compared],
        num_skipped=len(report.skipped),
        skipped=[
            [sample_id, path, reason]
            for sample_id, (path, reason) in zip(gathered.skipped_ids[:SKIPPED_KEPT], report.skipped, strict=False)
        ],
        num_left_out=len(report.left_out),
        without_references=list(report.without_references),
        # For the panel, which shows neither paths nor ids.
        notes=list(gathered.notes(names_one=False)),
        evaluated_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **figures,
    )
    own = {"method": EVALUATION_METHOD, "pred_field": pred_field}
    claim(dataset, f"evaluation_of_{pred_field}", config, replaces=own)
    return report


def _report(
    masks: AveragePrecision | None,
    boxes: AveragePrecision,
    gathered: Gathered,
    fiftyone_ap: float | None,
    key: str | None,
    about: _About,
) -> EvaluationReport:
    empty = dict.fromkeys(boxes.per_class)
    m = masks or AveragePrecision(None, None, None, None, None, None, empty, empty)
    confusion = gathered.confusion(about.least, masked=masks is not None)
    known_classes = about.known_classes
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
        classes=tuple(
            ClassFigures(
                name,
                m.per_class_ap50[name],
                boxes.per_class_ap50[name],
                *confusion.of_class(name),
                about.least.get(name, 0.0),
            )
            for name in sorted(boxes.per_class)
        ),
        cells=confusion.cells,
        not_compared=about.not_compared,
        num_outside=about.num_outside,
    )
