"""Prototypes and settings made ready to be matched with the candidates of any image. No FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..models import Preset
from ..printing import one_line
from ..prototypes import Prototypes
from .batch import Batch
from .calibrator import Calibrator
from .cropping import crop_instances
from .gallery import make_gallery
from .instances import Instances, Ranking
from .ranking import rank_batch
from .second_look import Looked, SecondLook, join_looked, pick_batch, prepare_second_looks
from .settings import MatchSettings, Overlaps
from .similarity import Classified, Gallery, classify

PLAUSIBLE = 0.05
"""Of a smaller probability nobody wants to know more."""


@dataclass(frozen=True)
class Matcher:
    """What the candidates of an image are matched with, and what counts.

    Attributes:
        gallery: K classes.
        thresholds: the least score of each class that is written; classes that are not are left out.
        least: (K,) float32, the same by row; infinite for a class that is not written.
        max_detections: the best so many of each image.
        overlaps: see `refseg.matching.ranking.rank`.
        as_published: see `refseg.matching.ranking.rank`.
        map_threshold: least score of an instance on a map of classes, besides these.
        second: what second looks are compared with; None where candidates are looked at once.
        calibrator: turns similarities into probabilities; None where scores are similarities.
        looks_anew: whether candidates that nobody has looked at again are to be looked at.
        tells_presence: whether rankings tell how probable each class that is written is in the image.
    """

    gallery: Gallery
    thresholds: Mapping[str, float]
    least: Tensor
    max_detections: int
    overlaps: Overlaps
    as_published: bool
    map_threshold: float = 0.0
    second: SecondLook | None = None
    calibrator: Calibrator | None = None
    looks_anew: bool = True
    tells_presence: bool = False

    __repr__ = one_line

    def classify(self, features: Tensor) -> Classified:
        """The class of each candidate by the first look, of one image or of many."""
        return classify(features, self.gallery)

    def pick(self, candidates: Candidates | PackedCandidates, classified: Classified | None = None) -> Tensor:
        """(n,) int64 rows of the candidates of an image that are worth a second look, the best first; none without any.

        Those that would be right with a probability below PLAUSIBLE though a second look were better than most are not.
        """
        if self.second is None:
            return torch.zeros(0, dtype=torch.int64)
        return self.pick_batch(
            Batch.of([candidates]), self.classify(candidates.features) if classified is None else classified
        )[0]

    def pick_batch(self, batch: Batch, classified: Classified) -> list[Tensor]:
        """For each of some images what pick gives."""
        rows = torch.zeros(0, dtype=torch.int64)
        if self.second is not None:
            rows = pick_batch(batch, classified, self.second.most)
            if self.calibrator is not None and self.second.slope:
                hoped = self.second.expected(classified.scores[rows], 2.0)
                rows = rows[self.calibrator.probability(hoped, classified.labels[rows]) >= PLAUSIBLE]
        return batch.split(rows)

    def to_look_at(self, candidates: Candidates | PackedCandidates) -> Tensor:
        """What pick gives, where anything that nobody has looked at is to be looked at; else no rows."""
        return self.pick(candidates) if self.looks_anew else torch.zeros(0, dtype=torch.int64)

    def scored(self, classified: Classified, looked: Looked | None = None) -> Classified:
        """How candidates of one image compare with the classes, with the scores that a run would write but for merging.

        Args:
            classified: by the first look.
            looked: second looks; None where nobody has looked again.
        """
        both = classified if self.second is None else self.second.combine(classified, looked)
        if self.calibrator is None:
            return both
        return replace(both, scores=self.calibrator.probability(both.scores, both.labels))

    def rank(
        self,
        candidates: Candidates | PackedCandidates,
        classified: Classified | None = None,
        looked: Looked | None = None,
    ) -> Ranking:
        """The candidates of one image that are instances, best first.

        Args:
            candidates: of the image.
            classified: by the first look, where that is known already.
            looked: second looks; None where nobody has looked again.
        """
        first = self.classify(candidates.features) if classified is None else classified
        return self.rank_batch(Batch.of([candidates]), first, [looked])[0]

    def rank_batch(self, batch: Batch, classified: Classified, looked: Sequence[Looked | None]) -> list[Ranking]:
        """For each of some images what rank gives.

        Args:
            batch: of candidates.
            classified: all of them, by the first look.
            looked: second looks for each image.
        """
        both = classified
        if self.second is not None:
            both = self.second.combine_batch(classified, batch.owner, join_looked(looked, batch.starts))
        rankings = self._above(self.least, batch, both)
        if not self.tells_presence:
            return rankings
        # Ranked apart, so that what is written cannot depend on whether anybody asks for presence.
        every = self._above(self.least.where(self.least.isinf(), 0.0), batch, both)
        chances = [ranking.chance_of(len(self.least)) for ranking in every]
        return [replace(ranking, presence=chance) for ranking, chance in zip(rankings, chances, strict=True)]

    def _above(self, least: Tensor, batch: Batch, classified: Classified) -> list[Ranking]:
        """The candidates of each image whose scores reach the least of their class, (K,) float32."""
        return rank_batch(
            batch,
            classified,
            max_detections=self.max_detections,
            min_score=least if self.calibrator is None else self.calibrator.similarity(least),
            overlaps=self.overlaps,
            as_published=self.as_published,
            calibrator=self.calibrator,
        )

    def match(self, candidates: Candidates | PackedCandidates, looked: Looked | None = None) -> Instances:
        """Instances of one image, with masks at its size."""
        return self.cut(candidates, self.rank(candidates, looked=looked))

    def cut(self, candidates: Candidates | PackedCandidates, ranking: Ranking) -> Instances:
        """The best of a ranking, with masks at the image's size."""
        return crop_instances(candidates, ranking, self.max_detections)

    def bounds(self, classified: Classified) -> Tensor:
        """(N,) the best score that each candidate may have by its first look, 0 where it is not written: merging lowers scores.

        See best_of for those that were looked at again.
        """
        scores = self.scored(classified).scores
        return scores.where(scores >= self.least[classified.labels], 0.0)

    def best_of(self, looked: Looked | None) -> float:
        """The best score of candidates by their second looks; 0 where there are none, and for what is not written."""
        if self.second is None or looked is None or not len(looked.rows):
            return 0.0
        again = classify(self.second.whitening.apply(looked.looks), self.second.gallery)
        scores = again.scores if self.calibrator is None else self.calibrator.probability(again.scores, again.labels)
        return float(scores.where(scores >= self.least[again.labels], 0.0).max())


