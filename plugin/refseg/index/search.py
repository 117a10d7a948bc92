"""The rows of a candidate index nearest to a vector: by comparing all of them, or by Lance's vector index."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..candidates import PackedCandidates
from ..progress import Progress
from .candidate_index import CandidateIndex
from .tables import IndexChunk, IndexedImage

logger = logging.getLogger(__name__)

CANDIDATES_A_PARTITION = 8192
SHARE_PROBED = 0.75
"""Share of the partitions that a search looks into: more finds more. Looking is cheap, a bit a dimension."""
TIMES_REFINED = 4
"""So many times k candidates are compared exactly after the coarse comparison."""


@dataclass(frozen=True)
class Found:
    """One candidate and its similarity.

    Attributes:
        image: that it is in.
        score: cosine similarity in [-1, 1].
        candidate: a single packed candidate.
    """

    image: IndexedImage
    score: float
    candidate: PackedCandidates


def search_all(
    index: CandidateIndex, vector: Tensor, k: int, sample_ids: Collection[str] | None = None
) -> Generator[Progress, None, list[Found]]:
    """Compare every candidate; yields after each chunk.

    Args:
        index: an open index.
        vector: (C,) float32, unit length.
        k: at most so many are returned.
        sample_ids: in which images; None for all.

    Returns:
        The nearest, most similar first.
    """
    (found,) = yield from search_each(index, vector[None], k, sample_ids)
    return found


def search_each(
    index: CandidateIndex, vectors: Tensor, k: int, sample_ids: Collection[str] | None = None
) -> Generator[Progress, None, list[list[Found]]]:
    """Compare every candidate with each of several vectors, all in one scan; yields after each chunk.

    Args:
        index: an open index.
        vectors: (V, C) float32, unit length.
        k: at most so many are returned of each.
        sample_ids: in which images; None for all.

    Returns:
        For each vector the nearest, most similar first.
    """
    total = len(index.images) if sample_ids is None else len(sample_ids)
    while True:
        rows = yield from _nearest_rows(index, vectors, k, sample_ids, total)
        found: list[list[Found]] = [[] for _ in rows]
        for chunk in index.scan(list(dict.fromkeys(image.sample_id for own in rows for image in own))):
            for number, image in enumerate(chunk.images):
                if not any(image in own for own in rows):
                    continue
                candidates = chunk.candidates(number)
                for nearest, own in zip(found, rows, strict=True):
                    nearest += [Found(image, score, candidates.row(row)) for row, score in own.get(image, [])]
        if sum(map(len, found)) == sum(len(places) for own in rows for places in own.values()):
            return [sorted(nearest, key=lambda item: -item.score) for nearest in found]
        # Some of these images were indexed again or forgotten meanwhile: what was near has other rows, or is no more.


def _nearest_rows(
    index: CandidateIndex, vectors: Tensor, k: int, sample_ids: Collection[str] | None, total: int
) -> Generator[Progress, None, list[dict[IndexedImage, list[tuple[int, float]]]]]:
    """For each vector rows of the nearest candidates of each image, and their similarity."""
    best = [torch.empty(0) for _ in vectors]
    places: list[list[tuple[IndexedImage, int]]] = [[] for _ in vectors]
    done = 0
    for chunk in index.scan(sample_ids, features_only=True):
        for number, scores in enumerate((chunk.features @ vectors.T).T):
            top = scores.topk(min(k, len(scores)))
            places[number] += [_place(chunk, row) for row in top.indices.tolist()]
            joined, order = torch.cat([best[number], top.values]).sort(descending=True, stable=True)
            best[number], places[number] = joined[:k], [places[number][position] for position in order[:k].tolist()]
        done += len(chunk.images)
        yield Progress(done, total, "images")
    found: list[dict[IndexedImage, list[tuple[int, float]]]] = []
    for near, scored in zip(places, best, strict=True):
        rows: dict[IndexedImage, list[tuple[int, float]]] = {}
        for (image, row), score in zip(near, scored.tolist(), strict=True):
            rows.setdefault(image, []).append((row, score))
        found.append(rows)
    return found


def search_vectors(index: CandidateIndex, vector: Tensor, k: int, sample_ids: Collection[str] | None = None) -> list[Found]:
    """Ask Lance's vector index, which looks at a part of the candidates; newer ones it does not hold are compared too.

    Args:
        index: an open index with a vector index.
        vector: (C,) float32, unit length.
        k: at most so many are returned, fewer where images are left out.
        sample_ids: in which images; None for all.
    """
    partitions = num_partitions(index.num_candidates)
    table = index.nearest(vector, k, max(1, math.ceil(partitions * SHARE_PROBED)), TIMES_REFINED)
    by_key = {image.key: image for image in index.images.values() if sample_ids is None or image.sample_id in sample_ids}
    found = []
    for number, key in enumerate(table["image"].to_pylist()):
        if key in by_key:
            chunk = IndexChunk((by_key[key],), np.array([0, 1]), torch.empty(1, 0), table.slice(number, 1), index.settings)
            score = 1 - float(table["_distance"][number].as_py())
            found.append(Found(by_key[key], score, chunk.candidates(0)))
    return sorted(found, key=lambda item: -item.score)


def make_vector_index(index: CandidateIndex) -> None:
    """Train and build the vector index; minutes for a million candidates."""
    index.make_vector_index(num_partitions(index.num_candidates))


def num_partitions(num_candidates: int) -> int:
    """Into how many parts the vector index divides so many candidates."""
    return max(1, min(4096, num_candidates // CANDIDATES_A_PARTITION))


def _place(chunk: IndexChunk, row: int) -> tuple[IndexedImage, int]:
    number = int(np.searchsorted(chunk.starts, row, side="right")) - 1
    return chunk.images[number], row - int(chunk.starts[number])
