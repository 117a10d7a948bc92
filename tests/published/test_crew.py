"""Work in this process, and in others."""

from __future__ import annotations

import math
import os
from concurrent.futures import ProcessPoolExecutor

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


def test_processes_where_there_is_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert isinstance(make_crew(None, crew.ENOUGH_WORK - 1), Inline)
    assert isinstance(make_crew(1, 10**6), Inline)
    assert isinstance(make_crew(0, 10**6), Inline)
    many = make_crew(None, crew.ENOUGH_WORK)
    assert isinstance(many, ProcessPoolExecutor)
    assert many._max_workers == 8
    many.shutdown()
    monkeypatch.setattr(crew.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert isinstance(make_crew(None, 10**6), Inline)
