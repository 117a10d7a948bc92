"""Every kind of values that a TIFF can hold is seen as the values that `tifffile` finds, whichever reader takes the file."""

from __future__ import annotations

import itertools
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from refseg.errors import ImageError
from refseg.images.files import own_range
from refseg.images.headers import needs_range, read_header
from refseg.images.pixels import PixelSettings
from refseg.images.reading import read_image

RANGES = {
    "u1": (0, 255),
    "i1": (-128, 127),
    "u2": (0, 65535),
    "i2": (-32768, 32767),
    "u4": (0, 2**32 - 1),
    "i4": (-(2**31), 2**31 - 1),
    "u8": (0, 2**64 - 1),
    "i8": (-(2**63), 2**63 - 1),
    "f2": (0, 1),
    "f4": (0, 1),
    "f8": (0, 1),
}
"""Of each type, the range in which values that fill it were recorded."""
PHOTOMETRICS = ("minisblack", "miniswhite")


def values_of(kind: str, shape: tuple[int, ...] = (32, 48)) -> np.ndarray:
    """All of a type's range, from its low end to its high one, in an order in which swapped bytes and rows are seen."""
    low, high = RANGES[kind]
    shares = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    if kind[0] == "f":
        return shares.astype(kind)
    # Whole numbers of 64 bits: floats have too few digits for the last ones.
    steps = (high - low) // (shares.size - 1)
    flat = [low + steps * number for number in range(shares.size - 1)] + [high]
    return np.array(flat, kind).reshape(shape)


def seen_as(values: np.ndarray, pixel_range: tuple[float, float], photometric: str) -> np.ndarray:
    """(H, W, C) float: what eight bits show of values."""
    low, high = pixel_range
    shares = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return 255 * (1 - shares if photometric == "miniswhite" else shares)


def assert_seen(path: Path, expected: np.ndarray, settings: PixelSettings) -> None:
    seen = np.asarray(read_image(path, pixels=settings)).astype(float)
    expected = expected[..., None] if expected.ndim == 2 else expected
    assert np.abs(seen - expected).max() <= 0.51


@pytest.mark.parametrize("layout", ["strips", "packed", "packed differences", "packed tiles"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
@pytest.mark.parametrize("kind", RANGES)
def test_one_band(tmp_path: Path, kind: str, photometric: str, order: str, layout: str) -> None:
    options: dict[str, Any] = {} if layout == "strips" else {"compression": "zlib"}
    if layout == "packed differences" and kind[0] != "f":  # tifffile takes differences of whole numbers alone
        options["predictor"] = 2
    if layout == "packed tiles":
        options["tile"] = (16, 16)
    path, values = tmp_path / "a.tif", values_of(kind)
    tifffile.imwrite(path, values, photometric=photometric, byteorder=order, **options)
    np.testing.assert_array_equal(tifffile.imread(path), values)
    is_eight = kind == "u1"
    assert (read_header(path).needs_range, needs_range(path)) == (not is_eight, not is_eight)
    assert own_range(path) == (None if is_eight else tuple(map(float, RANGES[kind])))
    assert_seen(path, seen_as(values, RANGES[kind], photometric), PixelSettings())
    # A range that is given: of eight bits none counts.
    low, high = RANGES[kind]
    given = (low + (high - low) * 0.25, low + (high - low) * 0.5)
    assert_seen(path, seen_as(values, RANGES[kind] if is_eight else given, photometric), PixelSettings(given))


@pytest.mark.parametrize("photometric", PHOTOMETRICS)
@pytest.mark.parametrize("kind", RANGES)
def test_many_bands(tmp_path: Path, kind: str, photometric: str) -> None:
    path, values = tmp_path / "a.tif", values_of(kind, (12, 20, 5))
    tifffile.imwrite(path, values, photometric=photometric, planarconfig="contig")
    for channels in (None, (4, 2, 0), (3,)):
        expected = seen_as(values[..., list(channels or (0, 1, 2))], RANGES[kind], photometric)
        assert_seen(path, np.broadcast_to(expected, (12, 20, 3)), PixelSettings(RANGES[kind], channels))
    assert needs_range(path) == read_header(path).needs_range == (kind != "u1")


@pytest.mark.parametrize("photometric", PHOTOMETRICS)
def test_bands_one_to_a_page(tmp_path: Path, photometric: str) -> None:
    path, values = tmp_path / "a.ome.tif", values_of("u2", (4, 12, 20))
    tifffile.imwrite(path, values, photometric=photometric, metadata={"axes": "CYX"})
    expected = seen_as(np.moveaxis(values[[3, 1, 0]], 0, 2), (0, 65535), photometric)
    assert_seen(path, expected, PixelSettings((0, 65535), (3, 1, 0)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
@pytest.mark.parametrize("bands", [1, 5])
def test_flags(tmp_path: Path, bands: int, photometric: str, order: str) -> None:
    values = np.random.default_rng(1).random((bands, 12, 20)) < 0.5
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values if bands > 1 else values[0], photometric=photometric, byteorder=order)
    channels = (4, 0, 2) if bands > 1 else (0, 0, 0)
    expected = seen_as(np.moveaxis(values[list(channels)], 0, 2), (0, 1), photometric)
    assert_seen(path, expected, PixelSettings((0, 4095), channels if bands > 1 else None))
    assert (needs_range(path), own_range(path)) == (False, None)


def test_a_signed_byte_reads_as_a_deep_value_with_either_reader(tmp_path: Path) -> None:
    """The same numbers, of one band by Pillow and of four by tifffile."""
    values = np.array([[-128, -1, 0, 63, 127]], np.int8)
    tifffile.imwrite(tmp_path / "one.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "four.tif", np.stack([values] * 4, -1), photometric="minisblack", planarconfig="contig")
    for name in ("one.tif", "four.tif"):
        assert own_range(tmp_path / name) == (-128, 127)
        assert np.asarray(read_image(tmp_path / name))[0, :, 0].tolist() == [0, 127, 128, 191, 255]
        seen = np.asarray(read_image(tmp_path / name, pixels=PixelSettings((0, 127))))[0, :, 0]
        assert seen.tolist() == [0, 0, 0, round(63 * 255 / 127), 255]


def test_white_is_no_value_that_a_type_cannot_hold(tmp_path: Path) -> None:
    for kind, highest, white in (("i1", 100, 127), ("i2", 20000, 32767), ("i2", 3000, 4095), ("u2", 20000, 65535)):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, highest]], kind), photometric="minisblack")
        assert own_range(tmp_path / "a.tif") == (0, white)


