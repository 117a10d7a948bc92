"""What an update did, as a value that prints what a user wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..calibration import labelled_ids, num_mined
from ..notebook import Html, facts, page
from ..prototypes import Prototypes
from .segment_report import SegmentReport

MAX_REMARKS = 12
"""Lines beside the figures that a notebook shows."""
GROWN = 1.5
"""From so many times the images on, what the dataset is full of may be something else."""


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Attributes:
        prototypes_name: under which the new prototypes are kept.
        classes: that the new prototypes know.
        classes_added: of these, those that the field's last run did not know.
        classes_dropped: classes of the last run that have no reference any more; their predictions are gone.
        references_added: ids of references that the last run did not use.
        references_removed: ids of references that only the last run used.
        negatives_added: ids of negatives that the last run did not use.
        negatives_removed: ids of negatives that only the last run used.
        num_reused: references and negatives that had not changed, whose vectors were kept.
        skipped: references and negatives that could not be used, each with the reason.
        segmentation: the report of the run, with what changed in the predictions.
        num_mined: negatives that nobody tagged, mined from images tagged `known_empty`; those added do not count them.
        dropped_confidences: least scores that somebody chose where scores were similarities, which probabilities have no use
            for, or the other way round.
        growth: images in the index besides those of references, before and now, where these are half as many again; None
            elsewhere.
        interrupted_run: key of the last run where its process ended before it did; None elsewhere.
    """

    prototypes_name: str
    classes: tuple[str, ...]
    classes_added: tuple[str, ...]
    classes_dropped: tuple[str, ...]
    references_added: tuple[str, ...]
    references_removed: tuple[str, ...]
    negatives_added: tuple[str, ...]
    negatives_removed: tuple[str, ...]
    num_reused: int
    skipped: tuple[tuple[str, str], ...]
    segmentation: SegmentReport
    num_mined: int = 0
    dropped_confidences: Mapping[str, float] = field(default_factory=dict)
    growth: tuple[int, int] | None = None
    interrupted_run: str | None = None

    def _repr_html_(self) -> str:
        """What was learnt from, and what that changed in the predictions."""
        learnt = {
            f"{kind} {change}": len(getattr(self, f"{kind}_{change}"))
            for kind in ("references", "negatives")
            for change in ("added", "removed")
        }
        said = str(self).removesuffix(str(self.segmentation)).splitlines()[1 : 1 + MAX_REMARKS]
        return page(
            f"Prototypes {self.prototypes_name!r} updated",
            facts({**learnt, "negatives mined": self.num_mined or None, "vectors kept": self.num_reused}),
            *said,
            Html(self.segmentation._repr_html_()),
        )

    def __str__(self) -> str:
        lines = [
            f"Prototypes {self.prototypes_name!r}: references +{len(self.references_added)} −{len(self.references_removed)}, "
            f"negatives +{len(self.negatives_added)} −{len(self.negatives_removed)}"
            + (f", {self.num_mined} mined from images known to be empty" if self.num_mined else "")
        ]
        if self.classes_added:
            lines.append(f"new classes: {', '.join(self.classes_added)}")
        if self.classes_dropped:
            lines.append(f"without references now, so no longer looked for: {', '.join(self.classes_dropped)}")
        if self.dropped_confidences:
            chosen = ", ".join(f"{label} {least:g}" for label, least in self.dropped_confidences.items())
            lines.append(f"least scores of the last run that count no more, because scores mean something else now: {chosen}")
        if self.interrupted_run:
            lines.append(
                f"the last run {self.interrupted_run!r} was interrupted: what it had not answered yet is answered now, and "
                "gained and lost is counted from what it left"
            )
        if self.growth:
            lines.append(
                f"the index has grown from {self.growth[0]:,} other images to {self.growth[1]:,}: what the dataset is full of "
                "was looked at anew, and scores may have moved"
            )
        lines += [f"left out {reason} ({label_id})" for label_id, reason in self.skipped]
        return "\n".join([*lines, str(self.segmentation)])


def report_of(
    name: str, prototypes: Prototypes, before: Prototypes | None, config: Mapping[str, Any], segmentation: SegmentReport
) -> UpdateReport:
    """What an update did.

    Args:
        name: under which the new prototypes are kept.
        prototypes: the new ones.
        before: those of the last run; None where their file is gone.
        config: of the last run.
        segmentation: the report of the new one.
    """
    classes, references = config["classes"], config["reference_ids"]
    negatives, new_negatives = config.get("negative_ids") or (), labelled_ids(prototypes.negatives)
    return UpdateReport(
        prototypes_name=name,
        classes=prototypes.classes,
        classes_added=_without(prototypes.classes, classes),
        classes_dropped=_without(classes, prototypes.classes),
        references_added=_without(prototypes.reference_ids, references),
        references_removed=_without(references, prototypes.reference_ids),
        negatives_added=_without(new_negatives, negatives),
        negatives_removed=_without(negatives, new_negatives),
        num_reused=0 if before is None else prototypes.num_shared(before),
        skipped=prototypes.skipped,
        segmentation=segmentation,
        num_mined=num_mined(prototypes.negatives),
        growth=_growth(before, prototypes),
    )


def _growth(before: Prototypes | None, now: Prototypes) -> tuple[int, int] | None:
    if before is None or before.cohort is None or now.cohort is None:
        return None
    images = before.cohort.num_images, now.cohort.num_images
    return images if images[1] > images[0] and images[1] >= GROWN * images[0] else None


def _without(ids: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    gone = set(others)
    return tuple(name for name in ids if name not in gone)
