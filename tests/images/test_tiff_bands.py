"""TIFFs of many bands: which are seen, which can be chosen, and what is said of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from refseg.errors import ImageError
from refseg.images import files as image_files
from refseg.images.files import own_range
from refseg.images.pixels import PixelSettings
from refseg.images.reading import read_image
from tests.images.test_files import blocks, eight_bits_of


class TestBands:
    @pytest.fixture
    def values(self) -> np.ndarray:
        return np.random.default_rng(2).integers(0, 256, (12, 20, 6), dtype=np.uint8)

    @pytest.mark.parametrize("layout", ["samples", "planes", "ome"])
    def test_first_three_else_those_chosen(self, tmp_path: Path, values: np.ndarray, layout: str) -> None:
        path = tmp_path / "a.ome.tif"
        if layout == "samples":
            tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
        elif layout == "planes":
            tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="minisblack", planarconfig="separate")
        else:
            tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="minisblack", metadata={"axes": "CYX"})
        np.testing.assert_array_equal(np.asarray(read_image(path)), values[..., :3])
        for channels in ((5, 3, 1), (0, 0, 4)):
            seen = read_image(path, pixels=PixelSettings(channels=channels))
            np.testing.assert_array_equal(np.asarray(seen), values[..., list(channels)])
        grey = np.asarray(read_image(path, pixels=PixelSettings(channels=(4,))))
        np.testing.assert_array_equal(grey, np.repeat(values[..., 4:5], 3, -1))
        with pytest.raises(ImageError, match="it has no band 6, but 6, counted from 0"):
            read_image(path, pixels=PixelSettings(channels=(0, 1, 6)))

    @pytest.mark.parametrize(("axes", "shape"), [("TCYX", (1, 6)), ("ZCYX", (2, 6)), ("CYX", (6,))])
    @pytest.mark.parametrize("factor", [1, 16])
    def test_channels_one_to_a_page(self, tmp_path: Path, values: np.ndarray, axes: str, shape: Any, factor: int) -> None:
        stored = np.moveaxis(values, 2, 0).astype(np.uint8 if factor == 1 else np.uint16) * factor
        path = tmp_path / "a.ome.tif"
        tifffile.imwrite(path, np.broadcast_to(stored, (*shape, 12, 20)), photometric="minisblack", metadata={"axes": axes})
        pixels = PixelSettings((0, 255 * 16))
        np.testing.assert_array_equal(np.asarray(read_image(path, pixels=pixels)), values[..., :3])
        assert own_range(path) == (None if factor == 1 else (0, 4095))

    def test_of_pages_that_are_no_channels_the_first_is_taken_and_that_is_said(
        self, tmp_path: Path, values: np.ndarray, caplog: pytest.LogCaptureFixture
    ) -> None:
        image_files.say_first_page.cache_clear()
        tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(values, 2, 0), photometric="minisblack", metadata=None)
        with caplog.at_level(logging.WARNING, "refseg"):
            seen = np.asarray(read_image(tmp_path / "a.tif"))
            read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(seen, np.repeat(values[..., :1], 3, -1))
        said = "Of TIFFs of 6 pages the first is taken; channels= takes one of the others, or three"
        assert [record.getMessage() for record in caplog.records] == [said]
        chosen = read_image(tmp_path / "a.tif", pixels=PixelSettings(channels=(4,)))
        np.testing.assert_array_equal(np.asarray(chosen)[..., 0], values[..., 4])

    def test_near_infrared_beside_colours(self, tmp_path: Path, values: np.ndarray) -> None:
        tifffile.imwrite(tmp_path / "a.tif", values[..., :4], photometric="rgb", extrasamples=[0])
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tif")), values[..., :3])
        seen = read_image(tmp_path / "a.tif", pixels=PixelSettings(channels=(3, 0, 1)))
        np.testing.assert_array_equal(np.asarray(seen), values[..., [3, 0, 1]])

    def test_channels_leave_ordinary_pictures_alone(self, tmp_path: Path) -> None:
        for name in ("a.png", "a.tif", "a.jpg"):
            Image.fromarray(blocks()).save(tmp_path / name)
            assert (
                read_image(tmp_path / name, pixels=PixelSettings(channels=(2, 1, 0))).tobytes()
                == read_image(tmp_path / name).tobytes()
            )

    def test_floats_of_several_bands(self, tmp_path: Path) -> None:
        values = np.random.default_rng(2).random((12, 20, 5), dtype=np.float32) * 3000
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
        seen = read_image(tmp_path / "a.tif", pixels=PixelSettings((0, 3000), (4, 2, 0)))
        assert np.abs(np.asarray(seen).astype(int) - eight_bits_of(values[..., [4, 2, 0]], 3000)).max() <= 1
        assert own_range(tmp_path / "a.tif") == (0, 4096)

    def test_further_axes_are_seen_at_their_first(self, tmp_path: Path, values: np.ndarray) -> None:
        stack = np.stack([np.moveaxis(values, 2, 0), np.zeros((6, 12, 20), np.uint8)])
        tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", metadata={"axes": "ZCYX"})
        seen = read_image(tmp_path / "a.ome.tif", pixels=PixelSettings(channels=(2, 1, 0)))
        np.testing.assert_array_equal(np.asarray(seen), values[..., [2, 1, 0]])

    def test_said_once(self, tmp_path: Path, values: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
        from refseg.images import files as image_files

        image_files.say_first_three.cache_clear()
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
        with caplog.at_level(logging.WARNING, "refseg"):
            for _ in range(3):
                read_image(tmp_path / "a.tif")
        assert [record.getMessage() for record in caplog.records] == [
            "Of images of 6 bands the first three are taken for red, green and blue; channels= says otherwise"
        ]
