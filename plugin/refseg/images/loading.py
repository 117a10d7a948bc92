"""Images decoded and resized in threads. Beside a GPU ahead of the model: at most two batches, and an image a thread, wait.

Where the model runs on the processor, a batch is loaded on all cores before it and nothing meanwhile: the model's threads wait
for each other many times in a batch, and one that lost its core to a decoder holds up all the others.

Images that are to be looked at in tiles stay at their own size: of these at most three are in memory. While they are decoded
all are: together no more than PIXELS_AT_ONCE of them, or one image that is larger, whatever the number of threads.

Threads and not processes: Pillow lets go of the interpreter while it decodes and resizes, a process that holds an open index
cannot be forked, and one started afresh would run its caller's script again. No FiftyOne here all the same: its own loader's
processes, which load images for `refseg.Segmenter`, must never touch its database.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError
from ..printing import one_line
from .pixels import PLAIN, PixelSettings
from .reading import decode, segmenter_pixels

IMAGES_A_BATCH = {"cpu": 2, "mps": 4, "cuda": 8}
"""Images that go through the models together, by the device's type."""

BESIDE_PROCESSOR = frozenset({"cuda", "mps"})
"""Types of devices on which a model leaves the processor to other work."""
BATCHES_AHEAD = 2
"""Batches that may wait for the model, besides one image in each thread."""
WHOLE_IMAGES_AHEAD = 1
"""Images for tiles that may wait: each may take hundreds of megabytes, and keeps the model busy longer than decoding does."""
PIXELS_AT_ONCE = 48_000_000
"""Pixels decoded at once: Pillow takes 4 bytes for each, and as many again to turn or convert the image."""


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the segmenter, or the reason why it cannot be.

    Attributes:
        index: position in the list of paths.
        pixels: (3, S, S) float32 in [0, 1]; None for a bad image, and where it is to be looked at in tiles.
        image_hw: height and width of the upright image.
        error: what is wrong with a bad image.
        image: upright RGB at its own size, where it is to be looked at in tiles.
        orientation: that the file says, 1 to 8; 0 where it could not be read.
    """

    index: int
    pixels: Tensor | None
    image_hw: tuple[int, int]
    error: str | None = None
    image: Image.Image | None = None
    orientation: int = 0

    __repr__ = one_line


class Room:
    """Lets threads in as long as what they bring fits together; one that brings more than fits goes in alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Wait until there is room for so much, and hold it."""
        amount = min(amount, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + amount <= self.size)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()


_decoding = Room(PIXELS_AT_ONCE)


def _make_room() -> None:
    global _decoding
    _decoding = Room(PIXELS_AT_ONCE)


if hasattr(os, "register_at_fork"):
    # FiftyOne's loaders fork: what threads of the parent hold at that moment, nobody in the child would give back.
    os.register_at_fork(after_in_child=_make_room)


def load_image(
    path: str, side: int, index: int = 0, *, tiles: bool = False, keeps: bool = False, reading: PixelSettings = PLAIN
) -> LoadedImage:
    """Read one image, and resize it to S by S unless it is to be looked at in tiles; side is S.

    With keeps, the image comes at its own size too.
    """
    try:
        with ExitStack() as room:
            decoded = decode(path, reading, admit=lambda num_pixels: room.enter_context(_decoding.take(num_pixels)))
            image, image_hw, orientation = decoded.image, decoded.image_hw, decoded.orientation
            if tiles:
                return LoadedImage(index, None, image_hw, image=image, orientation=orientation)
            pixels = segmenter_pixels(image, side)
            if keeps:
                return LoadedImage(index, pixels, image_hw, image=image, orientation=orientation)
            del decoded, image  # before others may decode theirs
            return LoadedImage(index, pixels, image_hw, orientation=orientation)
    except ImageError as error:
        return LoadedImage(index, None, (0, 0), error.reason)
    except MemoryError:
        return LoadedImage(index, None, (0, 0), "the image is too large for this machine's memory")


def as_list(batch: list[LoadedImage]) -> list[LoadedImage]:
    """Collate function: a batch stays a list, because bad images have no pixels."""
    return batch


def default_workers(device: str = "cpu") -> int:
    """All cores, at most eight, where the model waits meanwhile; beside a GPU all but one, at most 16.

    Args:
        device: the device's type.
    """
    cores = os.cpu_count() or 2
    return min(16, max(1, cores - 1)) if device in BESIDE_PROCESSOR else min(8, cores)


def load_batches(
    paths: Sequence[str],
    side: int,
    *,
    batch_size: int,
    num_workers: int | None = None,
    tiles: bool = False,
    device: str = "cpu",
    reading: PixelSettings = PLAIN,
) -> Generator[list[LoadedImage], None, None]:
    """Load images in order, in batches; a bad file is an item with an error, never an exception.

    Closing the generator drops what is queued and waits for the images that are being read.

    Args:
        paths: image files.
        side: S.
        batch_size: images a batch; the last may be short.
        num_workers: threads; 0 loads in the calling one and nothing ahead, None chooses.
        tiles: images are to be looked at in tiles: they keep their size, and come in batches of one, one thread at most ahead.
        device: type of the one that the model runs on, by which threads are chosen, and whether they load ahead.
        reading: how values of more than 8 bits, and more than three bands, are read.
    """
    workers = default_workers(device) if num_workers is None else num_workers
    ahead = BATCHES_AHEAD * batch_size + workers
    if tiles:
        batch_size, workers, ahead = 1, min(1, workers), WHOLE_IMAGES_AHEAD
    options: dict[str, Any] = {"tiles": True} if tiles else {}
    if not reading.is_plain:
        options["reading"] = reading
    load = partial(load_image, **options) if options else load_image
    if not workers:
        images = _load_here(load, paths, side)
    elif tiles or device in BESIDE_PROCESSOR:
        images = _load_ahead(load, paths, side, workers, ahead)
    else:
        images = _load_in_step(load, paths, side, workers, batch_size)
    with closing(images):
        for _ in range(0, len(paths), batch_size):
            yield list(islice(images, batch_size))


def stack_pixels(batch: Sequence[LoadedImage], *, pin: bool = False) -> Tensor:
    """(B, 3, S, S) float32 of the good images of a batch, of which there must be one.

    Args:
        batch: loaded images.
        pin: put them into memory that CUDA copies from by itself, while other work goes on.
    """
    pixels = [image.pixels for image in batch if image.pixels is not None]
    if not pin:
        return torch.stack(pixels)
    return torch.stack(pixels, out=torch.empty(len(pixels), *pixels[0].shape, pin_memory=True))


Load = Callable[[str, int, int], LoadedImage]


def _load_here(load: Load, paths: Sequence[str], side: int) -> Generator[LoadedImage, None, None]:
    for index, path in enumerate(paths):
        yield load(path, side, index)


def _load_in_step(load: Load, paths: Sequence[str], side: int, workers: int, step: int) -> Generator[LoadedImage, None, None]:
    """Images in order, so many at a time; threads load these and no more."""
    with ThreadPoolExecutor(workers, thread_name_prefix="refseg-loading") as pool:
        for start in range(0, len(paths), step):
            some = range(start, min(start + step, len(paths)))
            yield from [future.result() for future in [pool.submit(load, paths[index], side, index) for index in some]]


def _load_ahead(load: Load, paths: Sequence[str], side: int, workers: int, ahead: int) -> Generator[LoadedImage, None, None]:
    """Images in order, while threads load up to this many more."""
    queue: deque[Future[LoadedImage]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="refseg-loading")
    try:
        for index, path in enumerate(paths):
            queue.append(pool.submit(load, path, side, index))
            if len(queue) > ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
