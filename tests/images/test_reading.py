from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.errors import ImageError
from refseg.images.pixels import PixelSettings
from refseg.images.reading import (
    MEAN,
    STD,
    encoder_pixels,
    file_sha256,
    normalize,
    read_image,
    read_image_hw,
    segmenter_pixels,
    to_rgb,
)
from tests.tolerance import assert_near

ORIENTATION = 0x0112


def pixels_of(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def colors(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_rgb_is_read_as_it_is(tmp_path: Path, colors: np.ndarray) -> None:
    Image.fromarray(colors).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), colors)
    assert read_image_hw(str(tmp_path / "a.png")) == (6, 9)


def test_sixteen_bit_is_scaled_by_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    # 65535 / 255 = 257
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png")[..., 0], [[0, 1, 128, 255]])


def test_float_is_scaled_from_one(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 7.0, np.nan]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    seen = np.asarray(read_image(tmp_path / "a.tiff", pixels=PixelSettings((0, 1))))
    np.testing.assert_array_equal(seen[..., 1], [[0, 0, 128, 255, 255, 0]])


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 150, 100])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[10, 20, 30], [200, 150, 100]]])


def test_palette_with_transparency_keeps_its_colors(tmp_path: Path) -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30])
    image.save(tmp_path / "a.png", transparency=b"\x00")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[10, 20, 30]]])


def test_grey_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 77, 255]], np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[0] * 3, [77] * 3, [255] * 3]])


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[255] * 3, [0] * 3]])


@pytest.mark.parametrize(("mode", "color", "expected"), [("LA", (77, 0), [77] * 3), ("RGBA", (10, 20, 30, 0), [10, 20, 30])])
def test_alpha_is_dropped(tmp_path: Path, mode: str, color: tuple[int, ...], expected: list[int]) -> None:
    Image.new(mode, (3, 2), color).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), np.full((2, 3, 3), expected))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    red = pixels_of(tmp_path / "a.jpg")[8, 8].astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 4  # JPEG


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    converted = to_rgb(Image.new(mode, (3, 2)))
    assert (converted.mode, converted.size) == ("RGB", (3, 2))


def test_rgb_is_not_copied() -> None:
    image = Image.new("RGB", (3, 2))
    assert to_rgb(image) is image


# How to undo each EXIF orientation, by its definition: (row 0, column 0) of the stored image is what edge of the scene.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, colors: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(colors).save(tmp_path / "a.png", exif=exif)
    expected = UPRIGHT[orientation](colors)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), expected)
    assert read_image_hw(tmp_path / "a.png") == expected.shape[:2]


