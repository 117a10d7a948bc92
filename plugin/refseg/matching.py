"""From candidates and prototypes to scored, labelled instances (method.md, stage C): pure tensor functions.

Takes about a millisecond an image. Memory: the merge multiplies up to 8 × max_detections masks with each other; on the mask
grid that is 0.2 GB, on full-size masks (profile `paper`) it grows with the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from .candidates import Candidates
from .errors import ShapeError

NMS_IOU = 0.5
NMS_KEEPS = 8
"""NMS keeps this many times the detections asked for (method.md C2)."""
PIXELS_A_CHUNK = 1 << 25
"""Upsampled logits held at once, in pixels: 128 MB of float32."""


@dataclass(frozen=True)
class Instances:
    """Scored, labelled masks of one image, best first.

    Attributes:
        masks: n bool tensors (h, w), each the tight crop of its box.
        boxes: (n, 4) int64 xyxy pixels of the original image, far edge excluded.
        labels: (n,) int64, the row of the prototype that won.
        scores: (n,) float32 in [0, 1].
        rows: (n,) int64, the row of each in the candidates.
    """

    masks: tuple[Tensor, ...]
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.masks)


@torch.inference_mode()
def match(
    candidates: Candidates,
    prototypes: Tensor,
    *,
    max_detections: int = 100,
    min_score: float = 0.0,
    as_published: bool = False,
) -> Instances:
    """Label, rank, merge and cut the candidates of one image.

    Args:
        candidates: of one image; none at all is a valid answer.
        prototypes: (K, C) float32, unit length.
        max_detections: the best so many are returned.
        min_score: lower scores are left out.
        as_published: merge on full-size masks instead of on the mask grid, and let masks that resemble no class take part in
            the NMS, where they can push out masks of the first class that do.

    Raises:
        ShapeError: candidates and prototypes differ in width.
    """
    if prototypes.ndim != 2 or prototypes.shape[1] != candidates.features.shape[1]:
        raise ShapeError(
            f"Prototypes of shape {tuple(prototypes.shape)} do not fit candidates with features of width "
            f"{candidates.features.shape[1]}: build them with the same model."
        )
    scores, labels = classify(candidates.features, prototypes)
    masks = candidates.masks
    filled = masks.flatten(1).any(1)
    if not as_published:
        filled = filled & (scores > 0)
    filled = filled.nonzero()[:, 0]
    boxes = grid_boxes(masks[filled])
    keep = batched_nms(boxes, candidates.predicted_iou[filled], labels[filled], NMS_IOU)
    rows = filled[keep[: NMS_KEEPS * max_detections]]
    rows = rows[scores[rows] > 0]
    labels, features = labels[rows], candidates.features[rows]
    merged = _full_size(candidates, rows) if as_published else masks[rows]
    scores = merge_overlaps(merged, features, scores[rows], labels)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= min_score]
    return _crop_instances(candidates, rows[order], labels[order], scores[order], max_detections)


def classify(features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Score and label of each candidate: the best cosine similarity, cut at 0, and its row (method.md C1).

    Args:
        features: (N, C) float32, unit length.
        prototypes: (K, C) float32, unit length.

    Returns:
        (N,) float32 scores in [0, 1] and (N,) int64 labels.
    """
    scores, labels = (features @ prototypes.T).clamp(min=0).max(1)
    return scores, labels


def grid_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 xyxy: smallest and largest pixel index of each mask (N, H, W), which must not be empty.

    Example:
        >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> mask[0, 1:3, 2] = True
        >>> grid_boxes(mask).tolist()
        [[2.0, 1.0, 2.0, 2.0]]
    """
    columns, rows = masks.any(1), masks.any(2)
    width, height = masks.shape[2], masks.shape[1]
    x0, y0 = columns.int().argmax(1), rows.int().argmax(1)
    x1 = width - 1 - columns.flip(1).int().argmax(1)
    y1 = height - 1 - rows.flip(1).int().argmax(1)
    return torch.stack([x0, y0, x1, y1], 1).float()


def merge_overlaps(masks: Tensor, features: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Lower the score of each mask that lies inside better-ranked masks of its label.

    Source: arXiv 2507.02798, soft merging; method.md C4. Memory grows with N².

    Args:
        masks: (N, H, W) bool, best rank first.
        features: (N, C) float32, unit length.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, row of the prototype that won.

    Returns:
        (N,) float32 new scores, same order; empty when N is 0.

    Raises:
        ShapeError: the four arguments disagree on N.
    """
    if not len(masks) == len(features) == len(scores) == len(labels):
        raise ShapeError(
            f"Merging needs one mask, feature, score and label each, but there are {len(masks)}, {len(features)}, "
            f"{len(scores)} and {len(labels)}."
        )
    if len(masks) == 0:
        return scores.clone()
    flat = masks.flatten(1).float()
    inside = (flat @ flat.T) / flat.sum(1).clamp(min=1)[:, None]  # (N, N), share of i that lies in j
    alike = (features @ features.T).clamp(min=0)
    before = torch.ones(len(masks), len(masks), dtype=torch.bool, device=masks.device).tril(-1)
    rivals = before & (labels[:, None] == labels[None])
    decay = (inside * alike * rivals).max(1).values.clamp(0, 1)
    return scores * (1 - decay).sqrt()


def upsample(logits: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool masks at the image's size from (n, M, M) logits: bilinear with antialias, above 0 (method.md C3)."""
    if len(logits) == 0:
        return torch.zeros(0, *image_hw, dtype=torch.bool, device=logits.device)
    if image_hw[1] == 1 < image_hw[0]:
        # On CPUs torch's antialiased resize to a width of 1 repeats the first row (seen in 2.15); to a height of 1 it is right.
        return upsample(logits.mT, (1, image_hw[0])).mT
    full = F.interpolate(logits[None], size=image_hw, mode="bilinear", align_corners=False, antialias=True)
    return full[0] > 0


def _full_size(candidates: Candidates, rows: Tensor) -> Tensor:
    chunks = rows.split(_chunk(candidates.image_hw))
    return torch.cat([upsample(candidates.logits[chunk], candidates.image_hw) for chunk in chunks])


def _chunk(image_hw: tuple[int, int]) -> int:
    return max(1, PIXELS_A_CHUNK // (image_hw[0] * image_hw[1]))


def _crop_instances(candidates: Candidates, rows: Tensor, labels: Tensor, scores: Tensor, max_detections: int) -> Instances:
    """Masks at full size for the first max_detections rows that are not empty there."""
    masks: list[Tensor] = []
    boxes: list[list[int]] = []
    kept: list[int] = []
    for chunk in torch.arange(len(rows)).split(_chunk(candidates.image_hw)):
        full = upsample(candidates.logits[rows[chunk]], candidates.image_hw)
        for position, mask in zip(chunk.tolist(), full, strict=True):
            if len(kept) < max_detections and bool(mask.any()):
                x0, y0, x1, y1 = (int(v) for v in grid_boxes(mask[None])[0].tolist())
                masks.append(mask[y0 : y1 + 1, x0 : x1 + 1].clone())
                boxes.append([x0, y0, x1 + 1, y1 + 1])
                kept.append(position)
        if len(kept) >= max_detections:
            break
    index = torch.tensor(kept, dtype=torch.int64)
    return Instances(
        tuple(masks),
        torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4),
        labels[index],
        scores[index],
        rows[index],
    )
