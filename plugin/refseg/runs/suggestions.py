"""What to label next: the candidates without a label that would teach the prototypes most.

Reads a dataset's whole index once, about a second for twenty thousand candidates, and needs no model. What a candidate c of
class k is worth is its expected change:

    expected_change = uncertainty × novelty × predicted IoU
    uncertainty     = 4·a·(1 − a) with a = 1 / (1 + exp(−(score − threshold of k) / UNCERTAIN)): 1 at the threshold
    novelty         = 1 − max(0, the highest cosine of c with any reference of k, or with a suggestion of k before it)
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..calibration import known_object
from ..candidates import PackedCandidates
from ..dataset import (
    LIST_FIELDS,
    DatasetIndex,
    object_region,
    objects_of,
    relative_box,
    require_object_field,
    sample_or_none,
)
from ..errors import DatasetError, LabelError
from ..index import IndexChunk
from ..insight import MIN_PREDICTED_IOU, Suggestion
from ..matching import Classified, Looked, Matcher, Ranking, crop_instances
from ..progress import Progress
from ..prototypes import Prototypes, look_around
from .looking import part

logger = logging.getLogger(__name__)

UNCERTAIN = 0.08
"""Scores this far from the threshold still leave 0.79 of the uncertainty, three times as far 0.18."""
COVERED = 0.5
"""A box with this share inside another, or around this share of another, covers the same object."""
POOL = 40
"""So many times more candidates are held than suggestions are wanted: some turn out to lie on labels, some on each other."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class _Pool:
    """The best candidates so far, those of the highest expected change.

    Attributes:
        found: sample id and candidate of each of n.
        changes: (n,) float32 expected change.
        uncertainty: (n,) float32, times predicted IoU.
        similarity: (n,) float32, the highest cosine with a reference of the class.
        rows: (n,) int64, the class of each.
        scores: (n,) float32.
        features: (n, C) float32.
    """

    found: tuple[tuple[str, PackedCandidates], ...]
    changes: Tensor
    uncertainty: Tensor
    similarity: Tensor
    rows: Tensor
    scores: Tensor
    features: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """All but the candidates themselves."""
        return self.changes, self.uncertainty, self.similarity, self.rows, self.scores, self.features

    def take(self, chosen: Tensor) -> _Pool:
        """Some of them."""
        return _Pool(tuple(self.found[number] for number in chosen.tolist()), *(column[chosen] for column in self.columns))

    def add(self, other: _Pool, most: int) -> _Pool:
        """The best of these and other's."""
        both = _Pool(self.found + other.found, *map(torch.cat, zip(self.columns, other.columns, strict=True)))
        return both.take(both.changes.argsort(descending=True, stable=True)[:most])


def iter_suggest(
    view: Any,
    index: DatasetIndex,
    sample_ids: Collection[str],
    prototypes: Prototypes,
    matcher: Matcher,
    *,
    num_suggestions: int,
    label_fields: Sequence[str],
) -> Generator[Progress, None, tuple[Suggestion, ...]]:
    """Find what to label next; yields as images are looked at.

    Left out are masks of a predicted IoU below 0.7, what lies on a label, or around one, and all but one candidate of each
    image and class.

    Args:
        view: that holds the images.
        index: of the prototypes' encoder.
        sample_ids: in which images to look; those that the index holds.
        prototypes: K classes.
        matcher: of these, with the threshold of each class.
        num_suggestions: at most so many are returned.
        label_fields: fields of objects; what they hold is labelled already.

    Raises:
        DatasetError: a field that does not exist or holds no objects.
        IndexDamagedError: the index cannot be read.
    """
    boxes = _label_boxes(view, label_fields)
    pool: _Pool | None = None
    most = POOL * num_suggestions
    done = 0
    yield Progress(0, len(sample_ids), "indexed images")
    for chunk in index.index.scan(sample_ids):
        best = _worth(chunk, index.index.looks.read(chunk.images), prototypes, matcher, boxes, most)
        pool = best if pool is None else pool.add(best, most)
        done += len(chunk.images)
        yield Progress(done, len(sample_ids), "indexed images")
    if pool is None:
        return ()
    labelled = view.select_fields(list(label_fields))
    return tuple(_choose(labelled, pool, prototypes, matcher.thresholds, num_suggestions, label_fields))


