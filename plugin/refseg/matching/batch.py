"""Candidates of several images, matched together: for those of one image a call of torch takes longer than its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..printing import one_line

BOXES_AT_ONCE = 256
"""NMS compares every box with every other: of more at once that takes longer than the calls, of fewer the calls."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The N candidates of some images, one image after the other; rows count through all of them.

    Attributes:
        images: their candidates.
        starts: (n + 1,) int64, row of the first candidate of each image, and N.
        owner: (N,) int64, number of the image of each candidate.
    """

    images: Sequence[Candidates | PackedCandidates]
    starts: NDArray[np.int64]
    owner: NDArray[np.int64]

    __repr__ = one_line

    @classmethod
    def of(cls, images: Sequence[Candidates | PackedCandidates]) -> Batch:
        """The candidates of at least one image."""
        sizes = [len(candidates) for candidates in images]
        return cls(images, np.cumsum([0, *sizes], dtype=np.int64), np.repeat(np.arange(len(images)), sizes))

    @property
    def filled(self) -> Tensor:
        """(N,) bool: masks that are not empty."""
        return torch.cat([candidates.filled for candidates in self.images])

    @property
    def predicted_iou(self) -> Tensor:
        """(N,) float32."""
        return torch.cat([candidates.predicted_iou.cpu() for candidates in self.images])

    def split(self, rows: Tensor) -> list[Tensor]:
        """Some rows, image by image, as rows of each image's own candidates.

        Args:
            rows: (n,) int64, those of an image together and after those of images before it.
        """
        owner = self.owner[rows.numpy()]
        own = rows - torch.from_numpy(self.starts[owner])
        return list(own.split(np.bincount(owner, minlength=len(self.images)).tolist()))

    def boxes_of(self, rows: Tensor) -> Tensor:
        """(n, 4) float32 xyxy cells of some masks that are not empty, of rows as split takes them."""
        return torch.cat([held.boxes_of(own) for held, own in zip(self.images, self.split(rows), strict=True)])

    def best(self, rows: Tensor, most: int) -> Tensor:
        """The first so many of each image's rows, which are together."""
        owner = self.owner[rows.numpy()]
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        return rows[torch.from_numpy(place < most)]

    def thinned(self, rows: Tensor, predicted_iou: Tensor, labels: Tensor | None, max_iou: float) -> Tensor:
        """Some rows, ascending, without those whose box has more IoU than this with one of higher predicted IoU.

        Args:
            rows: (n,) int64, of masks that are not empty.
            predicted_iou: (n,) float32, of these.
            labels: (n,) int64, of these; candidates of different labels leave each other alone. None compares all of an image.
            max_iou: of the boxes on the mask grid.

        Returns:
            (m,) int64, image by image the highest predicted IoU first.
        """
        if not len(rows):
            return rows
        from torchvision.ops import batched_nms  # takes two seconds, and nobody's first click should wait for it

        owner = self.owner[rows.numpy()]
        boxes = self.boxes_of(rows)
        groups = owner if labels is None else owner * (int(labels.max()) + 1) + labels.numpy()
        # As small as can be: torchvision moves each group to a place of its own, beyond 2²⁴ cells no more exactly.
        numbers = torch.from_numpy(np.unique(groups, return_inverse=True)[1])
        kept = [
            start + batched_nms(boxes[start:stop], predicted_iou[start:stop], own - own.min(), max_iou)
            for start, stop in _blocks(np.bincount(owner))
            for own in (numbers[start:stop],)
        ]
        left = rows[torch.cat(kept)]
        return left[torch.from_numpy(self.owner[left.numpy()]).argsort(stable=True)]


def _blocks(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where blocks of whole images begin and end that have BOXES_AT_ONCE at most, but for an image that has more."""
    start = stop = 0
    for size in sizes.tolist():
        if stop > start and stop + size - start > BOXES_AT_ONCE:
            yield start, stop
            start = stop
        stop += size
    if stop > start:
        yield start, stop
