"""Images decoded and resized in worker processes, ahead of the model. No FiftyOne, so that workers never touch its database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .errors import ImageError
from .images import read_image, segmenter_pixels

IMAGES_A_BATCH = {"cpu": 2, "mps": 4, "cuda": 8}
"""Images that go through the models together, by the device's type."""


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


class ImageFiles(Dataset[LoadedImage]):
    """Image files as a torch dataset; a bad file is an item with an error, never an exception."""

    def __init__(self, paths: Sequence[str], side: int) -> None:
        self.paths = list(paths)
        self.side = side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LoadedImage:
        return load_image(self.paths[index], self.side, index)


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
) -> Iterator[list[LoadedImage]]:
    """Load images in order, in batches.

    Args:
        paths: image files.
        side: S.
        batch_size: images a batch; the last may be short.
        num_workers: processes; 0 loads in this one, None chooses.
    """
    workers = default_workers() if num_workers is None else num_workers
    if len(paths) <= batch_size:
        workers = 0
    loader: DataLoader[LoadedImage] = DataLoader(
        ImageFiles(paths, side), batch_size=batch_size, num_workers=workers, collate_fn=as_list
    )
    yield from loader


def stack_pixels(batch: Sequence[LoadedImage]) -> Tensor:
    """(B, 3, S, S) float32 of the good images of a batch."""
    return torch.stack([image.pixels for image in batch if image.pixels is not None])
