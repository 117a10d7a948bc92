"""Where the segmenter is asked: a grid of clicks, and which of them are worth asking after a first look at half the size."""

from __future__ import annotations

import torch
from torch import Tensor

from .grids import drop_near_duplicates

JUDGED_IOU = 0.35
"""Predicted IoU on an embedding of half the side that a click must exceed; a little less than a mask needs."""
SAME_MASK_IOU = 0.85
"""Masks there that agree to this IoU count as the same."""
MOST_OF_A_MASK = 3
"""Clicks of the same mask that are asked again, at most."""


def prompt_grid(per_side: int, side: int) -> Tensor:
    """The (n², 2) xy prompts of the grid, pixels of the S by S input, row-major: as handed to SAM 2's prompt encoder.

    That adds half a pixel of its own, so the published clicks lie a whole one on (method.md A5).

    Example:
        >>> prompt_grid(2, 256).tolist()
        [[0.5, 0.5], [255.5, 0.5], [0.5, 255.5], [255.5, 255.5]]
    """
    line = torch.linspace(0, side - 1, per_side) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


@torch.inference_mode()
def prompts_worth_asking(masks: Tensor, predicted_iou: Tensor) -> Tensor:
    """Which of some prompts are worth asking again, by what they answered on an image embedding of half the side.

    Prompts next to each other mostly get the same mask, of which a few are enough: they still vote where masks do.

    Args:
        masks: (N, m, m) bool.
        predicted_iou: (N,).

    Returns:
        (n,) int64 rows, ascending, on the device of the masks. Memory is that of the masks as float32; time grows with N².

    Example:
        >>> masks = torch.ones(5, 2, 2, dtype=torch.bool)
        >>> masks[4, 0] = False
        >>> prompts_worth_asking(masks, torch.tensor([0.9, 0.8, 0.5, 0.7, 0.6])).tolist()
        [0, 1, 3, 4]
    """
    return drop_near_duplicates(masks, predicted_iou, SAME_MASK_IOU, MOST_OF_A_MASK)
