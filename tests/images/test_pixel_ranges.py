"""One range for all files of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from refseg.images import pixel_ranges
from refseg.images.pixel_ranges import files_without_range, find_pixels, pixel_needs
from refseg.images.pixels import PLAIN, PixelSettings


def save(path: Path, highest: int) -> str:
    Image.fromarray(np.linspace(0, highest, 12).round().reshape(3, 4).astype(np.uint16)).save(path)
    return str(path)


def test_the_brightest_file_decides_for_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [save(tmp_path / f"{number}.png", highest) for number, highest in enumerate((40, 3000, 900))]
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "eight.png")
    with caplog.at_level(logging.WARNING, "refseg"):
        found = find_pixels([*paths, str(tmp_path / "eight.png"), str(tmp_path / "gone.png")])
    assert found == PixelSettings((0, 4095))
    assert [record.getMessage() for record in caplog.records] == [
        "3 images have pixels of more than 8 bits without a word on what is white: they are assumed to run from 0 to 4095, as "
        "those of 3 do; pixel_range= says otherwise"
    ]


def test_eight_bits_need_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.tif", "c.jpg"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    (tmp_path / "d.png").write_text("no image")
    with caplog.at_level(logging.INFO, "refseg"):
        assert find_pixels(map(str, tmp_path.iterdir())) == PLAIN
        assert find_pixels([], PixelSettings(channels=(0,))) == PixelSettings(channels=(0,))
    assert not caplog.records


def test_what_is_given_opens_no_file(tmp_path: Path) -> None:
    given = PixelSettings((0, 1000), (2,))
    assert find_pixels([str(tmp_path / "gone.tif")], given) is given


def test_some_files_are_decoded_and_of_photographs_none_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path / f"{number:02}.png", 900 if number else 5000) for number in range(40)]
    decoded: list[str] = []
    monkeypatch.setattr(pixel_ranges, "own_range", lambda path, channels: decoded.append(path) or (0.0, 1023.0))
    opened: list[str] = []
    monkeypatch.setattr(pixel_ranges, "needs_range", lambda path: opened.append(path) or True)
    find_pixels([*reversed(paths), *(f"photo{number}.JPG" for number in range(100))])
    assert opened == paths
    assert len(decoded) == pixel_ranges.LOOKED_AT
    assert (decoded[0], decoded[-1]) == (paths[0], paths[-1])
    opened.clear()
    assert files_without_range(paths, first=True) == paths[:1] == opened


def test_needs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep, bands, both = (str(tmp_path / f"{name}.tif") for name in ("deep", "bands", "both"))
    tifffile.imwrite(deep, np.zeros((3, 4), np.uint16))
    tifffile.imwrite(bands, np.zeros((3, 4, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(both, np.zeros((3, 4, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    Image.new("RGBA", (4, 3)).save(tmp_path / "eight.png")
    (tmp_path / "broken.tif").write_text("no image")
    plain = [str(tmp_path / name) for name in ("eight.png", "broken.tif", "gone.tif")]
    assert pixel_needs([]) == pixel_needs(plain) == (False, False)
    assert pixel_needs([*plain, deep]) == (True, False)
    assert pixel_needs([*plain, bands]) == (False, True)
    assert pixel_needs([both]) == pixel_needs([deep, bands]) == (True, True)
    # Of photographs none is opened.
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(pixel_ranges, "read_header", lambda path: pytest.fail(f"{path} was opened"))
    assert pixel_needs([str(tmp_path / "a.jpg")]) == (False, False)
