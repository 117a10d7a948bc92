"""Work that a processor's threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from refseg.models.threads import in_threads, shares_of_work

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
class TestShares:
    @pytest.mark.parametrize(
        ("number", "most", "sizes"),
        [(0, 9, []), (1, 9, [1]), (7, 9, [3, 3, 1]), (3, 1, [1, 1, 1]), (12, 3, [2] * 6), (12, 4, [4, 4, 4])],
    )
    def test_of_a_processor(self, number: int, most: int, sizes: list[int]) -> None:
        shares = shares_of_work(range(number), CPU, most)
        assert [len(share) for share in shares] == sizes
        assert [item for share in shares for item in share] == list(range(number))

    def test_of_a_tensor(self) -> None:
        points = torch.arange(10).view(5, 2)
        assert torch.equal(torch.cat(shares_of_work(points, CPU, 9)), points)

    def test_an_accelerator_does_all_at_once(self) -> None:
        assert [len(share) for share in shares_of_work(range(1000), GPU, 10)] == [1000]


@pytest.mark.usefixtures("three_threads")
class TestInThreads:
    def test_side_by_side_in_order(self) -> None:
        """Each waits for the two others, so they are at work at once."""
        meeting = threading.Barrier(3, timeout=30)

        def run(number: int) -> tuple[int, int]:
            meeting.wait()
            return number * number, torch.get_num_threads()

        assert in_threads([2, 3, 4], CPU, run) == [(4, 1), (9, 1), (16, 1)]
        assert torch.get_num_threads() == 3

    def test_few_have_more_threads_each(self) -> None:
        torch.set_num_threads(4)
        assert in_threads([0, 1], CPU, lambda _: torch.get_num_threads()) == [2, 2]
        assert in_threads([0], CPU, lambda _: torch.get_num_threads()) == [4]

    def test_within_one_another(self) -> None:
        """An image to a thread, and of each image the prompts to its threads."""
        torch.set_num_threads(4)

        def outer(number: int) -> list[tuple[int, int]]:
            return in_threads([number, number + 10], CPU, lambda one: (one, torch.get_num_threads()))

        assert in_threads([1, 2], CPU, outer) == [[(1, 1), (11, 1)], [(2, 1), (12, 1)]]

    def test_threads_that_begin_later_have_all(self) -> None:
        in_threads([1, 2, 3], CPU, lambda number: number)
        found = []
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert found == [3]

    @pytest.mark.parametrize("mode", [False, True])
    def test_the_callers_mode(self, mode: bool) -> None:
        with torch.inference_mode(mode):
            assert in_threads([1, 2], CPU, lambda _: torch.is_inference_mode_enabled()) == [mode, mode]

    def test_an_error_comes_when_none_is_at_work(self) -> None:
        done = []

        def run(number: int) -> None:
            if number == 1:
                raise ValueError("one")
            done.append(number)

        with pytest.raises(ValueError, match="one"):
            in_threads([0, 1, 2, 3], CPU, run)
        assert sorted(done) == [0, 2, 3]

    def test_an_accelerators_work_stays_in_this_thread(self) -> None:
        assert in_threads([1, 2], GPU, lambda _: threading.get_ident()) == [threading.get_ident()] * 2
