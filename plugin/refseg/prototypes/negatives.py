"""Objects that are taken for a class and are not.

A negative named like a class is a negative of that class; any other is one of every class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError
from ..printing import listing, object_name
from .checking import listed_names, require_finite


def joined_looks(*parts: tuple[Tensor | None, int]) -> Tensor | None:
    """Second looks of several groups of so many objects together, zeros where they are unknown; None where all are.

    Example:
        >>> joined_looks((None, 1), (torch.ones(1, 2), 1))
        tensor([[0., 0.],
                [1., 1.]])
    """
    known = [looks for looks, _ in parts if looks is not None]
    if not known:
        return None
    return torch.cat([known[0].new_zeros(number, known[0].shape[1]) if looks is None else looks for looks, number in parts])


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
        looks: (Q, D) float16 second looks, zeros where unknown; None where all are.
    """

    vectors: Tensor
    names: tuple[str, ...]
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    images: tuple[str, ...] = ()
    looks: Tensor | None = None

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
        if self.looks is not None and len(self.looks) != len(self.ids):
            raise ShapeError(f"Negatives need one second look each or none at all, but {len(self.ids)} have {len(self.looks)}.")
        require_finite({"Vectors of negatives": self.vectors, "Second looks of negatives": self.looks}, self._name_of)

    def __len__(self) -> int:
        return len(self.ids)

    def _name_of(self, row: int) -> str:
        return object_name(self.names[row], name=self.ids[row])

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
            joined_looks((self.looks, len(self)), (other.looks, len(other))),
        )

    def remove(self, ids: Iterable[str]) -> Negatives | None:
        """These without some; None where none is left."""
        gone = set(ids)
        keep = [row for row, name in enumerate(self.ids) if name not in gone]
        return self.take(keep) if keep else None

    def take(self, rows: Sequence[int]) -> Negatives:
        """Some, in this order."""
        columns = (self.names, self.ids, self.digests, self.image_of_each)
        names, ids, digests, images = (tuple(column[row] for row in rows) for column in columns)
        looks = None if self.looks is None else self.looks[list(rows)]
        return Negatives(self.vectors[list(rows)], names, ids, digests, images, looks)

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file holds of them: JSON and tensors."""
        about = {"names": self.names, "ids": self.ids, "digests": self.digests, "images": self.images}
        tensors = {"negatives": self.vectors}
        if self.looks is not None:
            tensors["negatives_looks"] = self.looks
        return about, tensors

    @classmethod
    def from_parts(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Negatives:
        """From what `parts` gave, in this or an earlier version."""
        names, ids, digests = (listed_names(name, about[name]) for name in ("names", "ids", "digests"))
        looks = tensors.get("negatives_looks")
        return cls(tensors["negatives"], names, ids, digests, listed_names("images", about.get("images", [])), looks)

    @property
    def image_of_each(self) -> tuple[str, ...]:
        """Key of the image of each; "" where unknown."""
        return self.images or ("",) * len(self)
