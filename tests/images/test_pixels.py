"""What values of pixels mean: settings, depths, scaling."""

from __future__ import annotations

import numpy as np
import pytest

from refseg.errors import DatasetError
from refseg.images.pixels import PLAIN, PixelSettings, pixel_settings, range_of, snapped, to_eight_bits


@pytest.mark.parametrize(
    ("lowest", "highest", "is_float", "expected"),
    [
        (0, 0, False, (0, 255)),
        (0, 255, False, (0, 255)),
        (0, 256, False, (0, 1023)),
        (0, 1024, False, (0, 4095)),
        (7, 4095, False, (0, 4095)),
        (0, 4096, False, (0, 16383)),
        (0, 65535, False, (0, 65535)),
        (0, 65536, False, (0, 2**20 - 1)),
        (-1, 100, False, (-1, 255)),
        (-1000, 3000, False, (-1024, 4095)),
        (0.0, 0.2, True, (0, 1)),
        (0.0, 1.02, True, (0, 2)),
        (0.0, 17.0, True, (0, 255)),
        (0.0, 255.0, True, (0, 255)),
        (0.0, 300.0, True, (0, 512)),
        (-0.3, 0.9, True, (-0.5, 1)),
    ],
)
def test_snapped(lowest: float, highest: float, is_float: bool, expected: tuple[float, float]) -> None:
    assert snapped(lowest, highest, is_float) == expected


def test_dark_and_bright_images_of_one_camera_have_one_range() -> None:
    dark, bright = np.full((3, 4), 1100, np.uint16), np.full((3, 4), 4000, np.uint16)
    assert range_of(dark) == range_of(bright) == (0, 4095)
    assert to_eight_bits(dark, range_of(dark)).tolist() == [[68] * 4] * 3  # 1100 · 255 / 4095 = 68.5, to even


@pytest.mark.parametrize("shape", [(700, 3), (700, 3, 2), (1, 1), (0, 5)])
def test_scaling_is_a_formula_for_each_value(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    values = rng.normal(500, 400, shape).astype(np.float32)
    found = to_eight_bits(values, (100, 900), nodata=None)
    expected = [min(255, max(0, round((float(value) - 100) / 800 * 255))) for value in values.ravel()]
    assert found.ravel().tolist() == expected


def test_what_is_missing() -> None:
    values = np.array([-9999.0, 10.0, np.inf, np.nan, 20.0])
    assert range_of(values, nodata=-9999) == (0, 255)
    assert to_eight_bits(values, (10, 20), nodata=-9999).tolist() == [0, 0, 0, 0, 255]


class TestSettings:
    def test_lists(self) -> None:
        for settings in (PLAIN, PixelSettings((0, 4095)), PixelSettings(None, (3,)), PixelSettings((-1, 1), (4, 3, 1))):
            assert PixelSettings.from_lists(settings.as_lists()) == settings
        assert (PLAIN.as_lists(), PixelSettings((0, 10)).as_lists()) == (None, [[0.0, 10.0], None])
        with pytest.raises(DatasetError, match="says nothing of how pixels are read"):
            PixelSettings.from_lists(7)

    def test_which_fit(self) -> None:
        low, high, red = PixelSettings((0, 255)), PixelSettings((0, 4095)), PixelSettings((0, 255), (0,))
        assert low.fits(low)
        assert low.fits(PLAIN)
        assert PLAIN.fits(high)
        assert low.fits(red)
        assert not low.fits(high)
        assert not red.fits(PixelSettings(None, (1,)))

    def test_words(self) -> None:
        assert str(PixelSettings((0, 4095), (4, 2, 1))) == "pixel_range=(0, 4095), channels=(4, 2, 1)"
        assert str(PLAIN) == "pixels of eight bits"

    @pytest.mark.parametrize("given", [(5,), (5, 5), (9, 1), (0, float("nan")), ("0", "1"), (0, True), 7, (0, 1, 2)])
    def test_range_that_is_none(self, given: object) -> None:
        with pytest.raises(DatasetError, match=r"pixel_range must be (two|a list of) numbers"):
            pixel_settings(given, None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("given", [(), (0, 1), (0, 1, -2), (0.5,), ("a",), 1])
    def test_channels_that_are_none(self, given: object) -> None:
        with pytest.raises(DatasetError, match=r"channels must be (one or three|a list of numbers)"):
            pixel_settings(None, given)  # type: ignore[arg-type]
