"""A sample of a dataset's candidates, looked at twice: what its second looks are whitened by."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Generator, Sequence
from typing import Any

import torch

from ..progress import Progress
from ..prototypes import MAX_COHORT, Cohort
from .looking import Looker

logger = logging.getLogger(__name__)

CANDIDATES_AN_IMAGE = 3
"""More where there are too few images for MAX_COHORT."""
FEWEST = 32
"""Fewer candidates stand for no dataset."""


def iter_cohort(dataset: Any, looker: Looker, chosen_before: Collection[str] = ()) -> Generator[Progress, None, Cohort | None]:
    """Take a few candidates of each of up to a hundred indexed images, the same ones each time as long as these are there.

    Of fewer images more candidates each are taken, so that there are MAX_COHORT wherever the dataset has as many.

    Args:
        dataset: every image of it.
        looker: looks again, and says which index there is.
        chosen_before: ids of images that are left out, because somebody chose them.

    Returns:
        None where nobody looks twice, without an index, and where it holds too little.
    """
    source, prototypes = looker.source, looker.prototypes
    if not source.preset.second_looks or prototypes.looks is None or source.index is None:
        return None
    tables = source.index.index
    paths = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    indexed = [name for name in paths if name in tables.images and tables.images[name].num_candidates]
    held = [name for name in indexed if name not in chosen_before]
    chosen = sorted(held, key=_draw)[: MAX_COHORT // CANDIDATES_AN_IMAGE]
    numbers = _shared_out([tables.images[name].num_candidates for name in chosen], MAX_COHORT)
    if sum(numbers) < FEWEST:
        return None
    number_of = dict(zip(chosen, numbers, strict=True))
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    yield Progress(0, len(chosen), "images of the dataset")
    done = 0
    for chunk in tables.scan(chosen):
        for number, (image, known) in enumerate(zip(chunk.images, looker.known(chunk.images), strict=True)):
            candidates = chunk.candidates(number)
            drawn = sorted((_draw(f"{image.sample_id} {row}"), row) for row in range(len(candidates)))
            rows = torch.tensor([row for _, row in drawn[: number_of[image.sample_id]]], dtype=torch.int64)
            looked = looker.look(image.sample_id, paths[image.sample_id], candidates, rows, known)
            if looked is not None:
                order = looked.rows.argsort()
                found[image.sample_id] = candidates.features[looked.rows[order]], looked.looks[order]
            looker.write_if_due()
            done += 1
            yield Progress(done, len(chosen), "images of the dataset")
    if sum(int(looks.any(1).sum()) for _, looks in found.values()) < FEWEST:
        return None
    # In one order, whichever was written to the index first.
    features, looks = zip(*(found[name] for name in chosen if name in found), strict=True)
    return Cohort(torch.cat(features).half(), torch.cat(looks).half(), len(held))


def _shared_out(held: Sequence[int], most: int) -> list[int]:
    """How many candidates to take of each image, as equally as what they hold allows, and no more than so many in all.

    Example:
        >>> _shared_out([1, 5, 9], 10)
        [1, 5, 4]
    """
    taken = [0] * len(held)
    left = most
    while left and any(own < number for own, number in zip(taken, held, strict=True)):
        for row, number in enumerate(held):
            if left and taken[row] < number:
                taken[row] += 1
                left -= 1
    return taken


def _draw(name: str) -> str:
    """By what is chosen: at random, and the same each time."""
    return hashlib.sha256(name.encode()).hexdigest()
