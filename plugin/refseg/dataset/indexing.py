"""Building the candidate index of a FiftyOne dataset: which images are missing, their candidates, batch by batch.

Costs what proposing candidates costs, once an image. Beside a GPU images are read in threads, the models run in one of their
own, a batch ahead of whoever takes the candidates, and packing and writing go on meanwhile; on a processor they take turns,
each on all cores. What is done is written every ten seconds: a killed process loses no more than that and the batches in work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

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
from ..checks import require_flags, require_whole
from ..errors import IndexNotFoundError, IndexWriteError
from ..images import (
    BESIDE_PROCESSOR,
    IMAGES_A_BATCH,
    PLAIN,
    LoadedImage,
    PixelSettings,
    load_batches,
    pixel_settings,
    run_ahead,
    stack_pixels,
)
from ..index import FileState, IndexedImage
from ..models import Models, Preset, get_preset, load_models, require_model
from ..progress import Progress, Watcher, drain
from .index import (
    DatasetIndex,
    file_state,
    ids_and_paths,
    index_for,
    index_with_range,
    open_index,
    pixels_before,
    record_index,
    require_place,
    still_held,
)
from .labels import require_samples
from .views import image_view, whole_of

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
class IndexReport:
    """What build_index did.

    Attributes:
        uri: where the index lies.
        num_images: images of the view that are in the index now.
        num_added: images whose candidates were computed.
        num_candidates: candidates in the whole index.
        num_bytes: size of the whole index.
        bytes_per_image: of the whole index.
        skipped: images that could not be read.
        seconds: wall-clock time.
    """

    uri: str
    num_images: int
    num_added: int
    num_candidates: int
    num_bytes: int
    bytes_per_image: int
    skipped: tuple[SkippedImage, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.num_images} images in the index, {self.num_added} of them new ({self.seconds:.1f} s); "
            f"{self.num_candidates} candidates, {self.num_bytes / 1e6:.1f} MB, {self.bytes_per_image / 1e3:.1f} KB an image; "
            f"{self.uri}"
        ]
        lines += [f"skipped {image.filepath}: {image.reason}" for image in self.skipped]
        return "\n".join(lines)


def build_index(
    view: Any,
    model: str | Models = "large",
    *,
    uri: str | os.PathLike[str] | None = None,
    exact: bool | None = None,
    tiles: bool = False,
    content_hash: bool = False,
    storage_options: dict[str, str] | None = None,
    num_workers: int | None = None,
    pixel_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    progress: bool | Watcher | None = None,
) -> IndexReport:
    """Compute and keep the candidates of every image of a view that the dataset's index does not hold yet.

    Candidates do not depend on references: once they are kept, `segment` answers from them. A build that was stopped goes on
    where it was; new and changed images are added; two builders at once share the work.

    Args:
        view: a dataset or view of images.
        model: a preset's name, or loaded models.
        uri: a folder or an object store's address that Lance accepts, such as "s3://bucket/parts"; by default a folder beside
            FiftyOne's data for this dataset, one for each model and settings.
        exact: keep near-duplicates, masks of an IoU of 0.95 and more; by default only with the preset `paper`.
        tiles: look at each image larger than the segmenter's input in overlapping tiles too, for small objects: an index of its
            own, which takes so many times longer as there are tiles.
        content_hash: tell whether a file has changed by its bytes, not by name, size and time of change alone.
        storage_options: for an object store, as Lance takes them; they are not kept.
        num_workers: threads that decode images; 0 does everything in the calling thread, one step after the other.
        pixel_range: the values that are black and white in images of more than 8 bits that do not say it; by default as before,
            for an index or for prototypes kept, else a range in which all are likely to have been recorded, which is logged.
        channels: which bands of TIFFs with more than three, counted from 0, are red, green and blue, or the only one; by
            default as before, else the first three.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, or a range of pixels or channels that cannot be.
        IndexMismatchError: the index at this URI is of another model, other settings or another dataset.
        IndexDamagedError: the index at this place cannot be read.
        IndexWriteError: no space or no right to write; what was written before is kept.
    """
    work = iter_build_index(
        view,
        model,
        uri=uri,
        exact=exact,
        tiles=tiles,
        content_hash=content_hash,
        storage_options=storage_options,
        num_workers=num_workers,
        pixel_range=pixel_range,
        channels=channels,
    )
    return drain(work, progress)


def iter_build_index(
    view: Any,
    model: str | Models = "large",
    *,
    uri: str | os.PathLike[str] | None = None,
    exact: bool | None = None,
    tiles: bool = False,
    content_hash: bool = False,
    storage_options: dict[str, str] | None = None,
    num_workers: int | None = None,
    pixel_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    as_before: bool = True,
) -> Generator[Progress, None, IndexReport]:
    """The generator behind build_index: yields after each batch; closing it writes what is done.

    Without as_before, what is not said of pixels is found anew.
    """
    started = time.monotonic()
    view = image_view(view)
    require_samples(view)
    require_model(model)
    require_flags(tiles=tiles, content_hash=content_hash)
    require_whole(0, or_none=True, num_workers=num_workers)
    require_place(uri, exact, storage_options)
    pixels = pixel_settings(pixel_range, channels)
    if isinstance(model, str) and uri is not None:
        _require_place(view, get_preset(model), uri, exact, tiles, storage_options)
    models = model if isinstance(model, Models) else load_models(model)
    whole = whole_of(view)
    if as_before:
        pixels = pixels_before(whole, pixels, uri, storage_options)
    index = index_for(whole, models, uri=uri, exact=exact, tiles=tiles, storage_options=storage_options, pixels=pixels)
    images = images_of(view, index, content_hash=content_hash)
    fitting = index_with_range(index, models, [image.path for image in images.missing], storage_options, wanted=pixels)
    if fitting is not index:
        index = fitting
        images = images_of(view, index, content_hash=content_hash)
    builder = Builder(index, models, num_workers, skipped=list(images.gone))
    total, done = len(images.held) + len(images.missing), len(images.held)
    yield Progress(done, total, "images")
    try:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                done += len(batch)
                yield Progress(done, total, "images")
    finally:
        builder.close()
    index.index.tidy_if_due()
    for image in builder.skipped:
        logger.warning("Skipped %s: %s", image.filepath, image.reason)
    size, indexed = index.index.num_bytes, len(index.index.images)
    return IndexReport(
        index.uri,
        total + len(images.gone) - len(builder.skipped),
        builder.num_computed,
        index.index.num_candidates,
        size,
        size // max(1, indexed),
        tuple(builder.skipped),
        time.monotonic() - started,
    )


def _require_place(
    view: Any,
    preset: Preset,
    uri: str | os.PathLike[str],
    exact: bool | None,
    tiles: bool,
    storage_options: dict[str, str] | None,
) -> None:
    """Refuse the place of an index of another model, dataset or kind before weights are downloaded."""
    exact = preset.as_published if exact is None else exact
    with suppress(IndexNotFoundError):
        open_index(view, preset.name, uri=uri, exact=exact, tiles=tiles, storage_options=storage_options)


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


@dataclass(frozen=True)
class ViewImages:
    """The images of a view.

    Attributes:
        held: sample ids of those that the index holds as they are now.
        missing: those to be computed.
        gone: those without a file: no model needs to be loaded to skip them.
    """

    held: tuple[str, ...]
    missing: tuple[ImageFile, ...]
    gone: tuple[SkippedImage, ...] = ()


def images_of(view: Any, index: DatasetIndex | None, *, content_hash: bool = False) -> ViewImages:
    """Part a view into images that the index holds and images that it does not.

    Args:
        view: a view of images.
        index: None holds nothing.
        content_hash: compare the bytes of files too.

    A file that was only touched is noted as such in the index.
    """
    held: list[str] = []
    missing: list[ImageFile] = []
    gone: list[SkippedImage] = []
    touched: list[IndexedImage] = []
    for sample_id, path in zip(*ids_and_paths(view), strict=True):
        state = file_state(path, content_hash=content_hash)
        if state is None:
            reason = "the file cannot be reached" if os.path.lexists(path) else "the file does not exist"
            gone.append(SkippedImage(sample_id, path, reason))
            continue
        known = None if index is None else index.index.images.get(sample_id)
        noted = None if known is None else still_held(known, path, state)
        if noted is None:
            missing.append(ImageFile(sample_id, path, state))
            continue
        held.append(sample_id)
        if noted is not known:
            touched.append(noted)
    if index is not None:
        index.note(touched)
    return ViewImages(tuple(held), tuple(missing), tuple(gone))


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
