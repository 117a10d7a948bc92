from __future__ import annotations

import io
from collections.abc import Generator

import pytest

from refseg import progress as telling
from refseg.progress import ConsoleBar, LogLines, Progress, describe, describe_line, drain, labelled, teller


def count_to(total: int, label: str = "images") -> Generator[Progress, None, str]:
    for done in range(total + 1):
        yield Progress(done, total, label)
    return f"{total} {label}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("done", "total", "fraction"), [(0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0), (0, 0, 0.0)])
def test_fraction(done: int, total: int, fraction: float) -> None:
    assert Progress(done, total, "images").fraction == fraction


@pytest.mark.parametrize("progress", [None, True, False, lambda step: None])
def test_drain_returns_the_report(progress: object) -> None:
    assert drain(count_to(3), progress) == "3 images"


def test_drain_shows_a_watcher_every_step() -> None:
    seen: list[Progress] = []
    drain(count_to(3), seen.append)
    assert seen == [Progress(done, 3, "images") for done in range(4)]


def test_drain_of_nothing() -> None:
    def nothing() -> Generator[Progress, None, int]:
        return 7
        yield

    seen: list[Progress] = []
    assert drain(nothing(), seen.append) == 7
    assert seen == []


def test_drain_passes_errors_on() -> None:
    def broken() -> Generator[Progress, None, None]:
        yield Progress(0, 2, "images")
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        drain(broken(), False)


def test_drain_passes_a_watchers_error_on_and_ends_the_work() -> None:
    """So that a cancelled job stops: the watcher raises, nothing more is done."""
    done: list[int] = []

    def work() -> Generator[Progress, None, None]:
        for number in range(5):
            yield Progress(number, 5, "images")
            done.append(number)

    def cancel(step: Progress) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(work(), cancel)
    assert done == [0, 1]


