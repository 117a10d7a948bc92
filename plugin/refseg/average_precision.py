"""Average precision by pycocotools, the numbers to publish. No FiftyOne; images are never opened."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .coco import CocoDataset, ImageId
from .errors import CocoError
from .rle import annotation_rle

IouType: TypeAlias = Literal["segm", "bbox"]

_output_lock = threading.Lock()
"""pycocotools prints; sys.stdout belongs to the whole process, so only one evaluation at a time may redirect it."""


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's average precision with at most 100 detections an image and class; None where there is nothing to find.

    Attributes:
        ap: mean over IoU 0.50, 0.55, … 0.95 and the classes.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        small: over objects under 32² pixels.
        medium: over objects of 32² to 96² pixels.
        large: over larger objects.
        per_class: ap of each class.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    per_class: dict[str, float | None]


def evaluate_results(
    ground_truth: CocoDataset,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    *,
    categories: Collection[int] | None = None,
) -> AveragePrecision:
    """Compare results with ground truth.

    The size of an object is its own 'area' where it has one, else the pixels of its mask, else of its box; that of a
    detection the pixels of what is compared, its mask or its box.

    Args:
        ground_truth: its images must have a height and width; images without results count as without detections.
        results: entries as in a results file.
        iou_type: compare masks ("segm") or boxes ("bbox").
        categories: ids of the classes that count; by default all.

    Raises:
        CocoError: a result belongs to no image, a mask does not fit its image, or, for masks, an object has none.
    """
    counted = sorted(ground_truth.categories if categories is None else categories)
    image_rows: dict[ImageId, int] = {image_id: row for row, image_id in enumerate(ground_truth.images, 1)}
    truth = _index(ground_truth, image_rows, _of_classes(ground_truth.annotations, counted), iou_type)
    for result in results:
        if result["image_id"] not in image_rows:
            raise CocoError(f"A result belongs to the image {result['image_id']!r}, which {ground_truth.source} does not list.")
    found = _index(ground_truth, image_rows, _of_classes(results, counted), iou_type)
    with _output_lock, redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(truth), _coco(found), iou_type)
        evaluator.params.imgIds = sorted(image_rows.values())
        evaluator.params.catIds = counted
        evaluator.evaluate()
        evaluator.accumulate()
    # (10 IoUs, 101 recalls, K classes, 4 sizes), the last of the three numbers of detections: 100
    precision = evaluator.eval["precision"][..., -1]
    return AveragePrecision(
        _mean(precision[..., 0]),
        _mean(precision[0, ..., 0]),
        _mean(precision[5, ..., 0]),
        _mean(precision[..., 1]),
        _mean(precision[..., 2]),
        _mean(precision[..., 3]),
        {ground_truth.categories[c]: _mean(precision[:, :, k, 0]) for k, c in enumerate(counted)},
    )


def has_masks(annotations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether each of some objects or results has a mask, so that masks can be compared."""
    return all(annotation.get("segmentation") for annotation in annotations)


def format_table(masks: AveragePrecision | None, boxes: AveragePrecision) -> str:
    """The figures as a table for the console; a dash where there is nothing to find.

    Example:
        >>> print(format_table(None, AveragePrecision(0.5, 0.75, 0.6, None, 0.4, 0.5, {"star": 0.5})))
                AP   AP50   AP75  small medium  large
        box  0.500  0.750  0.600      –  0.400  0.500
        <BLANKLINE>
              box AP
        star   0.500
    """
    rows = [("mask", masks), ("box", boxes)]
    shown = [(name, values) for name, values in rows if values is not None]
    wide = max(len(name) for name, _ in shown)
    lines = [" " * wide + "".join(f"{head:>7}" for head in ("AP", "AP50", "AP75", "small", "medium", "large"))]
    for name, v in shown:
        lines.append(f"{name:<{wide}}" + "".join(map(_cell, (v.ap, v.ap50, v.ap75, v.small, v.medium, v.large))))
    wide = max([len(label) for label in boxes.per_class], default=0)
    lines += ["", " " * wide + "".join(f"{name + ' AP':>8}" for name, _ in shown)]
    for label in boxes.per_class:
        lines.append(f"{label:<{wide}}" + "".join(" " + _cell(values.per_class[label]) for _, values in shown))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'–':>7}" if value is None else f"{value:>7.3f}"


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Mean over what could be measured: pycocotools writes -1 where a class has no object of the size."""
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else None


def _of_classes(entries: Iterable[Mapping[str, Any]], category_ids: Collection[int]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["category_id"] in category_ids]


def _index(
    ground_truth: CocoDataset,
    image_rows: Mapping[ImageId, int],
    entries: Sequence[Mapping[str, Any]],
    iou_type: IouType,
) -> dict[str, Any]:
    """What pycocotools' COCO holds, of objects or results: ids from 1, because it takes the id 0 for "no match"."""
    prepared = []
    for number, entry in enumerate(entries, 1):
        image = ground_truth.images[entry["image_id"]]
        if image.image_hw is None:
            raise CocoError(f"{ground_truth.source} lists no height and width for the image {image.file_name}: add them.")
        code = annotation_rle(entry, image.image_hw, ground_truth.source)
        if code is None and iou_type == "segm":
            raise CocoError(f"{ground_truth.source}: the annotation {entry.get('id')!r} has no mask: compare boxes instead.")
        box = entry.get("bbox") or mask_utils.toBbox(code).tolist()
        prepared.append(
            {
                "id": number,
                "image_id": image_rows[image.id],
                "category_id": entry["category_id"],
                "bbox": [float(value) for value in box],
                "area": _area(entry, box, code, iou_type),
                "iscrowd": int(bool(entry.get("iscrowd"))),
                "segmentation": code,
                "score": entry.get("score"),
            }
        )
    images = []
    for image_id, row in image_rows.items():
        height, width = ground_truth.images[image_id].image_hw or (0, 0)
        images.append({"id": row, "height": height, "width": width})
    categories = [{"id": category_id, "name": name} for category_id, name in ground_truth.categories.items()]
    return {"images": images, "categories": categories, "annotations": prepared}


def _area(entry: Mapping[str, Any], box: Sequence[float], code: dict[str, Any] | None, iou_type: IouType) -> float:
    if "score" not in entry and entry.get("area"):
        return float(entry["area"])
    # pycocotools' own loader takes the box for the size of a detected mask, and so counts it in the wrong range.
    if code is None or (iou_type == "bbox" and "score" in entry):
        return float(box[2] * box[3])
    return float(mask_utils.area(code))


def _coco(content: dict[str, Any]) -> Any:
    index = COCO()
    index.dataset = content
    index.createIndex()
    return index
