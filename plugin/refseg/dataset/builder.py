"""Candidates of images that an index does not hold: computed, packed and added to it."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from PIL import Image
from torch import Tensor

from ..candidates import (
    NEAR_DUPLICATE_IOU,
    Candidates,
    PackedCandidates,
    PresenceGate,
    pack,
    propose_from_pixels,
    propose_tiles,
)
from ..errors import IndexWriteError
from ..images import (
    BESIDE_PROCESSOR,
    IMAGES_A_BATCH,
    PLAIN,
    LoadedImage,
    PixelSettings,
    load_batches,
    run_ahead,
    stack_pixels,
)
from ..index import FileState
from ..models import Models
from .index import (
    DatasetIndex,
    record_index,
)

logger = logging.getLogger(__name__)


SECONDS_A_WRITE = 10.0


IMAGES_A_WRITE = 256
"""Candidates are written when either is reached: what a killed process loses."""


IMAGES_A_STRETCH = 64
"""After so many images a builder looks which ones another builder has done meanwhile."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read."""

    sample_id: str
    filepath: str
    reason: str


@dataclass(frozen=True)
class ImageFile:
    """One image to be computed: its sample, its path, and the state of its file."""

    sample_id: str
    path: str
    state: FileState


def _with_orientation(image: ImageFile, orientation: int) -> ImageFile:
    """The same with what its file was found to say when it was read."""
    return replace(image, state=replace(image.state, orientation=orientation))


@dataclass(frozen=True)
class Computed:
    """An image and its candidates: packed where an index is to keep them, None where the image gave none to compute."""

    image: ImageFile
    candidates: Candidates | PackedCandidates | None


@dataclass(frozen=True)
class _Batch:
    """Images on their way from their files to their candidates.

    Attributes:
        files: the images.
        errors: why one cannot be read, or None, for each that was tried; empty where another builder has done them.
        sizes: height and width of each good one.
        pixels: (B, 3, S, S) float32 of the good ones, until the models have seen them; None in tiles.
        pictures: the good ones at their own size, where they are looked at in tiles.
        found: candidates of each good one.
        seconds: that the models took.
    """

    files: Sequence[ImageFile]
    errors: Sequence[str | None] = ()
    sizes: Sequence[tuple[int, int]] = ()
    pixels: Tensor | None = None
    pictures: Sequence[Image.Image] = ()
    found: Sequence[Candidates | PackedCandidates] = ()
    seconds: float = 0.0


