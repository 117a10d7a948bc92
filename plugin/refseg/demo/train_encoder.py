"""Train the demo encoder from nothing: a small DINOv2, `transformers`' own class, by contrast.

It learns what the method will ask of it. Each family is pooled from a whole scene, from another scene, and, for some, from a
zoomed crop of that other instance; these must agree, and differ from every other family of the step (look-alikes in the same
tray among them) and from stretches of empty tray. Every step draws other scenes and exchanges their colour channels, so
families hardly ever come back. About two seconds a step on one core.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from .pool import Pool
from .train_state import TrainingState, cosine_rate

logger = logging.getLogger(__name__)

SIDE = 224
PATCHES = SIDE // 14
PAIRS_A_STEP = 8
MAX_CROPS = 12
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def build_encoder() -> Dinov2Model:
    """The demo encoder with random weights."""
    config = Dinov2Config(
        hidden_size=160,
        num_hidden_layers=6,
        num_attention_heads=5,
        mlp_ratio=3,
        image_size=SIDE,
        patch_size=14,
    )
    config._attn_implementation = "sdpa"
    return Dinov2Model(config)


def _patch_weights(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(PATCHES²,) share of each patch that a (SIDE, SIDE) mask covers."""
    cells = mask.reshape(PATCHES, 14, PATCHES, 14).mean((1, 3), dtype=np.float32)
    return np.asarray(cells.reshape(-1))


def _resized(image: Image.Image, mask: Image.Image, box: tuple[int, int, int, int]) -> tuple[Any, Any]:
    picture = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))
    cover = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)) > 127
    return picture, cover


def _zoom_box(mask: NDArray[np.bool_], margin: float) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    half = max(np.ptp(ys), np.ptp(xs)) * margin / 2 + 1
    cy, cx = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2
    height, width = mask.shape
    x0, y0 = max(0, int(cx - half)), max(0, int(cy - half))
    return x0, y0, min(width, int(cx + half) + 1), min(height, int(cy + half) + 1)


def _sloppy(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask as a segmenter might draw it: in half of the cases two pixels too small or too large."""
    chance = rng.random()
    if chance >= 0.5:
        return mask
    shifted = [np.roll(mask, shift, axis) for shift in (-2, 2) for axis in (0, 1)]
    if chance < 0.25:
        return np.asarray(np.logical_or.reduce([mask, *shifted]))
    smaller = np.logical_and.reduce([mask, *shifted])
    return np.asarray(smaller) if smaller.sum() > 100 else mask


def _tray_mask(rng: np.random.Generator, labels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """A disc of empty tray on (SIDE, SIDE) labels, or None where it would show too little of it."""
    y, x = np.ogrid[:SIDE, :SIDE]
    r = rng.uniform(10, 30)
    disc = (y - rng.uniform(0, SIDE)) ** 2 + (x - rng.uniform(0, SIDE)) ** 2 < r * r
    free = disc & (labels == 0)
    return free if free.sum() > 150 else None


@dataclass
class Step:
    """One step's pictures and where its families are on them.

    Attributes:
        scenes: (SIDE, SIDE, 3) pictures.
        first: for each family the scene it is pooled from, and its patch weights there.
        second: the same for its instance in the other scene of the pair.
        tray: the same for stretches of empty tray.
        crops: zoomed crops of some families' second instance.
        cropped: for each crop its family, and its patch weights on the crop.
    """

    scenes: list[Any] = field(default_factory=list)
    first: list[tuple[int, Any]] = field(default_factory=list)
    second: list[tuple[int, Any]] = field(default_factory=list)
    tray: list[tuple[int, Any]] = field(default_factory=list)
    crops: list[Any] = field(default_factory=list)
    cropped: list[tuple[int, Any]] = field(default_factory=list)


def _frame(rng: np.random.Generator, height: int, width: int, augment: bool) -> tuple[int, int, int, int]:
    if not augment or rng.random() < 0.4:
        return 0, 0, width, height
    w, h = int(width * rng.uniform(0.55, 1)), int(height * rng.uniform(0.55, 1))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return x, y, x + w, y + h


def _draw_step(rng: np.random.Generator, pool: Pool, pairs: list[int], num_crops: int, *, augment: bool = True) -> Step:
    """Scenes of some pairs, crops of some of their objects, and the patch weights of every object on both."""
    step = Step()
    share = -(-num_crops // len(pairs))
    for pair in pairs:
        order = [0, 1] if rng.random() < 0.5 else [1, 0]
        channels = rng.permutation(3) if augment else np.arange(3)
        images = [Image.fromarray(np.ascontiguousarray(i[..., channels])) for i in pool.images[pair][order]]
        ids = list(pool.ids[pair][order])
        height, width = ids[0].shape
        frames = [_frame(rng, height, width, augment) for _ in range(2)]
        number = len(step.scenes)
        labels = [
            np.asarray(Image.fromarray(own).resize((SIDE, SIDE), Image.Resampling.NEAREST, frame))
            for own, frame in zip(ids, frames, strict=True)
        ]
        step.scenes += [
            np.asarray(i.resize((SIDE, SIDE), Image.Resampling.BICUBIC, f)) for i, f in zip(images, frames, strict=True)
        ]
        cropped = 0
        for family in rng.permutation(np.arange(1, 8)).tolist():
            covers = [own == family for own in labels]
            if min(cover.sum() for cover in covers) < 150:
                continue
            if augment:
                covers = [_sloppy(rng, cover) for cover in covers]
            step.first.append((number, _patch_weights(covers[0])))
            step.second.append((number + 1, _patch_weights(covers[1])))
            if cropped < share and len(step.crops) < num_crops:
                cropped += 1
                box = _zoom_box(ids[1] == family, rng.uniform(1.1, 1.35) if augment else 1.2)
                crop, crop_cover = _resized(images[1], Image.fromarray(((ids[1] == family) * 255).astype(np.uint8)), box)
                turns = int(rng.integers(4)) if augment else 0
                step.crops.append(np.rot90(crop, turns))
                step.cropped.append((len(step.first) - 1, _patch_weights(np.rot90(crop_cover, turns))))
        for which in range(2):
            tray = _tray_mask(rng, labels[which])
            if tray is not None:
                step.tray.append((number + which, _patch_weights(tray)))
    return step


def patch_features(model: nn.Module, pictures: list[NDArray[np.uint8]]) -> Tensor:
    """(B, PATCHES², C) patch tokens of (SIDE, SIDE, 3) uint8 pictures."""
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    tokens: Tensor = model((images - MEAN) / STD).last_hidden_state
    return tokens[:, 1:]


def _pool(features: Tensor, places: list[tuple[int, Any]]) -> Tensor:
    """(N, C) unit vectors: for each place, a picture's row and patch weights, the weighted mean of (B, P, C) features."""
    rows = [row for row, _ in places]
    share = torch.from_numpy(np.stack([weights for _, weights in places]))
    share = share / share.sum(1, keepdim=True)
    return F.normalize(torch.einsum("np,npc->nc", share, features[rows]), dim=-1)


def _pool_crops(features: Tensor, step: Step) -> Tensor:
    return _pool(features, [(row, weights) for row, (_, weights) in enumerate(step.cropped)])


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
    info = F.cross_entropy(similarity.T[target] / 0.1, columns) + F.cross_entropy(against / 0.1, target)
    logits = against * scale.exp() + offset
    same = torch.zeros_like(logits)
    same[columns, target] = 1
    weight = torch.where(same > 0, float(len(scene)) / 3, 1.0)
    return info / 2 + F.binary_cross_entropy_with_logits(logits, same, weight=weight)


@torch.inference_mode()
def measure_encoder(model: nn.Module, pool: Pool, seed: int = 5) -> dict[str, float]:
    """How well objects of a pool's scenes are told apart: against all families of six trays, and against strangers."""
    rng = np.random.default_rng(seed)
    right, positive, negative = [], [], []
    for start in range(0, len(pool.images) - 5, 6):
        step = _draw_step(rng, pool, list(range(start, start + 6)), 42, augment=False)
        scene = _pool(patch_features(model, step.scenes), [step.first[family] for family, _ in step.cropped])
        crop = _pool_crops(patch_features(model, step.crops), step)
        similarity = scene @ crop.T
        right += (similarity.argmax(1) == torch.arange(len(scene))).tolist()
        positive += similarity.diagonal().tolist()
        for row in range(len(scene)):  # a stranger: the object's best similarity when its own family is not on offer
            others = torch.cat([similarity[row, :row], similarity[row, row + 1 :]])
            keep = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(row))[:6]]
            negative.append(float(keep.max()))
    wins = np.array(positive)[:, None] > np.array(negative)[None]
    return {"one_shot_accuracy": float(np.mean(right)), "stranger_auc": float(wins.mean())}


