"""The picture of the demo's run: what was shown, and what was found, missed and wrong in images that were not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..candidates import crop_corners
from ..dataset import REFERENCE_TAG, object_region, objects_of
from ..images import MISSED, RIGHT, WRONG, DrawnObject, draw_outlines, fit, line_of_text, read_image, sheet
from .dataset import CLASSES

TRAYS, COLUMNS = 6, 3
CELL_HW = (360, 480)
REFERENCE_SIDE = 72
SCALE, CAPTION_SIZE = 2, 24


def draw_overview(dataset: Any, unseen: Any, eval_key: str) -> Any:
    """References on top, then trays with what is found in green, wrong in orange and missed in broken yellow.

    Args:
        dataset: with `ground_truth`, some of it tagged as references, and `predictions`.
        unseen: a view of it without the images that hold references, evaluated.
        eval_key: of the evaluation that tells right from wrong.
    """
    width = COLUMNS * CELL_HW[1] + (COLUMNS - 1) * 8
    rows = [[line_of_text("Shown: three references of each class", width)]]
    rows.append([_shown(dataset, name, (width - 8 * (len(CLASSES) - 1)) // len(CLASSES)) for name in CLASSES])
    rows.append(
        [line_of_text("Found in images it was not shown: green is right, orange is wrong, broken yellow is missed", width)]
    )
    full = unseen.match_tags("empty", bool=False).limit(TRAYS - 1)
    trays = [_tray(sample, eval_key) for sample in [*full, *unseen.match_tags("empty").limit(1)]]
    rows += [trays[start : start + COLUMNS] for start in range(0, len(trays), COLUMNS)]
    return sheet(rows)


def _shown(dataset: Any, name: str, width: int) -> Any:
    """The name of a class over crops of its references."""
    crops = []
    for sample in dataset.match_labels(tags=REFERENCE_TAG, fields="ground_truth"):
        image = read_image(sample.filepath)
        image_hw = image.height, image.width
        for label in objects_of(sample.ground_truth):
            if REFERENCE_TAG in label.tags and label.label == name:
                corners = crop_corners(object_region(label, image_hw)[0], image_hw)
                crops.append(fit(image.crop(corners), REFERENCE_SIDE, REFERENCE_SIDE))
    return sheet([[line_of_text(name, width - 8, 14)], crops], 4)


def _tray(sample: Any, eval_key: str) -> Any:
    image = read_image(sample.filepath)
    image_hw = image.height, image.width
    found = objects_of(sample.predictions)
    matched = {label[f"{eval_key}_id"] for label in found if label[eval_key] == "tp"}
    items = [_drawn(label, image_hw, MISSED) for label in objects_of(sample.ground_truth) if label.id not in matched]
    for label in sorted(found, key=lambda label: float(label.confidence)):
        items.append(_drawn(label, image_hw, RIGHT if label[eval_key] == "tp" else WRONG))
    return fit(draw_outlines(image, items, SCALE, CAPTION_SIZE), CELL_HW[1], CELL_HW[0])


def _drawn(label: Any, image_hw: Sequence[int], color: int) -> DrawnObject:
    box, mask = object_region(label, (image_hw[0], image_hw[1]))
    x0, y0, x1, y1 = (round(value) for value in box)
    score = "" if label.confidence is None else f" {label.confidence:.2f}"
    words = {MISSED: "missed: ", WRONG: "wrong: ", RIGHT: ""}
    shape = mask if mask is not None else np.ones((y1 - y0, x1 - x0), bool)
    return DrawnObject((x0, y0, x1, y1), shape, color, f"{words[color]}{label.label}{score}", dashed=color == MISSED)
