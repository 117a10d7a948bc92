"""The published merge of masks at the image's size (method.md C4), without comparing each mask with every other.

What a mask loses to another is at most how alike they are times the share of it that can lie in the other's box. Those to
which it may lose most are looked at first, and the rest not at all as soon as they cannot take more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import BITS, Candidates, PackedCandidates
from . import full_size
from .full_size import FullSize

WORDS_AT_ONCE = 1 << 23
"""Words of masks at the image's size held at once, 64 MB, unless those of one label alone take more."""

ROUNDING = 1e-5
"""More than a cosine can be off for how it is rounded."""


def merge_full_size(
    candidates: Candidates | PackedCandidates, rows: Tensor, labels: Tensor, scores: Tensor, wanted: Tensor
) -> Tensor:
    """What merge_shares makes of the scores of some masks, by their shares at the image's size.

    Args:
        candidates: of one image, which is no smaller than their grid.
        rows: (n,) int64, of masks that are not empty, best rank first.
        labels: (n,) int64, of these; masks of different labels leave each other alone.
        scores: (n,) float32.
        wanted: (n,) bool, the masks whose scores have to be right.

    Returns:
        (n,) float32 new scores, same order.
    """
    decay = np.zeros(len(rows), np.float32)
    for members in _groups_at_once(candidates, rows, labels.numpy()):
        every = np.concatenate(members)
        own = rows[torch.from_numpy(every)]
        masks, features = full_size.resize(candidates, own), candidates.features[own].cpu().numpy()
        pairs = _pairs(masks, _alike(features, list(map(len, members))), wanted.numpy()[every])
        decay[every] = _decays(masks, features, *pairs)
    return scores * torch.from_numpy(1 - decay.clip(0, 1)).sqrt()


def _groups_at_once(
    candidates: Candidates | PackedCandidates, rows: Tensor, labels: NDArray[np.int64]
) -> list[list[NDArray[np.int64]]]:
    """The positions of the masks of each label, in their order, of as many labels together as may be held at once."""
    if not len(rows):
        return []
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    x0, y0, x1, y1 = candidates.boxes_of(rows).double().numpy().T
    height, width = (side / candidates.grid_side for side in candidates.image_hw)
    words = (y1 - y0 + 2) * height * ((x1 - x0 + 2) * width / BITS + 2)
    before = np.cumsum([words[group].sum() for group in groups])
    together: dict[int, list[NDArray[np.int64]]] = {}
    for group, number in zip(groups, (before // WORDS_AT_ONCE).tolist(), strict=True):
        together.setdefault(int(number), []).append(group)
    return list(together.values())


def _alike(features: NDArray[np.float32], sizes: Sequence[int]) -> NDArray[np.float32]:
    """(n, n) float32: how alike each mask is to those before it in its group, else 0.

    Args:
        features: (n, C) float32, one group after the other.
        sizes: masks of each group.
    """
    alike = np.zeros((len(features), len(features)), np.float32)
    for start, stop in pairwise(np.cumsum([0, *sizes]).tolist()):
        own = features[start:stop]
        alike[start:stop, start:stop] = np.tril(own @ own.T, -1)
    return alike


def _pairs(masks: FullSize, alike: NDArray[np.float32], wanted: NDArray[np.bool_]) -> tuple[list[Any], ...]:
    """Pairs of masks that are alike and may have pixels in common, as far as their boxes tell.

    Args:
        masks: n of one image.
        alike: from _alike.
        wanted: (n,) bool, the later ones that count.

    Returns:
        For each pair: the number of the later one, that of the earlier one, how alike they are, and the most that the later one
        may lose to the earlier one. Those of one mask are together, the highest bound first.
    """
    later, earlier = np.nonzero((alike > 0) & wanted[:, None])
    x0, y0, x1, y1 = masks.boxes.T.copy()
    across = np.minimum(x1[later], x1[earlier]) - np.maximum(x0[later], x0[earlier])
    down = np.minimum(y1[later], y1[earlier]) - np.maximum(y0[later], y0[earlier])
    met = np.flatnonzero((across > 0) & (down > 0))
    later, earlier = later[met], earlier[met]
    most = np.minimum(across[met] * down[met], masks.areas[earlier]) / masks.areas[later].clip(1)
    cosine = alike[later, earlier]
    bound = most.clip(max=1) * cosine
    order = np.lexsort((-bound, later))
    return later[order].tolist(), earlier[order].tolist(), cosine[order].tolist(), bound[order].tolist()


def _decays(
    masks: FullSize,
    features: NDArray[np.float32],
    later: list[int],
    earlier: list[int],
    alike: list[float],
    bounds: list[float],
) -> NDArray[np.float32]:
    """(n,) float32: the most that each mask loses to one before it, of pairs as _pairs gives them.

    Args:
        masks: n of one image.
        features: (n, C) float32 of these.
        later: see _pairs, as what follows.
        earlier: see _pairs.
        alike: see _pairs.
        bounds: see _pairs.
    """
    highest, areas = [0.0] * len(masks), masks.areas.tolist()
    looked_at: list[tuple[int, int, float]] = []
    for one, other, cosine, bound in zip(later, earlier, alike, bounds, strict=True):
        if bound + ROUNDING >= highest[one] and areas[one]:
            share = masks.num_shared(one, other) / areas[one]
            looked_at.append((one, other, share))
            highest[one] = max(highest[one], share * cosine)
    decays = np.zeros(len(masks), np.float32)
    if looked_at:
        # A product of matrices told which pairs may count. How it rounds depends on its size: those are multiplied again.
        ones, others, shares = (np.array(column) for column in zip(*looked_at, strict=True))
        products = np.einsum("nc,nc->n", features[ones], features[others]).clip(0)
        np.maximum.at(decays, ones, shares.astype(np.float32) * products)
    return decays
