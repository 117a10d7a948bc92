"""From images to candidates: class-agnostic masks, their predicted IoU, and one pooled feature each (method.md, stage A).

Needs no reference, so it runs once an image. Nearly all of its time is the segmenter: its encoder once an image and its
decoder once a prompt. Memory grows with the kept masks, N × M² half-precision logits, not with the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .errors import ShapeError
from .images import encoder_pixels, normalize, segmenter_pixels
from .models import Models

MIN_PREDICTED_IOU = 0.4
PROMPTS_A_BATCH = {"cpu": 32, "mps": 64, "cuda": 256}
"""Prompts decoded at once. On a CPU more than 64 fall out of the cache and run at half the speed."""


@dataclass(frozen=True)
class Candidates:
    """Masks of one image that some class may claim.

    Attributes:
        logits: (N, M, M) float32, segmenter grid; the mask is where they are above 0.
        predicted_iou: (N,) float32, the segmenter's own estimate of each mask's quality.
        features: (N, C) float32, unit length.
        image_hw: height and width of the image in pixels.
    """

    logits: Tensor
    predicted_iou: Tensor
    features: Tensor
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if not len(self.logits) == len(self.predicted_iou) == len(self.features):
            raise ShapeError(
                f"Candidates need one logit map, predicted IoU and feature each, but there are {len(self.logits)}, "
                f"{len(self.predicted_iou)} and {len(self.features)}."
            )

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def masks(self) -> Tensor:
        """(N, M, M) bool, segmenter grid."""
        return self.logits > 0


@torch.inference_mode()
def propose(images: Sequence[Image.Image], models: Models) -> list[Candidates]:
    """Candidates of some RGB images, on the CPU, in the order of the prompts.

    Args:
        images: upright RGB; any size.
        models: a loaded preset.
    """
    if not images:
        return []
    pixels = torch.stack([segmenter_pixels(image, models.segmenter_side) for image in images])
    sizes = [(image.height, image.width) for image in images]
    return propose_from_pixels(pixels, sizes, models)


@torch.inference_mode()
def propose_from_pixels(pixels: Tensor, sizes: Sequence[tuple[int, int]], models: Models) -> list[Candidates]:
    """Candidates of images already resized for the segmenter.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 1].
        sizes: height and width of each original image.
        models: a loaded preset.
    """
    with models.lock:
        on_device = pixels.to(models.device)
        features = encode_patches(encoder_pixels(on_device, models.preset.encoder_side), models)
        embeddings = embed_images(on_device, models)
        prompts = prompt_grid(models.preset.points_per_side, models.segmenter_side).to(models.device)
        answer = []
        for row, image_hw in enumerate(sizes):
            logits, predicted = decode_points(prompts, embeddings, row, models)
            pooled = pool_features(logits > 0, features[row])
            answer.append(Candidates(logits.float().cpu(), predicted.float().cpu(), pooled.float().cpu(), image_hw))
        return answer


@torch.inference_mode()
def encode_patches(pixels: Tensor, models: Models) -> Tensor:
    """Patch features of the encoder after its last norm; class and register tokens dropped.

    Args:
        pixels: (B, 3, E, E) in [0, 1], on the models' device.
        models: a loaded preset.

    Returns:
        (B, G², C) in the models' dtype, row-major.
    """
    tokens: Tensor = models.dinov2(normalize(pixels).to(models.dtype)).last_hidden_state
    return tokens[:, tokens.shape[1] - models.patches_side**2 :]


@dataclass(frozen=True)
class ImageEmbeddings:
    """What the segmenter's decoder needs of a batch of images.

    Attributes:
        coarse: (B, D, S/16, S/16).
        fine: the projected features at S/4 and S/8.
    """

    coarse: Tensor
    fine: tuple[Tensor, Tensor]


@torch.inference_mode()
def embed_images(pixels: Tensor, models: Models) -> ImageEmbeddings:
    """Run the segmenter's image encoder on (B, 3, S, S) pixels in [0, 1] on the models' device."""
    levels = models.sam2.forward_image(normalize(pixels).to(models.dtype))["backbone_fpn"]
    coarse = levels[2]
    if models.preset.add_no_memory:
        coarse = coarse + models.sam2.no_mem_embed.reshape(1, -1, 1, 1)
    return ImageEmbeddings(coarse, (levels[0], levels[1]))


def prompt_grid(per_side: int, side: int) -> Tensor:
    """The (n², 2) xy prompts of the grid, pixels of the S by S input, row-major.

    The half pixel of method.md A5 is added by SAM 2's prompt encoder itself.

    Example:
        >>> prompt_grid(2, 256).tolist()
        [[0.0, 0.0], [255.0, 0.0], [0.0, 255.0], [255.0, 255.0]]
    """
    line = torch.linspace(0, side - 1, per_side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


@torch.inference_mode()
def decode_points(points: Tensor, embeddings: ImageEmbeddings, row: int, models: Models) -> tuple[Tensor, Tensor]:
    """Masks at single positive clicks: of three answers the one with the highest predicted IoU, if it is above 0.4.

    Args:
        points: (P, 2) xy pixels of the S by S input.
        embeddings: of the batch.
        row: of the image in the batch.
        models: a loaded preset.

    Returns:
        (N, M, M) logits and (N,) predicted IoU of the masks kept, in the order of the points.
    """
    kept_logits, kept_iou = [], []
    for chunk in points.split(PROMPTS_A_BATCH[models.device.type]):
        labels = torch.ones(len(chunk), 1, dtype=torch.int, device=chunk.device)
        logits, iou = _decode(chunk[:, None], labels, embeddings, row, models, several=True)
        best_iou, best = iou.max(1)
        keep = best_iou > MIN_PREDICTED_IOU
        kept_logits.append(logits[keep, best[keep]])
        kept_iou.append(best_iou[keep])
    return torch.cat(kept_logits), torch.cat(kept_iou)


@torch.inference_mode()
def decode_boxes(boxes: Tensor, embeddings: ImageEmbeddings, row: int, models: Models) -> Tensor:
    """The segmenter's single answer to each box: (B, M, M) logits of (B, 4) xyxy pixels of the S by S input."""
    labels = torch.tensor([[2, 3]], dtype=torch.int, device=boxes.device).expand(len(boxes), -1)
    logits, _ = _decode(boxes.reshape(-1, 2, 2), labels, embeddings, row, models, several=False)
    return logits[:, 0]