@pytest.mark.parametrize("kind", ["u2", "f4", "i2", "f8"])
def test_what_is_missing_is_black_where_the_least_value_is_white(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 500, 1000, 1023]]).astype(kind)
    values[0, 1] = 999
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="miniswhite", extratags=[(42113, 2, 4, "999", True)])
    assert np.asarray(read_image(path, pixels=PixelSettings((0, 1000))))[0, :, 0].tolist() == [255, 0, 0, 0]


def tiff_by_hand(path: Path, bits: int, photometric: int, packed: bytes, width: int) -> None:
    """One row of whole numbers of a few bits, which tifffile alone does not write."""
    fields = [(256, 4, width), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    fields += [(273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(packed))]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", tag, kind, 1, x) for tag, kind, x in fields)
    data = packed + bytes(len(packed) % 2)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4))


@pytest.mark.parametrize(("bits", "values"), [(1, [0, 1, 1, 0, 1, 0, 0, 1]), (2, [0, 1, 2, 3]), (4, [0, 5, 10, 15])])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_few_bits(tmp_path: Path, bits: int, values: list[int], photometric: int) -> None:
    number = sum(value << bits * place for place, value in enumerate(reversed(values)))
    tiff_by_hand(tmp_path / "a.tif", bits, photometric, number.to_bytes(bits * len(values) // 8, "big"), len(values))
    shares = np.array(values) / (2**bits - 1)
    expected = 255 * (shares if photometric else 1 - shares)
    seen = np.asarray(read_image(tmp_path / "a.tif", pixels=PixelSettings((0, 4095))))[0, :, 0]
    assert seen.tolist() == expected.round().tolist()
    assert not needs_range(tmp_path / "a.tif")


def test_twelve_packed_bits_whose_least_value_is_white_are_right_or_refused(tmp_path: Path) -> None:
    """Pillow does not know them, tifffile reads them with another package alone."""
    tiff_by_hand(tmp_path / "a.tif", 12, 0, b"\x00\x0f\xff", 2)
    assert (needs_range(tmp_path / "a.tif"), read_header(tmp_path / "a.tif").is_deep) == (False, True)
    if find_spec("imagecodecs") is None:
        with pytest.raises(ImageError, match="imagecodecs"):
            read_image(tmp_path / "a.tif")
    else:
        seen = read_image(tmp_path / "a.tif", pixels=PixelSettings((0, 100)))
        assert np.asarray(seen)[0, :, 0].tolist() == [255, 0]


def test_numbers_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.complex64), photometric="minisblack")
    for read in (read_image, own_range, read_header):
        with pytest.raises(ImageError, match="it holds no picture, but values of type complex64"):
            read(tmp_path / "a.tif")
    assert not needs_range(tmp_path / "a.tif")


def test_tags_are_read_alike_by_both_readers(tmp_path: Path) -> None:
    values = np.linspace(0, 2000, 12 * 20).reshape(12, 20).astype(np.uint16)
    for (tag, expected), bands in itertools.product({341: (0, 2000), 281: (0, 4095)}.items(), (1, 5)):
        stored = values if bands == 1 else np.stack([values] * bands, -1)
        more = {} if bands == 1 else {"planarconfig": "contig"}
        tifffile.imwrite(tmp_path / "a", stored, photometric="minisblack", extratags=[(tag, 3, 1, 2000, True)], **more)
        assert own_range(tmp_path / "a") == expected


def test_a_photograph_is_as_it_was(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    for photometric, planes in itertools.product(("rgb", "minisblack"), ("contig", "separate")):
        stored = values if planes == "contig" else np.moveaxis(values, 2, 0)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, planarconfig=planes)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tif")), values)
    Image.fromarray(values).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "b.tif")), values)
