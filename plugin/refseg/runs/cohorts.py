"""A sample of a dataset's candidates, looked at twice: what its second looks are whitened by."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch

from ..dataset import drawn_images, drawn_rows, in_drawn_order, iter_candidates
from ..index import IndexedImage
from ..matching import Looked
from ..progress import Progress
from ..prototypes import Cohort
from .looking import Looker

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 12
"""Where the index holds fewer others than the images of references, so many are computed, and kept."""
FEWEST = 32
"""Fewer candidates stand for no dataset."""


def iter_cohort(dataset: Any, looker: Looker, chosen_before: Collection[str] = ()) -> Generator[Progress, None, Cohort | None]:
    """Take candidates of up to a hundred images of the index, as many of each, the same as long as the images are there.

    Where the index holds fewer than FEWEST_IMAGES, others are computed and kept; where no model is to be had, none are.

    Args:
        dataset: every image of it.
        looker: looks again, and says which index there is.
        chosen_before: ids of images that are left out, because somebody chose them.

    Returns:
        None where nobody looks twice, without an index, and where the dataset holds too little.
    """
    source, prototypes = looker.source, looker.prototypes
    if not source.preset.second_looks or prototypes.looks is None or source.index is None:
        return None
    images = source.index.index.images
    paths = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    others = in_drawn_order(paths, chosen_before)
    held = drawn_images(others, images)
    missing = [name for name in others if name not in images][: max(0, FEWEST_IMAGES - len(held))]
    chosen = held + (missing if missing and looker.has_models() else [])
    if not chosen:
        return None
    known = {(image.sample_id, image.key): looked for image, looked in _known(looker, held)}
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    yield Progress(0, len(chosen), "images of the dataset")
    with closing(iter_candidates(source, dataset.select(chosen), prototypes)) as every:
        for done, (name, candidates) in enumerate(every, 1):
            if candidates is not None and len(candidates):
                rows = drawn_rows(paths[name], len(candidates), len(chosen))
                # Computing may have moved on to another index.
                image = source.index.index.images.get(name)
                seen = None if image is None else known.get((name, image.key))
                looked = looker.look(name, paths[name], candidates, rows, seen)
                if looked is not None:
                    order = looked.rows.argsort()
                    found[name] = candidates.features[looked.rows[order]], looked.looks[order]
            looker.write_if_due()
            yield Progress(done, len(chosen), "images of the dataset")
    if sum(int(looks.any(1).sum()) for _, looks in found.values()) < FEWEST:
        return None
    # In one order, whichever was written to the index first.
    features, looks = zip(*(found[name] for name in chosen if name in found), strict=True)
    num_images = sum(name in source.index.index.images for name in others)
    return Cohort(torch.cat(features).half(), torch.cat(looks).half(), num_images)


def _known(looker: Looker, held: Sequence[str]) -> Iterator[tuple[IndexedImage, Looked | None]]:
    """What the index holds of some images."""
    assert looker.source.index is not None
    images = [looker.source.index.index.images[name] for name in held]
    return zip(images, looker.known(images), strict=True)
