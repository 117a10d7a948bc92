"""One coin shown to `refseg coco`, the 23 others of a real photograph to be found, in tiles and in the whole image alone.

The photograph is `skimage.data.coins()`. What counts as a coin is decided by scikit-image's own watershed recipe for it, and
the coin that is shown is the one nearest to the middle. Prints how many of the others are found at IoU 0.5 at the default
threshold and how many instances are no coin, which a second instance of the same coin is not either; then how many coins any
candidate holds, of whatever score. Writes the picture.

    python -m benchmarks.coins [--model demo] [--out docs/coins.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils
from scipy import ndimage
from skimage import data, filters, segmentation

from benchmarks.one_photograph import (
    as_coco,
    as_drawn,
    draw_found,
    find_like,
    hold,
    overlaps,
)
from benchmarks.quality_scores import FOUND_IOU, Judged, judge
from refseg.candidates.tiles import EDGE_CELLS, PIXELS_A_CELL, Window, tile_windows
from refseg.coco import parse_coco
from refseg.images import RIGHT, SHOWN, WRONG, draw_outlines, line_of_text, sheet
from refseg.masks import encode_crop
from refseg.models import load_models
from refseg.outputs import require_png

LEAST_PIXELS = 200
"""Specks that the recipe leaves are smaller, coins five times as large."""
SCALE = 2
"""The picture's, against the photograph's."""
NEAR_SEAM = 2 * EDGE_CELLS * PIXELS_A_CELL
"""Pixels; twice the strip in which the product itself takes a mask for cut off."""


def true_coins(photograph: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """(H, W) mask of each coin by scikit-image's region-based segmentation example for this photograph."""
    markers = np.zeros_like(photograph, np.int32)
    markers[photograph < 30], markers[photograph > 150] = 1, 2
    labels, count = ndimage.label(ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(photograph), markers) == 2))
    masks = [labels == number for number in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= LEAST_PIXELS]


def nearest_to_middle(masks: Sequence[NDArray[np.bool_]]) -> int:
    """The mask whose centre of mass is nearest to the middle of the photograph."""
    middle = np.array(masks[0].shape) / 2
    return int(np.argmin([np.hypot(*(np.array(ndimage.center_of_mass(mask)) - middle)) for mask in masks]))


def count_found(judged: Judged, shown: int) -> tuple[int, int]:
    """How many objects besides the shown one are found, and how many instances are none of the objects."""
    return int((judged.right & (judged.shows != shown)).sum()), int((~judged.right).sum())


def count_cut(codes: Sequence[Mapping[str, Any]], masks: Sequence[NDArray[np.bool_]], windows: Sequence[Window]) -> int:
    """How many masks end at a seam within an object: they show the part of it that lies in a tile.

    Args:
        codes: of the masks to be looked at.
        masks: of the objects, (H, W).
        windows: the tiles.
    """
    cut = np.zeros(len(codes), bool)
    for window in windows if codes else ():
        own = _ending_at_seam(codes, window, masks[0].shape)
        left, top, right, bottom = (round(side) for side in window.pixels(masks[0].shape))
        for mask in masks:
            part = np.zeros_like(mask)
            part[top:bottom, left:right] = mask[top:bottom, left:right]
            if 0 < part.sum() < mask.sum():
                cut |= own & (overlaps(codes, [encode_crop(part, (0, 0), part.shape)])[:, 0] >= FOUND_IOU)
    return int(cut.sum())


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description="Find the coins of a photograph by one of them.")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/coins.png"))
    options = parser.parse_args()
    require_png(options.out)
    grey = data.coins()
    photograph = Image.fromarray(grey).convert("RGB")
    coins = true_coins(grey)
    shown = nearest_to_middle(coins)
    truth = parse_coco(as_coco(coins, grey.shape, "coin"), "the watershed recipe")

    lines, pictures = [], []
    for tiles in (True, False):
        found = find_like(photograph, [coins[shown]], "coin", options.model, tiles=tiles)
        judged = judge(truth, found)
        hits, wrong = count_found(judged, shown)
        lines.append(f"{hits} of {len(coins) - 1} coins, {wrong} instances that are no coin")
        colors = [
            WRONG if not right else SHOWN if one == shown else RIGHT
            for one, right in zip(judged.shows, judged.right, strict=True)
        ]
        pictures.append(draw_outlines(photograph, draw_found(found, colors, " no coin"), SCALE))
    print(f"{lines[0]}\n{lines[1]}: the whole image alone, without tiles\n\n{_candidates(photograph, coins, options.model)}")

    known = [as_drawn(mask, SHOWN, "shown") if number == shown else as_drawn(mask, RIGHT) for number, mask in enumerate(coins)]
    title = f"Left: all coins, the one shown in blue. Right: found in tiles by {options.model!r}: {lines[0]}, in orange"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = [[line_of_text(title, 2 * SCALE * photograph.width)], [draw_outlines(photograph, known, SCALE), pictures[0]]]
    sheet(page).save(options.out, "PNG")
    print(f"\nWritten: {options.out}")


def _candidates(photograph: Image.Image, coins: Sequence[NDArray[np.bool_]], model: str) -> str:
    """A table of what candidates hold, whatever their score."""
    models = load_models(model)
    image_hw = photograph.height, photograph.width
    codes = [encode_crop(mask, (0, 0), image_hw) for mask in coins]
    lines = [
        f"| {model} | candidates | of {len(coins)} coins held | held after the NMS | candidates that cut a coin at a seam |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, tiles in (("tiles", True), ("whole", False)):
        held = hold(photograph, models, tiles=tiles)
        every, left = ((held.best(codes, after_nms=after) >= FOUND_IOU).sum() for after in (False, True))
        cut = count_cut(held.codes, coins, tile_windows(image_hw, PIXELS_A_CELL * models.grid_side)[1:]) if tiles else 0
        lines.append(f"| {name} | {len(held.codes)} | {every} | {left} | {cut} |")
    return "\n".join(lines)


def _ending_at_seam(codes: Sequence[Mapping[str, Any]], window: Window, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) bool: masks that lie in a tile and end near an edge of it that is not the image's."""
    x, y, width, height = mask_utils.toBbox(list(codes)).T
    left, top, right, bottom = window.pixels(image_hw)
    gaps = np.stack([x - left, y - top, right - x - width, bottom - y - height], 1)
    # A pixel of play, because tiles do not always end between two pixels.
    return np.asarray((gaps >= -1).all(1) & ((gaps <= NEAR_SEAM) & np.array(window.inner_edges)).any(1))


if __name__ == "__main__":
    main()
