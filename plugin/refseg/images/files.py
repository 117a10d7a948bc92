"""Image files: upright size and orientation from their headers, and their pixels, as eight-bit RGB. The one place that knows.

Pillow reads most files. It turns a TIFF by itself while it loads, and nothing else; of 16-bit colours it gives the higher byte;
TIFFs of other numbers of bands it does not read at all, these `tiff_bands` does. No torch: lists and panels use it too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..regular_files import open_regular, read_regular
from .headers import ERRORS, SIZE_WHEN_LOADED, SWAPPED, hw_of, image_errors, open_image, orientation_of
from .parts import Box, Part, Wanted, shrunk, stored_part, strips_of, upright_box
from .pixels import PLAIN, PixelSettings, Range, range_of, share_beyond, to_eight_bits, to_rgb
from .png_strips import PngStrips
from .samples import (
    WHOLE,
    Samples,
    plain_values,
    recorded_range,
    samples_of,
    say_first_page,
    say_first_three,
    wide_values,
)

logger = logging.getLogger(__name__)

# Pillow keeps an image in blocks of 16 MB, which the C library keeps for each thread once they are free: a large image a thread
# would stay in memory. Blocks beyond 32 MB go back to the system. Smaller images take no more than they need in either case.
Image.core.set_block_size(max(Image.core.get_block_size(), 64 << 20))  # type: ignore[attr-defined]

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of an orientation upright."""
END = b"\xff\xd9"
"""The end marker of a JPEG."""
FILLINGS = (bytes(range(1, 252)) * 8, bytes(range(250, 0, -7)) * 64)
"""What a JPEG that lacks rows would be continued with, differently each time."""

MOST = 0.5
"""The share of an image's values that a range of pixels may cut without a word."""
_said_to_cut: set[Range] = set()
"""Ranges of which it was said."""


@dataclass(frozen=True)
class Decoded:
    """An image out of its file.

    Attributes:
        image: upright RGB of eight bits.
        orientation: that the file says, 1 to 8.
        image_hw: height and width of the upright image.
    """

    image: Image.Image
    orientation: int
    image_hw: tuple[int, int]


@dataclass(frozen=True)
class DecodedPart:
    """A part of an image out of its file.

    Attributes:
        image: upright RGB of eight bits, at a scale of its own.
        image_hw: height and width of the whole upright image.
        box: xyxy pixels of the upright image that are shown; the last pixels may lie partly beyond it.
    """

    image: Image.Image
    image_hw: tuple[int, int]
    box: Box

    @classmethod
    def of(
        cls, shrunk: Image.Image, part: Part, orientation: int, stored_wh: tuple[int, int], decoded_wh: tuple[int, int]
    ) -> DecodedPart:
        """From a part of the stored image; arguments as of `parts.stored_part`."""
        image = shrunk.transpose(TURNS[orientation]) if orientation in TURNS else shrunk
        width, height = stored_wh[::-1] if orientation in SWAPPED else stored_wh
        return cls(image, (height, width), upright_box(part, orientation, stored_wh, decoded_wh))


def decode(
    path: str | os.PathLike[str],
    pixels: PixelSettings = PLAIN,
    *,
    admit: Callable[[int], object] | None = None,
) -> Decoded:
    """Decode a file as an upright image of eight-bit RGB; see `refseg.images.reading.read_image`.

    Args:
        path: of the file.
        pixels: how deep values and bands are read.
        admit: told how many pixels there are before they are decoded; it may wait until there is room for them.

    Raises:
        ImageError: the file is missing, truncated, empty, or of no format that is known.
    """
    name = os.fspath(path)
    with image_errors(name), open_image(name) as opened:
        return _decode_opened(opened, name, pixels, admit)


