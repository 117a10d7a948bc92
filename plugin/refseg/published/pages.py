"""What a benchmark came to, as a notebook shows it."""

from __future__ import annotations

from io import BytesIO
from itertools import groupby
from pathlib import Path

from PIL import Image

from ..images import as_data_uri, as_jpeg
from ..notebook import Html, Picture, details, gallery, heading, page, table

PLOT_WIDTH = 640
"""Pixels of the picture of shots, at most."""


def benchmark_page(text: str, plot: Path) -> str:
    """The tables of a benchmark, its picture where there is one, and what else was said.

    Args:
        text: as `refseg.published.tables.as_table` gives it: headings, tables of markdown, notes, and other lines.
        plot: of the figures over shots.
    """
    parts: list[Html | str] = []
    for kind, lines in groupby(text.splitlines(), key=_kind):
        own = list(lines)
        if kind == "heading":
            parts += [heading(line.lstrip("# ")) for line in own]
        elif kind == "table":
            # The second line is markdown's rule.
            heads, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in own)
            parts.append(table(heads, rows))
        elif kind == "note":
            parts.append(details("Notes", [line.removeprefix("- ") for line in own]))
        elif kind == "text":
            parts.append("\n".join(own))
    return page("Benchmark", *parts[:1], *parts[1:], gallery(_plot(plot)))


def _kind(line: str) -> str:
    marks = {"#": "heading", "|": "table", "-": "note"}
    return marks.get(line[:1], "text") if line.strip() else "nothing"


def _plot(path: Path) -> list[Picture]:
    try:
        with Image.open(BytesIO(path.read_bytes())) as opened:
            picture = opened.convert("RGB")
    except OSError:
        return []
    picture.thumbnail((PLOT_WIDTH, PLOT_WIDTH))
    return [Picture(as_data_uri(as_jpeg(picture)), "Figures over shots", width=picture.width, height=picture.height)]
