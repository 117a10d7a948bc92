"""What kind of values an image file holds: how deep, how many bands, and which of them is white by the file's own word.

Read from headers alone, but for a PNG that notes how many of its 16 bits count. No torch.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..regular_files import open_regular
from .pixels import Range, is_deep, most_of, range_of, snapped

logger = logging.getLogger(__name__)

SCALED = {"JPEG2000", "PPM"}
"""Formats whose deep values Pillow scales to 16 bits by what the file says."""
BITS, SAMPLE_FORMAT, SAMPLES, PHOTOMETRIC = 258, 339, 277, 262
LEAST, GREATEST, LOWEST, HIGHEST, NODATA = 280, 281, 340, 341, 42113
"""TIFF tags: the least and greatest value in use, the lowest and highest there can be, and the one that stands for none."""
COLOURED = (2, 5, 6, 8, 9, 10)
"""Photometric interpretations whose bands are the parts of a colour."""
WHITE_IS_LEAST = 0
"""The photometric interpretation of TIFFs whose least value is white, as in faxes and X-rays."""
SIGNED = 2
"""The sample format of whole numbers with a sign."""
IN_MACHINE_ORDER = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
"""What to take libtiff's values for, by what Pillow takes them for: libtiff gives them in the machine's order of bytes."""
WHOLE: Range = (0.0, 65535.0)


@dataclass(frozen=True)
class Meaning:
    """What the values of a TIFF mean, by its own word: the same whoever reads them.

    Attributes:
        dtype: of a value.
        is_deep: it takes a range to make eight bits of them; not of whole numbers of at most eight bits without a sign.
        certain: the range, where no other can be meant.
        said: the range, where the file claims one; many programs write what the one image happens to hold.
        nodata: the value that stands for none; of deep values alone, as readers of pictures do.
        is_inverted: the low end of the range is white.
    """

    dtype: np.dtype[Any]
    is_deep: bool
    certain: Range | None
    said: Range | None
    nodata: float | None
    is_inverted: bool


def tiff_meaning(tag: Callable[[int], Any], dtype: np.dtype[Any], bits: int) -> Meaning:
    """What the values of a TIFF mean.

    Args:
        tag: gives the value of a tag, or None.
        dtype: of a value.
        bits: that a value takes in the file.
    """
    is_whole, is_inverted = dtype.kind in "bu", tag(PHOTOMETRIC) == WHITE_IS_LEAST
    certain = (0.0, 2.0**bits - 1) if is_whole and bits < 16 else None
    if is_whole and bits <= 8:
        return Meaning(dtype, False, certain, None, None, is_inverted)
    return Meaning(dtype, True, certain, _tiff_range(tag, dtype), _tiff_nodata(tag(NODATA)), is_inverted)


@dataclass(frozen=True)
class Samples:
    """What kind of values a file holds.

    Attributes:
        is_deep: more than eight bits, or eight with a sign.
        num_bands: of a TIFF whose bands are no ordinary picture; else 3.
        wide: the raw mode of colours of 16 bits, of which Pillow gives the higher byte; "" for all others.
        certain: the range, where no other can be meant.
        said: the range, where the file claims one; many programs write what the one image happens to hold.
        nodata: the value that stands for none.
        dtype: of a value of one band, where Pillow may make another of it; None where it does not.
        is_inverted: the low end of the range is white; never where Pillow turns the values round itself.
    """

    is_deep: bool = False
    num_bands: int = 3
    wide: str = ""
    certain: Range | None = None
    said: Range | None = None
    nodata: float | None = None
    dtype: np.dtype[Any] | None = None
    is_inverted: bool = False

    @property
    def is_for_tifffile(self) -> bool:
        """Whether Pillow mistakes the bytes of its colours."""
        return bool(self.wide) and ";16" not in self.wide


def samples_of(opened: Image.Image, name: str) -> Samples:
    """What kind of values a file holds that was opened and is not loaded."""
    raw = _raw_mode(opened)
    if opened.format == "TIFF":
        return _tiff_samples(opened.tag_v2, opened, raw)  # type: ignore[attr-defined]
    if opened.format == "PNG" and ";16" in raw:
        samples = Samples(True, wide="" if is_deep(opened.mode) else raw)
        return replace(samples, certain=_png_range(samples, name))
    if is_deep(opened.mode):
        return Samples(True, certain=WHOLE if opened.format in SCALED else None)
    return Samples()


def _tiff_samples(tags: Any, opened: Image.Image, raw: str) -> Samples:
    bits = tags.get(BITS, (1,))
    deepest = max(bits) if isinstance(bits, tuple) else bits
    num_bands = int(tags.get(SAMPLES, 1))
    photometric = tags.get(PHOTOMETRIC)
    if (photometric in COLOURED and num_bands <= 3) or photometric == 5:
        num_bands = 3
    elif num_bands < 3 and getattr(opened, "is_animated", False):
        num_bands = 4  # one to a page, as OME-TIFF has them: how many there are takes longer to find out
    said = tiff_meaning(tags.get, _dtype_of(tags, opened.mode, deepest), deepest)
    # Inks of 16 bits are prints, which fill them: Pillow's eight are enough.
    if not said.is_deep or opened.mode == "CMYK":
        return Samples(num_bands=num_bands)
    is_wide = deepest > 8 and not is_deep(opened.mode)
    return Samples(True, num_bands, raw if is_wide else "", said.certain, said.said, said.nodata, said.dtype, said.is_inverted)


def _dtype_of(tags: Any, mode: str, bits: int) -> np.dtype[Any]:
    """The type of a value of a TIFF that Pillow opens."""
    if mode == "F":
        return np.dtype(np.float32)
    size = next((size for size in (1, 2, 4) if bits <= 8 * size), 8)
    return np.dtype(f"{'i' if SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)) else 'u'}{size}")


def in_machine_order(opened: Image.Image) -> Image.Image:
    """An opened file whose compressed values Pillow would turn round once more than they are."""
    tiles: Any = getattr(opened, "tile", None) if opened.format == "TIFF" else None
    if tiles and tiles[0].codec_name == "libtiff":
        mended = [tile._replace(args=(IN_MACHINE_ORDER.get(tile.args[0], tile.args[0]), *tile.args[1:])) for tile in tiles]
        opened.tile = mended  # type: ignore[attr-defined]
    return opened


def _tiff_range(tag: Callable[[int], Any], dtype: np.dtype[Any]) -> Range | None:
    """The range that a TIFF claims, where it does."""
    lowest, highest = (_extreme(tag(name), pick) for name, pick in ((LOWEST, min), (HIGHEST, max)))
    if highest is not None and (lowest or 0.0) < highest:
        return lowest or 0.0, highest
    lowest, highest = (_extreme(tag(name), pick) for name, pick in ((LEAST, min), (GREATEST, max)))
    if highest is not None and (lowest or 0.0) < highest:
        # What the image holds, not what it could hold.
        return snapped(lowest or 0.0, highest, dtype.kind == "f", most_of(dtype))
    return None


def _tiff_nodata(text: Any) -> float | None:
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


def recorded_range(loaded: Image.Image, samples: Samples) -> Range:
    """The range in which the values of a loaded image are likely to have been recorded."""
    if not samples.wide:
        return range_of(plain_values(loaded, samples), samples.nodata)
    # The higher byte tells enough: every depth ends at a whole one. Alpha does not count.
    high = np.asarray(loaded)[..., : 1 if samples.wide.startswith("LA") else 3]
    return snapped(0, int(high.max(initial=0)) * 256 + 255, False)


def plain_values(loaded: Image.Image, samples: Samples) -> NDArray[Any]:
    """(H, W) values of a loaded image of one band."""
    values = np.asarray(loaded)
    # Pillow makes int32 of several types, and bytes without a sign of those that have one.
    return values if samples.dtype is None else values.astype(samples.dtype, copy=False)


def wide_values(
    upright: Image.Image, samples: Samples, name: str, turn: Callable[[Image.Image], Image.Image]
) -> NDArray[np.uint16]:
    """(H, W, C) colours of 16 bits: the file is read once more, for the lower bytes.

    Args:
        upright: with the higher bytes, as Pillow reads them.
        samples: of the file.
        name: path of the file.
        turn: makes a loaded image upright.
    """
    high = np.asarray(upright)
    with open_regular(name) as stream, Image.open(stream) as again:
        if samples.wide == "LA;16B":
            again.tile = [tile._replace(args="RGBA") for tile in again.tile]
            again.load()
            low = np.asarray(turn(again))[..., 1:2]
            high = high[..., :1]
        else:
            again.tile = [_other_byte(tile) for tile in again.tile]
            again.load()
            low = np.asarray(turn(again))
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


@dataclass(frozen=True)
class _PngFacts:
    """What Pillow does not say of a PNG.

    Attributes:
        significant: bits of a sample that count; 0 where the file does not say.
        late_text: whether anything that may hold an orientation follows the image.
    """

    significant: int = 0
    late_text: bool = False


def png_facts(name: str) -> _PngFacts:
    """Walk through the chunks of a PNG, without reading its pixels."""
    significant, late, in_image = 0, False, False
    with open_regular(name) as stream:
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


def _png_range(samples: Samples, name: str) -> Range | None:
    """The range of a PNG that says how many bits count.

    By the standard the values have been scaled to 16 bits all the same, so that the bits below repeat the upper ones or are 0.
    Files in which they do not were written by programs that only note the depth.
    """
    bits = png_facts(name).significant
    if not 8 < bits < 16:
        return None
    with open_regular(name) as stream, Image.open(stream) as again:
        again.load()
        values = wide_values(again, samples, name, lambda image: image)[..., :3] if samples.wide else np.asarray(again)
    rest, below = 16 - bits, values & ((1 << (16 - bits)) - 1)
    is_scaled = not below.any() or bool((below == values >> (16 - rest)).all())
    return WHOLE if is_scaled else (0.0, 2.0**bits - 1)


@lru_cache(maxsize=64)
def say_first_three(num_bands: int) -> None:
    """Say what becomes of more than three bands, once for each number of them."""
    logger.warning(
        "Of images of %d bands the first three are taken for red, green and blue; channels= says otherwise", num_bands
    )


@lru_cache(maxsize=64)
def say_first_page(num_pages: int) -> None:
    """Say what becomes of pages that are no channels, once for each number of them."""
    logger.warning("Of TIFFs of %d pages the first is taken; channels= takes one of the others, or three", num_pages)
