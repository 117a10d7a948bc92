"""The demo segmenter: a small SAM 2, made of the `sam2` package's own classes, and its answers while it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sam2
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...candidates.cross_attention import split_heads
from ...candidates.upscaling import Upscaling
from ...images import normalize
from .cross_attention import add_attention_to_tokens, add_same_attention_to_tokens, gather_from_image, looks_at_image

SIDE = 320
"""Pixels a side of the images that the segmenter is made for."""
WIDTH = 128
WINDOWS = [8, 4, 10, 5]
"""Of the encoder's stages: they divide its grids of 80, 40, 20 and 10 positions, and those of a quarter of an image, so that no
attention goes to padding."""


def segmenter_config() -> DictConfig:
    """The configuration of the demo segmenter: SAM 2.1-tiny's, smaller in every width."""
    whole = OmegaConf.load(Path(sam2.__path__[0]) / "configs/sam2.1/sam2.1_hiera_t.yaml")
    assert isinstance(whole, DictConfig)
    model = whole.model
    model.image_size = SIDE
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    trunk.embed_dim, trunk.stages, trunk.global_att_blocks = 32, [1, 2, 3, 1], [5]
    trunk.window_spec = WINDOWS
    neck.d_model = neck.position_encoding.num_pos_feats = WIDTH
    neck.backbone_channel_list, neck.fpn_top_down_levels = [256, 128, 64, 32], [0, 1, 2, 3]
    attention = model.memory_attention
    attention.d_model, attention.num_layers = WIDTH, 1
    attention.layer.d_model, attention.layer.dim_feedforward = WIDTH, 64
    for block in (attention.layer.self_attention, attention.layer.cross_attention):
        block.embedding_dim, block.feat_sizes = WIDTH, [SIDE // 16, SIDE // 16]
    attention.layer.cross_attention.kv_in_dim = 16
    memory = model.memory_encoder
    memory.out_dim = memory.position_encoding.num_pos_feats = 16
    memory.in_dim = memory.mask_downsampler.embed_dim = memory.fuser.layer.dim = WIDTH
    memory.fuser.num_layers = 1
    return OmegaConf.create({"model": model})


def build_segmenter(weights: Path | None = None) -> Any:
    """The demo segmenter, with the weights of a file, or random ones with tied positions."""
    model = instantiate(segmenter_config().model, _recursive_=True)
    if weights is None:
        tie_positions(model)
    else:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return model


@torch.no_grad()
def tie_positions(model: Any, gain: float = 1.5) -> None:
    """Let clicks look at their own place from the start: the keys of the cross attentions begin as copies of the queries.

    A click and the image carry the same positional code. With equal projections their product is largest where the click is,
    which the decoder otherwise needs a thousand steps to find out.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight *= gain
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def save_segmenter(model: nn.Module, folder: Path) -> None:
    """Write `sam2.yaml` and `sam2.safetensors`, half precision, the layout the `demo` preset reads."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(segmenter_config(), folder / "sam2.yaml")
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "sam2.safetensors")


@dataclass(frozen=True)
class Features:
    """A batch of images, encoded.

    Attributes:
        coarse: (B, C, S/16, S/16).
        fine: (B, c₂, S/4, S/4) and (B, c₁, S/8, S/8), projected for the decoder.
        finest: (B, C, S/4, S/4), of the encoder.
        corner: x and y of the images' upper left pixel in a whole one of SIDE pixels a side.
    """

    coarse: Tensor
    fine: tuple[Tensor, Tensor]
    finest: Tensor
    corner: tuple[int, int] = (0, 0)


