"""Results against ground truth by the rules of the benchmark they belong to. No FiftyOne; images are never opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from ..coco import CocoDataset, CocoImage, Rules, group_by_image, has_masks, mean_precision, precision_table
from ..errors import CocoError
from ..masks import ImageId, annotation_rle
from .suite import Federated, Metric, Part, Split

Table: TypeAlias = Mapping[int, NDArray[np.float64]]
Summary: TypeAlias = Callable[[Table], dict[str, float | None]]


@dataclass(frozen=True)
class Scores:
    """What a run is worth, as fractions; None where there is nothing to find.

    Attributes:
        figures: by name, such as "box AP".
        per_class: for each class, by its name, those figures that make sense for one.
    """

    figures: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]


def score(part: Part, split: Split, results: Sequence[Mapping[str, Any]], metric: Metric, max_detections: int) -> Scores:
    """Compare the results of all images of a part with its ground truth of the split's classes.

    "coco" is COCO's average precision by pycocotools, of masks only where each object has one.

    "voc" is that of boxes, and first "box AP50" as VOC 2007 defines it: the mean of precision at recall 0, 0.1, … 1, where a
    detection can fall on the object alone that it overlaps most. Everywhere in "voc", an object marked "difficult" need not
    be found and any number of detections may fall on it.

    "lvis" is LVIS's: a class counts where it is present or known to be absent, detections that fall on no object do
    not where objects of the class may be unmarked, and the best detections of an image over all classes are taken.

    Args:
        part: the targets, with what is known of each image.
        split: the classes that count, and groups of them that get a figure of their own.
        results: entries of a COCO results file.
        metric: whose rules; "miou" is gathered over episodes instead, see `MeanIou`.
        max_detections: the best so many count of an image and class ("coco", "voc") or of an image ("lvis").

    Raises:
        CocoError: see `evaluate_results`; a class that the targets do not list; the metric "miou".
    """
    if metric == "miou":
        raise CocoError("The mean IoU is gathered episode by episode, not from a file of results.")
    _check_classes(part.targets, split)
    figures: dict[str, float | None] = {}
    per_class: dict[str, dict[str, float | None]] = {part.targets.categories[key]: {} for key in split.category_ids}
    for table, summary in _tables(part, split, results, metric, max_detections):
        figures |= summary(table)
        for suffix, ids in split.groups.items():
            group = summary({key: table[key] for key in ids if key in table})
            figures |= {f"{name}{suffix}": value for name, value in group.items() if name.endswith(" AP")}
        for key, values in table.items():
            per_class[part.targets.categories[key]] |= summary({key: values})
    return Scores(figures, per_class)


def _tables(
    part: Part, split: Split, results: Sequence[Mapping[str, Any]], metric: Metric, max_detections: int
) -> list[tuple[Table, Summary]]:
    """Precisions by the metric's rules, and what is to be made of them."""
    targets, ids = part.targets, split.category_ids
    if metric == "voc":
        rules = Rules(max_detections, spared="difficult")
        nearest = replace(rules, nearest_alone=True)
        return [
            (precision_table(targets, results, "bbox", ids, nearest), _voc_figures),
            (precision_table(targets, results, "bbox", ids, rules), _voc_figures_by_coco),
        ]
    truth = [entry for entry in targets.annotations if entry["category_id"] in set(ids)]
    rules = Rules(max_detections)
    if metric == "lvis":
        known = part.federated or {}
        results = _counted(_best(results, max_detections), truth, known)
        rules = replace(rules, incomplete=_incomplete(known))
    tables: list[tuple[Table, Summary]] = [
        (precision_table(targets, results, "bbox", ids, rules), partial(_coco_figures, kind="box"))
    ]
    if has_masks(truth) and has_masks(results):
        tables.append((precision_table(targets, results, "segm", ids, rules), partial(_coco_figures, kind="mask")))
    return tables


