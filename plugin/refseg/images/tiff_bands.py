"""TIFFs that Pillow does not read: floats of several bands, more than four bands, bands one to a page (OME-TIFF, GeoTIFF).

By `tifffile`, imported only for these. What is compressed otherwise than by deflate it reads where `imagecodecs` is installed.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..regular_files import open_regular
from .samples import Meaning, say_first_three, tiff_meaning

_ORIENTATION = 274


@dataclass(frozen=True)
class Bands:
    """What a TIFF holds.

    Attributes:
        image_hw: height and width as stored, before it is turned.
        orientation: 1 to 8.
        num_bands: of the image.
        meaning: of its values.
        axis: of the bands, in the array that tifffile gives; None where there is one band and no axis for it.
        axes: a letter an axis, as tifffile names them.
        num_planes: pictures that one may be shown of, by all axes but those of rows, columns and samples together.
    """

    image_hw: tuple[int, int]
    orientation: int
    num_bands: int
    meaning: Meaning
    axis: int | None
    axes: str
    num_planes: int

    @property
    def are_channels(self) -> bool:
        """Whether the bands lie one to a page, and the file says that they are channels."""
        return self.axis is not None and self.axes[self.axis] == "C"


def describe(path: str | os.PathLike[str]) -> Bands:
    """What the first image of a TIFF holds, from its header.

    Raises:
        ImageError: it is damaged, or holds no image.
    """
    import tifffile

    name = os.fspath(path)
    try:
        with open_regular(name) as stream, tifffile.TiffFile(stream) as file:
            series, page = file.series[0], file.pages.first
            axes, shape = series.axes, series.shape
            # NumPy takes no type at all for that of floats.
            dtype = None if series.dtype is None else np.dtype(series.dtype).newbyteorder("=")
            if "Y" not in axes or "X" not in axes or dtype is None or dtype.kind not in "buif":
                raise ImageError(name, f"it holds no picture, but values of type {dtype} over the axes {axes}")
            tag: Any = page.tags.valueof
            value = tag(_ORIENTATION, 1)
            bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * dtype.itemsize
            meaning = tiff_meaning(tag, dtype, bits)
    except (ImageError, FileNotFoundError):
        raise
    except Exception as error:  # of a damaged file any
        raise ImageError(name, f"the image cannot be read ({error})") from error
    # Of the axes besides rows and columns that of samples or channels counts, else the first, such as pages.
    others = [number for number, letter in enumerate(axes) if letter not in "YX"]
    axis = next((number for letter in "SC" for number in others if axes[number] == letter), others[0] if others else None)
    image_hw = shape[axes.index("Y")], shape[axes.index("X")]
    orientation = int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
    num_bands = 1 if axis is None else int(shape[axis])
    num_planes = math.prod(shape[number] for number in others if axes[number] != "S")
    return Bands((int(image_hw[0]), int(image_hw[1])), orientation, num_bands, meaning, axis, axes, num_planes)


def read(path: str | os.PathLike[str], bands: Bands, channels: tuple[int, ...] | None) -> NDArray[Any]:
    """(H, W, C) values of some bands as they are stored, three or one.

    Args:
        path: of the file.
        bands: from describe.
        channels: which; None takes the first three, or the one there is.

    Raises:
        ImageError: it has no such band, or cannot be read.
    """
    import tifffile

    name = os.fspath(path)
    chosen = tuple(range(3 if bands.num_bands >= 3 else 1)) if channels is None else channels
    if max(chosen) >= bands.num_bands:
        raise ImageError(
            name, f"it has no band {max(chosen)}, but {bands.num_bands}, counted from 0: choose others with channels="
        )
    if channels is None and bands.num_bands > 3:
        say_first_three(bands.num_bands)
    try:
        with open_regular(name) as stream, tifffile.TiffFile(stream) as file:
            values = file.asarray(series=0)
    except Exception as error:  # of a damaged file any
        missing = " (pip install imagecodecs reads more)" if "imagecodecs" in str(error) else ""
        raise ImageError(name, f"the image cannot be read ({error}){missing}") from error
    axes = bands.axes
    # Of further axes, such as time or depth, the first: from the last to the first, so that numbers stay right.
    for number in reversed(range(len(axes))):
        if axes[number] not in "YX" and number != bands.axis:
            values = values.take(0, axis=number)
            axes = axes[:number] + axes[number + 1 :]
    letter = None if bands.axis is None else bands.axes[bands.axis]
    order = [axes.index("Y"), axes.index("X"), *([] if letter is None else [axes.index(letter)])]
    picture = values.transpose(order)
    picture = picture[..., None] if picture.ndim == 2 else picture[..., list(chosen)]
    return picture.astype(np.uint8) if bands.meaning.dtype.kind == "b" else picture
