"""Files of every format: size, orientation and pixels as everybody sees them; deep ones; damaged JPEGs."""

from __future__ import annotations

import io
import logging
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from refseg.errors import ImageError
from refseg.images.files import decode, own_range
from refseg.images.headers import needs_range, read_header
from refseg.images.loading import load_image
from refseg.images.pixels import PixelSettings
from refseg.images.reading import read_image, read_image_hw, read_orientation
from refseg.images.thumbnails import crop_thumbnail, object_picture
from tests.images.test_reading import UPRIGHT

ORIENTATION = 0x0112
TURNED = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}
"""From the upright image to the one that is stored with an orientation."""


def blocks() -> np.ndarray:
    """(48, 80, 3): four quarters of colours of their own, that no turn maps onto themselves."""
    upright = np.zeros((48, 80, 3), np.uint8)
    upright[:24, :40], upright[:24, 40:] = (230, 40, 40), (40, 200, 60)
    upright[24:, :40], upright[24:, 40:] = (50, 60, 220), (240, 230, 70)
    return upright


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def png16(values: np.ndarray, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a sample: (H, W) or (H, W, 2, 3 or 4); further chunks come before the image."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return png_chunks((b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def late_exif(path: Path, stored: Image.Image, orientation: int) -> None:
    """A PNG whose orientation follows its pixels, as some programs write it."""
    stream = io.BytesIO()
    stored.save(stream, "PNG")
    body = exif_of(orientation).tobytes(8)
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    content = stream.getvalue()
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + chunk + content[end:])


def write_turned(path: Path, upright: np.ndarray, kind: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation](upright)))
    exif = exif_of(orientation)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    match kind:
        case "jpeg":
            stored.save(path, "JPEG", quality=95, exif=exif)
        case "jpeg xmp":
            stored.save(path, "JPEG", quality=95, xmp=xmp)
        case "png":
            stored.save(path, "PNG", exif=exif)
        case "png late":
            late_exif(path, stored, orientation)
        case "webp":
            stored.save(path, "WEBP", lossless=True, exif=exif)
        case "avif":
            stored.save(path, "AVIF", quality=95, exif=exif)
        case "tiff":
            stored.save(path, "TIFF", exif=exif)
        case "tiff packed":
            stored.save(path, "TIFF", exif=exif, compression="tiff_lzw")
        case "tiff pages":
            stored.save(path, "TIFF", exif=exif, save_all=True, append_images=[Image.new("RGB", (5, 5))])
        case "tiff xmp":
            stored.save(path, "TIFF", tiffinfo={700: xmp})
        case "tiff bands":
            five = np.concatenate([np.asarray(stored), np.asarray(stored)[..., :2]], -1)
            tifffile.imwrite(
                path, five, photometric="minisblack", planarconfig="contig", extratags=[(ORIENTATION, 3, 1, orientation, True)]
            )


KINDS = ["jpeg", "jpeg xmp", "png", "png late", "webp", "avif", "tiff", "tiff packed", "tiff pages", "tiff xmp", "tiff bands"]


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_sees_the_upright_image(tmp_path: Path, kind: str, orientation: int) -> None:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path, upright = tmp_path / "a", blocks()
    write_turned(path, upright, kind, orientation)
    assert read_orientation(path) == orientation
    assert read_image_hw(path) == upright.shape[:2]
    seen = np.asarray(read_image(path)).astype(int)
    assert seen.shape == upright.shape
    assert np.abs(seen - upright).mean() < 6
    loaded = load_image(str(path), 64)
    assert (loaded.error, loaded.image_hw, loaded.orientation) == (None, upright.shape[:2], orientation)
    assert loaded.pixels is not None
    for row, column, color in ((8, 8, upright[0, 0]), (8, 55, upright[0, -1]), (55, 8, upright[-1, 0])):
        assert np.abs(loaded.pixels[:, row, column].numpy() * 255 - color).max() < 12
    # The upper right quarter alone.
    thumbnail = Image.open(io.BytesIO(crop_thumbnail(path, (0.55, 0.05, 0.4, 0.4), side=32, margin=1.0))).convert("RGB")
    assert np.abs(np.asarray(thumbnail)[16, 16].astype(int) - upright[0, -1]).max() < 20


