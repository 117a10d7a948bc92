"""Long work as generators: each yields Progress and returns its report, so that a console, the App or a job can watch it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TextIO, TypeVar

from .checks import refused

Report = TypeVar("Report")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: finished steps.
        total: all steps, at least 1.
        label: what a step is, in the plural: "images".
    """

    done: int
    total: int
    label: str

    @property
    def fraction(self) -> float:
        """Finished share in [0, 1]."""
        return self.done / max(1, self.total)


Watcher = Callable[[Progress], None]


def drain(work: Generator[Progress, None, Report], progress: bool | Watcher | None = None) -> Report:
    """Run a generator to its end and return its report.

    Args:
        work: yields Progress, returns a report.
        progress: a function called with every Progress; True for a bar on the console, False for silence, None for a bar
            where the console is a terminal.
    """
    require_progress(progress)
    watch = progress if callable(progress) else None
    if watch is None and (progress or (progress is None and sys.stderr.isatty())):
        watch = ConsoleBar(sys.stderr)
    try:
        while True:
            step = next(work)
            if watch is not None:
                watch(step)
    except StopIteration as end:
        report: Report = end.value
        return report
    finally:
        if isinstance(watch, ConsoleBar):
            watch.close()


def require_progress(progress: object) -> None:
    """Refuse what nobody can be told progress by.

    Raises:
        DatasetError: it is neither True, False, None nor a function.
    """
    if not (progress is None or isinstance(progress, bool) or (callable(progress) and not isinstance(progress, type))):
        raise refused("progress", "True, False, None or a function", progress)


def labelled(work: Generator[Progress, None, Report], label: str) -> Generator[Progress, None, Report]:
    """The same work, whose progress says what it is a part of."""
    try:
        while True:
            step = next(work)
            yield replace(step, label=f"{label}{step.label}")
    except StopIteration as end:
        report: Report = end.value
        return report
    finally:
        work.close()


class ConsoleBar:
    """A bar with steps per second and the time left, redrawn at most five times a second."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._drawn = 0.0
        self._last: Progress | None = None

    def __call__(self, step: Progress) -> None:
        """Show this step."""
        now = time.monotonic()
        if self._last is not None and self._last.label != step.label:
            self.close()
            self._started = now
        self._last = step
        if now - self._drawn >= 0.2 or step.done >= step.total:
            self._drawn = now
            self._stream.write("\r" + describe(step, now - self._started).ljust(79)[:110])
            self._stream.flush()

    def close(self) -> None:
        """End the line of the bar."""
        if self._last is not None:
            self._stream.write("\n")
            self._last = None


def describe(step: Progress, seconds: float) -> str:
    """One line: bar, counts, speed and time left after this many seconds.

    Example:
        >>> describe(Progress(5, 10, "images"), 2.0)
        'images ████████████            5/10 · 2.5/s · 2 s left'
    """
    rate = step.done / seconds if seconds > 0 and step.done else 0.0
    filled = round(24 * step.fraction)
    line = f"{step.label} {'█' * filled}{' ' * (24 - filled)}{step.done}/{step.total}"
    if rate:
        line += f" · {rate:.1f}/s · {duration((step.total - step.done) / rate)} left"
    return line


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(12), duration(600), duration(9000)
        ('12 s', '10 min', '2.5 h')
    """
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    return f"{whole / 3600:.1f} h"
