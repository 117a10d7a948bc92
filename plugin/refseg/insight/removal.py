"""What a class would be like without one of its references, for every reference, without scoring all candidates anew for each.

Leaving out a reference changes the similarities to its own class alone. So each image is compared once with all classes and
once with every shortened version of each: for R references, N candidates and C features about N × R × C multiplications, and
for each class as many galleries as it has pairs of a reference and an image. Six classes of thirty references with 50
candidates an image take a few seconds on one core, "nearest" and "clusters" twice that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..calibration import LeftOut
from ..matching import Galleries, Gallery, MatchSettings, NegativeMatrix, make_gallery, similarities
from ..printing import one_line
from ..prototypes import Negatives, Prototypes, Surroundings

SPREAD = 0.04
"""A score is accepted by a threshold as by a logistic function of this scale: few references leave few steps to choose from."""
THRESHOLDS = np.linspace(0.0, 1.0, 201)


@dataclass(frozen=True, eq=False)
class Scored:
    """The surroundings of prototypes, scored as if the image of each had never been shown.

    Attributes:
        similar: (N, K) float32 in [0, 1], before the background has its say.
        plain: (N, K) float32 in [0, 1], before negatives lowered them too.
        background: (N,) float32, the highest cosine with any background; below every one where there is none.
        truth: (N,) int64, the row of the class of the reference that each shows; -1 for one that overlaps no known object.
        counted: (N,) bool, False for one that shows a reference whose class has none in any other image.
        shown: id of the reference that each shows, or "".
    """

    similar: Tensor
    plain: Tensor
    background: Tensor
    truth: Tensor
    counted: Tensor
    shown: tuple[str, ...]

    __repr__ = one_line

    @property
    def final(self) -> Tensor:
        """(N, K) float32 in [0, 1]: what decides; all 0 where the background won."""
        return self.similar.masked_fill((self.background > self.plain.amax(1))[:, None], 0.0)

    def left_out(self, counted: Tensor | None = None) -> LeftOut:
        """As `refseg.calibration.leave_one_out` has it; of some candidates alone, and then without what they show."""
        scores, labels = self.final.max(1)
        kept = (self.counted if counted is None else counted).nonzero()[:, 0]
        shown = tuple(self.shown[row] for row in kept.tolist()) if counted is None else ("",) * len(kept)
        return LeftOut(scores[kept], labels[kept], self.truth[kept], shown)


def score_surroundings(prototypes: Prototypes, around: Surroundings, settings: MatchSettings) -> Scored:
    """Score the surroundings of prototypes without what the image of each shows."""
    galleries = Galleries(prototypes, settings)
    row_of = dict(zip(prototypes.reference_ids, prototypes.labels.tolist(), strict=True))
    truth = torch.tensor([row_of.get(name, -1) for name in around.shown], dtype=torch.int64)
    similar = torch.zeros(len(around), len(prototypes.classes))
    plain, background = torch.zeros_like(similar), torch.full((len(around),), -2.0)
    counted = torch.zeros(len(around), dtype=torch.bool)
    for image, rows in _images(around):
        gallery = galleries.make(image)
        features = around.features[rows].float()
        without_background = replace(gallery, background=None)
        similar[rows] = similarities(features, without_background)
        plain[rows] = similarities(features, replace(without_background, negatives=None))
        if gallery.background is not None and len(gallery.background):
            background[rows] = (features @ gallery.background.T).amax(1)
        counted[rows] = gallery.has_vectors[truth[rows]] | (truth[rows] < 0)
    return Scored(similar, plain, background, truth, counted, around.shown)


def f1_changes(prototypes: Prototypes, around: Surroundings, settings: MatchSettings, scored: Scored) -> list[float | None]:
    """By how much the F1 of the other references of its class rises when each reference is removed.

    F1 is expected_f1 at the threshold where that is highest for the class, before and after. The
    candidate that shows the reference counts in neither, nor do those that cannot be scored without it. The background stays as
    it is.

    Args:
        prototypes: R references.
        around: their surroundings.
        settings: how candidates are compared.
        scored: the surroundings, by score_surroundings with the same settings.

    Returns:
        R numbers in [-1, 1]; None where the class has no reference left that can be scored.
    """
    changes: list[float | None] = [None] * len(prototypes.labels)
    shown = np.array(around.shown)
    for row in range(len(prototypes.classes)):
        members = (prototypes.labels == row).nonzero()[:, 0].tolist()
        if len(members) < 2:
            continue
        shorter = _ShorterClass(prototypes, row, members, settings)
        similar, plain, known = _compare_shortened(prototypes, around, settings, shorter)
        for column, member in enumerate(members):
            without = replace(
                scored,
                similar=_with_column(scored.similar, row, similar[:, column]),
                plain=_with_column(scored.plain, row, plain[:, column]),
            )
            own = torch.from_numpy(shown == prototypes.reference_ids[member])
            counts = scored.counted & ~own & ((scored.truth != row) | known[:, column])
            before, after = (_best_f1(item.left_out(counts), row) for item in (scored, without))
            if before is not None and after is not None:
                changes[member] = after - before
    return changes


def expected_f1(found: LeftOut, row: int, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of a class at each of some thresholds, over scores that count as if they were spread by SPREAD.

    Args:
        found: from leave_one_out.
        row: of the class.
        thresholds: (T,) in [0, 1].
    """
    scores = found.scores.double().numpy()
    labels, truth = found.labels.numpy(), found.truth.numpy()
    accepted = 1 / (1 + np.exp((thresholds - scores[:, None]) / SPREAD))  # (N, T)
    right = (labels == truth) * (truth == row)
    wrong = (labels != truth) * (labels == row)
    objects = ((truth >= 0) * (truth == row)).sum()
    hits = right @ accepted
    return np.asarray(2 * hits / np.maximum(hits + wrong @ accepted + objects, 1e-9))


