"""Candidates of images that an index does not hold: computed, packed and added to it.

Builders at once share the images: each leases some, computes and writes them, and leases the next. What another one has
leased is waited for at the end, and computed here where that one gives up or is gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from PIL import Image
from torch import Tensor

from ..candidates import (
    Candidates,
    PackedCandidates,
    PresenceGate,
    pack,
    propose_read,
)
from ..errors import IndexNotFoundError, IndexWriteError
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
from ..index import FileState, ImageFile, Leases, SkippedImage
from ..models import Models
from .index import (
    DatasetIndex,
    record_index,
)

logger = logging.getLogger(__name__)


SECONDS_A_WRITE = 10.0


IMAGES_A_WRITE = 256
"""Candidates are written when either is reached: what a killed process loses."""


SECONDS_A_LEASE = 10.0
"""About so long a builder takes for the images that it leases at once: what others may have to wait for at the end."""


BATCHES_A_LEASE = 4
"""A lease holds for so many batches at least."""


SECONDS_A_LOOK = 1.0
"""So often a builder looks whether images that others have leased are done."""


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
        num_awaited: images that other builders have leased; such a batch is empty.
    """

    files: Sequence[ImageFile]
    errors: Sequence[str | None] = ()
    sizes: Sequence[tuple[int, int]] = ()
    pixels: Tensor | None = None
    pictures: Sequence[Image.Image] = ()
    found: Sequence[Candidates | PackedCandidates] = ()
    seconds: float = 0.0
    num_awaited: int = 0


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
        num_awaited: images that are left, all of which other builders compute at the moment; 0 while this one has work.
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
    num_awaited: int = 0
    _leases: Leases | None = None
    _unwritten: list[tuple[str, FileState, PackedCandidates]] = field(default_factory=list)
    _written_at: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    def compute(self, images: Sequence[ImageFile]) -> Generator[list[Computed], None, None]:
        """Candidates of images, batch by batch; images that cannot be read, or were done elsewhere, come without any.

        While it waits for other builders batches are empty. Beside a GPU the models look at the next batch while one is dealt
        with. Closing waits for that one and drops it.

        Raises:
            IndexWriteError: the index cannot be written to, and goes_on is not set.
        """
        if self.index is not None and self.trouble is None:
            self._leases = self.index.index.leases()
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
                answer = self._keep(batch)
                if batch.num_awaited:
                    # Others may be waiting for these.
                    self._write()
                yield answer
                self._write_if_due()

    def close(self) -> None:
        """Write what is not written yet, and renew the index's record.

        Raises:
            IndexWriteError: the index cannot be written to, and goes_on is not set.
        """
        try:
            self._write()
        finally:
            if self._leases is not None:
                self._leases.close()
            if self.index is not None and self.num_computed > self.num_gated:
                record_index(self.index, self._seconds_per_image)

    @property
    def _seconds_per_image(self) -> float | None:
        num_images = self.num_computed - self.num_gated
        return self._seconds / num_images if num_images else None

    @property
    def uses_tiles(self) -> bool:
        """Whether images are looked at in tiles."""
        return self.tiles if self.index is None else self.index.index.settings.tiles

    def _load(self, images: Sequence[ImageFile]) -> Generator[_Batch, None, None]:
        """Images read, in batches, and those that another builder has done meanwhile."""
        device = self.models.device.type
        waiting = deque(images)
        while waiting:
            done, mine = self._share_out(waiting)
            if done:
                yield _Batch(done)
            elif not mine:
                yield _Batch((), num_awaited=len(waiting))
                time.sleep(SECONDS_A_LOOK)
            batches = load_batches(
                [image.path for image in mine],
                self.models.segmenter_side,
                batch_size=IMAGES_A_BATCH[device],
                num_workers=self.num_workers,
                tiles=self.uses_tiles,
                device=device,
                reading=self.pixels if self.index is None else self.index.index.settings.pixel_settings,
            )
            with closing(batches):
                for batch in batches:
                    yield self._stack(batch, mine)

    @property
    def label(self) -> str:
        """What progress is counted in, and whether others are waited for."""
        return f"images, {self.num_awaited} of them at work in another builder" if self.num_awaited else "images"

    def _stack(self, batch: Sequence[LoadedImage], images: Sequence[ImageFile]) -> _Batch:
        good = [loaded for loaded in batch if loaded.error is None]
        pixels = None
        if good and not self.uses_tiles:
            pixels = stack_pixels(good, pin=self.models.device.type == "cuda")
        return _Batch(
            [images[loaded.index].with_orientation(loaded.orientation) for loaded in batch],
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
        return propose_read(batch.pixels, batch.sizes, batch.pictures, self.models, exact=self._keeps_all, gate=self.gate)

    @property
    def _keeps_all(self) -> bool:
        return self.index is None or self.index.index.settings.exact

    def _keep(self, batch: _Batch) -> list[Computed]:
        """Pack what was found, and note what is to be written."""
        sample_ids = [image.sample_id for image in batch.files]
        self.num_awaited = batch.num_awaited
        if self._leases is not None:
            self._leases.thread = threading.get_ident()
            self._leases.seconds = max(self._leases.seconds, BATCHES_A_LEASE * batch.seconds)
            self._leases.settle(sample_ids)
        if not batch.errors:
            self.done_elsewhere += sample_ids
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

    def _share_out(self, waiting: deque[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        """Take images from those that wait: some that are in the index by now, and some that are this builder's to compute."""
        if self._leases is None:
            mine = [waiting.popleft() for _ in range(len(waiting))]
            return [], mine
        try:
            return self._lease(self._leases, waiting)
        except (OSError, ValueError) as error:
            logger.info("Nobody else is told which images are computed: %s", error)
            self._leases = None
            return self._share_out(waiting)

    def _lease(self, leases: Leases, waiting: deque[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        assert self.index is not None
        others = leases.others()
        size = self._lease_size(len(waiting), len(set(others.values())))
        done: list[ImageFile] = []
        free: list[ImageFile] = []
        passed: list[ImageFile] = []
        for image in waiting:
            if len(free) == size:
                break
            (done if self._is_held(image) else passed if image.sample_id in others else free).append(image)
        won = leases.take([image.sample_id for image in free]) if free else set()
        for _ in range(len(done) + len(free) + len(passed)):
            waiting.popleft()
        waiting.extendleft(image for image in reversed([*passed, *free]) if image.sample_id not in won)
        if free and not won and not done:
            # Others were faster with all of these: what they have leased is known now.
            return self._lease(leases, waiting)
        # A builder ends a lease once its images are written: what was free, and not leased by now, may be in the index.
        try:
            self.index.index.refresh_if_changed()
        except IndexNotFoundError:
            # Somebody has deleted it: the report says what is missing then.
            self.index.index.make_again()
        mine = [image for image in free if image.sample_id in won]
        found = [image for image in mine if self._is_held(image)]
        leases.settle([image.sample_id for image in found])
        return done + found, [image for image in mine if image not in found]

    def _lease_size(self, num_waiting: int, num_others: int) -> int:
        """How many images to lease at once: whole batches, few enough that nobody waits long for the last ones."""
        batch = IMAGES_A_BATCH[self.models.device.type]
        each = self._seconds_per_image
        if each is None:
            return batch
        fair = num_waiting // (2 * num_others + 2) if num_others else num_waiting
        return max(1, int(min(SECONDS_A_LEASE / each, fair, IMAGES_A_WRITE)) // batch) * batch

    def _is_held(self, image: ImageFile) -> bool:
        return self.index is not None and self.index.holds(image.sample_id, image.state, image.path)

    def _write_if_due(self) -> None:
        if time.monotonic() - self._written_at >= SECONDS_A_WRITE or len(self._unwritten) >= IMAGES_A_WRITE:
            self._write()

    def _write(self) -> None:
        if self.index is None:
            return
        try:
            if self._unwritten:
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
        self._tell()

    def _tell(self) -> None:
        """End the leases of what is done, and say that this builder is still there."""
        if self._leases is None:
            return
        try:
            self._leases.release()
            self._leases.renew_if_due()
        except (OSError, ValueError) as error:
            logger.info("Leases were not ended: %s", error)
