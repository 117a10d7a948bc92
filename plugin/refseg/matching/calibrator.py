"""From similarities to probabilities: a logistic function for each class, all of one slope (Platt scaling).

Each function rises strictly, so instances of a class keep their order, and average precision stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..printing import one_line


@dataclass(frozen=True, eq=False)
class Calibrator:
    """The probability that an instance is right: 1 / (1 + exp(−slope · (similarity − centre of its class))).

    Attributes:
        slope: above 0.
        centers: (K,) float32, the similarity of each class at which the probability is a half.
        num_right: right instances that it was learnt from; with 0 it is what holds on other datasets.
    """

    slope: float
    centers: Tensor
    num_right: int = 0

    __repr__ = one_line

    def probability(self, similarities: Tensor, labels: Tensor) -> Tensor:
        """(n,) float32 in [0, 1], of (n,) similarities of (n,) classes; 0 for 0, which stands for what no class has won.

        Example:
            >>> calibrator = Calibrator(10.0, torch.tensor([0.5, 0.7]))
            >>> calibrator.probability(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0, 1, 0]))
            tensor([0.5000, 0.1192, 0.0000])
        """
        return torch.sigmoid(self.slope * (similarities - self.centers[labels])) * (similarities > 0)

    def similarity(self, probabilities: Tensor) -> Tensor:
        """(K,) float32: the similarity of each class at which its probability is this; infinite where that is.

        Example:
            >>> Calibrator(10.0, torch.tensor([0.5, 0.7])).similarity(torch.tensor([0.5, float("inf")]))
            tensor([0.5000,    inf])
        """
        finite = probabilities.clamp(0, 1)
        found = self.centers + torch.logit(finite) / self.slope
        return found.where(probabilities.isfinite(), probabilities).nan_to_num(0.0, float("inf"), -1.0)
