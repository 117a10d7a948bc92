"""Pictures for people: masks over images, reference crops, sheets of them. Pillow alone, no FiftyOne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..errors import ShapeError
from ..printing import one_line

# Okabe and Ito's eight, told apart by readers with any colour vision.
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (190, 190, 190),
)
INK, PAPER = (30, 30, 34), (255, 255, 255)
BRIGHT = (255, 225, 40)
"""Of outlines; a dark edge on both sides keeps them visible on bright images too."""


@dataclass(frozen=True, eq=False)
class DrawnObject:
    """One object to draw.

    Attributes:
        box: x0, y0, x1, y1 in whole pixels, far edge excluded.
        mask: (h, w) bool over the box.
        color: index into COLORS, wrapped.
        caption: written above the box; may be empty.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    color: int
    caption: str = ""

    __repr__ = one_line


def draw_objects(image: Image.Image, objects: Sequence[DrawnObject]) -> Image.Image:
    """A copy of an RGB image with each mask tinted, outlined and captioned."""
    canvas = np.asarray(image.convert("RGB")).copy()
    for item in objects:
        x0, y0, x1, y1 = item.box
        color = np.array(COLORS[item.color % len(COLORS)])
        region = canvas[y0:y1, x0:x1]
        mask = item.mask[: region.shape[0], : region.shape[1]]
        region[mask] = (region[mask] * 0.55 + color * 0.45).astype(np.uint8)
        region[_outline(mask)] = color
    picture = Image.fromarray(canvas)
    for item in objects:
        if item.caption:
            _caption(picture, item)
    return picture


def outline_object(image: Image.Image, mask: NDArray[np.bool_], width: int = 2) -> Image.Image:
    """A copy of an RGB image with a bright line around a mask, between two thin dark ones; inside, the object stays to be seen.

    Args:
        image: RGB.
        mask: (H, W) bool, of the image's size.
        width: of the bright line in pixels.

    Raises:
        ShapeError: mask and image differ in size.
    """
    if mask.shape != (image.height, image.width):
        raise ShapeError(f"A mask of {mask.shape} pixels does not fit an image of {(image.height, image.width)}.")
    canvas = np.asarray(image.convert("RGB")).copy()
    shape = Image.fromarray(mask.astype(np.uint8) * 255)
    grown = [np.asarray(shape.filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0 for pixels in (1, 1 + width, 2 + width)]
    canvas[grown[2] & ~mask] = INK
    canvas[grown[1] & ~grown[0]] = BRIGHT
    return Image.fromarray(canvas)


def fit(image: Image.Image, width: int, height: int, ground: tuple[int, int, int] = PAPER) -> Image.Image:
    """The image scaled to fit a box of width by height, centred on paper or a ground of another colour."""
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    page = Image.new("RGB", (width, height), ground)
    page.paste(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return page


def sheet(rows: Sequence[Sequence[Image.Image]], gap: int = 8) -> Image.Image:
    """Rows of pictures on one page; a row is as high as its highest picture."""
    widths = [sum(picture.width for picture in row) + gap * (len(row) - 1) for row in rows]
    heights = [max(picture.height for picture in row) for row in rows]
    page = Image.new("RGB", (max(widths) + 2 * gap, sum(heights) + gap * (len(rows) + 1)), PAPER)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for picture in row:
            page.paste(picture, (x, y))
            x += picture.width + gap
        y += height + gap
    return page


def line_of_text(text: str, width: int, size: int = 18) -> Image.Image:
    """One line of text on paper, width pixels wide."""
    strip = Image.new("RGB", (width, round(size * 1.6)), PAPER)
    ImageDraw.Draw(strip).text((2, round(size * 0.2)), text, INK, ImageFont.load_default(size))
    return strip


def paragraph(text: str, width: int, size: int = 14, color: tuple[int, int, int] = INK) -> Image.Image:
    """Text on paper, width pixels wide, in as many lines as it takes; a word wider than the page runs off it."""
    font = ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    step = round(size * 1.35)
    page = Image.new("RGB", (width, step * len(lines)), PAPER)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((2, number * step), line, color, font)
    return page


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The two outermost pixels of a mask."""
    padded = Image.fromarray(np.pad(mask, 3).astype(np.uint8) * 255)
    core = np.asarray(padded.filter(ImageFilter.MinFilter(5)))[3:-3, 3:-3] > 0
    return np.asarray(mask & ~core)


def _caption(picture: Image.Image, item: DrawnObject) -> None:
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    left, top, right, bottom = pen.textbbox((0, 0), item.caption, font)
    width, height = int(right - left) + 6, int(bottom - top) + 6
    x = max(0, min(item.box[0], picture.width - width))
    y = max(0, item.box[1] - height)
    pen.rectangle([x, y, x + width, y + height], fill=INK)
    pen.text((x + 3 - left, y + 3 - top), item.caption, COLORS[item.color % len(COLORS)], font)
