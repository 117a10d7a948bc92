"""A generator that is read in a thread: the same items, one ahead, and nothing left behind when it is closed."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from refseg.images.ahead import run_ahead

PATIENCE = 10.0
"""Seconds after which a wait for another thread gives up, so that a mistake fails instead of hanging."""


class Source:
    """Numbers from 0; notes the thread that makes each, and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.made = [threading.Event() for _ in range(count)]
        self.threads: set[str] = set()
        self.closed = False

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise ZeroDivisionError("a mistake in the code")
                self.threads.add(threading.current_thread().name)
                self.made[number].set()
                yield number
        finally:
            self.closed = True

    @property
    def num_made(self) -> int:
        return sum(event.is_set() for event in self.made)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead-test")]


def test_the_same_items_in_order_from_another_thread() -> None:
    source = Source(5)
    assert list(run_ahead(source.items(), "ahead-test")) == [0, 1, 2, 3, 4]
    assert source.closed
    assert threads_left() == []
    assert all(name.startswith("ahead-test") for name in source.threads)
    assert list(run_ahead(Source(0).items(), "ahead-test")) == []


def test_one_ahead_and_no_more() -> None:
    source = Source(5)
    items = run_ahead(source.items(), "ahead-test")
    assert source.num_made == 0
    for number in range(4):
        assert next(items) == number
        assert source.made[number + 1].wait(PATIENCE)  # made while nobody asks for it
        assert source.num_made == number + 2
    assert list(items) == [4]


def test_an_error_comes_after_the_items_before_it() -> None:
    source = Source(5, fails_at=2)
    items = run_ahead(source.items(), "ahead-test")
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="a mistake in the code"):
        next(items)
    assert source.closed
    assert threads_left() == []


def test_closing_ends_thread_and_source() -> None:
    source = Source(5)
    items = run_ahead(source.items(), "ahead-test")
    next(items)
    items.close()
    assert source.closed
    assert threads_left() == []
    assert source.num_made <= 2
    assert list(items) == []


def test_an_interrupted_wait_leaves_work_to_its_thread() -> None:
    """As by a second Ctrl-C while the first waits for the item that is being made."""
    let_go = threading.Event()

    def slow() -> Generator[int, None, None]:
        yield 0
        let_go.wait(PATIENCE)
        yield 1

    items = run_ahead(slow(), "ahead-test")
    assert next(items) == 0
    with pytest.MonkeyPatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("refseg.images.ahead.ThreadPoolExecutor.shutdown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            items.close()
    let_go.set()
