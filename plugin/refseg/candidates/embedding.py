"""The segmenter's image encoder: from pixels to what its decoder needs of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import normalize
from ..models import Models
from ..printing import one_line


@dataclass(frozen=True)
class ImageEmbeddings:
    """What the segmenter's decoder needs of a batch of images.

    Attributes:
        coarse: (B, D, S/16, S/16).
        fine: the projected features at S/4 and S/8.
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
    sam2 = models.sam2
    # SAM 2's neck answers in float32 whatever the weights are.
    levels = [level.to(models.dtype) for level in sam2.image_encoder(normalize(pixels).to(models.dtype))["backbone_fpn"]]
    coarse = levels[2]
    if models.preset.add_no_memory:
        coarse = coarse + sam2.no_mem_embed.reshape(1, -1, 1, 1)
    return ImageEmbeddings(coarse, (sam2.sam_mask_decoder.conv_s0(levels[0]), sam2.sam_mask_decoder.conv_s1(levels[1])))
