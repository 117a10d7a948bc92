"""Images decoded and resized in threads, ahead of the model: at most three batches, and an image a thread, are in memory.

Threads and not processes: Pillow lets go of the interpreter while it decodes and resizes, a process that holds an open index
cannot be forked, and one started afresh would run its caller's script again. No FiftyOne here all the same: its own loader's
processes, which load images for `refseg.Segmenter`, must never touch its database.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from .errors import ImageError
from .images import read_image, segmenter_pixels

IMAGES_A_BATCH = {"cpu": 2, "mps": 4, "cuda": 8}
"""Images that go through the models together, by the device's type."""

BATCHES_AHEAD = 2
"""Batches that may wait for the model, besides one image in each thread."""


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the segmenter, or the reason why it cannot be.

    Attributes:
        index: position in the list of paths.
        pixels: (3, S, S) float32 in [0, 1]; None for a bad image.
        image_hw: height and width of the upright image.
        error: what is wrong with a bad image.
    """

    index: int
    pixels: Tensor | None
    image_hw: tuple[int, int]
    error: str | None = None


def load_image(path: str, side: int, index: int = 0) -> LoadedImage:
    """Read and resize one image; side is S."""
    try:
        image = read_image(path)
        return LoadedImage(index, segmenter_pixels(image, side), (image.height, image.width))
    except ImageError as error:
        return LoadedImage(index, None, (0, 0), error.reason)
    except MemoryError:
        return LoadedImage(index, None, (0, 0), "the image is too large for this machine's memory")


def as_list(batch: list[LoadedImage]) -> list[LoadedImage]:
    """Collate function: a batch stays a list, because bad images have no pixels."""
    return batch


def default_workers() -> int:
    """Half of the cores, at most eight: the model needs the others."""
    return min(8, max(1, (os.cpu_count() or 2) // 2))


def load_batches(
    paths: Sequence[str], side: int, *, batch_size: int, num_workers: int | None = None
) -> Generator[list[LoadedImage], None, None]:
    """Load images in order, in batches; a bad file is an item with an error, never an exception.

    Closing the generator drops what is queued and waits for the images that are being read.

    Args:
        paths: image files.
        side: S.
        batch_size: images a batch; the last may be short.
        num_workers: threads; 0 loads in the calling one and nothing ahead, None chooses.
    """
    workers = default_workers() if num_workers is None else num_workers
    ahead = BATCHES_AHEAD * batch_size + workers
    images = _load_ahead(paths, side, workers, ahead) if workers else _load_here(paths, side)
    with closing(images):
        for _ in range(0, len(paths), batch_size):
            yield list(islice(images, batch_size))


def stack_pixels(batch: Sequence[LoadedImage]) -> Tensor:
    """(B, 3, S, S) float32 of the good images of a batch."""
    return torch.stack([image.pixels for image in batch if image.pixels is not None])


def _load_here(paths: Sequence[str], side: int) -> Generator[LoadedImage, None, None]:
    for index, path in enumerate(paths):
        yield load_image(path, side, index)


def _load_ahead(paths: Sequence[str], side: int, workers: int, ahead: int) -> Generator[LoadedImage, None, None]:
    """Images in order, while threads load up to this many more."""
    queue: deque[Future[LoadedImage]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="refseg-loading")
    try:
        for index, path in enumerate(paths):
            queue.append(pool.submit(load_image, path, side, index))
            if len(queue) > ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
