"""The plot over shots: a panel for each part and split, published ones dashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refseg.errors import DatasetError
from refseg.published import plots


def results(benchmark: str, splits: tuple[str, ...], shots: tuple[int, ...], seeds: tuple[int, ...]) -> dict[str, Any]:
    runs = [
        {"part": "", "split": split, "shots": number, "seed": seed, "figures": {"box AP": 0.2 + 0.01 * seed}}
        for split in splits
        for number in shots
        for seed in seeds
    ]
    return {"benchmark": benchmark, "title": benchmark, "model": "demo", "figures": ["box AP"], "settings": {}, "runs": runs}


def test_panels_lines_and_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    original = plots._draw_panel

    def keep(axis: Any, *args: Any) -> None:
        original(axis, *args)
        drawn.append(axis)

    monkeypatch.setattr(plots, "_draw_panel", keep)
    several = results("coco-fsod", ("novel",), (1, 10, 30), (1, 2))
    single = results("toy", ("toy",), (1,), (1,))
    plots.draw_shots([several, single], tmp_path / "plot.png")
    curve, point = drawn
    assert curve.get_xscale() == "log"
    lines = {line.get_label(): line for line in curve.lines}
    assert list(lines["refseg, preset demo"].get_ydata()) == pytest.approx([21.5] * 3)
    assert list(lines["No Time to Train (published)"].get_ydata()) == [24.5, 35.9, 37.0]
    assert lines["No Time to Train (published)"].get_linestyle() == "--"
    assert list(lines["FSOD-VFM (published)"].get_xdata()) == [10, 30]
    assert len(curve.collections) == 1  # the band
    assert not point.collections  # one seed has none
    assert [text.get_text() for text in point.get_xticklabels()] == ["1"]
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no run to draw"):
        plots.draw_shots([results("toy", (), (), ())], tmp_path / "plot.png")
