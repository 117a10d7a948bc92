"""Small JPEG pictures of single objects, for lists and panels: made from files, without FiftyOne and without torch.

A JPEG file is decoded at the smallest of its own scales that is fine enough, so that a photograph of twelve megapixels costs
tens of milliseconds and not hundreds. The last pictures made are kept in memory.

Memory: a PNG of eight bits takes some 20 MB, whatever its size, and so does a JPEG that is shown as a whole. Of any other
image what Pillow decodes is held once, 4 bytes a pixel, and what its decoder takes on the way; of those of more than LARGE
pixels one at a time.
"""

from __future__ import annotations

import base64
import math
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..notebook import CROP_SIDE, Picture
from .drawing import INK, fit, inner_edge, outline_object
from .files import decode_part
from .headers import read_image_hw
from .parts import Box, Wanted

SIDE = 96
MARGIN = 1.2
"""Side of a thumbnail's square, as a multiple of the box's longer side: what references are cropped to."""
MAX_MAGNIFICATION = 4.0
"""A small object is shown with more of its surroundings instead of being blown up further."""
QUALITY = 85
KEPT = 1024
"""Pictures in memory, of 3 to 40 kilobytes each."""
LARGE = 20_000_000
"""Pixels of an image that is decoded alone, where it has to be decoded as a whole."""
_one_large = threading.Lock()


@dataclass(frozen=True)
class _Framing:
    """How much of an image is shown, and how large.

    Attributes:
        width: of the picture in pixels.
        height: of the picture in pixels.
        margin: sides of what is shown at least, as multiples of the box's.
        max_magnification: pixels of the picture for one of the image, at most.
    """

    width: int
    height: int
    margin: float
    max_magnification: float


@dataclass(frozen=True)
class _Outline:
    """A mask that can be the key of a cache.

    Attributes:
        shape: rows and columns.
        bits: of the mask, row by row, packed.
    """

    shape: tuple[int, int]
    bits: bytes


def crop_thumbnail(
    path: str | os.PathLike[str],
    box: Sequence[float],
    *,
    side: int = SIDE,
    margin: float = MARGIN,
    mask: NDArray[np.bool_] | None = None,
) -> bytes:
    """A square picture of one object, which fills it but for a margin.

    The square lies around the box's middle, and is moved into the image where it leaves it.

    Args:
        path: of the image.
        box: x, y, width, height, as shares of the upright image.
        side: of the picture in pixels.
        margin: side of the square as a multiple of the box's longer side.
        mask: (h, w) bool over the box, to be outlined; None for no outline.

    Returns:
        A JPEG file.

    Raises:
        ImageError: the file is missing or no image, or the box is not finite.
    """
    return _picture(path, box, mask, _Framing(side, side, margin, float("inf")))


def object_picture(
    path: str | os.PathLike[str],
    relative_box: Sequence[float],
    mask: NDArray[np.bool_] | None,
    *,
    width: int = 420,
    height: int = 300,
    context: float = 2.0,
    most: float = MAX_MAGNIFICATION,
    outlined: bool = True,
) -> bytes:
    """A picture of one object in its surroundings, outlined.

    Args:
        path: of the image.
        relative_box: x, y, width, height, as shares of the upright image.
        mask: (h, w) bool over the box; None outlines the box.
        width: of the picture in pixels.
        height: of the picture in pixels; the image keeps its proportions, and what it leaves free is dark.
        context: sides of what is shown as multiples of the box's; more where the picture has room, or the object is small.
        most: pixels of the picture for one of the image, at most.
        outlined: False leaves the outline out, and shows the same part of the image.

    Returns:
        A JPEG file.

    Raises:
        ImageError: the file is missing or no image, or the box is not finite.
    """
    outline = np.ones((1, 1), bool) if mask is None else mask
    return _picture(path, relative_box, outline if outlined else None, _Framing(width, height, context, most))


def whole_picture(path: str | os.PathLike[str], *, side: int = 1280) -> bytes:
    """A picture of a whole image, its longer side no longer than this many pixels, and never larger than the image.

    Args:
        path: of the image.
        side: pixels.

    Returns:
        A JPEG file.

    Raises:
        ImageError: the file is missing or no image.
    """
    height, width = read_image_hw(path)
    scale = min(1.0, side / max(height, width))
    framing = _Framing(max(1, round(width * scale)), max(1, round(height * scale)), 1.0, 1.0)
    return _picture(path, (0.0, 0.0, 1.0, 1.0), None, framing)


def mask_picture(mask: NDArray[np.bool_], colour: tuple[int, int, int], *, side: int = 640) -> bytes:
    """A mask as a transparent picture to lay over its box: filled lightly, with a firm edge.

    Args:
        mask: (h, w) bool.
        colour: red, green and blue, 0 to 255.
        side: of the picture's longer side at most, pixels.

    Returns:
        A PNG file.
    """
    height, width = mask.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(grey) >= 128
    picture = np.zeros((*inside.shape, 4), np.uint8)
    picture[inside] = (*colour, 90)
    picture[inner_edge(inside, 1)] = (*colour, 255)
    stream = BytesIO()
    Image.fromarray(picture, "RGBA").save(stream, "PNG")
    return stream.getvalue()


