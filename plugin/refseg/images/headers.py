"""What a file says of its image, without decoding it: size, orientation and kind of values."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from ..regular_files import open_regular
from .samples import (
    in_machine_order,
    png_facts,
    samples_of,
)

# A large photograph is no attack: only Pillow's error, at twice this size, counts. Set once for the process, because
# warnings.catch_warnings is not safe in the threads that decode images.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

ORIENTATION = 0x0112
"""The EXIF tag."""


SWAPPED = (5, 6, 7, 8)
"""Orientations in which height and width change places."""


SIZE_WHEN_LOADED = {"EPS", "ICNS", "ICO", "PCD", "WMF"}
"""Formats whose size Pillow may change while it loads them."""


TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFFs begin, by the order of their bytes and the width of their addresses."""
ERRORS = (OSError, ValueError, RuntimeError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image.

    Attributes:
        image_hw: height and width of the upright image, as decoding gives it.
        orientation: as stored, 1 to 8.
        is_deep: its values have more than eight bits, or eight with a sign, or Pillow alone cannot read them.
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
    with image_errors(name, header=True), open_image(name) as opened:
        if opened is None:
            from . import tiff_bands

            found = tiff_bands.describe(name)
            unsaid = found.meaning.is_deep and found.meaning.certain is None
            return ImageHeader(upright_hw(found.image_hw, found.orientation), found.orientation, True, unsaid, found.num_bands)
        orientation = orientation_of(opened, name)
        samples = samples_of(opened, name)
        if opened.format in SIZE_WHEN_LOADED:
            opened.load()
        return ImageHeader(
            hw_of(opened, orientation),
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
        with image_errors(name):
            with open_regular(name) as stream:
                start = stream.read(25)
            # Most files are of these two kinds; there may be a hundred thousand.
            if start.startswith(b"\xff\xd8\xff") or (
                start.startswith(b"\x89PNG") and start[12:16] == b"IHDR" and start[24:] <= b"\x08"
            ):
                return False
            with open_image(name) as opened:
                if opened is None:
                    return read_header(name).needs_range
                samples = samples_of(opened, name)
                return samples.is_deep and samples.certain is None
    except ImageError:
        return False


@contextmanager
def open_image(name: str) -> Iterator[Image.Image | None]:
    """The opened file, which is closed at the end of the block; None for a TIFF that Pillow does not know."""
    with open_regular(name) as stream:
        try:
            opened = in_machine_order(Image.open(stream))
        except UnidentifiedImageError:
            stream.seek(0)
            if stream.read(4) not in TIFF_STARTS:
                raise
            opened = None
        if opened is None:
            yield None
        else:
            with opened:
                yield opened


def orientation_of(opened: Image.Image, name: str) -> int:
    """The orientation stored in a file that was opened and is not loaded; 1 where EXIF is damaged, as browsers do."""
    try:
        if opened.format == "PNG" and "exif" not in opened.info and not png_facts(name).late_text:
            # Pillow would decode the whole image to look for what may follow it.
            exif = Image.Image.getexif(opened)
        else:
            exif = opened.getexif()
        value = exif.get(ORIENTATION, 1)
    except (struct.error, SyntaxError, ValueError, KeyError, TypeError, IndexError):
        return 1
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def hw_of(opened: Image.Image, orientation: int) -> tuple[int, int]:
    """Height and width of the upright image, before it is loaded."""
    # Of a TIFF with the tag, not of one with XMP alone, Pillow says the upright size.
    tags: Any = getattr(opened, "tag_v2", {}) if opened.format == "TIFF" else {}
    if tags.get(ORIENTATION) in SWAPPED:
        return opened.height, opened.width
    return upright_hw((opened.height, opened.width), orientation)


def upright_hw(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """The size that an image has once it is turned."""
    return stored_hw[::-1] if orientation in SWAPPED else stored_hw


@contextmanager
def image_errors(name: str, header: bool = False) -> Iterator[None]:
    """Whatever a file does to its decoder is an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        reason = "it is a link to a file that does not exist" if os.path.islink(name) else "the file does not exist"
        raise ImageError(name, reason) from error
    except UnidentifiedImageError as error:
        raise ImageError(name, "this is not an image that can be read") from error
    except ERRORS as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(name, f"the file cannot be read ({error.strerror})") from error
        reason = "this is not an image that can be read" if header else f"the image cannot be read ({error})"
        raise ImageError(name, reason) from error