def decode_part(
    path: str | os.PathLike[str],
    choose: Callable[[tuple[int, int]], Wanted],
    *,
    admit: Callable[[int], object] | None = None,
) -> DecodedPart:
    """Decode as much of a file as is to be seen, no finer than it has to be, and all else as `decode` does.

    A PNG of eight bits is read in strips, and a JPEG at the smallest of its own scales that is fine enough. Any other image is
    held once, as Pillow decodes it: it is made smaller before it is converted and turned. Of deep values the whole image is
    decoded as ever: how bright they are shown depends on all of them.

    Args:
        path: of the file.
        choose: told height and width of the upright image, says what is to be seen of it.
        admit: told how many pixels there are before so many are held; it may wait until there is room for them.

    Raises:
        ImageError: see `decode`.
    """
    name = os.fspath(path)
    with image_errors(name), open_image(name) as opened:
        if opened is None or opened.format in SIZE_WHEN_LOADED or _needs_all(opened, name):
            decoded = _decode_opened(opened, name, PLAIN, admit)
            height, width = decoded.image_hw
            return DecodedPart(decoded.image, decoded.image_hw, (0.0, 0.0, float(width), float(height)))
        orientation = orientation_of(opened, name)
        image_hw, stored_wh = hw_of(opened, orientation), opened.size
        if opened.format == "TIFF":  # upright once it is loaded
            orientation, stored_wh = 1, (image_hw[1], image_hw[0])
        wanted = choose(image_hw)
        with open_regular(name) as stream:
            png = PngStrips(stream) if opened.format == "PNG" and not getattr(opened, "is_animated", False) else None
            if png is not None and png.is_plain:
                part = stored_part(wanted, orientation, stored_wh, stored_wh)
                image = shrunk(png.strips(part.factor), part)
                return DecodedPart.of(image, part, orientation, stored_wh, stored_wh)
        opened.draft(None, (max(1, int(opened.width * wanted.scale)), max(1, int(opened.height * wanted.scale))))
        if admit is not None:
            admit(opened.width * opened.height)
        loaded = _load(opened, name)
        part = stored_part(wanted, orientation, stored_wh, loaded.size)
        return DecodedPart.of(shrunk(strips_of(loaded, part), part), part, orientation, stored_wh, loaded.size)


def _needs_all(opened: Image.Image, name: str) -> bool:
    """Whether an opened file has to be decoded as a whole."""
    samples = samples_of(opened, name)
    return samples.is_deep or _is_for_tifffile(opened, samples, name, None)


def _decode_opened(
    opened: Image.Image | None, name: str, pixels: PixelSettings, admit: Callable[[int], object] | None
) -> Decoded:
    """What decode does with an opened file; None is a TIFF that Pillow does not know."""
    if opened is None:
        return _decode_bands(name, pixels, admit)
    orientation = orientation_of(opened, name)  # before loading: Pillow turns a TIFF then, and forgets its tag
    samples = samples_of(opened, name)
    if _is_for_tifffile(opened, samples, name, pixels.channels):
        return _decode_bands(name, pixels, admit)
    if samples.num_bands > 3 and opened.mode == "RGB":
        say_first_three(samples.num_bands)
    if admit is not None:
        admit(opened.width * opened.height)
    try:
        loaded = _load(opened, name)
    except OSError:
        if opened.format != "TIFF" or not samples.is_deep:
            raise
        return _decode_bands(name, pixels, None)  # let in already: who asks for room twice may wait for himself
    upright = _turned(loaded, orientation)
    image = _scaled(upright, samples, pixels, name, orientation) if samples.is_deep else to_rgb(upright)
    return Decoded(image, orientation, (upright.height, upright.width))


def own_range(path: str | os.PathLike[str], channels: tuple[int, ...] | None = None) -> Range | None:
    """The range of a file's values by its own word, else the one in which they are likely to have been recorded.

    Args:
        path: of the file, which is decoded where it does not say.
        channels: which of its bands count.

    Returns:
        Black and white; None where the values have eight bits.

    Raises:
        ImageError: the file cannot be read.
    """
    name = os.fspath(path)
    with image_errors(name), open_image(name) as opened:
        if opened is None:
            return _range_of_bands(name, channels)
        samples = samples_of(opened, name)
        if _is_for_tifffile(opened, samples, name, channels):
            return _range_of_bands(name, channels)
        if not samples.is_deep or samples.certain or samples.said:
            return samples.certain or samples.said
        opened.load()
        return recorded_range(opened, samples)


def _is_for_tifffile(opened: Image.Image, samples: Samples, name: str, channels: tuple[int, ...] | None) -> bool:
    """Whether an opened file shows more than what Pillow makes of it: bands that are asked for, or channels one to a page."""
    if samples.is_for_tifffile or (channels is not None and samples.num_bands > 3):
        return True
    if opened.format != "TIFF" or not getattr(opened, "is_animated", False):
        return False
    from . import tiff_bands

    try:
        found = tiff_bands.describe(name)
    except ImageError:
        return False
    if not found.are_channels and found.num_planes > 1:
        say_first_page(found.num_planes)
    return found.are_channels and found.num_bands >= 3


def _turned(loaded: Image.Image, orientation: int) -> Image.Image:
    """The upright image; Pillow has turned a TIFF already."""
    if loaded.format == "TIFF" or orientation not in TURNS:
        return loaded
    return loaded.transpose(TURNS[orientation])


