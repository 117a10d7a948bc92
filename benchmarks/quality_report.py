"""The tables, the picture and the verdicts of benchmarks/quality.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality_scores import calibration_bins, calibration_error
from benchmarks.report import Figure, as_table, at_least, at_most

FIGURES = (
    ("ap", "mask AP"),
    ("box_ap", "box AP"),
    ("presence_f1", "presence F1"),
    ("false_positives", "false positives an empty image"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("cost", "decisions an object"),
    ("ece", "ECE"),
    ("opened", "images opened"),
)
TABLE_SHOTS = 5
SHOWN_CURVES = ("paper", "default", "all")
Summary = Sequence[dict[str, Any]]


def as_markdown(summary: Summary, rows: Sequence[str]) -> str:
    """A table for each world at five shots, and one of AP over shots."""
    parts = []
    for world in sorted(dict.fromkeys(entry["world"] for entry in summary)):
        parts.append(f"### {world}, {TABLE_SHOTS} shots\n")
        parts.append("| | " + " | ".join(name for _, name in FIGURES) + " |")
        parts.append("| --- |" + " --- |" * len(FIGURES))
        for row in rows:
            entry = _find(summary, row, world, TABLE_SHOTS)
            if entry is not None:
                parts.append(f"| {row} | " + " | ".join(_cell(entry, name) for name, _ in FIGURES) + " |")
        parts.append("")
        shots = sorted({entry["shots"] for entry in summary})
        parts.append(f"| mask AP, {world} | " + " | ".join(f"{number} shots" for number in shots) + " |")
        parts.append("| --- |" + " --- |" * len(shots))
        for row in rows:
            cells = [_cell(_find(summary, row, world, number), "ap") for number in shots]
            if any(cells):
                parts.append(f"| {row} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


BEFORE = "default, one look"
"""What the default was before candidates were looked at twice, with probabilities for scores."""
ASKED = {"clear": 0.92, "cluttered": 0.85, "small": 0.8}
"""Presence F1 of each world."""


def judge_targets(summary: Summary) -> str:
    """What was asked of the default, and whether it is reached; of small objects, in tiles on both sides."""
    worlds = [world for world in ASKED if _ours(summary, world) is not None]
    figures = [figure for world in worlds for figure in _of_world(summary, world)]
    figures += [*_accuracy(summary, worlds), *_silence(summary), *_growth(summary)]
    return "### Targets\n\n" + as_table(figures)


def _of_world(summary: Summary, world: str) -> Iterator[Figure]:
    ours, before = _ours(summary, world), _ours(summary, world, BEFORE)
    assert ours is not None
    yield at_least(f"presence F1, {world}", ours["presence_f1"], ASKED[world], "")
    yield at_most(f"expected calibration error, {world}", ours["ece"], 0.05, "")
    if before is not None:
        yield at_most(f"decisions an object, {world}", ours["cost"], round(before["cost"], 3), "")


def _accuracy(summary: Summary, worlds: Sequence[str]) -> Iterator[Figure]:
    """Mask AP beside the published matching of masks as the segmenter gives them."""
    for shots, mean, least in ((TABLE_SHOTS, 0.13, 0.08), (1, 0.04, None)):
        pairs = {world: (_ours(summary, world, shots=shots), _ours(summary, world, "paper", shots)) for world in worlds}
        gains = {world: ours["ap"] - paper["ap"] for world, (ours, paper) in pairs.items() if ours and paper}
        told = "1 shot" if shots == 1 else f"{shots} shots"
        for world, gain in gains.items() if least is not None else ():
            yield at_least(f"mask AP, default less paper, {world}, {told}", gain, least, "")
        if gains:
            yield at_least(f"mask AP, default less paper, mean of worlds, {told}", statistics.mean(gains.values()), mean, "")


def _silence(summary: Summary) -> Iterator[Figure]:
    for row, most in (("default", 0.15), ("default, 12 empty images", 0.05)):
        entry, before = _find(summary, row, "clear", TABLE_SHOTS), _find(summary, BEFORE, "clear", TABLE_SHOTS)
        if entry is not None:
            yield at_most(f"false positives an empty image, clear, {row}", entry["false_positives"], most, "")
        if entry is not None and before is not None:
            yield at_least(f"recall of that, clear, {row}", entry["recall"], round(before["recall"], 3), "")
    rare = _find(summary, "default", "mostly empty", TABLE_SHOTS)
    if rare is not None:
        yield at_most("images opened for 95 % of the objects, by those that hold any, mostly empty", rare["opened"], 1.5, "×")


def _ours(summary: Summary, world: str, row: str = "default", shots: int = TABLE_SHOTS) -> dict[str, Any] | None:
    """A row's figures; of small objects those in tiles, where there are some."""
    tiled = _find(summary, f"{row}, tiles", world, shots) if world == "small" else None
    return tiled or _find(summary, row, world, shots)


