"""Candidates that stand for a dataset: of up to a hundred indexed images, as many of each. A build looks at them twice.

They do not depend on references, so whoever learns from the first references finds these looks in the index, and does not wait
for them. Nor do they depend on the order of images: the same images give the same candidates, in another dataset too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from ..errors import IndexWriteError
from ..index import IndexedImage, Look
from ..matching import look_at_file
from ..models import Models
from ..progress import Progress
from ..prototypes import MAX_COHORT
from .index import DatasetIndex
from .index_pixels import ids_and_paths

logger = logging.getLogger(__name__)

MOST_IMAGES = 100
IMAGES_A_WRITE = 25


def in_drawn_order(paths: Mapping[str, str], without: Collection[str] = ()) -> list[str]:
    """Sample ids in the order in which images are drawn.

    Args:
        paths: of the images' files, by sample id.
        without: ids that are left out.
    """
    return sorted(paths.keys() - set(without), key=lambda own: (_draw(Path(paths[own]).name), paths[own], own))


def drawn_images(order: Iterable[str], images: Mapping[str, IndexedImage]) -> list[str]:
    """The first of these that an index holds with candidates, at most MOST_IMAGES."""
    return [name for name in order if name in images and images[name].num_candidates][:MOST_IMAGES]


def drawn_rows(path: str, num_candidates: int, num_images: int) -> Tensor:
    """(n,) int64 rows of an image's candidates, where so many images stand for the dataset."""
    drawn = sorted((_draw(f"{Path(path).name} {row}"), row) for row in range(num_candidates))
    return torch.tensor([row for _, row in drawn[: MAX_COHORT // num_images]], dtype=torch.int64)


def look_at_drawn(index: DatasetIndex, models: Models) -> Generator[Progress, None, None]:
    """Look again at what stands for the dataset, and keep it, once the index holds enough images: a hundred.

    In a smaller one that would be a large part of the build, and whoever learns does it as well. For the same reason an index
    that cannot be written to is left as it is.

    Args:
        index: of the dataset.
        models: that built it.
    """
    tables = index.index
    if not models.preset.second_looks or len(tables.images) < MOST_IMAGES:
        return
    paths = dict(zip(*ids_and_paths(index.dataset), strict=True))
    every = [tables.images[name] for name in drawn_images(in_drawn_order(paths), tables.images)]
    if len(every) < MOST_IMAGES:
        return
    seen = {image.key: set(rows.tolist()) for image, (rows, _) in zip(every, tables.looks.read(every), strict=True)}

    def missing(image: IndexedImage) -> Tensor:
        rows = drawn_rows(paths[image.sample_id], image.num_candidates, len(every))
        return rows[[row not in seen.get(image.key, ()) for row in rows.tolist()]]

    waiting = [image.sample_id for image in every if len(missing(image))]
    looks: list[Look] = []
    try:
        with closing(tables.scan(waiting)) as chunks:
            images = ((image, chunk.candidates(number)) for chunk in chunks for number, image in enumerate(chunk.images))
            for done, (image, candidates) in enumerate(images):
                yield Progress(done, len(waiting), "second looks")
                pixels = tables.settings.pixel_settings
                looked = look_at_file(paths[image.sample_id], candidates, missing(image), models, pixels)
                if looked is not None:
                    looks.append((image, looked.rows, looked.looks))
                if len(looks) == IMAGES_A_WRITE:
                    tables.looks.append(looks)
                    looks = []
        tables.looks.append(looks)
    except IndexWriteError as error:
        logger.warning("Second looks are not kept: %s", error)


def _draw(name: str) -> str:
    """By what is chosen: at random, and the same each time."""
    return hashlib.sha256(name.encode()).hexdigest()