def _worth(
    chunk: IndexChunk,
    looks: Sequence[tuple[Tensor, Tensor]],
    prototypes: Prototypes,
    matcher: Matcher,
    boxes: Mapping[str, Sequence[Box]],
    most: int,
) -> _Pool:
    """The best candidates of a chunk, before anybody looks at their masks."""
    features = chunk.features
    scored = [matcher.scored(first, looked) for first, looked in _parted(chunk, matcher, features, looks)]
    labels, scores = torch.cat([one.labels for one in scored]), torch.cat([one.scores for one in scored])
    images = [chunk.candidates(number) for number in range(len(chunk.images))]
    names = [image.sample_id for image in chunk.images]
    covered = [_covered(candidates, boxes.get(name, ())) for name, candidates in zip(names, images, strict=True)]
    predicted_iou = torch.cat([candidates.predicted_iou for candidates in images])
    similarity = _nearest_reference(features, labels, prototypes)
    accepted = torch.sigmoid((scores - matcher.least[labels]) / UNCERTAIN)
    uncertainty = 4 * accepted * (1 - accepted) * predicted_iou.clamp(0, 1)
    usable = (scores > 0) & (predicted_iou >= MIN_PREDICTED_IOU) & ~torch.from_numpy(np.concatenate(covered))
    changes = torch.where(usable, uncertainty * (1 - similarity), torch.zeros_like(scores))
    rows = changes.argsort(descending=True, stable=True)[:most]
    rows = rows[changes[rows] > 0]
    owners = (np.searchsorted(chunk.starts, rows.numpy(), side="right") - 1).tolist()
    places = zip(owners, rows.tolist(), strict=True)
    found = tuple((names[owner], images[owner].row(row - int(chunk.starts[owner]))) for owner, row in places)
    return _Pool(found, *(column[rows] for column in (changes, uncertainty, similarity, labels, scores, features)))


def _parted(
    chunk: IndexChunk, matcher: Matcher, features: Tensor, looks: Sequence[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Classified, Looked | None]]:
    """How the candidates of each image of a chunk compare by the first look, and the second looks that are known."""
    every = matcher.classify(features)
    for number, (rows, own) in enumerate(looks):
        first = every.take(slice(int(chunk.starts[number]), int(chunk.starts[number + 1])))
        known = Looked(rows, own) if len(rows) else None
        yield first, part(matcher.pick(chunk.candidates(number), first), known).known


def _nearest_reference(features: Tensor, labels: Tensor, prototypes: Prototypes) -> Tensor:
    """(N,) float32 in [0, 1]: the highest cosine of each candidate with a reference of its class."""
    nearest = torch.zeros(len(features))
    for row in labels.unique().tolist():
        references = F.normalize(prototypes.vectors[prototypes.labels == row].float(), dim=-1)
        nearest[labels == row] = (features[labels == row] @ references.T).amax(1)
    return nearest.clamp(0, 1)


