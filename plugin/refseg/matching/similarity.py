"""How similar candidates are to classes, and to what is none of them: pure tensor functions of pooled features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import ShapeError
from ..printing import one_line

NEGATIVE_SCALE = 0.8
"""How fast a nearer negative lowers a similarity: by the factor exp(−lead / scale) (method.md, "Past the paper")."""

NegativeMatrix: TypeAlias = tuple[Tensor, Tensor]
"""(Q, C) float32 negatives of unit length, and (Q,) int64 the class row that each lowers, -1 where it lowers every one."""


@dataclass(frozen=True)
class Gallery:
    """What candidates are compared with.

    Attributes:
        vectors: (V, C) float32, unit length: prototypes, or several vectors a class.
        labels: (V,) int64, the class row of each; None where each is a class of its own.
        num_averaged: the similarity to a class is the mean of so many of its highest cosines, fewer where it has fewer vectors.
        negatives: what classes are not to be taken for; None without any.
        background: (W, C) float32, unit length: a candidate more similar to one of these than to any class is of no class.
        num_rows: K where labels are given: a class may be without any vector, and then nothing is similar to it.
    """

    vectors: Tensor
    labels: Tensor | None = None
    num_averaged: int = 1
    negatives: NegativeMatrix | None = None
    background: Tensor | None = None
    num_rows: int = 0

    __repr__ = one_line

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.vectors) if self.labels is None else self.num_rows

    @property
    def has_vectors(self) -> Tensor:
        """(K,) bool: whether anything of a class is left to be compared with."""
        if self.labels is None:
            return torch.ones(self.num_classes, dtype=torch.bool)
        return torch.bincount(self.labels, minlength=self.num_classes) > 0


@dataclass(frozen=True)
class Classified:
    """How candidates, of one image or of many, compare with the classes.

    Attributes:
        scores: (N,) float32 in [0, 1], the similarity to the class that won; 0 where the background did.
        labels: (N,) int64, its row.
        margins: (N,) float32, by how much it beat the second-best class; the score itself where there is one class alone.
        runners_up: (N,) int64, the row of the second-best class; -1 where there is one class alone.
    """

    scores: Tensor
    labels: Tensor
    margins: Tensor
    runners_up: Tensor

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: Tensor | slice) -> Classified:
        """Those of some candidates."""
        return Classified(self.scores[rows], self.labels[rows], self.margins[rows], self.runners_up[rows])


def similarities(features: Tensor, gallery: Gallery) -> Tensor:
    """How similar each candidate is to each class (method.md C1, "Past the paper").

    The cosine with the class's prototype, cut at 0, is s; of a class with several vectors the mean of its highest ones. Where a
    negative of the class has a higher cosine n, it becomes s·exp(−(n − s) / NEGATIVE_SCALE). Where a vector of the background
    has a higher cosine than every class, all similarities are 0.

    Args:
        features: (N, C) float32, unit length; of one image or of many.
        gallery: K classes.

    Returns:
        (N, K) float32 in [0, 1], where the gallery is.

    Raises:
        ShapeError: candidates and gallery differ in width.

    Example:
        >>> gallery = Gallery(torch.eye(3)[:2], negatives=(torch.eye(3)[2:], torch.tensor([0])))
        >>> similarities(torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]]), gallery)
        tensor([[0.4673, 0.0000],
                [0.0000, 0.6000]])
    """
    _check_width("Prototypes", gallery.vectors, features)
    features = features.to(gallery.vectors.device)
    plain = _to_classes(features @ gallery.vectors.T, gallery).clamp(min=0)
    similar = plain if gallery.negatives is None else _lowered(plain, features, gallery.negatives)
    if gallery.background is None or not len(gallery.background):
        return similar
    _check_width("Background prototypes", gallery.background, features)
    lost = (features @ gallery.background.T).amax(1) > plain.amax(1)
    return similar.masked_fill(lost[:, None], 0.0)


def classify(features: Tensor, gallery: Gallery) -> Classified:
    """The class of each candidate: the most similar one (method.md C1), and how clearly it won.

    Args:
        features: (N, C) float32, unit length; of one image or of many.
        gallery: K classes.

    Raises:
        ShapeError: candidates and gallery differ in width.
    """
    similar = similarities(features, gallery)
    scores, labels = similar.max(1)
    if similar.shape[1] == 1:
        return Classified(scores, labels, scores, torch.full_like(labels, -1))
    # Not topk(2), which may name another of two equal classes as the first, and is slower on many candidates.
    seconds, runners_up = similar.scatter(1, labels[:, None], -1.0).max(1)
    return Classified(scores, labels, scores - seconds, runners_up)


def _to_classes(cosines: Tensor, gallery: Gallery) -> Tensor:
    """(N, K) from (N, V)."""
    if gallery.labels is None:
        return cosines
    columns = []
    for row in range(gallery.num_classes):
        own = cosines[:, gallery.labels == row]
        if not own.shape[1]:
            columns.append(cosines.new_zeros(len(cosines)))
            continue
        columns.append(own.topk(min(gallery.num_averaged, own.shape[1]), 1).values.mean(1))
    return torch.stack(columns, 1)


def _lowered(similar: Tensor, features: Tensor, negatives: NegativeMatrix) -> Tensor:
    vectors, rows = negatives
    _check_width("Negatives", vectors, features)
    cosines = features @ vectors.T  # (N, Q)
    lead = torch.zeros_like(similar)
    for row in rows.unique().tolist():
        nearest = cosines[:, rows == row].amax(1, keepdim=True)
        columns = slice(None) if row < 0 else slice(row, row + 1)
        lead[:, columns] = lead[:, columns].maximum(nearest - similar[:, columns])
    return similar * torch.exp(-lead / NEGATIVE_SCALE)


def _check_width(name: str, vectors: Tensor, features: Tensor) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != features.shape[1]:
        raise ShapeError(
            f"{name} of shape {tuple(vectors.shape)} do not fit candidates with features of width {features.shape[1]}: build "
            "them with the same model."
        )
