"""Reports as HTML for notebooks: facts, tables, bars and pictures. Imports nothing heavy.

What a notebook asks a report for is its `_repr_html_`. Everything that comes from outside is escaped. Nothing sets a ground
or a colour of text, so that pages are as easy to read in a dark notebook as in a bright one; colours of bars are told apart on
both, and what they say stands beside them as a number too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from typing import Any

from .printing import counted, shorten

BLUE, ORANGE, GREEN, PINK, GREY = "#3b8ed0", "#d97700", "#1f9e77", "#c75b9b", "#8a8f98"
"""Of bars and their parts: each at least three times as bright or dark as paper and as a dark notebook's ground."""
SHADE = "59,142,208"
"""BLUE, of which cells of a matrix take a share."""
STRONGEST = 0.6
"""Share of colour behind a number: black and white ones can be read on it."""
BAR_WIDTH, BAR_HEIGHT = 180, 12
ROWS = 30
"""Of a table or chart, and classes of a matrix; of more the rest is counted."""
PICTURES = 12
"""At most so many crops are read for one report."""
CROP_SIDE = 96
TEXT = "text-align:left;font-variant-numeric:tabular-nums"
ROW = "background:none"
"""Notebooks shade every other row of a table, which would be told apart from bars and cells badly."""
CELL = "padding:2px 10px 2px 0;border:0;vertical-align:middle;background:none"
FAINT = "opacity:.7"


class Html(str):
    """Text that is HTML already; any other text is escaped where it is put into a page."""

    __slots__ = ()


@dataclass(frozen=True)
class Picture:
    """A picture in a row of them.

    Attributes:
        source: a data URI; "" where there is none to be shown, and words alone stand there.
        title: what it shows, in a word.
        text: what is said of it.
        width: in pixels.
        height: in pixels.
    """

    source: str
    title: str
    text: str = ""
    width: int = CROP_SIDE
    height: int = CROP_SIDE


def page(title: str, *parts: Html | str | None) -> str:
    """A report: a title, and below it what there is; texts become paragraphs, and what is None or empty is left out.

    Example:
        >>> page("Index of <b>", "1 image", None).partition(">")[2]
        '<div style="font-weight:600">Index of &lt;b&gt;</div><p style="margin:.3em 0">1 image</p></div>'
    """
    shown = (part if isinstance(part, Html) else paragraph(part) for part in parts if part)
    return f'<div style="{TEXT}"><div style="font-weight:600">{escape(title)}</div>{"".join(shown)}</div>'


def paragraph(text: str) -> Html:
    """Some sentences; lines stay lines."""
    return Html(f'<p style="margin:.3em 0">{"<br>".join(map(escape, text.splitlines()))}</p>')


def heading(text: str) -> Html:
    """What stands above a part of a page."""
    return Html(f'<div style="margin:.7em 0 .1em;font-weight:600;font-size:.95em">{escape(text)}</div>')


