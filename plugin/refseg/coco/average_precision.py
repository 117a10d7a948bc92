"""Average precision by pycocotools, the numbers to publish. No FiftyOne; images are never opened."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import CocoError
from ..masks import ImageId, annotation_rle, id_order
from ..masks.run_lengths import run_lengths
from .annotations import MASK_LEFT_OUT
from .figures import AveragePrecision
from .files import CocoDataset, CocoImage

IouType: TypeAlias = Literal["segm", "bbox"]

CODES_AT_A_TIME = 512
"""Masks that are checked together, to bound the memory that takes."""

_output_lock = threading.Lock()
"""pycocotools prints; sys.stdout belongs to the whole process, so only one evaluation at a time may redirect it."""


@dataclass(frozen=True)
class Rules:
    """What else decides on which detections count.

    Attributes:
        max_detections: the best so many of an image and class are compared.
        spared: key of objects that need not be found, and may be any number of times, such as "difficult".
        nearest_alone: a detection may fall on the object alone that it overlaps most, even where that one is taken.
        incomplete: by category id, images in which some objects of the class may be unmarked: a detection there that
            falls on no object does not count.
    """

    max_detections: int = 100
    spared: str | None = None
    nearest_alone: bool = False
    incomplete: Mapping[int, Collection[ImageId]] = field(default_factory=dict)


def evaluate_results(
    ground_truth: CocoDataset,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    *,
    categories: Collection[int] | None = None,
    rules: Rules | None = None,
) -> AveragePrecision:
    """Compare results with ground truth.

    Results of equal score are ranked by image, ascending by id as in pycocotools, and in an image as they are listed: the order
    of the images and objects of a file is of no account. An object whose mask alone was left out counts for boxes alone; where
    masks are compared, what is found in its box counts neither as right nor as wrong.

    The size of an object is its own 'area' where it has one, else the pixels of its mask, else of its box; that of a
    detection the pixels of what is compared, its mask or its box.

    Args:
        ground_truth: its images must have a height and width; images without results count as without detections.
        results: entries as in a results file.
        iou_type: compare masks ("segm") or boxes ("bbox").
        categories: ids of the classes that count; by default all.
        rules: by default COCO's.

    Raises:
        CocoError: a result belongs to no image, a mask does not fit its image, or an object has none (for masks) or
            neither mask nor box.
    """
    counted = sorted(ground_truth.categories if categories is None else categories)
    table = precision_table(ground_truth, results, iou_type, counted, rules or Rules())
    precision = np.stack(list(table.values()), axis=2) if table else np.zeros((10, 101, 0, 4))
    return AveragePrecision(
        mean_precision(precision[..., 0]),
        mean_precision(precision[0, ..., 0]),
        mean_precision(precision[5, ..., 0]),
        mean_precision(precision[..., 1]),
        mean_precision(precision[..., 2]),
        mean_precision(precision[..., 3]),
        {ground_truth.categories[category_id]: mean_precision(values[..., 0]) for category_id, values in table.items()},
        {ground_truth.categories[category_id]: mean_precision(values[0, ..., 0]) for category_id, values in table.items()},
    )


def precision_table(
    ground_truth: CocoDataset,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    categories: Collection[int],
    rules: Rules,
) -> dict[int, NDArray[np.float64]]:
    """What average precisions are means of, for each class; arguments and errors are those of evaluate_results.

    Classes are judged one after the other, each in the images where it is or was found: with a thousand classes,
    pycocotools would keep millions of empty pairs of image and class.

    Returns:
        By category id (10, 101, 4) float64: precision by IoU 0.50, 0.55, … 0.95, recall 0, 0.01, … 1 and size (all, small,
        medium, large); -1 where there is no object of the size.
    """
    rows: dict[ImageId, int] = {image_id: row for row, image_id in enumerate(sorted(ground_truth.images, key=id_order), 1)}
    for result in results:
        if result["image_id"] not in rows:
            raise CocoError(f"A result belongs to the image {result['image_id']!r}, which {ground_truth.source} does not list.")
    masked = iou_type == "segm"
    entries: Iterable[Mapping[str, Any]] = ground_truth.annotations
    if masked:
        entries = (_as_crowd(entry, ground_truth.images[entry["image_id"]]) for entry in entries)
    truth = _by_class(entries, categories)
    found = _by_class(results, categories)
    table = {}
    for category_id in categories:
        objects = _prepared(truth[category_id], ground_truth, rows, iou_type)
        for entry, source in zip(objects, truth[category_id], strict=True):
            entry["spared"] = rules.spared is not None and bool(source.get(rules.spared))
        # Nothing can be measured without objects: their detections need no mask decoded.
        detections = _prepared(found[category_id] if objects else [], ground_truth, rows, iou_type)
        incomplete = {rows[image_id] for image_id in rules.incomplete.get(category_id, ()) if image_id in rows}
        table[category_id] = _precision(objects, detections, iou_type, rules, incomplete)
    return table


def mean_precision(precision: NDArray[np.float64]) -> float | None:
    """Mean over what could be measured: pycocotools writes -1 where a class has no object of the size.

    Rounded to twelve digits: pycocotools adds 2e-16 to what it divides by, and a perfect figure would be 0.9999999999999998.
    """
    measured = precision[precision > -1]
    return round(float(measured.mean()), 12) if measured.size else None


def has_masks(annotations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether each of some objects or results has a mask, so that masks can be compared.

    Objects whose mask alone was left out are passed over, but not where all are.
    """
    known = list(annotations)
    masked = [annotation for annotation in known if not annotation.get(MASK_LEFT_OUT)]
    return all(annotation.get("segmentation") for annotation in masked) and (bool(masked) or not known)


