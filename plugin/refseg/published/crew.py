"""Who does the work that needs no GPU: this process, or several. No FiftyOne."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

ENOUGH_WORK = 2000
"""Images to match, over all runs, from which on processes are worth the seconds that they take to start."""


class Inline(Executor):
    """Does what is submitted at once, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function; what it raises is raised where the result is asked for."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Call the function for one result after the other, as they are asked for."""
        return map(fn, *iterables)


@contextmanager
def make_crew(num_processes: int | None, num_images: int) -> Iterator[Executor]:
    """An executor for so many images; what is still waiting when its context ends by an exception is not begun.

    Args:
        num_processes: at most; 0 and 1 work in this process. By default one for each core, where there is much to do.
        num_images: to be matched, over all runs.
    """
    if num_processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_processes = cores if cores > 2 and num_images >= ENOUGH_WORK else 1
    if num_processes <= 1:
        yield Inline()
        return
    # Not forked: the parent has threads of torch, of the index and of the database.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_prepare)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    import torch

    # Ctrl-C reaches the whole group of processes: the parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
