"""Images read ahead of the model: in order, in batches, and a bad file is an item of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.images import loading
from refseg.images.loading import LoadedImage, Room, default_workers, load_batches, load_image, stack_pixels
from refseg.images.reading import read_image, segmenter_pixels

SIDE = 32
PATIENCE = 10.0
"""Seconds after which a thread that waits for another gives up, so that a broken loader fails instead of hanging."""

BeforeLoad = Callable[[int], None]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Seven files of different sizes and colours; the second is missing, the sixth is not an image."""
    made = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        if number == 5:
            path.write_bytes(b"no image")
        elif number != 1:
            Image.new("RGB", (20 + number, 30 + number), (10 * number, 0, 255 - number)).save(path)
        made.append(str(path))
    return made


def test_load_image(paths: list[str]) -> None:
    loaded = load_image(paths[2], SIDE, 2)
    assert (loaded.index, loaded.image_hw, loaded.error) == (2, (32, 22), None)
    assert loaded.pixels is not None
    torch.testing.assert_close(loaded.pixels, segmenter_pixels(read_image(paths[2]), SIDE), rtol=0, atol=0)
    assert loaded.pixels[:, 0, 0].tolist() == pytest.approx([20 / 255, 0, 253 / 255])


@pytest.mark.parametrize(("number", "reason"), [(1, "the file does not exist"), (5, "this is not an image that can be read")])
def test_bad_file_is_an_item_with_an_error(paths: list[str], number: int, reason: str) -> None:
    loaded = load_image(paths[number], SIDE, number)
    assert (loaded.index, loaded.pixels, loaded.image_hw) == (number, None, (0, 0))
    assert loaded.error == reason


def test_image_too_large_for_memory(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loading, "decode", read)
    assert load_image(paths[0], SIDE).error == "the image is too large for this machine's memory"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_in_order(paths: list[str], num_workers: int) -> None:
    batches = list(load_batches(paths, SIDE, batch_size=3, num_workers=num_workers))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    loaded = [image for batch in batches for image in batch]
    assert [image.index for image in loaded] == list(range(7))
    assert [image.error is None for image in loaded] == [True, False, True, True, True, False, True]
    for image in loaded:
        alone = load_image(paths[image.index], SIDE, image.index)
        assert (image.image_hw, image.error) == (alone.image_hw, alone.error)
        if alone.pixels is not None:
            torch.testing.assert_close(image.pixels, alone.pixels, rtol=0, atol=0)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[BeforeLoad], list[int]]:
    """Have a function called with an image's index before it is loaded; returns the indexes loaded, as they are finished."""

    def install(before: BeforeLoad) -> list[int]:
        finished: list[int] = []

        def load(path: str, side: int, index: int = 0) -> LoadedImage:
            before(index)
            loaded = load_image(path, side, index)
            finished.append(index)
            return loaded

        monkeypatch.setattr(loading, "load_image", load)
        return finished

    return install


def loading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("refseg-loading")]


def test_order_when_the_first_takes_longest(paths: list[str], watch: Callable[[BeforeLoad], list[int]]) -> None:
    others = threading.Event()

    def before(index: int) -> None:
        if index == 0:
            assert others.wait(PATIENCE)
        elif index == 3:
            others.set()

    finished = watch(before)
    loaded = [image for batch in load_batches(paths, SIDE, batch_size=2, num_workers=2, device="cuda") for image in batch]
    assert finished[:2] == [1, 2]
    assert [image.index for image in loaded] == list(range(7))


@pytest.mark.parametrize("workers", [1, 3])
def test_loads_ahead_but_not_without_bound(paths: list[str], watch: Callable[[BeforeLoad], list[int]], workers: int) -> None:
    many = paths * 5
    bound = 2 + 2 * 2 + workers  # the batch taken, two that wait, one a thread
    reached, passed = threading.Event(), threading.Event()
    lock, begun = threading.Lock(), 0

    def before(index: int) -> None:
        nonlocal begun
        with lock:
            begun += 1
            if begun == bound:
                reached.set()
            elif begun > bound:
                passed.set()

    finished = watch(before)
    batches = load_batches(many, SIDE, batch_size=2, num_workers=workers, device="cuda")
    assert begun == 0
    assert [image.index for image in next(batches)] == [0, 1]
    assert reached.wait(PATIENCE)
    assert not passed.wait(0.2)
    assert [image.index for image in next(batches)] == [2, 3]
    assert passed.wait(PATIENCE)
    assert sum(map(len, batches)) == len(many) - 4
    assert sorted(finished) == list(range(len(many)))


def test_on_a_processor_a_batch_is_loaded_together_and_nothing_ahead(
    paths: list[str], watch: Callable[[BeforeLoad], list[int]]
) -> None:
    together = threading.Barrier(2)
    finished = watch(lambda index: together.wait(PATIENCE) if index < 2 else 0)
    batches = load_batches(paths, SIDE, batch_size=2, num_workers=2, device="cpu")
    assert [image.index for image in next(batches)] == [0, 1]
    time.sleep(0.1)
    assert sorted(finished) == [0, 1]
    assert sum(map(len, batches)) == 5
    assert loading_threads() == []