def make_matcher(
    prototypes: Prototypes,
    preset: Preset,
    settings: MatchSettings,
    thresholds: Mapping[str, float],
    max_detections: int = 100,
    *,
    is_chosen: bool = True,
    calibrator: Calibrator | None = None,
) -> Matcher:
    """Make prototypes ready.

    Args:
        prototypes: of the preset's encoder.
        preset: whose masks are merged as published where it says so.
        settings: how candidates are compared.
        thresholds: the least score of each class to be written; all others still compete for candidates.
        max_detections: the best so many of each image.
        is_chosen: whether somebody chose the thresholds. A preset that has none of its own writes every score; a map of all
            that would be full of what is nothing.
        calibrator: from `refseg.calibration`, of the same prototypes and settings; None leaves scores similarities.
    """
    least = torch.tensor([thresholds.get(name, float("inf")) for name in prototypes.classes])
    gallery = make_gallery(prototypes, settings)
    seconds = prepare_second_looks(prototypes, preset, settings, gallery)
    map_threshold = 0.0 if is_chosen or settings.calibrated or not preset.as_published else preset.typical_threshold
    return Matcher(
        gallery,
        dict(thresholds),
        least,
        max_detections,
        settings.overlaps,
        preset.as_published,
        map_threshold,
        None if seconds is None else seconds.plain,
        calibrator,
        settings.second_look is True,
    )