def _load(opened: Image.Image, name: str) -> Image.Image:
    """Load an opened image; of a JPEG without its end marker the one that it is with it."""
    try:
        opened.load()
    except OSError as error:
        if opened.format != "JPEG" or "truncated" not in str(error):
            raise
        content = read_regular(name).rstrip(b"\xff")
        ended = _decoded_jpeg(content + END, opened)
        # The decoder does not say that rows are missing: then what is put in their place is seen.
        if ended is None or any(_differs(ended, _decoded_jpeg(content + filling + END, opened)) for filling in FILLINGS):
            raise
        logger.warning("%s lacks the end marker of a JPEG; its picture is complete and was read", name)
        return ended
    return opened


def _decoded_jpeg(content: bytes, like: Image.Image) -> Image.Image | None:
    """A JPEG decoded at the scale at which another reading of it was asked for; None where it cannot be."""
    try:
        image: Image.Image = Image.open(BytesIO(content), formats=["JPEG"])
        if image.size != like.size:
            image.draft(None, like.size)
        image.load()
    except ERRORS:
        return None
    return image


def _differs(image: Image.Image, other: Image.Image | None) -> bool:
    return other is None or image.size != other.size or image.tobytes() != other.tobytes()


def _scaled(upright: Image.Image, samples: Samples, pixels: PixelSettings, name: str, orientation: int) -> Image.Image:
    """The eight-bit RGB image of deep values."""
    given = samples.certain or pixels.pixel_range or samples.said
    if not samples.wide:
        values = plain_values(upright, samples)
        pixel_range = given or _say_own_range(range_of(values, samples.nodata))
        eight = _eight_bits(values, pixel_range, name, samples.nodata, is_inverted=samples.is_inverted)
        return Image.fromarray(eight).convert("RGB")
    pixel_range = given or _say_own_range(recorded_range(upright, samples))
    if pixel_range == WHOLE:
        return to_rgb(upright)
    values = wide_values(upright, samples, name, lambda image: _turned(image, orientation))
    eight = _eight_bits(values, pixel_range, name, samples.nodata)
    return Image.fromarray(eight[..., 0] if eight.shape[2] < 3 else np.ascontiguousarray(eight[..., :3])).convert("RGB")


def _decode_bands(name: str, pixels: PixelSettings, admit: Callable[[int], object] | None) -> Decoded:
    """A TIFF that Pillow does not read as it is wanted."""
    from . import tiff_bands

    found = tiff_bands.describe(name)
    if admit is not None:
        admit(found.image_hw[0] * found.image_hw[1] * max(1, found.num_bands * found.meaning.dtype.itemsize // 4))
    values = tiff_bands.read(name, found, pixels.channels)
    said = found.meaning
    pixel_range = said.certain or pixels.pixel_range or said.said or _say_own_range(range_of(values, said.nodata))
    values = _eight_bits(values, pixel_range, name, said.nodata, is_inverted=said.is_inverted)
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] < 3 else values[..., :3])).convert("RGB")
    if found.orientation in TURNS:
        image = image.transpose(TURNS[found.orientation])
    return Decoded(image, found.orientation, (image.height, image.width))


def _eight_bits(
    values: NDArray[Any], pixel_range: Range, name: str, nodata: float | None, *, is_inverted: bool = False
) -> NDArray[np.uint8]:
    """Values scaled by a range; where it cuts most of an image, that is said of the first."""
    if values.dtype != np.uint8 and pixel_range not in _said_to_cut and share_beyond(values, pixel_range, nodata) > MOST:
        _said_to_cut.add(pixel_range)
        logger.warning(
            "Most values of %s lie beyond the range of pixels from %g to %g, so that little is seen of it, and perhaps of "
            "other images: pixel_range= gives another to references and index",
            *(name, *pixel_range),
        )
    return to_eight_bits(values, pixel_range, nodata, is_inverted=is_inverted)


def _range_of_bands(name: str, channels: tuple[int, ...] | None) -> Range | None:
    from . import tiff_bands

    found = tiff_bands.describe(name)
    said = found.meaning
    if not said.is_deep:
        return None
    return said.certain or said.said or range_of(tiff_bands.read(name, found, channels), said.nodata)


@lru_cache(maxsize=64)
def _say_own_range(pixel_range: Range) -> Range:
    """Say what an image is taken for that was read alone, once for each range."""
    logger.warning(
        "An image of more than 8 bits does not say what is white, and no range was given: on its own it is taken to run from "
        "%g to %g; pixel_range= says otherwise",
        *pixel_range,
    )
    return pixel_range
