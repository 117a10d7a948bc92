"""From predictions and ground truth of one set of images to the figures a curator asks for: all pure functions.

An object is found by a prediction of its class whose mask has an IoU of 0.5 with it; the best score takes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from refseg.coco import CocoDataset, evaluate_results
from refseg.masks import annotation_rle
from refseg.matching import HALF

FOUND_IOU = 0.5
CALIBRATION_BINS, LEAST_TOLD = 15, 0.05
"""Of expected calibration error; instances of lower scores do not count."""
ENOUGH = 0.95
"""Share of objects that review must have made right."""
FIXED = np.arange(0.2, 1.0, 0.01)
"""Thresholds from which the best one for all classes is chosen with ground truth."""


@dataclass(frozen=True)
class Judged:
    """Predictions of a set of images, the best scores first.

    Attributes:
        scores: (P,) float64.
        classes: (P,) int64, category ids.
        images: (P,) int64, row of the image.
        right: (P,) bool, finds an object.
        shows: (P,) int64, the number of the object that its mask shows, of whatever class; -1 for none.
        objects: (O, 2) int64, image row and category id of every object.
        num_images: images, those without any object too.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    shows: NDArray[np.int64]
    objects: NDArray[np.int64]
    num_images: int

    @property
    def empty_images(self) -> NDArray[np.int64]:
        """Rows of the images without any object."""
        return np.setdiff1d(np.arange(self.num_images), self.objects[:, 0])


def judge(truth: CocoDataset, results: Sequence[Mapping[str, Any]]) -> Judged:
    """Compare predictions, entries of a COCO results file with masks, with every object of some images."""
    rows = {image: row for row, image in enumerate(truth.images)}
    objects = np.array([(rows[item["image_id"]], item["category_id"]) for item in truth.annotations], np.int64).reshape(-1, 2)
    codes = [annotation_rle(item, truth.images[item["image_id"]].image_hw or (0, 0), "") for item in truth.annotations]
    ordered = sorted(results, key=lambda item: -item["score"])
    right, shows = np.zeros(len(ordered), bool), np.full(len(ordered), -1, np.int64)
    images = np.array([rows[item["image_id"]] for item in ordered], np.int64)
    classes = np.array([item["category_id"] for item in ordered], np.int64)
    for row in range(len(rows)):
        here, there = np.flatnonzero(images == row), np.flatnonzero(objects[:, 0] == row)
        if not len(here) or not len(there):
            continue
        masks = [ordered[number]["segmentation"] for number in here]
        iou = mask_utils.iou(masks, [codes[number] for number in there], [0] * len(there))
        shows[here] = np.where(iou.max(1) >= FOUND_IOU, there[iou.argmax(1)], -1)
        taken: set[int] = set()
        for position, number in enumerate(here):
            fits = (iou[position] >= FOUND_IOU) & (objects[there, 1] == classes[number])
            free = [column for column in np.flatnonzero(fits) if column not in taken]
            if free:
                taken.add(max(free, key=lambda column: iou[position, column]))
                right[number] = True
    scores = np.array([item["score"] for item in ordered], np.float64)
    return Judged(scores, classes, images, right, shows, objects, len(rows))


def detection_f1(judged: Judged, thresholds: Mapping[int, float]) -> float:
    """F1 of objects found, at a threshold for each category id."""
    kept = _kept(judged, thresholds)
    return float(2 * judged.right[kept].sum() / max(1, kept.sum() + len(judged.objects)))


def best_fixed_f1(judged: Judged, classes: Sequence[int]) -> float:
    """The best F1 that one threshold for all classes can have, chosen with ground truth."""
    return max(detection_f1(judged, dict.fromkeys(classes, float(value))) for value in FIXED)


def presence_f1(judged: Judged, thresholds: Mapping[int, float], probabilities: bool = False) -> float:
    """F1 of "an object of this class is in this image", over sets of which half have none.

    For each class the images that hold it, and the images without any object, weighted as if they were as many. Always saying
    yes gives 0.667. Where scores are probabilities yes is a presence of a half or more, else an instance at the threshold.
    """
    kept = _kept(judged, thresholds)
    said = set(zip(judged.images[kept].tolist(), judged.classes[kept].tolist(), strict=True))
    if probabilities:
        said = {key for key, presence in presence_scores(judged, probabilities).items() if presence >= HALF}
    held = {(int(image), int(category)) for image, category in judged.objects}
    empty = judged.empty_images.tolist()
    hits = false = 0.0
    for category in thresholds:
        images = [image for image, other in held if other == category]
        hits += sum((image, category) in said for image in images)
        false += sum((image, category) in said for image in empty) * len(images) / max(1, len(empty))
    return 2 * hits / max(1e-9, hits + false + len(held))


def presence_scores(judged: Judged, probabilities: bool = False) -> dict[tuple[int, int], float]:
    """How sure it is that each class is in each image that has any instance of it, by image row and category id.

    The best score; of probabilities the chance that any instance is right, as `refseg.segment` writes it.
    """
    scores: dict[tuple[int, int], list[float]] = {}
    for image, category, score in zip(judged.images.tolist(), judged.classes.tolist(), judged.scores.tolist(), strict=True):
        scores.setdefault((image, category), []).append(score)
    if not probabilities:
        return {key: max(own) for key, own in scores.items()}
    return {key: max(*own, 1 - math.prod(1 - score for score in own)) for key, own in scores.items()}


