"""A part of an image, made smaller as soon as it is decoded, before it is converted and turned: see `files.decode_part`.

Nothing here holds a second copy of the image: it is gone through in strips.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from .headers import SWAPPED
from .pixels import to_rgb

Box = tuple[float, float, float, float]

GAP = 3.0
"""Pixels of what is decoded for one that is shown, at least, so that the last step of making it smaller can be a good one."""
SUPPORT = 3.0
"""Pixels of the picture around it that the last step looks at."""
PIXELS_A_STRIP = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """What is to be seen of an image.

    Attributes:
        window: xyxy pixels of the upright image.
        scale: pixels of the picture for one of the image.
    """

    window: Box
    scale: float


@dataclass(frozen=True)
class Part:
    """A part of an image as it is stored, on whole pixels.

    Attributes:
        left: first column.
        top: first row.
        right: column after the last.
        bottom: row after the last.
        factor: columns and rows that become one; left and top are multiples of it.
    """

    left: int
    top: int
    right: int
    bottom: int
    factor: int

    @property
    def box(self) -> Box:
        """Xyxy that the smaller picture covers: its last pixels may lie partly beyond the image."""
        width, height = self.size
        return self.left, self.top, self.left + width * self.factor, self.top + height * self.factor

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the smaller picture."""
        return math.ceil((self.right - self.left) / self.factor), math.ceil((self.bottom - self.top) / self.factor)


def stored_part(wanted: Wanted, orientation: int, stored_wh: tuple[int, int], decoded_wh: tuple[int, int]) -> Part:
    """What has to be decoded of an image to show what is wanted.

    Args:
        wanted: of the upright image.
        orientation: how the stored image is to be turned, 1 to 8.
        stored_wh: its width and height.
        decoded_wh: those at which it is decoded, which may be smaller.
    """
    upright_wh = stored_wh[::-1] if orientation in SWAPPED else stored_wh
    x0, y0, x1, y1 = turned_box(wanted.window, orientation, upright_wh, back=True)
    across, down = decoded_wh[0] / stored_wh[0], decoded_wh[1] / stored_wh[1]
    factor = max(1, math.floor(min(across, down) / wanted.scale / GAP))
    more = SUPPORT / wanted.scale
    left, right = ((x0 - more) * across, (x1 + more) * across)
    top, bottom = ((y0 - more) * down, (y1 + more) * down)
    left, top = (max(0, math.floor(side / factor)) * factor for side in (left, top))
    return Part(left, top, min(decoded_wh[0], math.ceil(right)), min(decoded_wh[1], math.ceil(bottom)), factor)


def upright_box(part: Part, orientation: int, stored_wh: tuple[int, int], decoded_wh: tuple[int, int]) -> Box:
    """Xyxy pixels of the upright image that a part covers, once it is turned; arguments as in stored_part."""
    across, down = stored_wh[0] / decoded_wh[0], stored_wh[1] / decoded_wh[1]
    x0, y0, x1, y1 = part.box
    upright_wh = stored_wh[::-1] if orientation in SWAPPED else stored_wh
    return turned_box((x0 * across, y0 * down, x1 * across, y1 * down), orientation, upright_wh)


def turned_box(box: Box, orientation: int, upright_wh: tuple[int, int], *, back: bool = False) -> Box:
    """A box of the stored image as one of the upright image, or back.

    Example:
        >>> turned_box((0, 0, 3, 1), 6, (20, 10)), turned_box((19, 0, 20, 3), 6, (20, 10), back=True)
        ((19, 0, 20, 3), (0, 0, 3, 1))
    """
    x0, y0, x1, y1 = box
    width, height = upright_wh
    if orientation in SWAPPED and not back:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    if orientation in SWAPPED and back:
        x0, y0, x1, y1 = y0, x0, y1, x1
    return x0, y0, x1, y1


def strips_of(loaded: Image.Image, part: Part) -> Iterator[tuple[int, Image.Image]]:
    """The first row and the strip, of strips of a decoded image, as `png_strips` gives them; of the rows of a part alone."""
    rows = max(1, PIXELS_A_STRIP // (max(1, part.right - part.left) * part.factor)) * part.factor
    for top in range(part.top, part.bottom, rows):
        yield top, loaded.crop((0, top, loaded.width, min(top + rows, part.bottom)))


def shrunk(strips: Iterable[tuple[int, Image.Image]], part: Part) -> Image.Image:
    """A part of an image, made smaller, as eight-bit RGB.

    Args:
        strips: first row and strip, from the top on, each beginning at a multiple of the factor; asked for as far as is needed.
        part: not empty.
    """
    factor = part.factor
    whole = Image.new("RGB", part.size)
    for top, strip in strips:
        first, last = max(top, part.top), min(top + strip.height, part.bottom)
        if first < last:
            # Converted before it is made smaller: alpha is dropped, and the numbers of a palette are no brightness.
            own = to_rgb(strip.crop((part.left, first - top, part.right, last - top)))
            whole.paste(own.reduce(factor) if factor > 1 else own, (0, (first - part.top) // factor))
        if last >= part.bottom:
            break
    return whole
