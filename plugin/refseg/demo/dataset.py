"""The demo dataset `refseg-demo`: 60 trays of parts, a third of them without any part of the six classes to be found.

The classes are one family each of part types that the demo models never saw; other families, of those types and of the trained
ones, lie beside them unlabelled. The same seed draws the same dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image

from .world import NOVEL_PARTS, TRAINING_PARTS, Family, Scene, draw_family, render_scene

NAME = "refseg-demo"
MARK = "refseg_demo"
"""In the info of the dataset, by which the App knows that the preset `demo` suits it."""
SEED = 7
CLASSES = ("star", "tee", "crescent", "arrow", "clover", "bowtie")
NUM_IMAGES = 60
IMAGE_HW = (360, 480)
RADIUS = (0.085, 0.14)
MAX_OVERLAP = 0.1


def draw_classes(rng: np.random.Generator) -> list[Family]:
    """One family per class of CLASSES, in that order."""
    return [draw_family(rng, (part,)) for part in CLASSES]


def draw_tray(rng: np.random.Generator, classes: list[Family], *, empty: bool) -> tuple[Scene, list[str | None]]:
    """One image and, for each labelled object of the scene, its class, or None for a part that belongs to no class."""
    others = tuple(part for part in NOVEL_PARTS if part not in CLASSES) + TRAINING_PARTS
    wanted = [] if empty else [int(row) for row in rng.integers(0, len(classes), int(rng.integers(2, 5)))]
    strangers = [draw_family(rng, others) for _ in range(int(rng.integers(2, 5) if empty else rng.integers(1, 4)))]
    families = [classes[row] for row in wanted] + strangers
    order = rng.permutation(len(families))
    names = [*(CLASSES[row] for row in wanted), *(None for _ in strangers)]
    scene = render_scene(rng, [families[i] for i in order], IMAGE_HW, radius=RADIUS, max_overlap=MAX_OVERLAP)
    return scene, [names[order[drawn]] for drawn in scene.families]


def build_demo_dataset(folder: Path | None = None, *, seed: int = SEED, name: str = NAME, num_images: int = NUM_IMAGES) -> Any:
    """Draw the images, and make a persistent FiftyOne dataset of them; one of this name is replaced.

    Args:
        folder: for the images; by default in FiftyOne's data folder.
        seed: of everything drawn.
        name: of the dataset.
        num_images: every third of them is empty.

    Returns:
        The dataset, with the field `ground_truth` and the sample tag `empty` on images without any object to be found.
    """
    rng = np.random.default_rng(seed)
    classes = draw_classes(rng)
    target = folder or Path(fo.config.default_dataset_dir) / name / "data"
    target.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(num_images):
        empty = number % 3 == 2
        scene, names = draw_tray(rng, classes, empty=empty)
        path = target / f"tray_{number:03d}.png"
        Image.fromarray(scene.image).save(path)
        labels = [
            fo.Detection.from_mask(mask, label=label)
            for mask, label in zip(scene.masks, names, strict=True)
            if label is not None
        ]
        tags = ["empty"] if not labels else []
        samples.append(fo.Sample(str(path), tags=tags, ground_truth=fo.Detections(detections=labels)))
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[MARK] = True
    dataset.save()
    dataset.add_samples(samples, progress=False)
    dataset.compute_metadata(progress=False)
    return dataset
