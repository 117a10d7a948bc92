"""A report on prototypes as one page: similarities of classes, F1 and thresholds, what hurts, what would help. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import ImageError
from ..images import COLORS, INK, PAPER, line_of_text, object_picture, paragraph, sheet
from ..printing import counted
from .findings import ClassReport, Findings, why_it_hurts

WIDTH = 1000
GRID_SIDE = 400
"""Of the heat map without its names, at most."""
CELL_SIDE = 64
SMALLEST_NUMBERED = 30
"""Cells narrower than this have no room for a number."""
NAMED = 30
"""With more classes the heat map's rows would be lower than their names."""
BAR_HEIGHT, BAR_WIDTH = 24, 260
TILE_WIDTH, TILE_HEIGHT, TILES_A_ROW = 230, 165, 4
MAX_TILES = 12
PALE, STRONG = np.array((247, 249, 252), float), np.array(COLORS[6], float)
GREY = (120, 120, 126)


def draw_report(report: Findings) -> Image.Image:
    """One page: a heat map of the prototypes' similarities beside F1 and thresholds, then references and suggestions.

    A reference or suggestion whose image cannot be read is shown in words alone.

    Args:
        report: from `refseg.inspect` or `refseg.insight.assessment.assess`; only the former knows where references are.
    """
    rows: list[list[Image.Image]] = [[line_of_text("What the prototypes are worth", WIDTH, 22)]]
    rows.append([_heat_map(report), _bars(report.classes)])
    if report.confusion is not None:
        rows.append([paragraph(f"Most confused: {report.confusion}.", WIDTH, 15)])
    rows += [[paragraph(f"Note: {note}", WIDTH, 15, GREY)] for note in report.notes]
    hurting = [_tile(item.filepath, item.box, None, item.label, why_it_hurts(item)) for item in report.hurting[:MAX_TILES]]
    rows += _section("References that hurt", hurting, len(report.hurting))
    wrong = [item for item in report.references if item.problem is not None]
    tiles = [_tile(item.filepath, item.box, None, item.label, f"it is {item.problem}") for item in wrong[:MAX_TILES]]
    rows += _section("References that look like a mistake", tiles, len(wrong))
    suggestions = report.suggestions or ()
    tiles = [_tile(item.filepath, item.box, item.mask, f"{item.label}?", item.reason) for item in suggestions[:MAX_TILES]]
    rows += _section("What would help as the next reference", tiles, len(suggestions))
    return sheet(rows, gap=14)


def _section(title: str, tiles: Sequence[Image.Image], total: int) -> list[list[Image.Image]]:
    if not tiles:
        return []
    rest = f", the first {len(tiles)} of {total}" if total > len(tiles) else ""
    lines = [list(tiles[start : start + TILES_A_ROW]) for start in range(0, len(tiles), TILES_A_ROW)]
    return [[line_of_text(title + rest, WIDTH, 19)], *lines]


def _tile(filepath: str, box: Sequence[float] | None, mask: NDArray[np.bool_] | None, title: str, text: str) -> Image.Image:
    """A picture of an object over its class and a sentence; without the picture where the image is not to be had."""
    parts = [line_of_text(title, TILE_WIDTH, 15), paragraph(text, TILE_WIDTH, 13, GREY)]
    if filepath and box is not None:
        try:
            picture = object_picture(filepath, box, mask, width=TILE_WIDTH, height=TILE_HEIGHT)
            parts.insert(0, Image.open(BytesIO(picture)).convert("RGB"))
        except ImageError as error:
            parts.append(paragraph(error.reason, TILE_WIDTH, 13, GREY))
    page = Image.new("RGB", (TILE_WIDTH, sum(part.height for part in parts) + 4), PAPER)
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height + 2
    return page


def _heat_map(report: Findings) -> Image.Image:
    """The cosine of each prototype with each: paler below, the same scale in every report."""
    names = [item.label for item in report.classes]
    is_named = len(names) <= NAMED
    cell = max(1, min(CELL_SIDE, GRID_SIDE // len(names)))
    font = ImageFont.load_default(min(14, max(9, cell - 4)))
    gutter = round(max(font.getlength(_short(name)) for name in names)) + 10 if is_named else 4
    side = cell * len(names)
    heading = line_of_text("Cosine of the prototypes", max(gutter + side, 230), 16)
    page = Image.new("RGB", (heading.width, heading.height + side + gutter), PAPER)
    page.paste(heading, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, values in enumerate(report.between):
        y = heading.height + row * cell
        if is_named:
            pen.text((gutter - 6, y + cell // 2), _short(names[row]), INK, font, anchor="rm")
        for column, value in enumerate(values):
            x = gutter + column * cell
            share = min(1.0, max(0.0, value))
            red, green, blue = (PALE + share * (STRONG - PALE)).round().astype(int).tolist()
            pen.rectangle([x, y, x + cell - 2, y + cell - 2], fill=(red, green, blue))
            if cell >= SMALLEST_NUMBERED:
                color = PAPER if share > 0.55 else INK
                pen.text((x + cell // 2 - 1, y + cell // 2 - 1), f"{value:.2f}", color, font, anchor="mm")
    if is_named:
        _write_upwards(page, names, font, (gutter, heading.height + side + 4), cell, gutter)
    return page


def _write_upwards(
    page: Image.Image,
    names: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    corner: tuple[int, int],
    cell: int,
    length: int,
) -> None:
    """Names under the columns of the heat map, turned by a quarter, each ending at its column."""
    for column, name in enumerate(names):
        strip = Image.new("RGB", (length, cell), PAPER)
        ImageDraw.Draw(strip).text((length - 2, cell // 2), _short(name), INK, font, anchor="rm")
        page.paste(strip.rotate(90, expand=True), (corner[0] + column * cell, corner[1]))


def _bars(classes: Sequence[ClassReport]) -> Image.Image:
    """F1 of each class as a bar, its threshold as a mark on it."""
    font = ImageFont.load_default(14)
    gutter = round(max(font.getlength(_short(item.label)) for item in classes)) + 10
    heading = line_of_text("F1 of references left out (bar), threshold (line)", gutter + BAR_WIDTH + 190, 16)
    page = Image.new("RGB", (heading.width, heading.height + len(classes) * (BAR_HEIGHT + 6)), PAPER)
    page.paste(heading, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, item in enumerate(classes):
        y = heading.height + row * (BAR_HEIGHT + 6)
        middle = y + BAR_HEIGHT // 2
        pen.text((gutter - 6, middle), _short(item.label), INK, font, anchor="rm")
        pen.rectangle([gutter, y, gutter + BAR_WIDTH, y + BAR_HEIGHT], fill=(238, 240, 244))
        if item.f1:
            pen.rectangle([gutter, y, gutter + round(item.f1 * BAR_WIDTH), y + BAR_HEIGHT], fill=COLORS[1])
        if item.threshold is not None:
            x = gutter + round(item.threshold * BAR_WIDTH)
            pen.rectangle([x - 1, y - 2, x + 1, y + BAR_HEIGHT + 2], fill=COLORS[4])
        text = "not known" if item.f1 is None else f"{item.f1:.2f}"
        text += f"   {counted(item.num_references, 'reference')}"
        pen.text((gutter + BAR_WIDTH + 10, middle), text, INK, font, anchor="lm")
    return page


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
