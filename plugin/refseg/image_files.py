"""Image files: upright size and orientation from their headers, and their pixels, as eight-bit RGB. The one place that knows.

Pillow reads most files. It turns a TIFF by itself while it loads, and nothing else; of 16-bit colours it gives the higher byte;
TIFFs of other numbers of bands it does not read at all, these `refseg.tiff_bands` does. No torch: lists and panels use it too.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import ImageError
from .pixels import PLAIN, PixelSettings, Range, is_deep, range_of, snapped, to_eight_bits, to_rgb

logger = logging.getLogger(__name__)

# A large photograph is no attack: only Pillow's error, at twice this size, counts. Set once for the process, because
# warnings.catch_warnings is not safe in the threads that decode images.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow keeps an image in blocks of 16 MB, which the C library keeps for each thread once they are free: a large image a thread
# would stay in memory. Blocks beyond 32 MB go back to the system. Smaller images take no more than they need in either case.
Image.core.set_block_size(max(Image.core.get_block_size(), 64 << 20))  # type: ignore[attr-defined]

ORIENTATION = 0x0112
"""The EXIF tag."""
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
SWAPPED = (5, 6, 7, 8)
"""Orientations in which height and width change places."""
SIZE_WHEN_LOADED = {"EPS", "ICNS", "ICO", "PCD", "WMF"}
"""Formats whose size Pillow may change while it loads them."""
SCALED = {"JPEG2000", "PPM"}
"""Formats whose deep values Pillow scales to 16 bits by what the file says."""
BITS, SAMPLE_FORMAT, SAMPLES, PHOTOMETRIC = 258, 339, 277, 262
LEAST, GREATEST, LOWEST, HIGHEST, NODATA = 280, 281, 340, 341, 42113
"""TIFF tags: the least and greatest value in use, the lowest and highest there can be, and the one that stands for none."""
COLOURED = (2, 5, 6, 8, 9, 10)
"""Photometric interpretations whose bands are the parts of a colour."""
WHOLE: Range = (0.0, 65535.0)
END = b"\xff\xd9"
"""The end marker of a JPEG."""
FILLINGS = (bytes(range(1, 252)) * 8, bytes(range(250, 0, -7)) * 64)
"""What a JPEG that lacks rows would be continued with, differently each time."""

ERRORS = (OSError, ValueError, RuntimeError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image.

    Attributes:
        image_hw: height and width of the upright image, as decoding gives it.
        orientation: as stored, 1 to 8.
        is_deep: its values have more than eight bits, or Pillow alone cannot read them.
        needs_range: the file does not say which of its values is white.
        num_bands: more than three where a choice of channels counts.
    """

    image_hw: tuple[int, int]
    orientation: int
    is_deep: bool
    needs_range: bool
    num_bands: int


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Size, orientation and kind of values of a file, without decoding it.

    Raises:
        ImageError: the file is missing or no image.
    """
    name = os.fspath(path)
    with _image_errors(name, header=True):
        opened = _open(name)
        if opened is None:
            from . import tiff_bands

            found = tiff_bands.describe(name)
            deep = found.dtype != np.dtype(np.uint8)
            return ImageHeader(_upright(found.image_hw, found.orientation), found.orientation, True, deep, found.num_bands)
        with opened:
            orientation = _orientation_of(opened, name)
            samples = _samples_of(opened, name)
            if opened.format in SIZE_WHEN_LOADED:
                opened.load()
            return ImageHeader(
                _hw_of(opened, orientation),
                orientation,
                samples.is_deep,
                samples.is_deep and samples.certain is None,
                samples.num_bands,
            )


def read_orientation(path: str | os.PathLike[str]) -> int:
    """The EXIF orientation as it is stored in a file, 1 to 8: how the stored image has still to be turned; 1 is upright.

    Raises:
        ImageError: the file is missing or no image.
    """
    return read_header(path).orientation


def read_image_hw(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of the upright image, from its header alone.

    Raises:
        ImageError: the file is missing or no image.
    """
    return read_header(path).image_hw


