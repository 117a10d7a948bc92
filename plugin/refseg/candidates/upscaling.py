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
        self._weights: tuple[Tensor, ...] = tuple(
            layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous() for layer in (first, second)
        )
        self._biases = (first.bias, second.bias)
        self._widths = (first.weight.shape[1], second.weight.shape[1])

    @property
    def first_weight(self) -> Tensor:
        """(4·c₁, C) of the first step."""
        return self._weights[0]

    def fine_terms(self, finest: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to each position after each step, biases included.

        Args:
            finest: (c₂, M, M) features of an image.
            finer: (c₁, M/2, M/2) likewise.

        Returns:
            (L, 4, c₁) and (L, 16, c₂). The second axis runs over the cells of a position: (y, x), and then (y, x) in each.
        """
        side = finer.shape[-1] // 2
        cells = finer.unflatten(2, (side, 2)).unflatten(1, (side, 2)).permute(1, 3, 2, 4, 0)
        small_cells = finest.unflatten(2, (side, 2, 2)).unflatten(1, (side, 2, 2)).permute(1, 4, 2, 5, 3, 6, 0)
        return (
            cells.reshape(side**2, 4, -1) + self._biases[0],
            small_cells.reshape(side**2, 16, -1) + self._biases[1],
        )

    def logits_of(
        self, parts: tuple[Tensor, Tensor, Tensor], image: Tensor, weights: Tensor, fine: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(n, M, M) logits of masks of images in parts; see PromptedImages.upscaling_of.

        Args:
            parts: of n images.
            image: (L, 4·c₁), the part that all share.
            weights: (n, c₂) of a mask each.
            fine: see fine_terms.
        """
        shares, outputs, scale = parts
        num_masks, num_positions = scale.shape
        most = max(1, UPSCALED_NUMBERS_A_BATCH[image.device.type] // fine[1][0].numel())
        masks_at_once, positions_at_once = max(1, most // num_positions), min(most, num_positions)
        cells = image.new_empty(num_masks, num_positions, 16)
        finer = fine[0].flatten(1)
        for first in range(0, num_masks, masks_at_once):
            some = slice(first, first + masks_at_once)
            for start in range(0, num_positions, positions_at_once):
                part = slice(start, start + positions_at_once)
                steps = torch.baddbmm(finer[part], shares[some, :, part].mT, outputs[some])
                steps.addcmul_(image[part], scale[some, part, None])
                found = self._second_step(steps.unflatten(2, (4, -1)), fine[1][part])
                cells[some, part] = torch.bmm(found, weights[some, :, None]).unflatten(1, (-1, 16)).squeeze(-1)
        side = round(num_positions**0.5)
        grid = cells.view(-1, side, side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return grid.reshape(-1, 4 * side, 4 * side)

    def cells_of(self, image: Tensor, finer: Tensor, finest: Tensor) -> Tensor:
        """(n, 16·l, c₂) features of the cells of (n, l, C) positions; finer and finest are rows of fine_terms."""
        return self._second_step(F.linear(image, self._weights[0]).unflatten(2, (4, -1)).add_(finer), finest)

    def _second_step(self, some: Tensor, finest: Tensor) -> Tensor:
        """(n, 16·l, c₂) of (n, l, 4, c₁)."""
        norm = self._norm
        some = self._activation(F.layer_norm(some, self._widths[:1], norm.weight, norm.bias, norm.eps))
        some = F.linear(some, self._weights[1]).view(*some.shape[:2], 16, -1).add_(finest)
        answer: Tensor = self._activation(some).flatten(1, 2)
        return answer
