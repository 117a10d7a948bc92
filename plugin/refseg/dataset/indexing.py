"""Building the candidate index of a FiftyOne dataset: which images are missing, their candidates, batch by batch.

Costs what proposing candidates costs, once an image. Beside a GPU images are read in threads, the models run in one of their
own, a batch ahead of whoever takes the candidates, and packing and writing go on meanwhile; on a processor they take turns,
each on all cores. What is done is written every ten seconds: a killed process loses no more than that and the batches in work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from ..checks import refused, require_flags, require_whole
from ..errors import IndexNotFoundError
from ..images import PLAIN, PixelSettings, pixel_settings
from ..index import ImageFile, IndexedImage, Room, SkippedImage, room_for
from ..models import Models, Preset, get_preset, load_models, require_model
from ..notebook import BLUE, GREEN, ORANGE, facts, page, skips, stacked
from ..printing import as_size, counted, listing
from ..progress import Progress, Watcher, drain, duration
from .builder import Builder
from .drawn_candidates import look_at_drawn
from .file_states import file_state, still_held
from .index import DatasetIndex, PlannedIndex, index_with_range, plan_index
from .index_finding import open_index
from .index_pixels import ids_and_paths, pixels_before
from .index_place import IndexPlace
from .many_workers import ManyWorkers
from .views import image_view, require_samples, whole_of

logger = logging.getLogger(__name__)

ENGINES = LOCAL, RAY = "local", "ray"
SAID_FROM = 100e6
"""Bytes of an index that are worth a word before the work."""


@dataclass(frozen=True)
class IndexReport:
    """What build_index did.

    Attributes:
        uri: where the index lies.
        num_images: images of the view that were in the index at the end.
        num_added: images whose candidates were computed.
        num_candidates: candidates in the whole index.
        num_bytes: size of the whole index.
        bytes_per_image: of the whole index.
        skipped: images that could not be read.
        seconds: wall-clock time.
        vanished: sample ids of images that were indexed, and were taken out of the index again by others meanwhile.
        vanished_names: names of the files of these.
    """

    uri: str
    num_images: int
    num_added: int
    num_candidates: int
    num_bytes: int
    bytes_per_image: int
    skipped: tuple[SkippedImage, ...]
    seconds: float
    vanished: tuple[str, ...] = ()
    vanished_names: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """A bar of the images that were computed now, and what the index takes."""
        # What was computed here and taken out again by others counts as new and is not there.
        parts = max(0, self.num_images - self.num_added), self.num_added, len(self.skipped)
        colors = {"there before": BLUE, "new": GREEN, "skipped": ORANGE}
        return page(
            "Index built",
            stacked(colors, {counted(self.num_images + len(self.skipped), "image"): parts}),
            facts(
                {
                    "candidates": self.num_candidates,
                    "size": f"{as_size(self.num_bytes)}, {as_size(self.bytes_per_image)} an image",
                    "time": duration(self.seconds),
                    "place": self.uri,
                }
            ),
            vanished_line(self.vanished_names or self.vanished) if self.vanished else None,
            skips(self.skipped),
        )

    def __str__(self) -> str:
        lines = [
            f"{counted(self.num_images, 'image')} in the index, {self.num_added} of them new ({self.seconds:.1f} s); "
            f"{counted(self.num_candidates, 'candidate')}, {self.num_bytes / 1e6:.1f} MB, "
            f"{self.bytes_per_image / 1e3:.1f} KB an image; {self.uri}"
        ]
        if self.vanished:
            lines.append(vanished_line(self.vanished_names or self.vanished))
        lines += [f"skipped {image.filepath}: {image.reason}" for image in self.skipped]
        return "\n".join(lines)


def vanished_line(names: Sequence[str]) -> str:
    """What is said of images that others took out of an index while it was built."""
    return (
        f"{counted(len(names), 'image')} left the index while it was built, as by deleting or compacting it: build it "
        f"again to renew them ({listing(names)})"
    )


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
    insist: bool = False,
    engine: str = "local",
    cores: int | None = None,
    progress: bool | Watcher | None = None,
) -> IndexReport:
    """Compute and keep the candidates of every image of a view that the dataset's index does not hold yet.

    Candidates do not depend on references: once they are kept, `segment` answers from them. A build that was stopped goes on
    where it was; new and changed images are added. Builders at once, in other processes or on other machines that reach the
    same place, share the images: each returns when all are in the index, whoever computed them. At the end of a build of a
    hundred images or more, 300 candidates that stand for the dataset are looked at twice, which learning would wait for.

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
        insist: begin even where there seems to be too little room for the candidates that are to come.
        engine: "local" computes in this process; "ray" lets workers do so, on this machine's GPUs and cores or on the cluster
            that Ray is connected to, see docs/scale.md. With "ray" `num_workers` is how many of them, by default as many as
            there is room for.
        cores: of a worker, with "ray" alone; by default what there is, shared out.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, or a range of pixels or channels that cannot be.
        IndexMismatchError: the index at this URI is of another model, other settings or another dataset.
        IndexDamagedError: the index at this place cannot be read.
        IndexSpaceError: there is too little room; nothing was begun.
        IndexWriteError: no space or no right to write; what was written before is kept.
        WorkersError: Ray is not installed, or a worker cannot load the models.
    """
    require_flags(tiles=tiles)
    place = IndexPlace(uri, exact, tiles, storage_options)
    pixels = pixel_settings(pixel_range, channels)
    work = iter_build_index(
        *(view, model, place),
        pixels=pixels,
        content_hash=content_hash,
        num_workers=num_workers,
        insist=insist,
        engine=engine,
        cores=cores,
    )
    return drain(work, progress, "indexing")


def iter_build_index(
    view: Any,
    model: str | Models = "large",
    place: IndexPlace | None = None,
    *,
    pixels: PixelSettings = PLAIN,
    content_hash: bool = False,
    num_workers: int | None = None,
    as_before: bool = True,
    insist: bool = False,
    engine: str = "local",
    cores: int | None = None,
) -> Generator[Progress, None, IndexReport]:
    """The generator behind build_index: yields after each batch; closing it writes what is done.

    Without as_before, what is not said of pixels is found anew.
    """
    started = time.monotonic()
    view = image_view(view)
    require_samples(view)
    require_model(model)
    require_flags(content_hash=content_hash, insist=insist)
    if engine not in ENGINES:
        raise refused("engine", " or ".join(map(repr, ENGINES)), engine)
    require_whole(0 if engine == LOCAL else 1, or_none=True, num_workers=num_workers)
    require_whole(1, or_none=True, cores=cores)
    place = place or IndexPlace()
    if isinstance(model, str) and place.uri is not None:
        _require_place(view, get_preset(model), place)
    models = model if isinstance(model, Models) else load_models(model)
    whole = whole_of(view)
    if as_before:
        pixels = pixels_before(whole, pixels, place)
    planned = plan_index(whole, models, place, pixels)
    # Before anything is made or recorded: what is refused leaves everything as it was.
    existing = planned.existing()
    images = images_of(view, existing, content_hash=content_hash)
    room = _room(planned, existing, models.preset, len(images.missing))
    if not insist:
        room.require()
    index = planned.make(existing)
    fitting = index_with_range(index, models, [image.path for image in images.missing], place.storage_options, wanted=pixels)
    if fitting is not index:
        index = fitting
        images = images_of(view, index, content_hash=content_hash)
    before = dict(index.index.images)
    builder: Builder | ManyWorkers
    if engine == LOCAL:
        builder = Builder(index, models, num_workers, skipped=list(images.gone))
    else:
        builder = ManyWorkers(index, models, num_workers, cores, place.storage_options, skipped=list(images.gone))
    total, done = len(images.held) + len(images.missing), len(images.held)
    if room.needed >= SAID_FROM:
        yield Progress(done, total, f"images, {room}")
    yield Progress(done, total, "images")
    try:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                done += len(batch)
                yield Progress(done, total, builder.label)
    finally:
        builder.close()
    index.index.tidy_if_due()
    index.index.refresh()
    yield from look_at_drawn(index, models)
    return _report(index, builder, images, before, time.monotonic() - started)


def _report(
    index: DatasetIndex, builder: Builder | ManyWorkers, images: ViewImages, before: Mapping[str, IndexedImage], seconds: float
) -> IndexReport:
    for image in builder.skipped:
        logger.warning("Skipped %s: %s", image.filepath, image.reason)
    skipped = {image.sample_id for image in builder.skipped}
    asked = {name: name in index.index.images for name in images.held}
    asked |= {image.sample_id: index.holds(image.sample_id, image.state, image.path) for image in images.missing}
    vanished = tuple(name for name, is_held in asked.items() if not is_held and name not in skipped)
    names: tuple[str, ...] = ()
    if vanished:
        paths = {image.sample_id: image.path for image in images.missing}
        paths |= {name: before[name].file.name for name in images.held}
        names = tuple(os.path.basename(paths[name]) for name in vanished)
        logger.warning("%s", vanished_line(names))
    size = index.index.num_bytes
    return IndexReport(
        index.uri,
        sum(is_held for name, is_held in asked.items() if name not in skipped),
        builder.num_computed,
        index.index.num_candidates,
        size,
        size // max(1, len(index.index.images)),
        tuple(builder.skipped),
        seconds,
        vanished,
        names,
    )


def _room(planned: PlannedIndex, existing: DatasetIndex | None, preset: Preset, num_missing: int) -> Room:
    """What the missing images will take, and what is free."""
    settings = planned.settings
    held = (0, 0) if existing is None else (len(existing.index.images), existing.index.num_bytes)
    return room_for(planned.uri, num_missing, preset, exact=settings.exact, tiles=settings.tiles, held=held)


def _require_place(view: Any, preset: Preset, place: IndexPlace) -> None:
    """Refuse the place of an index of another model, dataset or kind before weights are downloaded."""
    exact = preset.as_published if place.exact is None else place.exact
    options = place.storage_options
    with suppress(IndexNotFoundError):
        open_index(view, preset.name, uri=place.uri, exact=exact, tiles=bool(place.tiles), storage_options=options)


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