def needs_range(path: str | os.PathLike[str]) -> bool:
    """Whether a file has values of more than eight bits and does not say which is white; not where it cannot be read."""
    name = os.fspath(path)
    try:
        with _image_errors(name):
            with Path(name).open("rb") as stream:
                start = stream.read(25)
            # Most files are of these two kinds; there may be a hundred thousand.
            if start.startswith(b"\xff\xd8\xff") or (
                start.startswith(b"\x89PNG") and start[12:16] == b"IHDR" and start[24:] <= b"\x08"
            ):
                return False
            opened = _open(name)
            if opened is None:
                return read_header(name).needs_range
            with opened:
                samples = _samples_of(opened, name)
                return samples.is_deep and samples.certain is None
    except ImageError:
        return False


@dataclass(frozen=True)
class Decoded:
    """An image out of its file.

    Attributes:
        image: upright RGB of eight bits.
        orientation: that the file says, 1 to 8.
        image_hw: height and width of the upright image; where a draft was asked for, of the whole one.
    """

    image: Image.Image
    orientation: int
    image_hw: tuple[int, int]


def decode(
    path: str | os.PathLike[str],
    pixels: PixelSettings = PLAIN,
    *,
    admit: Callable[[int], object] | None = None,
    draft: Callable[[tuple[int, int]], float] | None = None,
) -> Decoded:
    """Decode a file as an upright image of eight-bit RGB; see `refseg.images.read_image`.

    Args:
        path: of the file.
        pixels: how deep values and bands are read.
        admit: told how many pixels there are before they are decoded; it may wait until there is room for them.
        draft: told height and width of the upright image, says how much of its size is enough: a JPEG may come smaller, but no
            smaller than this.

    Raises:
        ImageError: the file is missing, truncated, empty, or of no format that is known.
    """
    name = os.fspath(path)
    with _image_errors(name):
        opened = _open(name)
        if opened is None:
            return _decode_bands(name, pixels, admit)
        with opened:
            orientation = _orientation_of(opened, name)  # before loading: Pillow turns a TIFF then, and forgets its tag
            samples = _samples_of(opened, name)
            if samples.is_for_tifffile or (pixels.channels is not None and samples.num_bands > 3):
                return _decode_bands(name, pixels, admit)
            if samples.num_bands > 3 and opened.mode == "RGB":
                say_first_three(samples.num_bands)
            image_hw = _hw_of(opened, orientation)
            if admit is not None:
                admit(opened.width * opened.height)
            if draft is not None:
                scale = draft(image_hw)
                opened.draft(None, (max(1, int(opened.width * scale)), max(1, int(opened.height * scale))))
            try:
                loaded = _load(opened, name)
            except OSError:
                if opened.format != "TIFF" or not samples.is_deep:
                    raise
                return _decode_bands(name, pixels, admit)
            upright = _turned(loaded, orientation)
            if draft is None:
                image_hw = upright.height, upright.width
            if not samples.is_deep:
                return Decoded(to_rgb(upright), orientation, image_hw)
            return Decoded(_scaled(upright, samples, pixels, name, orientation), orientation, image_hw)


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
    with _image_errors(name):
        opened = _open(name)
        if opened is None:
            return _range_of_bands(name, channels)
        with opened:
            samples = _samples_of(opened, name)
            if samples.is_for_tifffile or (channels is not None and samples.num_bands > 3):
                return _range_of_bands(name, channels)
            if not samples.is_deep or samples.certain or samples.said:
                return samples.certain or samples.said
            opened.load()
            return _recorded(opened, samples)