def facts(values: Mapping[str, Any]) -> Html:
    """Names and values, a line each; without those that are None, "" or empty lists.

    Example:
        >>> "images" in facts({"images": 1200}), "1,200" in facts({"images": 1200}), facts({"nothing": None})
        (True, True, '')
    """
    kept = {name: value for name, value in values.items() if value is not None and value != "" and value != ()}
    name_style = f"{CELL};{TEXT};font-weight:400;white-space:nowrap;{FAINT}"
    rows = (
        f'<tr style="{ROW}"><th scope="row" style="{name_style}">{escape(name)}</th>'
        f'<td style="{CELL};{TEXT};overflow-wrap:anywhere">{_cell(value)}</td></tr>'
        for name, value in kept.items()
    )
    return _table("".join(rows)) if kept else Html()


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table with its first column as names; numbers stand to the right. Of more than ROWS rows the rest is counted."""
    every = list(rows)
    if not every:
        return Html()
    is_number = [all(isinstance(row[column], int | float | None) for row in every) for column in range(len(heads))]
    lines = [_row(heads, is_number, is_head=True), *(_row(row, is_number) for row in every[:ROWS])]
    return Html(_table("".join(lines)) + _rest(len(every) - ROWS))


def bars(
    rows: Mapping[str, float | None],
    *,
    most: float | None = None,
    digits: int = 0,
    marks: Mapping[str, float | None] | None = None,
) -> Html:
    """A bar and a number for each name; of a value that is None, and is not known, neither.

    Args:
        rows: values from 0 on.
        most: value of a full bar; by default the largest.
        digits: of the numbers, after the point.
        marks: for some names a value where a line stands on the bar.
    """
    full = most or max((value for value in rows.values() if value is not None), default=0) or 1
    marks = marks or {}
    lines = []
    for name, value in list(rows.items())[:ROWS]:
        number = "not known" if value is None else f"{value:,.{digits}f}"
        mark = marks.get(name)
        parts = [] if value is None else [(BLUE, value / full)]
        said = f"{name}: {number}" + ("" if mark is None else f", line at {mark:,.{digits}f}")
        lines.append(_bar_row(name, _bar(parts, said, None if mark is None else mark / full), number))
    return Html((_table("".join(lines)) if lines else "") + _rest(len(rows) - ROWS))


def stacked(parts: Mapping[str, str], rows: Mapping[str, Sequence[float]], *, most: float | None = None) -> Html:
    """A bar of several parts for each name, with a legend.

    Args:
        parts: the colour of each part, by what it is called.
        rows: for each name the size of each part.
        most: sum of a full bar; by default the largest.
    """
    full = most or max((sum(values) for values in rows.values()), default=0) or 1
    lines = []
    for name, values in list(rows.items())[:ROWS]:
        said = ", ".join(f"{value:,.0f} {part}" for part, value in zip(parts, values, strict=True) if value) or "none"
        shares = [(color, value / full) for color, value in zip(parts.values(), values, strict=True) if value]
        lines.append(_bar_row(name, _bar(shares, f"{name}: {said}"), said))
    if not lines:
        return Html()
    used = [any(values[column] for values in rows.values()) for column in range(len(parts))]
    legend = "".join(
        f'<span style="margin-right:1em;white-space:nowrap">{_swatch(color)}{escape(part)}</span>'
        for (part, color), is_used in zip(parts.items(), used, strict=True)
        if is_used
    )
    return Html(f'<div style="font-size:.9em">{legend}</div>{_table("".join(lines))}{_rest(len(rows) - ROWS)}')


def histogram(counts: Sequence[int], low: float, high: float, what: str) -> Html:
    """Bars beside each other: how many values lie in each of some equal steps from low to high."""
    if not any(counts):
        return Html()
    width, height, most = 240, 64, max(counts)
    step = width / len(counts)
    said = ", ".join(
        f"{number:,} from {low + row * (high - low) / len(counts):.1f}" for row, number in enumerate(counts) if number
    )
    drawn = "".join(
        f'<rect x="{row * step + 0.5:.1f}" y="{height - height * number / most:.1f}" width="{step - 1:.1f}" '
        f'height="{height * number / most:.1f}" fill="{BLUE}"><title>{number:,}</title></rect>'
        for row, number in enumerate(counts)
        if number
    )
    ends = "".join(
        f'<text x="{x}" y="{height + 13}" text-anchor="{anchor}" font-size="11" fill="currentColor">{escape(text)}</text>'
        for x, anchor, text in ((0, "start", f"{low:g}"), (width / 2, "middle", what), (width, "end", f"{high:g}"))
    )
    line = f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="currentColor" stroke-opacity=".4"/>'
    return Html(
        f'<svg role="img" aria-label="{escape(f"{what}: {said}")}" width="{width}" height="{height + 18}" '
        f'viewBox="0 0 {width} {height + 18}" style="display:block;margin:.4em 0">{drawn}{line}{ends}</svg>'
    )


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> Html:
    """A table of numbers from 0 to 1 for each pair of names, the more colour the higher; of no more than ROWS names."""
    if not names or len(names) > ROWS:
        return Html()
    corner = f'<td style="{CELL}"></td>'
    # Turned, so that columns are no wider than their numbers.
    heads = "".join(
        f'<th scope="col" style="{CELL};padding:6px 2px 2px;font-weight:400;vertical-align:bottom;text-align:center" '
        f'title="{escape(name)}"><span style="writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap">'
        f"{escape(shorten(name, 24))}</span></th>"
        for name in names
    )
    lines = [f'<tr style="{ROW}">{corner}{heads}</tr>']
    for name, row in zip(names, values, strict=True):
        cells = "".join(
            f'<td style="padding:4px 6px;border:0;text-align:center;background:rgba({SHADE},{_alpha(value):.2f})">'
            f"{value:.2f}</td>"
            for value in row
        )
        head = f'<th scope="row" style="{CELL};{TEXT};font-weight:400">{escape(shorten(name, 40))}</th>'
        lines.append(f'<tr style="{ROW}">{head}{cells}</tr>')
    return Html(_table("".join(lines)))


def gallery(pictures: Sequence[Picture], total: int | None = None) -> Html:
    """Pictures in rows, each with its title and text below it.

    Args:
        pictures: the first PICTURES of them are shown.
        total: how many there are, where these are the first of more.
    """
    if not pictures:
        return Html()
    shown = "".join(map(_figure, pictures[:PICTURES]))
    rest = (len(pictures) if total is None else total) - min(len(pictures), PICTURES)
    return Html(f'<div style="display:flex;flex-wrap:wrap;gap:10px;margin:.4em 0">{shown}</div>{_rest(rest)}')


def details(summary: str, lines: Sequence[str]) -> Html:
    """A list that opens where somebody wants to see it; nothing where it is empty."""
    if not lines:
        return Html()
    items = "".join(f"<li>{escape(line)}</li>" for line in lines[:ROWS])
    return Html(
        f'<details style="margin:.3em 0"><summary>{escape(summary)}</summary>'
        f'<ul style="margin:.2em 0 .2em 1.4em;padding:0">{items}</ul>{_rest(len(lines) - ROWS)}</details>'
    )


def skips(images: Sequence[Any]) -> Html:
    """Images that were skipped, each with a `filepath` and a `reason`."""
    lines = [f"{image.filepath}: {image.reason}" for image in images]
    return details(f"{counted(len(images), 'image')} skipped", lines)


def plain_page(value: Any) -> str:
    """Any dataclass as its name and its fields: its `_repr_html_` where there is no more to show.

    Example:
        >>> @dataclass
        ... class FoundThing:
        ...     label: str
        ...     _repr_html_ = plain_page
        >>> "Found thing" in FoundThing("<b>")._repr_html_(), "&lt;b&gt;" in FoundThing("<b>")._repr_html_()
        (True, True)
    """
    return page(words(type(value).__name__), facts(facts_of(value)))


def facts_of(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass that can be shown as a fact, by their names in words."""
    found = {}
    for entry in fields(value):
        content = getattr(value, entry.name)
        if not entry.repr or entry.name in without or is_dataclass(content):
            continue
        if isinstance(content, dict):
            content = ", ".join(f"{name} {_plain(number)}" for name, number in content.items())
        elif isinstance(content, list | tuple | set | frozenset):
            is_short = len(content) <= PICTURES and all(isinstance(item, str | int | float) for item in content)
            content = ", ".join(map(_plain, content)) if is_short else f"{len(content):,} of them"
        found[entry.name.removeprefix("num_").replace("_", " ").strip()] = content
    return found


