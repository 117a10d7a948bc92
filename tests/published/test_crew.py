"""Work in this process, and in others."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from refseg.published import crew
from refseg.published.crew import Inline, make_crew


def test_inline_answers_at_once_and_raises_where_it_is_asked() -> None:
    with Inline() as inline:
        assert inline.submit(os.getpid).result() == os.getpid()
        failed = inline.submit(math.sqrt, -1)
        assert failed.done()
        with pytest.raises(ValueError, match="math domain"):
            failed.result()
        assert list(inline.map(pow, [2, 3], [3, 2])) == [8, 9]
        begun: list[int] = []
        results = inline.map(begun.append, range(5))
        next(results)
        # One at a time, so that somebody can watch.
        assert begun == [0]


@pytest.mark.parametrize(
    ("cores", "asked", "images", "processes"),
    [
        (8, None, crew.ENOUGH_WORK - 1, 1),
        (8, 1, 10**6, 1),
        (8, 0, 10**6, 1),
        (2, None, 10**6, 1),
        (8, None, crew.ENOUGH_WORK, 8),
        (2, 3, 1, 3),
    ],
)
def test_processes_where_there_is_much_to_do(
    monkeypatch: pytest.MonkeyPatch, cores: int, asked: int | None, images: int, processes: int
) -> None:
    monkeypatch.setattr(crew.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    with make_crew(asked, images) as workers:
        assert isinstance(workers, Inline if processes == 1 else ProcessPoolExecutor)
        assert getattr(workers, "_max_workers", 1) == processes


@pytest.mark.thorough
def test_what_waits_is_not_begun_after_an_exception() -> None:
    waiting: list[Future[None]] = []

    def stop_early() -> None:
        with make_crew(2, 1) as workers:
            waiting.extend(workers.submit(time.sleep, 0.2) for _ in range(40))
            waiting[0].result()
            raise KeyError

    with pytest.raises(KeyError):
        stop_early()
    assert sum(future.cancelled() for future in waiting) > 20
