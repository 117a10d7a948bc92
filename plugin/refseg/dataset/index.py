"""The candidate index of a FiftyOne dataset: where it lies, what it holds of the dataset's images, and its care.

The index is recorded as a FiftyOne run of the dataset, by which others find it, forms too, without opening it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import torch

from ..candidates import grid_boxes
from ..checks import require_numbers
from ..errors import IndexMismatchError, IndexNotFoundError, IndexWriteError
from ..images import PLAIN, PixelSettings, files_without_range, find_pixels
from ..index import GRACE, CandidateIndex, FileState, IndexChunk, IndexedImage, IndexSettings
from ..models import Models
from ..names import folder_from
from ..notebook import facts, page
from ..printing import as_size
from ..progress import Progress, Watcher, drain
from .fields import INDEX_METHOD, past_runs
from .file_states import file_state, still_held
from .index_pixels import ids_and_paths, pixels_for
from .index_place import IndexPlace, whole_uri
from .index_settings import settings_of
from .known_indexes import index_records, pixels_of_index
from .reports import IndexStatus, VerifyReport
from .run_records import claim, remove_run
from .store import dataset_folder
from .views import ids_in, name_of

logger = logging.getLogger(__name__)

MAX_LENGTH_ERROR = 0.01
"""How far a feature's length may be from 1; rounding to half precision alone stays below a thousandth."""
CELLS_A_CHECK = 1 << 26
"""Cells of masks checked at once: 256 MB of logits, a thousand masks of a grid of 256."""


class DatasetIndex:
    """The candidate index of one dataset and model.

    Attributes:
        dataset: the FiftyOne dataset.
        index: the tables.
    """

    def __init__(self, dataset: Any, index: CandidateIndex) -> None:
        self.dataset = dataset
        self.index = index

    def _repr_html_(self) -> str:
        """What the tables hold; nobody looks at the dataset's files, see status."""
        held = {
            "images": len(self.index.images),
            "candidates": self.index.num_candidates,
            "size": as_size(self.index.num_bytes),
        }
        return page(f"Index of the dataset {name_of(self.dataset)!r}", facts({**held, "place": self.uri}))

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.index.uri

    def __repr__(self) -> str:
        return f"<index of {name_of(self.dataset)!r} for {self.index.settings.model!r} at {self.uri}>"

    def status(self) -> IndexStatus:
        """Compare the index with the dataset and its files as they are now.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexDamagedError: the index cannot be read.
        """
        self.index.refresh()
        sample_ids, paths = ids_and_paths(self.dataset)
        num_held = 0
        touched: list[IndexedImage] = []
        for sample_id, path in zip(sample_ids, paths, strict=True):
            known, state = self.index.images.get(sample_id), file_state(path)
            noted = None if known is None or state is None else still_held(known, path, state)
            num_held += noted is not None
            if noted is not None and noted is not known:
                touched.append(noted)
        self.note(touched)
        num_known = len(self.index.images.keys() & set(sample_ids))
        num_deleted = len(self.index.images.keys() - ids_in(self.dataset))
        settings = self.index.settings
        return IndexStatus(
            self.uri,
            settings.model,
            settings.exact,
            len(sample_ids),
            num_held,
            num_known - num_held,
            num_deleted,
            self.index.num_candidates,
            self.index.num_unread_rows,
            self.index.num_bytes,
            settings.tiles,
            len(self.index.looks),
        )

    def verify(self, progress: bool | Watcher | None = None) -> VerifyReport:
        """Read everything and check it; damaged images count as not indexed afterwards, so that building renews them.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexDamagedError: the tables cannot be read at all.
        """
        return drain(self.iter_verify(), progress, "verifying the index")

    def iter_verify(self) -> Generator[Progress, None, VerifyReport]:
        """The generator behind verify."""
        self.index.refresh()
        total, done, num_candidates = len(self.index.images), 0, 0
        damaged: list[tuple[str, str]] = []
        yield Progress(0, total, "images")
        for chunk in self.index.scan():
            for number, image in enumerate(chunk.images):
                reason = _damage(chunk, number)
                if reason is not None:
                    damaged.append((image.sample_id, f"{image.file.name}: {reason}"))
            done += len(chunk.images)
            num_candidates += len(chunk.features)
            yield Progress(done, total, "images")
        self.index.forget([sample_id for sample_id, _ in damaged])
        return VerifyReport(total, num_candidates, tuple(damaged))

    def compact(self, grace_seconds: float = GRACE.total_seconds()) -> int:
        """Remove what is read by nobody, images that left the dataset too, and merge small files.

        Others may use the index meanwhile.

        Args:
            grace_seconds: for so long the files that were replaced stay on the disk for those who read them; a later build or
                compaction removes them. With 0 they go at once, and whoever is reading begins anew with the newest ones.

        Returns:
            Bytes that the index takes less, negative where merging took more than it gave.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexWriteError: no space or no right to write.
            DatasetError: grace_seconds is not a number of 0 or more.
        """
        require_numbers(0, grace_seconds=grace_seconds)
        self.index.refresh()
        before = self.index.num_bytes
        self.index.compact(ids_in(self.dataset), timedelta(seconds=grace_seconds))
        record_index(self)
        return before - self.index.num_bytes

    def delete(self) -> None:
        """Remove the index and its record; all that is asked of it afterwards raises IndexNotFoundError."""
        self.index.delete()
        for record in index_records(self.dataset):
            if record["uri"] == self.uri:
                remove_run(self.dataset, record["key"])

    def holds(self, sample_id: str, state: FileState | None, path: str) -> bool:
        """Whether the candidates of this sample's file, as it is now, are in the index; see file_state."""
        image = self.index.images.get(sample_id)
        if image is None or state is None:
            return False
        return still_held(image, path, state) is not None

    def note(self, images: Sequence[IndexedImage]) -> None:
        """Note states of files whose candidates are still right: nobody has to look again, unless nothing can be written."""
        try:
            self.index.touch(images)
        except IndexWriteError as error:
            logger.info("States of files were not noted: %s", error)