def test_exif_rotated_jpeg(tmp_path: Path) -> None:
    """Orientation 6, a phone held upright: stored lying, its left edge is the scene's top."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = pixels_of(tmp_path / "a.jpg")
    assert upright.shape == (32, 16, 3)
    assert upright[:12].min() > 240
    assert upright[20:].max() < 15
    assert read_image_hw(tmp_path / "a.jpg") == (32, 16)


def test_one_by_five_thousand(tmp_path: Path) -> None:
    Image.new("RGB", (5000, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png").shape == (1, 5000, 3)
    assert read_image_hw(tmp_path / "a.png") == (1, 5000)
    pixels = segmenter_pixels(read_image(tmp_path / "a.png"), 64)
    assert_near(pixels, torch.tensor([1.0, 2, 3]).view(3, 1, 1).expand(3, 64, 64) / 255)


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the file does not exist"),
        (b"", "this is not an image that can be read"),
        (b"Not Found\n" * 50, "this is not an image that can be read"),
        (jpeg_bytes()[:-2000], r"the image cannot be read \(image file is truncated"),
    ],
    ids=["missing", "zero bytes", "text", "truncated JPEG"],
)
def test_unreadable_file_says_why(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_folder_is_no_image(tmp_path: Path) -> None:
    for read in (read_image, read_image_hw):
        with pytest.raises(ImageError, match=r"the file cannot be read \(it is a folder, not a file\)"):
            read(tmp_path)


@pytest.mark.parametrize(("content", "reason"), [(None, "does not exist"), (b"", "not an image"), (b"text", "not an image")])
def test_size_of_an_unreadable_file(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image_hw(tmp_path / "a.png")


def test_picture_too_large_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow refuses above twice as many
    with pytest.raises(ImageError, match=r"cannot be read.*decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "AVIF", "DDS"])
def test_damaged_files_raise_image_error_alone(tmp_path: Path, kind: str) -> None:
    chance = np.random.default_rng(3)
    stream = io.BytesIO()
    try:
        Image.fromarray(chance.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(stream, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {kind}")
    whole = np.frombuffer(stream.getvalue(), np.uint8)
    refused = 0
    for number in range(80):
        damaged = whole.copy()
        if number % 2:
            damaged = damaged[: chance.integers(len(whole))]
        else:
            where = chance.integers(0, min(300, len(whole)), 6)
            damaged[where] = chance.integers(0, 256, 6)
        (tmp_path / "a").write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own remarks on odd headers
            for read in (read_image, read_image_hw):
                try:
                    read(tmp_path / "a")
                except ImageError:
                    refused += 1
    assert refused > 0


def test_segmenter_pixels_stretch_to_the_square() -> None:
    halves = np.zeros((10, 40, 3), np.uint8)
    halves[:, 20:] = (255, 0, 51)
    pixels = segmenter_pixels(Image.fromarray(halves), 8)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == torch.float32
    assert_near(pixels[:, :, :2], torch.zeros(3, 8, 2))
    assert_near(pixels[:, :, 6:], torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1).expand(3, 8, 2))


def test_segmenter_pixels_of_that_size_are_the_image(rng: np.random.Generator) -> None:
    values = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    pixels = segmenter_pixels(Image.fromarray(values), 12)
    assert_near(pixels, torch.from_numpy(values).permute(2, 0, 1).float() / 255)


def test_two_step_resize_has_the_models_shapes() -> None:
    images = [Image.new("RGB", size) for size in ((33, 7), (500, 400))]
    first = torch.stack([segmenter_pixels(image, 256) for image in images])
    assert first.shape == (2, 3, 256, 256)
    assert encoder_pixels(first, 224).shape == (2, 3, 224, 224)


def test_encoder_pixels_are_not_antialiased() -> None:
    # Each output pixel reads the 4 × 4 around its centre and no other: one bright pixel off those columns is lost.
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[..., 4] = 1.0  # output 0 of 8 reads columns 2 to 5 about 3.5, with 4 of weight 0.5 + 1/16
    found = encoder_pixels(pixels, 8)
    # Bicubic with a = -0.75 at distance 0.5: 1.25·⅛ − 2.25·¼ + 1 = 0.59375.
    assert_near(found[0, 0, :, 0], torch.full((8,), 0.59375))
    assert_near(found[0, 0, :, 1:], torch.zeros(8, 7))


def test_encoder_pixels_of_that_size_are_unchanged(rng: np.random.Generator) -> None:
    pixels = torch.from_numpy(rng.random((2, 3, 14, 14), dtype=np.float32))
    assert_near(encoder_pixels(pixels, 14), pixels)


def test_normalize_is_a_loop_over_channels(rng: np.random.Generator) -> None:
    pixels = torch.from_numpy(rng.random((2, 3, 4, 5), dtype=np.float32))
    before = pixels.clone()
    found = normalize(pixels)
    for channel in range(3):
        assert_near(found[:, channel], (pixels[:, channel] - MEAN[channel]) / STD[channel])
    assert torch.equal(pixels, before)


def test_normalize_keeps_the_dtype() -> None:
    assert normalize(torch.zeros(1, 3, 1, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_file_sha256(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