def presence_ap(judged: Judged, classes: Sequence[int], probabilities: bool = False) -> float:
    """Average precision of "this image holds the class", the surest images first; the mean over classes that occur."""
    scores = presence_scores(judged, probabilities)
    values = []
    for category in classes:
        held = {int(image) for image, other in judged.objects if other == category}
        if held:
            order = sorted(range(judged.num_images), key=lambda image: -scores.get((image, category), 0.0))
            hits = np.cumsum([image in held for image in order])
            ranks = [position for position, image in enumerate(order) if image in held]
            values.append(float(np.mean([hits[rank] / (rank + 1) for rank in ranks])))
    return float(np.mean(values))


def images_opened(judged: Judged, probabilities: bool = False) -> float:
    """Images that a curator opens, the surest first, until 95 % of the objects were seen, by the images that hold any."""
    scores = presence_scores(judged, probabilities)
    best = dict.fromkeys(range(judged.num_images), 0.0)
    for (image, _), value in scores.items():
        best[image] = max(best[image], value)
    order = sorted(best, key=lambda image: -best[image])
    counts = np.bincount(judged.objects[:, 0], minlength=judged.num_images)
    seen = np.cumsum(counts[order])
    opened = int(np.searchsorted(seen, ENOUGH * counts.sum() - 1e-9)) + 1
    return opened / max(1, int((counts > 0).sum()))


def recall(judged: Judged, thresholds: Mapping[int, float]) -> float:
    """Share of the objects found, at a threshold for each category id."""
    return float(judged.right[_kept(judged, thresholds)].sum() / max(1, len(judged.objects)))


def calibration_error(pairs: NDArray[np.float64]) -> float:
    """Expected calibration error: by how much scores are off what they say, on average over bins of as many instances each.

    Args:
        pairs: (n, 2), score and whether the instance is right, of instances that would be looked at.
    """
    if not len(pairs):
        return float("nan")
    return float(sum(len(part) * abs(part[:, 0].mean() - part[:, 1].mean()) for part in calibration_bins(pairs)) / len(pairs))


def calibration_bins(pairs: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Pairs of calibration_error in bins of as many each, the lowest scores first; no empty ones."""
    return [part for part in np.array_split(pairs[pairs[:, 0].argsort(kind="stable")], CALIBRATION_BINS) if len(part)]


def false_positives(judged: Judged, thresholds: Mapping[int, float]) -> float:
    """Predictions in an image without any object."""
    empty = judged.empty_images
    return float((_kept(judged, thresholds) & np.isin(judged.images, empty)).sum() / max(1, len(empty)))


def correction_cost(judged: Judged) -> float:
    """Decisions an object until 95 % of those that some prediction shows are right.

    Predictions are decided on from the best score down, whatever the threshold: a right one is accepted, one that shows an
    object under another class is relabelled, all others are rejected; each is one decision.
    """
    within_reach = np.unique(judged.shows[judged.shows >= 0])
    if not len(within_reach):
        return float("nan")
    _, first = np.unique(np.where(judged.shows >= 0, judged.shows, -1), return_index=True)
    first = np.sort(first[judged.shows[first] >= 0])
    needed = int(np.ceil(ENOUGH * len(within_reach)))
    return float((first[needed - 1] + 1) / needed)


def reachable(judged: Judged) -> float:
    """Share of the objects that some prediction shows, under whatever class and score."""
    return len(np.unique(judged.shows[judged.shows >= 0])) / max(1, len(judged.objects))


def measure(
    truth: CocoDataset,
    results: Sequence[Mapping[str, Any]],
    thresholds: Mapping[int, float],
    probabilities: bool = False,
) -> dict[str, Any]:
    """Every figure of one run.

    Args:
        truth: what is there.
        results: of any score.
        thresholds: of each category id, those that a run would write.
        probabilities: scores are.
    """
    precision = evaluate_results(truth, results, "segm")
    judged = judge(truth, results)
    return {
        "ap": precision.ap,
        "ap50": precision.ap50,
        "box_ap": evaluate_results(truth, results, "bbox").ap,
        "ap_small": precision.small,
        "presence_f1": presence_f1(judged, thresholds, probabilities),
        "false_positives": false_positives(judged, thresholds),
        "recall": recall(judged, thresholds),
        "presence_ap": presence_ap(judged, list(thresholds), probabilities),
        "opened": images_opened(judged, probabilities),
        # Kept, because the error of a few hundred instances is mostly chance: it is told of all runs of a world together.
        "told": _told(judged),
        "f1": detection_f1(judged, thresholds),
        "best_fixed_f1": best_fixed_f1(judged, list(thresholds)),
        "cost": correction_cost(judged),
        "reachable": reachable(judged),
    }


def _kept(judged: Judged, thresholds: Mapping[int, float]) -> NDArray[np.bool_]:
    least = np.array([thresholds.get(int(category), np.inf) for category in judged.classes], np.float64)
    return np.asarray(judged.scores >= least)


def _told(judged: Judged) -> list[list[float]]:
    """Score, and whether it is right, of each instance that somebody would look at."""
    pairs = zip(judged.scores.tolist(), judged.right.tolist(), strict=True)
    return [[round(score, 4), float(right)] for score, right in pairs if score >= LEAST_TOLD]
