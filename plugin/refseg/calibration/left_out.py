"""What matching finds in the images of references as if each had never been shown: right and wrong answers to learn from.

Every image of references is ranked as in a run, by prototypes without what it shows: so references say how high new objects of
their class score, and the candidates around them how high everything else does. Takes a millisecond or two an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..matching import Classified, Galleries, Looked, MatchSettings, classify, prepare_second_looks, rank
from ..models import Preset
from ..printing import one_line
from ..prototypes import Prototypes, Surroundings


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Instances in images of references, scored as if these images had never been shown.

    Attributes:
        scores: (N,) float32 in [0, 1], similarities; 0 for a reference that was not found at all.
        labels: (N,) int64, the row of the class that won.
        truth: (N,) int64, the row of the class of the reference that each shows; -1 for one that shows none.
        shown: id of the reference that each shows, or "".
        looked_twice: scores are those of second looks.
    """

    scores: Tensor
    labels: Tensor
    truth: Tensor
    shown: tuple[str, ...]
    looked_twice: bool = False

    __repr__ = one_line

    @property
    def right(self) -> Tensor:
        """(N,) bool: the class that won is that of the reference which is shown."""
        return (self.labels == self.truth) & (self.scores > 0)


def leave_one_out(prototypes: Prototypes, preset: Preset, settings: MatchSettings | None = None) -> LeftOut:
    """Rank the surroundings of prototypes without the references of the same image; none where they have no surroundings.

    A reference whose class has none in any other image has nothing to be compared with: it is left out.

    Args:
        prototypes: with surroundings.
        preset: how many candidates of an image are looked at again.
        settings: how candidates are compared.
    """
    around = prototypes.surroundings
    if around is None or not len(around):
        empty = torch.zeros(0)
        return LeftOut(empty, empty.long(), empty.long(), ())
    settings = settings or MatchSettings()
    if around.shapes is None:
        around = around.whole
    galleries = Galleries(prototypes, settings)
    seconds = prepare_second_looks(prototypes, preset, settings, galleries.make()) if around.shapes is not None else None
    row_of = dict(zip(prototypes.reference_ids, prototypes.labels.tolist(), strict=True))
    truth = torch.tensor([row_of.get(name, -1) for name in around.shown], dtype=torch.int64)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for image, rows in _images(around):
        gallery = galleries.make(image)
        first = classify(around.features[rows].float(), gallery)
        candidates = None if around.shapes is None else around.candidates(rows.tolist())
        if candidates is None:
            found, scores, labels = rows, first.scores, first.labels
        else:
            both: Classified = first
            if seconds is not None:
                second = seconds.make(image)
                picked = second.pick(candidates, first)
                assert around.looks is not None
                both = second.combine(first, Looked(picked, around.looks[rows[picked]].float()))
            ranking = rank(candidates, both, overlaps=settings.overlaps)
            found, scores, labels = rows[ranking.rows], ranking.scores, ranking.labels
        lost = rows[(truth[rows] >= 0) & ~torch.isin(rows, found)]
        found = torch.cat([found, lost])
        scores = torch.cat([scores, torch.zeros(len(lost))])
        labels = torch.cat([labels, truth[lost]])
        counted = gallery.has_vectors[truth[found]] | (truth[found] < 0)
        parts.append((found[counted], scores[counted], labels[counted]))
    found, scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    order = found.argsort()
    found, scores, labels = found[order], scores[order], labels[order]
    shown = tuple(around.shown[row] for row in found.tolist())
    return LeftOut(scores, labels, truth[found], shown, seconds is not None)


def _images(around: Surroundings) -> list[tuple[str, Tensor]]:
    """Each image's key and the rows of its candidates."""
    keys: NDArray[np.str_] = np.array(around.images)
    return [(image, torch.from_numpy(np.flatnonzero(keys == image))) for image in sorted(set(around.images))]
