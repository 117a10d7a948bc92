from __future__ import annotations

import io
from collections.abc import Generator

import pytest

from refseg.progress import ConsoleBar, Progress, describe, drain, labelled


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


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"), [(None, False, False), (None, True, True), (True, False, True), (False, True, False)]
)
def test_bar_is_shown_where_asked_for(
    progress: bool | None, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    drain(count_to(3), progress)
    assert bool(stream.getvalue()) is shown
    if shown:
        assert "3/3" in stream.getvalue()
        assert stream.getvalue().endswith("\n")


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
