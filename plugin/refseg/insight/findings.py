"""What is known of prototypes, as values: classes, references, what is confused, and what would help. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..images import crop_picture
from ..notebook import facts, facts_of, gallery, page, plain_page
from ..printing import counted, object_name, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MIN_PREDICTED_IOU = 0.7
"""Below it nothing is suggested: a mask that the segmenter itself doubts is no good reference."""


@dataclass(frozen=True)
class ClassReport:
    """What the prototype of one class is worth.

    Attributes:
        label: the class.
        num_references: that it has.
        similarity: mean cosine of its references, each with the mean of the others; None for one reference.
        threshold: calibrated; None where it cannot be.
        f1: of its references found and other candidates taken for it at the threshold, each scored as if its image had never
            been shown; None where no reference of it can be scored so.
    """

    label: str
    num_references: int
    similarity: float | None
    threshold: float | None
    f1: float | None

    _repr_html_ = plain_page


@dataclass(frozen=True)
class ReferenceReport:
    """What one reference is worth.

    Attributes:
        id: of the label.
        label: its class.
        similarity: cosine with the mean of the other references of its class; None for the only one.
        score: of the candidate that shows it, scored as if its image had never been shown; None where no candidate shows it,
            where nothing is left to compare it with, or where nothing is known of its surroundings.
        won: the class with this score; None where there is none, or where the background won.
        f1_change: by how much the F1 of the other references of its class rises when it is removed; negative where they are
            found less well. Its own candidate counts neither before nor after, and the threshold is the best for each. None
            where too few references are left to tell.
        hurts: whether that is more than chance: as much F1 as finding a fifth of one more reference; None where f1_change is.
        problem: why it looks like a mistake, see `refseg.insight.quality.reference_quality`; None where it does not.
        filepath: of its image; "" where no dataset was given, or where its label is gone.
        box: x, y, width, height as shares of the upright image; None where filepath is "".
        image_name: name of the file of its image, without the folder; "" where nobody noted it.
    """

    id: str
    label: str
    similarity: float | None
    score: float | None
    won: str | None
    f1_change: float | None
    hurts: bool | None
    problem: str | None
    filepath: str = ""
    box: tuple[float, float, float, float] | None = None
    image_name: str = ""

    def _repr_html_(self) -> str:
        """The reference in its image, and what is known of it."""
        picture = crop_picture(self.filepath, self.box, self.label, self.problem or "")
        return page(self.name, gallery([picture]) if self.filepath else None, facts(facts_of(self)))

    @property
    def place(self) -> str:
        """What people read of it: its class and, where that is known, the file of its image."""
        return object_name(self.label, self.filepath or self.image_name)

    @property
    def name(self) -> str:
        """The same, and the id of its label to find it by."""
        return f"{self.place} ({self.id})"


@dataclass(frozen=True)
class Confusion:
    """The class whose references are most often, or most nearly, taken for another.

    Attributes:
        label: the class of the references.
        other: the class that they are taken for.
        num_taken: references of the class that are taken for the other; None where that is not known.
        num_scored: references of the class that were scored; None where that is not known.
        margin: by how much the class beat the other on the reference where that was closest, negative where it lost; None where
            that is not known.
        similarity: cosine of the two prototypes.
    """

    label: str
    other: str
    num_taken: int | None
    num_scored: int | None
    margin: float | None
    similarity: float

    def __str__(self) -> str:
        if self.margin is None:
            return f"{self.label!r} and {self.other!r} have the prototypes most alike: cosine {self.similarity:.2f}"
        if self.num_taken:
            share = f"{self.num_taken} of {counted(self.num_scored or 0, 'reference')}"
            return f"{self.label!r} is most often taken for {self.other!r}: {share}"
        return f"{self.label!r} is most nearly taken for {self.other!r}: right by {self.margin:.2f} where it is closest"


@dataclass(frozen=True)
class Suggestion:
    """A candidate without a label that would help as the next reference.

    Attributes:
        sample_id: of its image.
        filepath: of its image.
        label: the class that it would be a reference of, if it is one.
        score: its similarity to the class.
        box: x, y, width, height as shares of the upright image.
        expected_change: how much it would help, in [0, 1]; see `refseg.runs.suggestions`.
        reason: in words.
        predicted_iou: of its mask, from the segmenter.
        mask: (h, w) bool over the box, in pixels of the image.
    """

    sample_id: str
    filepath: str
    label: str
    score: float
    box: tuple[float, float, float, float]
    expected_change: float
    reason: str
    predicted_iou: float
    mask: NDArray[np.bool_] = field(repr=False, compare=False)

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """The candidate in its image, and why it is suggested."""
        picture = crop_picture(self.filepath, self.box, f"{self.label}?", self.reason, self.mask)
        return page(self.name, gallery([picture]), facts(facts_of(self, "mask", "reason")))

    @property
    def name(self) -> str:
        """What people read of it: the class that it may be of, the file of its image, and the id of that."""
        return object_name(self.label, self.filepath, f"sample {self.sample_id}")


@dataclass(frozen=True)
class Findings:
    """What prototypes are worth, and what would help.

    Attributes:
        classes: K of them, in the prototypes' order.
        between: K rows of the cosine of each prototype with each.
        references: in the prototypes' order.
        confusion: what is confused most; None with one class.
        suggestions: what to label next, best first; None where no dataset was given or none could be looked for.
        notes: what is missing, and what to do about it.
    """

    classes: tuple[ClassReport, ...]
    between: tuple[tuple[float, ...], ...]
    references: tuple[ReferenceReport, ...]
    confusion: Confusion | None
    suggestions: tuple[Suggestion, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def hurting(self) -> tuple[ReferenceReport, ...]:
        """References without which the others of their class are found better, the worst first."""
        found = [(item.f1_change or 0.0, item) for item in self.references if item.hurts]
        return tuple(item for _, item in sorted(found, key=lambda pair: -pair[0]))


def why_it_hurts(item: ReferenceReport) -> str:
    """In words, as a sentence without its full stop.

    Example:
        >>> why_it_hurts(ReferenceReport("a", "nut", 0.5, 0.6, "gear", 0.25, True, None))
        "without it F1 of the other references of 'nut' is 0.250 higher; it is itself taken for 'gear' (0.60)"
    """
    text = f"without it F1 of the other references of {item.label!r} is {item.f1_change or 0.0:.3f} higher"
    if item.won is not None and item.won != item.label:
        text += f"; it is itself taken for {item.won!r} ({item.score:.2f})"
    return text
