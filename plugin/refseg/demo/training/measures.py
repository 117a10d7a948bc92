"""How good the demo models are on novel part types, which neither was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import nms

from ...candidates import grid_boxes
from ...candidates.decoding import keep_voted, least_predicted_iou
from ...models import PRESETS
from ..pool import Pool
from .encoder_scenes import Place, draw_crops, draw_step
from .segmenter_model import SIDE, decode, encode, grid

SCENE_SIDE = PRESETS["demo"].encoder_side
"""Pixels a side at which the encoder is asked."""
CROP_SIDE = SCENE_SIDE // 2
"""Pixels a side of a second look's crop: a quarter of a scene's work, and it tells as much."""
FAMILIES_AT_ONCE = 42
PAIRS_AT_ONCE = 6
STRANGERS = 6
PROMPTS_AT_ONCE = 64
NMS_IOU = 0.5


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To three digits."""
    return {name: round(value, 3) for name, value in figures.items()}


@torch.inference_mode()
def measure_segmenter(model: Any, pool: Pool, per_side: int = 16, side: int = SIDE) -> dict[str, float]:
    """Recall and quality on a pool's first scenes, from a grid of clicks whose masks vote, as those of the preset do.

    Returns:
        `best_iou`, the mean over objects of the best mask's IoU; `recall_50` and `recall_75`, the share of objects with a mask
        of that IoU; `left_iou` and `left_75`, the same of the masks that an NMS by predicted IoU leaves; `rank_correlation` of
        predicted and measured IoU over the masks of clicks on objects, and over all masks (`rank_correlation_all`), where a
        mask's IoU is that with the object it fits best; `kept_on_tray`, the share of masks whose click lies beside all objects;
        `masks`, their number a scene.
    """
    line = torch.linspace(0, side - 1, per_side)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    best: list[float] = []
    left: list[float] = []
    own: list[Tensor] = []
    predicted: list[Tensor] = []
    on_object: list[Tensor] = []
    for image, ids in zip(pool.images[:40, 0], pool.ids[:40, 0], strict=True):
        masks, score, at = _answers(model, image, points, side)
        labels = torch.from_numpy(np.array(Image.fromarray(ids).resize((side, side), Image.Resampling.NEAREST)))
        numbers = [int(number) for number in labels.unique() if number > 0 and int((labels == number).sum()) > 100]
        overlap = torch.stack([_overlap(masks, labels == number) for number in numbers], 1)  # (N, objects)
        best += [float(column.max()) if len(column) else 0.0 for column in overlap.T]
        apart = nms(grid_boxes(masks), score, NMS_IOU)
        left += [float(column[apart].max()) if len(apart) else 0.0 for column in overlap.T]
        owner = labels[at[:, 1].long(), at[:, 0].long()]
        mine = torch.stack([overlap[:, column] * (owner == number) for column, number in enumerate(numbers)], 1).sum(1)
        own.append(torch.where(owner > 0, mine, overlap.amax(1)))
        predicted.append(score)
        on_object.append(owner > 0)
    overlaps, after_nms, measured, told, on = (
        np.array(best),
        np.array(left),
        torch.cat(own).numpy(),
        torch.cat(predicted).numpy(),
        torch.cat(on_object).numpy(),
    )
    return {
        "best_iou": float(overlaps.mean()),
        "recall_50": float((overlaps > 0.5).mean()),
        "recall_75": float((overlaps > 0.75).mean()),
        "left_iou": float(after_nms.mean()),
        "left_75": float((after_nms > 0.75).mean()),
        "rank_correlation": _rank_correlation(measured[on], told[on]),
        "rank_correlation_all": _rank_correlation(measured, told),
        "kept_on_tray": float(1 - on.mean()) if len(on) else 0.0,
        "masks": len(on) / len(pool.images[:40]),
    }


