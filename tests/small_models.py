"""Every preset with small random weights in files of the official layouts: quick, and nothing is downloaded.

A preset keeps its name and how it asks and matches; its SAM 2 keeps its configuration but for the sizes, its encoder is a
DINOv2. Presets that share an encoder share the small one. Segmenters of transformers are those of
`tests/small_segmenters.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from refseg.models.loaded import PRESETS, Preset, unload_models
from refseg.models.segmenters import make_sam2
from tests.small_segmenters import can_be, write_folder

SIDE = 64
"""S: grids of 16 by 16 cells."""
WIDTH = 32
ENCODER_SIDE = 56
PATCH_SIDE = 14
PROMPTS_A_SIDE = 4


@contextmanager
def small_presets(folder: Path, presets: Iterable[Preset] | None = None) -> Iterator[None]:
    """Put small presets in place of those of the same names, by default of all that can be loaded here."""
    before = dict(PRESETS)
    made: dict[str, Preset] = {}
    try:
        able = [preset for preset in before.values() if can_be(preset.sam2_config)]
        for preset in able if presets is None else presets:
            exact = made.setdefault(preset.exact.name, _small(preset.exact, folder))
            PRESETS[preset.name] = replace(exact, name=preset.name, adaptive_prompts=preset.adaptive_prompts)
        yield
    finally:
        PRESETS.clear()
        PRESETS.update(before)
        unload_models()


def _small(preset: Preset, folder: Path) -> Preset:
    """The preset with files of its own; those that are there already are used again."""
    config, checkpoint = folder / f"{preset.name}.yaml", folder / f"{preset.name}.pt"
    if preset.is_of_transformers:
        config, checkpoint = Path(preset.sam2_config), folder / preset.name
    encoder = folder / Path(preset.dinov2_repository).name
    small = replace(
        preset,
        sam2_config=str(config),
        sam2_zoo_name=None,
        sam2_file=str(checkpoint),
        dinov2_repository=str(encoder),
        dinov2_revision=None,
        points_per_side=PROMPTS_A_SIDE,
        encoder_side=ENCODER_SIDE,
    )
    # Its own weights for each, whatever other presets there are.
    seed = int.from_bytes(preset.name.encode(), "big") % 2**31
    if not checkpoint.exists() and preset.is_of_transformers:
        write_folder(preset.sam2_config, checkpoint, seed)
    elif not checkpoint.exists():
        OmegaConf.save(_shrink(_config_of(preset)), config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sam2 = make_sam2(small)
        # Random heads predict an IoU of a half for every mask; what is kept has more.
        with torch.no_grad():
            sam2.sam_mask_decoder.iou_prediction_head.layers[-1].bias += 4  # type: ignore[union-attr, index, operator]
        torch.save({"model": sam2.state_dict()}, checkpoint)
    if not encoder.exists():
        from transformers import Dinov2Config, Dinov2Model

        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(encoder.name.encode(), "big") % 2**31)
            Dinov2Model(Dinov2Config(**sizes, image_size=ENCODER_SIDE, patch_size=PATCH_SIDE)).save_pretrained(encoder)
    return small


def _config_of(preset: Preset) -> DictConfig:
    import sam2

    path = Path(preset.sam2_config)
    config = OmegaConf.load(path if path.is_absolute() else Path(sam2.__path__[0]) / path)
    assert isinstance(config, DictConfig)
    return config


def _shrink(config: DictConfig) -> DictConfig:
    """The same parts, each as small as it can be."""
    model = config.model
    model.image_size = SIDE
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    trunk.update(embed_dim=16, num_heads=1, stages=[1, 1, 2, 1], global_att_blocks=[3])
    neck.update(d_model=WIDTH, backbone_channel_list=[128, 64, 32, 16])
    neck.position_encoding.num_pos_feats = WIDTH
    memory = model.memory_attention
    memory.update(d_model=WIDTH, num_layers=1)
    memory.layer.update(d_model=WIDTH, dim_feedforward=WIDTH)
    for attention in (memory.layer.self_attention, memory.layer.cross_attention):
        attention.update(embedding_dim=WIDTH, feat_sizes=[SIDE // 16, SIDE // 16])
    memory.layer.cross_attention.kv_in_dim = 16
    encoder = model.memory_encoder
    encoder.update(in_dim=WIDTH, out_dim=16)
    encoder.position_encoding.num_pos_feats = 16
    encoder.mask_downsampler.embed_dim = WIDTH
    encoder.fuser.update(num_layers=1)
    encoder.fuser.layer.dim = WIDTH
    return config
