"""What differs from one answer to the next: objects gained, lost and relabelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..dataset import (
    NO_BOX,
    is_box,
)
from ..notebook import GREEN, ORANGE, PINK, Html, details, heading, page, stacked
from ..printing import counted

SAME_SCORE = 1e-6
"""Scores may differ by this much with the company in which they were computed."""
TENTHS = 10
"""Into so many steps scores from 0 to 1 are sorted to be counted."""
SAME_OBJECT_IOU = 0.5
"""Box IoU from which predictions of two runs are taken for one object."""
OBJECTS_NOTED = 20_000
"""Objects that changes name one by one; of more they tell the numbers alone."""
GAINED, LOST, RELABELLED = "gained", "lost", "relabelled"


class ChangedObject(NamedTuple):
    """An object that a run gained, lost or relabelled.

    Attributes:
        sample_id: of its image.
        change: "gained", "lost" or "relabelled".
        label: its class now; of a lost one what it was.
        before: what a relabelled one was, else None.
        box: relative x, y, width, height, where it is now, or was; None where it had no box.
    """

    sample_id: str
    change: str
    label: str
    before: str | None
    box: tuple[float, ...] | None


@dataclass(frozen=True)
class Changes:
    """What a run changed in samples that had been segmented before.

    Detections whose boxes have an IoU of SAME_OBJECT_IOU or more are one object: paired first with those of their label, then
    with any other, the best scores first.

    Attributes:
        gained: number of objects of each label that were not there before.
        lost: number of objects of each label that are not there any more.
        relabelled: number of objects for each earlier and present label.
        sample_ids: samples with any of these, in the order in which they were written.
        objects: the first OBJECTS_NOTED of them, one by one.
    """

    gained: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    relabelled: dict[tuple[str, str], int] = field(default_factory=dict)
    sample_ids: tuple[str, ...] = ()
    objects: tuple[ChangedObject, ...] = ()

    @property
    def num_gained(self) -> int:
        """Objects of any label."""
        return sum(self.gained.values())

    @property
    def num_lost(self) -> int:
        """Objects of any label."""
        return sum(self.lost.values())

    @property
    def num_relabelled(self) -> int:
        """Objects of any label."""
        return sum(self.relabelled.values())

    @property
    def num_samples(self) -> int:
        """Samples with any change."""
        return len(self.sample_ids)

    def as_lists(self) -> dict[str, list[list[Any]]]:
        """The three counts as JSON, without a label as a key, because MongoDB refuses some."""
        return {
            "gained": [list(pair) for pair in self.gained.items()],
            "lost": [list(pair) for pair in self.lost.items()],
            "relabelled": [[*labels, number] for labels, number in self.relabelled.items()],
        }

    def _repr_html_(self) -> str:
        """Bars of what was gained, lost and relabelled, a class each."""
        return page("Changes", changes_page(self) or "no object gained, lost or relabelled")

    def __str__(self) -> str:
        moves = {f"{before} → {now}": number for (before, now), number in self.relabelled.items()}
        kinds = {"gained": self.gained, "lost": self.lost, "relabelled": moves}
        parts = [f"{sum(counts.values())} {kind} ({_listing(counts)})" for kind, counts in kinds.items() if counts]
        if not parts:
            return "no object gained, lost or relabelled"
        number, rest = parts[0].split(" ", 1)
        return ", ".join([f"{number} object{'' if number == '1' else 's'} {rest}", *parts[1:]])


def changes_page(changes: Changes) -> Html | None:
    """What was gained, lost and relabelled, a class each, as a part of a page; None where nothing was."""
    if not changes.num_samples:
        return None
    # An object that was relabelled counts for what it is now.
    moved = Counter({now: 0 for _, now in changes.relabelled})
    for (_, now), number in changes.relabelled.items():
        moved[now] += number
    kinds = {"gained": changes.gained, "lost": changes.lost, "relabelled": moved}
    labels = dict.fromkeys(label for counts in kinds.values() for label in counts)
    rows = {label: [counts.get(label, 0) for counts in kinds.values()] for label in labels}
    ordered = dict(sorted(rows.items(), key=lambda item: -sum(item[1])))
    lines = [f"{before} → {now}: {number:,}" for (before, now), number in changes.relabelled.items()]
    return Html(
        heading(f"Since the last run, in {counted(changes.num_samples, 'image')}")
        + stacked({"gained": GREEN, "lost": ORANGE, "relabelled": PINK}, ordered)
        + details(f"{counted(changes.num_relabelled, 'object')} relabelled", lines)
    )


def _listing(counts: Mapping[str, int]) -> str:
    """Names by falling number; of one name the number goes without saying."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))


