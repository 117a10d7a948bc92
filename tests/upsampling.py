"""Masks at the image's size as method.md C3 defines them: whole, by torch's own resize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(logits: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool masks at the image's size from (n, M, M) logits: bilinear with antialias, above 0 (method.md C3)."""
    if len(logits) == 0:
        return torch.zeros(0, *image_hw, dtype=torch.bool, device=logits.device)
    if image_hw[1] == 1 < image_hw[0]:
        # On CPUs torch's antialiased resize to a width of 1 repeats the first row (seen in 2.15); to a height of 1 it is right.
        return upsample(logits.mT, (1, image_hw[0])).mT
    full = F.interpolate(logits[None], size=image_hw, mode="bilinear", align_corners=False, antialias=True)
    return full[0] > 0
