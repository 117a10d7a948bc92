"""The candidate index of a FiftyOne dataset: where it lies, what it holds of the dataset's images, and its care.

The index is recorded as a FiftyOne run of the dataset, by which others find it, forms too, without opening it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..candidates import EDGE_CELLS, MIN_OVERLAP, NEAR_DUPLICATE_IOU, PROMISING_IOU, SAME_MASK_IOU, decoding, grid_boxes
from ..checks import require_flags, require_kind, require_paths
from ..errors import ImageError, IndexMismatchError, IndexNotFoundError, IndexWriteError
from ..images import PLAIN, PixelSettings, file_sha256, files_without_range, find_pixels, read_header
from ..index import FORMAT, FORMAT_WITH_TILES, CandidateIndex, FileState, IndexChunk, IndexedImage, IndexSettings, delete_tables
from ..models import Models, get_preset, require_model
from ..names import folder_from, free_run_key
from ..progress import Progress, Watcher, drain
from .fields import past_runs
from .store import PROTOTYPES_METHOD, dataset_folder
from .views import id_of, ids_in, image_dataset, name_of

logger = logging.getLogger(__name__)

INDEX_METHOD = "refseg/index"
AS_PUBLISHED = "float32 features, clicks half a pixel on"
"""In the fingerprint of indexes of the published profile: those of earlier versions were not to its letter."""
MAX_LENGTH_ERROR = 0.01
"""How far a feature's length may be from 1; rounding to half precision alone stays below a thousandth."""
CELLS_A_CHECK = 1 << 26
"""Cells of masks checked at once: 256 MB of logits, a thousand masks of a grid of 256."""


@dataclass(frozen=True)
class IndexStatus:
    """How an index and its dataset compare.

    Attributes:
        uri: where the index lies.
        model: the preset's name.
        exact: near-duplicates are kept.
        num_samples: images of the dataset.
        num_indexed: of these, images that are indexed as they are now.
        num_changed: of these, images whose file is another than when it was indexed, or gone.
        num_deleted: indexed images that the dataset no longer has.
        num_candidates: candidates of all indexed images.
        num_unread_rows: candidates that were replaced or left over; compact removes them.
        num_bytes: size of the index.
        tiles: images were looked at in tiles.
    """

    uri: str
    model: str
    exact: bool
    num_samples: int
    num_indexed: int
    num_changed: int
    num_deleted: int
    num_candidates: int
    num_unread_rows: int
    num_bytes: int
    tiles: bool = False

    @property
    def bytes_per_image(self) -> int:
        """Size of the index by the number of its images."""
        return self.num_bytes // max(1, self.num_indexed + self.num_changed + self.num_deleted)

    def __str__(self) -> str:
        lines = [
            f"{self.num_indexed} of {self.num_samples} images are indexed for the model {self.model!r}"
            + (", in tiles" if self.tiles else "")
            + (", near-duplicates kept" if self.exact else ""),
            f"{self.num_candidates} candidates, {self.num_bytes / 1e6:.1f} MB, {self.bytes_per_image / 1e3:.1f} KB an image; "
            f"{self.uri}",
        ]
        if self.num_changed:
            lines.append(f"{self.num_changed} images have changed or are gone: build the index again to renew them")
        if self.num_deleted or self.num_unread_rows:
            lines.append(
                f"{self.num_deleted} images left the dataset and {self.num_unread_rows} candidates are read by nobody: compact "
                "gives their space back"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class VerifyReport:
    """What verify found.

    Attributes:
        num_images: images looked at.
        num_candidates: candidates looked at.
        damaged: sample id and reason of each image that is damaged; they count as not indexed from now on.
    """

    num_images: int
    num_candidates: int
    damaged: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.num_images} images with {self.num_candidates} candidates are read, {len(self.damaged)} are damaged"]
        lines += [f"{sample_id}: {reason}" for sample_id, reason in self.damaged]
        return "\n".join(lines)