def index_for(
    dataset: Any,
    models: Models,
    place: IndexPlace | None = None,
    pixels: PixelSettings = PLAIN,
) -> DatasetIndex:
    """The index of a dataset for loaded models; an empty one where there is none.

    It is looked for at the URI, then where the dataset's record of an index of these settings says, then at the default place.
    A range of pixels that nobody gave is that of an index that there is, else it is found from all images of the dataset.
    """
    return plan_index(dataset, models, place, pixels).make()


@dataclass(frozen=True)
class PlannedIndex:
    """The index that images are to be added to, before anything is made or recorded.

    Attributes:
        dataset: whose images.
        settings: that it has or will have.
        uri: where it lies or will lie, whole.
        storage_options: for an object store, as Lance takes them.
    """

    dataset: Any
    settings: IndexSettings
    uri: str
    storage_options: dict[str, str] | None = None

    def existing(self) -> DatasetIndex | None:
        """The index where it is there already.

        Raises:
            IndexMismatchError: another one lies there.
            IndexDamagedError: it cannot be read.
        """
        try:
            found = CandidateIndex.open(self.uri, self.storage_options)
        except IndexNotFoundError:
            return None
        found.require(self.settings)
        return DatasetIndex(self.dataset, found)

    def make(self, existing: DatasetIndex | None = None) -> DatasetIndex:
        """The index, made where it is not there, and recorded as the one used last.

        Args:
            existing: what `existing` gave, so that it is not opened again.
        """
        index = existing
        if index is None:
            index = DatasetIndex(self.dataset, CandidateIndex.create(self.uri, self.settings, self.storage_options))
        record_index(index)
        return index


def plan_index(dataset: Any, models: Models, place: IndexPlace | None = None, pixels: PixelSettings = PLAIN) -> PlannedIndex:
    """Which index index_for gives, and where; arguments are its own."""
    place = place or IndexPlace()
    settings = _known_settings(dataset, models, place, pixels)
    if settings is None:
        found = find_pixels(ids_and_paths(dataset)[1], pixels)
        settings = settings_of(dataset, models, place.exact, bool(place.tiles), found)
    return _planned(dataset, settings, place)


def _planned(dataset: Any, settings: IndexSettings, place: IndexPlace) -> PlannedIndex:
    uri = place.uri
    if uri is None:
        wanted = settings.model, settings.fingerprint
        records = [record for record in index_records(dataset) if (record["model"], record["fingerprint"]) == wanted]
        uri = records[-1]["uri"] if records else _default_place(dataset, settings)
    return PlannedIndex(dataset, settings, whole_uri(uri), place.storage_options)


