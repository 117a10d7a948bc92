"""What prototypes are worth, in words, as tables and as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import DatasetError
from ..images import crop_picture
from ..notebook import PICTURES, Html, bars, gallery, heading, matrix, page
from ..printing import counted
from .findings import ClassReport, Findings, ReferenceReport, Suggestion, why_it_hurts
from .report_pictures import draw_report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Part: TypeAlias = Literal["classes", "references", "similarities", "suggestions"]
Shown: TypeAlias = "tuple[ReferenceReport | Suggestion, str, NDArray[np.bool_] | None]"
"""What a crop is of, what is said of it, and its mask."""
CALIBRATE = "calibrate first: refseg.calibrate(dataset, prototypes)"
SHOWN = 8
"""Rows of a list in the text before the rest is only counted."""


@dataclass(frozen=True)
class PrototypeReport(Findings):
    """What prototypes are worth, and what would help; see `Findings` for its values."""

    def __str__(self) -> str:
        lines = [_table(self.classes)]
        if self.confusion is not None:
            lines.append(f"Most confused: {self.confusion}.")
        if self.hurting:
            lines += ["References that hurt:", *_listed([f"{item.name}: {why_it_hurts(item)}" for item in self.hurting])]
        elif any(item.hurts is not None for item in self.references):
            lines.append("No reference hurts.")
        wrong = [f"{item.name} is {item.problem}" for item in self.references if item.problem]
        if wrong:
            lines += ["References that look like a mistake:", *_listed(wrong)]
        if self.suggestions:
            shown = [f"{item.name}: {item.reason}" for item in self.suggestions]
            lines += ["What would help as the next reference:", *_listed(shown)]
        elif self.suggestions is not None:
            lines.append("No candidate without a label would help.")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """Quality of classes as bars, what they have in common, and crops of references and suggestions to look at."""
        names = [item.label for item in self.classes]
        f1 = {item.label: item.f1 for item in self.classes}
        alike = {item.label: item.similarity for item in self.classes}
        known = any(value is not None for value in f1.values())
        thresholds = {item.label: item.threshold for item in self.classes} if known else None
        wrong = [item for item in self.references if item.problem is not None]
        groups: list[tuple[str, list[Shown]]] = [
            ("References that hurt", [(item, why_it_hurts(item), None) for item in self.hurting]),
            ("References that look like a mistake", [(item, f"it is {item.problem}", None) for item in wrong]),
            ("What would help as the next reference", [(item, item.reason, item.mask) for item in self.suggestions or ()]),
        ]
        left = PICTURES
        parts: list[Html] = []
        for title, items in groups:
            if items:
                parts += [heading(title), _crops(items, left)]
                left -= min(left, len(items))
        return page(
            f"What prototypes of {counted(len(names), 'class')} are worth",
            Html(heading("F1 of references left out; the line is the threshold") + bars(f1, most=1, digits=2, marks=thresholds))
            if known
            else None,
            heading("Cosine of the references of a class with each other"),
            bars(alike, most=1, digits=2),
            Html(heading("Cosine of the prototypes") + matrix(names, self.between)) if len(names) > 1 else None,
            f"Most confused: {self.confusion}." if self.confusion is not None else None,
            *parts,
            *(f"Note: {note}" for note in self.notes),
        )

    def as_rows(self, part: Part = "references") -> list[dict[str, Any]]:
        """One of its lists as dictionaries of the same keys, for pandas or csv.DictWriter.

        Args:
            part: which; "similarities" has a row for each pair of classes.
        """
        if part not in get_args(Part):
            raise DatasetError(f"part must be one of {', '.join(map(repr, get_args(Part)))}, not {part!r}.")
        if part == "classes":
            return [_row(item, [entry.name for entry in fields(item)]) for item in self.classes]
        if part == "similarities":
            names = [item.label for item in self.classes]
            pairs = zip(names, self.between, strict=True)
            return [
                {"label": name, "other": other, "similarity": value}
                for name, values in pairs
                for other, value in zip(names, values, strict=True)
            ]
        if part == "suggestions":
            names = [entry.name for entry in fields(Suggestion) if entry.name != "mask"]
            return [_row(item, names) for item in self.suggestions or ()]
        return [_row(item, [entry.name for entry in fields(item)]) for item in self.references]

    def picture(self) -> Image.Image:
        """One page to look at; see `refseg.insight.report_pictures.draw_report`."""
        return draw_report(self)


def _crops(items: Sequence[Shown], most: int) -> Html:
    """Crops of as many as may still be read, and words for a few more."""
    pictures = []
    for number, (item, text, mask) in enumerate(items[:PICTURES]):
        file = os.path.basename(item.filepath) or getattr(item, "image_name", "") or getattr(item, "id", "")
        path = item.filepath if number < most else ""
        pictures.append(crop_picture(path, item.box, f"{item.label} in {file}", text, mask))
    return gallery(pictures, len(items))


def _table(classes: Sequence[ClassReport]) -> str:
    heads = ("class", "references", "similarity", "threshold", "F1")
    rows = [(c.label, str(c.num_references), _number(c.similarity), _number(c.threshold), _number(c.f1)) for c in classes]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _listed(items: Sequence[str]) -> list[str]:
    rest = len(items) - SHOWN
    return [f"  {item}" for item in items[:SHOWN]] + ([f"  and {rest} more"] if rest > 0 else [])


def _row(item: Any, columns: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in columns}