Named = tuple[str | None, Sequence[float] | None]
"""Label and relative xywh box of a detection."""


@dataclass
class Tally:
    """Counts what changed from one answer to the next."""

    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    relabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    sample_ids: list[str] = field(default_factory=list)
    objects: list[ChangedObject] = field(default_factory=list)

    @property
    def changes(self) -> Changes:
        """What was counted so far."""
        counts = dict(self.gained), dict(self.lost), dict(self.relabelled)
        return Changes(*counts, tuple(self.sample_ids), tuple(self.objects))

    def compare(self, sample_id: str, before: Sequence[Named], now: Sequence[Named]) -> None:
        """Take the detections that a sample held and those it gets, the best score first."""
        if not before and not now:
            return
        pairs = pair_objects(before, now)
        kept = set(pairs.values())
        found = [_changed(sample_id, GAINED, one) for row, one in enumerate(now) if row not in pairs]
        found += [_changed(sample_id, LOST, one) for row, one in enumerate(before) if row not in kept]
        moved = [(before[old][0], now[new]) for new, old in pairs.items() if before[old][0] != now[new][0]]
        found += [_changed(sample_id, RELABELLED, one, _named(old)) for old, one in moved]
        self.gained.update(one.label for one in found if one.change == GAINED)
        self.lost.update(one.label for one in found if one.change == LOST)
        self.relabelled.update((str(one.before), one.label) for one in found if one.change == RELABELLED)
        if found:
            self.sample_ids.append(sample_id)
            self.objects += found[: OBJECTS_NOTED - len(self.objects)]


def _changed(sample_id: str, change: str, one: Named, before: str | None = None) -> ChangedObject:
    label, box = one
    return ChangedObject(sample_id, change, _named(label), before, tuple(map(float, box)) if is_box(box) else None)


def _named(label: str | None) -> str:
    return "unlabelled" if label is None else label


def kinds_of(named: Sequence[Named], scores: Sequence[float]) -> list[tuple[str, int]]:
    """Class and tenth of the score of each instance."""
    pairs = zip(named, scores, strict=True)
    return [(label or "unlabelled", min(TENTHS - 1, int(TENTHS * score))) for (label, _), score in pairs]


def pair_objects(before: Sequence[Named], now: Sequence[Named]) -> dict[int, int]:
    """Which detections of now are which of before.

    Each takes the nearest that is left and has an IoU of SAME_OBJECT_IOU or more with it: first of its label, then of any.

    Args:
        before: labels and boxes.
        now: labels and boxes, the best score first.

    Returns:
        Positions before by positions now, of those that have a partner.

    Example:
        >>> left, right = [0.0, 0.0, 0.4, 0.4], [0.5, 0.0, 0.4, 0.4]
        >>> pair_objects([("nut", left), ("gear", right)], [("nut", right), ("nut", left)])
        {1: 0, 0: 1}
    """
    near = _ious(_corners(now), _corners(before))
    alike = np.array([[name == other for other, _ in before] for name, _ in now], bool).reshape(near.shape)
    pairs: dict[int, int] = {}
    for allowed in (alike, ~alike):
        for new in range(len(now)):
            left = np.where(allowed[new], near[new], 0.0)
            left[list(pairs.values())] = 0.0
            if new not in pairs and left.size and left.max() >= SAME_OBJECT_IOU:
                pairs[new] = int(left.argmax())
    return pairs


def _corners(detections: Iterable[Named]) -> NDArray[np.float64]:
    """(n, 4) relative xyxy boxes; a detection without a box has one that nothing overlaps."""
    x, y, w, h = np.array([box if is_box(box) else NO_BOX for _, box in detections], float).reshape(-1, 4).T
    return np.stack([x, y, x + w, y + h], 1)


def _ious(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) IoU of xyxy boxes; 0 of two without an area."""
    shared = (np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])).clip(0).prod(2)
    areas, other_areas = (np.prod(some[:, 2:] - some[:, :2], 1) for some in (boxes, others))
    union = areas[:, None] + other_areas - shared
    ious: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious
