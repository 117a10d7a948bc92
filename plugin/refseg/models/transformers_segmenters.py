"""Segmenters of transformers: SAM 2 once more, EdgeTAM, and the tracker of SAM 3, from folders that `save_pretrained` wrote.

All three are SAM 2 but for their image encoders. So the image encoder is transformers' own, and the weights of the prompt
encoder and of the mask decoder go into those of the `sam2` package, which they were ported from: the answers are the same up to
rounding. Such a folder may hold a whole video model; what is not needed of it is left there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsafeCheckpointError
from ..images import normalize
from ..regular_files import read_regular_text
from .presets import Preset
from .pretrained import class_of, read_pretrained
from .segmenters import load_tensors

HALVES = (0.5, 0.5, 0.5)

TIMM_OPTIONS = {"in_chans", "features_only", "out_indices"}
"""What a folder may ask of timm, which would take the path of a pickled checkpoint too."""


@dataclass(frozen=True)
class Kind:
    """A segmenter of transformers.

    Attributes:
        what: its name for people.
        class_name: of the model, in transformers; its configuration's is in the same place.
        model_types: what `config.json` may call it: alone, or as the video model of which it is a part.
        parts: what it calls the image encoder and the backbone of that.
        statistics: mean and deviation of each channel by which its image processor normalises; empty for ImageNet's.
    """

    what: str
    class_name: str
    model_types: tuple[str, ...]
    parts: tuple[str, str]
    statistics: tuple[tuple[float, ...], ...] = ()


KINDS = {
    "sam2": Kind("SAM 2", "Sam2Model", ("sam2", "sam2_video"), ("sam2_vision_model", "sam2_hiera_det_model")),
    "edgetam": Kind("EdgeTAM", "EdgeTamModel", ("edgetam", "edgetam_video"), ("edgetam_vision_model", "timm_wrapper")),
    "sam3_tracker": Kind(
        "SAM 3",
        "Sam3TrackerModel",
        ("sam3_tracker", "sam3_tracker_video", "sam3_video"),
        ("sam3_vision_model", "sam3_vit_model"),
        (HALVES, HALVES),
    ),
}
"""By the preset's `sam2_config`."""

RENAMED = {
    "mask_embed.conv1": "mask_downscaling.0",
    "mask_embed.layer_norm1": "mask_downscaling.1",
    "mask_embed.conv2": "mask_downscaling.3",
    "mask_embed.layer_norm2": "mask_downscaling.4",
    "mask_embed.conv3": "mask_downscaling.6",
    "shared_embedding.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    "upscale_conv1": "output_upscaling.0",
    "upscale_layer_norm": "output_upscaling.1",
    "upscale_conv2": "output_upscaling.3",
    ".layer_norm": ".norm",
    ".o_proj": ".out_proj",
}
"""Parts of tensors' names in transformers, and in the `sam2` package; the first that is found counts."""

FIRST = ".proj_in.weight"
"""Ends the names of the first weights of small networks."""

POSITIONS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
"""The frequencies that encode positions, of images and of clicks: SAM 2 has them once."""


