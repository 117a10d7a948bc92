"""Building the index of a dataset in this process, what it holds then, and deep images for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import refseg.candidates.tiles
from refseg.candidates.packing import PackedCandidates
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import IndexReport, build_index
from tests.index.test_candidate_index import contents
from tests.trays import draw_trays


def count_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of images of each batch from now on."""
    batches: list[int] = []
    real = refseg.candidates.tiles.propose_from_pixels

    def propose_from_pixels(pixels: Any, *arguments: Any, **options: Any) -> Any:
        batches.append(len(pixels))
        return real(pixels, *arguments, **options)

    monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", propose_from_pixels)
    return batches


def build(view: Any, model: Any = "demo", **options: Any) -> IndexReport:
    """build_index, in this process."""
    return build_index(view, model, **{"num_workers": 0, "progress": False, **options})


def held_by(dataset: fo.Dataset) -> dict[str, PackedCandidates]:
    return contents(open_index(dataset).index)


def save_deep(path: Path, highest: int) -> str:
    """A tray in grey of 16 bits, its brightest value this."""
    grey = np.asarray(Image.fromarray(draw_trays(1)[0].image).convert("L")).astype(np.float64)
    Image.fromarray((grey / grey.max() * highest).round().astype(np.uint16)).save(path)
    return str(path)