def _covered(candidates: PackedCandidates, boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """(N,) bool: whether the box of each candidate and that of a label cover the same."""
    if not boxes or not len(candidates):
        return np.zeros(len(candidates), bool)
    own = candidates.boxes.numpy().astype(np.float64) / candidates.grid_side
    own[:, 2:] += 1 / candidates.grid_side  # boxes of candidates end with their last cell
    others = np.array(boxes, np.float64)
    others[:, 2:] += others[:, :2]
    corner, far = np.maximum(own[:, None, :2], others[None, :, :2]), np.minimum(own[:, None, 2:], others[None, :, 2:])
    common = (far - corner).clip(min=0).prod(2)  # (N, L)
    areas = [np.maximum((box[:, 2:] - box[:, :2]).clip(min=0).prod(1), 1e-12) for box in (own, others)]
    return np.asarray((common / np.minimum(areas[0][:, None], areas[1][None]) >= COVERED).any(1))


def _choose(
    labelled: Any,
    pool: _Pool,
    prototypes: Prototypes,
    thresholds: Mapping[str, float],
    num_suggestions: int,
    label_fields: Sequence[str],
) -> Generator[Suggestion, None, None]:
    """The best of a pool one after the other, each unlike those before it."""
    num_chosen = 0
    while num_chosen < num_suggestions and len(pool.found):
        best = int(pool.changes.argmax())
        (sample_id, candidate), row = pool.found[best], int(pool.rows[best])
        sample = sample_or_none(labelled, sample_id)
        apart = torch.arange(len(pool.found)) != best
        if sample is not None and _lies_free(sample, candidate, label_fields) and (place := cut_out(candidate)) is not None:
            label = prototypes.classes[row]
            reason = (
                f"scores {pool.scores[best]:.2f}, the threshold is {thresholds[label]:.2f}; "
                f"{pool.similarity[best]:.2f} like the nearest reference"
            )
            values = float(pool.scores[best]), place[0], float(pool.changes[best]), reason, float(candidate.predicted_iou[0])
            yield Suggestion(sample_id, sample.filepath, label, *values, place[1])
            num_chosen += 1
            apart &= torch.tensor([name != sample_id for name, _ in pool.found]) | (pool.rows != row)
            pool = _away_from(pool, pool.features[best], row)
        pool = pool.take(apart.nonzero()[:, 0])


def _away_from(pool: _Pool, feature: Tensor, row: int) -> _Pool:
    """The pool as if one of its candidates were a reference of a class."""
    like = torch.where(pool.rows == row, (pool.features @ feature).clamp(0, 1), torch.zeros(len(pool.rows)))
    similarity = pool.similarity.maximum(like)
    return replace(pool, similarity=similarity, changes=pool.uncertainty * (1 - similarity))


def _lies_free(sample: Any, candidate: PackedCandidates, label_fields: Sequence[str]) -> bool:
    """Whether a candidate overlaps no labelled object of its image, mask by mask."""
    objects = []
    for label in (label for name in label_fields for label in objects_of(sample[name])):
        try:
            box, mask = object_region(label, candidate.image_hw)
        except DatasetError as error:
            logger.warning("%s", error)
            continue
        known = known_object("", box, mask, candidate)
        if known is not None:
            objects.append(known)
    return len(look_around(candidate, objects, "")) > 0


def cut_out(candidate: PackedCandidates) -> tuple[Box, NDArray[np.bool_]] | None:
    """Box, as shares of the image, and mask at its size of one candidate; None where nothing is left of it there."""
    first = torch.zeros(1, dtype=torch.int64)
    instances = crop_instances(candidate, Ranking(first, first, torch.ones(1), torch.ones(1), first - 1), 1)
    if not len(instances):
        return None
    x0, y0, x1, y1 = instances.boxes[0].tolist()
    height, width = candidate.image_hw
    return (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height), instances.masks[0].numpy()


def _label_boxes(view: Any, label_fields: Sequence[str]) -> dict[str, list[Box]]:
    """Relative boxes of all labelled objects, by sample id."""
    boxes: dict[str, list[Box]] = {}
    for name in label_fields:
        kind = require_object_field(view, name)
        inner = LIST_FIELDS.get(kind.__name__)
        is_line = kind in (fo.Polylines, fo.Polyline)
        path = ".".join(part for part in (name, inner, "points" if is_line else "bounding_box") if part)
        for sample_id, value in zip(*view.values(["id", path]), strict=True):
            for item in (value or ()) if inner else ([] if value is None else [value]):
                try:
                    own = relative_box(fo.Polyline(points=item) if is_line else fo.Detection(bounding_box=item))
                except LabelError:
                    continue  # it has no place; whoever reads the whole label says so
                boxes.setdefault(sample_id, []).append(own)
    return boxes