def class_f1(found: LeftOut, row: int, threshold: float) -> float | None:
    """F1 of one class at a threshold: how many of its references are found, and how little else is taken for it.

    Args:
        found: candidates of which some show references of the class; None is returned where none does.
        row: of the class.
        threshold: in [0, 1].

    Example:
        >>> rows = torch.tensor([0, 0, 1, 0])
        >>> found = LeftOut(torch.tensor([0.9, 0.8, 0.7, 0.2]), rows, torch.tensor([0, -1, 0, 0]), ("a", "", "b", "c"))
        >>> round(class_f1(found, 0, 0.5), 2)
        0.4
    """
    objects = found.truth == row
    if not bool(objects.any()):
        return None
    taken = (found.labels == row) & (found.scores >= threshold) & (found.scores > 0)
    return 2 * int((taken & objects).sum()) / int(taken.sum() + objects.sum())


def _best_f1(found: LeftOut, row: int) -> float | None:
    # Other candidates do not bear on the class's own F1, and there are many.
    own = ((found.labels == row) | (found.truth == row)).nonzero()[:, 0]
    part = LeftOut(found.scores[own], found.labels[own], found.truth[own], ("",) * len(own))
    return float(expected_f1(part, row, THRESHOLDS).max()) if bool((part.truth == row).any()) else None


class _ShorterClass:
    """One class without each of its R references in turn, as a gallery of R classes.

    Attributes:
        row: of the class.
        images: key of the image of each of its references.
    """

    def __init__(self, prototypes: Prototypes, row: int, members: Sequence[int], settings: MatchSettings) -> None:
        labels = torch.zeros(len(members), dtype=torch.int64)
        ids = tuple(prototypes.reference_ids[member] for member in members)
        about = ids, prototypes.model, prototypes.fingerprint
        self.row = row
        self.images = tuple(prototypes.images[member] for member in members) if prototypes.images else ("",) * len(members)
        own = None if prototypes.surroundings is None else prototypes.surroundings.whole
        shown = [number for number, name in enumerate(own.shown) if name in ids] if own is not None else []
        seen = None
        if own is not None and shown:
            seen = own.take(shown)
        vectors = prototypes.vectors[list(members)]
        self._alone = Prototypes((prototypes.classes[row],), vectors, labels, *about, surroundings=seen)
        self._settings = replace(settings, background=False)
        self._known: dict[frozenset[str], Gallery] = {}

    def gallery(self, image: str) -> Gallery:
        """One row for each reference left out, without those of an image too; "" for an image without any."""
        there = {name for name, where in zip(self._alone.reference_ids, self.images, strict=True) if image and where == image}
        parts = [self._without(frozenset({name} | there)) for name in self._alone.reference_ids]
        labels = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part.vectors) for part in parts]))
        plain = len(labels) == len(parts) == len(labels.unique())
        vectors = torch.cat([part.vectors for part in parts])
        return Gallery(vectors, None if plain else labels, max(part.num_averaged for part in parts), num_rows=len(parts))

    def _without(self, ids: frozenset[str]) -> Gallery:
        # Leaving out one and then the other of two references comes to the same: half of all pairs are met twice.
        if ids not in self._known:
            if len(ids) == len(self._alone.reference_ids):
                gallery = Gallery(self._alone.vectors[:0].float())
            else:
                gallery = make_gallery(self._alone.remove(ids), self._settings)
            self._known[ids] = gallery
        return self._known[ids]


def _compare_shortened(
    prototypes: Prototypes, around: Surroundings, settings: MatchSettings, shorter: _ShorterClass
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, R) similarities to a class without each of its R references, the same plain, and whether anything was left."""
    similar = torch.zeros(len(around), len(shorter.images))
    plain, known = torch.zeros_like(similar), torch.zeros_like(similar, dtype=torch.bool)
    negatives = prototypes.negatives if settings.negatives else None
    apart = {*shorter.images, *(() if negatives is None else negatives.image_of_each)}
    groups: dict[str, list[Tensor]] = {}
    for image, rows in _images(around):
        groups.setdefault(image if image in apart else "", []).append(rows)
    for image, members in groups.items():
        rows = torch.cat(members)
        gallery = shorter.gallery(image)
        matrix = _negatives_of(prototypes.classes, negatives, shorter.row, image)
        features = around.features[rows].float()
        similar[rows] = similarities(features, replace(gallery, negatives=matrix))
        # Asked for only where a background competes, which is compared with what no negative has lowered.
        plain[rows] = similarities(features, gallery) if settings.background and matrix is not None else similar[rows]
        known[rows] = gallery.has_vectors
    return similar, plain, known


def _negatives_of(classes: Sequence[str], negatives: Negatives | None, row: int, image: str) -> NegativeMatrix | None:
    """Those that lower one class, without those of an image, as if they lowered every class."""
    if negatives is None:
        return None
    rows = negatives.rows(classes).tolist()
    owners = zip(rows, negatives.image_of_each, strict=True)
    kept = [number for number, (own, where) in enumerate(owners) if own in (-1, row) and not (image and where == image)]
    if not kept:
        return None
    return F.normalize(negatives.vectors[kept].float(), dim=-1), torch.full((len(kept),), -1)


def _with_column(matrix: Tensor, column: int, values: Tensor) -> Tensor:
    changed = matrix.clone()
    changed[:, column] = values
    return changed


def _images(around: Surroundings) -> list[tuple[str, Tensor]]:
    """Each image's key and the rows of its candidates."""
    keys = np.array(around.images)
    return [(image, torch.from_numpy(np.flatnonzero(keys == image))) for image in sorted(set(around.images))]