class DatasetIndex:
    """The candidate index of one dataset and model.

    Attributes:
        dataset: the FiftyOne dataset.
        index: the tables.
    """

    def __init__(self, dataset: Any, index: CandidateIndex) -> None:
        self.dataset = dataset
        self.index = index

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
        )

    def verify(self, progress: bool | Watcher | None = None) -> VerifyReport:
        """Read everything and check it; damaged images count as not indexed afterwards, so that building renews them.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexDamagedError: the tables cannot be read at all.
        """
        return drain(self.iter_verify(), progress)

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
                    damaged.append((image.sample_id, reason))
            done += len(chunk.images)
            num_candidates += len(chunk.features)
            yield Progress(done, total, "images")
        self.index.forget([sample_id for sample_id, _ in damaged])
        return VerifyReport(total, num_candidates, tuple(damaged))

    def compact(self) -> int:
        """Remove what is read by nobody, images that left the dataset too, and merge small files.

        Best done while nobody else uses the index: a run that reads it at the same time may have to be started again.

        Returns:
            Bytes given back, negative where merging took more than it gave.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexWriteError: no space or no right to write.
        """
        self.index.refresh()
        before = self.index.num_bytes
        self.index.compact(ids_in(self.dataset))
        record_index(self)
        return before - self.index.num_bytes

    def delete(self) -> None:
        """Remove the index and its record; all that is asked of it afterwards raises IndexNotFoundError."""
        self.index.delete()
        for record in index_records(self.dataset):
            if record["uri"] == self.uri:
                self.dataset.delete_run(record["key"])

    def holds(self, sample_id: str, state: FileState | None, path: str = "") -> bool:
        """Whether the candidates of this sample's file, as it is now, are in the index; see file_state."""
        image = self.index.images.get(sample_id)
        if image is None or state is None:
            return False
        return still_held(image, path or self.dataset[sample_id].filepath, state) is not None

    def note(self, images: Sequence[IndexedImage]) -> None:
        """Note states of files whose candidates are still right: nobody has to look again, unless nothing can be written."""
        try:
            self.index.touch(images)
        except IndexWriteError as error:
            logger.info("States of files were not noted: %s", error)


def open_index(
    dataset: Any,
    model: str | Models | None = None,
    *,
    uri: str | os.PathLike[str] | None = None,
    exact: bool | None = None,
    tiles: bool | None = None,
    storage_options: dict[str, str] | None = None,
) -> DatasetIndex:
    """Open an index that was built before, without loading models.

    Args:
        dataset: a dataset, or a view of it.
        model: the preset's name; by default that of the index used last.
        uri: where it lies; by default where it was built last.
        exact: the one with near-duplicates, or the one without; by default the one used last.
        tiles: the one with tiles, or the one without; by default the one used last.
        storage_options: for an object store, as Lance takes them.

    Raises:
        IndexNotFoundError: there is none; the message lists those there are.
        IndexMismatchError: the index at this URI is of another model or dataset.
        IndexDamagedError: it cannot be read.
    """
    require_model(model, or_none=True)
    require_flags(or_none=True, tiles=tiles)
    require_place(uri, exact, storage_options)
    whole = image_dataset(dataset)
    name = model.preset.name if isinstance(model, Models) else model
    if uri is None:
        records = [
            record
            for record in index_records(whole)
            if name in (None, record["model"]) and exact in (None, record["exact"]) and tiles in (None, record["tiles"])
        ]
        if not records:
            known = ", ".join(sorted({repr(record["model"]) for record in index_records(whole)})) or "none"
            wanted = (f" for the model {name!r}" if name else "") + (" with tiles" if tiles else "")
            raise IndexNotFoundError(
                f"The dataset {name_of(whole)!r} has no candidate index{wanted}; it has {known}: build one with "
                "refseg.build_index."
            )
        uri = records[-1]["uri"]
    index = CandidateIndex.open(_whole(uri), storage_options)
    wanted_settings = replace(
        index.settings,
        dataset_id=id_of(whole),
        model=name or index.settings.model,
        exact=index.settings.exact if exact is None else exact,
        tiles=index.settings.tiles if tiles is None else tiles,
    )
    index.require(wanted_settings)
    return DatasetIndex(whole, index)


def require_place(uri: object, exact: object, storage_options: object) -> None:
    """Refuse what cannot say where an index lies, and which.

    Raises:
        DatasetError: the message names the argument.
    """
    require_paths(or_none=True, uri=uri)
    require_flags(or_none=True, exact=exact)
    if storage_options is not None:
        require_kind(Mapping, "a mapping of texts or None", storage_options=storage_options)


