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
RIGHT, WRONG, MISSED, SHOWN = 2, 4, 3, 1
"""Of COLORS: for what is found rightly and wrongly, for what is missed, and for what was shown."""
CAPTION_SIZE = 13
DASH = 6
"""Pixels of a dash of a broken line."""
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
        caption: written above the box, or beside it; may be empty.
        dashed: outlines it with a broken line; see draw_outlines.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    color: int
    caption: str = ""
    dashed: bool = False

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
        region[inner_edge(mask)] = color
    picture = Image.fromarray(canvas)
    for item in objects:
        if item.caption:
            _caption(picture, item)
    return picture


def draw_outlines(
    image: Image.Image, objects: Sequence[DrawnObject], scale: int = 1, caption_size: int = CAPTION_SIZE
) -> Image.Image:
    """An RGB image with a thin line along the inside of each mask; objects stay to be seen, captions stand beside them.

    Args:
        image: RGB.
        objects: the last ones lie on top; captions of the first ones get the better places.
        scale: how many times as large as the image the picture is, so that lines are thin.
        caption_size: of letters, in pixels of the picture.
    """
    picture = image.convert("RGB").resize((scale * image.width, scale * image.height), Image.Resampling.LANCZOS)
    canvas = np.asarray(picture).copy()
    taken = np.zeros(canvas.shape[:2], bool)
    for item in objects:
        left, top, right, bottom = (scale * side for side in item.box)
        shape = Image.fromarray(item.mask.astype(np.uint8) * 255).resize(
            (right - left, bottom - top), Image.Resampling.BILINEAR
        )
        region = canvas[top:bottom, left:right]
        mask = np.asarray(shape)[: region.shape[0], : region.shape[1]] > 127
        line = inner_edge(mask)
        if item.dashed:
            y, x = np.indices(line.shape)
            line &= (x + y) // DASH % 2 == 0
        region[line] = COLORS[item.color % len(COLORS)]
        taken[top:bottom, left:right] |= mask
    picture = Image.fromarray(canvas)
    for item in objects:
        if item.caption:
            _caption_beside(picture, item, scale, taken, caption_size)
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


def inner_edge(mask: NDArray[np.bool_], width: int = 2) -> NDArray[np.bool_]:
    """The outermost pixels of a mask, so many of them."""
    padded = Image.fromarray(np.pad(mask, 3).astype(np.uint8) * 255)
    core = np.asarray(padded.filter(ImageFilter.MinFilter(2 * width + 1)))[3:-3, 3:-3] > 0
    return np.asarray(mask & ~core)


def _caption(picture: Image.Image, item: DrawnObject) -> None:
    width, height = _caption_extent(item.caption, CAPTION_SIZE)
    x = max(0, min(item.box[0], picture.width - width))
    _write_caption(picture, item, x, max(0, item.box[1] - height))


def _caption_beside(picture: Image.Image, item: DrawnObject, scale: int, taken: NDArray[np.bool_], size: int) -> None:
    """Write a caption where it covers least of what is taken, above or below its box or at a side; what it covers is taken."""
    width, height = _caption_extent(item.caption, size)
    left, top, right, bottom = (scale * side for side in item.box)
    middle = (left + right - width) // 2, (top + bottom - height) // 2
    places = [
        *((x, y) for y in (top - height - 1, bottom + 1) for x in (middle[0], left, right - width)),
        *((x, y) for x in (right + 1, left - width - 1) for y in (middle[1], top, bottom - height)),
    ]
    most = picture.width - width - 1, picture.height - height - 1
    places = [(max(0, min(x, most[0])), max(0, min(y, most[1]))) for x, y in places]
    covered = [int(taken[y : y + height, x : x + width].sum()) for x, y in places]
    x, y = places[int(np.argmin(covered))]
    taken[y : y + height + 1, x : x + width + 1] = True
    _write_caption(picture, item, x, y, size)


def _caption_extent(caption: str, size: int) -> tuple[int, int]:
    """Width and height in pixels."""
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = pen.textbbox((0, 0), caption, ImageFont.load_default(size))
    return int(right - left) + 6, int(bottom - top) + 6


def _write_caption(picture: Image.Image, item: DrawnObject, x: int, y: int, size: int = CAPTION_SIZE) -> None:
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    left, top, _, _ = pen.textbbox((0, 0), item.caption, font)
    width, height = _caption_extent(item.caption, size)
    pen.rectangle([x, y, x + width, y + height], fill=INK)
    pen.text((x + 3 - left, y + 3 - top), item.caption, COLORS[item.color % len(COLORS)], font)
