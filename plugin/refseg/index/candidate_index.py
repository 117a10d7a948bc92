"""The candidate index: packed candidates of many images, kept in Lance tables, so that they are computed once.

`candidates` has a row a candidate, `images` a row an image, `looks` one a second look. An image's candidates are written first
and its row after them, both by atomic transactions: an image counts when its row is there and finds all its candidates. Nothing
is ever changed in place, an image that is indexed again gets a later row. So a killed process, a full disk or two builders at
once can leave rows that nobody reads, which `compact` removes, but never a wrong answer.

A candidate takes 2 bytes a feature and about 200 to 600 for its mask; opening reads 8 bytes a candidate and a row an image.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import PackedCandidates
from ..errors import IndexDamagedError, IndexMismatchError
from ..printing import counted
from .looks import Looks
from .storage import (
    add_later_columns,
    bytes_of,
    create_table,
    damaged,
    delete_rows,
    delete_tables,
    is_gone,
    join_uri,
    not_found,
    parts_of,
    unwritable,
)
from .tables import (
    LATER_IMAGE_FIELDS,
    NEWEST_FORMAT,
    FileState,
    IndexChunk,
    IndexedImage,
    IndexSettings,
    candidates_schema,
    candidates_table,
    features_of,
    images_schema,
    images_table,
    read_images,
    read_settings,
)

logger = logging.getLogger(__name__)

ROWS_A_CHUNK = 8192
"""Candidates read at once: 16 MB of features of width 1024."""
FRAGMENTS_TO_TIDY = 64
"""Each write adds a fragment; beyond so many small ones reading slows down."""
ROWS_A_FRAGMENT = 1 << 17
GONE = -1
"""Number of candidates that says: forget this image."""


class CandidateIndex:
    """An open index: a snapshot that `refresh` renews and `append` adds to.

    Attributes:
        uri: a folder or an object store's address.
        settings: what its candidates have in common.
        images: for each sample id what is indexed, as of the snapshot.
    """

    def __init__(self, uri: str, settings: IndexSettings, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self.settings = settings
        self.images: dict[str, IndexedImage] = {}
        self.builder = secrets.randbits(62)
        self._storage = storage_options
        self._starts: dict[int, int] = {}
        self._written: Counter[int] = Counter()
        self._written_at_first: Counter[int] = Counter()
        self._num_unread = 0
        self._candidates: Any = None
        self._table: Any = None
        self._looks: Looks | None = None

    def __repr__(self) -> str:
        held = f"{counted(len(self.images), 'image')} with {counted(self.num_candidates, 'candidate')}"
        return f"CandidateIndex({held}; model {self.settings.model!r}; {self.uri})"

    @classmethod
    def open(cls, uri: str | os.PathLike[str], storage_options: dict[str, str] | None = None) -> CandidateIndex:
        """Open the index at this place.

        Raises:
            IndexNotFoundError: there is none.
            IndexMismatchError: it was written by a newer version.
            IndexDamagedError: it cannot be read.
        """
        place = os.fspath(uri)
        try:
            table = lance.dataset(join_uri(place, "images"), storage_options=storage_options)
        except (ValueError, OSError) as error:
            if "not found" in str(error).lower():
                raise not_found(place) from error
            raise damaged(place, error) from error
        version, settings = read_settings(table.schema)
        if version > NEWEST_FORMAT:
            raise IndexMismatchError(
                f"The candidate index at {place} was written by a newer RefSeg (format {version}, this one reads up to "
                f"{NEWEST_FORMAT}): update RefSeg."
            )
        if settings is None:
            raise IndexDamagedError(f"What lies at {place} is not a candidate index: choose another place.")
        index = cls(place, settings, storage_options)
        index.refresh()
        index._written_at_first = index._written
        return index

    @classmethod
    def create(
        cls, uri: str | os.PathLike[str], settings: IndexSettings, storage_options: dict[str, str] | None = None
    ) -> CandidateIndex:
        """Open the index at this place, or make an empty one; both serve several processes at once.

        Raises:
            IndexMismatchError: the index there is of another model, other settings or another dataset.
            IndexDamagedError: what is there cannot be read.
            IndexWriteError: nothing can be written there.
        """
        place = os.fspath(uri)
        try:
            for name, schema in (("candidates", candidates_schema(settings)), ("images", images_schema(settings))):
                create_table(place, name, schema, storage_options)
        except OSError as error:
            raise unwritable(place, error) from error
        index = cls.open(place, storage_options)
        index.require(settings)
        return index

    def require(self, settings: IndexSettings) -> None:
        """Refuse to mix candidates.

        Raises:
            IndexMismatchError: this index has other settings.
        """
        meanings = {"dataset_id": "the dataset", "model": "the model", "exact": "exact", "tiles": "tiles"}
        meanings |= {"pixels": "range and channels of pixels", "clean_masks": "clean masks", "fingerprint": ""}
        for name, meaning in meanings.items():
            held, wanted = getattr(self.settings, name), getattr(settings, name)
            if held != wanted:
                what = f"{meaning} {held!r}, not {wanted!r}" if meaning else "other weights or settings of the same preset"
                raise IndexMismatchError(
                    f"The candidate index at {self.uri} was built for {what}: choose another place for this one."
                )

    def refresh(self) -> None:
        """Take notice of what was written since.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexDamagedError: a table cannot be read.
        """
        try:
            # Images first: whatever they name is then among the candidates.
            self._table = lance.dataset(join_uri(self.uri, "images"), storage_options=self._storage)
            rows = read_images(self._table.to_table())
            self._candidates = lance.dataset(join_uri(self.uri, "candidates"), storage_options=self._storage)
            keys: NDArray[np.int64] = self._candidates.to_table(columns=["image"])["image"].to_numpy()
        except (ValueError, OSError) as error:
            if is_gone(self.uri, self._storage):
                raise not_found(self.uri) from error
            raise damaged(self.uri, error) from error
        begins = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1)) if len(keys) else np.zeros(0, np.int64)
        counts = np.diff(begins, append=len(keys))
        self._starts = dict(zip(keys[begins].tolist(), begins.tolist(), strict=True))
        found = dict(zip(keys[begins].tolist(), counts.tolist(), strict=True))
        self._written = Counter(image.builder for image in rows)
        images = {image.sample_id: image for image in rows}  # the last row of a sample counts
        self.images = {
            sample_id: image for sample_id, image in images.items() if image.num_candidates == found.get(image.key, 0)
        }
        self._num_unread = len(keys) - sum(image.num_candidates for image in self.images.values())
        self._looks = None

    @property
    def new_builders(self) -> set[int]:
        """Numbers of the processes that have written since this index was opened, without this one's."""
        return {
            builder
            for builder, written in self._written.items()
            if builder != self.builder and written > self._written_at_first[builder]
        }

    @property
    def num_candidates(self) -> int:
        """Candidates of all images that count."""
        return sum(image.num_candidates for image in self.images.values())

    @property
    def looks(self) -> Looks:
        """Second looks at the candidates, as of when they were first asked for.

        Raises:
            IndexDamagedError: they cannot be read.
        """
        if self._looks is None:
            self._looks = Looks(self.uri, self._storage)
        return self._looks

    @property
    def num_unread_rows(self) -> int:
        """Candidates that no image refers to any more; compact removes them."""
        return self._num_unread

    @property
    def num_bytes(self) -> int:
        """Size of the tables' data files, of the snapshot alone."""
        return bytes_of(self._table) + bytes_of(self._candidates) + self.looks.num_bytes

    def append(self, images: Sequence[tuple[str, FileState, PackedCandidates]]) -> None:
        """Write the candidates of some images, all of them or none.

        Args:
            images: sample id, state of the file before it was read, candidates.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        if not images:
            return
        rows = [
            IndexedImage(sample_id, secrets.randbits(62), file, packed.image_hw, len(packed), self.builder)
            for sample_id, file, packed in images
        ]
        self._write("candidates", candidates_table(rows, [packed for _, _, packed in images], self.settings))
        self._write_images(rows)

    def forget(self, sample_ids: Collection[str]) -> None:
        """Let some images count as not indexed.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        rows = [replace(self.images[name], num_candidates=GONE) for name in sample_ids if name in self.images]
        self.touch(rows)

    def touch(self, images: Collection[IndexedImage]) -> None:
        """Note other states of files whose candidates are still right."""
        if images:
            self._write_images(list(images))
            self.refresh()

    def scan(
        self, sample_ids: Collection[str] | None = None, *, features_only: bool = False, rows: int = ROWS_A_CHUNK
    ) -> Iterator[IndexChunk]:
        """Read candidates, in the order in which they were written; the next chunk is read ahead.

        Args:
            sample_ids: of which images; all where None. Those not indexed are left out.
            features_only: leave out what only masks need.
            rows: candidates a chunk; an image with more is a chunk of its own.

        Raises:
            IndexDamagedError: the candidates cannot be read.
        """
        wanted = self.images if sample_ids is None else [name for name in sample_ids if name in self.images]
        images = sorted((self.images[name] for name in wanted), key=lambda image: self._starts.get(image.key, -1))
        columns = ["feature"] if features_only else ["feature", "box", "predicted_iou", "code", "edge"]
        with ThreadPoolExecutor(1) as ahead:
            reading = None
            for part in parts_of(images, rows):
                following = ahead.submit(self._read, part, columns)
                if reading is not None:
                    yield reading.result()
                reading = following
            if reading is not None:
                yield reading.result()

    def _read(self, images: Sequence[IndexedImage], columns: Sequence[str]) -> IndexChunk:
        counts = np.array([image.num_candidates for image in images], np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        begins = np.array([self._starts.get(image.key, 0) for image in images], np.int64)
        positions = np.repeat(begins - starts[:-1], counts) + np.arange(starts[-1])
        try:
            table = self._candidates.take(positions, columns=list(columns)).combine_chunks()
        except (ValueError, OSError) as error:
            raise damaged(self.uri, error) from error
        return IndexChunk(tuple(images), starts, features_of(table, self.settings), table, self.settings)

    @property
    def has_vector_index(self) -> bool:
        """Whether nearest can be asked."""
        return any("feature" in entry.field_names for entry in self._candidates.describe_indices())

    def make_vector_index(self, num_partitions: int) -> None:
        """Build Lance's vector index over the features: a bit a dimension, refined by the features themselves.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        try:
            self._candidates.create_index(
                "feature", index_type="IVF_RQ", metric="cosine", num_partitions=num_partitions, num_bits=1, replace=True
            )
        except OSError as error:
            raise unwritable(self.uri, error) from error
        self.refresh()

    def nearest(self, vector: Tensor, k: int, num_probes: int, refine: int) -> pa.Table:
        """Rows near a vector by the vector index: every column but `feature`, and `_distance`, 1 less the cosine.

        Args:
            vector: (C,) float32, unit length.
            k: how many.
            num_probes: partitions looked into.
            refine: so many times k rows are compared exactly.
        """
        columns = ["image", "box", "predicted_iou", "code", "edge", "_distance"]
        query = {
            "column": "feature",
            "q": vector.to(self.settings.feature_dtype).numpy(),
            "k": k,
            "nprobes": num_probes,
            "refine_factor": refine,
        }
        return self._candidates.scanner(columns=columns, nearest=query).to_table().combine_chunks()

    def compact(self, keep: Collection[str] | None = None) -> None:
        """Remove the rows that nobody reads, merge small files and give their space back.

        Args:
            keep: sample ids; all other images are forgotten. None keeps every image.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        self.refresh()
        kept = {name: image for name, image in self.images.items() if keep is None or name in keep}
        in_use = {image.key for image in kept.values()}
        try:
            delete_rows(self._candidates, "image", set(self._starts) - in_use)
            self.looks.keep(in_use)
            named = self._table.to_table(columns=["key", "sample_id"], with_row_id=True)
            last = dict(zip(named["sample_id"].to_pylist(), named["_rowid"].to_pylist(), strict=True))
            delete_rows(self._table, "_rowid", set(named["_rowid"].to_pylist()) - {last[name] for name in kept})
            self._tidy(timedelta(0))
        except OSError as error:
            raise unwritable(self.uri, error) from error
        self.refresh()

    def tidy_if_due(self) -> None:
        """Merge small files where many writes have left too many of them; several processes may do so at once."""
        if len(self._candidates.get_fragments()) >= FRAGMENTS_TO_TIDY:
            try:
                # Old versions stay a while for those who read them.
                self._tidy(timedelta(minutes=10))
            except OSError as error:
                # Another process was faster, or the disk is full: reading works as it did.
                logger.info("The small files of the index at %s were not merged: %s", self.uri, error)
            self.refresh()

    def delete(self) -> None:
        """Remove the index from its place.

        Raises:
            IndexWriteError: no right to do so.
        """
        delete_tables(self.uri, self._storage)
        self.images = {}

    def _write_images(self, images: Sequence[IndexedImage]) -> None:
        if any(name not in self._table.schema.names for name, _ in LATER_IMAGE_FIELDS):
            add_later_columns(self.uri, self._storage)
        self._write("images", images_table(images, self.settings))

    def _write(self, name: str, table: pa.Table) -> None:
        try:
            lance.write_dataset(table, join_uri(self.uri, name), mode="append", storage_options=self._storage)
        except OSError as error:
            raise unwritable(self.uri, error) from error

    def _tidy(self, keep_versions: timedelta) -> None:
        self.looks.tidy(keep_versions)
        for name in ("candidates", "images"):
            table = lance.dataset(join_uri(self.uri, name), storage_options=self._storage)
            table.optimize.compact_files(target_rows_per_fragment=ROWS_A_FRAGMENT)
            if table.describe_indices():
                table.optimize.optimize_indices()
            table.cleanup_old_versions(older_than=keep_versions)
