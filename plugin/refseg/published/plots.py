"""Figures over the number of references a class, beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DatasetError
from ..images import COLORS
from ..outputs import replacing
from .rows import ALL_SHOTS, rows_for
from .summary import Cell, averaged_cells, spread_over_seeds
from .tables import Results, by_benchmark, labels_of, published_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_COLUMNS = 3
OURS = tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in (COLORS[6], COLORS[4], COLORS[2], COLORS[5], COLORS[0]))
PUBLISHED = ("#444444", "#888888", "#aaaaaa")


def draw_shots(results: Sequence[Results], path: Path) -> None:
    """Draw the first figure of each benchmark over shots: mean, a band of one standard deviation, published ones dashed.

    One panel for each part and split, averages among them. One number of shots is a point; one seed has no band.

    Args:
        results: what results.json of one or several runs hold.
        path: of the picture, PNG or whatever its suffix says; its folder must exist.

    Raises:
        DatasetError: no run of any of them has its figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [
        (group, key)
        for group in by_benchmark(results).values()
        for key in dict.fromkeys(cell[:2] for each in group for cell, _ in averaged_cells(each["runs"]))
    ]
    if not panels:
        raise DatasetError("There is no run to draw: finish a benchmark first.")
    columns = min(len(panels), MAX_COLUMNS)
    lines = math.ceil(len(panels) / columns)
    # A single panel is wide enough for a legend beside its curves.
    figure = Figure(figsize=(max(6.0, 4.2 * columns), 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    for position, axis in enumerate(axes.flat):
        if position < len(panels):
            _draw_panel(axis, *panels[position])
        else:
            axis.set_visible(False)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=120, format="png")


def _draw_panel(axis: Axes, group: Sequence[Results], key: tuple[str, str]) -> None:
    """One part and split of one benchmark: our runs, then what is published at the same numbers of shots."""
    figure = group[0]["figures"][0]
    members: dict[Cell, list[Cell]] = {}
    for number, (each, label) in enumerate(zip(group, labels_of(group), strict=True)):
        cells = {cell: of for cell, of in averaged_cells(each["runs"]) if cell[:2] == key}
        members |= cells
        _draw_ours(axis, each, figure, cells, label, OURS[number % len(OURS)])
    shown = {cell[2] for cell in members}
    rows = rows_for(group[0]["benchmark"])
    for number, method in enumerate(dict.fromkeys(row.method for row in rows)):
        found = [
            (cell[2], published_row(rows, method, figure, cell, of)) for cell, of in members.items() if cell[2] != ALL_SHOTS
        ]
        points = sorted((shots, row.value) for shots, row in found if row is not None)
        if points:
            color = PUBLISHED[number % len(PUBLISHED)]
            axis.plot(*zip(*points, strict=True), "--", marker=".", color=color, label=f"{method} (published)")
    where = ", ".join(name for name in key if name)
    axis.set_title(f"{group[0]['title']}\n{where}" if where else group[0]["title"], fontsize=10)
    axis.set_xscale("log")
    axis.set_xticks(sorted(shown), labels=[str(shots) for shots in sorted(shown)])
    axis.minorticks_off()
    axis.set_xlim(min(shown) / 1.3, max(shown) * 1.3)
    axis.set_xlabel("references a class")
    axis.set_ylabel(f"{figure} (%)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _draw_ours(axis: Axes, results: Results, figure: str, cells: dict[Cell, list[Cell]], label: str, color: str) -> None:
    points: list[tuple[int, float, float]] = []
    for cell, members in sorted(cells.items(), key=lambda item: item[0][2]):
        spread: Any = spread_over_seeds(results["runs"], figure, members)
        if spread.mean is not None:
            points.append((cell[2], 100 * spread.mean, 100 * (spread.std or 0.0)))
    if not points:
        return
    shots, means, stds = zip(*points, strict=True)
    axis.plot(shots, means, marker="o", color=color, label=label)
    if any(stds):
        low, high = ([mean + sign * std for mean, std in zip(means, stds, strict=True)] for sign in (-1, 1))
        axis.fill_between(shots, low, high, color=color, alpha=0.15, linewidth=0)
        if len(points) == 1:
            axis.errorbar(shots, means, stds, color=color, capsize=4)