def _known_settings(dataset: Any, models: Models, place: IndexPlace, pixels: PixelSettings) -> IndexSettings | None:
    """Settings of an index that there is, and that is the one asked for but for a range of pixels that nobody gave."""
    if place.uri is None:
        known = [PixelSettings.from_lists(record["pixels"]) for record in reversed(index_records(dataset))]
        fingerprints = {record["fingerprint"] for record in index_records(dataset)}
    else:
        try:
            found = place.open_at(place.uri).settings
        except IndexNotFoundError:
            return None
        known, fingerprints = [found.pixel_settings], {found.fingerprint}
    # Of two the one that serves images of more than 8 bits too.
    for one in sorted(known, key=lambda one: one.pixel_range is None):
        settings = settings_of(dataset, models, place.exact, bool(place.tiles), one)
        if one.channels == pixels.channels and one.fits(pixels) and settings.fingerprint in fingerprints:
            return settings
    return None


def index_with_range(
    index: DatasetIndex,
    models: Models,
    paths: Sequence[str],
    storage_options: dict[str, str] | None = None,
    *,
    wanted: PixelSettings = PLAIN,
) -> DatasetIndex:
    """The index for images that are to be computed: another one where they need a range of pixels and this one has none.

    Args:
        index: that there is.
        models: that compute them.
        paths: of the images.
        storage_options: for an object store, as Lance takes them.
        wanted: a range to take; without one it is found from all images of the dataset.

    Raises:
        IndexMismatchError: the index lies at a place of its own, where no other can be.
    """
    settings = index.index.settings
    pixels = settings.pixel_settings
    if pixels.pixel_range is not None or not files_without_range(paths, first=True):
        return index
    wanted = PixelSettings(wanted.pixel_range or pixels_of_index(index.dataset).pixel_range, pixels.channels)
    wanted = pixels_for(index.dataset, paths, wanted)
    if wanted.pixel_range is None:
        return index
    if index.uri != str(_default_place(index.dataset, settings)):
        raise IndexMismatchError(
            f"The candidate index at {index.uri} is one of images of 8 bits, and some now have more: build another one with "
            f"refseg.build_index(dataset, {settings.model!r}, uri=…, {wanted})."
        )
    fitting = settings_of(index.dataset, models, settings.exact, settings.tiles, wanted)
    return _planned(index.dataset, fitting, IndexPlace(storage_options=storage_options)).make()


def _default_place(dataset: Any, settings: IndexSettings) -> Path:
    return dataset_folder(dataset) / "index" / folder_from(f"{settings.model}-{settings.fingerprint}")


def record_index(index: DatasetIndex, seconds_per_image: float | None = None) -> None:
    """Keep where the index lies and how large it is in the dataset, for forms and for those who look for it."""
    tables, dataset = index.index, index.dataset
    settings = tables.settings
    own = {"method": INDEX_METHOD, "model": settings.model, "fingerprint": settings.fingerprint}
    facts = {
        **own,
        "dataset_id": settings.dataset_id,
        "uri": tables.uri,
        "exact": settings.exact,
        "tiles": settings.tiles,
        "float_features": settings.float_features,
        "clean_masks": settings.clean_masks,
        "pixels": settings.pixels,
        "encoder": settings.encoder,
        "num_images": len(tables.images),
        "num_candidates": tables.num_candidates,
        "num_bytes": tables.num_bytes,
        "updated_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    }
    if seconds_per_image is None:
        earlier = [run.config for run in past_runs(dataset, [INDEX_METHOD])]
        known = [config["seconds_per_image"] for config in earlier if own.items() <= config.items()]
        seconds_per_image = known[-1] if known else None
    config = dataset.init_run(**facts, seconds_per_image=seconds_per_image)
    claim(dataset, f"index_{settings.model}_{settings.fingerprint}", config, replaces=own)


def _damage(chunk: IndexChunk, number: int) -> str | None:
    """What is wrong with the candidates of one image of a chunk, or None."""
    candidates = chunk.candidates(number)
    if not bool(torch.isfinite(candidates.features).all()):
        return "a feature is not finite"
    lengths = candidates.features.norm(dim=1)
    if bool(((lengths - 1).abs() > MAX_LENGTH_ERROR).any()):
        return "a feature is not of unit length"
    if not bool(torch.isfinite(candidates.predicted_iou).all()):
        return "a predicted IoU is not finite"
    # A few masks at once: together those of an image in tiles could fill the memory.
    for rows in torch.arange(len(candidates)).split(max(1, CELLS_A_CHECK // candidates.grid_side**2)):
        try:
            masks = candidates.logits_of(rows) > 0
        except ValueError as error:
            return str(error)
        if not bool(masks.flatten(1).any(1).all()) or not torch.equal(grid_boxes(masks), candidates.boxes[rows]):
            return "a box does not fit its mask"
    return None
