"""Which candidates are looked at again, and how both looks become one score. Pure tensor functions but for look_at.

The first look decides which candidates of an image are worth a second one. Those that got it are scored by it alone, against
what the dataset is full of; all others keep a place behind, by what a second look at them would give at the lower end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..candidates import Candidates, CutOut, PackedCandidates, look_again
from ..errors import ImageError
from ..images import PLAIN, PixelSettings, read_image
from ..models import Models, Preset
from ..printing import one_line
from ..prototypes import SHRINKAGE, Prototypes
from .batch import Batch
from .cropping import crop_instances
from .gallery import Galleries
from .instances import Ranking
from .settings import MatchSettings
from .similarity import Classified, Gallery, classify, similarities
from .whitening import Whitening, fit_whitening, unwhitened

logger = logging.getLogger(__name__)

SAME_PLACE_IOU = 0.5
"""Of candidates whose boxes have more IoU than this only that of the highest predicted IoU is looked at again."""
FEWEST_PAIRS = 16
"""From fewer candidates seen twice nothing is learnt of what a second look gives."""
LEAST = 1e-4
"""Of the first look's score, added to that of candidates that were not looked at again: they stay in its order."""


def pick(candidates: Candidates | PackedCandidates, classified: Classified, most: int) -> Tensor:
    """(n,) int64 rows of the candidates of an image that are worth a second look, the best first; see pick_batch."""
    return pick_batch(Batch.of([candidates]), classified, most)


def pick_batch(batch: Batch, classified: Classified, most: int) -> Tensor:
    """(n,) int64 rows of the candidates of some images that are worth a second look, image by image the best first.

    Of those in one place the one of the highest predicted IoU, and of these the highest scores times predicted IoU.

    Args:
        batch: of candidates.
        classified: by the first look, all of them.
        most: of an image there are no more than this.
    """
    filled, predicted_iou = batch.filled.nonzero()[:, 0], batch.predicted_iou
    rows = batch.thinned(filled, predicted_iou[filled], None, SAME_PLACE_IOU)
    worth = classified.scores[rows] * predicted_iou[rows].clamp(0, 1)
    best = torch.from_numpy(np.lexsort((-worth.numpy(), batch.owner[rows.numpy()])))
    return batch.best(rows[best[worth[best] > 0]], most)


@dataclass(frozen=True, eq=False)
class Looked:
    """Second looks at some candidates of an image.

    Attributes:
        rows: (n,) int64, of the candidates.
        looks: (n, D) float32; a row of zeros counts as not looked at.
    """

    rows: Tensor
    looks: Tensor

    __repr__ = one_line

    def at(self, rows: Tensor) -> Tensor:
        """(m, D) float32 second looks at m other rows of the image; zeros for those that were not looked at.

        Example:
            >>> Looked(torch.tensor([5, 2]), torch.tensor([[1.0], [2.0]])).at(torch.tensor([2, 3])).tolist()
            [[2.0], [0.0]]
        """
        found = torch.zeros(len(rows), self.looks.shape[1])
        places, own = (rows[:, None] == self.rows).nonzero(as_tuple=True)
        found[places] = self.looks[own]
        return found


def join_looked(looked: Sequence[Looked | None], starts: NDArray[np.int64]) -> Looked | None:
    """Second looks at candidates of some images, by rows that count through all of these; None without any.

    Args:
        looked: for each image.
        starts: (n + 1,) int64, row of the first candidate of each image.
    """
    some = [(one, int(start)) for one, start in zip(looked, starts, strict=False) if one is not None]
    if not some:
        return None
    return Looked(torch.cat([one.rows + start for one, start in some]), torch.cat([one.looks for one, _ in some]))


@dataclass(frozen=True, eq=False)
class SecondLook:
    """What second looks are compared with.

    Attributes:
        gallery: K classes, of whitened second looks.
        whitening: of the dataset.
        slope: by how much a second look's score rises with the first look's.
        offset: what a second look gives on average where the first look gives 0.
        spread: deviation of second looks from that line.
        most: so many candidates of an image are looked at again.
    """

    gallery: Gallery
    whitening: Whitening
    slope: float
    offset: float
    spread: float
    most: int

    __repr__ = one_line

    def pick(self, candidates: Candidates | PackedCandidates, classified: Classified) -> Tensor:
        """(n,) int64 rows of the candidates of an image that are worth a second look; see pick."""
        return pick(candidates, classified, self.most)

    def expected(self, scores: Tensor, deviations: float = 0.0) -> Tensor:
        """(N,) float32 in [0, 1]: what second looks would give, so many deviations off the average, by (N,) first looks."""
        return (self.offset + deviations * self.spread + self.slope * scores).clamp(0, 1)

    def combine(self, classified: Classified, looked: Looked | None) -> Classified:
        """How the candidates of one image compare with the classes by both looks; see combine_batch."""
        return self.combine_batch(classified, np.zeros(len(classified), np.int64), looked)

    def combine_batch(self, classified: Classified, owner: NDArray[np.int64], looked: Looked | None) -> Classified:
        """How the candidates of some images compare with the classes by both looks.

        Those that were not looked at again take what a second look would give: on average where nobody has looked at any of
        the image, else one deviation below, because the better ones were.

        Args:
            classified: by the first look, N candidates.
            owner: (N,) int64, number of the image of each.
            looked: those that were looked at again, by their rows among the N; None for none.
        """
        if looked is None or not len(looked.rows):
            looked = Looked(torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(self.whitening.mean)))
        seen = looked.looks.any(1)
        rows = looked.rows[seen]
        beside = torch.from_numpy(np.isin(owner, owner[rows.numpy()]))
        expected = self.expected(classified.scores, -1.0).where(beside, self.expected(classified.scores))
        scores = (expected + LEAST * classified.scores) * (classified.scores > 0)
        both = Classified(scores, classified.labels.clone(), self.slope * classified.margins, classified.runners_up.clone())
        again = classify(self.whitening.apply(looked.looks[seen]), self.gallery)
        both.scores[rows], both.labels[rows] = again.scores, again.labels
        both.margins[rows], both.runners_up[rows] = again.margins, again.runners_up
        return both