def _answers(model: Any, image: Any, points: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, S, S) bool masks, (N,) predicted IoU and (N, 2) clicks of the best answer to each click that is kept."""
    picture = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    features = encode(model, torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
    logits, scores, at = [], [], []
    for some in points.split(PROMPTS_AT_ONCE):
        answers = decode(model, features, 0, some)
        score, which = answers.iou.max(1)
        keep = score > least_predicted_iou(PRESETS["demo"])
        logits.append(grid(answers.logits[torch.arange(len(which)), which][keep]))
        scores.append(score[keep])
        at.append(some[keep])
    voted, trusted, kept = keep_voted(torch.cat(logits), torch.cat(scores))
    masks = F.interpolate(voted[:, None], size=(side, side), mode="bilinear")[:, 0] > 0
    filled = masks.flatten(1).any(1)
    return masks[filled], trusted[filled], torch.cat(at)[kept][filled]


def _overlap(masks: Tensor, truth: Tensor) -> Tensor:
    return (masks & truth).sum((1, 2)) / ((masks | truth).sum((1, 2)) + 1e-6)


def _rank_correlation(first: Any, second: Any) -> float:
    if len(first) < 3:
        return 0.0
    return float(np.corrcoef(np.argsort(np.argsort(first)), np.argsort(np.argsort(second)))[0, 1])


@torch.inference_mode()
def measure_encoder(model: Any, pool: Pool, seed: int = 5) -> dict[str, float]:
    """How well objects of a pool's scenes are told apart, one reference each, shown as a crop.

    Returns:
        For the first look, an object pooled from its scene, and for the second look, the object cropped and what is beside it
        erased: `…_accuracy`, how often it is most like its own family of 42 of six trays; `…_auc`, how often its likeness to
        its own family is above that of another object to six strangers.
    """
    from .encoder import patch_features, pool_places

    rng = np.random.default_rng(seed)
    found: dict[str, tuple[list[bool], list[float], list[float]]] = {"first": ([], [], []), "second": ([], [], [])}
    for start in range(0, len(pool.images) - PAIRS_AT_ONCE + 1, PAIRS_AT_ONCE):
        pairs = list(range(start, start + PAIRS_AT_ONCE))
        step = draw_step(rng, pool, pairs, SCENE_SIDE, augment=False)
        crops = draw_crops(rng, pool, step, FAMILIES_AT_ONCE, SCENE_SIDE, augment=False, erased=False)
        shown = pool_places(patch_features(model, [b.picture for _, b in crops.of]), _places(crops.of, 1))
        scenes = patch_features(model, step.scenes)
        first = pool_places(scenes, [step.first[family] for family in crops.families])
        _count(first @ shown.T, found["first"])
        erased = draw_crops(rng, pool, step, FAMILIES_AT_ONCE, CROP_SIDE, augment=False, erased=True)
        both = [
            pool_places(patch_features(model, [pair[which].picture for pair in erased.of]), _places(erased.of, which))
            for which in range(2)
        ]
        _count(both[0] @ both[1].T, found["second"])
    figures: dict[str, float] = {}
    for name, (right, positive, negative) in found.items():
        wins = np.array(positive)[:, None] > np.array(negative)[None]
        figures |= {f"{name}_accuracy": float(np.mean(right)), f"{name}_auc": float(wins.mean())}
    return figures


def _places(crops: Any, which: int) -> list[Place]:
    return [(row, pair[which].weights) for row, pair in enumerate(crops)]


def _count(similarity: Tensor, found: tuple[list[bool], list[float], list[float]]) -> None:
    """Take in (N, N) similarities of objects with families in the same order."""
    right, positive, negative = found
    right += (similarity.argmax(1) == torch.arange(len(similarity))).tolist()
    positive += similarity.diagonal().tolist()
    for row, own in enumerate(similarity):  # a stranger: its best similarity when its own family is not on offer
        others = torch.cat([own[:row], own[row + 1 :]])
        keep = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(row))[:STRANGERS]]
        negative.append(float(keep.max()))