def test_closing_drops_what_is_queued(paths: list[str], watch: Callable[[BeforeLoad], list[int]]) -> None:
    slow = threading.Event()  # never set: each image after the first batch takes its time
    begun = []

    def before(index: int) -> None:
        begun.append(index)
        if index >= 2:
            slow.wait(0.3)

    finished = watch(before)
    batches = load_batches(paths * 5, SIDE, batch_size=2, num_workers=1, device="cuda")
    next(batches)
    assert loading_threads()
    batches.close()
    assert loading_threads() == []
    assert finished == begun  # what was being read is complete
    assert len(finished) < 2 + 2 * 2 + 1  # of the five that were queued, some were never begun
    assert list(batches) == []


def test_unexpected_error_surfaces(paths: list[str], watch: Callable[[BeforeLoad], list[int]]) -> None:
    def before(index: int) -> None:
        if index == 4:
            raise ZeroDivisionError("a mistake in the code")

    watch(before)
    for workers in (0, 2):
        batches = load_batches(paths, SIDE, batch_size=3, num_workers=workers)
        assert len(next(batches)) == 3
        with pytest.raises(ZeroDivisionError, match="a mistake in the code"):
            next(batches)
        assert loading_threads() == []


def test_without_workers_the_caller_loads_and_nothing_ahead(paths: list[str], watch: Callable[[BeforeLoad], list[int]]) -> None:
    names = []
    finished = watch(lambda index: names.append(threading.current_thread().name))
    next(load_batches(paths, SIDE, batch_size=3, num_workers=0))
    assert finished == [0, 1, 2]
    assert set(names) == {threading.current_thread().name}
    names.clear()
    assert sum(map(len, load_batches(paths, SIDE, batch_size=3))) == 7
    assert all(name.startswith("refseg-loading") for name in names)


def test_no_files() -> None:
    assert list(load_batches([], SIDE, batch_size=2)) == []


@pytest.mark.parametrize(
    ("cores", "beside_model", "beside_gpu"), [(None, 2, 1), (1, 1, 1), (2, 2, 1), (8, 8, 7), (16, 8, 15), (64, 8, 16)]
)
def test_default_workers(monkeypatch: pytest.MonkeyPatch, cores: int | None, beside_model: int, beside_gpu: int) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert (default_workers(), default_workers("cpu")) == (beside_model, beside_model)
    assert (default_workers("cuda"), default_workers("mps")) == (beside_gpu, beside_gpu)


class TestRoom:
    def test_together_as_long_as_they_fit(self) -> None:
        """Of six threads that bring 40 each into room for 100, two are inside at a time."""
        room, lock = Room(100), threading.Lock()
        inside, most = 0, 0
        two = threading.Barrier(2, timeout=PATIENCE)

        def work() -> None:
            nonlocal inside, most
            with room.take(40):
                with lock:
                    inside += 1
                    most = max(most, inside)
                two.wait()  # each meets another one inside
                with lock:
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert most == 2

    def test_what_is_larger_goes_in_alone(self) -> None:
        room, entered = Room(100), threading.Event()

        def work() -> None:
            with room.take(1000):
                entered.set()

        thread = threading.Thread(target=work)
        with room.take(1):
            thread.start()
            assert not entered.wait(0.1)
        assert entered.wait(PATIENCE)
        thread.join(PATIENCE)

    def test_an_error_gives_the_room_back(self) -> None:
        room = Room(10)
        with pytest.raises(ZeroDivisionError), room.take(10):
            raise ZeroDivisionError
        with room.take(10):
            pass


def test_images_decoded_at_once_are_bounded(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, room for one of these images of some six hundred pixels: never two at a time."""
    monkeypatch.setattr(loading, "_decoding", Room(1000))
    lock, inside, most = threading.Lock(), 0, 0

    def resize(image: Image.Image, side: int) -> torch.Tensor:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            time.sleep(0.005)
            return segmenter_pixels(image, side)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(loading, "segmenter_pixels", resize)
    good = [path for number, path in enumerate(paths) if number not in (1, 5)]
    loaded = [image for batch in load_batches(good * 2, SIDE, batch_size=2, num_workers=4, device="cuda") for image in batch]
    assert all(image.error is None for image in loaded)
    assert most == 1


def test_stack_leaves_bad_images_out() -> None:
    pixels = [torch.full((3, 4, 4), float(value)) for value in range(2)]
    batch = [LoadedImage(0, pixels[0], (5, 5)), LoadedImage(1, None, (0, 0), "bad"), LoadedImage(2, pixels[1], (6, 6))]
    stacked = stack_pixels(batch)
    assert stacked.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(stacked[:, 0, 0, 0], [0, 1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_loader_does_not_wait_for_threads_of_its_parent(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with loading._decoding.take(loading.PIXELS_AT_ONCE), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads, which is what happens
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(0 if loading.load_image(str(tmp_path / "a.png"), 4).error is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