@dataclass(frozen=True)
class _Samples:
    """What kind of values a file holds.

    Attributes:
        is_deep: more than eight bits.
        num_bands: of a TIFF whose bands are no ordinary picture; else 3.
        wide: the raw mode of colours of 16 bits, of which Pillow gives the higher byte; "" for all others.
        certain: the range, where no other can be meant.
        said: the range, where the file claims one; many programs write what the one image happens to hold.
        nodata: the value that stands for none.
        is_unsigned: whole numbers of 32 bits of which Pillow makes negative ones.
    """

    is_deep: bool = False
    num_bands: int = 3
    wide: str = ""
    certain: Range | None = None
    said: Range | None = None
    nodata: float | None = None
    is_unsigned: bool = False

    @property
    def is_for_tifffile(self) -> bool:
        """Whether Pillow mistakes the bytes of its colours."""
        return bool(self.wide) and ";16" not in self.wide


def _open(name: str) -> Image.Image | None:
    """The opened file; None for a TIFF that Pillow does not know."""
    try:
        return Image.open(name)
    except UnidentifiedImageError:
        with Path(name).open("rb") as stream:
            start = stream.read(4)
        if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        raise


def _orientation_of(opened: Image.Image, name: str) -> int:
    """The orientation stored in a file that was opened and is not loaded; 1 where EXIF is damaged, as browsers do."""
    try:
        if opened.format == "PNG" and "exif" not in opened.info and not _png_facts(name).late_text:
            # Pillow would decode the whole image to look for what may follow it.
            exif = Image.Image.getexif(opened)
        else:
            exif = opened.getexif()
        value = exif.get(ORIENTATION, 1)
    except (struct.error, SyntaxError, ValueError, KeyError, TypeError, IndexError):
        return 1
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _hw_of(opened: Image.Image, orientation: int) -> tuple[int, int]:
    """Height and width of the upright image, before it is loaded."""
    # Of a TIFF with the tag, not of one with XMP alone, Pillow says the upright size.
    tags: Any = getattr(opened, "tag_v2", {}) if opened.format == "TIFF" else {}
    if tags.get(ORIENTATION) in SWAPPED:
        return opened.height, opened.width
    return _upright((opened.height, opened.width), orientation)


def _upright(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    return stored_hw[::-1] if orientation in SWAPPED else stored_hw


def _turned(loaded: Image.Image, orientation: int) -> Image.Image:
    """The upright image; Pillow has turned a TIFF already."""
    if loaded.format == "TIFF" or orientation not in TURNS:
        return loaded
    return loaded.transpose(TURNS[orientation])


def _samples_of(opened: Image.Image, name: str) -> _Samples:
    """What kind of values a file holds that was opened and is not loaded."""
    raw = _raw_mode(opened)
    if opened.format == "TIFF":
        return _tiff_samples(opened.tag_v2, opened, raw)  # type: ignore[attr-defined]
    if opened.format == "PNG" and ";16" in raw:
        samples = _Samples(True, wide="" if is_deep(opened.mode) else raw)
        return replace(samples, certain=_png_range(samples, name))
    if is_deep(opened.mode):
        return _Samples(True, certain=WHOLE if opened.format in SCALED else None)
    return _Samples()


def _tiff_samples(tags: Any, opened: Image.Image, raw: str) -> _Samples:
    bits = tags.get(BITS, (1,))
    deepest = max(bits) if isinstance(bits, tuple) else bits
    num_bands = int(tags.get(SAMPLES, 1))
    photometric = tags.get(PHOTOMETRIC)
    if (photometric in COLOURED and num_bands <= 3) or photometric == 5:
        num_bands = 3
    elif num_bands < 3 and getattr(opened, "is_animated", False):
        num_bands = 4  # one to a page, as OME-TIFF has them: how many there are takes longer to find out
    if deepest <= 8 and not is_deep(opened.mode):
        return _Samples(num_bands=num_bands)
    is_float = opened.mode == "F" or 3 in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1))
    return _Samples(
        True,
        num_bands,
        raw if not is_deep(opened.mode) else "",
        (0.0, 2.0**deepest - 1) if 8 < deepest < 16 and not is_float else None,
        tiff_range(tags.get, is_float),
        tiff_nodata(tags.get(NODATA)),
        deepest == 32 and not is_float and 1 in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)),
    )


