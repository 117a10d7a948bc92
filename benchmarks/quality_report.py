"""The tables, the picture and the verdicts of benchmarks/quality.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def judge_targets(summary: Summary) -> str:
    """What was asked of the default set, and whether it is reached."""
    figures = list(_silence(summary)) + list(_accuracy(summary)) + list(_growth(summary))
    return "### Targets\n\n" + as_table(figures)


def _silence(summary: Summary) -> Sequence[Figure]:
    figures = []
    for world in dict.fromkeys(entry["world"] for entry in summary):
        ours, paper = (_find(summary, row, world, TABLE_SHOTS) for row in ("default", "paper"))
        if ours is None or paper is None:
            continue
        beside = f"paper {paper['presence_f1']:.3f}"
        figures.append(at_least(f"presence F1, {world} ({beside})", ours["presence_f1"], 0.9, ""))
        ratio = ours["f1"] / ours["best_fixed_f1"]
        figures.append(at_least(f"F1 of calibrated thresholds against the best fixed one, {world}", ratio, 0.95, ""))
    clear = _find(summary, "default", "clear", TABLE_SHOTS)
    if clear is not None:
        figures.append(at_most("false positives an empty image, clear", clear["false_positives"], 0.05, ""))
    return figures


def _accuracy(summary: Summary) -> Sequence[Figure]:
    figures, gains = [], []
    for world in dict.fromkeys(entry["world"] for entry in summary):
        pairs = [
            (ours["ap"], paper["ap"])
            for ours in summary
            if ours["row"] == "default"
            and ours["world"] == world
            and (paper := _find(summary, "paper", world, ours["shots"])) is not None
        ]
        if pairs:
            gains.append(statistics.mean(ours - paper for ours, paper in pairs))
            figures.append(at_least(f"mask AP, default less paper, {world}, mean over shots", gains[-1], 0.0, ""))
    if gains:
        figures.append(at_least("mask AP, default less paper, mean over worlds", statistics.mean(gains), 0.03, ""))
    tiled, whole = (_find(summary, row, "small", TABLE_SHOTS) for row in ("+ tiles", "base"))
    if tiled is not None and whole is not None and whole.get("ap_small"):
        figures.append(at_least("AP of small objects, tiles against without", tiled["ap_small"] / whole["ap_small"], 1.5, "×"))
    return figures


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