def index_for(
    dataset: Any,
    models: Models,
    *,
    uri: str | os.PathLike[str] | None = None,
    exact: bool | None = None,
    tiles: bool = False,
    storage_options: dict[str, str] | None = None,
    pixels: PixelSettings = PLAIN,
) -> DatasetIndex:
    """The index of a dataset for loaded models; an empty one where there is none.

    It is looked for at the URI, then where the dataset's record of an index of these settings says, then at the default place.
    A range of pixels that nobody gave is that of an index that there is, else it is found from all images of the dataset.
    """
    known = _known_settings(dataset, models, uri, exact, tiles, storage_options, pixels)
    settings = known or settings_of(dataset, models, exact, tiles, find_pixels(ids_and_paths(dataset)[1], pixels))
    return _index_of(dataset, settings, uri, storage_options)


def _index_of(
    dataset: Any, settings: IndexSettings, uri: str | os.PathLike[str] | None, storage_options: dict[str, str] | None
) -> DatasetIndex:
    if uri is None:
        wanted = settings.model, settings.fingerprint
        records = [record for record in index_records(dataset) if (record["model"], record["fingerprint"]) == wanted]
        uri = records[-1]["uri"] if records else _default_place(dataset, settings)
    index = DatasetIndex(dataset, CandidateIndex.create(_whole(uri), settings, storage_options))
    record_index(index)
    return index


def _known_settings(
    dataset: Any,
    models: Models,
    uri: str | os.PathLike[str] | None,
    exact: bool | None,
    tiles: bool,
    storage_options: dict[str, str] | None,
    pixels: PixelSettings,
) -> IndexSettings | None:
    """Settings of an index that there is, and that is the one asked for but for a range of pixels that nobody gave."""
    if uri is None:
        known = [PixelSettings.from_lists(record["pixels"]) for record in reversed(index_records(dataset))]
        fingerprints = {record["fingerprint"] for record in index_records(dataset)}
    else:
        try:
            found = CandidateIndex.open(_whole(uri), storage_options).settings
        except IndexNotFoundError:
            return None
        known, fingerprints = [found.pixel_settings], {found.fingerprint}
    # Of two the one that serves images of more than 8 bits too.
    for one in sorted(known, key=lambda one: one.pixel_range is None):
        settings = settings_of(dataset, models, exact, tiles, one)
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
    return _index_of(index.dataset, fitting, None, storage_options)


def pixels_for(dataset: Any, paths: Sequence[str], known: PixelSettings) -> PixelSettings:
    """How some images of a dataset are read: a range that they need and that is not known is found from all of its images."""
    if known.pixel_range is not None or not files_without_range(paths, first=True):
        return known
    return find_pixels(ids_and_paths(dataset)[1], known)


def _default_place(dataset: Any, settings: IndexSettings) -> Path:
    return dataset_folder(dataset) / "index" / folder_from(f"{settings.model}-{settings.fingerprint}")


def _whole(uri: str | os.PathLike[str]) -> str:
    place = os.fspath(uri)
    # The dataset's record keeps it: a relative path would be lost with the working directory.
    return place if "://" in place else str(Path(place).expanduser().absolute())


def settings_of(
    dataset: Any, models: Models, exact: bool | None = None, tiles: bool = False, pixels: PixelSettings = PLAIN
) -> IndexSettings:
    """What candidates of these models have in common; see IndexSettings."""
    preset = models.preset
    keeps_all = preset.as_published if exact is None else exact
    parts = [
        *(models.revisions["sam2"], models.revisions["dinov2"], preset.encoder_side, preset.points_per_side),
        *(preset.add_no_memory, decoding.MIN_PREDICTED_IOU, None if keeps_all else NEAR_DUPLICATE_IOU, FORMAT),
        # Nothing of what earlier versions did not have: they made the fingerprints of their indexes of the others alone.
        *((MIN_OVERLAP, EDGE_CELLS, FORMAT_WITH_TILES) if tiles else ()),
        *(("adaptive prompts", SAME_MASK_IOU, PROMISING_IOU) if preset.adaptive_prompts else ()),
        *((AS_PUBLISHED,) if preset.as_published else ()),
        *(() if pixels.is_plain else ("pixels", pixels.pixel_range, pixels.channels)),
    ]
    fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return IndexSettings(
        preset.name,
        fingerprint,
        models.fingerprint,
        dict(models.revisions),
        keeps_all,
        models.grid_side,
        models.feature_width,
        id_of(dataset),
        tiles,
        models.feature_dtype == torch.float32,
        pixels.as_lists(),
    )


