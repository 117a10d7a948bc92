"""What matching finds in one image: ranked candidates, and the masks at the image's size that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..candidates import count_pieces
from ..printing import one_line


@dataclass(frozen=True)
class Instances:
    """Scored, labelled masks of one image, best first.

    Attributes:
        masks: n bool tensors (h, w), each the tight crop of its box.
        boxes: (n, 4) int64 xyxy pixels of the original image, far edge excluded.
        labels: (n,) int64, the row of the prototype that won.
        scores: (n,) float32 in [0, 1].
        rows: (n,) int64, the row of each in the candidates.
        margins: (n,) float32, see Classified.
        runners_up: (n,) int64, see Classified.
    """

    masks: tuple[Tensor, ...]
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rows: Tensor
    margins: Tensor
    runners_up: Tensor

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def pieces(self) -> tuple[int, ...]:
        """How many large pieces each mask has: of two it may show two objects; see count_pieces."""
        return tuple(count_pieces(mask.numpy()) for mask in self.masks)


@dataclass(frozen=True)
class Ranking:
    """The candidates of one image that are instances, on the mask grid, best first.

    Attributes:
        rows: (n,) int64, the row of each in the candidates.
        labels: (n,) int64, the row of the prototype that won.
        scores: (n,) float32 in [0, 1].
        margins: (n,) float32, see Classified.
        runners_up: (n,) int64, see Classified.
        presence: (K,) float32 in [0, 1], the probability that the image holds each class, by instances below its least score
            too; 0 for a class without any candidate, and for one that is not written. None where nobody asks for it.
    """

    rows: Tensor
    labels: Tensor
    scores: Tensor
    margins: Tensor
    runners_up: Tensor
    presence: Tensor | None = None

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.rows)

    def chance_of(self, num_classes: int) -> Tensor:
        """(K,) float32: how probable it is that any instance of each of K classes is right; 0 for one without any instance.

        As if instances were right or wrong each by itself: 1 − ∏(1 − score). That is never less than the best score.

        Example:
            >>> import torch
            >>> two, none = torch.tensor([0, 0]), torch.zeros(2)
            >>> Ranking(two, two, torch.tensor([0.5, 0.2]), none, two).chance_of(2)
            tensor([0.6000, 0.0000])
        """
        missed = self.scores.new_ones(num_classes).scatter_reduce(0, self.labels, 1 - self.scores, "prod")
        best = self.scores.new_zeros(num_classes).scatter_reduce(0, self.labels, self.scores, "amax")
        # Rounding must not take it below a score that is written.
        return (1 - missed).maximum(best)
