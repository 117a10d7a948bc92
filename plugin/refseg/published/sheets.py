"""Pictures of what a benchmark found: best and worst images beside their ground truth, and what is taken for what."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..coco import CocoDataset, group_by_image, write_json
from ..errors import ImageError
from ..images import PLAIN, PixelSettings, read_image, sheet
from ..outputs import replacing
from .judging import Judgement, Shown, judge, shown_of
from .panels import GAP, PANEL, draw_crop, draw_panel, line

logger = logging.getLogger(__name__)

MAX_NAME = 24
"""Characters of a class name in a caption."""
TRIES = 5
"""Where images cannot be read, so many times the wanted number of them are tried."""


@dataclass(frozen=True, eq=False)
class Pictured:
    """One image with what is in it and what was found.

    Attributes:
        path: of the file, opened when it is drawn.
        name: written above it.
        truth: its objects.
        found: predictions above their threshold.
        judgement: of the two.
        iou: of all pixels, where an image is worth that and not its F1.
        pixels: how the file is read.
    """

    path: str
    name: str
    truth: Sequence[Shown]
    found: Sequence[Shown]
    judgement: Judgement
    iou: float | None = None
    pixels: PixelSettings = PLAIN

    @property
    def worth(self) -> float:
        """By which images are ranked, 0 to 1."""
        return self.judgement.f1 if self.iou is None else self.iou


def write_sheets(
    targets: CocoDataset,
    category_ids: Sequence[int],
    results: Sequence[Mapping[str, Any]],
    folder: Path,
    thresholds: float | Mapping[str, float],
    out: Path,
    title: str,
    pixels: PixelSettings = PLAIN,
) -> list[Path]:
    """Judge all images of a benchmark and write `best_and_worst.png`, `confused.png` and `confused.json`.

    Args:
        targets: images, with height and width, and their ground truth.
        category_ids: classes that were looked for; objects and results of others are left out.
        results: entries of a COCO results file.
        folder: that file names are relative to.
        thresholds: scores from which on a result counts; one for all or by class name, 0 for a class without.
        out: folder to write to, made where it is missing.
        title: of the pages.
        pixels: how the images are read.

    Returns:
        What was written.
    """
    names = {category_id: targets.categories[category_id] for category_id in category_ids}
    lowest = {k: thresholds.get(name, 0.0) if isinstance(thresholds, Mapping) else thresholds for k, name in names.items()}
    objects = group_by_image(entry for entry in targets.annotations if entry["category_id"] in names)
    kept = group_by_image(entry for entry in results if entry["score"] >= lowest.get(entry["category_id"], np.inf))
    pictured = []
    for image in targets.images.values():
        truth = shown_of(targets, objects.get(image.id, ()), names, image.image_hw)
        found = shown_of(targets, kept.get(image.id, ()), names, image.image_hw)
        path = str(folder / image.file_name)
        pictured.append(Pictured(path, image.file_name, truth, found, judge(truth, found), pixels=pixels))
    return write_pages(title, pictured, list(names.values()), out, thresholds={names[k]: lowest[k] for k in names})


def write_pages(title: str, pictured: Sequence[Pictured], classes: Sequence[str], out: Path, **about: Any) -> list[Path]:
    """Write `best_and_worst.png`, `confused.png` and `confused.json`, the counts with what else is given about them."""
    paths = [out / name for name in ("best_and_worst.png", "confused.png", "confused.json")]
    draw_sheet(title, pictured, classes, paths[0])
    draw_confused(title, pictured, paths[1])
    write_json(paths[2], {"title": title, **about, **count(pictured, classes)})
    return paths


def count(pictured: Sequence[Pictured], classes: Sequence[str]) -> dict[str, Any]:
    """How often each class was right, missed, wrong, and taken for which other; what `confused.json` holds.

    Args:
        pictured: all images.
        classes: in the order wanted.

    Returns:
        {"images", "classes": {class: {"objects", "right", "missed", "wrong", "confused"}}, "pairs": [{"truth", "found",
        "times"}]}, pairs from the most frequent on. "wrong" counts predictions of the class on no object, "confused" those
        on an object of another class.
    """
    counts = {name: dict.fromkeys(("objects", "right", "missed", "wrong", "confused"), 0) for name in classes}
    for each in pictured:
        for item in each.truth:
            counts[item.label]["objects"] += not item.crowd
        for i, _ in each.judgement.pairs:
            counts[each.truth[i].label]["right"] += 1
        for i in each.judgement.missed:
            counts[each.truth[i].label]["missed"] += 1
        for j in each.judgement.wrong:
            counts[each.found[j].label]["wrong"] += 1
        for _, j in each.judgement.confused:
            counts[each.found[j].label]["confused"] += 1
    pairs = [{"truth": pair[0], "found": pair[1], "times": times} for pair, times in _confusions(pictured).most_common()]
    return {"images": len(pictured), "classes": counts, "pairs": pairs}


def draw_sheet(
    title: str, pictured: Sequence[Pictured], classes: Sequence[str], out: Path, *, num_best: int = 3, num_worst: int = 5
) -> None:
    """Write a page of the best images (highest F1, then most objects) and the worst (lowest F1, then most mistakes).

    Only what is shown is opened; an image that cannot be read is passed over.

    Args:
        title: of the page.
        pictured: all images.
        classes: a class keeps its colour on all pages.
        out: PNG to write.
        num_best: images at most.
        num_worst: images at most.
    """
    good = [each for each in pictured if each.judgement.pairs]
    bad = [each for each in pictured if each.judgement.num_mistakes]
    best = sorted(good, key=lambda each: (-each.worth, -len(each.judgement.pairs)))
    rows: list[list[Image.Image]] = [[line(title, 22)]]
    shown: list[Pictured] = []
    heads = [line(text, 14, PANEL[0]) for text in ("ground truth", "predictions above their threshold")]
    rows += [[line("Best images", 20)], heads]
    rows += _rows(best, classes, num_best, shown) or [[line("No object was found in any image.", 16)]]
    worst = sorted(bad, key=lambda each: (each.worth, -each.judgement.num_mistakes))
    rows += [[line("Worst images", 20)], heads]
    # What is among the best can be among the worst only where there are few images: once is enough.
    remaining = [each for each in worst if each not in shown]
    rows += _rows(remaining, classes, num_worst, shown) or [[line("No other image has a mistake.", 16)]]
    with replacing(out) as draft:
        sheet(rows, GAP).save(draft, "PNG")


def draw_confused(title: str, pictured: Sequence[Pictured], out: Path, *, num_pairs: int = 6, num_crops: int = 4) -> None:
    """Write a page of the pairs of classes that are taken for each other most, with crops: the object is outlined.

    Args:
        title: of the page.
        pictured: all images.
        out: PNG to write.
        num_pairs: rows at most.
        num_crops: crops of a row at most, from the highest score on; four are as wide as the page.
    """
    counts = _confusions(pictured)
    rows = [[line(title, 22)], [line("Most confused pairs", 20)]]
    if not counts:
        rows.append([line(f"No object was taken for another class in {len(pictured)} images.", 16)])
    for (truth, found), times in counts.most_common(num_pairs):
        rows.append([line(f"{truth} taken for {found} · {times} time{'s' if times > 1 else ''}", 16)])
        places = [
            (each, each.truth[i], each.found[j])
            for each in pictured
            for i, j in each.judgement.confused
            if (each.truth[i].label, each.found[j].label) == (truth, found)
        ]
        places.sort(key=lambda place: -(place[2].score or 0.0))
        crops: list[Image.Image] = []
        for each, item, prediction in places[: TRIES * num_crops]:
            image = _open(each) if len(crops) < num_crops else None
            if image is not None:
                crops.append(draw_crop(image, item, prediction, each.name))
        if crops:
            rows.append(crops)
    with replacing(out) as draft:
        sheet(rows, GAP).save(draft, "PNG")


def _rows(ranked: Sequence[Pictured], classes: Sequence[str], wanted: int, shown: list[Pictured]) -> list[list[Image.Image]]:
    """The first so many that can be opened, each a line of text and two panels; they are added to `shown`."""
    rows: list[list[Image.Image]] = []
    for each in ranked[: TRIES * wanted]:
        image = _open(each) if len(rows) < 2 * wanted else None
        if image is None:
            continue
        judgement = each.judgement
        counts = f"{len(judgement.pairs)} right, {len(judgement.missed)} missed"
        counts += f", {len(judgement.wrong)} wrong, {len(judgement.confused)} of another class"
        counts = f"F1 {judgement.f1:.2f} · {counts}" if each.iou is None else f"IoU {each.iou:.2f}"
        rows.append([line(f"{counts} · {each.name}", 15)])
        rows.append([draw_panel(image, each.truth, _truth_captions(each), classes)])
        rows[-1].append(draw_panel(image, each.found, _found_captions(each), classes))
        shown.append(each)
    return rows


def _truth_captions(each: Pictured) -> list[str]:
    remarks = dict.fromkeys(each.judgement.missed, ", missed")
    remarks |= {i: ", not counted" for i, item in enumerate(each.truth) if item.crowd}
    return [f"{_short(item.label)}{remarks.get(i, '')}" for i, item in enumerate(each.truth)]


def _found_captions(each: Pictured) -> list[str]:
    """Class and score, and what is wrong with it."""
    remarks = dict.fromkeys(each.judgement.wrong, ", wrong")
    remarks |= {j: f", is {_short(each.truth[i].label)}" for i, j in each.judgement.confused}
    return [f"{_short(item.label)} {item.score or 0.0:.2f}{remarks.get(j, '')}" for j, item in enumerate(each.found)]


def _short(label: str) -> str:
    """A class name that leaves room for its score."""
    return label if len(label) <= MAX_NAME else f"{label[: MAX_NAME // 2]}…{label[-(MAX_NAME // 2 - 1) :]}"


def _open(each: Pictured) -> Image.Image | None:
    try:
        return read_image(each.path, pixels=each.pixels)
    except ImageError as error:
        logger.warning("An image is not shown: %s", error)
        return None


def _confusions(pictured: Iterable[Pictured]) -> Counter[tuple[str, str]]:
    """How often an object of one class was taken for another."""
    return Counter((each.truth[i].label, each.found[j].label) for each in pictured for i, j in each.judgement.confused)
