"""Images read ahead of the model: in order, in batches, and a bad file is an item of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg import loading
from refseg.images import read_image, segmenter_pixels
from refseg.loading import LoadedImage, default_workers, load_batches, load_image, stack_pixels

SIDE = 32


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
    def read(path: str) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(loading, "read_image", read)
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


def test_one_batch_needs_no_process(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Loader(loading.DataLoader):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, num_workers: int, **options: object) -> None:
            asked.append(num_workers)
            super().__init__(*arguments, num_workers=0, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "DataLoader", Loader)
    for batch_size in (7, 6):
        assert sum(map(len, load_batches(paths, SIDE, batch_size=batch_size, num_workers=3))) == 7
    assert asked == [0, 3]


def test_no_files() -> None:
    assert list(load_batches([], SIDE, batch_size=2)) == []


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (1, 1), (2, 1), (8, 4), (64, 8)])
def test_default_workers(monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_workers() == workers


def test_stack_leaves_bad_images_out() -> None:
    pixels = [torch.full((3, 4, 4), float(value)) for value in range(2)]
    batch = [LoadedImage(0, pixels[0], (5, 5)), LoadedImage(1, None, (0, 0), "bad"), LoadedImage(2, pixels[1], (6, 6))]
    stacked = stack_pixels(batch)
    assert stacked.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(stacked[:, 0, 0, 0], [0, 1])