def ground_truth_file(part: Part, split: Split) -> dict[str, Any]:
    """The objects a run is scored with as a COCO file, which pycocotools loads: whoever doubts a number can check it.

    What LVIS knows of its images and classes, and which objects VOC calls difficult, are kept in their own words. An object
    whose mask alone was left out has none here: whoever compares masks takes it out first.

    Raises:
        CocoError: an object has neither mask nor box, or a mask that does not fit its image; a class that the targets do
            not list.
    """
    targets = part.targets
    _check_classes(targets, split)
    kept = [entry for entry in targets.annotations if entry["category_id"] in set(split.category_ids)]
    ids = [entry.get("id") for entry in kept]
    # pycocotools takes the id 0 for "no match", and knows one object by each id.
    usable = len(set(map(str, ids))) == len(ids) and all(type(value) is int and value > 0 for value in ids)
    annotations = [
        {**_described(entry, targets), "id": entry["id"] if usable else number} for number, entry in enumerate(kept, 1)
    ]
    images = [_listed(image, part.federated) for image in targets.images.values()]
    frequency = {key: suffix for suffix, keys in split.groups.items() for key in keys} if part.federated is not None else {}
    categories = [
        {"id": key, "name": targets.categories[key], **({"frequency": frequency[key]} if key in frequency else {})}
        for key in split.category_ids
    ]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


def _coco_figures(table: Table, kind: str) -> dict[str, float | None]:
    return {
        f"{kind} AP": _average(table),
        f"{kind} AP50": _average(table, iou=0),
        f"{kind} AP75": _average(table, iou=5),
        f"{kind} AP small": _average(table, size=1),
        f"{kind} AP medium": _average(table, size=2),
        f"{kind} AP large": _average(table, size=3),
    }


def _voc_figures(table: Table) -> dict[str, float | None]:
    return {"box AP50": _average(table, iou=0, every=10)}


def _voc_figures_by_coco(table: Table) -> dict[str, float | None]:
    return {"box AP50 (COCO)": _average(table, iou=0), "box AP": _average(table)}


def _average(table: Table, *, iou: int | None = None, size: int = 0, every: int = 1) -> float | None:
    """Mean over the classes of a table and, unless one is named, the IoUs, at every so many recalls."""
    rows = slice(None) if iou is None else slice(iou, iou + 1)
    return mean_precision(np.concatenate([values[rows, ::every, size].ravel() for values in table.values()])) if table else None


def _best(results: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The best of each image, whatever their classes."""
    by_image = group_by_image(results)
    return [result for found in by_image.values() for result in sorted(found, key=lambda entry: -float(entry["score"]))[:count]]


def _counted(
    results: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]], federated: Mapping[ImageId, Federated]
) -> list[Mapping[str, Any]]:
    """Without those of classes of which nobody looked whether the image shows them."""
    known = {(entry["image_id"], entry["category_id"]) for entry in truth}
    known |= {(image_id, category_id) for image_id, about in federated.items() for category_id in about.absent}
    return [result for result in results if (result["image_id"], result["category_id"]) in known]


def _incomplete(federated: Mapping[ImageId, Federated]) -> Mapping[int, Collection[ImageId]]:
    images: dict[int, list[ImageId]] = defaultdict(list)
    for image_id, about in federated.items():
        for category_id in about.not_exhaustive:
            images[category_id].append(image_id)
    return images


def _check_classes(targets: CocoDataset, split: Split) -> None:
    unknown = sorted(set(split.category_ids) - set(targets.categories))
    if unknown:
        raise CocoError(f"{targets.source} does not list the category ids {unknown} of the split {split.key!r}: add them.")


def _described(entry: Mapping[str, Any], targets: CocoDataset) -> dict[str, Any]:
    """An object with all that pycocotools asks of one but its id."""
    image = targets.images[entry["image_id"]]
    described = {
        key: entry[key] for key in ("image_id", "category_id", "segmentation", "difficult") if entry.get(key) is not None
    }
    box, area = entry.get("bbox"), entry.get("area")
    if not box or not area:
        code = None if image.image_hw is None else annotation_rle(entry, image.image_hw, targets.source)
        if code is None and not box:
            raise CocoError(f"{targets.source}: the annotation {entry.get('id')!r} has neither box nor mask: remove it.")
        box = box or mask_utils.toBbox(code).tolist()
        area = area or (box[2] * box[3] if code is None else float(mask_utils.area(code)))
    return {**described, "bbox": box, "area": area, "iscrowd": int(bool(entry.get("iscrowd")))}


def _listed(image: CocoImage, federated: Mapping[ImageId, Federated] | None) -> dict[str, Any]:
    height, width = image.image_hw or (None, None)
    listed: dict[str, Any] = {"id": image.id, "file_name": image.file_name, "height": height, "width": width}
    if federated is not None:
        about = federated.get(image.id, Federated(frozenset(), frozenset()))
        listed["neg_category_ids"] = sorted(about.absent)
        listed["not_exhaustive_category_ids"] = sorted(about.not_exhaustive)
    return listed
