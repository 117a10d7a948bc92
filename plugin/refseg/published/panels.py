"""Parts of a sheet: one image with what is in it, one crop around an object, one line of text that is never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..images import COLORS, INK, PAPER, DrawnObject, draw_objects, line_of_text, outline_object
from .judging import Mask, Shown

WIDTH = 1184
"""Of the pages, in pixels, without their margins of 8."""
GAP = 8
PANEL = (WIDTH - GAP) // 2, 441
CROP = (WIDTH - 3 * GAP) // 4, 220
MAX_ENLARGED = 4.0
"""More shows nothing but pixels."""
CAPTION_SIZE = 13

Region: TypeAlias = tuple[int, int, int, int]


def draw_panel(image: Image.Image, items: Sequence[Shown], captions: Sequence[str], classes: Sequence[str]) -> Image.Image:
    """An image as large as a panel with what is in it, the best score on top."""
    whole = (0, 0, image.width, image.height)
    picture, scale = _scaled(image, whole, PANEL)
    drawn = []
    for item, caption in sorted(zip(items, captions, strict=True), key=lambda pair: pair[0].score or 0.0):
        mask = item.pixels()
        color = classes.index(item.label)
        placed = _placed(item, mask, whole, scale, picture.size)
        if placed is not None:
            box, cut = placed
            drawn.append(DrawnObject(box, cut if mask is not None else _frame(cut), color, caption))
    picture = draw_objects(picture, [DrawnObject(item.box, item.mask, item.color) for item in drawn])
    _write_captions(picture, drawn[::-1])
    return _padded(picture, (PANEL[0], picture.height))


def draw_crop(image: Image.Image, item: Shown, prediction: Shown, name: str) -> Image.Image:
    """The surroundings of an object, outlined, above what it was taken for."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = item.box, prediction.box
    left, top, right, bottom = min(ax0, bx0), min(ay0, by0), max(ax1, bx1), max(ay1, by1)
    margin = max(12.0, 0.25 * max(right - left, bottom - top))
    x0, y0 = max(0, int(left - margin)), max(0, int(top - margin))
    x1, y1 = min(image.width, int(right + margin) + 1), min(image.height, int(bottom + margin) + 1)
    region = min(x0, image.width - 1), min(y0, image.height - 1), max(x1, 1), max(y1, 1)
    picture, scale = _scaled(image, region, CROP)
    placed = _placed(item, item.pixels(), region, scale, picture.size)
    if placed is not None:
        (cx0, cy0, cx1, cy1), cut = placed
        whole = np.zeros((picture.height, picture.width), bool)
        whole[cy0:cy1, cx0:cx1] = cut
        picture = outline_object(picture, whole)
    text = line(f"{prediction.label} {prediction.score or 0.0:.2f} · {name}", 14, CROP[0])
    page = Image.new("RGB", (CROP[0], CROP[1] + text.height), PAPER)
    page.paste(_padded(picture, CROP), (0, 0))
    page.paste(text, (0, CROP[1]))
    return page


def _scaled(image: Image.Image, region: Region, within: tuple[int, int]) -> tuple[Image.Image, float]:
    """A region of an image as large as fits, and by how much it grew."""
    x0, y0, x1, y1 = region
    scale = min(within[0] / (x1 - x0), within[1] / (y1 - y0), MAX_ENLARGED)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    return image.crop(region).resize(size, Image.Resampling.LANCZOS), scale


def _placed(item: Shown, mask: Mask | None, region: Region, scale: float, size: tuple[int, int]) -> tuple[Region, Mask] | None:
    """Where something lies in a scaled region, cut at its border; None where nothing of it is seen."""
    x0, y0 = round(item.box[0]), round(item.box[1])
    if mask is None:
        mask = np.ones((max(1, round(item.box[3]) - y0), max(1, round(item.box[2]) - x0)), bool)
    left, top = round((x0 - region[0]) * scale), round((y0 - region[1]) * scale)
    grown = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    resized = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(grown, Image.Resampling.BILINEAR))
    # What is too thin to be seen at this scale is shown all the same.
    solid = resized > 127 if (resized > 127).any() else resized > 0
    cut = solid[max(0, -top) : max(0, size[1] - top), max(0, -left) : max(0, size[0] - left)]
    if not cut.any():
        return None
    left, top = max(0, left), max(0, top)
    return (left, top, left + cut.shape[1], top + cut.shape[0]), cut


def _frame(mask: Mask) -> Mask:
    """The rim of a box without a mask: tinting all of it would claim more than is known."""
    rim = np.ones_like(mask)
    rim[2:-2, 2:-2] = False
    return rim


def _write_captions(picture: Image.Image, items: Sequence[DrawnObject]) -> None:
    """Write captions near their boxes; one that would hide another is left out, and the first have the choice."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(CAPTION_SIZE)
    taken: list[Region] = []
    for item in items:
        text = _shortened(item.caption, picture.width - 6, font)
        left, top, right, bottom = (int(value) for value in pen.textbbox((0, 0), text, font))
        width, height = right - left + 6, bottom - top + 6
        x0, y0, _, y1 = item.box
        x = max(0, min(x0, picture.width - width))
        # Above, inside, below, then ever lower, beginning at the top again.
        steps = [y0 - height, y0, y1, y1 - height, *range(y0 + height, picture.height, height), *range(0, y0, height)]
        places = [(x, max(0, min(y, picture.height - height))) for y in steps]
        areas = [(px, py, px + width, py + height) for px, py in places]
        free = [place for place in areas if not any(_overlap(place, other) for other in taken)]
        if not free:
            continue
        area = free[0]
        taken.append(area)
        pen.rectangle(area, fill=INK)
        pen.text((area[0] + 3 - left, area[1] + 3 - top), text, COLORS[item.color % len(COLORS)], font)


def _overlap(a: Region, b: Region) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def line(text: str, size: int, width: int = WIDTH) -> Image.Image:
    """One line of text, so many pixels wide, that is shortened rather than cut."""
    return line_of_text(_shortened(text, width - 4, ImageFont.load_default(size)), width, size)


def _shortened(text: str, width: float, font: Any) -> str:
    """The text, or its beginning and its end around three dots."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return "…"


def _padded(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture on paper of another size, flush with the text to its left and below it."""
    page = Image.new("RGB", size, PAPER)
    page.paste(picture, (0, size[1] - picture.height))
    return page