class _Evaluator(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """COCO's rules and those of `Rules`."""

    def __init__(self, truth: Any, found: Any, iou_type: IouType, rules: Rules, incomplete: Collection[int]) -> None:
        super().__init__(truth, found, iou_type)
        self.rules = rules
        self.incomplete = incomplete

    def computeIoU(self, image_row: int, category_id: int) -> Any:  # noqa: N802
        # Any number of detections may fall on a crowd without counting, and on an object that is spared. But only of a
        # crowd does COCO take the share of the detection that lies inside.
        spared = [entry for entry in self._gts[image_row, category_id] if entry["spared"] and not entry["iscrowd"]]
        ious = super().computeIoU(image_row, category_id)
        for entry in spared:
            entry["iscrowd"] = entry["ignore"] = 1
        if self.rules.nearest_alone and len(ious):
            return np.where(np.arange(ious.shape[1]) == ious.argmax(1)[:, None], ious, 0)
        return ious

    def evaluateImg(self, image_row: int, category_id: int, area_range: Any, limit: int) -> Any:  # noqa: N802
        judged = super().evaluateImg(image_row, category_id, area_range, limit)
        if judged is not None and image_row in self.incomplete:
            judged["dtIgnore"] = np.logical_or(judged["dtIgnore"], judged["dtMatches"] == 0)
        return judged


def _precision(
    objects: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    iou_type: IouType,
    rules: Rules,
    incomplete: Collection[int],
) -> NDArray[np.float64]:
    """(10, 101, 4) of one class."""
    if not objects:
        return np.full((10, 101, 4), -1.0)
    with _output_lock, redirect_stdout(io.StringIO()):
        evaluator = _Evaluator(_coco(objects), _coco(detections), iou_type, rules, incomplete)
        evaluator.params.imgIds = sorted({entry["image_id"] for entry in (*objects, *detections)})
        evaluator.params.maxDets = [rules.max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    precision: NDArray[np.float64] = evaluator.eval["precision"][:, :, 0, :, 0]
    return precision


def _as_crowd(entry: Mapping[str, Any], image: CocoImage) -> Mapping[str, Any]:
    """An object whose mask was left out as a crowd that fills its box in the image; any other as it is."""
    if not entry.get(MASK_LEFT_OUT) or image.image_hw is None:
        return entry
    (x, y, w, h), (height, width) = entry["bbox"], image.image_hw
    x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
    return {**entry, "iscrowd": 1, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]}


def _by_class(entries: Iterable[Mapping[str, Any]], category_ids: Collection[int]) -> dict[int, list[Mapping[str, Any]]]:
    """For each class its entries."""
    grouped: dict[int, list[Mapping[str, Any]]] = {category_id: [] for category_id in category_ids}
    for entry in entries:
        if entry["category_id"] in grouped:
            grouped[entry["category_id"]].append(entry)
    return grouped


def _prepared(
    entries: Sequence[Mapping[str, Any]], ground_truth: CocoDataset, rows: Mapping[ImageId, int], iou_type: IouType
) -> list[dict[str, Any]]:
    """Objects or detections as pycocotools' COCO holds them, apart from their ids."""
    source, prepared = ground_truth.source, []
    for start in range(0, len(entries), CODES_AT_A_TIME):
        part = entries[start : start + CODES_AT_A_TIME]
        images = [ground_truth.images[entry["image_id"]] for entry in part]
        for entry, image, code in zip(part, images, _codes(part, images, source, iou_type), strict=True):
            if code is None and iou_type == "segm":
                raise CocoError(f"{source}: the annotation {entry.get('id')!r} has no mask: compare boxes instead.")
            if code is None and not entry.get("bbox"):
                raise CocoError(f"{source}: the annotation {entry.get('id')!r} has neither mask nor box: remove it.")
            box = entry.get("bbox") or mask_utils.toBbox(code).tolist()
            prepared.append(
                {
                    "image_id": rows[image.id],
                    "category_id": entry["category_id"],
                    "bbox": [float(value) for value in box],
                    "area": _area(entry, box, code, iou_type),
                    "iscrowd": int(bool(entry.get("iscrowd"))),
                    "segmentation": code,
                    "score": entry.get("score"),
                    "spared": False,
                }
            )
    return prepared


def _codes(
    entries: Sequence[Mapping[str, Any]], images: Sequence[CocoImage], source: str, iou_type: IouType
) -> list[dict[str, Any] | None]:
    """Checked masks of some entries where they are needed, else None."""
    sizes: list[tuple[int, int]] = []
    for image in images:
        if image.image_hw is None:
            raise CocoError(f"{source} lists no height and width for the image {image.file_name}: add them.")
        sizes.append(image.image_hw)
    if iou_type == "bbox":
        measured = [bool(entry.get("bbox") and ("score" in entry or entry.get("area"))) for entry in entries]
    else:
        measured = [False] * len(entries)
    if not any(measured) and _are_whole(entries, sizes):
        shapes = [entry["segmentation"] for entry in entries]
        return [{"size": shape["size"], "counts": shape["counts"].encode("ascii")} for shape in shapes]
    return [
        None if known else annotation_rle(entry, image_hw, source)
        for entry, image_hw, known in zip(entries, sizes, measured, strict=True)
    ]


def _are_whole(entries: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether all masks are compressed codes that fit their images, found out at once: one by one takes ten times as long."""
    shapes = [entry.get("segmentation") for entry in entries]
    texts = [shape.get("counts") if isinstance(shape, dict) else None for shape in shapes]
    if not all(isinstance(text, str) and text.isascii() for text in texts):
        return False
    listed = [shape.get("size") for shape in shapes if isinstance(shape, dict)]
    if listed != [list(image_hw) for image_hw in sizes]:
        return False
    try:
        runs, starts = run_lengths([text.encode("ascii") for text in texts if text is not None])
    except ValueError:
        return False
    areas = np.array([height * width for height, width in sizes], np.int64)
    within = (runs >= 0) & (runs <= np.repeat(areas, np.diff(starts)))
    return bool(within.all() and (np.add.reduceat(runs, starts[:-1]) == areas).all())


def _area(entry: Mapping[str, Any], box: Sequence[float], code: dict[str, Any] | None, iou_type: IouType) -> float:
    if "score" not in entry and entry.get("area"):
        return float(entry["area"])
    # pycocotools' own loader takes the box for the size of a detected mask, and so counts it in the wrong range.
    if code is None or (iou_type == "bbox" and "score" in entry):
        return float(box[2] * box[3])
    return float(mask_utils.area(code))


def _coco(entries: list[dict[str, Any]]) -> Any:
    """Entries of one class with an index; ids from 1, because pycocotools takes the id 0 for "no match"."""
    index = COCO()
    index.dataset = {
        # The sizes are asked for, but of no use: masks are compressed already.
        "images": [{"id": row, "height": 0, "width": 0} for row in {entry["image_id"] for entry in entries}],
        "categories": [{"id": category_id} for category_id in {entry["category_id"] for entry in entries}],
        "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, 1)],
    }
    index.createIndex()
    return index
