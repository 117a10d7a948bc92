"""Runs of a benchmark put together: mean and standard deviation over seeds, averages over its parts and splits."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .rows import AVERAGE

Run: TypeAlias = Mapping[str, Any]
"""An entry of "runs" in results.json."""
Cell: TypeAlias = tuple[str, str, int]
"""Part, split, shots."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: of the seeds that have the figure in every cell, in [0, 1]; None where no seed has.
        std: sample standard deviation; None for fewer than two seeds.
        num_seeds: that the mean is of.
        num_left_out: seeds without the figure, or with it in some of the cells alone.
    """

    mean: float | None
    std: float | None
    num_seeds: int
    num_left_out: int


def summarise(runs: Sequence[Run], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and spread of each figure for each part, split and number of shots, then over splits, then over parts.

    Averages are taken seed by seed first, so their spread is that of the average. A seed without a figure in one of the
    cells of an average is left out of it, and counted.

    Args:
        runs: one for each part, split, number of shots and seed; of two alike the last counts.
        figures: names, in the order wanted.

    Returns:
        {"part", "split", "shots", "figure", "mean", "std", "num_seeds", "num_left_out"} each, see Spread. Where a part has
        several splits a row with AVERAGE as split follows it, and where there are several parts, one with AVERAGE as part.
    """
    entries = []
    for (part, split, shots), cells in averaged_cells(runs):
        for figure in figures:
            spread = spread_over_seeds(runs, figure, cells)
            entries.append({"part": part, "split": split, "shots": shots, "figure": figure, **vars(spread)})
    return entries


def averaged_cells(runs: Sequence[Run]) -> list[tuple[Cell, list[Cell]]]:
    """Each cell that is shown with the cells it is the mean of: itself, or for an average those of its splits or parts."""
    keys = _unique((run["part"], run["split"]) for run in runs)
    parts = _unique(part for part, _ in keys)
    groups: list[tuple[tuple[str, str], list[tuple[str, str]]]] = []
    for part in parts:
        own = [key for key in keys if key[0] == part]
        groups += [(key, [key]) for key in own]
        if len(own) > 1:
            groups.append(((part, AVERAGE), own))
    if len(parts) > 1:
        splits = _unique(split for _, split in keys)
        groups.append(((AVERAGE, splits[0] if len(splits) == 1 else AVERAGE), keys))
    return [
        ((*key, shots), [(*member, shots) for member in members])
        for key, members in groups
        for shots in sorted({run["shots"] for run in runs if (run["part"], run["split"]) in members})
    ]


def spread_over_seeds(runs: Sequence[Run], figure: str, cells: Sequence[Cell]) -> Spread:
    """A figure's mean over cells seed by seed, then over seeds.

    Example:
        >>> runs = [
        ...     {"part": "", "split": "novel", "shots": 1, "seed": seed, "figures": {"box AP": value}}
        ...     for seed, value in ((33, 0.25), (34, 0.75), (35, None))
        ... ]
        >>> spread = spread_over_seeds(runs, "box AP", [("", "novel", 1)])
        >>> spread.mean, spread.num_seeds, spread.num_left_out
        (0.5, 2, 1)
    """
    values: dict[Any, dict[Cell, float | None]] = {}
    for run in runs:
        cell = (run["part"], run["split"], run["shots"])
        if cell in cells:
            values.setdefault(run["seed"], {})[cell] = run["figures"].get(figure)
    means = []
    for of_cells in values.values():
        known = [number for cell in cells if (number := of_cells.get(cell)) is not None]
        if len(known) == len(cells):
            means.append(statistics.fmean(known))
    mean = statistics.fmean(means) if means else None
    std = statistics.stdev(means) if len(means) > 1 else None
    return Spread(mean, std, len(means), len(values) - len(means))


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
