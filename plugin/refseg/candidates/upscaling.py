"""The last step of SAM 2's mask decoder: from positions of an image to the cells of the masks that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

UPSCALED_NUMBERS_A_BATCH = {"cpu": 2**18, "mps": 2**25, "cuda": 2**27}
"""Numbers of the widest upscaled features at once."""


class Upscaling:
    """From (L, C) positions to mask cells, in two steps of four cells each.

    The transposed convolutions do not overlap, so each position is upscaled by itself, a cache's worth of them at a time.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        first, self._norm, self._activation, second, _ = layers
        self._weights = tuple(layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous() for layer in (first, second))
        self._biases = (first.bias, second.bias)
        self._widths = (first.weight.shape[1], second.weight.shape[1])

    def fine_terms(self, finest: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
        """ImageTerms.fine of the (c₂, S/4, S/4) and (c₁, S/8, S/8) features of an image."""
        side = finer.shape[-1] // 2
        cells = finer.unflatten(2, (side, 2)).unflatten(1, (side, 2)).permute(1, 3, 2, 4, 0)
        small_cells = finest.unflatten(2, (side, 2, 2)).unflatten(1, (side, 2, 2)).permute(1, 4, 2, 5, 3, 6, 0)
        return (
            cells.reshape(side**2, 4, -1) + self._biases[0],
            small_cells.reshape(side**2, 16, -1) + self._biases[1],
        )

    def logits_at(self, rows: Tensor, image: Tensor, weights: Tensor, fine: tuple[Tensor, Tensor]) -> Tensor:
        """(n, M, M) logits of the (n,) rows of (P, L, C) images with the (n, c₂) weights of a mask each."""
        num_positions = image.shape[1]
        most = max(1, UPSCALED_NUMBERS_A_BATCH[image.device.type] // fine[1][0].numel())
        prompts_at_once, positions_at_once = max(1, most // num_positions), min(most, num_positions)
        cells = image.new_empty(len(rows), num_positions, 16)
        for first in range(0, len(rows), prompts_at_once):
            some = slice(first, first + prompts_at_once)
            for start in range(0, num_positions, positions_at_once):
                part = slice(start, start + positions_at_once)
                cells[some, part] = self._cells(image[rows[some], part], weights[some], fine[0][part], fine[1][part])
        side = round(num_positions**0.5)
        grid = cells.view(-1, side, side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return grid.reshape(-1, 4 * side, 4 * side)

    def _cells(self, image: Tensor, weights: Tensor, finer: Tensor, finest: Tensor) -> Tensor:
        """(n, l, 16) logits of (n, l, C) positions."""
        some = self.cells_of(image, finer, finest)
        return torch.bmm(some, weights[:, :, None]).view(*image.shape[:2], 16)

    def cells_of(self, image: Tensor, finer: Tensor, finest: Tensor) -> Tensor:
        """(n, 16·l, c₂) features of the cells of (n, l, C) positions; finer and finest are rows of ImageTerms.fine."""
        num_masks, num_positions = image.shape[:2]
        norm = self._norm
        some = F.linear(image, self._weights[0]).view(num_masks, num_positions, 4, -1).add_(finer)
        some = self._activation(F.layer_norm(some, self._widths[:1], norm.weight, norm.bias, norm.eps))
        some = F.linear(some, self._weights[1]).view(num_masks, num_positions, 16, -1).add_(finest)
        answer: Tensor = self._activation(some).flatten(1, 2)
        return answer