@pytest.mark.parametrize(("progress", "shown"), [(None, True), (True, True), (False, False)])
def test_terminal_gets_a_bar(progress: bool | None, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    drain(count_to(3), progress, "counting")
    assert ("█" in stream.getvalue()) is shown
    if shown:
        assert stream.getvalue().splitlines()[-1].startswith("images █")
        assert "3/3" in stream.getvalue()
        assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("progress", "seconds_a_line", "lines"),
    [(None, 30.0, 0), (True, 30.0, 1), (False, 30.0, 0), (None, 0.0, 5), (True, 0.0, 5), (False, 0.0, 0)],
)
def test_elsewhere_lines_are_written(
    progress: bool | None, seconds_a_line: float, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of work that is over before a line is due only somebody who asked hears, such as who calls a command."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(telling, "SECONDS_A_LINE", seconds_a_line)
    drain(count_to(3), progress, "counting")
    written = stream.getvalue().splitlines()
    assert len(written) == lines
    assert "\r" not in stream.getvalue()
    assert "█" not in stream.getvalue()
    assert all(line.startswith(("counting: ", "[")) for line in written)
    assert not written or written[-1].startswith("counting: 3 of 3 images (100 %)")


def test_notebook_gets_a_bar() -> None:
    class OutStream(io.StringIO):
        """As ipykernel's, which is no terminal by its own account."""

    OutStream.__module__ = "ipykernel.iostream"
    assert isinstance(teller(OutStream()), ConsoleBar)
    assert isinstance(teller(io.StringIO()), LogLines)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(steps: list[tuple[float, Progress]], *, always: bool = True, interval: float | None = None) -> list[str]:
    """What is written of steps, each so many seconds after the one before."""
    clock, stream = Clock(), io.StringIO()
    lines = LogLines(stream, "indexing", always=always, interval=interval, clock=clock)
    for seconds, step in steps:
        clock.now += seconds
        lines(step)
    lines.close()
    lines.close()
    return stream.getvalue().splitlines()


def test_a_line_every_thirty_seconds_and_one_at_the_end() -> None:
    assert told([(1, Progress(done, 100, "images")) for done in range(101)]) == [
        "indexing: 29 of 100 images (29 %), 1.0 images a second, about 71 s left",
        "indexing: 59 of 100 images (59 %), 1.0 images a second, about 41 s left",
        "indexing: 89 of 100 images (89 %), 1.0 images a second, about 11 s left",
        "indexing: 100 of 100 images (100 %), 1.0 images a second, in 2 min",
    ]


def test_what_was_done_before_does_not_make_work_look_quick() -> None:
    assert told([(0, Progress(1900, 2000, "images")), (31, Progress(1910, 2000, "images"))])[0] == (
        "indexing: 1,910 of 2,000 images (96 %), 3.1 s each, about 5 min left"
    )


def test_each_kind_of_step_has_its_own_speed_and_shares_the_lines() -> None:
    kinds = [(10, Progress(0, 20, "references")), (15, Progress(20, 20, "references")), (1, Progress(0, 10, "images"))]
    assert told([*kinds, (20, Progress(5, 10, "images")), (1, Progress(6, 10, "images"))]) == [
        "indexing: 5 of 10 images (50 %), 4.0 s each, about 20 s left",
        "indexing: 6 of 10 images (60 %), 3.5 s each, about 14 s left",
    ]


def test_short_work_is_told_of_where_asked_for() -> None:
    steps = [(1, Progress(0, 3, "images")), (1, Progress(3, 3, "images"))]
    assert told(steps) == ["indexing: 3 of 3 images (100 %), 3.0 images a second, in 1 s"]
    assert told(steps, always=False) == []
    assert len(told([*steps, (30, Progress(3, 3, "images"))], always=False)) == 2
    assert len(told(steps, always=False, interval=0.5)) == 3
    assert told([]) == []


def test_work_that_fails_says_how_far_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Generator[Progress, None, None]:
        yield Progress(1, 2, "images")
        raise KeyError("why")

    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(KeyError, match="why"):
        drain(broken(), True, "indexing")
    assert stream.getvalue() == "indexing: 1 of 2 images (50 %)\n"


@pytest.mark.parametrize(
    ("step", "seconds", "begun", "line"),
    [
        (Progress(0, 10, "images"), 5.0, 0, "0 of 10 images (0 %)"),
        (Progress(0, 0, "images"), 0.0, 0, "0 of 0 images (0 %), in 0 s"),
        (
            Progress(5, 10, "run 3, DIOR: images"),
            2.0,
            0,
            "run 3, DIOR: 5 of 10 images (50 %), 2.5 images a second, about 2 s left",
        ),
        (
            *(Progress(10, 1210, "images, 4 of them at work in another builder"), 5.0, 0),
            "10 of 1,210 images, 4 of them at work in another builder (1 %), 2.0 images a second, about 10 min left",
        ),
        (Progress(2, 3, "images"), 7200.0, 0, "2 of 3 images (67 %), 60 min each, about 60 min left"),
    ],
)
def test_describe_line(step: Progress, seconds: float, begun: int, line: str) -> None:
    assert describe_line(step, seconds, begun=begun) == line


def test_bar_gives_each_kind_of_step_its_line() -> None:
    stream = io.StringIO()
    bar = ConsoleBar(stream)
    bar(Progress(1, 1, "references"))
    bar(Progress(2, 2, "images"))
    bar.close()
    bar.close()
    lines = stream.getvalue().split("\n")
    assert [line.strip().split()[0] for line in lines[:2]] == ["references", "images"]
    assert lines[2:] == [""]


def test_bar_is_redrawn_a_few_times_a_second_at_most() -> None:
    stream = io.StringIO()
    bar = ConsoleBar(stream)
    for done in range(1, 1000):
        bar(Progress(done, 10**6, "images"))
    assert 1 <= stream.getvalue().count("\r") < 50


@pytest.mark.parametrize(
    ("step", "seconds", "end"),
    [
        (Progress(0, 10, "images"), 5.0, "0/10"),
        (Progress(5, 10, "images"), 0.0, "5/10"),
        (Progress(5, 10, "images"), 2.0, "5/10 · 2.5/s · 2 s left"),
        (Progress(10, 10, "images"), 2.0, "10/10 · 5.0/s · 0 s left"),
        (Progress(10, 1210, "images"), 5.0, "10/1210 · 2.0/s · 10 min left"),
        (Progress(1, 7201, "images"), 1.0, "1/7201 · 1.0/s · 2.0 h left"),
    ],
)
def test_describe(step: Progress, seconds: float, end: str) -> None:
    line = describe(step, seconds)
    assert line.endswith(end)
    # Of a bar 24 wide, as much as is done.
    assert line.count("█") == round(24 * step.done / step.total)


def test_labelled_says_what_work_is_a_part_of_and_closes_it() -> None:
    closed = []

    def work() -> Generator[Progress, None, str]:
        try:
            yield Progress(0, 2, "images")
            yield Progress(2, 2, "images")
        finally:
            closed.append(True)
        return "done"

    steps: list[Progress] = []
    assert drain(labelled(work(), "run 1: "), steps.append) == "done"
    assert [step.label for step in steps] == ["run 1: images"] * 2
    started = labelled(work(), "run 2: ")
    next(started)
    started.close()
    assert closed == [True, True]
