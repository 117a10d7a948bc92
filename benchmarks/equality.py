"""Do two ways of computing candidates give the same ones (`compare`), and how many does a faster way find again (`recall`)?

Candidates carry no prompt number, so `align` finds out which belong together: both lists are in the order of the prompts, and
of all pairings that keep that order it takes the one with the least total difference of masks and predicted IoU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refseg.candidates import MIN_PREDICTED_IOU, Candidates
from refseg.errors import ShapeError

LEFT_OUT = 0.5
"""Price of leaving one candidate without partner, where a pair costs 1 − mask IoU + difference of predicted IoU."""
ALIGNMENT_SIDE = 64
"""Cells a side that alignment looks at; it only has to tell one prompt's mask from the next one's."""
ROUNDING = 2.0**-11
"""Largest relative error of rounding to half precision, in which the library hands out features."""
SURE_IOU = 0.7
"""Predicted IoU above which a candidate should be found again."""
FOUND_IOU = 0.9
"""Mask IoU from which it is."""


@dataclass(frozen=True)
class Equality:
    """How far candidates lie from those of the baseline.

    Attributes:
        num_pairs: candidates that both have.
        num_alone: candidates that only one of them has.
        num_strays: of those, the ones that the threshold of predicted IoU does not excuse.
        farthest_alone: largest distance from that threshold among the candidates that only one has; 0 without any.
        min_iou: smallest mask IoU of a pair; 1 without any.
        iou_share: share of the pairs whose masks reach the wanted IoU; 1 without any.
        feature_difference: largest difference of a feature's component in any pair.
        feature_excess: the same beyond what rounding to half precision explains.
        feature_excess_of_equal: that in the pairs whose masks reach the wanted IoU, where it comes from the encoder alone.
        iou_difference: largest difference of predicted IoU in any pair.
    """

    num_pairs: int
    num_alone: int
    num_strays: int
    farthest_alone: float
    min_iou: float
    iou_share: float
    feature_difference: float
    feature_excess: float
    feature_excess_of_equal: float
    iou_difference: float


def compare(exact: Candidates, baseline: Candidates, *, margin: float = 1e-3, min_iou: float = 0.99) -> Equality:
    """How far candidates lie from those of the baseline, of the same image and prompts.

    Args:
        exact: as the library computes them, in the order of the prompts.
        baseline: as published, in the order of the prompts, on any device.
        margin: a candidate whose predicted IoU is within this of the threshold may be missing from the other.
        min_iou: mask IoU that pairs should reach.

    Raises:
        ShapeError: mask grids or feature widths differ.
    """
    if exact.grid_side != baseline.grid_side or exact.features.shape[1] != baseline.features.shape[1]:
        raise ShapeError(
            f"Candidates of {exact.grid_side} cells a side and {exact.features.shape[1]} features cannot be compared with "
            f"{baseline.grid_side} cells and {baseline.features.shape[1]} features: use the same models."
        )
    baseline = _like(baseline, exact.logits.device)
    mine, theirs = align(exact, baseline)
    alone = torch.cat([_without(exact.predicted_iou, mine), _without(baseline.predicted_iou, theirs)])
    distances = (alone - MIN_PREDICTED_IOU).abs()
    ious = _paired_iou(exact.masks[mine], baseline.masks[theirs])
    features, expected = exact.features[mine].float(), baseline.features[theirs].float()
    differences = (features - expected).abs()
    excess = (differences - ROUNDING * expected.abs()).clamp(min=0)
    return Equality(
        num_pairs=len(mine),
        num_alone=len(alone),
        num_strays=int((distances >= margin).sum()),
        farthest_alone=_largest(distances),
        min_iou=1.0 if len(ious) == 0 else float(ious.min()),
        iou_share=1.0 if len(ious) == 0 else float((ious >= min_iou).float().mean()),
        feature_difference=_largest(differences),
        feature_excess=_largest(excess),
        feature_excess_of_equal=_largest(excess[ious >= min_iou]),
        iou_difference=_largest((exact.predicted_iou[mine].float() - baseline.predicted_iou[theirs].float()).abs()),
    )


def align(first: Candidates, second: Candidates) -> tuple[Tensor, Tensor]:
    """Which candidates of two lists in the order of the prompts belong to the same prompt.

    Args:
        first: N candidates.
        second: L candidates on the same device.

    Returns:
        (P,) int64 rows of the first and (P,) of the second, both ascending.
    """
    step = max(1, first.grid_side // ALIGNMENT_SIDE)
    overlap = mask_iou(first.masks[:, ::step, ::step], second.masks[:, ::step, ::step])
    differing = (first.predicted_iou[:, None].float() - second.predicted_iou[None].float()).abs()
    rows, columns = pair_in_order((1 - overlap + differing).cpu().double().numpy(), LEFT_OUT)
    device = first.logits.device
    return torch.tensor(rows, dtype=torch.int64, device=device), torch.tensor(columns, dtype=torch.int64, device=device)


def pair_in_order(costs: np.ndarray[tuple[int, int], np.dtype[np.float64]], left_out: float) -> tuple[list[int], list[int]]:
    """The cheapest pairing of rows with columns in which no two pairs cross.

    Args:
        costs: (N, L) price of each pair.
        left_out: price of a row or column without partner.

    Returns:
        Rows and columns of the pairs, ascending.

    Example:
        >>> pair_in_order(np.array([[0.0, 0.9, 0.9], [0.9, 0.9, 0.1]]), 0.4)
        ([0, 1], [0, 2])
    """
    num_rows, num_columns = costs.shape
    gaps = left_out * np.arange(num_columns + 1)
    totals = np.empty((num_rows + 1, num_columns + 1))
    totals[0] = gaps
    for row in range(num_rows):
        best = totals[row] + left_out
        best[1:] = np.minimum(best[1:], totals[row, :-1] + costs[row])
        totals[row + 1] = np.minimum.accumulate(best - gaps) + gaps  # columns left out after the best of an earlier one
    pairs = []
    row, column = num_rows, num_columns
    while row and column:
        choices = (totals[row - 1, column - 1] + costs[row - 1, column - 1], totals[row - 1, column] + left_out)
        if choices[0] <= min(choices[1], totals[row, column - 1] + left_out):
            row, column = row - 1, column - 1
            pairs.append((row, column))
        elif choices[1] <= totals[row, column - 1] + left_out:
            row -= 1
        else:
            column -= 1
    pairs.reverse()
    return [row for row, _ in pairs], [column for _, column in pairs]


def recall(fast: Candidates, exact: Candidates, *, sure: float = SURE_IOU, found: float = FOUND_IOU) -> tuple[int, int]:
    """How many good candidates a faster way finds again.

    Args:
        fast: in any order.
        exact: of the same image.
        sure: only candidates of a predicted IoU above this count.
        found: mask IoU with any fast candidate from which one is found.

    Returns:
        How many are found, and of how many.
    """
    wanted = exact.masks[exact.predicted_iou > sure]
    if not len(wanted) or not len(fast):
        return 0, len(wanted)
    best = mask_iou(wanted, fast.masks.to(wanted.device)).amax(1)
    return int((best >= found).sum()), len(wanted)


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(N, L) float32 IoU of (N, H, W) and (L, H, W) bool masks; two empty masks are equal.

    Example:
        >>> mask_iou(torch.tensor([[[True, True]]]), torch.tensor([[[True, False]], [[True, True]]])).tolist()
        [[0.5, 1.0]]
    """
    flat, other_flat = masks.flatten(1).float(), others.flatten(1).float()
    shared = flat @ other_flat.T
    joined = flat.sum(1)[:, None] + other_flat.sum(1)[None] - shared
    return torch.where(joined == 0, 1.0, shared / joined.clamp(min=1))


def _paired_iou(masks: Tensor, others: Tensor) -> Tensor:
    shared, joined = (masks & others).sum((1, 2)), (masks | others).sum((1, 2))
    return torch.where(joined == 0, 1.0, shared / joined.clamp(min=1))


def _like(candidates: Candidates, device: torch.device) -> Candidates:
    logits, predicted_iou = candidates.logits.to(device), candidates.predicted_iou.to(device)
    return Candidates(logits, predicted_iou, candidates.features.to(device), candidates.image_hw, candidates.gated)


def _without(values: Tensor, rows: Tensor) -> Tensor:
    left = torch.ones(len(values), dtype=torch.bool, device=values.device)
    left[rows] = False
    return values[left].float()


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
