"""Pictures of runs in episodes: the pixels of one class beside what was found of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coco import CocoDataset, group_by_image
from ..errors import CocoError
from ..masks import annotation_rle, decode_mask
from .episodes import answer_mask
from .judging import Judgement, Shown
from .miou import class_mask, group_annotations
from .sheets import Pictured, write_pages

RIGHT_IOU = 0.5
"""From which on an episode counts as right in the pictures; figures know no such limit."""
COVERED = 0.5
"""Share of an object of another class from which on it was taken for the class asked for."""


def write_episode_sheets(
    targets: CocoDataset, answers: Sequence[Mapping[str, Any]], folder: Path, out: Path, title: str
) -> list[Path]:
    """Write `best_and_worst.png`, `confused.png` and `confused.json` of a fold, as `write_sheets` does for detections.

    Args:
        targets: images with their ground truth.
        answers: an entry for each episode, see `iter_episodes`.
        folder: that file names are relative to.
        out: folder to write to, made where it is missing.
        title: of the pages.

    Returns:
        What was written.
    """
    grouped = group_annotations(targets)
    others = group_by_image(targets.annotations)
    pictured = []
    for answer in answers:
        image, category_id = targets.images[answer["image_id"]], answer["category_id"]
        name = targets.categories[category_id]
        region = class_mask(targets, grouped, image.id, category_id)
        found = answer_mask(answer)
        truth = [_shown(name, region)] if region.any() else []
        shown = [_shown(name, found, answer["iou"] or 0.0)] if found.any() else []
        right = bool(truth and shown and (answer["iou"] or 0.0) >= RIGHT_IOU)
        confused: list[tuple[int, int]] = []
        if shown and not right:
            for item in _covered(found, others.get(image.id, []), category_id, targets):
                confused.append((len(truth), 0))
                truth.append(item)
        judgement = Judgement(
            ((0, 0),) if right else (),
            () if right or not region.any() else (0,),
            () if right or not shown or confused else (0,),
            tuple(confused),
        )
        path = str(folder / image.file_name)
        pictured.append(Pictured(path, f"{name} in {image.file_name}", truth, shown, judgement, answer["iou"]))
    return write_pages(title, pictured, list(targets.categories.values()), out)


def _shown(label: str, mask: NDArray[np.bool_], score: float | None = None, crowd: bool = False) -> Shown:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Shown(label, (x0, y0, x1, y1), mask[y0:y1, x0:x1], score, crowd)


def _covered(
    found: NDArray[np.bool_], annotations: Sequence[Mapping[str, Any]], category_id: int, targets: CocoDataset
) -> list[Shown]:
    """Objects of other classes that are for the most part in what was found."""
    covered = []
    for annotation in annotations:
        if annotation["category_id"] == category_id:
            continue
        try:
            code = annotation_rle(annotation, (found.shape[0], found.shape[1]), targets.source)
        except CocoError:
            continue
        mask = np.zeros_like(found) if code is None else decode_mask(code)
        if mask.any() and (mask & found).sum() >= COVERED * mask.sum():
            covered.append(_shown(targets.categories[annotation["category_id"]], mask, crowd=True))
    return covered
