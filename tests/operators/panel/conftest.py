"""Datasets for the panel: two images with predictions, and labels without images.

FiftyOne is imported inside the fixtures: pytest may read this file before the tests' settings of FiftyOne are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import fiftyone as fo


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "grey.png"
    Image.fromarray(np.full((100, 200, 3), 127, np.uint8)).save(path)
    return str(path)


@pytest.fixture
def shelf(make_dataset: Callable[..., fo.Dataset], image: str) -> fo.Dataset:
    """Two images with two objects each, and three predictions each as a run of segment writes them."""
    import fiftyone as fo

    from tests.operators.panel.shelf import detections

    samples = []
    for number in range(2):
        path = image.replace("grey", f"grey_{number}")
        Image.open(image).save(path)
        found = detections("", ["a.b", "$c", "a.b"], confidence=0.9)
        samples.append(fo.Sample(path, ground_truth=detections("", ["a.b", "$c"]), predictions=found))
    dataset = make_dataset(samples)
    run = dataset.init_run(
        method="refseg/segment", label_field="predictions", classes=["$c", "a.b"], changed_ids=" ".join(dataset.values("id"))
    )
    dataset.register_run("run", run)
    return dataset


@pytest.fixture
def labelled(make_dataset: Callable[..., fo.Dataset]) -> Callable[..., fo.Dataset]:
    """A function that makes a dataset without images: for each sample, pairs of a class and its tags."""

    import fiftyone as fo

    def make(*samples: Sequence[tuple[str | None, list[str]]], field: str = "ground_truth") -> fo.Dataset:
        made = []
        for number, labels in enumerate(samples):
            objects = [fo.Detection(label=name, bounding_box=[0, 0, 0.5, 0.5], tags=tags) for name, tags in labels]
            made.append(fo.Sample(f"{number}.png", **{field: fo.Detections(detections=objects)}))
        return make_dataset(made)

    return make
