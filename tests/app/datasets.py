"""Small datasets of the demo for the App to open.

FiftyOne is imported inside the functions: pytest reads what imports this before the settings of this session are made.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import fiftyone as fo

_counter = itertools.count()


def draw_dataset(folder: Path, num_images: int) -> fo.Dataset:
    """Trays of the demo, two of three with objects of six classes in `ground_truth`."""
    from refseg.demo.dataset import build_demo_dataset

    # The server keeps a dataset that it has shown, even once it is deleted: each needs a name of its own.
    number = next(_counter)
    return build_demo_dataset(folder / "trays", name=f"trays-{number}" if number else "trays", num_images=num_images)


def predict(dataset: fo.Dataset) -> None:
    """References, prototypes, index and predictions, without the App."""
    import refseg

    refseg.sample_references(dataset, "ground_truth", 2)
    references = refseg.collect_references(dataset, "ground_truth", tags="reference")
    prototypes = refseg.build_prototypes(references, "demo", progress=False)
    refseg.save_prototypes(dataset, prototypes, "prototypes")
    refseg.segment(dataset, "prototypes", progress=False)
    assert np.isfinite(dataset.count("predictions.detections"))
