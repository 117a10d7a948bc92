"""What was decided, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ..notebook import BLUE, GREEN, GREY, ORANGE, PINK, facts, page, plain_page, stacked

COLORS = {"accepted": GREEN, "rejected": ORANGE, "relabelled": PINK, "corrected by hand": BLUE, "open": GREY}


@dataclass(frozen=True)
class ClassReview:
    """How far the review of one class is.

    Attributes:
        label: the class as it was predicted.
        num_open: predictions nobody has decided on.
        num_accepted: accepted as they were.
        num_rejected: rejected.
        num_relabelled: accepted under another name.
        num_fixed: accepted and corrected by hand.
    """

    label: str
    num_open: int
    num_accepted: int
    num_rejected: int
    num_relabelled: int
    num_fixed: int

    _repr_html_ = plain_page

    @property
    def num_decided(self) -> int:
        """Objects decided on."""
        return self.num_accepted + self.num_corrected

    @property
    def num_corrected(self) -> int:
        """Objects that were not right as they were."""
        return self.num_rejected + self.num_relabelled + self.num_fixed

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the decided objects that were right as they were; None where nothing is decided."""
        return self.num_accepted / self.num_decided if self.num_decided else None

    @property
    def corrections_per_hundred(self) -> float | None:
        """Corrections in a hundred decided objects; None where nothing is decided."""
        return 100 * self.num_corrected / self.num_decided if self.num_decided else None


@dataclass(frozen=True)
class ReviewSummary:
    """How far a review is; its numbers are sums over the classes.

    Attributes:
        classes: by name.
    """

    classes: tuple[ClassReview, ...]

    @property
    def num_open(self) -> int:
        """Predictions nobody has decided on."""
        return sum(row.num_open for row in self.classes)

    @property
    def num_accepted(self) -> int:
        """Objects accepted as they were."""
        return sum(row.num_accepted for row in self.classes)

    @property
    def num_rejected(self) -> int:
        """Objects rejected."""
        return sum(row.num_rejected for row in self.classes)

    @property
    def num_relabelled(self) -> int:
        """Objects accepted under another name."""
        return sum(row.num_relabelled for row in self.classes)

    @property
    def num_fixed(self) -> int:
        """Objects accepted and corrected by hand."""
        return sum(row.num_fixed for row in self.classes)

    @property
    def num_decided(self) -> int:
        """Objects decided on."""
        return self._total.num_decided

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the decided objects that were right as they were; None where nothing is decided."""
        return self._total.acceptance_rate

    @property
    def corrections_per_hundred(self) -> float | None:
        """Corrections in a hundred decided objects; None where nothing is decided."""
        return self._total.corrections_per_hundred

    @property
    def _total(self) -> ClassReview:
        counts = (self.num_open, self.num_accepted, self.num_rejected, self.num_relabelled, self.num_fixed)
        return ClassReview("", *counts)

    def _repr_html_(self) -> str:
        """What was decided and what is open, a bar for each class."""
        rows = {
            row.label: (row.num_accepted, row.num_rejected, row.num_relabelled, row.num_fixed, row.num_open)
            for row in self.classes
        }
        each = self.corrections_per_hundred
        return page(
            f"Review: {self.num_decided:,} decided, {self.num_open:,} open",
            stacked(COLORS, rows),
            facts({"corrections in a hundred objects": None if each is None else round(each)}),
        )

    def __str__(self) -> str:
        decided = f"{self.num_accepted} accepted, {self.num_rejected} rejected, {self.num_relabelled} relabelled"
        text = f"{decided}, {self.num_fixed} corrected by hand; {self.num_open} to review"
        if self.corrections_per_hundred is not None:
            text += f"; {self.corrections_per_hundred:.0f} corrections in a hundred objects"
        return text
