"""From candidates and prototypes to scored, labelled instances (method.md, stage C): pure tensor functions.

Takes about a millisecond an image, and more the more instances there are to cut out. Memory: profile `paper` compares up to
8 × max_detections masks at the image's size; otherwise masks are compared on the segmenter grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from .candidates import Candidates, interpolation_matrix, share_in_groups, shares_of
from .errors import ShapeError
from .packing import PackedCandidates

NEGATIVE_SCALE = 0.8
"""How fast a nearer negative lowers a similarity: by the factor exp(−lead / scale) (method.md, "Past the paper")."""
NMS_IOU = 0.5
NMS_KEEPS = 8
"""NMS keeps this many times the detections asked for (method.md C2)."""
PIXELS_A_CHUNK = 1 << 25
"""Upsampled logits held at once by profile `paper`, in pixels: 128 MB of float32."""
MASKS_A_CHUNK = 16
"""Masks resized at once: often fewer instances are wanted than there are."""


NegativeMatrix = tuple[Tensor, Tensor]
"""(Q, C) float32 negatives of unit length, and (Q,) int64 the class row that each lowers, -1 where it lowers every one."""


@dataclass(frozen=True)
class Classified:
    """How candidates, of one image or of many, compare with the classes.

    Attributes:
        scores: (N,) float32 in [0, 1], the similarity to the class that won.
        labels: (N,) int64, its row.
        margins: (N,) float32, by how much it beat the second-best class; the score itself where there is one class alone.
        runners_up: (N,) int64, the row of the second-best class; -1 where there is one class alone.
    """

    scores: Tensor
    labels: Tensor
    margins: Tensor
    runners_up: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: Tensor | slice) -> Classified:
        """Those of some candidates."""
        return Classified(self.scores[rows], self.labels[rows], self.margins[rows], self.runners_up[rows])


@dataclass(frozen=True)
class Instances:
    """Scored, labelled masks of one image, best first.

    Attributes:
        masks: n bool tensors (h, w), each the tight crop of its box.
        boxes: (n, 4) int64 xyxy pixels of the original image, far edge excluded.
        labels: (n,) int64, the row of the prototype that won.
        scores: (n,) float32 in [0, 1].
        rows: (n,) int64, the row of each in the candidates.
        margins: (n,) float32, see Classified.
        runners_up: (n,) int64, see Classified.
    """

    masks: tuple[Tensor, ...]
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rows: Tensor
    margins: Tensor
    runners_up: Tensor

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True)
class Ranking:
    """The candidates of one image that are instances, on the mask grid, best first.

    Attributes:
        rows: (n,) int64, the row of each in the candidates.
        labels: (n,) int64, the row of the prototype that won.
        scores: (n,) float32 in [0, 1].
        margins: (n,) float32, see Classified.
        runners_up: (n,) int64, see Classified.
    """

    rows: Tensor
    labels: Tensor
    scores: Tensor
    margins: Tensor
    runners_up: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@torch.inference_mode()
def match(
    candidates: Candidates | PackedCandidates,
    prototypes: Tensor,
    *,
    negatives: NegativeMatrix | None = None,
    max_detections: int = 100,
    min_score: float | Tensor = 0.0,
    as_published: bool = False,
) -> Instances:
    """Label, rank, merge and cut the candidates of one image.

    Args:
        candidates: of one image; none at all is a valid answer.
        prototypes: (K, C) float32, unit length.
        negatives: see similarities.
        max_detections: the best so many are returned.
        min_score: see rank.
        as_published: see rank.

    Raises:
        ShapeError: candidates, prototypes and negatives differ in width.
    """
    classified = classify(candidates.features, prototypes, negatives)
    ranking = rank(candidates, classified, max_detections=max_detections, min_score=min_score, as_published=as_published)
    return crop_instances(candidates, ranking, max_detections)


@torch.inference_mode()
def rank(
    candidates: Candidates | PackedCandidates,
    classified: Classified,
    *,
    max_detections: int = 100,
    min_score: float | Tensor = 0.0,
    as_published: bool = False,
) -> Ranking:
    """Thin out, merge and order the candidates of one image (method.md C2, C4, C5), without making full-size masks.

    Args:
        candidates: of one image.
        classified: the N of them, from classify.
        max_detections: NMS keeps eight times as many; more than this may be returned, for masks that vanish at full size.
        min_score: lower scores are left out; one number, or (K,) float32 for each class its own. Candidates won by a class of
            infinite least score make no room for themselves either.
        as_published: merge on full-size masks instead of on the mask grid, and let masks that resemble no class take part in
            the NMS, where they can push out masks of the first class that do.
    """
    scores, labels = classified.scores, classified.labels
    least = min_score[labels] if isinstance(min_score, Tensor) else torch.full_like(scores, min_score)
    wanted = candidates.filled & least.isfinite()
    filled = (wanted if as_published else wanted & (scores > 0)).nonzero()[:, 0]
    keep = batched_nms(candidates.boxes_of(filled), candidates.predicted_iou[filled], labels[filled], NMS_IOU)
    rows = filled[keep[: NMS_KEEPS * max_detections]]
    rows = rows[scores[rows] > 0]
    labels, scores, least, features = labels[rows], scores[rows], least[rows], candidates.features[rows]
    if as_published:
        scores = merge_overlaps(_full_size(candidates, rows), features, scores, labels)
    else:
        scores = _merge(candidates.shares(rows, labels, scores >= least), features, scores)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= least[order]]
    chosen = rows[order]
    return Ranking(chosen, labels[order], scores[order], classified.margins[chosen], classified.runners_up[chosen])


def similarities(features: Tensor, prototypes: Tensor, negatives: NegativeMatrix | None = None) -> Tensor:
    """How similar each candidate is to each class (method.md C1, "Past the paper").

    The cosine with the class's prototype, cut at 0, is s. Where a negative of the class has a higher cosine n, it becomes
    s·exp(−(n − s) / NEGATIVE_SCALE).

    Args:
        features: (N, C) float32, unit length; of one image or of many.
        prototypes: (K, C) float32, unit length.
        negatives: from `Prototypes.negative_matrix`.

    Returns:
        (N, K) float32 in [0, 1].

    Raises:
        ShapeError: candidates, prototypes and negatives differ in width.

    Example:
        >>> classes, negative = torch.eye(3)[:2], (torch.eye(3)[2:], torch.tensor([0]))
        >>> similarities(torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]]), classes, negative)
        tensor([[0.4673, 0.0000],
                [0.0000, 0.6000]])
    """
    _check_width("Prototypes", prototypes, features)
    similar = (features @ prototypes.T).clamp(min=0)
    if negatives is None:
        return similar
    vectors, rows = negatives
    _check_width("Negatives", vectors, features)
    cosines = features @ vectors.T  # (N, Q)
    lead = torch.zeros_like(similar)
    for row in rows.unique().tolist():
        nearest = cosines[:, rows == row].amax(1, keepdim=True)
        columns = slice(None) if row < 0 else slice(row, row + 1)
        lead[:, columns] = lead[:, columns].maximum(nearest - similar[:, columns])
    return similar * torch.exp(-lead / NEGATIVE_SCALE)


def classify(features: Tensor, prototypes: Tensor, negatives: NegativeMatrix | None = None) -> Classified:
    """The class of each candidate: the most similar one (method.md C1), and how clearly it won.

    Args:
        features: (N, C) float32, unit length; of one image or of many.
        prototypes: (K, C) float32, unit length.
        negatives: see similarities.

    Raises:
        ShapeError: candidates, prototypes and negatives differ in width.
    """
    similar = similarities(features, prototypes, negatives)
    scores, labels = similar.max(1)
    if similar.shape[1] == 1:
        return Classified(scores, labels, scores, torch.full_like(labels, -1))
    # Not topk(2), which may name another of two equal classes as the first, and is slower on many candidates.
    seconds, runners_up = similar.scatter(1, labels[:, None], -1.0).max(1)
    return Classified(scores, labels, scores - seconds, runners_up)


def _check_width(name: str, vectors: Tensor, features: Tensor) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != features.shape[1]:
        raise ShapeError(
            f"{name} of shape {tuple(vectors.shape)} do not fit candidates with features of width {features.shape[1]}: build "
            "them with the same model."
        )


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
    every = torch.ones(len(masks), dtype=torch.bool)
    shares = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), labels, every)
    return _merge(shares, features, scores)


def _merge(shares: NDArray[np.float32], features: Tensor, scores: Tensor) -> Tensor:
    """merge_overlaps for masks known by how much of each lies inside each other of its label, (N, N)."""
    lower, upper = np.nonzero(np.tril(shares, -1))
    vectors = features.numpy()
    alike = np.einsum("nc,nc->n", vectors[lower], vectors[upper]).clip(0)
    decay = np.zeros(len(scores), np.float32)
    np.maximum.at(decay, lower, shares[lower, upper] * alike)
    return scores * torch.from_numpy(1 - decay.clip(0, 1)).sqrt()


def upsample(logits: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool masks at the image's size from (n, M, M) logits: bilinear with antialias, above 0 (method.md C3)."""
    if len(logits) == 0:
        return torch.zeros(0, *image_hw, dtype=torch.bool, device=logits.device)
    if image_hw[1] == 1 < image_hw[0]:
        # On CPUs torch's antialiased resize to a width of 1 repeats the first row (seen in 2.15); to a height of 1 it is right.
        return upsample(logits.mT, (1, image_hw[0])).mT
    full = F.interpolate(logits[None], size=image_hw, mode="bilinear", align_corners=False, antialias=True)
    return full[0] > 0