class TransformersSegmenter(nn.Module):
    """A segmenter of transformers; see PromptedSegmenter.

    Args:
        model: such as `transformers.Sam2Model`; its image encoder becomes a part of this one.
        kind: what it is.
        source: the folder, for messages.

    Raises:
        UnsafeCheckpointError: it is not made as SAM 2 is.
    """

    def __init__(self, model: Any, kind: Kind, source: Path) -> None:
        super().__init__()
        self.vision_encoder = model.vision_encoder
        self.prompt_encoder: Any = _prompt_encoder_of(model.prompt_encoder, model.config.prompt_encoder_config, source)
        self.mask_decoder: Any = _mask_decoder_of(model.mask_decoder, model.config.mask_decoder_config, source)
        self.no_memory_embedding = nn.Parameter(model.no_memory_embedding.detach().clone())
        self._statistics = kind.statistics

    @property
    def no_memory(self) -> Tensor:
        """See PromptedSegmenter."""
        return self.no_memory_embedding.flatten()

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See PromptedSegmenter."""
        normal = normalize(pixels, *self._statistics).to(self.no_memory.dtype)
        # SAM 3's neck makes a fourth level that nothing here looks at. Sam3TrackerModel adds its no-memory embedding to that
        # one; Meta's own predictor adds it to the third, as SAM 2's does.
        finest, finer, coarse = self.vision_encoder(normal).fpn_hidden_states[:3]
        return coarse, (self.mask_decoder.conv_s0(finest), self.mask_decoder.conv_s1(finer))


def read_segmenter(preset: Preset, folder: Path) -> TransformersSegmenter:
    """A preset's segmenter from a folder, in float32.

    Args:
        preset: of which `is_of_transformers` is true.
        folder: with `config.json` and `model.safetensors`.

    Raises:
        ModelUnavailableError: the installed transformers is too old for it.
        UnsafeCheckpointError: the folder is that of another model.
    """
    kind = KINDS[preset.sam2_config]
    config = _config_of(kind, folder)
    model, report = read_pretrained(kind.class_name, folder, kind.what, config=config)
    lacking = set(report["missing_keys"])
    # One of the two is enough, where a writer took them for the same tensor.
    given = [name for name in POSITIONS if name not in lacking]
    if wrong := sorted(lacking - set(POSITIONS if given else ())):
        raise UnsafeCheckpointError(f"{folder} belongs to another model than {kind.what}: it lacks {wrong[0]!r}.")
    found: Any = model
    of_images, of_clicks = (found.get_buffer(name) for name in POSITIONS)
    if len(given) == len(POSITIONS) and not torch.equal(of_images, of_clicks):
        raise UnsafeCheckpointError(
            f"{folder} belongs to another model than {kind.what}: it encodes positions of images and of clicks in two ways."
        )
    of_clicks.copy_(found.get_buffer(given[0]))
    return TransformersSegmenter(found, kind, folder)


def _config_of(kind: Kind, folder: Path) -> Any:
    """The configuration of the part that is needed, without transformers' warning that the rest is another model's."""
    try:
        described = json.loads(read_regular_text(folder / "config.json"))
        model_type = described["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsafeCheckpointError(f"{folder / 'config.json'} does not say what model it describes: get it again.") from error
    if model_type not in kind.model_types:
        raise UnsafeCheckpointError(
            f"{folder} belongs to another model than {kind.what}: its config.json says {str(model_type)!r}."
        )
    config_class = class_of(kind.class_name.replace("Model", "Config"), kind.what)
    try:
        own = {**described.get("tracker_config", described)}
        own.pop("model_type", None)
        config = config_class.from_dict(own)
    except Exception as error:  # transformers checks each field in a way of its own
        raise UnsafeCheckpointError(f"{folder} does not hold a {kind.what} that can be read: {error}") from error
    encoder, backbone = config.vision_config, config.vision_config.backbone_config
    plain = re.fullmatch(r"[\w.]+", getattr(backbone, "architecture", "none"))
    options = set(getattr(backbone, "model_args", None) or {})
    if (encoder.model_type, backbone.model_type) != kind.parts or not plain or options - TIMM_OPTIONS:
        raise UnsafeCheckpointError(f"{folder} belongs to another model than {kind.what}: its image encoder is another.")
    return config


def _prompt_encoder_of(theirs: Any, config: Any, source: Path) -> nn.Module:
    from sam2.modeling.sam.prompt_encoder import PromptEncoder

    ours: nn.Module = PromptEncoder(
        embed_dim=config.hidden_size,
        image_embedding_size=theirs.image_embedding_size,
        input_image_size=(theirs.input_image_size, theirs.input_image_size),
        mask_in_chans=config.mask_input_channels,
    )
    tensors = _renamed(theirs.state_dict())
    for row, point in enumerate(tensors.pop("point_embed.weight")):
        tensors[f"point_embeddings.{row}.weight"] = point[None]
    load_tensors(ours, tensors, source)
    return ours


def _mask_decoder_of(theirs: Any, config: Any, source: Path) -> nn.Module:
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    ours: nn.Module = MaskDecoder(
        transformer_dim=config.hidden_size,
        transformer=TwoWayTransformer(
            depth=config.num_hidden_layers,
            embedding_dim=config.hidden_size,
            num_heads=config.num_attention_heads,
            mlp_dim=config.mlp_dim,
            attention_downsample_rate=config.attention_downsample_rate,
        ),
        num_multimask_outputs=config.num_multimask_outputs,
        iou_head_depth=config.iou_head_depth,
        iou_head_hidden_dim=config.iou_head_hidden_dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        dynamic_multimask_via_stability=config.dynamic_multimask_via_stability,
        dynamic_multimask_stability_delta=config.dynamic_multimask_stability_delta,
        dynamic_multimask_stability_thresh=config.dynamic_multimask_stability_thresh,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )
    load_tensors(ours, _renamed(theirs.state_dict()), source)
    return ours


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers by the names that the `sam2` package has for them."""
    layers, renamed = _layers_of(tensors), {}
    for name, tensor in tensors.items():
        module, _, end = name.rpartition(".")
        ours = f"{layers.get(module, module)}.{end}"
        found = next((part for part in RENAMED if part in ours), None)
        renamed[ours if found is None else ours.replace(found, RENAMED[found])] = tensor
    return renamed


def _layers_of(names: Collection[str]) -> dict[str, str]:
    """The layers of small networks: SAM 2 numbers them through, and transformers calls the first and the last by names.

    Example:
        >>> _layers_of(["head.proj_in.weight", "head.layers.0.weight", "head.proj_out.weight"])
        {'head.proj_in': 'head.layers.0', 'head.layers.0': 'head.layers.1', 'head.proj_out': 'head.layers.2'}
    """
    numbered = {}
    for network in (name.removesuffix(FIRST) for name in names if name.endswith(FIRST)):
        own = [
            name.removesuffix(".weight") for name in names if name.startswith(f"{network}.layers.") and name.endswith(".weight")
        ]
        for number, layer in enumerate([f"{network}.proj_in", *own, f"{network}.proj_out"]):
            numbered[layer] = f"{network}.layers.{number}"
    return numbered
