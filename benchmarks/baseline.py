"""Candidates by the published arithmetic, step by step (method.md, stage A): the yardstick of speed and the oracle of equality.

Float32, one image at a time. 256 prompts go through SAM 2's own prompt encoder and mask decoder with the image embedding
repeated for each of them, and all their masks are upscaled before the best of three is taken. DINOv2 keeps the attention maps
of every layer and rolls them out although nothing reads them. Features are upsampled to the M² × C tensor and averaged over
each mask. Of the library only the prompt grid, the preprocessing and `Candidates` are used, so that a mistake in its fast code
cannot hide in both. Takes minutes an image with the preset `tiny` on two cores; the attention maps of `large` take 2.9 GB.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refseg.candidates import Candidates, prompt_grid
from refseg.errors import ModelError, ShapeError
from refseg.images import encoder_pixels, normalize
from refseg.models import Models

PROMPTS_A_BATCH = 256
MIN_PREDICTED_IOU = 0.4
SEGMENTER_ENCODER, DECODER, ENCODER, POOLING = "segmenter encoder", "decoder", "encoder", "pooling"
"""The stages that every way of computing candidates has."""


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class StageClock:
    """Adds up the seconds of stages; an accelerator is waited for at both ends, so its stages do not overlap.

    Attributes:
        seconds: by stage, in the order in which they first ran.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        synchronize(self._device)
        started = time.perf_counter()
        yield
        synchronize(self._device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@contextmanager
def _untimed(stage: str) -> Iterator[None]:
    yield


@torch.inference_mode()
def propose_as_published(
    pixels: Tensor, models: Models, *, encoder: nn.Module | None = None, clock: StageClock | None = None
) -> Candidates:
    """Candidates of one image, on the models' device, in the order of the prompts; near duplicates stay.

    Args:
        pixels: (3, S, S) float32 in [0, 1].
        models: in float32.
        encoder: what `eager_encoder` makes of the models, so that it is made once; None makes it here.
        clock: told how long each stage took; None leaves an accelerator unwatched.

    Returns:
        Candidates whose image is the square of S × S pixels.

    Raises:
        ModelError: the models are not in float32.
        ShapeError: the pixels are not one square of the segmenter's side.
    """
    if models.dtype != torch.float32:
        raise ModelError(f"The published code runs in float32, but the models are in {models.dtype}: load them in float32.")
    side = models.segmenter_side
    if pixels.shape != (3, side, side):
        raise ShapeError(f"The baseline takes one image of shape (3, {side}, {side}), not {tuple(pixels.shape)}.")
    timed: Any = clock or _untimed
    on_device = pixels.to(models.device)[None]
    with timed(SEGMENTER_ENCODER):
        levels = _embed(on_device, models)
    with timed(DECODER):
        logits, predicted_iou = _decode_grid(levels, models)
    with timed(ENCODER):
        patches = _encode_with_rollout(on_device, models, encoder or eager_encoder(models))
    with timed(POOLING):
        features = pool_by_upsampling(logits > 0, patches)
    return Candidates(logits, predicted_iou, features, (side, side))


def eager_encoder(models: Models) -> nn.Module:
    """The models' encoder with attention that hands out its maps; shares their weights and leaves them as they are."""
    from transformers import Dinov2Model

    config = copy.deepcopy(models.dinov2.config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        encoder: nn.Module = Dinov2Model(config)
    encoder.load_state_dict(models.dinov2.state_dict(), assign=True)
    return encoder.eval()


def roll_out(attentions: tuple[Tensor, ...]) -> Tensor:
    """Attention rollout: over the layers, the product of the heads' mean plus identity, its rows scaled to a sum of 1.

    Args:
        attentions: of each layer, (1, heads, T, T).

    Returns:
        (T, T); each row sums to 1.
    """
    tokens = attentions[0].shape[-1]
    identity = torch.eye(tokens, device=attentions[0].device)
    rolled = identity
    for layer in attentions:
        step = layer[0].mean(0) + identity
        rolled = (step / step.sum(-1, keepdim=True)) @ rolled
    return rolled


def pool_by_upsampling(masks: Tensor, patch_features: Tensor) -> Tensor:
    """The mean over each mask of the features upsampled to the mask grid, at unit length.

    Args:
        masks: (N, M, M) bool.
        patch_features: (G², C), row-major.

    Returns:
        (N, C) float32; zeros for an empty mask.
    """
    side, grid = round(len(patch_features) ** 0.5), masks.shape[-1]
    as_image = patch_features.T.reshape(1, -1, side, side)
    upsampled = F.interpolate(as_image, size=(grid, grid), mode="bilinear", align_corners=False, antialias=True)
    flat = masks.flatten(1).float()
    means = flat @ upsampled[0].flatten(1).T / flat.sum(1, keepdim=True).clamp(min=1)
    return F.normalize(means, dim=-1)


def _sam2_of(models: Models) -> Any:
    """The published code path knows the `sam2` package's SAM 2 alone."""
    segmenter: Any = models.segmenter
    return segmenter.sam2


def _embed(pixels: Tensor, models: Models) -> list[Tensor]:
    """The segmenter's features of one image at S/4, S/8 and S/16."""
    fine, middle, coarse = _sam2_of(models).forward_image(normalize(pixels))["backbone_fpn"][:3]
    if models.preset.add_no_memory:
        coarse = coarse + models.segmenter.no_memory.reshape(1, -1, 1, 1)
    return [fine, middle, coarse]


def _decode_grid(levels: list[Tensor], models: Models) -> tuple[Tensor, Tensor]:
    sam2, (fine, middle, coarse) = _sam2_of(models), levels
    kept_logits, kept_iou = [], []
    points = prompt_grid(models.preset.points_per_side, models.segmenter_side).to(models.device)
    for chunk in points.split(PROMPTS_A_BATCH):
        clicks = (chunk[:, None], torch.ones(len(chunk), 1, dtype=torch.int, device=chunk.device))
        sparse, dense = sam2.sam_prompt_encoder(points=clicks, boxes=None, masks=None)
        logits, iou, _, _ = sam2.sam_mask_decoder(
            image_embeddings=coarse,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=[fine, middle],
        )
        best_iou, best = iou.max(1)
        logits = logits[torch.arange(len(chunk), device=chunk.device), best]
        keep = best_iou > MIN_PREDICTED_IOU
        kept_logits.append(logits[keep])
        kept_iou.append(best_iou[keep])
    return torch.cat(kept_logits), torch.cat(kept_iou)


def _encode_with_rollout(pixels: Tensor, models: Models, encoder: nn.Module) -> Tensor:
    """(G², C) patch features; the rollout is computed because the published code does so, and dropped."""
    answer = encoder(normalize(encoder_pixels(pixels, models.preset.encoder_side)), output_attentions=True)
    roll_out(answer.attentions)
    tokens: Tensor = answer.last_hidden_state[0]
    return tokens[len(tokens) - models.patches_side**2 :]