def words(name: str) -> str:
    """The name of a class as words.

    Example:
        >>> words("SampledReferences"), words("QueueItem")
        ('Sampled references', 'Queue item')
    """
    text = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return text[:1].upper() + text[1:]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    if isinstance(value, Html):
        return value
    return "–" if value is None else escape(_plain(value))


def _table(rows: str) -> Html:
    return Html(f'<table style="border-collapse:collapse;border:0;margin:.3em 0;font-size:1em"><tbody>{rows}</tbody></table>')


def _row(cells: Sequence[Any], is_number: Sequence[bool], *, is_head: bool = False) -> str:
    parts = []
    for column, (cell, number) in enumerate(zip(cells, is_number, strict=True)):
        align = "right" if number else "left"
        weight = "600" if is_head else "400"
        scope = "col" if is_head else "row" if column == 0 else ""
        name = "th" if scope else "td"
        text = f"{cell:.3f}" if isinstance(cell, float) else _cell(cell)
        scoped = f' scope="{scope}"' if scope else ""
        parts.append(f'<{name}{scoped} style="{CELL};{TEXT};text-align:{align};font-weight:{weight}">{text}</{name}>')
    return f'<tr style="{ROW}">{"".join(parts)}</tr>'


def _bar_row(name: str, bar: str, text: str) -> str:
    head = f'<th scope="row" style="{CELL};{TEXT};font-weight:400" title="{escape(name)}">{escape(shorten(name, 40))}</th>'
    return f'<tr style="{ROW}">{head}<td style="{CELL}">{bar}</td><td style="{CELL};{TEXT}">{escape(text)}</td></tr>'


