"""Instances of one image as a map of classes: one number a pixel. No FiftyOne."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..outputs import is_png, replacing
from ..regular_files import open_regular, read_regular
from .instances import Instances

NAMES_FILE = "classes.json"
"""Beside maps: what their numbers stand for."""
BACKGROUND = "background"
MAX_8_BIT = 255
"""The highest class index that a PNG of 8 bits a pixel can hold."""


def semantic_map(instances: Instances, image_hw: tuple[int, int], min_score: float = 0.0) -> NDArray[np.uint16]:
    """(H, W) class index of each pixel, 0 for background, k + 1 for row k: the best-scored instance on top."""
    canvas = np.zeros(image_hw, np.uint16)
    for index in reversed((instances.scores >= min_score).nonzero()[:, 0].tolist()):
        x0, y0, x1, y1 = instances.boxes[index].tolist()
        canvas[y0:y1, x0:x1][instances.masks[index].numpy()] = int(instances.labels[index]) + 1
    return canvas


def write_map(path: Path, canvas: NDArray[np.uint16], num_classes: int) -> None:
    """Write a map as a grey PNG, complete or not at all: 8 bits a pixel where all classes fit, else 16.

    Args:
        path: its folder is made.
        canvas: (H, W) of semantic_map.
        num_classes: K, so that all maps of one run are alike.
    """
    with replacing(path) as draft:
        Image.fromarray(canvas.astype(np.uint8) if num_classes <= MAX_8_BIT else canvas).save(draft, format="PNG")


def write_names(folder: Path, classes: Sequence[str]) -> None:
    """Write what the numbers of maps stand for beside them."""
    with replacing(folder / NAMES_FILE) as draft:
        draft.write_text(json.dumps(dict(enumerate([BACKGROUND, *classes]))), encoding="utf-8")


def holds_maps(folder: Path) -> bool:
    """Whether maps were written to a folder, told by the names beside them."""
    try:
        names = json.loads(read_regular(folder / NAMES_FILE))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(names, dict)
        and list(names) == [str(number) for number in range(len(names))]
        and names.get("0") == BACKGROUND
    )


def is_map(path: Path) -> bool:
    """Whether a file is what write_map writes, as far as its head tells: a grey PNG."""
    if not is_png(path):
        return False
    try:
        with open_regular(path) as stream, Image.open(stream) as head:
            return head.mode in ("L", "I;16", "I")
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def map_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where the map of each image goes: its own name under the folder, ending in .png.

    Two images that differ in their ending alone keep it before the new one. No path leads out of the folder.

    Args:
        folder: of the maps.
        names: path of each image, relative to the folder of images or absolute.

    Example:
        >>> [path.as_posix() for path in map_paths(Path("maps"), ["a/1.jpg", "../2.tif", "2.bmp"])]
        ['maps/a/1.png', 'maps/2.tif.png', 'maps/2.bmp.png']
    """
    inside = [PurePath(*(part for part in PurePath(name).parts if part not in (PurePath(name).anchor, ".."))) for name in names]
    # Case does not tell files apart everywhere.
    counts = Counter(str(path.with_suffix("")).lower() for path in inside)
    single = [counts[str(path.with_suffix("")).lower()] == 1 for path in inside]
    return [
        folder / (path.with_suffix(".png") if alone else path.with_name(f"{path.name}.png"))
        for path, alone in zip(inside, single, strict=True)
    ]
