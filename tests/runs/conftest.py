"""Trays that tests of runs share, where they need no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kept import KeptDataset, kept_trays

if TYPE_CHECKING:
    import fiftyone as fo


@pytest.fixture(scope="package")
def kept_five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Five trays with a star and a tee each."""
    with kept_trays(tmp_path_factory.mktemp("trays"), 5) as trays:
        yield trays


@pytest.fixture
def five_trays(kept_five: KeptDataset) -> fo.Dataset:
    return kept_five.put_back()


@pytest.fixture
def overlapping(make_dataset: Callable[..., fo.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Two indexed trays in which each object is a candidate twice."""
    import refseg
    from tests.trays import propose_truth, tray_samples

    samples = tray_samples(tmp_path, 2)
    for sample in samples:
        objects = sample.ground_truth.detections
        sample.ground_truth.detections = [*objects, *(label.copy() for label in objects)]
    dataset = make_dataset(samples)
    propose_truth(monkeypatch, dataset)
    refseg.build_index(dataset, "demo", exact=True, num_workers=0, progress=False)
    assert refseg.open_index(dataset).index.num_candidates == 8
    return dataset
