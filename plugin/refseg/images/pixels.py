"""What a pixel's value means: which of them is black and which white, and which bands of a file are its picture.

Eight bits need no answer. Deeper values are scaled by what their file says, else by a range that holds for a whole dataset: one
for each image would turn dark and empty ones into noise. No torch, so that lists and panels can use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DatasetError

Range = tuple[float, float]
"""The value that is shown black, and the one that is shown white."""

DEPTHS = (8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64)
"""Bits that cameras and scanners have: the white of whole numbers is taken for the greatest of one of these."""
SHARES_END = 16.0
"""Floats that reach no higher are no bytes."""
ROWS_A_STRIP = 256
"""Of a deep image, converted at once: in between a value takes eight bytes, several times over."""
LOOKED_AT = 4
"""Of so many rows and columns one is looked at, to find out whether a range fits an image."""
LARGEST = 1e30
"""Beyond this a number stands for no measurement, but for one that is missing."""


@dataclass(frozen=True)
class PixelSettings:
    """How the files of a dataset become pictures of eight bits.

    Attributes:
        pixel_range: the values that are black and white where pixels have more than eight bits and their file does not say it;
            None where no file needs it. In a TIFF that says that its least value is white, they change places.
        channels: which bands, counted from 0, are red, green and blue where a TIFF has more than three of them, or one to be
            shown grey; None takes the first three.
    """

    pixel_range: Range | None = None
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.pixel_range is not None:
            if not _are_numbers(self.pixel_range, (2,)) or not self.pixel_range[0] < self.pixel_range[1]:
                raise DatasetError(
                    f"pixel_range must be two numbers, of black and the higher one of white, not {self.pixel_range!r}."
                )
            object.__setattr__(self, "pixel_range", tuple(float(value) for value in self.pixel_range))
        if self.channels is not None:
            whole = _are_numbers(self.channels, (1, 3)) and all(int(value) == value >= 0 for value in self.channels)
            if not whole:
                raise DatasetError(f"channels must be one or three bands, counted from 0, not {self.channels!r}.")
            object.__setattr__(self, "channels", tuple(int(value) for value in self.channels))

    @property
    def is_plain(self) -> bool:
        """Whether nothing is said: all that eight bits need."""
        return self.pixel_range is None and self.channels is None

    def fits(self, other: PixelSettings) -> bool:
        """Whether features of images that were read with either can be compared: what one does not say, no image needed."""
        ranges, channels = {self.pixel_range, other.pixel_range} - {None}, {self.channels, other.channels} - {None}
        return len(ranges) <= 1 and len(channels) <= 1

    def after(self, before: PixelSettings) -> PixelSettings:
        """What is said here, and where nothing is what was said before; a range that was found for other channels is not.

        Example:
            >>> PixelSettings().after(PixelSettings((0, 4095), (2, 1, 0)))
            PixelSettings(pixel_range=(0.0, 4095.0), channels=(2, 1, 0))
            >>> PixelSettings(channels=(3,)).after(PixelSettings((0, 4095), (2, 1, 0)))
            PixelSettings(pixel_range=None, channels=(3,))
        """
        if self.channels not in (None, before.channels):
            return self
        return PixelSettings(self.pixel_range or before.pixel_range, before.channels)

    def as_lists(self) -> list[list[float] | list[int] | None] | None:
        """As JSON: range and channels; None where nothing is said."""
        if self.is_plain:
            return None
        return [list(self.pixel_range) if self.pixel_range else None, list(self.channels) if self.channels else None]

    @classmethod
    def from_lists(cls, lists: Any) -> PixelSettings:
        """What as_lists has written; plain where it is nothing.

        Raises:
            DatasetError: it is something else.
        """
        if not lists:
            return PLAIN
        try:
            pixel_range, channels = lists
            return cls(None if pixel_range is None else tuple(pixel_range), None if channels is None else tuple(channels))
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{lists!r} says nothing of how pixels are read.") from error

    def __str__(self) -> str:
        parts = []
        if self.pixel_range is not None:
            parts.append(f"pixel_range=({self.pixel_range[0]:g}, {self.pixel_range[1]:g})")
        if self.channels is not None:
            parts.append(f"channels={self.channels}")
        return ", ".join(parts) or "pixels of eight bits"


PLAIN = PixelSettings()
"""What is said where nobody said anything."""


def pixel_settings(pixel_range: Sequence[float] | None, channels: Sequence[int] | None) -> PixelSettings:
    """Settings from what callers pass.

    Raises:
        DatasetError: a range that is none, or channels that are not one or three.
    """
    for name, value in (("pixel_range", pixel_range), ("channels", channels)):
        # Of a set nobody knows the order, and bytes are numbers by accident.
        if value is not None and (not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes)):
            raise DatasetError(f"{name} must be a list of numbers, not {value!r}.")
    return PixelSettings(
        None if pixel_range is None else tuple(pixel_range),  # type: ignore[arg-type]
        None if channels is None else tuple(channels),
    )


def snapped(lowest: float, highest: float, is_float: bool, most: float = math.inf) -> Range:
    """The range in which values that reach from lowest to highest are likely to have been recorded.

    Args:
        lowest: of the values.
        highest: of the values.
        is_float: whether they are no whole numbers.
        most: the greatest that their type can be: white is no value that cannot be.

    Example:
        >>> snapped(3, 3871, False)
        (0.0, 4095.0)
        >>> snapped(0, 0.93, True), snapped(-700.0, 180.5, True)
        ((0.0, 1.0), (-1024.0, 255.0))
        >>> snapped(-90, 60, False, 127)
        (-128.0, 127.0)
    """
    low = -_power_of_two(-lowest) if lowest < 0 else 0.0
    if is_float:
        # A little above 1 is what filters make of shares, far above it these are most likely values of a byte.
        high = 1.0 if highest <= 1 else 255.0 if SHARES_END < highest <= 255 else _power_of_two(highest)
    else:
        high = float(next((2**bits - 1 for bits in DEPTHS if highest <= 2**bits - 1), highest))
    return low, float(min(high, most))


def most_of(dtype: np.dtype[Any]) -> float:
    """The greatest value of a type of whole numbers; infinity for others."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else math.inf