@torch.inference_mode()
def crop_instances(candidates: Candidates | PackedCandidates, ranking: Ranking, max_detections: int = 100) -> Instances:
    """Masks at the image's size for the first max_detections of a ranking that are not empty there (method.md C3, C5).

    Each mask is resized within its own box only: that takes as long as the objects are large, whatever the image's size.
    """
    masks: list[Tensor] = []
    boxes: list[tuple[int, int, int, int]] = []
    kept: list[int] = []
    rows_axis, columns_axis = (_axis(candidates.grid_side, side) for side in candidates.image_hw)
    for chunk in torch.arange(len(ranking)).split(MASKS_A_CHUNK):
        if len(kept) == max_detections:
            break
        rows = ranking.rows[chunk]
        reaches = [_reach(cells, rows_axis, columns_axis) for cells in candidates.boxes_of(rows).int().tolist()]
        crops = candidates.crops(rows, [reach.window for reach in reaches])
        for position, crop, reach in zip(chunk.tolist(), crops, reaches, strict=True):
            found = _resize(crop, reach, rows_axis, columns_axis)
            if found is not None and len(kept) < max_detections:
                masks.append(found[0])
                boxes.append(found[1])
                kept.append(position)
    index = torch.tensor(kept, dtype=torch.int64)
    return Instances(
        tuple(masks),
        torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4),
        ranking.labels[index],
        ranking.scores[index],
        ranking.rows[index],
        ranking.margins[index],
        ranking.runners_up[index],
    )


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize: weights (new, old), and between which old cells a new one looks and the other way round."""

    weights: Tensor
    old_from: NDArray[np.int64]
    old_to: NDArray[np.int64]
    new_from: NDArray[np.int64]
    new_to: NDArray[np.int64]


@lru_cache(maxsize=64)
def _axis(side: int, new_side: int) -> _Axis:
    weights = interpolation_matrix(side, new_side)
    used = weights.numpy() != 0
    return _Axis(weights, *_ends(used), *_ends(used.T))


def _ends(used: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)


@dataclass(frozen=True)
class _Reach:
    """The part of the image that cells of a box can fill, and the window of cells that decides it; xyxy, far edge excluded."""

    pixels: tuple[int, int, int, int]
    window: tuple[int, int, int, int]


def _reach(cells: Sequence[int], rows: _Axis, columns: _Axis) -> _Reach:
    x0, y0, x1, y1 = cells
    left, right = int(columns.new_from[x0 : x1 + 1].min()), int(columns.new_to[x0 : x1 + 1].max())
    top, bottom = int(rows.new_from[y0 : y1 + 1].min()), int(rows.new_to[y0 : y1 + 1].max())
    window = (columns.old_from[left], rows.old_from[top], columns.old_to[right - 1], rows.old_to[bottom - 1])
    return _Reach((left, top, right, bottom), (int(window[0]), int(window[1]), int(window[2]), int(window[3])))


def _resize(crop: Tensor, reach: _Reach, rows: _Axis, columns: _Axis) -> tuple[Tensor, tuple[int, int, int, int]] | None:
    """The tight mask and its box, xyxy pixels of the image, far edge excluded; None where nothing is left."""
    left, top, right, bottom = reach.pixels
    x0, y0, x1, y1 = reach.window
    tall = rows.weights[top:bottom, y0:y1] @ crop
    mask = (tall @ columns.weights[left:right, x0:x1].T > 0).numpy()
    used_rows, used_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(used_rows):
        return None
    (y0, y1), (x0, x1) = used_rows[[0, -1]].tolist(), used_columns[[0, -1]].tolist()
    tight = torch.from_numpy(mask[y0 : y1 + 1, x0 : x1 + 1].copy())
    return tight, (left + x0, top + y0, left + x1 + 1, top + y1 + 1)


def _full_size(candidates: Candidates | PackedCandidates, rows: Tensor) -> Tensor:
    image_hw = candidates.image_hw
    chunks = rows.split(max(1, PIXELS_A_CHUNK // (image_hw[0] * image_hw[1])))
    return torch.cat([upsample(candidates.logits_of(chunk), image_hw) for chunk in chunks])
