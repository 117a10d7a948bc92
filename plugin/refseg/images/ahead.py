"""A generator that a thread keeps one item ahead of whoever reads it: so that steps of long work run side by side."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def run_ahead(work: Generator[Item, None, None], name: str) -> Generator[Item, None, None]:
    """Hand on what a generator yields, in order, while a thread has it make the next item.

    An error comes after the items before it. Closing waits for the item that is being made, drops it, and closes work.

    Args:
        work: yields no None; advanced in the thread alone, from the first item asked for on.
        name: of the thread.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        coming = thread.submit(next, work, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, work, None)
            yield item
    finally:
        # Interrupted while it waits, as by a second Ctrl-C, it must leave work alone: the thread is still in it.
        thread.shutdown()
        work.close()