@dataclass(frozen=True, eq=False)
class SecondLooks:
    """Makes second looks of the same prototypes and settings, with and without what one image shows.

    Attributes:
        galleries: of whitened second looks.
        plain: SecondLook without a gallery of its own.
    """

    galleries: Galleries
    plain: SecondLook

    __repr__ = one_line

    def make(self, without: str = "") -> SecondLook:
        """See `refseg.matching.gallery.Galleries.make`."""
        return replace(self.plain, gallery=self.galleries.make(without)) if without else self.plain


def prepare_second_looks(
    prototypes: Prototypes, preset: Preset, settings: MatchSettings, gallery: Gallery
) -> SecondLooks | None:
    """Second looks made ready, or None where candidates are looked at once.

    They need a second look of every class's references, and enough of the dataset to whiten by: its cohort, else what lies
    around the references.

    Args:
        prototypes: K classes.
        preset: how many candidates of an image are looked at again.
        settings: whether any are.
        gallery: of the first look.
    """
    if not settings.second_look or not preset.second_looks or prototypes.looks is None:
        return None
    features, looks = _seen_twice(prototypes)
    whitened = is_whitened(prototypes, settings)
    whitening = fit_whitening(looks, _shrinkage(prototypes)) if whitened else unwhitened(prototypes.looks.shape[1])
    if whitening is None or len(looks) < FEWEST_PAIRS:
        return None
    galleries = Galleries(prototypes, settings, whitening)
    own = galleries.make()
    if not bool(own.has_vectors.all()):
        return None
    expected = _expectation(features, looks, gallery, own, whitening)
    return SecondLooks(galleries, SecondLook(own, whitening, *expected, preset.second_looks))


def is_whitened(prototypes: Prototypes, settings: MatchSettings) -> bool:
    """Whether second looks, where there are any, are whitened: the settings say so, and the prototypes do not say otherwise."""
    return settings.whiten and not math.isinf(_shrinkage(prototypes))


def _shrinkage(prototypes: Prototypes) -> float:
    return SHRINKAGE if prototypes.cohort is None else prototypes.cohort.shrinkage


def _seen_twice(prototypes: Prototypes) -> tuple[Tensor, Tensor]:
    """(n, C) features and (n, D) second looks of candidates that stand for the dataset."""
    owner = prototypes.cohort or prototypes.surroundings
    if owner is None or owner.looks is None:
        return torch.zeros(0, 1), torch.zeros(0, 1)
    seen = owner.looks.any(1)
    return owner.features[seen].float(), owner.looks[seen].float()


def _expectation(
    features: Tensor, looks: Tensor, gallery: Gallery, own: Gallery, whitening: Whitening
) -> tuple[float, float, float]:
    """Slope and offset of the line through the scores of candidates seen twice, and the deviation from it."""
    first = classify(features, gallery)
    second = similarities(whitening.apply(looks), own).gather(1, first.labels[:, None])[:, 0]
    x, y = first.scores - first.scores.mean(), second - second.mean()
    if len(x) < FEWEST_PAIRS or not float(x @ y) > 0:
        return 0.0, 0.0, 0.0
    slope = float(x @ y) / float(x @ x)
    spread = float((y - slope * x).square().mean().sqrt())
    return slope, float(second.mean()) - slope * float(first.scores.mean()), spread


def look_at(image: Image.Image, candidates: Candidates | PackedCandidates, rows: Sequence[int], models: Models) -> Tensor:
    """(n, D) float32 second looks at some candidates of an image; zeros for a mask that is empty at the image's size.

    Args:
        image: upright RGB.
        candidates: of the image.
        rows: of the candidates.
        models: whose encoder looks.
    """
    chosen = torch.tensor(list(rows), dtype=torch.int64)
    score = torch.ones(len(chosen))
    cut = crop_instances(candidates, Ranking(chosen, torch.zeros_like(chosen), score, score, chosen), len(chosen))
    objects = [
        CutOut(mask, (box[0], box[1]), (box[0], box[1], box[2], box[3]))
        for mask, box in zip(cut.masks, cut.boxes.tolist(), strict=True)
    ]
    looks = torch.zeros(len(chosen), models.look_width)
    place = {row: number for number, row in enumerate(chosen.tolist())}
    looks[[place[row] for row in cut.rows.tolist()]] = look_again(image, objects, models)
    return looks


def look_at_file(
    path: str, candidates: Candidates | PackedCandidates, rows: Tensor, models: Models, pixels: PixelSettings = PLAIN
) -> Looked | None:
    """Second looks at some candidates of an image file; None where it cannot be read any more, which is logged.

    Args:
        path: of the image.
        candidates: of the image.
        rows: (n,) int64, of the candidates; where there is none the file is not opened.
        models: whose encoder looks.
        pixels: how the image is read.
    """
    if not len(rows):
        return Looked(rows, torch.zeros(0, models.look_width))
    try:
        image = read_image(path, pixels=pixels)
    except ImageError as error:
        logger.warning("Nobody looks again at %s: %s", path, error.reason)
        return None
    if (image.height, image.width) != candidates.image_hw:
        logger.warning("Nobody looks again at %s: it has another size than when its candidates were computed", path)
        return None
    return Looked(rows, look_at(image, candidates, rows.tolist(), models))
