"""A sample of a dataset's candidates: what the dataset is full of, whatever it shows.

Second looks are whitened by it: directions in which everything in the dataset differs tell little of a class. Its 300
candidates take C × 1,800 bytes and as many second looks, which an index keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import PrototypeError, ShapeError
from ..printing import counted
from .checking import require_finite

SHRINKAGE = 1.0
"""Mean variances added to each direction's own: few vectors tell little of directions in which they do not spread."""
MAX_COHORT = 300
"""More gained nothing: 200, 500 and 1,000 candidates were within 0.01 mask AP of each other."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Candidates of a dataset, taken at random.

    Attributes:
        features: (n, C) float16, unit length, pooled features.
        looks: (n, D) float16, second looks of the same.
        num_images: that the dataset had in its index besides those of references.
        shrinkage: of the whitening by it, above 0: see SHRINKAGE; infinite for no whitening at all.
    """

    features: Tensor
    looks: Tensor
    num_images: int
    shrinkage: float = SHRINKAGE

    def __repr__(self) -> str:
        return f"Cohort({len(self)} candidates of a dataset of {counted(self.num_images, 'image')})"

    def __post_init__(self) -> None:
        if len(self.features) != len(self.looks):
            raise ShapeError(
                f"A cohort needs one feature and second look each, but there are {len(self.features)} and {len(self.looks)}."
            )
        require_finite({"Features of the cohort": self.features, "Second looks of the cohort": self.looks})
        if not self.shrinkage > 0:
            raise PrototypeError(f"The shrinkage of a cohort must be above 0, not {self.shrinkage}.")

    def __len__(self) -> int:
        return len(self.features)

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file holds of it: JSON and tensors."""
        shrinkage = None if math.isinf(self.shrinkage) else self.shrinkage
        return {"num_images": self.num_images, "shrinkage": shrinkage}, {"cohort": self.features, "cohort_looks": self.looks}

    @classmethod
    def from_parts(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Cohort:
        """From what `parts` gave, in this or an earlier version."""
        shrinkage = about.get("shrinkage", SHRINKAGE)
        shrinkage = math.inf if shrinkage is None else float(shrinkage)
        return cls(tensors["cohort"], tensors["cohort_looks"], int(about["num_images"]), shrinkage)