class TestJpegWithoutItsEnd:
    @pytest.fixture
    def content(self) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(np.random.default_rng(4).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(stream, "JPEG")
        return stream.getvalue()

    @pytest.mark.parametrize("missing", [1, 2])
    def test_only_the_marker(self, tmp_path: Path, content: bytes, missing: int, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "whole.jpg").write_bytes(content)
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        with caplog.at_level(logging.WARNING, "refseg"):
            seen = read_image(tmp_path / "a.jpg")
        assert seen.tobytes() == read_image(tmp_path / "whole.jpg").tobytes()
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path / 'a.jpg'} lacks the end marker of a JPEG; its picture is complete and was read"
        ]

    def test_thumbnail(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content[:-2])
        picture = Image.open(io.BytesIO(object_picture(tmp_path / "a.jpg", (0.2, 0.2, 0.5, 0.5), None, width=40, height=30)))
        assert picture.size == (40, 30)

    @pytest.mark.parametrize("missing", [4, 8, 20, 200, 2000])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_rows_that_are_lost_are_not_made_up(self, tmp_path: Path, missing: int, progressive: bool) -> None:
        stream = io.BytesIO()
        picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (90, 120, 3), dtype=np.uint8))
        picture.save(stream, "JPEG", progressive=progressive)
        (tmp_path / "a.jpg").write_bytes(stream.getvalue()[:-missing])
        with pytest.raises(ImageError, match="image file is truncated"):
            read_image(tmp_path / "a.jpg")


def ramp(depth: int, shape: tuple[int, ...] = (24, 40)) -> np.ndarray:
    """Whole numbers from 0 to the greatest of a depth."""
    return (
        np.linspace(0, 2**depth - 1, int(np.prod(shape))).round().reshape(shape).astype(np.uint16 if depth <= 16 else np.uint32)
    )


def eight_bits_of(values: np.ndarray, high: float) -> np.ndarray:
    return (values.astype(np.float64) * 255 / high).round().astype(np.uint8)


