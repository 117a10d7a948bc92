"""COCO's figures as a value, and as tables for a console and a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..notebook import Html, bars, heading, page, table

SIZES = ("AP", "AP50", "AP75", "small", "medium", "large")


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's average precision; None where there is nothing to find.

    Attributes:
        ap: mean over IoU 0.50, 0.55, … 0.95 and the classes.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        small: over objects under 32² pixels.
        medium: over objects of 32² to 96² pixels.
        large: over larger objects.
        per_class: ap of each class.
        per_class_ap50: ap50 of each class.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    per_class: dict[str, float | None]
    per_class_ap50: dict[str, float | None] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """The figures as a table, and those of classes as bars."""
        return page("Average precision", precision_page({"AP": self}))

    @property
    def overall(self) -> tuple[float | None, ...]:
        """All but those of the classes, in the order of SIZES."""
        return self.ap, self.ap50, self.ap75, self.small, self.medium, self.large


def format_table(masks: AveragePrecision | None, boxes: AveragePrecision) -> str:
    """The figures as a table for the console; a dash where there is nothing to find.

    Example:
        >>> print(format_table(None, AveragePrecision(0.5, 0.75, 0.6, None, 0.4, 0.5, {"star": 0.5})))
                AP   AP50   AP75  small medium  large
        box  0.500  0.750  0.600      –  0.400  0.500
        <BLANKLINE>
              box AP
        star   0.500
    """
    rows = [("mask", masks), ("box", boxes)]
    shown = [(name, values) for name, values in rows if values is not None]
    wide = max(len(name) for name, _ in shown)
    lines = [" " * wide + "".join(f"{head:>7}" for head in SIZES)]
    for name, values in shown:
        lines.append(f"{name:<{wide}}" + "".join(map(_cell, values.overall)))
    wide = max([len(label) for label in boxes.per_class], default=0)
    lines += ["", " " * wide + "".join(f"{name + ' AP':>8}" for name, _ in shown)]
    for label in boxes.per_class:
        lines.append(f"{label:<{wide}}" + "".join(" " + _cell(values.per_class[label]) for _, values in shown))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'–':>7}" if value is None else f"{value:>7.3f}"


def precision_page(figures: Mapping[str, AveragePrecision]) -> Html:
    """The figures as a table with a row each, and bars for the classes, those of masks where there are any.

    Args:
        figures: at least one, by what was compared.
    """
    rows = [(what, *values.overall) for what, values in figures.items()]
    parts = [table(("", *SIZES), rows)]
    what, first = next(iter(figures.items()))
    if first.per_class:
        parts += [heading(f"AP of {what}, a class each"), bars(first.per_class, most=1, digits=3)]
    return Html("".join(parts))
