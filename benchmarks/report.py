"""What every benchmark shares: the machine, medians with their spread, and the figures that go into one JSON file."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number; a median where it was measured several times.
        unit: of the value.
        target: what it should be, in words; empty where nothing was asked.
        reached: whether it is.
        detail: how it was measured, with the numbers it comes from.
    """

    name: str
    value: float
    unit: str
    target: str = ""
    reached: bool | None = None
    detail: str = ""

    @property
    def shown(self) -> str:
        """The number as people read it."""
        digits = 0 if abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 3
        return f"{self.value:,.{digits}f} {self.unit}".strip()


def at_most(name: str, value: float, limit: float, unit: str, detail: str = "") -> Figure:
    """A figure that should not be above a limit."""
    return Figure(name, float(value), unit, f"≤ {limit:g} {unit}".strip(), bool(value <= limit), detail)


def at_least(name: str, value: float, limit: float, unit: str, detail: str = "") -> Figure:
    """A figure that should not be below a limit."""
    return Figure(name, float(value), unit, f"≥ {limit:g} {unit}".strip(), bool(value >= limit), detail)


def seconds_of(work: Callable[[], Answer]) -> tuple[float, Answer]:
    """Wall-clock seconds, and the answer."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    answer = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, answer


def spread(seconds: list[float], unit: float = 1.0) -> str:
    """Smallest, median and largest, in this unit of seconds."""
    low, middle, high = (value / unit for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{low:.3g} / {middle:.3g} / {high:.3g}"


def machine() -> dict[str, Any]:
    """Where the numbers were measured."""
    names = ("torch", "fiftyone", "pylance", "sam2", "transformers")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
    }


def as_json(figures: list[Figure]) -> list[dict[str, Any]]:
    """Figures as JSON."""
    return [asdict(figure) for figure in figures]


def as_table(figures: list[Figure]) -> str:
    """Figures as a Markdown table."""
    lines = ["| figure | measured | target | |", "| --- | --- | --- | --- |"]
    for figure in figures:
        mark = "" if figure.reached is None else "reached" if figure.reached else "**missed**"
        lines.append(f"| {figure.name} | {figure.shown} | {figure.target} | {mark} |")
    return "\n".join(lines)


def details(figures: list[Figure]) -> str:
    """How each figure was measured, a line each, of those that say so."""
    return "\n".join(f"{figure.name}: {figure.detail}" for figure in figures if figure.detail)


def _version(name: str) -> str | None:
    """None for a package that is not here: benchmarks.gpu runs without FiftyOne."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
