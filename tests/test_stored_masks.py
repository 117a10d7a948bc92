"""One reader of instance masks, however they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refseg.stored_masks import as_mask, read_mask_file

CIRCLE = np.hypot(*np.mgrid[-7:8, -9:10]) < 6


def grey() -> Image.Image:
    return Image.fromarray(CIRCLE.astype(np.uint8) * 255)


def with_alpha(colour: int, alpha: np.ndarray) -> Image.Image:
    picture = Image.new("RGB", (CIRCLE.shape[1], CIRCLE.shape[0]), (colour,) * 3)
    picture.putalpha(Image.fromarray(alpha.astype(np.uint8) * 255))
    return picture


def palette(colours: list[int], numbers: np.ndarray) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), "P")
    picture.putpalette(colours + [0] * (768 - len(colours)))
    return picture


FILES = {
    "grey": grey(),
    "one bit": Image.fromarray(CIRCLE),
    "16 bits": Image.fromarray(CIRCLE.astype(np.uint16) * 40000),
    "colour": grey().convert("RGB"),
    "a colour without red": Image.merge("RGB", [Image.new("L", grey().size), grey(), Image.new("L", grey().size)]),
    "opaque alpha": grey().convert("RGBA"),
    "grey with opaque alpha": grey().convert("LA"),
    "transparent everywhere": Image.merge("LA", [grey(), Image.new("L", grey().size)]),
    "alpha is the mask, on white": with_alpha(255, CIRCLE),
    "alpha is the mask, on black": with_alpha(0, CIRCLE),
    "both": Image.merge("LA", [Image.fromarray((CIRCLE | (np.arange(19) < 3)).astype(np.uint8) * 255), grey()]),
    "numbers of a colourful palette": palette([255, 255, 255, 255, 0, 0], CIRCLE),
    "greys of a palette sorted by use": palette([255, 255, 255, 0, 0, 0], ~CIRCLE),
    "floats": Image.fromarray(CIRCLE.astype(np.float32)),
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"mask.{'tif' if name == 'floats' else 'png'}"
    FILES[name].save(path)
    np.testing.assert_array_equal(read_mask_file(path), CIRCLE)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[True, False]], [[True, False]]),
        ([[0, 3]], [[False, True]]),
        ([[-1, 0]], [[True, False]]),
        ([[0.4, 0.6]], [[False, True]]),  # shares
        ([[0.4, 200.0]], [[True, True]]),  # no shares
        ([[np.nan, 1.0]], [[False, True]]),
        ([[[0], [7]]], [[False, True]]),
        ([[[0, 0, 1, 1, 0]]], [[False, False, True, True, False]]),  # one mask of a stack
        ([[[0, 255], [9, 255]]], [[False, True]]),
    ],
)
def test_arrays(values: Any, expected: list[list[bool]]) -> None:
    found = as_mask(np.array(values))
    assert found.dtype == bool
    assert found.tolist() == expected


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (0, 4, 4)])
def test_no_pixels(shape: tuple[int, ...]) -> None:
    assert as_mask(np.zeros(shape)).shape == shape[:2]


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.zeros(4), r"has the shape \(4,\)"), (np.zeros((2, 2, 5)), r"shape \(2, 2, 5\)"), ([["a"]], "no numbers")],
)
def test_what_is_no_mask_is_told(values: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        as_mask(values)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_compression_leaves_around_an_object_is_none_of_it(tmp_path: Path, mode: str) -> None:
    large = np.kron(CIRCLE, np.ones((12, 12), bool))
    path = tmp_path / "mask.jpg"
    Image.fromarray(large.astype(np.uint8) * 255).convert(mode).save(path, quality=40)
    # As many other pixels are not quite black.
    assert (np.asarray(Image.open(path).convert("L")) > 0).mean() > large.mean() + 0.05
    assert (read_mask_file(path) != large).mean() < 0.01
    Image.fromarray(np.zeros_like(large)).convert(mode).save(path)
    assert not read_mask_file(path).any()


def test_files_that_hold_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(OSError, match="cannot identify"):
        read_mask_file(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        read_mask_file(tmp_path / "gone.png")
