"""Train the demo encoder by contrast: a small DINOv2, `transformers`' own class, from nothing or from weights that are there.

It learns what the method will ask of it. Each family is pooled from a whole scene and from another scene, and for some families
both instances are looked at again as crops, half of these with everything but the object erased. Scenes must agree with
scenes, with crops (references are shown so), and crops with crops (a second look), and all differ from every other family of
the step (look-alikes in the same tray among them) and from stretches of empty tray. Every step exchanges colour channels. The
weights that are kept are a running mean.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from ...images import normalize
from ..pool import Pool
from .encoder_scenes import PATCH, Place, draw_crops, draw_step
from .measures import CROP_SIDE, SCENE_SIDE, measure_encoder, rounded
from .state import Average, TrainingState, cosine_rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shapes:
    """What a step shows.

    Attributes:
        scenes: pixels a side of the scenes, one of these by chance.
        crop: of the crops.
        pairs: of scenes.
        crops: families that are cropped, at most.
    """

    scenes: tuple[int, ...]
    crop: int
    pairs: int
    crops: int


SMALL = Shapes(scenes=(224, 308), crop=154, pairs=4, crops=20)
LARGE = Shapes(scenes=(308, SCENE_SIDE), crop=CROP_SIDE, pairs=4, crops=14)
LARGE_SHARE = 0.4
"""Of a run, the last part, which shows scenes at the side that the model is asked at; a small step is half the work."""
RICH_SHARE = 0.25
"""Of the steps, those on pairs of the rich pool."""
CROP_WEIGHT = 1.5
TEMPERATURE = 0.1


def build_encoder(weights: Path | None = None) -> Dinov2Model:
    """The demo encoder, with the weights of a `save_pretrained` folder or random ones."""
    if weights is not None:
        return Dinov2Model.from_pretrained(weights, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True)
    config = Dinov2Config(
        hidden_size=160,
        num_hidden_layers=6,
        num_attention_heads=5,
        mlp_ratio=3,
        image_size=224,
        patch_size=PATCH,
    )
    config._attn_implementation = "sdpa"
    return Dinov2Model(config)


def patch_features(model: nn.Module, pictures: list[NDArray[np.uint8]]) -> Tensor:
    """(B, patches, C) patch tokens of (S, S, 3) uint8 pictures."""
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    tokens: Tensor = model(normalize(images)).last_hidden_state
    return tokens[:, 1:]


def pool_places(features: Tensor, places: list[Place]) -> Tensor:
    """(N, C) unit vectors: the weighted mean of (B, patches, C) features at each place."""
    share = torch.from_numpy(np.stack([weights for _, weights in places]))
    share = share / share.sum(1, keepdim=True)
    return F.normalize(torch.einsum("np,npc->nc", share, features[[row for row, _ in places]]), dim=-1)


def contrast(
    scene: Tensor, shown: Tensor, tray: Tensor, scale: Tensor, offset: Tensor, families: Tensor | None = None
) -> Tensor:
    """InfoNCE in both directions plus a sigmoid loss that gives the similarity one meaning across images.

    Args:
        scene: (N, C) unit vectors of objects pooled from scenes.
        shown: (Q, C) of other instances of some of the families.
        tray: (T, C) of empty tray.
        scale: log of the sigmoid's slope.
        offset: the sigmoid's offset.
        families: (Q,) row in scene of each shown instance; None where they are the same rows.
    """
    target = torch.arange(len(scene)) if families is None else families
    similarity = shown @ scene.T  # (Q, N)
    against = torch.cat([similarity, shown @ tray.T], 1)
    columns = torch.arange(len(shown))
    info = F.cross_entropy(similarity.T[target] / TEMPERATURE, columns) + F.cross_entropy(against / TEMPERATURE, target)
    logits = against * scale.exp() + offset
    same = torch.zeros_like(logits)
    same[columns, target] = 1
    weight = torch.where(same > 0, float(len(scene)) / 3, 1.0)
    return info / 2 + F.binary_cross_entropy_with_logits(logits, same, weight=weight)


def step_loss(
    rng: np.random.Generator, model: nn.Module, slope: nn.ParameterDict, pool: Pool, shapes: Shapes = SMALL
) -> Tensor:
    """Loss of one step on pairs of a pool."""
    pairs = rng.choice(len(pool.images), min(shapes.pairs, len(pool.images)), replace=False).tolist()
    step = draw_step(rng, pool, pairs, int(rng.choice(shapes.scenes)))
    crops = draw_crops(rng, pool, step, shapes.crops, shapes.crop)
    features = patch_features(model, step.scenes)
    first, second, tray = (pool_places(features, places) for places in (step.first, step.second, step.tray))
    pictures = [crop.picture for which in range(2) for crop in (pair[which] for pair in crops.of)]
    cropped = patch_features(model, pictures)
    number = len(crops.of)
    ones, others = (
        pool_places(cropped, [(which * number + row, pair[which].weights) for row, pair in enumerate(crops.of)])
        for which in range(2)
    )
    scale, offset = slope["scale"], slope["offset"]
    loss = contrast(first, second, tray, scale, offset)
    loss = loss + contrast(first, others, tray, scale, offset, torch.tensor(crops.families))
    return loss + CROP_WEIGHT * contrast(ones, others, tray, scale, offset)


def train_encoder(
    state_path: Path,
    pools: Mapping[str, Pool],
    held_out: Pool,
    num_steps: int,
    *,
    weights: Path | None = None,
    rate: float = 4e-4,
    seed: int = 3,
    every: int = 500,
    save_in: Path | None = None,
) -> nn.Module:
    """Train to num_steps, going on from the state at state_path where there is one; see `train_segmenter`."""
    torch.manual_seed(seed)
    model = build_encoder(weights)
    slope = nn.ParameterDict({"scale": torch.tensor(2.0), "offset": torch.tensor(-4.0)})
    parameters = [*model.parameters(), *slope.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    average = Average(model)
    state = TrainingState(state_path, {"model": model, "slope": slope, "average": average.model}, optimizer)
    step = state.load()
    if not step:
        logger.info("step 0 novel part types %s", rounded(measure_encoder(average.model, held_out)))
    model.train()
    losses: list[Any] = []
    while step < num_steps:
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(rate, step, num_steps, warm_up=100)
        name = "rich" if "rich" in pools and rng.random() < RICH_SHARE else "plain"
        shapes = LARGE if step >= (1 - LARGE_SHARE) * num_steps else SMALL
        loss = step_loss(rng, model, slope, pools[name], shapes)
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(parameters, 1.0)):
                optimizer.step()
        average.update(model, step)
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            logger.info("step %d loss %.3f %s", step, np.mean(losses), state.clock())
            losses.clear()
        if step % every == 0 or step == num_steps:
            state.save(step)
            if save_in is not None:
                save_encoder(average.model, save_in)
            logger.info("step %d novel part types %s", step, rounded(measure_encoder(average.model, held_out)))
    return average.model


def save_encoder(model: Any, folder: Path) -> None:
    """Write a `save_pretrained` folder, half precision, the layout the `demo` preset reads."""
    import copy

    copy.deepcopy(model).half().save_pretrained(folder / "dinov2")
