"""How many images or prompts go through a model at once: a batch that does not fit into memory is halved and tried again.

What fitted is remembered for the process, not beside an index: how much memory is free differs from one process to the next.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from ..errors import ModelMemoryError
from .loaded import Models

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

OUT_OF_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""What RuntimeErrors of torch say, those of its CPU allocator, MPS, cuBLAS and cuDNN too."""


@dataclass(frozen=True)
class BatchKey:
    """What a batch size holds for.

    Attributes:
        what: of which the batches are, in the plural: "images".
        device: such as "cuda:0".
        model: the preset's name.
        dtype: in which the models run.
        segmenter_side: S.
    """

    what: str
    device: str
    model: str
    dtype: str
    segmenter_side: int

    @classmethod
    def of(cls, what: str, models: Models) -> BatchKey:
        """The key of these models on their device."""
        return cls(what, str(models.device), models.preset.name, str(models.dtype), models.segmenter_side)


_sizes: dict[BatchKey, int] = {}
_lock = threading.Lock()


def size_of(key: BatchKey, start: int) -> int:
    """The size of a batch: start, or less where that did not fit before."""
    with _lock:
        return max(1, min(start, _sizes.get(key, start)))


def forget_sizes() -> None:
    """Begin with the sizes asked for again."""
    with _lock:
        _sizes.clear()


@overload
def in_batches(items: Tensor, key: BatchKey, start: int, run: Callable[[Tensor], Answer]) -> list[Answer]: ...
@overload
def in_batches(items: Sequence[Item], key: BatchKey, start: int, run: Callable[[Sequence[Item]], Answer]) -> list[Answer]: ...


def in_batches(items: Any, key: BatchKey, start: int, run: Callable[[Any], Answer]) -> list[Answer]:
    """Call run with successive batches of some items, in order, each as large as fits into memory.

    A size is remembered once a batch of it has fitted. Where one of these runs inside another, the outer one halves its batch
    when the inner one cannot go on.

    Args:
        items: a tensor, cut along its first axis, or a sequence.
        key: what the size holds for.
        start: items a batch to begin with.
        run: is called again with a part of its items when it ran out of memory, so it must not have changed anything by then.

    Returns:
        What run answered for each batch; nothing for no items.

    Raises:
        ModelMemoryError: one item alone does not fit.

    Example:
        >>> in_batches(range(5), BatchKey("numbers", "cpu", "demo", "float32", 256), 2, sum)
        [1, 5, 4]
    """
    answers: list[Answer] = []
    done, size, lasting = 0, size_of(key, start), True
    while done < len(items):
        batch = items[done : done + size]
        taken = len(batch)
        try:
            answers.append(run(batch))
        except (RuntimeError, MemoryError, ModelMemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if taken == 1:
                raise ModelMemoryError(key.what, key.model, key.device) from error
            # The last batch may be short: what failed with few says nothing of the full ones.
            lasting, size = lasting and taken == size, taken // 2
        else:
            done += taken
            if lasting and size < size_of(key, start):
                _remember(key, size)
            continue
        # Only here, where the error is gone: its traceback holds the tensors of the batch that did not fit.
        _free_memory()
    return answers


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, whatever the device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, ModelMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY_WORDS)


def _remember(key: BatchKey, size: int) -> None:
    with _lock:
        _sizes[key] = size
    logger.warning("Memory of %s ran short: from now on %d %s of %r at once", key.device, size, key.what, key.model)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