def _bar(parts: Sequence[tuple[str, float]], said: str, mark: float | None = None) -> str:
    x, drawn = 0.0, []
    for color, share in parts:
        width = BAR_WIDTH * min(1.0, max(0.0, share))
        drawn.append(f'<rect x="{x:.1f}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{color}"/>')
        x += width
    frame = f'width="{BAR_WIDTH - 1}" height="{BAR_HEIGHT - 1}" fill="none" stroke="currentColor" stroke-opacity=".25"'
    drawn.append(f'<rect x=".5" y=".5" {frame}/>')
    if mark is not None:
        place = BAR_WIDTH * min(1.0, max(0.0, mark))
        drawn.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y2="{BAR_HEIGHT}" stroke="currentColor" stroke-width="2"/>')
    return (
        f'<svg role="img" aria-label="{escape(said)}" width="{BAR_WIDTH}" height="{BAR_HEIGHT}" '
        f'viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" style="display:block">{"".join(drawn)}</svg>'
    )


def _swatch(color: str) -> str:
    square = f'<rect width="11" height="11" fill="{color}"/>'
    return f'<svg aria-hidden="true" width="11" height="11" style="display:inline;margin-right:4px">{square}</svg>'


def _figure(picture: Picture) -> str:
    alt = escape(": ".join(filter(None, (picture.title, picture.text))))
    width, height = picture.width, picture.height
    shown = f'<img src="{escape(picture.source)}" alt="{alt}" width="{width}" height="{height}" style="display:block;margin:0">'
    if not picture.source:
        frame = f"width:{width}px;height:{height}px;border:1px dashed;box-sizing:border-box;{FAINT}"
        shown = f'<div style="{frame};display:flex;align-items:center;justify-content:center;font-size:.8em">no picture</div>'
    text = f'<div style="{FAINT};font-size:.85em">{escape(picture.text)}</div>' if picture.text else ""
    caption = f'<figcaption style="line-height:1.25;overflow-wrap:anywhere">{escape(picture.title)}{text}</figcaption>'
    return f'<figure style="margin:0;width:{max(width, CROP_SIDE)}px">{shown}{caption}</figure>'


def _rest(number: int) -> str:
    return f'<div style="{FAINT}">and {number:,} more</div>' if number > 0 else ""


def _alpha(value: float) -> float:
    return STRONGEST * min(1.0, max(0.0, value))
