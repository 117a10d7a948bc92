"""The segmenter's image encoder: from pixels to what its decoder needs of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Models
from ..printing import one_line


@dataclass(frozen=True)
class ImageEmbeddings:
    """What the segmenter's decoder needs of a batch of images.

    Attributes:
        coarse: (B, C, M/4, M/4).
        fine: the projected features, (B, C/8, M, M) and (B, C/4, M/2, M/2).
    """

    coarse: Tensor
    fine: tuple[Tensor, Tensor]

    __repr__ = one_line

    def halved(self) -> ImageEmbeddings:
        """Of half the side: means of four."""
        height, width = (side // 2 for side in self.coarse.shape[-2:])
        finest, finer = (
            F.adaptive_avg_pool2d(level, (height * times, width * times))
            for level, times in zip(self.fine, (4, 2), strict=True)
        )
        return ImageEmbeddings(F.adaptive_avg_pool2d(self.coarse, (height, width)), (finest, finer))


@torch.inference_mode()
def embed_images(pixels: Tensor, models: Models) -> ImageEmbeddings:
    """Run the segmenter's image encoder on (B, 3, S, S) pixels in [0, 1] on the models' device."""
    segmenter = models.segmenter
    coarse, fine = segmenter.embed(pixels)
    if models.preset.add_no_memory:
        coarse = coarse + segmenter.no_memory.reshape(1, -1, 1, 1)
    return ImageEmbeddings(coarse, fine)
