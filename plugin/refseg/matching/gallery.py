"""From prototypes and settings to the gallery that candidates are compared with, whole or as if one image was never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prototypes import Prototypes, find_clusters
from .settings import MatchSettings
from .similarity import Gallery, NegativeMatrix
from .whitening import Whitening

NUM_NEAREST = 3
"""References that a candidate is compared with, at most (method.md, "Past the paper")."""
MAX_CLUSTERS, SHOTS_A_CLUSTER = 4, 3
"""Groups of a class's references: one for every three of them, four at most."""
BACKGROUND_PROTOTYPES = 8
"""Kinds of background of a class (method.md, "Past the paper")."""
SEED = 33


def make_gallery(prototypes: Prototypes, settings: MatchSettings | None = None) -> Gallery:
    """What candidates are compared with; see `refseg.matching.settings.MatchSettings`."""
    return Galleries(prototypes, settings or MatchSettings()).make()


@dataclass
class Galleries:
    """Makes galleries of the same prototypes and settings, with and without what one image shows.

    Attributes:
        prototypes: K classes, R references.
        settings: how they are compared with candidates.
        whitening: of second looks: then galleries are of these, whitened, without scenes and background; None for the first
            look.
    """

    prototypes: Prototypes
    settings: MatchSettings
    whitening: Whitening | None = None
    _parts: dict[tuple[str, int], Tensor] = field(default_factory=dict, repr=False)

    def make(self, without: str = "") -> Gallery:
        """A gallery.

        Args:
            without: key of an image, whose references and negatives are left out; a class whose references all lie there has no
                vector left, and no candidate is similar to it.
        """
        own = torch.zeros(len(self.prototypes.labels), dtype=torch.bool)
        if without:
            own = torch.tensor([image == without for image in self.prototypes.images or ("",) * len(own)])
        num_averaged = NUM_NEAREST if self.settings.class_similarity == "nearest" else 1
        parts = [self._class_vectors(row, own) for row in range(len(self.prototypes.classes))]
        labels = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
        plain = self.settings.class_similarity == "mean" and len(labels) == len(parts) == len(labels.unique())
        return Gallery(
            torch.cat(parts),
            None if plain else labels,
            num_averaged,
            self._negatives(without),
            self._background(own),
            len(parts),
        )

    def _class_vectors(self, row: int, left_out: Tensor) -> Tensor:
        """(v, C) unit vectors of one class."""
        return self._kept("class", row, left_out, self._compute_class)

    def _compute_class(self, members: Tensor) -> Tensor:
        vectors = self._vectors[members]
        vectors = vectors[vectors.any(1)] if self.whitening is not None else vectors
        if not len(vectors):
            return vectors
        seen = self._seen(members)
        if self.settings.class_similarity == "mean":
            crops = F.normalize(vectors.mean(0, keepdim=True), dim=-1)
            return F.normalize(crops + F.normalize(seen.mean(0), dim=-1), dim=-1) if len(seen) else crops
        units = torch.cat([F.normalize(vectors, dim=-1), seen])
        if self.settings.class_similarity == "nearest":
            return units
        number = min(MAX_CLUSTERS, -(-len(units) // SHOTS_A_CLUSTER))
        return F.normalize(find_clusters(units, number, torch.Generator().manual_seed(SEED)), dim=-1)

    @cached_property
    def _vectors(self) -> Tensor:
        """(R, C) float32, or (R, D) whitened second looks, zeros for a reference without."""
        if self.whitening is None:
            return self.prototypes.vectors.float()
        assert self.prototypes.looks is not None
        return self.whitening.apply(self.prototypes.looks)

    def _seen(self, members: Tensor) -> Tensor:
        """(n, C) unit features of the candidates that show some references in their own images."""
        around = self.prototypes.surroundings
        if not self.settings.scenes or around is None or self.whitening is not None:
            return torch.zeros(0, self._vectors.shape[1])
        ids = {self.prototypes.reference_ids[row] for row in members.nonzero()[:, 0].tolist()}
        return around.features[[row for row, name in enumerate(around.shown) if name in ids]].float()

    def _background(self, left_out: Tensor) -> Tensor | None:
        if not self.settings.background or self.prototypes.background is None or self.whitening is not None:
            return None
        rows = range(len(self.prototypes.classes))
        return torch.cat([self._kept("background", row, left_out, self._compute_background) for row in rows])

    def _compute_background(self, members: Tensor) -> Tensor:
        assert self.prototypes.background is not None
        vectors = self.prototypes.background[members].float().flatten(0, 1)
        vectors = vectors[vectors.any(1)]
        if not len(vectors):
            return vectors
        centers = find_clusters(vectors, BACKGROUND_PROTOTYPES, torch.Generator().manual_seed(SEED))
        return F.normalize(centers, dim=-1)

    def _kept(self, kind: str, row: int, left_out: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Computed once for each class that loses no reference: few classes have any in one image."""
        of_class = self.prototypes.labels == row
        if bool((of_class & left_out).any()):
            return compute(of_class & ~left_out)
        if (kind, row) not in self._parts:
            self._parts[kind, row] = compute(of_class)
        return self._parts[kind, row]

    def _negatives(self, without: str) -> NegativeMatrix | None:
        """(Q, C) unit vectors, and (Q,) the row of the class that each lowers, -1 where it lowers every one."""
        negatives = self.prototypes.negatives
        if negatives is None or not self.settings.negatives:
            return None
        kept = [row for row, image in enumerate(negatives.image_of_each) if not without or image != without]
        if self.whitening is not None:
            seen = [] if negatives.looks is None else negatives.looks.any(1).tolist()
            kept = [row for row in kept if seen and seen[row]]
        if not kept:
            return None
        rows = negatives.rows(self.prototypes.classes)[kept]
        if self.whitening is not None:
            assert negatives.looks is not None
            return self.whitening.apply(negatives.looks[kept]), rows
        return F.normalize(negatives.vectors[kept].float(), dim=-1), rows
