"""A threshold for each class, from its references and what lies around them, by leaving out one image at a time.

Every candidate of an image is scored by prototypes that have not seen this image: so references say how high the scores of new
objects of their class are, and the candidates around them how high those of everything else. Takes milliseconds a hundred
references.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .gallery import Galleries
from .match_settings import MatchSettings
from .prototypes import Prototypes
from .similarity import classify

OTHERS_WEIGHT = 0.2
"""How much a candidate of another class counts for a class's threshold."""
FALSE_WEIGHT = 1.0
"""How much a candidate that is taken for a class and is none counts, beside a reference that is found."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Candidates of images of references, scored as if these images had never been shown.

    Attributes:
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, the row of the class that won.
        truth: (N,) int64, the row of the class of the reference that each shows; -1 for one that overlaps no known object.
        shown: id of the reference that each shows, or "".
    """

    scores: Tensor
    labels: Tensor
    truth: Tensor
    shown: tuple[str, ...]


def leave_one_out(prototypes: Prototypes, settings: MatchSettings | None = None) -> LeftOut:
    """Score the surroundings of prototypes without the references of the same image; none where they have no surroundings.

    A reference whose class has none in any other image has nothing to be compared with: it is left out.
    """
    around = prototypes.surroundings
    if around is None or not len(around):
        empty = torch.zeros(0)
        return LeftOut(empty, empty.long(), empty.long(), ())
    galleries = Galleries(prototypes, settings or MatchSettings())
    row_of = dict(zip(prototypes.reference_ids, prototypes.labels.tolist(), strict=True))
    images = np.array(around.images)
    scores, labels = torch.zeros(len(around)), torch.zeros(len(around), dtype=torch.int64)
    counted = torch.zeros(len(around), dtype=torch.bool)
    truth = torch.tensor([row_of.get(name, -1) for name in around.shown], dtype=torch.int64)
    for image in sorted(set(around.images)):
        rows = torch.from_numpy(np.flatnonzero(images == image))
        gallery = galleries.make(image)
        found = classify(around.features[rows].float(), gallery)
        scores[rows], labels[rows] = found.scores, found.labels
        known = torch.ones(gallery.num_classes + 1, dtype=torch.bool)
        if gallery.labels is not None:
            known[:-1] = torch.bincount(gallery.labels, minlength=gallery.num_classes) > 0
        counted[rows] = known[truth[rows]]  # row -1 is the last
    kept = counted.nonzero()[:, 0]
    return LeftOut(scores[kept], labels[kept], truth[kept], tuple(around.shown[row] for row in kept.tolist()))


def calibrated_thresholds(prototypes: Prototypes, settings: MatchSettings | None = None) -> dict[str, float]:
    """The threshold of each class at which leave-one-out finds most of its references and little else (the best F1).

    A class has few references, so those of all others count too, for less; its threshold moves away from theirs as it gets
    more of its own.

    Args:
        prototypes: with surroundings; without any, or where no class has references in two images, the answer is empty.
        settings: how candidates are compared.

    Returns:
        A number in [0, 1] for every class, or none at all.
    """
    found = leave_one_out(prototypes, settings)
    if not bool((found.truth >= 0).any()):
        return {}
    return {name: _threshold(found, row) for row, name in enumerate(prototypes.classes)}


def _threshold(found: LeftOut, row: int) -> float:
    """The best threshold of a class: the middle of the range of scores in which it makes no difference."""
    scores = found.scores.numpy().astype(np.float64)
    labels, truth = found.labels.numpy(), found.truth.numpy()
    right = labels == truth
    own_label, own_truth = np.where(labels == row, 1.0, OTHERS_WEIGHT), np.where(truth == row, 1.0, OTHERS_WEIGHT)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.where(right, own_truth, 0.0)[order])
    misses = np.cumsum(np.where(right, 0.0, own_label * FALSE_WEIGHT)[order])
    objects = np.where(truth >= 0, own_truth, 0.0).sum()
    ends = np.flatnonzero(np.diff(scores[order], append=-1.0) < 0)  # equal scores are accepted together
    f1 = 2 * hits[ends] / (hits[ends] + misses[ends] + objects)
    best = int(f1.argmax())
    lowest = scores[order][ends[best]]
    below = scores[order][ends[best] + 1] if ends[best] + 1 < len(scores) else 0.0
    return float((lowest + below) / 2)