def train_encoder(state_path: Path, pool: Pool, held_out: Pool, num_steps: int, *, rate: float = 1e-3) -> Dinov2Model:
    """Train to num_steps, going on from the state at state_path where there is one; logs to the module's logger."""
    torch.manual_seed(0)
    model = build_encoder()
    slope = nn.ParameterDict({"scale": torch.tensor(2.0), "offset": torch.tensor(-4.0)})
    weights = [*model.parameters(), *slope.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.05)
    state = TrainingState(state_path, {"model": model, "slope": slope}, optimizer)
    step = state.load()
    if not step:
        logger.info("step 0 novel part types %s", measure_encoder(model.eval(), held_out))
    model.train()
    losses: list[float] = []
    while step < num_steps:
        rng = np.random.default_rng((2, step))
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(rate, step, num_steps, warm_up=50)
        drawn = _draw_step(rng, pool, rng.choice(len(pool.images), PAIRS_A_STEP, replace=False).tolist(), MAX_CROPS)
        features = patch_features(model, drawn.scenes)
        first, second, tray = (_pool(features, places) for places in (drawn.first, drawn.second, drawn.tray))
        crops = _pool_crops(patch_features(model, drawn.crops), drawn)
        zoomed = [family for family, _ in drawn.cropped]
        loss = contrast(first, second, tray, slope["scale"], slope["offset"])
        loss = loss + contrast(first, crops, tray, slope["scale"], slope["offset"], torch.tensor(zoomed))
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
                optimizer.step()
        losses.append(loss.item())
        step += 1
        if step % 50 == 0:
            logger.info("step %d loss %.3f %s", step, np.mean(losses), state.clock())
            losses.clear()
        if step % 200 == 0 or step == num_steps:
            state.save(step)
            figures = measure_encoder(model.eval(), held_out)
            logger.info("step %d novel part types %s", step, {k: round(v, 3) for k, v in figures.items()})
            model.train()
    model.eval()
    return model


def save_encoder(model: Dinov2Model, folder: Path) -> None:
    """Write a `save_pretrained` folder, half precision, the layout the `demo` preset reads."""
    model.half().save_pretrained(folder / "dinov2")