def crop_picture(
    path: str, box: Sequence[float] | None, title: str, text: str = "", mask: NDArray[np.bool_] | None = None
) -> Picture:
    """One object for a report in a notebook; words alone where its image cannot be read, or nobody knows where it is."""
    try:
        source = as_data_uri(crop_thumbnail(path, box, side=CROP_SIDE, mask=mask)) if path and box is not None else ""
    except ImageError as error:
        return Picture("", title, f"{text}: {error.reason}" if text else error.reason)
    return Picture(source, title, text)


def as_data_uri(picture: bytes) -> str:
    r"""A JPEG or PNG file as the address of itself, which the App shows like any image's.

    Example:
        >>> as_data_uri(b"\xff\xd8\xff")
        'data:image/jpeg;base64,/9j/'
    """
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def as_jpeg(picture: Image.Image) -> bytes:
    """An RGB picture as a JPEG file."""
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _picture(path: str | os.PathLike[str], box: Sequence[float], mask: NDArray[np.bool_] | None, framing: _Framing) -> bytes:
    name = os.fspath(path)
    try:
        found = os.stat(name)
    except FileNotFoundError as error:
        raise ImageError(name, "the file does not exist") from error
    except (OSError, ValueError) as error:
        raise ImageError(name, f"the file cannot be read ({error})") from error
    x, y, w, h = (float(number) for number in box)
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ImageError(name, f"the box {tuple(box)} of the object to show is not finite")
    # Of a file that was turned in place the date may have been kept.
    changed = found.st_mtime_ns, found.st_ctime_ns, found.st_size
    return _cached(name, changed, (x, y, w, h), _as_outline(mask, framing), framing)


def _as_outline(mask: NDArray[np.bool_] | None, framing: _Framing) -> _Outline | None:
    """The mask no finer than it will be drawn, so that keeping it costs little."""
    if mask is None or not mask.size:
        return None
    rows, columns = min(mask.shape[0], framing.height), min(mask.shape[1], framing.width)
    if mask.shape != (rows, columns):
        shrunk = Image.fromarray(mask.astype(np.uint8) * 255).resize((columns, rows), Image.Resampling.BOX)
        mask = np.asarray(shrunk) >= 128
    return _Outline((rows, columns), np.packbits(mask).tobytes())


@lru_cache(maxsize=KEPT)
def _cached(name: str, changed: tuple[int, ...], box: Box, outline: _Outline | None, framing: _Framing) -> bytes:
    """The picture of a file as it was at these times of change, in nanoseconds, and of this size."""

    # How fine is enough depends on what is shown, and that on the size of the upright image.
    def choose(image_hw: tuple[int, int]) -> Wanted:
        window = _window(box, (image_hw[1], image_hw[0]), framing)
        return Wanted(window, min(framing.width / (window[2] - window[0]), framing.height / (window[3] - window[1])))

    with ExitStack() as room:
        decoded = decode_part(name, choose, admit=lambda size: size > LARGE and room.enter_context(_one_large))
    image, image_wh = decoded.image, (decoded.image_hw[1], decoded.image_hw[0])
    wanted = choose(decoded.image_hw)
    window = wanted.window
    width = max(1, round((window[2] - window[0]) * wanted.scale))
    height = max(1, round((window[3] - window[1]) * wanted.scale))
    left, top, right, bottom = decoded.box
    across, down = image.width / (right - left), image.height / (bottom - top)
    part = ((window[0] - left) * across, (window[1] - top) * down, (window[2] - left) * across, (window[3] - top) * down)
    part = (max(0.0, part[0]), max(0.0, part[1]), min(part[2], image.width), min(part[3], image.height))
    picture = image.resize((width, height), Image.Resampling.BICUBIC, box=part, reducing_gap=3.0)
    if outline is not None:
        picture = outline_object(picture, _mask_in(outline, box, image_wh, window, picture.size))
    return as_jpeg(fit(picture, framing.width, framing.height, INK))


def _window(box: Box, image_wh: tuple[int, int], framing: _Framing) -> Box:
    """What is shown: xyxy pixels of the upright image, of the picture's proportions where the image is large enough."""
    width, height = image_wh
    x, y, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    scale = max(w * framing.margin / framing.width, h * framing.margin / framing.height)  # image pixels a picture's pixel
    scale = max(scale, 1 / framing.max_magnification, 1 / max(framing.width, framing.height))
    shown_w, shown_h = min(width, framing.width * scale), min(height, framing.height * scale)
    left = min(max(0.0, x + w / 2 - shown_w / 2), width - shown_w)
    top = min(max(0.0, y + h / 2 - shown_h / 2), height - shown_h)
    return left, top, left + shown_w, top + shown_h


def _mask_in(
    outline: _Outline, box: Box, image_wh: tuple[int, int], window: Box, picture_wh: tuple[int, int]
) -> NDArray[np.bool_]:
    """(height, width) bool: the mask at its place in the picture of a window."""
    rows, columns = outline.shape
    mask = np.unpackbits(np.frombuffer(outline.bits, np.uint8), count=rows * columns).reshape(rows, columns) * 255
    scale_x, scale_y = picture_wh[0] / (window[2] - window[0]), picture_wh[1] / (window[3] - window[1])
    left, top = round((box[0] * image_wh[0] - window[0]) * scale_x), round((box[1] * image_wh[1] - window[1]) * scale_y)
    size = max(1, round(box[2] * image_wh[0] * scale_x)), max(1, round(box[3] * image_wh[1] * scale_y))
    whole = Image.new("L", picture_wh)
    whole.paste(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR), (left, top))
    return np.asarray(whole) >= 128
