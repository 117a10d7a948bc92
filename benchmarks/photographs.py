"""How many objects of two real photographs the candidates of a preset hold, and how many candidates that takes. No reference.

The photographs are those that the package imgviz brings along, with their ground truth: `arc2017`, eight objects heaped in a
box, and `voc`, nineteen people, chairs, tables and a bottle. An object is held where any candidate, of whatever predicted IoU,
has this IoU with the part of it that can be seen. Of `arc2017` the hidden parts are known too: a row counts them in.

    python -m benchmarks.photographs [--model demo]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imgviz
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.one_photograph import hold
from refseg.masks import encode_crop
from refseg.models import Models, load_models

IOUS = 0.5, 0.75
VISIBLE = 1
"""In the masks of imgviz; a pixel that another object hides is 2."""


@dataclass(frozen=True)
class Objects:
    """The objects of one photograph.

    Attributes:
        name: of the photograph, and of how its objects are counted.
        photograph: RGB.
        classes: of each object.
        masks: (O, H, W) bool.
    """

    name: str
    photograph: Image.Image
    classes: tuple[str, ...]
    masks: NDArray[np.bool_]

    @property
    def codes(self) -> list[dict[str, Any]]:
        """Run-length codes of the masks."""
        return [encode_crop(mask, (0, 0), mask.shape) for mask in self.masks]


def load_objects() -> list[list[Objects]]:
    """Of each photograph its objects, and once more where their hidden parts are known."""
    photographs = []
    for name, shown in (("arc2017", imgviz.data.arc2017()), ("voc", imgviz.data.voc())):
        photograph = Image.fromarray(shown["rgb"])
        classes = tuple(shown["class_names"][label] for label in shown["labels"])
        masks = np.asarray(shown["masks"]).astype(np.uint8)
        ways = [Objects(name, photograph, classes, masks == VISIBLE)]
        if (masks > VISIBLE).any():
            ways.append(Objects(f"{name}, hidden parts too", photograph, classes, masks > 0))
        photographs.append(ways)
    return photographs


def measure(photographs: Sequence[Sequence[Objects]], models: Models) -> tuple[str, str]:
    """A table of how many objects are held, and one of the best IoU of each object."""
    held_at = " | ".join(f"held at IoU {iou}" for iou in IOUS)
    counts = [
        f"| photograph | looked at | objects | {held_at} | at {IOUS[0]} after the NMS | candidates |",
        "| --- " * (len(IOUS) + 5) + "|",
    ]
    single = ["| object | best IoU, whole | tiles |", "| --- | --- | --- |"]
    for ways in photographs:
        held = {name: hold(ways[0].photograph, models, tiles=name == "tiles") for name in ("whole", "tiles")}
        for objects in ways:
            best = {name: one.best(objects.codes) for name, one in held.items()}
            for name, one in held.items():
                hits = " | ".join(str((best[name] >= iou).sum()) for iou in IOUS)
                left = (one.best(objects.codes, after_nms=True) >= IOUS[0]).sum()
                counts.append(f"| {objects.name} | {name} | {len(objects.masks)} | {hits} | {left} | {len(one.codes)} |")
            pairs = zip(objects.classes, best["whole"], best["tiles"], strict=True)
            single += [f"| {objects.name}: {label} | {whole:.2f} | {tiled:.2f} |" for label, whole, tiled in pairs]
    return "\n".join(counts), "\n".join(single)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description="Count the objects of two photographs that candidates hold.")
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    counts, single = measure(load_objects(), load_models(options.model))
    print(f"Preset {options.model}\n\n{counts}\n\n{single}")


if __name__ == "__main__":
    main()
