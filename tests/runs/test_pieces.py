"""Predictions whose masks are two large pieces are marked, wherever their candidates come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from fiftyone import ViewField as F
from PIL import Image
from torch import Tensor

from refseg.models.loaded import Models
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import Segmenter
from tests.trays import segment_all as run
from tests.trays import tray_samples


@pytest.fixture
def dataset(
    make_dataset: Callable[..., fo.Dataset], prototypes: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> fo.Dataset:
    """Trays on each of which the segmenter sees two masks of a class: a square and two squares, each with an island."""

    def answer(points: Tensor, embeddings: Any, row: int, models: Models) -> tuple[Tensor, Tensor]:
        side = models.grid_side
        logits = torch.full((2, side, side), -4.0, dtype=models.dtype)
        logits[0, 4:20, 4:20] = 4.0
        logits[1, 30:46, 30:38] = logits[1, 30:46, 44:52] = 4.0
        logits[:, 60, 60] = 4.0
        return logits, torch.tensor([0.9, 0.8], dtype=models.dtype)

    monkeypatch.setattr("refseg.candidates.decoding.decode_points", answer)
    monkeypatch.setattr(
        "refseg.candidates.proposing.pool_features", lambda masks, _: prototypes.matrix[:1].expand(len(masks), -1)
    )
    return make_dataset(tray_samples(tmp_path))


def marks(detections: fo.Detections) -> list[tuple[int, int | None]]:
    """Left edge in cells of the grid, and the mark, of each label from left to right."""
    found = sorted(detections.detections, key=lambda label: label.bounding_box[0])
    return [(round(80 * label.bounding_box[0]), label["pieces"] if label.has_field("pieces") else None) for label in found]


@pytest.mark.parametrize("index", [True, False])
def test_they_can_be_filtered(dataset: fo.Dataset, prototypes: Prototypes, models: Models, index: bool) -> None:
    for _ in range(2):  # computed, and then from the index where there is one
        report = run(dataset, prototypes, model=models, index=index, overwrite=True)
        assert report.num_instances == 2 * len(dataset)
        for sample in dataset:
            assert marks(sample.predictions) == [(4, None), (30, 2)]
        assert dataset.count_values("predictions.detections.pieces") == {2: len(dataset), None: len(dataset)}
        marked = dataset.filter_labels("predictions", F("pieces") > 1)
        assert marked.count("predictions.detections") == len(dataset)
        dataset.clear_sample_field("predictions")


def test_of_the_fiftyone_model(dataset: fo.Dataset, prototypes: Prototypes, models: Models) -> None:
    segmenter = Segmenter(prototypes, model=models, min_confidence=0.0)
    image = np.asarray(Image.open(dataset.first().filepath))
    assert marks(segmenter.predict(image)) == [(4, None), (30, 2)]


def test_masks_that_are_left_as_they_are_are_marked_too(dataset: fo.Dataset, prototypes: Prototypes, models: Models) -> None:
    """Islands do not count."""
    raw = replace(models, preset=replace(models.preset, clean_masks=False))
    run(dataset, prototypes, model=raw, index=False)
    for sample in dataset:
        assert marks(sample.predictions) == [(4, None), (30, 2)]
        assert all(round(80 * (label.bounding_box[0] + label.bounding_box[2])) == 61 for label in sample.predictions.detections)
