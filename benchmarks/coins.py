"""One coin as the reference, the other coins of a real photograph to be found, with a preset's models.

The photograph is `skimage.data.coins()`, cut into four overlapping tiles. What counts as a coin is decided by the
watershed recipe of scikit-image for it, not by RefSeg. Prints how many of the other coins are found at IoU 0.5 and writes
the picture.

    python benchmarks/coins.py [--model demo] [--out docs/coins.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data, filters, segmentation

from refseg.candidates import propose
from refseg.images import DrawnObject, draw_objects, fit, line_of_text, sheet
from refseg.matching import Instances, make_gallery, match
from refseg.models import load_models
from refseg.prototypes import Reference, build_prototypes

FOUND_IOU = 0.5
TILE = 0.6
"""Side of a tile as a share of the photograph's: two tiles a side overlap by a fifth, so each coin is whole in one of them."""


def true_coins(photograph: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W) labels from 1 of scikit-image's region-based segmentation example for this picture."""
    markers = np.zeros_like(photograph, np.int32)
    markers[photograph < 30], markers[photograph > 150] = 1, 2
    coins = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(photograph), markers) == 2)
    labels, count = ndimage.label(coins)
    small = [number for number in range(1, count + 1) if (labels == number).sum() < 200]
    labels[np.isin(labels, small)] = 0
    return segmentation.relabel_sequential(labels)[0]


def tile_corners(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """x0, y0, x1, y1 of the four tiles."""
    h, w = round(height * TILE), round(width * TILE)
    return [(x, y, x + w, y + h) for y in (0, height - h) for x in (0, width - w)]


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Overlap of two masks of one size."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/coins.png"))
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    grey = data.coins()
    photograph = Image.fromarray(grey).convert("RGB")
    coins = true_coins(grey)
    height, width = coins.shape
    tiles = tile_corners(height, width)
    models = load_models(options.model)

    # The reference: the coin nearest to the middle of the first tile.
    x0, y0, x1, y1 = tiles[0]
    centers = ndimage.center_of_mass(coins > 0, coins, range(1, coins.max() + 1))
    distances = [np.hypot(y - (y0 + y1) / 2, x - (x0 + x1) / 2) for y, x in centers]
    shown = int(np.argmin(distances)) + 1
    rows, columns = np.nonzero(coins == shown)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    whole = options.out.with_suffix(".tmp.png")
    photograph.save(whole)
    mask = coins[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == shown
    prototypes = build_prototypes([Reference("coin", "coin", str(whole), box, mask)], models, progress=False)
    whole.unlink()

    found: list[tuple[float, NDArray[np.bool_]]] = []
    for (left, top, *_), candidates in zip(tiles, propose([photograph.crop(t) for t in tiles], models), strict=True):
        for mask_crop, (a, b, c, d), score in zip(*_answers(match(candidates, make_gallery(prototypes))), strict=True):
            full = np.zeros((height, width), bool)
            full[top + b : top + d, left + a : left + c] = mask_crop
            found.append((score, full))
    others = [number for number in range(1, coins.max() + 1) if number != shown]
    threshold = models.preset.min_confidence
    for least in (0.0, threshold):
        best = [max((iou(coins == n, m) for score, m in found if score >= least), default=0.0) for n in others]
        hits = sum(value >= FOUND_IOU for value in best)
        print(
            f"{options.model}, scores from {least}: {hits} of {len(others)} coins found at IoU {FOUND_IOU} "
            f"(mean best IoU {np.mean(best):.2f}, {sum(s >= least for s, _ in found)} instances in four tiles)"
        )

    truth = [_drawn(coins == n, n, "shown" if n == shown else "") for n in range(1, coins.max() + 1)]
    answers = [_drawn(m, i, f"{score:.2f}") for i, (score, m) in enumerate(found) if score >= threshold]
    big = [fit(draw_objects(photograph, objects), 2 * width, 2 * height) for objects in (truth, answers)]
    title = line_of_text(
        f"One coin shown (left, all coins outlined); found with the preset {options.model!r} (right)", 4 * width
    )
    sheet([[title], big]).save(options.out)
    print(f"Written: {options.out}")


def _answers(instances: Instances) -> tuple[list[NDArray[np.bool_]], list[list[int]], list[float]]:
    return [m.numpy() for m in instances.masks], instances.boxes.tolist(), instances.scores.tolist()


def _drawn(mask: NDArray[np.bool_], color: int, caption: str) -> DrawnObject:
    rows, columns = np.nonzero(mask)
    box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    return DrawnObject(box, mask[box[1] : box[3], box[0] : box[2]], color, caption)


if __name__ == "__main__":
    main()