class TestDeepPixels:
    @pytest.mark.parametrize(
        ("values", "high"),
        [
            (ramp(12), 4095),
            (ramp(10), 1023),
            (ramp(16), 65535),
            (ramp(8).astype(np.uint16), 255),
            (ramp(8).astype(np.int32), 255),
            (ramp(32), 2**32 - 1),
            (ramp(8).astype(np.float32), 255),
            (ramp(8).astype(np.float32) / 255, 1),
            (ramp(8).astype(np.float64) / 255, 1),
            (ramp(8).astype(np.float32) / 255 * 1.9, 2),
        ],
    )
    def test_one_file_alone_takes_the_depth_it_reaches(self, tmp_path: Path, values: np.ndarray, high: float) -> None:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
        seen = np.asarray(read_image(tmp_path / "a.tif")).astype(int)
        assert np.abs(seen - eight_bits_of(values, high)[..., None]).max() <= 1
        assert read_header(tmp_path / "a.tif").is_deep
        assert needs_range(tmp_path / "a.tif")

    @pytest.mark.parametrize("bands", [1, 2, 3, 4])
    def test_settings_decide(self, tmp_path: Path, bands: int) -> None:
        """Grey, grey with alpha, colours, colours with alpha, all in 12 bits of 16."""
        values = ramp(12, (24, 40, bands))
        (tmp_path / "a.png").write_bytes(png16(values))
        color = values[..., :1] if bands < 3 else values[..., :3]
        for pixel_range, expected in (((0, 4095), 4095), ((0, 65535), 65535), ((0, 2000), 2000)):
            seen = np.asarray(read_image(tmp_path / "a.png", pixels=PixelSettings(pixel_range))).astype(int)
            want = np.minimum(255, color.astype(np.float64) * 255 / expected).round()
            assert np.abs(seen - want).max() <= 1
        assert own_range(tmp_path / "a.png") == (0, 4095)

    def test_a_range_above_zero(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[900, 1000, 1500, 2000, 3000]], np.uint16)).save(tmp_path / "a.png")
        seen = read_image(tmp_path / "a.png", pixels=PixelSettings((1000, 2000)))
        assert np.asarray(seen)[0, :, 0].tolist() == [0, 0, 128, 255, 255]

    def test_negative_values(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.array([[-700, 0, 1023]], np.int16), photometric="minisblack")
        assert own_range(tmp_path / "a.tif") == (-1024, 1023)

    def test_compressed_big_endian_and_turned_colours(self, tmp_path: Path) -> None:
        values = ramp(12, (24, 40, 3))
        tags = [(ORIENTATION, 3, 1, 6, True)]
        for name, options in {"a": {"compression": "zlib"}, "b": {"byteorder": ">"}, "c": {"planarconfig": "separate"}}.items():
            stored = np.moveaxis(values, 2, 0) if name == "c" else values
            tifffile.imwrite(tmp_path / name, stored, photometric="rgb", extratags=tags, **options)
            seen = np.asarray(read_image(tmp_path / name, pixels=PixelSettings((0, 4095)))).astype(int)
            assert np.abs(seen - np.rot90(eight_bits_of(values, 4095), -1)).max() <= 1, name
            assert read_image_hw(tmp_path / name) == (40, 24)

    def test_what_a_png_says(self, tmp_path: Path) -> None:
        """By the standard values are scaled up to 16 bits whatever counts of them; some programs only note the depth."""
        raw = ramp(12)
        cases = {"noted": (raw, 4095), "shifted": (raw << 4, 65535), "repeated": (raw << 4 | raw >> 8, 65535)}
        for name, (values, high) in cases.items():
            (tmp_path / name).write_bytes(png16(values, (b"sBIT", b"\x0c")))
            # No range of the dataset's changes what the file says.
            seen = np.asarray(read_image(tmp_path / name, pixels=PixelSettings((0, 100)))).astype(int)
            assert np.abs(seen[..., 0] - eight_bits_of(values, high)).max() <= 1, name
            assert not needs_range(tmp_path / name)
        colors = ramp(12, (24, 40, 3))
        (tmp_path / "rgb").write_bytes(png16(colors, (b"sBIT", b"\x0c\x0c\x0c")))
        assert np.abs(np.asarray(read_image(tmp_path / "rgb")).astype(int) - eight_bits_of(colors, 4095)).max() <= 1

    def test_what_a_tiff_says(self, tmp_path: Path) -> None:
        values = ramp(10)
        for name, (tag, value, expected) in {
            "highest": (341, 2000, (0, 2000)),
            "greatest in use": (281, 2000, (0, 4095)),
        }.items():
            tifffile.imwrite(tmp_path / name, values, photometric="minisblack", extratags=[(tag, 3, 1, value, True)])
            assert own_range(tmp_path / name) == expected, name

    def test_twelve_bits_that_are_packed(self, tmp_path: Path) -> None:
        """Pillow writes none: a TIFF by hand, of two pixels, 0x123 and 0xFFF."""
        entries = [
            (256, 4, 2),
            (257, 4, 1),
            (258, 3, 12),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 8),
            (277, 3, 1),
            (278, 4, 1),
            (279, 4, 3),
        ]
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *(t, k, 1, v)) for t, k, v in entries)
        (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + b"\x12\x3f\xff\0" + directory + bytes(4))
        assert not needs_range(tmp_path / "a.tif")
        assert np.asarray(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [round(0x123 * 255 / 4095), 255]

    def test_pgm_of_any_depth(self, tmp_path: Path) -> None:
        (tmp_path / "a.pgm").write_bytes(b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes())
        assert np.asarray(read_image(tmp_path / "a.pgm", pixels=PixelSettings((0, 77))))[0, :, 0].tolist() == [0, 128, 255]
        assert not needs_range(tmp_path / "a.pgm")

    def test_no_measurement_is_black_and_does_not_count(self, tmp_path: Path) -> None:
        values = np.array([[-9999, 0.5, 1.0, np.nan, 3e38]], np.float32)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=[(42113, 2, 6, "-9999", True)])
        assert own_range(tmp_path / "a.tif") == (0, 1)
        assert np.asarray(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255, 0, 0]

    def test_eight_bits_are_as_they_were(self, tmp_path: Path) -> None:
        for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
            path = tmp_path / f"{mode}.tif"
            Image.fromarray(blocks()).convert(mode).save(path)
            assert read_image(path, pixels=PixelSettings((0, 17))).tobytes() == read_image(path).tobytes()
            assert (needs_range(path), own_range(path), read_header(path).is_deep) == (False, None, False)

    def test_inks_of_sixteen_bits(self, tmp_path: Path) -> None:
        values = np.zeros((4, 6, 4), np.uint16)
        values[..., 1:3] = 65535  # magenta and yellow: red
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="separated")
        seen = read_image(tmp_path / "a.tif", pixels=PixelSettings((0, 4095)))
        assert np.asarray(seen)[0, 0].tolist() == [255, 0, 0]

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(40))
        assert not needs_range(tmp_path / "a.tif")
        for read in (own_range, read_image, read_image_hw):
            with pytest.raises(ImageError):
                read(tmp_path / "a.tif")


def test_decoding_waits_for_room_before_every_kind(tmp_path: Path) -> None:
    values = np.zeros((12, 20, 6), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    Image.fromarray(blocks()).save(tmp_path / "b.png")
    asked: list[int] = []
    for name in ("a.tif", "b.png"):
        decode(tmp_path / name, admit=asked.append)
    assert asked == [12 * 20, 48 * 80]


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/gr\xfc\xdfe")
    Image.fromarray(blocks()).save(name, "PNG")
    assert read_image(name).size == (80, 48)
    tifffile.imwrite(tmp_path / "b", np.zeros((12, 20, 6), np.uint8), photometric="minisblack", planarconfig="contig")
    os.replace(tmp_path / "b", name)
    assert read_image_hw(name) == read_image(name).size[::-1] == (12, 20)
