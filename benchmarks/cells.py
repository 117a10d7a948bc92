"""Three cell nuclei shown to `refseg coco`, their like outlined in the same photograph, whole and in tiles. No ground truth.

The photograph is `skimage.data.immunohistochemistry()`: a section of tissue whose nuclei are stained blue. Which pixels are a
nucleus is decided by a recipe of scikit-image's functions, good enough for the round and lonely ones of which the three nearest
to the middle are shown, and not for counting. Writes the picture, and prints how many instances there are.

    python -m benchmarks.cells [--model demo] [--out docs/cells.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import color, data, feature, filters, measure, segmentation

from benchmarks.one_photograph import as_drawn, draw_found, find_like
from refseg.images import RIGHT, SHOWN, draw_outlines, line_of_text, sheet
from refseg.outputs import require_png

SHOTS = 3
BLUR, APART = 2.0, 7
"""Pixels: of the blur that the threshold sees, and the least distance between the middles of two nuclei."""
MIN_SOLIDITY, MAX_ECCENTRICITY = 0.9, 0.8
"""Of a nucleus that is shown: it is convex and not drawn out."""


def true_nuclei(photograph: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W) labels from 1 of what is stained blue: by colour, by Otsu's threshold, and divided by watershed."""
    stain = filters.gaussian(color.rgb2hed(photograph)[..., 0], BLUR)
    blue = stain > filters.threshold_otsu(stain)
    depth = ndimage.distance_transform_edt(blue)
    middles = feature.peak_local_max(filters.gaussian(depth, 1), min_distance=APART, labels=measure.label(blue))
    markers = np.zeros(blue.shape, np.int32)
    markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    return segmentation.watershed(-depth, markers, mask=blue)


def shown_nuclei(labels: NDArray[np.int32]) -> list[NDArray[np.bool_]]:
    """(H, W) masks of the nuclei nearest to the middle that are round and not small."""
    regions = measure.regionprops(labels)
    usual = np.median([region.area for region in regions])
    round_ones = [one for one in regions if one.solidity >= MIN_SOLIDITY and one.eccentricity <= MAX_ECCENTRICITY]
    middle = np.array(labels.shape) / 2
    ordered = sorted(round_ones, key=lambda one: float(np.hypot(*(np.array(one.centroid) - middle))))
    return [labels == one.label for one in ordered if one.area >= usual][:SHOTS]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description="Outline the cells of a photograph by three of them.")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/cells.png"))
    options = parser.parse_args()
    require_png(options.out)
    pixels = data.immunohistochemistry()
    photograph, shown = Image.fromarray(pixels), shown_nuclei(true_nuclei(pixels))
    references = [as_drawn(mask, SHOWN) for mask in shown]
    pictures, counts = [], []
    for name, tiles in (("whole image", False), ("tiles", True)):
        found = find_like(photograph, shown, "nucleus", options.model, tiles=tiles)
        counts.append(f"{len(found)} instances, {name}")
        pictures.append(draw_outlines(photograph, [*draw_found(found, [RIGHT] * len(found)), *references]))
        print(counts[-1])
    title = f"Three nuclei shown, in blue. Found with the preset {options.model!r}, nothing to check it by: {'; '.join(counts)}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet([[line_of_text(title, 2 * photograph.width)], pictures]).save(options.out, "PNG")
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
