"""Images of `refseg coco`: which there are, and their candidates, batch by batch. No FiftyOne."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..candidates import Candidates, PackedCandidates, PresenceGate, propose_read
from ..errors import CocoError
from ..images import IMAGES_A_BATCH, PLAIN, LoadedImage, PixelSettings, load_batches, stack_pixels
from ..matching import NAMES_FILE, holds_maps
from ..models import Models
from .files import CocoDataset, CocoImage, size_mismatch

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".png", ".tif", ".tiff", ".webp", ".avif"}
IMAGE_SUFFIXES |= {".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".tga"}

FolderId: TypeAlias = tuple[int, int]
"""Device and number of a folder."""


@dataclass(frozen=True)
class Proposed:
    """An image and its candidates, or the reason why it has none.

    Attributes:
        image: its entry.
        path: of its file.
        candidates: None for an image that is skipped.
        error: why it is.
    """

    image: CocoImage
    path: str
    candidates: Candidates | PackedCandidates | None
    error: str = ""


@dataclass(frozen=True, eq=False)
class Proposer:
    """How candidates are made.

    Attributes:
        models: that make them.
        folder: that file names are relative to.
        tiles: look at each image larger than the segmenter's input in overlapping tiles too.
        num_workers: threads that decode images; 0 for none.
        pixels: how they are read.
    """

    models: Models
    folder: Path
    tiles: bool = False
    num_workers: int | None = None
    pixels: PixelSettings = PLAIN

    def path_of(self, image: CocoImage) -> str:
        """Of the file of an image."""
        return str(self.folder / image.file_name)

    def propose(self, images: Sequence[CocoImage], gate: PresenceGate | None = None) -> Generator[list[Proposed], None, None]:
        """Candidates of images, batch by batch; see PresenceGate for the gate."""
        paths = [self.path_of(image) for image in images]
        device, side = self.models.device.type, self.models.segmenter_side
        size, workers = IMAGES_A_BATCH[device], self.num_workers
        with closing(
            load_batches(
                paths,
                side,
                batch_size=size,
                num_workers=workers,
                tiles=self.tiles,
                device=device,
                reading=self.pixels,
            )
        ) as batches:
            for batch in batches:
                errors = [_unusable(loaded, images[loaded.index]) for loaded in batch]
                good = [loaded for loaded, error in zip(batch, errors, strict=True) if not error]
                found = iter(self._propose(good, gate))
                yield [
                    Proposed(images[loaded.index], paths[loaded.index], None if error else next(found), error)
                    for loaded, error in zip(batch, errors, strict=True)
                ]

    def _propose(self, batch: Sequence[LoadedImage], gate: PresenceGate | None) -> Sequence[Candidates | PackedCandidates]:
        if not batch:
            return []
        pictures = [loaded.image for loaded in batch if loaded.image is not None]
        pixels = None if self.tiles else stack_pixels(batch)
        return propose_read(pixels, [loaded.image_hw for loaded in batch], pictures, self.models, exact=True, gate=gate)


def scan(folder: Path) -> CocoDataset:
    """Every image file under a folder, by path, with ids from 1; links to folders are followed, but never in a circle.

    What macOS writes beside files on other systems' disks, "._" and the name, is no image. A name that is no UTF-8 has a
    surrogate in place of each of its odd bytes, as everywhere in Python.

    Raises:
        CocoError: there is none.
    """
    names = sorted(_image_names(folder))
    if not names:
        raise CocoError(f"There is no image under {folder}.")
    return CocoDataset(str(folder), {row: CocoImage(row, name) for row, name in enumerate(names, 1)}, {}, ())


def check_scanned(outputs: Mapping[Path, str], scanned: Mapping[str, Path]) -> None:
    """Refuse pictures that would be written where images are looked for: the next run would take them for images.

    Args:
        outputs: what each is called, by path; those whose name is not that of a picture may lie anywhere.
        scanned: folders whose images all count, by what they are called.

    Raises:
        CocoError: one lies in such a folder; the message names both.
    """
    pictures = {path.parent: path for path in outputs if path.suffix.lower() in IMAGE_SUFFIXES}
    for name, folder in scanned.items() if pictures else ():
        here = {place for place, _, _ in _walk(folder)}
        for place, path in pictures.items():
            if not here.isdisjoint(_folders_from(place)):
                raise CocoError(
                    f"{outputs[path]} would write {path} into {folder}, where the next run would take it for one of the images"
                    f" of {name}: choose a place outside this folder."
                )


def _folders_from(place: Path) -> Iterator[FolderId]:
    """A folder and those above it, as far as they are there."""
    real = Path(os.path.realpath(place))
    return (_folder_id(folder) for folder in (real, *real.parents) if folder.is_dir())


def _image_names(folder: Path) -> Iterator[str]:
    """Path of each image file relative to a folder, with slashes."""
    for _, place, files in _walk(folder):
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() not in IMAGE_SUFFIXES or name.startswith("._"):
                continue
            if path.is_file():
                yield path.relative_to(folder).as_posix()
            else:
                logger.warning("%s is passed over: it leads to no file", path)


def _walk(folder: Path) -> Iterator[tuple[FolderId, str, list[str]]]:
    """Each folder in which images are looked for, and the names of its files."""
    above: dict[str, frozenset[FolderId]] = {}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_say_closed):
        if NAMES_FILE in files and place != os.fspath(folder) and holds_maps(Path(place)):
            logger.warning("%s holds maps of classes that were made of images, and is passed over", place)
            folders.clear()
            continue
        here = _folder_id(place)
        inside = above.pop(place, frozenset()) | {here}
        for name in list(folders):
            below = os.path.join(place, name)
            try:
                found = _folder_id(below)
            except OSError:
                folders.remove(name)
                continue
            if found in inside:
                # A link to a folder that this one lies in.
                folders.remove(name)
            else:
                above[below] = inside
        yield here, place, files


def _say_closed(error: OSError) -> None:
    logger.warning("The folder %s cannot be read and is passed over: %s", error.filename, error.strerror)


def _folder_id(place: str | Path) -> FolderId:
    """The same by whatever link it is reached."""
    found = os.stat(place)
    return found.st_dev, found.st_ino


def _unusable(loaded: LoadedImage, image: CocoImage) -> str:
    """Why an image is skipped: results must fit the size that the targets' masks are made for."""
    if loaded.error is not None:
        return loaded.error
    if image.image_hw is not None and image.image_hw != loaded.image_hw:
        return size_mismatch(image, loaded.image_hw)
    return ""
