"""Batches that do not fit are halved, and what fitted is remembered."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from refseg.errors import ModelError, ModelMemoryError
from refseg.models.batch_sizes import BatchKey, forget_sizes, in_batches, is_out_of_memory, size_of
from refseg.models.loaded import load_models

KEY = BatchKey("images", "cuda:1", "large", "torch.bfloat16", 1024)
PROMPTS = BatchKey("prompts", "cuda:1", "large", "torch.bfloat16", 1024)

TOO_LITTLE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    forget_sizes()
    yield
    forget_sizes()


class Device:
    """Takes batches up to a limit, and notes the size of each that it is asked to."""

    def __init__(self, limit: int, error: Exception = TOO_LITTLE[0]) -> None:
        self.limit = limit
        self.error = error
        self.asked: list[int] = []

    def run(self, batch: Sequence[Any]) -> list[Any]:
        self.asked.append(len(batch))
        if len(batch) > self.limit:
            raise self.error
        return list(batch)


def test_everything_fits() -> None:
    device = Device(8)
    assert in_batches("abcdefg", KEY, 3, device.run) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert size_of(KEY, 3) == 3
    assert in_batches([], KEY, 3, device.run) == []
    assert device.asked == [3, 3, 1]


@pytest.mark.parametrize("error", TOO_LITTLE, ids=lambda error: type(error).__name__)
def test_halved_until_it_fits_and_remembered(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    device = Device(2, error)
    with caplog.at_level(logging.WARNING, "refseg"):
        answers = in_batches(list(range(11)), KEY, 8, device.run)
        assert answers == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
        assert device.asked == [8, 4, 2, 2, 2, 2, 2, 1]
        device.asked.clear()
        in_batches(list(range(5)), KEY, 8, device.run)
    assert device.asked == [2, 2, 1]
    assert caplog.messages == ["Memory of cuda:1 ran short: from now on 2 images of 'large' at once"]


def test_remembered_for_this_key_and_never_more_than_asked_for() -> None:
    in_batches(list(range(8)), KEY, 8, Device(4).run)
    assert [size_of(KEY, start) for start in (1, 3, 8, 100)] == [1, 3, 4, 4]
    assert size_of(PROMPTS, 8) == 8
    forget_sizes()
    assert size_of(KEY, 8) == 8


def test_tensors_are_cut_along_their_first_axis() -> None:
    points = torch.arange(10.0).view(5, 2)

    def run(batch: Tensor) -> Tensor:
        if len(batch) > 3:
            raise TOO_LITTLE[0]
        return batch * 2

    parts = in_batches(points, KEY, 4, run)
    assert [len(part) for part in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts), points * 2, rtol=0, atol=0)


def test_one_alone_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        ModelMemoryError, match=r"cuda:1 does not suffice for the model 'large', not even with one .* images"
    ) as caught:
        in_batches(list(range(4)), KEY, 4, Device(0).run)
    assert isinstance(caught.value, ModelError)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert "smaller preset" in str(caught.value)
    # Nothing fitted, so nothing is known.
    assert size_of(KEY, 4) == 4
    assert caplog.messages == []


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no"), KeyError("out of memory")]
)
def test_other_errors_pass(error: Exception) -> None:
    device = Device(2, error)
    with pytest.raises(type(error)) as caught:
        in_batches(list(range(4)), KEY, 4, device.run)
    assert caught.value is error
    assert device.asked == [4]
    assert not is_out_of_memory(error)


def test_the_outer_batch_is_halved_where_the_inner_cannot_go_on() -> None:
    """Four images leave no room for a single prompt, two leave room for three."""
    asked: list[tuple[int, int]] = []

    def look(images: Sequence[int]) -> int:
        def ask(prompts: Sequence[int]) -> int:
            asked.append((len(images), len(prompts)))
            if len(images) > 2 or len(prompts) > 3:
                raise MemoryError
            return len(prompts)

        return sum(in_batches(range(4), PROMPTS, 4, ask))

    assert in_batches(range(4), KEY, 4, look) == [4, 4]
    assert asked == [(4, 4), (4, 2), (4, 1), (2, 4), (2, 2), (2, 2), (2, 2), (2, 2)]
    assert (size_of(KEY, 4), size_of(PROMPTS, 4)) == (2, 2)


def test_the_failed_batch_is_freed_before_the_next_is_tried() -> None:
    held: list[weakref.ref[Tensor]] = []

    def run(batch: Sequence[int]) -> int:
        assert all(one() is None for one in held)
        large = torch.zeros(len(batch), 1000)
        held.append(weakref.ref(large))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(batch)

    assert in_batches(range(4), KEY, 4, run) == [1, 1, 1, 1]
    assert len(held) == 6


def test_a_real_allocation_that_no_machine_has() -> None:
    def run(batch: Sequence[int]) -> int:
        if len(batch) > 1:
            torch.empty(1 << 55, dtype=torch.uint8)
        return len(batch)

    assert in_batches(range(3), KEY, 2, run) == [1, 1, 1]


def test_key_of_models() -> None:
    models = load_models("demo")
    assert BatchKey.of("images", models) == BatchKey(
        "images", str(models.device), "demo", str(models.dtype), models.segmenter_side
    )


def test_a_short_last_batch_that_fails_says_nothing_of_the_full_ones() -> None:
    failures = iter([True])

    def run(batch: range) -> int:
        if len(batch) == 2 and next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(batch)

    assert in_batches(range(10), KEY, 8, run) == [8, 1, 1]
    assert size_of(KEY, 8) == 8
