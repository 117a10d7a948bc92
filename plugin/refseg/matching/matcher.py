"""Prototypes and settings made ready to be matched with the candidates of any image. No FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..models import Preset
from ..printing import one_line
from ..prototypes import Prototypes
from .cropping import crop_instances
from .gallery import make_gallery
from .instances import Instances, Ranking
from .ranking import rank
from .settings import MatchSettings, Overlaps
from .similarity import Classified, Gallery, classify


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
    """

    gallery: Gallery
    thresholds: Mapping[str, float]
    least: Tensor
    max_detections: int
    overlaps: Overlaps
    as_published: bool
    map_threshold: float = 0.0

    __repr__ = one_line

    def classify(self, features: Tensor) -> Classified:
        """The class of each candidate, of one image or of many."""
        return classify(features, self.gallery)

    def rank(self, candidates: Candidates | PackedCandidates, classified: Classified | None = None) -> Ranking:
        """The candidates of one image that are instances, best first."""
        return rank(
            candidates,
            self.classify(candidates.features) if classified is None else classified,
            max_detections=self.max_detections,
            min_score=self.least,
            overlaps=self.overlaps,
            as_published=self.as_published,
        )

    def match(self, candidates: Candidates | PackedCandidates) -> Instances:
        """Instances of one image, with masks at its size."""
        return self.cut(candidates, self.rank(candidates))

    def cut(self, candidates: Candidates | PackedCandidates, ranking: Ranking) -> Instances:
        """The best of a ranking, with masks at the image's size."""
        return crop_instances(candidates, ranking, self.max_detections)

    def bounds(self, classified: Classified) -> Tensor:
        """(N,) the best score that each candidate may still have, 0 where it is not written: merging only lowers scores."""
        return classified.scores.where(classified.scores >= self.least[classified.labels], 0.0)


def make_matcher(
    prototypes: Prototypes,
    preset: Preset,
    settings: MatchSettings,
    thresholds: Mapping[str, float],
    max_detections: int = 100,
    *,
    is_chosen: bool = True,
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
    """
    least = torch.tensor([thresholds.get(name, float("inf")) for name in prototypes.classes])
    gallery = make_gallery(prototypes, settings)
    map_threshold = 0.0 if is_chosen or settings.calibrated or not preset.as_published else preset.typical_threshold
    return Matcher(gallery, dict(thresholds), least, max_detections, settings.overlaps, preset.as_published, map_threshold)
