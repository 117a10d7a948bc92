"""Photographs, and how many images are computed.

FiftyOne is imported inside the fixtures: pytest may read this file before the tests' settings of FiftyOne are made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    import fiftyone as fo

ORIENTATION = 0x0112
SIZE = 200, 160
"""Width and height of plain images."""


@pytest.fixture
def computed(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each batch for which candidates are computed."""
    from tests.dataset.building import count_batches

    return count_batches(monkeypatch)


@pytest.fixture
def photos(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    """Two JPEGs with an orientation of 1."""
    import fiftyone as fo

    from tests.trays import draw_trays

    samples = []
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    for number, scene in enumerate(draw_trays(2)):
        Image.fromarray(scene.image).save(tmp_path / f"{number}.jpg", quality=95, exif=exif)
        objects = [fo.Detection.from_mask(mask, label="part") for mask in scene.masks]
        samples.append(fo.Sample(str(tmp_path / f"{number}.jpg"), ground_truth=fo.Detections(detections=objects)))
    return make_dataset(samples)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """An image without anything on it: for tests that are about labels alone."""
    path = tmp_path / "plain.png"
    Image.new("RGB", SIZE, (90, 120, 60)).save(path)
    return str(path)