def find_index(
    dataset: Any, model: str, encoder: str, tiles: bool | None = None, pixels: PixelSettings = PLAIN
) -> DatasetIndex | None:
    """The index for a preset and an encoder, opened without loading models; None where there is none.

    Of two, the one that keeps near-duplicates and the one that does not, that which the preset makes by default; of several
    such one that serves images of more than 8 bits too, and the one used last.

    Args:
        dataset: a FiftyOne dataset.
        model: the preset's name.
        encoder: its fingerprint.
        tiles: the one with tiles, or the one without; None for either.
        pixels: the one with these channels, where they are given, and with no other range.

    Raises:
        IndexDamagedError: it cannot be read.
    """
    found = [
        record
        for record in index_records(dataset)
        if (record["model"], record["encoder"]) == (model, encoder)
        and tiles in (None, record["tiles"])
        and PixelSettings.from_lists(record["pixels"]).fits(pixels)
        and (pixels.channels is None or PixelSettings.from_lists(record["pixels"]).channels == pixels.channels)
    ]
    published = get_preset(model).as_published
    if any(not record["float_features"] for record in found) and published:
        logger.warning("An index of %r by an earlier version, which was not to the letter of the paper, is not used", model)
        found = [record for record in found if record["float_features"]]
    found.sort(key=lambda record: record["pixels"] is not None)
    found.sort(key=lambda record: record["exact"] == published)
    for record in reversed(found):
        try:
            index = CandidateIndex.open(record["uri"])
        except IndexNotFoundError as error:
            logger.warning("The dataset's record names an index that is gone: %s", error)
            continue
        held = index.settings
        if (held.model, held.encoder, held.dataset_id, held.tiles) == (model, encoder, id_of(dataset), record["tiles"]):
            return DatasetIndex(dataset, index)
        logger.warning("At %s lies another index than the dataset's record says", index.uri)
    return None


def file_state(path: str, *, content_hash: bool = False) -> FileState | None:
    """The state of an image file now, or None where it cannot be read; it is not opened, so its orientation is left unknown."""
    try:
        found = os.stat(path)
        sha256 = file_sha256(path) if content_hash else ""
        return FileState(Path(path).name, found.st_size, found.st_mtime_ns, sha256, found.st_ctime_ns)
    except OSError:
        return None


def still_held(known: IndexedImage, path: str, now: FileState) -> IndexedImage | None:
    """What is known of an indexed image, where its candidates are those of its file as it is now; None where they are not.

    A file is the same by its bytes where both states know them, else by name, size and date. Where the system has noted any
    change since, chmod and copying among them, its header says whether it has been turned.

    Args:
        known: the image as it was indexed.
        path: of its file.
        now: the state of the file.

    Returns:
        The very same, or with the new state of the file, which is worth noting.
    """
    before = known.file
    if before.sha256 and now.sha256:
        if before.sha256 != now.sha256:
            return None
    elif (before.name, before.size, before.mtime_ns) != (now.name, now.size, now.mtime_ns):
        return None
    if before.ctime_ns == now.ctime_ns and before.orientation and (before.sha256 or not now.sha256):
        return known
    try:
        header = read_header(path)
    except ImageError:
        return None
    if header.image_hw != known.image_hw:
        return None
    # Earlier versions, which knew no orientations, read deep images otherwise.
    if header.orientation != before.orientation if before.orientation else header.is_deep:
        return None
    return replace(known, file=replace(now, sha256=now.sha256 or before.sha256, orientation=header.orientation))