def tiff_range(tag: Callable[[int], Any], is_float: bool) -> Range | None:
    """The range that a TIFF claims, where it does.

    Args:
        tag: gives the value of a tag, or None.
        is_float: whether its values are floats.
    """
    lowest, highest = (_extreme(tag(name), pick) for name, pick in ((LOWEST, min), (HIGHEST, max)))
    if highest is not None and (lowest or 0.0) < highest:
        return lowest or 0.0, highest
    lowest, highest = (_extreme(tag(name), pick) for name, pick in ((LEAST, min), (GREATEST, max)))
    if highest is not None and (lowest or 0.0) < highest:
        # What the image holds, not what it could hold.
        return snapped(lowest or 0.0, highest, is_float)
    return None


def tiff_nodata(text: Any) -> float | None:
    """The number that stands for no measurement, as GDAL writes it; None for none."""
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None


def _extreme(values: Any, pick: Callable[..., float]) -> float | None:
    try:
        return None if values is None else float(pick(np.atleast_1d(values).tolist()))
    except (TypeError, ValueError):
        return None


def _raw_mode(opened: Image.Image) -> str:
    """How pixels lie in the file, in Pillow's words."""
    tiles = getattr(opened, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _load(opened: Image.Image, name: str) -> Image.Image:
    """Load an opened image; of a JPEG without its end marker the one that it is with it."""
    try:
        opened.load()
    except OSError as error:
        if opened.format != "JPEG" or "truncated" not in str(error):
            raise
        content = Path(name).read_bytes().rstrip(b"\xff")
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


def _scaled(upright: Image.Image, samples: _Samples, pixels: PixelSettings, name: str, orientation: int) -> Image.Image:
    """The eight-bit RGB image of deep values."""
    given = samples.certain or pixels.pixel_range or samples.said
    if not samples.wide:
        values = _plain_values(upright, samples)
        eight = to_eight_bits(values, given or _say_own_range(range_of(values, samples.nodata)), samples.nodata)
        return Image.fromarray(eight).convert("RGB")
    pixel_range = given or _say_own_range(_recorded(upright, samples))
    if pixel_range == WHOLE:
        return to_rgb(upright)
    values = _wide_values(upright, samples, name, orientation)
    eight = to_eight_bits(values, pixel_range, samples.nodata)
    return Image.fromarray(eight[..., 0] if eight.shape[2] < 3 else np.ascontiguousarray(eight[..., :3])).convert("RGB")


def _recorded(loaded: Image.Image, samples: _Samples) -> Range:
    """The range in which the values of a loaded image are likely to have been recorded."""
    if not samples.wide:
        return range_of(_plain_values(loaded, samples), samples.nodata)
    # The higher byte tells enough: every depth ends at a whole one. Alpha does not count.
    high = np.asarray(loaded)[..., : 1 if samples.wide.startswith("LA") else 3]
    return snapped(0, int(high.max(initial=0)) * 256 + 255, False)


def _plain_values(loaded: Image.Image, samples: _Samples) -> NDArray[Any]:
    """(H, W) values of a loaded image of one band."""
    values = np.asarray(loaded)
    return values.view(np.uint32) if samples.is_unsigned and values.dtype == np.int32 else values


def _wide_values(upright: Image.Image, samples: _Samples, name: str, orientation: int) -> NDArray[np.uint16]:
    """(H, W, C) colours of 16 bits: the file is read once more, for the lower bytes."""
    high = np.asarray(upright)
    with Image.open(name) as again:
        if samples.wide == "LA;16B":
            again.tile = [tile._replace(args="RGBA") for tile in again.tile]
            low = np.asarray(_turned(_load(again, name), orientation))[..., 1:2]
            high = high[..., :1]
        else:
            again.tile = [_other_byte(tile) for tile in again.tile]
            low = np.asarray(_turned(_load(again, name), orientation))
    values: NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return values


def _other_byte(tile: Any) -> Any:
    """A tile whose decoder takes the other byte of each value."""
    raw = tile.args if isinstance(tile.args, str) else tile.args[0]
    base, separator, order = raw.partition(";16")
    if not separator:
        raise ValueError("of its colours only eight bits can be read")
    order = order.replace("N", "L" if sys.byteorder == "little" else "B")
    other = f"{base};16{'B' if order == 'L' else 'L'}"
    return tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))


