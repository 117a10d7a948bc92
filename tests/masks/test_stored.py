"""One reader of instance masks, however they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from refseg.masks.stored import as_mask, read_mask_file

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


LARGE = np.kron(CIRCLE, np.ones((12, 12), bool))
"""Large enough for blocks and wavelets to leave traces."""


def large(alpha: np.ndarray | None = None, *, low: int = 0, high: int = 255) -> Image.Image:
    """The circle in two greys, with an alpha channel where one is given."""
    picture = Image.fromarray(np.where(LARGE, high, low).astype(np.uint8)).convert("RGB")
    if alpha is not None:
        picture.putalpha(Image.fromarray(alpha.astype(np.uint8) * 255))
    return picture


LEFT = np.broadcast_to(np.arange(LARGE.shape[1]) < 120, LARGE.shape)
LOSSY_FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 40}),
    "webp": ("WEBP", {"quality": 30}),
    "webp that says it is more than a picture": ("WEBP", {"quality": 30, "exif": Image.Exif().tobytes()}),
    "webp in motion": ("WEBP", {"quality": 30, "save_all": True, "append_images": [Image.new("RGB", LARGE.shape[::-1])]}),
    "webp with a coarse alpha": ("WEBP", {"quality": 30, "alpha_quality": 5}),
    "avif": ("AVIF", {"quality": 20}),
    "jpeg 2000": ("JPEG2000", {"irreversible": True, "quality_mode": "rates", "quality_layers": [60]}),
    "jpeg 2000, cut off": ("JPEG2000", {"quality_mode": "rates", "quality_layers": [60]}),
    "tiff of jpegs": ("TIFF", {"compression": "jpeg", "quality": 40}),
}


def save_lossy(picture: Image.Image, path: Path, name: str) -> None:
    kind, options = LOSSY_FILES[name]
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    picture.save(path, kind, **options)


@pytest.mark.parametrize("name", LOSSY_FILES)
def test_traces_of_every_kind_are_no_mask(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mask"
    save_lossy(large(low=10, high=240), path, name)
    assert (read_mask_file(path) != LARGE).mean() < 0.01
    save_lossy(large(high=0), path, name)
    assert not read_mask_file(path).any()
    save_lossy(large(low=255), path, name)
    assert read_mask_file(path).all()


def test_a_mask_of_0_and_1_in_a_good_jpeg(tmp_path: Path) -> None:
    large(high=1).save(tmp_path / "mask.jpg", quality=95)
    assert (read_mask_file(tmp_path / "mask.jpg") != LARGE).mean() < 0.01


@pytest.mark.parametrize("quality", [75, 85, 95, 100])
def test_some_pixels_that_a_jpeg_makes_brighter_hide_no_others(tmp_path: Path, quality: int) -> None:
    disc = np.hypot(*np.mgrid[-30:30, -30:30]) < 20
    Image.fromarray(disc.astype(np.uint8)).save(tmp_path / "disc.jpg", quality=quality)
    found = read_mask_file(tmp_path / "disc.jpg")
    assert (found & disc).sum() > 0.85 * (found | disc).sum()


@pytest.mark.parametrize("name", [name for name, (kind, _) in LOSSY_FILES.items() if kind in ("WEBP", "AVIF", "JPEG2000")])
@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (large(LARGE, low=255), LARGE),
        (large(LARGE, high=0), LARGE),
        (large(LARGE, low=90, high=90), LARGE),
        (large(np.ones_like(LARGE)), LARGE),
        (large(LEFT), LARGE & LEFT),
        (large(LARGE), LARGE),
    ],
)
def test_alpha_beside_traces(tmp_path: Path, name: str, picture: Image.Image, expected: np.ndarray) -> None:
    save_lossy(picture, tmp_path / "mask", name)
    assert (read_mask_file(tmp_path / "mask") != expected).mean() < 0.01


@pytest.mark.parametrize("more", [{}, {"exact": True}, {"exif": Image.Exif().tobytes()}])
def test_a_webp_without_loss_is_read_to_the_last_value(tmp_path: Path, more: dict[str, Any]) -> None:
    """What is not 0 is the mask, however dark."""
    numbers = np.where(LARGE, np.where(LEFT, 3, 250), 0).astype(np.uint8)
    Image.fromarray(numbers).save(tmp_path / "mask.webp", lossless=True, **more)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.webp"), LARGE)
    large(LARGE, low=255).save(tmp_path / "mask.webp", lossless=True, **more)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.webp"), LARGE)


@pytest.mark.parametrize("high", [255, 40000])
def test_deep_masks_of_jpeg_2000(tmp_path: Path, high: int) -> None:
    Image.fromarray(LARGE.astype(np.uint16) * high).save(tmp_path / "mask.jp2")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.jp2"), LARGE)


@pytest.mark.parametrize("white", [np.uint8(255), np.uint16(65535), np.uint16(4095), np.float32(1)])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_masks_in_tiffs_of_every_depth(tmp_path: Path, white: Any, photometric: str) -> None:
    lit = ~LARGE if photometric == "miniswhite" else LARGE
    tifffile.imwrite(tmp_path / "mask.tif", lit.astype(white.dtype) * white, photometric=photometric)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.tif"), LARGE)


def test_shares_in_a_packed_big_endian_tiff(tmp_path: Path) -> None:
    values = np.where(LARGE, 0.7, 0.2).astype(np.float32)
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric="minisblack", byteorder=">", compression="zlib")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.tif"), LARGE)


def test_files_that_hold_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(OSError, match="it is no picture that can be read"):
        read_mask_file(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        read_mask_file(tmp_path / "gone.png")
