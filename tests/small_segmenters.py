"""Segmenters of transformers with small random weights, in the folders that transformers itself writes of them."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

WIDTH = 32
GRID_SIDE = 16
"""M: embeddings of 4 by 4 positions."""
SIDES = {"sam2": 64, "edgetam": 64, "sam3_tracker": 56}
"""S; a position of SAM 3's embedding has 14 pixels a side, one of the others' 16."""
CLASSES = {"sam2": "Sam2", "edgetam": "EdgeTam", "sam3_tracker": "Sam3Tracker"}
LEVELS = [[GRID_SIDE, GRID_SIDE], [GRID_SIDE // 2, GRID_SIDE // 2], [GRID_SIDE // 4, GRID_SIDE // 4]]
BACKBONE = "repvit_m0_9"
"""A smaller one of the family that EdgeTAM has."""


def can_be(kind: str) -> bool:
    """Whether the installed transformers has a model, and timm is there where it is needed; true of anything else."""
    import transformers

    if kind == "edgetam" and importlib.util.find_spec("timm") is None:
        return False
    return kind not in CLASSES or hasattr(transformers, f"{CLASSES[kind]}Model")


def require_kind(kind: str) -> None:
    """Skip the test where a model cannot be."""
    if not can_be(kind):
        pytest.skip(f"the lowest versions that are allowed know no {CLASSES[kind]}")


def make_model(kind: str, seed: int = 0) -> Any:
    """A model of transformers in eval mode; every part of it is random, and it predicts a high IoU for every mask.

    Of the seeds from this one on it is the first whose masks are neither nearly empty nor nearly all of the image.
    """
    every = (_random_model(kind, number) for number in itertools.count(seed))
    return next(model for model in every if _draws_parts(model, SIDES[kind]))


def _random_model(kind: str, seed: int) -> Any:
    import transformers

    prefix, side = CLASSES[kind], SIDES[kind]
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=_vision_config(kind),
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": side, "patch_size": side * 4 // GRID_SIDE},
        mask_decoder_config={"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": WIDTH},
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{prefix}Model")(config)
        # What transformers begins with is so even that masks are all or nothing.
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
                module.reset_parameters()
        model.no_memory_embedding.normal_()
        positions = model.prompt_encoder.shared_embedding.positional_embedding
        model.shared_image_embedding.positional_embedding.copy_(positions.normal_())
        model.mask_decoder.iou_prediction_head.proj_out.bias += 4
    return model.eval()


@torch.inference_mode()
def _draws_parts(model: Any, side: int) -> bool:
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
    clicks = torch.tensor([[[[x, y]] for x in (side / 4, side * 3 / 4) for y in (side / 4, side * 3 / 4)]])
    answer = model(pixel_values=pixels, input_points=clicks, input_labels=torch.ones(1, 4, 1, dtype=torch.int))
    shares = (answer.pred_masks > 0).float().mean((-2, -1))
    return bool(((shares > 0.1) & (shares < 0.9)).all())


def write_folder(kind: str, folder: Path, seed: int = 0) -> Path:
    """The same as a folder."""
    make_model(kind, seed).save_pretrained(folder)
    return folder


def _vision_config(kind: str) -> dict[str, Any]:
    about = {"backbone_feature_sizes": LEVELS, "fpn_hidden_size": WIDTH}
    if kind == "sam3_tracker":
        sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        sides = {"image_size": SIDES[kind], "patch_size": 14, "window_size": 2, "pretrain_image_size": 28}
        backbone = {"model_type": "sam3_vit_model", **sizes, **sides, "global_attn_indexes": [1]}
        return {**about, "model_type": "sam3_vision_model", "backbone_config": backbone}
    if kind == "edgetam":
        options = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        labels = {"num_classes": 2, "label_names": ["thing", "stuff"]}
        backbone = {"model_type": "timm_wrapper", "architecture": BACKBONE, "model_args": options, **labels}
        channels = [384, 192, 96, 48]
        return {**about, "model_type": "edgetam_vision_model", "backbone_config": backbone, "backbone_channel_list": channels}
    sizes = {"embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8]}
    stages = {"blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3], "image_size": [64, 64]}
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 16, **sizes, **stages}
    return {**about, "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16]}
