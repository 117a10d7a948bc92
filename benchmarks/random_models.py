"""Models of a preset's real sizes with random, seeded weights: speed and memory without a download.

The arithmetic does not depend on what the weights are, but how much of it is done does: the library upscales no mask whose
predicted IoU is too low, and a segmenter with random weights predicts about 0.5 for every prompt, so that it would keep all of
them. `set_kept_share` shifts and widens the last layer that predicts IoU until a wanted share is kept. Needs no FiftyOne.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from refseg.candidates import MIN_PREDICTED_IOU, prompt_grid
from refseg.demo.world import draw_family, render_scene
from refseg.images import segmenter_pixels
from refseg.models import Models, Preset, Sam2Segmenter, get_preset, make_sam2, move_segmenter, parse_device

KEPT_SHARE = 0.4
"""More than the demo's trained segmenter keeps of its grid on drawn scenes, a fifth to a quarter: to be on the safe side."""
CALIBRATION_SIDE = 7
"""Prompts a side that the share is set on."""
DINOV2_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, layers and heads of the published encoders."""


def make_random_models(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    kept_share: float | None = KEPT_SHARE,
) -> Models:
    """A preset's models with random weights, the same for the same seed on every machine.

    Args:
        name: of a preset.
        device: as `load_models` takes it.
        dtype: in which they run; their weights are drawn, and the kept share is set, in float32.
        seed: of the weights.
        kept_share: share of the prompts that should be kept, see `set_kept_share`; None keeps what chance gives, nearly all.

    Raises:
        UnknownModelError: no preset has this name.
        ModelError: torch knows no such device, or this machine has none.
    """
    preset = get_preset(name)
    place = parse_device(str(device) if device else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam2, dinov2 = make_sam2(preset), _make_dinov2(preset)
    source = f"random weights, seed {seed}"
    models = Models(
        preset,
        Sam2Segmenter(sam2).to(place).eval(),
        dinov2.to(place).eval(),
        place,
        torch.float32,
        {"sam2": source, "dinov2": source},
        threading.RLock(),
    )
    if kept_share is not None:
        set_kept_share(models, kept_share, draw_pixels(1, models.segmenter_side, seed))
    return models if dtype == torch.float32 else copy_models(models, dtype=dtype)


def copy_models(models: Models, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Models:
    """The same weights once more, on another device or in another dtype."""
    place, kind = device or models.device, dtype or models.dtype
    segmenter = move_segmenter(copy.deepcopy(models.segmenter), place, kind)
    dinov2 = copy.deepcopy(models.dinov2).to(place, kind)
    return Models(models.preset, segmenter, dinov2, place, kind, models.revisions, threading.RLock())


def ask_at(models: Models, points_per_side: int) -> Models:
    """The same models asked at another grid of prompts; shares the weights."""
    return replace(models, preset=replace(models.preset, points_per_side=points_per_side))


def draw_pixels(count: int, side: int, seed: int = 0) -> Tensor:
    """(B, 3, S, S) float32 in [0, 1]: synthetic scenes of four objects, ready for the segmenter."""
    rng = np.random.default_rng((seed, 1))
    scenes = [render_scene(rng, [draw_family(rng) for _ in range(4)]) for _ in range(count)]
    return torch.stack([segmenter_pixels(Image.fromarray(scene.image), side) for scene in scenes])


@torch.no_grad()
def set_kept_share(models: Models, share: float, pixels: Tensor) -> None:
    """Change the head that predicts IoU, in place, so that it keeps about this share of the prompts.

    Each of its outputs gets the mean 0 and, before its sigmoid, a deviation of 1 over the prompts; then all are shifted alike.
    So each of the three masks wins at some prompts, and few predictions lie at the threshold. Set on a coarse grid of prompts:
    measure the share that is kept, above all on other images, where a random segmenter can be far off.

    Args:
        models: in float32.
        share: in (0, 1).
        pixels: (B, 3, S, S) float32 in [0, 1].
    """
    last = models.segmenter.mask_decoder.iou_prediction_head.layers[-1]
    before_sigmoid = torch.cat([_predictions(models, image, last) for image in pixels])
    means, deviations = before_sigmoid.mean(0), before_sigmoid.std(0)
    best = ((before_sigmoid - means) / deviations)[:, 1:].amax(1)
    threshold = torch.logit(torch.tensor(MIN_PREDICTED_IOU))
    shift = threshold.item() - best.quantile(1 - share)
    last.weight /= deviations[:, None]
    last.bias.copy_((last.bias - means) / deviations + shift)


def _predictions(models: Models, pixels: Tensor, last: nn.Module) -> Tensor:
    """(P, 4) what the last layer of the IoU head answers at a coarse grid of prompts."""
    outputs: list[Tensor] = []
    handle = last.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        segmenter = models.segmenter
        coarse, fine = segmenter.embed(pixels.to(models.device)[None])
        # Off the border, where a click sees half as much.
        points = prompt_grid(CALIBRATION_SIDE + 2, models.segmenter_side).reshape(CALIBRATION_SIDE + 2, -1, 2)[1:-1, 1:-1]
        clicks = points.reshape(-1, 1, 2).to(models.device)
        labels = torch.ones(len(clicks), 1, dtype=torch.int, device=models.device)
        sparse, dense = segmenter.prompt_encoder(points=(clicks, labels), boxes=None, masks=None)
        if models.preset.add_no_memory:
            coarse = coarse + segmenter.no_memory.reshape(1, -1, 1, 1)
        segmenter.mask_decoder(
            image_embeddings=coarse,
            image_pe=segmenter.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(fine),
        )
    finally:
        handle.remove()
    return torch.cat(outputs)


def _make_dinov2(preset: Preset) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    if preset.dinov2_revision is None:
        config = Dinov2Config.from_pretrained(preset.dinov2_repository)
    else:
        width, layers, heads = DINOV2_SIZES[preset.dinov2_repository.rsplit("-", 1)[1]]
        config = Dinov2Config(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, image_size=518, patch_size=14
        )
    config._attn_implementation = "sdpa"
    return Dinov2Model(config)
