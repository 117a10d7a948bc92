"""From candidates and a gallery to scored, labelled instances (method.md, stage C): pure tensor functions.

Takes about a millisecond an image, and more the more instances there are to cut out. Profile `paper` compares up to
8 × max_detections masks at the image's size, see `refseg.matching.merging`: some hundredths of a second where 400 are left.
Otherwise masks are compared on the segmenter grid.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import Candidates, PackedCandidates, shares_of_codes
from . import full_size
from .batch import Batch
from .calibrator import Calibrator
from .cropping import crop_instances, full_size_codes
from .instances import Instances, Ranking
from .merging import merge_full_size
from .overlaps import diffuse_shares, merge_shares
from .settings import Overlaps
from .similarity import Classified, Gallery, classify

NMS_IOU = 0.5
NMS_KEEPS = 8
"""NMS keeps this many times the detections asked for (method.md C2)."""


@torch.inference_mode()
def match(
    candidates: Candidates | PackedCandidates,
    gallery: Gallery,
    *,
    max_detections: int = 100,
    min_score: float | Tensor = 0.0,
    overlaps: Overlaps = "merge",
    as_published: bool = False,
) -> Instances:
    """Label, rank, merge and cut the candidates of one image.

    Args:
        candidates: of one image; none at all is a valid answer.
        gallery: the classes.
        max_detections: the best so many are returned.
        min_score: see rank.
        overlaps: see rank.
        as_published: see rank.

    Raises:
        ShapeError: candidates and gallery differ in width.
    """
    classified = classify(candidates.features, gallery)
    ranking = rank(
        candidates,
        classified,
        max_detections=max_detections,
        min_score=min_score,
        overlaps=overlaps,
        as_published=as_published,
    )
    return crop_instances(candidates, ranking, max_detections)


def rank(
    candidates: Candidates | PackedCandidates,
    classified: Classified,
    *,
    max_detections: int = 100,
    min_score: float | Tensor = 0.0,
    overlaps: Overlaps = "merge",
    as_published: bool = False,
) -> Ranking:
    """Thin out, merge and order the candidates of one image (method.md C2, C4, C5), without making full-size masks.

    Args:
        candidates: of one image.
        classified: the N of them, from classify.
        max_detections: NMS keeps eight times as many; more than this may be returned, for masks that vanish at full size.
        min_score: lower scores are left out; one number, or (K,) float32 for each class its own. Candidates won by a class of
            infinite least score make no room for themselves either.
        overlaps: what lowers the scores of masks inside others, see `refseg.matching.overlaps`.
        as_published: merge on full-size masks instead of on the mask grid, and let masks that resemble no class take part in
            the NMS, where they can push out masks of the first class that do.
    """
    return rank_batch(
        Batch.of([candidates]),
        classified,
        max_detections=max_detections,
        min_score=min_score,
        overlaps=overlaps,
        as_published=as_published,
    )[0]


@torch.inference_mode()
def rank_batch(
    batch: Batch,
    classified: Classified,
    *,
    max_detections: int = 100,
    min_score: float | Tensor = 0.0,
    overlaps: Overlaps = "merge",
    as_published: bool = False,
    calibrator: Calibrator | None = None,
) -> list[Ranking]:
    """Rank the candidates of several images, each by itself; see rank.

    Args:
        batch: N candidates.
        classified: all of them.
        max_detections: see rank.
        min_score: see rank.
        overlaps: see rank.
        as_published: see rank.
        calibrator: turns scores into probabilities at the end; min_score is of similarities all the same.
    """
    scores, labels = classified.scores, classified.labels
    least = min_score[labels] if isinstance(min_score, Tensor) else torch.full_like(scores, min_score)
    wanted = batch.filled & least.isfinite()
    filled = (wanted if as_published else wanted & (scores > 0)).nonzero()[:, 0]
    if not as_published and overlaps == "merge":
        filled = _in_reach(batch, filled, labels[filled], scores[filled] >= least[filled], NMS_KEEPS * max_detections)
    rows = batch.thinned(filled, batch.predicted_iou[filled], labels[filled], NMS_IOU)
    rows = batch.best(rows, NMS_KEEPS * max_detections)
    rows = rows[scores[rows] > 0]
    merged = _merged(batch, rows, classified.take(rows), least[rows], overlaps, as_published)
    high = merged >= least[rows]
    rows, merged = rows[high], merged[high]
    final = merged if calibrator is None else calibrator.probability(merged, labels[rows])
    # Of equal probabilities the higher similarity comes first, of equal similarities the higher predicted IoU.
    order = torch.from_numpy(np.lexsort((-merged.numpy(), -final.numpy(), batch.owner[rows.numpy()])))
    chosen, final = rows[order], final[order]
    own = batch.split(chosen)
    columns = labels[chosen], final, classified.margins[chosen], classified.runners_up[chosen]
    parts = [column.split([len(rows) for rows in own]) for column in columns]
    return [Ranking(*values) for values in zip(own, *parts, strict=True)]


def _in_reach(batch: Batch, rows: Tensor, labels: Tensor, high: Tensor, most: int) -> Tensor:
    """Some rows, without those of a class that no candidate of their image reaches: it has no instance there.

    Classes leave each other alone, and merging lowers scores; only where NMS may leave more than it keeps do all of them count.

    Args:
        batch: of candidates.
        rows: (n,) int64.
        labels: (n,) int64, of these.
        high: (n,) bool, which of these score as high as is asked for.
        most: rows of an image that NMS keeps.
    """
    owner = batch.owner[rows.numpy()]
    groups = owner * (int(labels.max()) + 1 if len(rows) else 1) + labels.numpy()
    reached = np.zeros(int(groups.max(initial=-1)) + 1, bool)
    reached[groups[high.numpy()]] = True
    is_full = np.bincount(owner, minlength=len(batch.images)) > most
    return rows[torch.from_numpy(reached[groups] | is_full[owner])]


def _merged(
    batch: Batch, rows: Tensor, classified: Classified, least: Tensor, overlaps: Overlaps, as_published: bool
) -> Tensor:
    """(n,) float32: the scores of some rows, image by image the highest predicted IoU first, after merging within each image.

    Args:
        batch: of candidates.
        rows: (n,) int64.
        classified: these rows.
        least: (n,) float32, scores below it need not be right.
        overlaps: see rank.
        as_published: see rank.
    """
    scores, labels = classified.scores, classified.labels
    owner = batch.owner[rows.numpy()]
    if overlaps == "diffusion":
        # What a mask loses to another depends on what that one loses: all of them count, those that are not written too.
        needed, touched = np.ones(len(rows), bool), np.ones(len(rows), bool)
    else:
        needed, touched = _in_others(batch, rows, labels, scores >= least, as_published)
    merged = scores.clone()
    places = torch.from_numpy(np.flatnonzero(touched))
    counts = np.bincount(owner[touched], minlength=len(batch.images)).tolist()
    for number, own in enumerate(places.split(counts)):
        if len(own):
            local, wanted = rows[own] - int(batch.starts[number]), torch.from_numpy(needed)[own]
            about = local, labels[own], scores[own], wanted, overlaps, as_published
            merged[own] = _lowered(batch.images[number], *about)
    return merged


def _in_others(
    batch: Batch, rows: Tensor, labels: Tensor, wanted: Tensor, as_published: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of some rows, (n,) bool each: the wanted that may lie in an earlier one of their class and image; these and the earlier.

    That is where boxes overlap, or nearly so where masks are compared as published, at the image's size: there they reach a
    little further.
    """
    owner = batch.owner[rows.numpy()]
    groups = owner * (int(labels.max()) + 1 if len(rows) else 1) + labels.numpy()
    order = np.argsort(groups, kind="stable").astype(np.int32)
    first = np.searchsorted(groups[order], groups[order])  # of the group of each
    place = np.arange(len(order)) - first
    count = place * wanted.numpy()[order]
    later = np.repeat(order, count)
    earlier = order[np.arange(len(later)) + np.repeat(first - np.cumsum(count) + count, count)]
    x0, y0, x1, y1 = batch.boxes_of(rows).numpy().T
    reach = np.array([2 * _reach(candidates) if as_published else 0 for candidates in batch.images])[owner[later]]
    apart = (x0[later] > x1[earlier] + reach) | (x0[earlier] > x1[later] + reach)
    apart |= (y0[later] > y1[earlier] + reach) | (y0[earlier] > y1[later] + reach)
    later, earlier = later[~apart], earlier[~apart]
    inside, either = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    inside[later] = True
    either[later] = either[earlier] = True
    return inside, either


def _reach(candidates: Candidates | PackedCandidates) -> int:
    """Cells by which a mask at the image's size may reach beyond its own: in a smaller image a pixel is made of many cells."""
    return 1 + candidates.grid_side // min(candidates.image_hw)


def _lowered(
    candidates: Candidates | PackedCandidates,
    rows: Tensor,
    labels: Tensor,
    scores: Tensor,
    needed: Tensor,
    overlaps: Overlaps,
    as_published: bool,
) -> Tensor:
    """What the scores of some candidates of one image become for the masks that they lie in."""
    if overlaps == "diffusion":
        return diffuse_shares(candidates.shares(rows, labels, needed), scores)
    if as_published and full_size.fits(candidates):
        return merge_full_size(candidates, rows, labels, scores, needed)
    if as_published:
        # Only of an image smaller than the grid.
        shares = shares_of_codes(full_size_codes(candidates, rows), labels, needed)
    else:
        shares = candidates.shares(rows, labels, needed)
    return merge_shares(shares, candidates.features[rows].cpu(), scores)
