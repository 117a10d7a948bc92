"""The benchmarks of `make bench` that are quick run in small: what they measure is not asserted, that they measure is."""

from __future__ import annotations

import pytest

from benchmarks import matching_speed, stages
from benchmarks.report import as_table


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
