"""An index that cannot fit is not begun, unless somebody insists; a large one says its size first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset import indexing
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index, iter_build_index
from refseg.dataset.known_indexes import index_records
from refseg.errors import IndexSpaceError
from refseg.progress import Progress, drain
from tests.trays import tray_samples


@pytest.fixture
def trays(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    return make_dataset(tray_samples(tmp_path)[:3])


@pytest.fixture
def almost_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: 1000)


def build(dataset: fo.Dataset, **options: Any) -> list[str]:
    """Labels of the steps, each once."""
    steps: list[Progress] = []
    drain(iter_build_index(dataset, "demo", num_workers=0, **options), steps.append)
    return list(dict.fromkeys(step.label for step in steps))


@pytest.mark.usefixtures("almost_full")
def test_refused_and_nothing_is_left(trays: fo.Dataset) -> None:
    with pytest.raises(IndexSpaceError, match=r"of 3 images will take about .* KB, 1 KB free, at .*: free some space"):
        build_index(trays, "demo", progress=False)
    assert index_records(trays) == []


def test_refused_and_what_was_there_stays(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    build(trays[:1])
    monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: 1000)
    with pytest.raises(IndexSpaceError, match="of 2 images"):
        build_index(trays, "demo", progress=False)
    assert [record["num_images"] for record in index_records(trays)] == [1]
    # Nothing is missing there, so nothing has to fit.
    assert build_index(trays[:1], "demo", progress=False).num_added == 0


def test_refused_elsewhere_and_the_index_that_there_is_stays_known(
    trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = build_index(trays, "demo", uri=tmp_path / "first", progress=False)
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: 1000)
    with pytest.raises(IndexSpaceError, match="of 3 images"):
        build_index(trays, "demo", uri=tmp_path / "mine", progress=False)
    assert [record["uri"] for record in index_records(trays)] == [first.uri]
    assert len(open_index(trays).index.images) == 3
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.usefixtures("almost_full")
def test_built_for_those_who_insist(trays: fo.Dataset) -> None:
    assert build_index(trays, "demo", insist=True, progress=False).num_added == 3


def test_size_is_said_first(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(trays[:1]) == ["images"]
    monkeypatch.setattr(indexing, "SAID_FROM", 1)
    said, images = build(trays)
    assert said.startswith("images, about ")
    assert said.endswith(" free")
    assert images == "images"


def test_an_index_tells_by_its_own_size(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    report = build_index(trays[:2], "demo", progress=False)
    monkeypatch.setattr("refseg.index.space.IMAGES_THAT_TELL", 2)
    monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: report.bytes_per_image - 1)
    with pytest.raises(IndexSpaceError):
        build_index(trays, "demo", progress=False)
    monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: report.bytes_per_image)
    assert build_index(trays, "demo", progress=False).num_added == 1
