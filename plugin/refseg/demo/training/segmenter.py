"""Train the demo segmenter on drawn scenes, from nothing or from weights that are there.

Clicks fall on every pixel of an object and, in some pictures, beside all objects; boxes are drawn a little off the object. The
best of the three masks takes the loss with a share of the mean; the predicted IoU learns the measured one. Two more losses get
a model off the ground that begins with nothing: a dense one at stride 4 (foreground, and an embedding that tells instances
apart), and one on the decoder's tokens, which are asked where their prompt is and what embedding its object has, and are told
to look at that object. Without the second the masks ignored the clicks for more than a thousand steps. The first quarter
of the steps shows quarters of pictures, more of them at once, the rest whole ones. The weights kept are a running mean.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pool import Pool
from .measures import measure_segmenter, rounded
from .segmenter_losses import EMBEDDING, dense_loss, gaze_loss, mask_loss, token_loss
from .segmenter_model import SIDE, WIDTH, Answers, build_segmenter, cells, decode, encode, save_segmenter
from .segmenter_scenes import Shown, covered, draw_shown
from .state import Average, TrainingState, cosine_rate

logger = logging.getLogger(__name__)

QUARTERS_A_STEP, IMAGES_A_STEP = 8, 3
WHOLE_SHARE = 0.75
"""Of a run, the last part, in which the model sees whole pictures."""


class Auxiliary(nn.Module):
    """Heads for the losses that only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(WIDTH, EMBEDDING + 1, 1)
        self.tokens = nn.Linear(WIDTH, EMBEDDING + 2)


def step_loss(
    model: Any, auxiliary: Auxiliary, batch: list[Shown], gaze: float, corner: tuple[int, int] = (0, 0)
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Loss of a step, and the mean IoU of the chosen and of the best mask of each picture's clicks."""
    images = torch.from_numpy(np.stack([shown.picture for shown in batch])).permute(0, 3, 1, 2).float() / 255
    side = images.shape[-1]
    features = encode(model, images, corner)
    maps = auxiliary.dense(features.finest)
    labels = torch.stack([shown.labels for shown in batch])
    loss = dense_loss(maps, labels[:, 2::4, 2::4].long())
    embedding = F.normalize(maps[:, :EMBEDDING], dim=1)
    measured = []
    for row, shown in enumerate(batch):
        owners = cells(shown.labels[None, 2::4, 2::4])[0]
        numbers = owners.unique()
        objects = owners == numbers[numbers > 0, None]
        own_embedding = cells(embedding[row])
        clicks = decode(model, features, row, shown.points)
        target = cells(covered(shown.labels, shown.clicked))
        own_loss, iou = mask_loss(clicks.logits, clicks.iou, target, shown.clicked, objects)
        on = shown.clicked > 0
        some = Answers(clicks.logits[on], clicks.iou[on], clicks.tokens[on], tuple(look[on] for look in clicks.looks))
        own_loss = own_loss + _told(auxiliary, some, shown.points[on] / side, own_embedding, target[on], gaze)
        boxes = decode(model, features, row, shown.corners)
        box_target = cells(covered(shown.labels, shown.boxed))
        box_loss, _ = mask_loss(boxes.logits, boxes.iou, box_target, shown.boxed, objects)
        box_loss = box_loss + _told(auxiliary, boxes, shown.corners.mean(1) / side, own_embedding, box_target, gaze)
        loss = loss + (own_loss + 0.4 * box_loss) / len(batch)
        chosen = iou[on].gather(1, some.iou.argmax(1, keepdim=True))
        measured.append((chosen.mean().item(), iou[on].max(1).values.mean().item()))
    return loss, measured


def _told(auxiliary: Auxiliary, answers: Answers, points: Tensor, embedding: Tensor, target: Tensor, gaze: float) -> Tensor:
    told = 0.5 * token_loss(auxiliary.tokens(answers.tokens), points, embedding, target)
    return told + gaze * gaze_loss(answers.looks, target) if gaze else told


def train_segmenter(
    state_path: Path,
    pools: Mapping[str, Pool],
    held_out: Pool,
    num_steps: int,
    *,
    weights: Path | None = None,
    rate: float = 5e-4,
    seed: int = 1,
    every: int = 500,
    save_in: Path | None = None,
) -> nn.Module:
    """Train to num_steps, going on from the state at state_path where there is one; logs to the module's logger.

    Args:
        state_path: everything a stopped run needs to go on.
        pools: by name; see `refseg.demo.pool`.
        held_out: novel types, measured on, never trained on.
        num_steps: at which the rate has come down.
        weights: to begin with; None for nothing.
        rate: the highest learning rate.
        seed: of what the steps show.
        every: steps between saves and measurements.
        save_in: folder for the running mean's weights at each save; None for none.

    Returns:
        The running mean of the weights.
    """
    torch.manual_seed(seed)
    model, auxiliary = build_segmenter(weights), Auxiliary()
    parameters = [*model.parameters(), *auxiliary.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    average = Average(model)
    state = TrainingState(state_path, {"model": model, "auxiliary": auxiliary, "average": average.model}, optimizer)
    step = state.load()
    if not step:
        logger.info("step 0 novel part types %s", rounded(measure_segmenter(average.model, held_out)))
    recent: list[Any] = []
    while step < num_steps:
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(step)
        whole = step >= (1 - WHOLE_SHARE) * num_steps
        side, number = (SIDE, IMAGES_A_STEP) if whole else (SIDE // 2, QUARTERS_A_STEP)
        corner = (0, 0) if whole else (int(rng.integers(2)) * side, int(rng.integers(2)) * side)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(rate, step, num_steps, warm_up=100)
        gaze = 0.5 if weights is None and not whole else 0.0
        batch = [draw_shown(rng, pools, side) for _ in range(number)]
        loss, measured = step_loss(model, auxiliary, batch, gaze, corner)
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(parameters, 1.0)):
                optimizer.step()
        average.update(model, step)
        recent += measured
        step += 1
        if step % 100 == 0:
            logger.info(
                "step %d side %d loss %.3f iou %.3f best of three %.3f %s",
                *(step, side, loss.item(), *np.mean(recent, 0), state.clock()),
            )
            recent.clear()
        if step % every == 0 or step == num_steps:
            state.save(step)
            if save_in is not None:
                save_segmenter(average.model, save_in)
            logger.info("step %d novel part types %s", step, rounded(measure_segmenter(average.model, held_out)))
    return average.model
