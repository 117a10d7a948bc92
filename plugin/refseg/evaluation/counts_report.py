"""What was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..notebook import bars, details, facts, page, table
from ..printing import counted

LISTED = 10
"""Labels and images that a printed report names."""


@dataclass(frozen=True)
class ClassCounts:
    """The objects of one class.

    Attributes:
        label: the class.
        key: its name in the documents of numbers: the class itself, unless that cannot be one ("a.b" is "a%2Eb").
        num_objects: objects of it.
        num_images: images that hold any.
        area: of all of them, pixels; None where areas were not asked for.
    """

    label: str
    key: str
    num_objects: int
    num_images: int
    area: float | None


@dataclass(frozen=True)
class CountsReport:
    """What write_counts wrote.

    Attributes:
        field: whose objects were counted.
        counts_field: of the number of objects of each class in an image.
        areas_field: of their total area in pixels; None where it was not asked for.
        shares_field: of that area as a share of the image; None likewise.
        min_confidence: below which objects were not counted; None for all.
        classes: by name.
        num_images: images looked at.
        num_without_labels: images whose field is empty, as of those that were never segmented: they have no numbers.
        num_written: images whose numbers are others than before.
        num_without_class: objects without a class; they are not counted.
        num_crowds: labels that stand for no single object; they are not counted.
        by_box: path, label id and reason of each object whose box alone could be measured, although it has a mask.
        not_measured: path, label id and reason of each object that has no place in its image; its area counts as 0.
        skipped: path and reason of each image whose size is not known: it has counts, and no areas.
    """

    field: str
    counts_field: str
    areas_field: str | None
    shares_field: str | None
    min_confidence: float | None
    classes: tuple[ClassCounts, ...]
    num_images: int
    num_without_labels: int
    num_written: int
    num_without_class: int = 0
    num_crowds: int = 0
    by_box: tuple[tuple[str, str, str], ...] = ()
    not_measured: tuple[tuple[str, str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def num_objects(self) -> int:
        """Objects of every class."""
        return sum(row.num_objects for row in self.classes)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that were written."""
        return tuple(name for name in (self.counts_field, self.areas_field, self.shares_field) if name is not None)

    def _repr_html_(self) -> str:
        """Objects a class as bars, and their images and areas as a table."""
        heads = ["class", "objects", "images", *(["area, pixels"] if self.areas_field else [])]
        rows = [[row.label, row.num_objects, row.num_images, *([row.area] if self.areas_field else [])] for row in self.classes]
        return page(
            f"{counted(self.num_objects, 'object')} of {self.field!r} counted in {counted(self.num_images, 'image')}",
            facts({"fields": ", ".join(self.fields), "minimum score": self.min_confidence}),
            bars({row.label: row.num_objects for row in self.classes}),
            table(heads, rows),
            details(f"{counted(len(self.by_box), 'object')} measured by their boxes", _lines(self.by_box)),
            details(f"{counted(len(self.not_measured), 'object')} not measured", _lines(self.not_measured)),
            details(f"{counted(len(self.skipped), 'image')} without areas", [f"{path}: {why}" for path, why in self.skipped]),
        )

    def __str__(self) -> str:
        least = "" if self.min_confidence is None else f" of confidence {self.min_confidence:g} and more"
        lines = [
            f"{counted(self.num_objects, 'object')}{least} in {counted(self.num_images - self.num_without_labels, 'image')}, "
            f"now in {', '.join(self.fields)}"
        ]
        width = max((len(row.label) for row in self.classes), default=0)
        for row in self.classes:
            line = f"{row.label:{width}}  {counted(row.num_objects, 'object')} in {counted(row.num_images, 'image')}"
            lines.append(line if row.area is None else f"{line}, {row.area:,.0f} pixels")
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """What was left out or assumed, a sentence each."""
        notes = []
        if self.num_without_labels:
            notes.append(f"{counted(self.num_without_labels, 'image')} without labels in {self.field!r}: no numbers there")
        if self.num_without_class:
            notes.append(f"not counted: {counted(self.num_without_class, 'object')} without a class")
        if self.num_crowds:
            notes.append(f"not counted: {counted(self.num_crowds, 'crowd')}")
        for entries, what in ((self.by_box, "measured by its box"), (self.not_measured, "area counted as 0")):
            notes += [f"{what}: the label {label_id} of {path}: {reason}" for path, label_id, reason in entries[:LISTED]]
            if len(entries) > LISTED:
                notes.append(f"{what}: {len(entries) - LISTED} more labels")
        notes += [f"areas left out: {path}: {reason}" for path, reason in self.skipped[:LISTED]]
        if len(self.skipped) > LISTED:
            notes.append(f"areas left out: {len(self.skipped) - LISTED} more images")
        return notes


def _lines(objects: Sequence[tuple[str, str, str]]) -> list[str]:
    return [f"{path}, label {label_id}: {why}" for path, label_id, why in objects]