def encode(model: Any, images: Tensor, corner: tuple[int, int] = (0, 0)) -> Features:
    """Features of (B, 3, S, S) float images in [0, 1].

    Args:
        model: the segmenter.
        images: whole, or quarters of S = SIDE / 2.
        corner: see Features; a quarter's place in the whole tells the positional codes that it gets.
    """
    trunk, (left, top), cells = model.image_encoder.trunk, corner, images.shape[-1] // 4
    whole = trunk._get_pos_embed((SIDE // 4, SIDE // 4))
    own = whole[:, top // 4 : top // 4 + cells, left // 4 : left // 4 + cells]
    trunk._get_pos_embed = lambda _: own
    try:
        levels = model.image_encoder(normalize(images))["backbone_fpn"]
    finally:
        del trunk._get_pos_embed
    decoder = model.sam_mask_decoder
    coarse = levels[2] + model.no_mem_embed.reshape(1, -1, 1, 1)
    return Features(coarse, (decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])), levels[0], corner)


@dataclass(frozen=True)
class Answers:
    """The decoder's answers to P prompts: K masks each, three to a click and one to a box.

    Attributes:
        logits: (P, K, (S/4)²), in the order of `cells`.
        iou: (P, K) predicted.
        tokens: (P, K, C) of the masks.
        looks: for each attention to the image, (P, T, (S/16)²) shares of each token's look, T the decoder's own tokens first.
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    looks: tuple[Tensor, ...]


def decode(model: Any, features: Features, row: int, points: Tensor) -> Answers:
    """Answers to prompts on one image of the batch, with gradients, in the arithmetic of `refseg.candidates.decoding`.

    Args:
        model: the segmenter.
        features: of the batch.
        row: of the image.
        points: xy pixels of the image: clicks (P, 2), or boxes as their two corners (P, 2, 2).
    """
    boxes, side, (left, top) = points.ndim == 3, features.coarse.shape[-1], features.corner
    encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    points = points + torch.tensor(features.corner)
    marks = torch.tensor([[2, 3]] if boxes else [[1]], dtype=torch.int).expand(len(points), -1)
    sparse, _ = encoder(points=(points if boxes else points[:, None], marks), boxes=None, masks=None)
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    prompts = torch.cat([own.expand(len(points), -1, -1), sparse], 1)
    whole = encoder.get_dense_pe()[0]
    position = whole[:, top // 16 : top // 16 + side, left // 16 : left // 16 + side].flatten(1).T
    coarse = features.coarse[row] + encoder.no_mask_embed.weight[0, :, None, None]
    tokens, image, looks = _transform(decoder.transformer, prompts, coarse.flatten(1).T, position)

    used = slice(0, 1) if boxes else slice(1, 4)
    masks = tokens[:, 2:6][:, used]
    layers = decoder.output_hypernetworks_mlps[used]
    weights = torch.stack([layer(masks[:, number]) for number, layer in enumerate(layers)], 2)
    upscaling = Upscaling(decoder.output_upscaling)
    cells = upscaling.cells_of(image, *upscaling.fine_terms(features.fine[0][row], features.fine[1][row]))
    iou = decoder.iou_prediction_head(tokens[:, 1])[:, used]
    return Answers(torch.bmm(cells, weights).transpose(1, 2), iou, masks, looks)


def _transform(transformer: Any, prompts: Tensor, image: Tensor, position: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """SAM 2's two-way transformer: (P, T, C) tokens, (P, L, C) images and looks of (P, T, C) prompts on one (L, C) image."""
    heads = transformer.num_heads

    def positional(projection: Any) -> Tensor:
        return split_heads(position @ projection.weight.T, heads)

    looks = []
    first, second = transformer.layers
    tokens = first.norm1(first.self_attn(q=prompts, k=prompts, v=prompts))
    repeated = image.expand(len(prompts), -1, -1)
    attention = first.cross_attn_token_to_image
    looks.append(looks_at_image(attention, tokens + prompts, repeated, positional(attention.k_proj)))
    tokens = first.norm2(tokens + gather_from_image(attention, looks[-1], repeated))
    tokens = first.norm3(tokens + first.mlp(tokens))
    attention = first.cross_attn_image_to_token
    queries = split_heads(attention.q_proj(image + position), heads)
    own = add_same_attention_to_tokens(attention, tokens + prompts, tokens, image + attention.out_proj.bias, queries)
    own = first.norm4(own)

    positioned = tokens + prompts
    tokens = second.norm1(tokens + second.self_attn(q=positioned, k=positioned, v=tokens))
    attention = second.cross_attn_token_to_image
    looks.append(looks_at_image(attention, tokens + prompts, own, positional(attention.k_proj)))
    tokens = second.norm2(tokens + gather_from_image(attention, looks[-1], own))
    tokens = second.norm3(tokens + second.mlp(tokens))
    attention = second.cross_attn_image_to_token
    queries = split_heads(attention.q_proj(position), heads)
    own = add_attention_to_tokens(attention, tokens + prompts, tokens, own, queries)
    own = second.norm4(own + attention.out_proj.bias)

    attention = transformer.final_attn_token_to_image
    looks.append(looks_at_image(attention, tokens + prompts, own, positional(attention.k_proj)))
    tokens = transformer.norm_final_attn(tokens + gather_from_image(attention, looks[-1], own))
    return tokens, own, tuple(look.mean(1) for look in looks)


def cells(grid: Tensor) -> Tensor:
    """(P, (S/4)²) cells of (P, S/4, S/4) maps: position by position of the coarse grid, 16 of each, in the decoder's order."""
    coarse = grid.shape[-1] // 4
    split = grid.unflatten(2, (coarse, 2, 2)).unflatten(1, (coarse, 2, 2))
    in_order: Tensor = split.permute(0, 1, 4, 2, 5, 3, 6).flatten(1)
    return in_order


def grid(cells: Tensor) -> Tensor:
    """(P, S/4, S/4) maps of (P, (S/4)²) cells."""
    coarse = round((cells.shape[1] // 16) ** 0.5)
    split = cells.reshape(-1, coarse, coarse, 2, 2, 2, 2)
    return split.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * coarse, 4 * coarse)