def _decode(
    points: Tensor, labels: Tensor, embeddings: ImageEmbeddings, row: int, models: Models, *, several: bool
) -> tuple[Tensor, Tensor]:
    sam2: Any = models.sam2
    sparse, dense = sam2.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, iou, _, _ = sam2.sam_mask_decoder(
        image_embeddings=embeddings.coarse[row : row + 1],
        image_pe=sam2.sam_prompt_encoder.get_dense_pe().to(models.dtype),
        sparse_prompt_embeddings=sparse.to(models.dtype),
        dense_prompt_embeddings=dense.to(models.dtype),
        multimask_output=several,
        repeat_image=True,
        high_res_features=[level[row : row + 1] for level in embeddings.fine],
    )
    return logits, iou


@lru_cache(maxsize=16)
def interpolation_matrix(patches_side: int, grid_side: int) -> Tensor:
    """(M, G) float32: one axis of bilinear upsampling, corners not aligned, antialias on."""
    with torch.inference_mode(False):
        identity = torch.eye(patches_side)[None, None]
        resized = F.interpolate(identity, size=(grid_side, patches_side), mode="bilinear", align_corners=False, antialias=True)
        return resized[0, 0].contiguous()


def patch_weights(masks: Tensor, patches_side: int) -> Tensor:
    """What each patch contributes to the mean over each mask: the adjoint of upsampling the features.

    Upsampling is linear, so the mean over a mask of U F Uᵀ is the inner product of F with Uᵀ m U: the same number for a few
    per cent of the arithmetic and without the M² × C tensor (method.md A8).

    Args:
        masks: (N, M, M) bool or float, segmenter grid.
        patches_side: G.

    Returns:
        (N, G²) float32 weights, row-major; not normalised.
    """
    axis = interpolation_matrix(patches_side, masks.shape[-1]).to(masks.device)
    return (axis.T @ masks.float() @ axis).flatten(1)


def pool_features(masks: Tensor, patch_features: Tensor) -> Tensor:
    """The mean of the upsampled patch features over each mask, at unit length (method.md A8).

    Args:
        masks: (N, M, M) bool, segmenter grid.
        patch_features: (G², C), row-major.

    Returns:
        (N, C) float32; zeros for an empty mask.

    Raises:
        ShapeError: the number of patches is no square.
    """
    side = round(len(patch_features) ** 0.5)
    if side * side != len(patch_features):
        raise ShapeError(f"Patch features must cover a square of patches, but there are {len(patch_features)}.")
    return F.normalize(patch_weights(masks, side) @ patch_features.float(), dim=-1)
