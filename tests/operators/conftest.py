"""A small real dataset.

FiftyOne is imported inside the fixtures: pytest reads this file before the settings of this session are made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from refseg.demo.world import NOVEL_PARTS, Scene, draw_family, render_scene

if TYPE_CHECKING:
    import fiftyone as fo

NUM_IMAGES = 5


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Scene]]:
    """Scenes of two classes; each image holds both."""
    rng = np.random.default_rng(33)
    families = [draw_family(rng, [part]) for part in NOVEL_PARTS[:2]]
    folder = tmp_path_factory.mktemp("scenes")
    drawn = []
    for number in range(NUM_IMAGES):
        scene = render_scene(rng, families, (240, 320), radius=(0.12, 0.17), max_overlap=0.0)
        path = folder / f"{number}.png"
        Image.fromarray(scene.image).save(path)
        drawn.append((path, scene))
    return drawn


@pytest.fixture
def parts(make_dataset: Callable[..., fo.Dataset], scenes: list[tuple[Path, Scene]]) -> fo.Dataset:
    """Five images with exact masks in `ground_truth`; the labels of the first two carry the tag `reference`."""
    import fiftyone as fo

    samples = []
    for number, (path, scene) in enumerate(scenes):
        labels = [
            fo.Detection.from_mask(mask, label=NOVEL_PARTS[family])
            for mask, family in zip(scene.masks, scene.families, strict=True)
        ]
        for label in labels:
            label.tags = ["reference"] if number < 2 else []
        samples.append(fo.Sample(str(path), ground_truth=fo.Detections(detections=labels)))
    return make_dataset(samples)


@pytest.fixture
def with_prototypes(parts: fo.Dataset) -> fo.Dataset:
    """The same with prototypes of the demo preset, kept as `parts`."""
    import fiftyone.operators as foo

    operator = foo.get_operator("@refseg/reference-segmentation/build_prototypes")
    result = operator(parts, model="demo", name="parts")
    assert result.result["name"] == "parts"
    return parts
