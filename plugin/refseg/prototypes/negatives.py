"""Objects that are taken for a class and are not.

A negative named like a class is a negative of that class; any other is one of every class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError
from ..printing import listing


@dataclass(frozen=True, eq=False)
class Negatives:
    """Objects that are not what they may be taken for.

    A negative named like a class is a negative of that class; any other is one of every class.

    Attributes:
        vectors: (Q, C) float32 instance vectors, not normalised.
        names: of each, a class or anything else.
        ids: of each.
        digests: of what each vector was computed from, see `refseg.prototypes.vectors.reference_digest`; "" where unknown.
        images: key of the image of each, see `refseg.prototypes.surroundings.image_key`; "" where unknown, () where all are.
    """

    vectors: Tensor
    names: tuple[str, ...]
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    images: tuple[str, ...] = ()

    def __repr__(self) -> str:
        named = [f"{name} {number}" for name, number in Counter(self.names).items()]
        return f"Negatives({len(self)}: {listing(named)}; width {self.vectors.shape[-1]})"

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.names) == len(self.ids) == len(self.digests):
            raise ShapeError(
                f"Negatives need one vector, name, id and digest each, but there are {len(self.vectors)}, {len(self.names)}, "
                f"{len(self.ids)} and {len(self.digests)}."
            )
        if self.images and len(self.images) != len(self.ids):
            raise ShapeError(f"Negatives need one image each or none at all, but {len(self.ids)} have {len(self.images)}.")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, classes: Sequence[str]) -> Tensor:
        """(Q,) int64: the row of the class of each one's name, -1 where no class has it.

        Example:
            >>> Negatives(torch.ones(2, 3), ("nut", "shadow"), ("a", "b"), ("", "")).rows(["gear", "nut"])
            tensor([ 1, -1])
        """
        by_name = {name: row for row, name in enumerate(classes)}
        return torch.tensor([by_name.get(name, -1) for name in self.names], dtype=torch.int64)

    def add(self, other: Negatives) -> Negatives:
        """These and other's together."""
        return Negatives(
            torch.cat([self.vectors, other.vectors]),
            self.names + other.names,
            self.ids + other.ids,
            self.digests + other.digests,
            self.image_of_each + other.image_of_each,
        )

    def remove(self, ids: Iterable[str]) -> Negatives | None:
        """These without some; None where none is left."""
        gone = set(ids)
        keep = [row for row, name in enumerate(self.ids) if name not in gone]
        if not keep:
            return None
        columns = (self.names, self.ids, self.digests, self.image_of_each)
        return Negatives(self.vectors[keep], *(tuple(column[row] for row in keep) for column in columns))

    @property
    def image_of_each(self) -> tuple[str, ...]:
        """Key of the image of each; "" where unknown."""
        return self.images or ("",) * len(self)
