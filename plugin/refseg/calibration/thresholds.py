"""A threshold for each class, from its references and what lies around them, by leaving out one image at a time.

Every candidate of an image is scored by prototypes that have not seen this image: so references say how high the scores of new
objects of their class are, and the candidates around them how high those of everything else. Takes milliseconds a hundred
references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..matching import Galleries, MatchSettings, classify
from ..models import Preset
from ..printing import one_line
from ..prototypes import Prototypes

# Chosen on the tuning seeds of benchmarks/quality.py.
OTHERS_WEIGHT = 0.1
"""How much a candidate of another class counts for a class's threshold."""
SPREAD = 0.04
"""A score is accepted by a threshold as by a logistic function of this scale: few references leave few steps to choose from."""
DEFAULT_SHOTS = 2
"""How many references the preset's threshold is worth."""
THRESHOLDS = np.linspace(0.0, 1.0, 201)


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

    __repr__ = one_line


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
        counted[rows] = gallery.has_vectors[truth[rows]] | (truth[rows] < 0)
    kept = counted.nonzero()[:, 0]
    return LeftOut(scores[kept], labels[kept], truth[kept], tuple(around.shown[row] for row in kept.tolist()))


def calibrated_thresholds(prototypes: Prototypes, settings: MatchSettings | None = None, *, default: float) -> dict[str, float]:
    """The threshold of each class at which leave-one-out finds most of its references and little else (the best F1).

    A class has few references: those of all others count a little too, scores count as if they were spread by SPREAD, and the
    threshold starts from the default as if DEFAULT_SHOTS references had asked for it.

    Args:
        prototypes: with surroundings; without any, or where no class has references in two images, the answer is empty.
        settings: how candidates are compared.
        default: the preset's threshold.

    Returns:
        A number in [0, 1] for every class, or none at all.
    """
    return thresholds_of(leave_one_out(prototypes, settings), prototypes.classes, default)


def default_thresholds(prototypes: Prototypes, preset: Preset, settings: MatchSettings) -> dict[str, float]:
    """The least score of each class that is written where nobody says otherwise: calibrated where that is possible."""
    general = dict.fromkeys(prototypes.classes, preset.min_confidence)
    return (
        {**general, **calibrated_thresholds(prototypes, settings, default=preset.typical_threshold)}
        if settings.calibrated
        else general
    )


def thresholds_of(found: LeftOut, classes: Sequence[str], default: float) -> dict[str, float]:
    """See calibrated_thresholds, for what leave_one_out has found."""
    if not bool((found.truth >= 0).any()):
        return {}
    return {name: _threshold(found, row, default) for row, name in enumerate(classes)}


def expected_f1(found: LeftOut, row: int, thresholds: NDArray[np.float64], others: float = 0.0) -> NDArray[np.float64]:
    """F1 of a class at each of some thresholds, over scores that count as if they were spread by SPREAD.

    Args:
        found: from leave_one_out.
        row: of the class.
        thresholds: (T,) in [0, 1].
        others: how much the candidates and references of other classes count.
    """
    scores = found.scores.double().numpy()
    labels, truth = found.labels.numpy(), found.truth.numpy()
    accepted = 1 / (1 + np.exp((thresholds - scores[:, None]) / SPREAD))  # (N, T)
    right = (labels == truth) * np.where(truth == row, 1.0, others)
    wrong = (labels != truth) * np.where(labels == row, 1.0, others)
    objects = ((truth >= 0) * np.where(truth == row, 1.0, others)).sum()
    hits = right @ accepted
    return np.asarray(2 * hits / np.maximum(hits + wrong @ accepted + objects, 1e-9))


def _threshold(found: LeftOut, row: int, default: float) -> float:
    best = float(THRESHOLDS[expected_f1(found, row, THRESHOLDS, OTHERS_WEIGHT).argmax()])
    shots = int((found.truth == row).sum())
    return (shots * best + DEFAULT_SHOTS * default) / (shots + DEFAULT_SHOTS)