@dataclass
class Builder:
    """Computes candidates of images and adds them to an index, if there is one.

    Attributes:
        index: where candidates are kept; None keeps none.
        models: that compute them.
        num_workers: threads that decode images.
        goes_on: whether to go on without keeping anything when the index cannot be written to.
        tiles: whether to look at images in tiles where no index decides it.
        gate: spares the segmenter what shows none of its classes; images with anything spared are not kept.
        pixels: how images are read where no index decides it.
        skipped: images that could not be read.
        done_elsewhere: ids of images that another builder has done meanwhile; they are in the index.
        num_computed: images computed.
        num_gated: of these, images that the gate kept from the segmenter, as a whole or in part.
        trouble: why candidates are no longer kept.
    """

    index: DatasetIndex | None
    models: Models
    num_workers: int | None = None
    goes_on: bool = False
    skipped: list[SkippedImage] = field(default_factory=list)
    done_elsewhere: list[str] = field(default_factory=list)
    num_computed: int = 0
    trouble: str | None = None
    tiles: bool = False
    gate: PresenceGate | None = None
    num_gated: int = 0
    pixels: PixelSettings = PLAIN
    _unwritten: list[tuple[str, FileState, PackedCandidates]] = field(default_factory=list)
    _written_at: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    def compute(self, images: Sequence[ImageFile]) -> Generator[list[Computed], None, None]:
        """Candidates of images, batch by batch; images that cannot be read, or were done elsewhere, come without any.

        Beside a GPU the models look at the next batch while one is dealt with. Closing waits for that one and drops it.

        Raises:
            IndexWriteError: the index cannot be written to, and goes_on is not set.
        """
        # Not on a processor, see loading.py; nor with tiles: closing would wait for all windows of an image, and drop them.
        side_by_side = self.models.device.type in BESIDE_PROCESSOR and self.num_workers != 0 and not self.uses_tiles
        loaded = self._load(images)
        if side_by_side:
            loaded = run_ahead(loaded, "refseg-batches")
        proposed = self._propose_all(loaded)
        if side_by_side:
            proposed = run_ahead(proposed, "refseg-models")
        with closing(proposed):
            for batch in proposed:
                yield self._keep(batch)
                self._write_if_due()

    def close(self) -> None:
        """Write what is not written yet, and renew the index's record.

        Raises:
            IndexWriteError: the index cannot be written to, and goes_on is not set.
        """
        try:
            self._write()
        finally:
            if self.index is not None and self.num_computed > self.num_gated:
                record_index(self.index, self._seconds / (self.num_computed - self.num_gated))

    @property
    def uses_tiles(self) -> bool:
        """Whether images are looked at in tiles."""
        return self.tiles if self.index is None else self.index.index.settings.tiles

    def _load(self, images: Sequence[ImageFile]) -> Generator[_Batch, None, None]:
        """Images read, in batches, and those that another builder has done meanwhile."""
        device = self.models.device.type
        waiting = list(images)
        while waiting:
            stretch, waiting = self._next_stretch(waiting)
            done = [image for image in stretch if self._is_held(image)]
            if done:
                yield _Batch(done)
            rest = [image for image in stretch if not self._is_held(image)]
            batches = load_batches(
                [image.path for image in rest],
                self.models.segmenter_side,
                batch_size=IMAGES_A_BATCH[device],
                num_workers=self.num_workers,
                tiles=self.uses_tiles,
                device=device,
                reading=self.pixels if self.index is None else self.index.index.settings.pixel_settings,
            )
            with closing(batches):
                for batch in batches:
                    yield self._stack(batch, rest)

    def _stack(self, batch: Sequence[LoadedImage], images: Sequence[ImageFile]) -> _Batch:
        good = [loaded for loaded in batch if loaded.error is None]
        pixels = None
        if good and not self.uses_tiles:
            pixels = stack_pixels(good, pin=self.models.device.type == "cuda")
        return _Batch(
            [_with_orientation(images[loaded.index], loaded.orientation) for loaded in batch],
            [loaded.error for loaded in batch],
            [loaded.image_hw for loaded in good],
            pixels,
            [loaded.image for loaded in good if loaded.image is not None],
        )

    def _propose_all(self, batches: Generator[_Batch, None, None]) -> Generator[_Batch, None, None]:
        with closing(batches):
            for batch in batches:
                started = time.monotonic()
                found = self._propose(batch)
                yield replace(batch, pixels=None, pictures=(), found=found, seconds=time.monotonic() - started)

    def _propose(self, batch: _Batch) -> Sequence[Candidates | PackedCandidates]:
        max_iou = None if self._keeps_all else NEAR_DUPLICATE_IOU
        if batch.pixels is not None:
            return propose_from_pixels(batch.pixels, batch.sizes, self.models, max_iou=max_iou, gate=self.gate)
        return [
            propose_tiles(picture, self.models, max_iou=max_iou, gate=self.gate, fine=self._keeps_all)
            for picture in batch.pictures
        ]

    @property
    def _keeps_all(self) -> bool:
        return self.index is None or self.index.index.settings.exact

    def _keep(self, batch: _Batch) -> list[Computed]:
        """Pack what was found, and note what is to be written."""
        if not batch.errors:
            self.done_elsewhere += [image.sample_id for image in batch.files]
            return [Computed(image, None) for image in batch.files]
        found = iter([self._packed(candidates) for candidates in batch.found])
        answer = []
        for image, error in zip(batch.files, batch.errors, strict=True):
            if error is not None:
                self.skipped.append(SkippedImage(image.sample_id, image.path, error))
            answer.append(Computed(image, next(found) if error is None else None))
        if self.index is not None and self.trouble is None:
            self._unwritten += [
                (computed.image.sample_id, computed.image.state, computed.candidates)
                for computed in answer
                if isinstance(computed.candidates, PackedCandidates) and not computed.candidates.gated
            ]
        gated = sum(candidates.gated for candidates in batch.found)
        self.num_computed += len(batch.found)
        self.num_gated += gated
        if gated < len(batch.found):
            # What the encoder alone takes tells nothing of the images to come.
            self._seconds += batch.seconds
        return answer

    def _packed(self, candidates: Candidates | PackedCandidates) -> Candidates | PackedCandidates:
        if self.index is None or isinstance(candidates, PackedCandidates):
            return candidates
        return pack(candidates, fine=self._keeps_all)

    def _next_stretch(self, waiting: list[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        """Some images to do next, and the others: two builders that know of each other meet in the middle."""
        size = len(waiting) if self.index is None else IMAGES_A_STRETCH
        if self._is_second():
            return waiting[-size:], waiting[:-size]
        return waiting[:size], waiting[size:]

    def _is_second(self) -> bool:
        if self.index is None:
            return False
        tables = self.index.index
        return any(builder < tables.builder for builder in tables.new_builders)

    def _is_held(self, image: ImageFile) -> bool:
        return self.index is not None and self.index.holds(image.sample_id, image.state, image.path)

    def _write_if_due(self) -> None:
        if time.monotonic() - self._written_at >= SECONDS_A_WRITE or len(self._unwritten) >= IMAGES_A_WRITE:
            self._write()

    def _write(self) -> None:
        if self.index is None or not self._unwritten:
            return
        try:
            self.index.index.append(self._unwritten)
            self.index.index.refresh()
            self.index.index.tidy_if_due()
        except IndexWriteError as error:
            if not self.goes_on:
                raise
            self.trouble = str(error)
            logger.warning("Candidates are no longer kept: %s", error)
        finally:
            self._unwritten = []
            self._written_at = time.monotonic()