def index_records(dataset: Any) -> list[dict[str, Any]]:
    """What the dataset has recorded of its indexes, the one built or completed last at the end.

    Returns:
        For each: `key` of the run, `uri`, `model`, `exact`, `tiles`, `float_features`, `pixels` (as PixelSettings.as_lists),
        `fingerprint`, `encoder`, `num_images`, `num_candidates`, `num_bytes`, `seconds_per_image` (None where nothing was
        computed yet), `updated_at`.
    """
    records = []
    for key in dataset.list_runs(method=INDEX_METHOD):
        config = dataset.get_run_info(key).config
        # A clone inherits the records of the dataset it was made from, whose index holds that dataset's samples.
        if config.dataset_id == id_of(dataset):
            names = ("uri", "model", "exact", "fingerprint", "encoder", "num_images", "num_candidates", "num_bytes")
            record = {name: getattr(config, name) for name in (*names, "seconds_per_image", "updated_at")}
            # Records of earlier versions say nothing of these.
            later = {name: bool(getattr(config, name, False)) for name in ("tiles", "float_features")}
            records.append({"key": key, **later, "pixels": getattr(config, "pixels", None), **record})
    return sorted(records, key=lambda record: str(record["updated_at"]))


def pixels_of_index(dataset: Any) -> PixelSettings:
    """How the images of a dataset are read, by its index used last that says so; plain where none does."""
    said = [record["pixels"] for record in index_records(dataset) if record["pixels"]]
    return PixelSettings.from_lists(said[-1]) if said else PLAIN


def pixels_before(
    dataset: Any,
    given: PixelSettings,
    uri: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
) -> PixelSettings:
    """What is given, and where it says nothing how the images of a dataset were read before.

    Before is by the index at a place where there is one, else by that used last, else for the newest prototypes kept. A range
    that was found for other channels does not count.
    """
    before = _pixels_at(uri, storage_options) or pixels_of_index(dataset)
    if before.is_plain:
        kept = [run.config.get("pixels") for run in past_runs(dataset, [PROTOTYPES_METHOD])]
        before = PixelSettings.from_lists(kept[-1] if kept else None)
    if given.channels not in (None, before.channels):
        return given
    return PixelSettings(given.pixel_range or before.pixel_range, before.channels)


def _pixels_at(uri: str | os.PathLike[str] | None, storage_options: dict[str, str] | None) -> PixelSettings | None:
    try:
        return None if uri is None else CandidateIndex.open(_whole(uri), storage_options).settings.pixel_settings
    except IndexNotFoundError:
        return None


def delete_index(dataset: Any, key: str, *, storage_options: dict[str, str] | None = None) -> None:
    """Remove an index and the dataset's record of it; tables that are gone or damaged are no hindrance.

    Args:
        dataset: a FiftyOne dataset.
        key: of the record; see index_records.
        storage_options: for an object store, as Lance takes them.

    Raises:
        IndexNotFoundError: the dataset has no such record.
        IndexWriteError: no right to delete it.
    """
    for record in index_records(dataset):
        if record["key"] == key:
            delete_tables(record["uri"], storage_options)
            dataset.delete_run(key)
            return
    raise IndexNotFoundError(f"The dataset {name_of(dataset)!r} has no record of an index {key!r}.")


def record_index(index: DatasetIndex, seconds_per_image: float | None = None) -> None:
    """Keep where the index lies and how large it is in the dataset, for forms and for those who look for it."""
    tables, dataset = index.index, index.dataset
    settings = tables.settings
    key = free_run_key(
        dataset,
        f"index_{settings.model}_{settings.fingerprint}",
        lambda config: (config.method, config.model) == (INDEX_METHOD, settings.model),
    )
    facts = {
        "dataset_id": settings.dataset_id,
        "uri": tables.uri,
        "model": settings.model,
        "exact": settings.exact,
        "tiles": settings.tiles,
        "float_features": settings.float_features,
        "pixels": settings.pixels,
        "fingerprint": settings.fingerprint,
        "encoder": settings.encoder,
        "num_images": len(tables.images),
        "num_candidates": tables.num_candidates,
        "num_bytes": tables.num_bytes,
        "updated_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    }
    if dataset.has_run(key):
        config = dataset.get_run_info(key).config
        facts["seconds_per_image"] = seconds_per_image or config.seconds_per_image
        for name, value in facts.items():
            setattr(config, name, value)
        dataset.update_run_config(key, config)
    else:
        dataset.register_run(key, dataset.init_run(method=INDEX_METHOD, seconds_per_image=seconds_per_image, **facts))


def ids_and_paths(view: Any) -> tuple[list[str], list[str]]:
    """Sample id and file path of each image of a view; of a grouped one, of every slice of images."""
    if view.media_type == "group":
        view = view.select_group_slices(media_type="image")
    sample_ids, paths = view.values(["id", "filepath"])
    return sample_ids, paths


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