def _growth(summary: Summary) -> Sequence[Figure]:
    """By how many standard deviations AP falls, at most, from a number of shots to a larger one."""
    figures = []
    for world in dict.fromkeys(entry["world"] for entry in summary):
        curve = sorted((e["shots"], e["ap"], e["ap_std"]) for e in summary if (e["row"], e["world"]) == ("default", world))
        falls = [
            (before - after) / max(deviation, 1e-9)
            for position, (_, before, deviation) in enumerate(curve)
            for _, after, _ in curve[position + 1 :]
        ]
        if falls:
            figures.append(at_most(f"largest fall of AP with more shots, default, {world}", max(*falls, 0.0), 1.0, "std"))
    return figures


def draw_reliability(measured: Summary, path: Path) -> None:
    """What scores of the default say, against what is so: a line a world, bins of as many instances each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="a score says what is so")
    for world in sorted(dict.fromkeys(entry["world"] for entry in measured)):
        rows = {entry["row"] for entry in measured if entry["world"] == world}
        row = next((name for name in ("default, tiles", "default") if name in rows), None)
        own = [e for e in measured if (e["world"], e["row"], e["shots"]) == (world, row, TABLE_SHOTS)]
        pairs = np.array([pair for entry in own for pair in entry["told"]], float).reshape(-1, 2)
        if len(pairs):
            said, right = np.array([part.mean(0) for part in calibration_bins(pairs)]).T
            name = f"{world}, in tiles" if row != "default" else world
            axes.plot(said, right, marker="o", markersize=4, label=f"{name} ({calibration_error(pairs):.3f})")
    axes.set(xlabel="score", ylabel="share of instances that are right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_curves(summary: Summary, rows: Sequence[str], path: Path) -> None:
    """Mask AP and presence F1 over shots, a column a world, with one standard deviation as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    worlds = sorted(dict.fromkeys(entry["world"] for entry in summary))
    figure, axes = plt.subplots(2, len(worlds), figsize=(4 * len(worlds), 6), squeeze=False, sharex=True)
    for column, world in enumerate(worlds):
        for line, (name, label) in enumerate((("ap", "mask AP"), ("presence_f1", "presence F1, half of the images empty"))):
            axis = axes[line][column]
            for row in [row for row in (*SHOWN_CURVES, "default, tiles") if row in rows]:
                entries = sorted(
                    (e for e in summary if (e["row"], e["world"]) == (row, world) and name in e), key=lambda e: e["shots"]
                )
                if entries:
                    shots, values = [e["shots"] for e in entries], [e[name] for e in entries]
                    axis.plot(shots, values, marker="o", label=row)
                    low, high = ([e[name] + sign * e[f"{name}_std"] for e in entries] for sign in (-1, 1))
                    axis.fill_between(shots, low, high, alpha=0.15)
            axis.set_xscale("log")
            axis.set_xticks(sorted({e["shots"] for e in summary}), labels=sorted({e["shots"] for e in summary}))
            axis.minorticks_off()
            axis.set_ylim(0, 1 if line else None)
            axis.set_title(f"{world}: {label}", fontsize=10)
            axis.grid(alpha=0.3)
        axes[1][column].set_xlabel("references a class")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _find(summary: Summary, row: str, world: str, shots: int) -> dict[str, Any] | None:
    return next((e for e in summary if (e["row"], e["world"], e["shots"]) == (row, world, shots)), None)


def _cell(entry: dict[str, Any] | None, name: str) -> str:
    return "" if entry is None or name not in entry else f"{entry[name]:.3f} ± {entry[f'{name}_std']:.3f}"
