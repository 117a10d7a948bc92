"""How well each reference fits its class: leave-one-out similarities, and which references look like mistakes.

Needs the vectors of prototypes alone, no image and no model; a thousand references take milliseconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..notebook import plain_page
from ..prototypes import Prototypes, class_prototypes, require_prototypes

MIN_SHOTS = 3
"""Of two references neither can be told to be the odd one."""
MIN_GAP = 0.1
"""References of a class that agree closely are not blamed for less than this."""
DEVIATIONS = 3
"""So many median absolute deviations below the median of its mates a reference is an outlier: two standard deviations of
normal values. Median and deviation, because in so few values a second outlier would pull mean and variance after itself."""


@dataclass(frozen=True)
class ReferenceQuality:
    """How one reference fits.

    Attributes:
        id: of the label.
        label: its class.
        similarity: cosine of its vector and the mean of the other references of its class; None for the only one.
        nearest_class: the other class it is most like; None where there is no other.
        nearest_similarity: cosine of its vector and that class's prototype.
        problem: why it looks like a mistake, as the end of a sentence that begins with the reference; None where it does not.
    """

    id: str
    label: str
    similarity: float | None
    nearest_class: str | None
    nearest_similarity: float | None
    problem: str | None

    _repr_html_ = plain_page


def reference_quality(prototypes: Prototypes) -> tuple[ReferenceQuality, ...]:
    """How each reference fits its class, in the order of the prototypes' references.

    A reference looks like a mistake when it is more like another class than like the other references of its own, or when it
    is far less like them than they are among each other: below the median of their similarities by more than three median
    absolute deviations, and by at least 0.1. The second needs three references of the class.

    Args:
        prototypes: of any number of classes.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> rows = torch.tensor([0, 0, 0, 1])
        >>> last = reference_quality(Prototypes(("star", "tee"), vectors, rows, ("a", "b", "c", "d"), "demo", ""))[2]
        >>> round(last.similarity, 2), last.nearest_class, round(last.nearest_similarity, 2)
        (0.6, 'tee', 0.8)
        >>> last.problem
        "more like 'tee' (0.80) than like the other references of 'star' (0.60)"
    """
    require_prototypes(prototypes=prototypes)
    own = _leave_one_out(prototypes)
    nearest = _nearest_others(prototypes)
    rows = prototypes.labels.tolist()
    members: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row, []).append(number)
    answer = []
    for number, (name, row) in enumerate(zip(prototypes.reference_ids, rows, strict=True)):
        label, similarity = prototypes.classes[row], own[number]
        other, other_similarity = nearest[number]
        mates = [value for mate in members[row] if mate != number and (value := own[mate]) is not None]
        problem = _problem(label, similarity, other, other_similarity, mates)
        answer.append(ReferenceQuality(name, label, similarity, other, other_similarity, problem))
    return tuple(answer)


def _leave_one_out(prototypes: Prototypes) -> list[float | None]:
    """Similarity of each reference to the prototype that its class would have without it."""
    vectors, labels = prototypes.vectors.float(), prototypes.labels
    sums = torch.zeros(len(prototypes.classes), vectors.shape[1]).index_add_(0, labels, vectors)
    shots = torch.bincount(labels, minlength=len(prototypes.classes))[labels]
    # The length of a mean does not count in a cosine, so the sum of the others serves as well.
    values = F.cosine_similarity(vectors, sums[labels] - vectors, dim=1).tolist()
    return [value if number > 1 else None for value, number in zip(values, shots.tolist(), strict=True)]


def _nearest_others(prototypes: Prototypes) -> list[tuple[str | None, float | None]]:
    """The class other than its own that each reference is most like."""
    if len(prototypes.classes) == 1:
        return [(None, None)] * len(prototypes.labels)
    matrix = class_prototypes(prototypes.vectors.float(), prototypes.labels, len(prototypes.classes))
    similarities = F.normalize(prototypes.vectors.float(), dim=1) @ matrix.T  # (R, K)
    similarities.scatter_(1, prototypes.labels[:, None], float("-inf"))
    best, rows = similarities.max(1)
    return [(prototypes.classes[row], value) for row, value in zip(rows.tolist(), best.tolist(), strict=True)]


def _problem(
    label: str, similarity: float | None, other: str | None, other_similarity: float | None, mates: Sequence[float]
) -> str | None:
    if similarity is None:
        return None
    if other_similarity is not None and other_similarity > similarity:
        return f"more like {other!r} ({other_similarity:.2f}) than like the other references of {label!r} ({similarity:.2f})"
    if len(mates) + 1 < MIN_SHOTS:
        return None
    usual = statistics.median(mates)
    deviation = statistics.median(abs(mate - usual) for mate in mates)
    if usual - similarity > max(MIN_GAP, DEVIATIONS * deviation):
        return f"unlike the other references of {label!r}: {similarity:.2f}, the others about {usual:.2f}"
    return None
