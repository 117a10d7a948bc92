"""The benchmarks of `make bench` that are quick run in small: what they measure is not asserted, that they measure is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import matching_speed, panel_speed, segment_again, stages
from benchmarks.report import as_table
from refseg.matching import merging


def test_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "NUM_WARM_UP", 0)
    figures = stages.measure("demo", 2)
    assert [figure.name.split(",")[0] for figure in figures] == ["read", "propose", "pack", "match"]
    assert all(figure.value > 0 for figure in figures)
    assert "propose, preset demo" in as_table(figures)


def test_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_speed, "NUM_DRAWN", 2)
    figures = matching_speed.measure(matching_speed.TOGETHER)
    assert all(figure.value > 0 for figure in figures)


def test_matching_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_speed, "NUM_PUBLISHED", 60)
    figures = matching_speed.measure_published(2)
    assert all(figure.value > 0 for figure in figures)
    assert [figure.unit for figure in figures] == ["ms", "×", "ms", "×", "ms"]


def test_matching_as_published_finds_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that looks at no pairs is not what it is timed beside."""
    monkeypatch.setattr(matching_speed, "NUM_PUBLISHED", 60)
    monkeypatch.setattr(merging, "_decays", lambda masks, *pairs: np.zeros(len(masks), np.float32))
    with pytest.raises(RuntimeError, match="rankings differ"):
        matching_speed.measure_published(1)


@pytest.mark.thorough
def test_panel() -> None:
    """Numbers of the panel itself are those of the dataset, which the benchmark makes past FiftyOne's checks."""
    import fiftyone as fo

    figures = panel_speed.measure((40,))
    assert all(figure.value > 0 for figure in figures)
    assert {figure.name.split(",")[0] for figure in figures} >= {*panel_speed.SECTIONS, "a decision"}
    assert panel_speed.NAME not in fo.list_datasets()


def test_the_dataset_of_the_panel() -> None:
    dataset = panel_speed.make_dataset(2000, "refseg-benchmark-test")
    try:
        with panel_speed.plugin():
            shown = {name: panel_speed.until_read(dataset, name) for name in ("index", "references", "review", "results")}
        assert (shown["index"]["num_images"], shown["references"]["num_references"]) == (2000, 60)
        counts = {name: shown["review"][f"num_{name}"] for name in ("open", "accepted", "rejected")}
        assert counts == {"open": 3000, "accepted": 500, "rejected": 500}
        assert shown["results"]["histogram"]["num"] == 4000
    finally:
        dataset.delete()


@pytest.mark.slow
@pytest.mark.thorough
def test_segmenting_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_again, "NUM_DRAWN", 6)
    monkeypatch.setattr(segment_again, "REFERENCES", 4)
    monkeypatch.setattr(segment_again, "REPEATS", 1)
    first, again, same = segment_again.measure(20)
    assert "20 of 20 images written" in first.detail
    assert " 0 of 20 images written" in same.detail
    assert again.value > 0
