"""From candidates and a gallery to scored, labelled instances (method.md, stage C): pure tensor functions.

Takes about a millisecond an image, and more the more instances there are to cut out. Profile `paper` compares up to
8 × max_detections masks at the image's size, as run-length codes: a fifth of a second where 600 are left. Otherwise masks are
compared on the segmenter grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ..candidates import Candidates, PackedCandidates, shares_of_codes
from .cropping import crop_instances, full_size_codes
from .instances import Instances, Ranking
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


@torch.inference_mode()
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
    scores, labels = classified.scores, classified.labels
    least = min_score[labels] if isinstance(min_score, Tensor) else torch.full_like(scores, min_score)
    wanted = candidates.filled & least.isfinite()
    filled = (wanted if as_published else wanted & (scores > 0)).nonzero()[:, 0]
    keep = batched_nms(candidates.boxes_of(filled), candidates.predicted_iou[filled], labels[filled], NMS_IOU)
    rows = filled[keep[: NMS_KEEPS * max_detections]]
    rows = rows[scores[rows] > 0]
    labels, scores, least, features = labels[rows], scores[rows], least[rows], candidates.features[rows]
    if overlaps == "diffusion":
        # What a mask loses depends on what those it lies in lose: all of them count, those that are not written too.
        scores = diffuse_shares(candidates.shares(rows, labels, torch.ones_like(scores, dtype=torch.bool)), scores)
    elif as_published:
        every = torch.ones_like(scores, dtype=torch.bool)
        scores = merge_shares(shares_of_codes(full_size_codes(candidates, rows), labels, every), features, scores)
    else:
        scores = merge_shares(candidates.shares(rows, labels, scores >= least), features, scores)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= least[order]]
    chosen = rows[order]
    return Ranking(chosen, labels[order], scores[order], classified.margins[chosen], classified.runners_up[chosen])
