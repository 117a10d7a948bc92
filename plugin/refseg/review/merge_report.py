"""What merging accepted objects into a field came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..checks import require_names
from ..errors import DatasetError
from ..notebook import bars, details, page
from ..printing import counted

LISTED = 10
"""Objects that a printed report names."""


@dataclass(frozen=True)
class MergedObject:
    """An accepted object that was copied.

    Attributes:
        sample_id: of its image.
        label_id: of the copy.
        accepted_id: of the accepted label.
        label: its class.
        digest: of what was written, by which undoing knows whether somebody has edited it since.
    """

    sample_id: str
    label_id: str
    accepted_id: str
    label: str
    digest: str


@dataclass(frozen=True)
class MergeConflict:
    """An accepted object that lies where an object of another class is.

    Attributes:
        sample_id: of their image.
        accepted_id: of the accepted label.
        label: its class.
        other_id: of the label in the field that was merged into.
        other_label: its class; None where it has none.
        iou: of the two, of their masks where both have one, else of their boxes.
        is_added: whether the accepted object was added all the same.
    """

    sample_id: str
    accepted_id: str
    label: str
    other_id: str
    other_label: str | None
    iou: float
    is_added: bool


@dataclass(frozen=True)
class MergeReport:
    """What merge_accepted did; `undo_merge` takes it back. Every attribute survives JSON.

    Attributes:
        into: the field that objects were added to.
        accepted_field: the field that they come from.
        added: the objects that were added.
        num_images: images with accepted objects that were looked at.
        num_accepted: accepted objects in them.
        num_there: those that were there already, and so were not added.
        conflicts: those that lie where an object of another class is.
        num_negative: labels of the accepted field that are rejected, or tagged `negative`; they were not added.
        left_out: sample id, label id and reason of each that cannot be added: it has no class, or no place in its image.
    """

    into: str
    accepted_field: str
    added: Sequence[MergedObject] = ()
    num_images: int = 0
    num_accepted: int = 0
    num_there: int = 0
    conflicts: Sequence[MergeConflict] = ()
    num_negative: int = 0
    left_out: Sequence[tuple[str, str, str]] = ()

    def __post_init__(self) -> None:
        require_names(into=self.into, accepted_field=self.accepted_field)
        # JSON knows neither tuples nor these classes.
        for name, kind in (("added", MergedObject), ("conflicts", MergeConflict)):
            object.__setattr__(self, name, tuple(_as(kind, item, name) for item in getattr(self, name)))
        object.__setattr__(self, "left_out", tuple(map(tuple, self.left_out)))

    @property
    def num_added(self) -> int:
        """Objects that were added."""
        return len(self.added)

    @property
    def classes(self) -> dict[str, int]:
        """How many objects of each class were added, by name."""
        return dict(sorted(Counter(one.label for one in self.added).items()))

    @property
    def num_conflicting(self) -> int:
        """Accepted objects that were not added because an object of another class is there."""
        return sum(not one.is_added for one in self.conflicts)

    def describe(self) -> str:
        """What was added and what was not, in a few sentences.

        Example:
            >>> MergeReport("ground_truth", "accepted", num_accepted=2, num_there=2).describe()
            "Added no object to 'ground_truth'. 2 were there already."
        """
        number = counted(self.num_added, "object") if self.added else "no object"
        parts = [f"Added {number} to {self.into!r}."]
        if self.num_there:
            parts.append(f"{self.num_there} {'was' if self.num_there == 1 else 'were'} there already.")
        if self.num_conflicting:
            verb, was = ("lies", "was") if self.num_conflicting == 1 else ("lie", "were")
            parts.append(f"{self.num_conflicting} {verb} where an object of another class is, and {was} not added.")
        if self.num_negative:
            parts.append(f"Left out {counted(self.num_negative, 'negative')}.")
        if self.left_out:
            parts.append(f"Left out {counted(len(self.left_out), 'label')} without a class or a place.")
        return " ".join(parts)

    def _repr_html_(self) -> str:
        """Objects added a class as bars, and what was not added as lists."""
        conflicts = [
            f"{one.label} lies on {one.other_label} (IoU {one.iou:.2f}) in the image {one.sample_id}"
            f"{', and was added' if one.is_added else ''}"
            for one in self.conflicts
        ]
        left_out = [f"label {name} of the image {image}: {why}" for image, name, why in self.left_out]
        return page(
            self.describe(),
            bars(self.classes),
            details(f"{counted(len(conflicts), 'object')} on another class", conflicts),
            details(f"{counted(len(left_out), 'label')} left out", left_out),
        )

    def __str__(self) -> str:
        lines = [self.describe(), *(f"{name}: {number}" for name, number in self.classes.items())]
        lines += [
            f"{one.label} {one.accepted_id} lies on {one.other_label} {one.other_id} (IoU {one.iou:.2f}) in the image "
            f"{one.sample_id}{', and was added' if one.is_added else ''}"
            for one in self.conflicts[:LISTED]
        ]
        if len(self.conflicts) > LISTED:
            lines.append(f"{len(self.conflicts) - LISTED} more lie on others, see conflicts")
        lines += [f"left out the label {name} of the image {image}: {why}" for image, name, why in self.left_out[:LISTED]]
        if len(self.left_out) > LISTED:
            lines.append(f"left out {len(self.left_out) - LISTED} more labels, see left_out")
        return "\n".join(lines)


def _as(kind: type, item: Any, name: str) -> Any:
    if isinstance(item, kind):
        return item
    try:
        made = kind(**item)
        require_names(sample_id=made.sample_id, accepted_id=made.accepted_id, label=made.label)
        if isinstance(made, MergedObject):
            require_names(label_id=made.label_id, digest=made.digest)
    except TypeError as error:
        raise DatasetError(f"An item of {name} cannot be {item!r}: pass what refseg.merge_accepted returned.") from error
    return made