def _decode_bands(name: str, pixels: PixelSettings, admit: Callable[[int], object] | None) -> Decoded:
    """A TIFF that Pillow does not read as it is wanted."""
    from . import tiff_bands

    found = tiff_bands.describe(name)
    if admit is not None:
        admit(found.image_hw[0] * found.image_hw[1] * max(1, found.num_bands * found.dtype.itemsize // 4))
    values = tiff_bands.read(name, found, pixels.channels)
    if values.dtype != np.uint8:
        pixel_range = pixels.pixel_range or found.said or _say_own_range(range_of(values, found.nodata))
        values = to_eight_bits(values, pixel_range, found.nodata)
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] < 3 else values[..., :3])).convert("RGB")
    if found.orientation in TURNS:
        image = image.transpose(TURNS[found.orientation])
    return Decoded(image, found.orientation, (image.height, image.width))


def _range_of_bands(name: str, channels: tuple[int, ...] | None) -> Range | None:
    from . import tiff_bands

    found = tiff_bands.describe(name)
    if found.dtype == np.uint8:
        return None
    return found.said or range_of(tiff_bands.read(name, found, channels), found.nodata)


@dataclass(frozen=True)
class _PngFacts:
    """What Pillow does not say of a PNG.

    Attributes:
        significant: bits of a sample that count; 0 where the file does not say.
        late_text: whether anything that may hold an orientation follows the image.
    """

    significant: int = 0
    late_text: bool = False


def _png_facts(name: str) -> _PngFacts:
    significant, late, in_image = 0, False, False
    with Path(name).open("rb") as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                break
            if kind == b"sBIT" and 1 <= length <= 4:
                bits = stream.read(length)
                # The last of two or four is that of alpha.
                significant = max(bits[:-1] if length in (2, 4) else bits)
                length = 0
            in_image = in_image or kind == b"IDAT"
            late = late or (in_image and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
            stream.seek(length + 4, os.SEEK_CUR)
    return _PngFacts(significant, late)


def _png_range(samples: _Samples, name: str) -> Range | None:
    """The range of a PNG that says how many bits count.

    By the standard the values have been scaled to 16 bits all the same, so that the bits below repeat the upper ones or are 0.
    Files in which they do not were written by programs that only note the depth.
    """
    bits = _png_facts(name).significant
    if not 8 < bits < 16:
        return None
    with Image.open(name) as again:
        again.load()
        values = _wide_values(again, samples, name, 1)[..., :3] if samples.wide else np.asarray(again)
    rest, below = 16 - bits, values & ((1 << (16 - bits)) - 1)
    is_scaled = not below.any() or bool((below == values >> (16 - rest)).all())
    return WHOLE if is_scaled else (0.0, 2.0**bits - 1)


@lru_cache(maxsize=64)
def _say_own_range(pixel_range: Range) -> Range:
    """Say what an image is taken for that was read alone, once for each range."""
    logger.warning(
        "An image of more than 8 bits does not say what is white, and no range was given: on its own it is taken to run from "
        "%g to %g; pixel_range= says otherwise",
        *pixel_range,
    )
    return pixel_range


@lru_cache(maxsize=64)
def say_first_three(num_bands: int) -> None:
    """Say what becomes of more than three bands, once for each number of them."""
    logger.warning(
        "Of images of %d bands the first three are taken for red, green and blue; channels= says otherwise", num_bands
    )


@contextmanager
def _image_errors(name: str, header: bool = False) -> Iterator[None]:
    """Whatever a file does to its decoder is an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(name, "the file does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageError(name, "this is not an image that can be read") from error
    except ERRORS as error:
        reason = "this is not an image that can be read" if header else f"the image cannot be read ({error})"
        raise ImageError(name, reason) from error