def range_of(values: NDArray[Any], nodata: float | None = None) -> Range:
    """The range in which the values of one image are likely to have been recorded; see snapped.

    Args:
        values: of any shape.
        nodata: the value that stands for none.
    """
    lowest, highest = 0.0, 0.0
    is_float = values.dtype.kind == "f"
    for start in range(0, len(values), ROWS_A_STRIP):
        strip = values[start : start + ROWS_A_STRIP]
        if is_float or nodata is not None:
            strip = strip[_measured(strip, nodata)]
        if strip.size:
            lowest, highest = min(lowest, float(strip.min())), max(highest, float(strip.max()))
    return snapped(lowest, highest, is_float, most_of(values.dtype))


def to_eight_bits(
    values: NDArray[Any], pixel_range: Range, nodata: float | None = None, *, is_inverted: bool = False
) -> NDArray[np.uint8]:
    """Values scaled so that the range becomes 0 to 255; what lies beyond is cut, what is missing is black.

    Args:
        values: (H, W) or (H, W, C).
        pixel_range: the values of black and white.
        nodata: the value that stands for none.
        is_inverted: the low end of the range is white, the high end black.

    Example:
        >>> values = np.array([[0, 1000, 4095]], np.uint16)
        >>> to_eight_bits(values, (0, 4095)).tolist(), to_eight_bits(values, (0, 4095), is_inverted=True).tolist()
        ([[0, 62, 255]], [[255, 193, 0]])
    """
    if values.dtype == np.dtype(np.uint8) and pixel_range == (0.0, 255.0) and nodata is None:
        return ~values if is_inverted else values
    low, high = pixel_range
    black = high if is_inverted else low
    scale = 255.0 / (high - low)
    eight = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS_A_STRIP):
        rows = slice(start, start + ROWS_A_STRIP)
        strip = values[rows].astype(np.float64)
        if values.dtype.kind == "f" or nodata is not None:
            strip[~_measured(strip, nodata)] = black
        if low:
            strip -= low
        eight[rows] = np.clip(strip * scale, 0, 255).round()
    return ~eight if is_inverted else eight


def share_beyond(values: NDArray[Any], pixel_range: Range, nodata: float | None = None) -> float:
    """Which share of the values that are there a range cuts, 0 to 1, told by one in LOOKED_AT² of them.

    Example:
        >>> share_beyond(np.array([[0, 9, 9, 9, 5000, 9, 9, 9]], np.uint16), (0, 4095))
        0.5
    """
    seen = values[::LOOKED_AT, ::LOOKED_AT].astype(np.float64)
    seen = seen[_measured(seen, nodata)]
    return float(((seen < pixel_range[0]) | (seen > pixel_range[1])).mean()) if seen.size else 0.0


def is_deep(mode: str) -> bool:
    """Whether an image of this Pillow mode has one band of more than eight bits."""
    return mode.startswith("I") or mode == "F"


def to_rgb(image: Image.Image, pixel_range: Range | None = None) -> Image.Image:
    """Convert an image of any Pillow mode to RGB: an alpha channel is dropped, grey repeated, deep values scaled.

    Args:
        image: as it was decoded.
        pixel_range: of deep values; None takes the one in which this image is likely to have been recorded.
    """
    if image.mode == "RGB":
        return image
    if is_deep(image.mode):
        values = np.asarray(image)
        return Image.fromarray(to_eight_bits(values, pixel_range or range_of(values))).convert("RGB")
    if image.mode in ("LA", "PA", "La") or (image.mode == "P" and "transparency" in image.info):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _power_of_two(value: float) -> float:
    return 2.0 ** math.ceil(math.log2(value))


def _measured(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Where there is a measurement."""
    good: NDArray[np.bool_] = np.isfinite(values)
    good &= np.abs(values.astype(np.float64)) < LARGEST
    if nodata is not None and not math.isnan(nodata):
        good &= values != nodata
    return good


def _are_numbers(values: Any, counts: tuple[int, ...]) -> bool:
    return len(values) in counts and all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
        for value in values
    )
