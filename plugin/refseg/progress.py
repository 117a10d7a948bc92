"""Long work as generators: each yields Progress and returns its report, so that a console, the App or a job can watch it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TextIO, TypeVar

from .checks import refused

Report = TypeVar("Report")

SECONDS_A_LINE = 30.0
"""Between two lines of progress where nobody sees a bar: a log file, a job of a CI machine, nohup."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: finished steps.
        total: all steps, at least 1.
        label: what a step is, in the plural: "images".
        found: objects that are written already, which whoever opens the dataset sees.
    """

    done: int
    total: int
    label: str
    found: int = 0

    @property
    def fraction(self) -> float:
        """Finished share in [0, 1]."""
        return self.done / max(1, self.total)


Watcher = Callable[[Progress], None]


def drain(work: Generator[Progress, None, Report], progress: bool | Watcher | None = None, what: str = "") -> Report:
    """Run a generator to its end and return its report.

    Progress is told on stderr: by a bar in a terminal or a notebook; elsewhere, as in a log file, by a line every 30 seconds.

    Args:
        work: yields Progress, returns a report.
        progress: a function called with every Progress; True to tell it, False for silence; None to tell it too, but to say
            nothing elsewhere of work that ends before its first line is due.
        what: the work in a word, such as "indexing", at the beginning of those lines.
    """
    require_progress(progress)
    watch = progress if callable(progress) else None if progress is False else teller(sys.stderr, what, always=progress is True)
    try:
        while True:
            step = next(work)
            if watch is not None:
                watch(step)
    except StopIteration as end:
        report: Report = end.value
        return report
    finally:
        if isinstance(watch, ConsoleBar | LogLines):
            watch.close()


def teller(stream: TextIO, what: str = "", *, always: bool = True) -> ConsoleBar | LogLines:
    """What tells people on a stream how far work is: a bar where it can be redrawn, else lines.

    Args:
        stream: such as stderr.
        what: see drain.
        always: whether lines tell of work too that ends before the first is due.
    """
    # Notebooks redraw a line as terminals do, and do not say so.
    redraws = stream.isatty() or type(stream).__module__.startswith("ipykernel")
    return ConsoleBar(stream) if redraws else LogLines(stream, what, always=always)


def require_progress(progress: object) -> None:
    """Refuse what nobody can be told progress by.

    Raises:
        DatasetError: it is neither True, False, None nor a function.
    """
    if not (progress is None or isinstance(progress, bool) or (callable(progress) and not isinstance(progress, type))):
        raise refused("progress", "True, False, None or a function", progress)


def labelled(work: Generator[Progress, None, Report], label: str) -> Generator[Progress, None, Report]:
    """The same work, whose progress says what it is a part of."""
    return told_otherwise(work, lambda step: replace(step, label=f"{label}{step.label}"))


def told_otherwise(
    work: Generator[Progress, None, Report], change: Callable[[Progress], Progress]
) -> Generator[Progress, None, Report]:
    """The same work, whose progress is changed before it is told."""
    try:
        while True:
            yield change(next(work))
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


class LogLines:
    """Lines that stay as they are: one after 30 seconds, then every 30 seconds, and one at the end."""

    def __init__(
        self,
        stream: TextIO,
        what: str = "",
        *,
        always: bool = True,
        interval: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count time.

        Args:
            stream: where lines go.
            what: the work in a word; "" for none.
            always: write the last line even where it is the only one.
            interval: seconds between two lines; by default SECONDS_A_LINE.
            clock: seconds since whenever.
        """
        self._stream, self._what, self._always = stream, what, always
        self._interval = SECONDS_A_LINE if interval is None else interval
        self._clock = clock
        self._written = clock()
        self._first: tuple[Progress, float] | None = None
        self._last: Progress | None = None

    def __call__(self, step: Progress) -> None:
        """Tell of this step where a line is due."""
        now = self._clock()
        if self._first is None or self._first[0].label != step.label or step.done < self._first[0].done:
            self._first = step, now
        self._last = step
        if now - self._written >= self._interval:
            self._always = True
            self._write(step, now)

    def close(self) -> None:
        """Write the last line."""
        if self._last is not None and self._always:
            self._write(self._last, self._clock())
        self._last = None

    def _write(self, step: Progress, now: float) -> None:
        assert self._first is not None
        begun, since = self._first
        self._stream.write(describe_line(step, now - since, self._what, begun.done) + "\n")
        self._stream.flush()
        self._written = now


def describe_line(step: Progress, seconds: float, what: str = "", begun: int = 0) -> str:
    """One line that can be read alone: counts, share, speed and time left.

    Args:
        step: how far the work is.
        seconds: that the steps since begun took.
        what: the work in a word; "" for none.
        begun: steps that were done before, such as by an earlier run.

    Example:
        >>> describe_line(Progress(120, 2000, "images"), 40.0, "indexing")
        'indexing: 120 of 2,000 images (6 %), 3.0 images a second, about 10 min left'
        >>> describe_line(Progress(12, 12, "index: images"), 48.0)
        'index: 12 of 12 images (100 %), 4.0 s each, in 48 s'
    """
    part, _, label = step.label.rpartition(": ")
    heads = [head for head in (what, part) if head]
    line = f"{': '.join([*heads, ''])}{step.done:,} of {step.total:,} {label} ({100 * step.fraction:.0f} %)"
    noun = label.partition(",")[0]
    number = step.done - begun
    if number and seconds > 0:
        rate = number / seconds
        line += f", {rate:.1f} {noun} a second" if rate >= 1 else f", {duration(1 / rate, 1)} each"
        if step.done < step.total:
            line += f", about {duration((step.total - step.done) / rate)} left"
    return f"{line}, in {duration(seconds)}" if step.done >= step.total else line


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


def duration(seconds: float, digits: int = 0) -> str:
    """Seconds for people.

    Args:
        seconds: any number.
        digits: after the point, of less than ten seconds.

    Example:
        >>> duration(12), duration(600), duration(9000), duration(4.25, 1)
        ('12 s', '10 min', '2.5 h', '4.2 s')
    """
    whole = round(seconds)
    if seconds < 9.95 and digits:
        return f"{seconds:.{digits}f} s"
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    return f"{whole / 3600:.1f} h"
