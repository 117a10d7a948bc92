"""Work shared out to a processor's threads so that they never wait for each other within an operation.

PyTorch cuts each operation into a part for each thread, and all wait for the slowest: where anything else runs on the machine,
every operation of a fraction of a millisecond waits for a thread that the system has put aside, for several. Here each thread
takes a whole piece of work instead, and they meet once, at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from .batch_sizes import BatchKey, in_batches

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@overload
def shares_of_work(items: Tensor, device: torch.device, most: int) -> list[Tensor]: ...
@overload
def shares_of_work(items: Sequence[Item], device: torch.device, most: int) -> list[Sequence[Item]]: ...


def shares_of_work(items: Any, device: torch.device, most: int) -> list[Any]:
    """Items parted, in order, so that each thread gets as many as any other; one share where one device does all.

    Args:
        items: a tensor, cut along its first axis, or a sequence.
        device: where the work is done.
        most: items a share: there may be several shares a thread, so that none waits long for the last.

    Example:
        >>> [len(share) for share in shares_of_work(range(100), torch.device("cuda"), 10)]
        [100]
    """
    if device.type != "cpu":
        return [items]
    num_threads = torch.get_num_threads()
    size = -(-len(items) // num_threads)
    if size > most:
        size = -(-len(items) // (num_threads * -(-size // most)))
    return [items[start : start + size] for start in range(0, len(items), max(1, size))]


def in_threads(items: Sequence[Item], device: torch.device, run: Callable[[Item], Answer]) -> list[Answer]:
    """Call run with each item, on a processor with several at once, and return its answers in order.

    Args:
        items: pieces of work, better many more than there are threads.
        device: where the work is done; on any but a processor one is done after the other.
        run: what does it. It finds the caller's inference mode, and one thread for its operations, more where there are fewer
            items than threads.

    Raises:
        Exception: what run raised for the first item of those for which it did; by then no other is at work.

    Example:
        >>> in_threads([1, 2, 3], torch.device("cpu"), lambda number: number + 1)
        [2, 3, 4]
    """
    total = torch.get_num_threads()
    at_once = min(total, len(items))
    if device.type != "cpu" or at_once < 2:
        return [run(item) for item in items]
    mode = torch.is_inference_mode_enabled()

    def run_apart(item: Item) -> Answer:
        # Counts for the thread that calls it, and for threads that begin later.
        torch.set_num_threads(total // at_once)
        with torch.inference_mode(mode):
            return run(item)

    try:
        with ThreadPoolExecutor(at_once, "refseg-work") as pool:
            futures = [pool.submit(run_apart, item) for item in items]
            wait(futures)
        return [future.result() for future in futures]
    finally:
        torch.set_num_threads(total)


@overload
def batches_in_threads(items: Tensor, key: BatchKey, start: int, run: Callable[[Tensor], Answer]) -> list[Answer]: ...
@overload
def batches_in_threads(
    items: Sequence[Item], key: BatchKey, start: int, run: Callable[[Sequence[Item]], Answer]
) -> list[Answer]: ...


def batches_in_threads(items: Any, key: BatchKey, start: int, run: Callable[[Any], Answer]) -> list[Answer]:
    """As in_batches, whose arguments these are, on a processor with a share of the items for each thread.

    Example:
        >>> sum(batches_in_threads(range(5), BatchKey("numbers", "cpu", "demo", "float32", 256), 2, sum))
        10
    """
    device = torch.device(key.device)

    def run_share(share: Any) -> list[Answer]:
        return in_batches(share, key, start, run)

    shares = shares_of_work(items, device, start)
    return [answer for answers in in_threads(shares, device, run_share) for answer in answers]
