"""The candidate index: packed candidates of many images, kept in Lance tables, so that they are computed once.

`candidates` has a row a candidate, `images` a row an image, `looks` one a second look. An image's candidates are written first
and its row after them, both by atomic transactions: an image counts when its row is there and finds all its candidates. Nothing
is ever changed in place, an image that is indexed again gets a later row. So a killed process, a full disk or two builders at
once can leave rows that nobody reads, which `compact` removes, but never a wrong answer. A fourth table, `leases`, says who
computes what.

A candidate takes 2 bytes a feature and about 200 to 600 for its mask; opening reads 8 bytes a candidate and a row an image.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lance
import pyarrow as pa
from torch import Tensor

from ..candidates import PackedCandidates
from ..errors import IndexDamagedError, IndexMismatchError
from ..failpoints import reach
from ..printing import counted
from .compacting import compact, tidy
from .fragments import properties_of
from .leases import Leases
from .looks import Looks
from .snapshot import read_snapshot
from .storage import (
    GRACE,
    LATER_FIELDS,
    Read,
    add_later_columns,
    bytes_of,
    create_tables,
    delete_tables,
    join_uri,
    parts_of,
    read_anew,
    read_newest,
    unwritable,
    write_anew,
)
from .tables import (
    NEWEST_FORMAT,
    FileState,
    IndexChunk,
    IndexedImage,
    IndexSettings,
    candidates_table,
    images_table,
    read_settings,
)

ROWS_A_CHUNK = 8192
"""Candidates read at once: 16 MB of features of width 1024."""
FRAGMENTS_TO_TIDY = 64
"""Each write adds a fragment; beyond so many small ones reading slows down."""
GONE = -1
"""Number of candidates that says: forget this image."""


class CandidateIndex:
    """An open index: a snapshot that `refresh` renews and `append` adds to.

    Attributes:
        uri: a folder or an object store's address.
        settings: what its candidates have in common.
        builder: a number for whoever writes through this object.
    """

    def __init__(self, uri: str, settings: IndexSettings, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self.settings = settings
        self.builder = secrets.randbits(62)
        self._storage = storage_options
        self._snapshot = read_snapshot(uri, settings, storage_options)
        self._refreshing = threading.Lock()
        self._sequence = 0
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
        table = read_newest(
            place, lambda: lance.dataset(join_uri(place, "images"), storage_options=storage_options), storage_options
        )
        version, settings = read_settings(table.schema)
        if version > NEWEST_FORMAT:
            raise IndexMismatchError(
                f"The candidate index at {place} was written by a newer RefSeg (format {version}, this one reads up to "
                f"{NEWEST_FORMAT}): update RefSeg."
            )
        if settings is None:
            raise IndexDamagedError(f"What lies at {place} is not a candidate index: choose another place.")
        return cls(place, settings, storage_options)

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
        create_tables(place, settings, storage_options)
        index = cls.open(place, storage_options)
        index.require(settings)
        return index

    def make_again(self) -> None:
        """Begin with nothing where the index was deleted.

        Raises:
            IndexWriteError: nothing can be written there.
        """
        create_tables(self.uri, self.settings, self._storage)
        self.refresh()

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
        # A builder's threads refresh at once: the one that began last has the newest.
        with self._refreshing:
            self._snapshot = read_snapshot(self.uri, self.settings, self._storage)
            self._looks = None

    def refresh_if_changed(self) -> None:
        """Take notice of images that others have written since; costs next to nothing where there are none.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexDamagedError: a table cannot be read.
        """
        with suppress(ValueError, OSError):
            if self._snapshot.is_newest:
                return
        self.refresh()

    @property
    def images(self) -> dict[str, IndexedImage]:
        """For each sample id what is indexed, as of the snapshot."""
        return self._snapshot.images

    @property
    def _table(self) -> Any:
        return self._snapshot.table

    @property
    def _candidates(self) -> Any:
        return self._snapshot.candidates

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
        looks = self._looks
        if looks is None:
            looks = self._looks = Looks(self.uri, self._storage)
        return looks

    def leases(self) -> Leases:
        """Who computes which images, for one more builder."""
        return Leases(self.uri, self._storage)

    @property
    def num_unread_rows(self) -> int:
        """Candidates that no image refers to any more; compact removes them."""
        return self._snapshot.num_rows - self.num_candidates

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
        reach("index.candidates")
        self._write_images(rows)
        reach("index.images")

    @property
    def keys(self) -> frozenset[int]:
        """Of all rows of the table of images, whether they count or not."""
        return self._snapshot.named

    def note_images(self, images: Sequence[IndexedImage], shards: Sequence[str]) -> None:
        """Write the rows of images whose candidates are in the table already, and whose shards these are.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        self._write_images(images, properties_of(shards))

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
    ) -> Generator[IndexChunk, None, None]:
        """Read candidates, in the order in which they were written; the next chunk is read ahead.

        Each image is given once, as it was when the scan began; where others clear its files away meanwhile, as they put it.

        Args:
            sample_ids: of which images; all where None. Those not indexed are left out.
            features_only: leave out what only masks need.
            rows: candidates a chunk; an image with more is a chunk of its own.

        Raises:
            IndexDamagedError: the candidates cannot be read.
        """
        columns = ["feature"] if features_only else ["feature", "box", "predicted_iou", "code", "edge"]
        origin = newest = self._snapshot

        def renew() -> None:
            nonlocal newest
            self.refresh()
            newest = self._snapshot

        def read(images: Sequence[IndexedImage]) -> IndexChunk:
            def take() -> IndexChunk:
                now = images if newest is origin else newest.in_order([image.sample_id for image in images])
                return newest.take(now, columns)

            return read_anew(self.uri, take, lambda: newest.version, renew)

        wanted = origin.in_order(origin.images if sample_ids is None else set(sample_ids))
        ahead = ThreadPoolExecutor(1)
        try:
            reading = None
            for part in parts_of(wanted, rows):
                following = ahead.submit(read, part)
                if reading is not None:
                    yield reading.result()
                reading = following
            if reading is not None:
                yield reading.result()
        finally:
            # Without waiting: Python may close a scan that was left half read while it starts another thread, and would wait
            # for ever.
            ahead.shutdown(wait=False, cancel_futures=True)

    @property
    def has_vector_index(self) -> bool:
        """Whether nearest can be asked.

        Raises:
            IndexDamagedError: nobody can tell.
        """
        indices = self._read_anew(lambda: self._candidates.describe_indices())
        return any("feature" in entry.field_names for entry in indices)

    def make_vector_index(self, num_partitions: int) -> None:
        """Build Lance's vector index over the features: a bit a dimension, refined by the features themselves.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        options = {"index_type": "IVF_RQ", "metric": "cosine", "num_partitions": num_partitions, "num_bits": 1}
        self._write_anew(lambda: self._candidates.create_index("feature", replace=True, **options))
        self.refresh()

    def nearest(self, vector: Tensor, k: int, num_probes: int, refine: int) -> pa.Table:
        """Rows near a vector by the vector index: every column but `feature`, and `_distance`, 1 less the cosine.

        Args:
            vector: (C,) float32, unit length.
            k: how many.
            num_probes: partitions looked into.
            refine: so many times k rows are compared exactly.

        Raises:
            IndexDamagedError: the candidates cannot be read.
        """
        columns = ["image", "box", "predicted_iou", "code", "edge", "_distance"]
        query = {
            "column": "feature",
            "q": vector.to(self.settings.feature_dtype).numpy(),
            "k": k,
            "nprobes": num_probes,
            "refine_factor": refine,
        }
        return self._read_anew(lambda: self._candidates.scanner(columns=columns, nearest=query).to_table().combine_chunks())

    def compact(self, keep: Collection[str] | None = None, grace: timedelta = GRACE) -> None:
        """Remove the rows that nobody reads, and merge small files; their space is given back after a while.

        Others may read and build meanwhile. What they are writing stays.

        Args:
            keep: sample ids; all other images are forgotten. None keeps every image.
            grace: for so long the files stay that others may be reading; a later compaction or build removes them. Whoever
                still reads them then begins anew with the newest ones.

        Raises:
            IndexNotFoundError: it was deleted.
            IndexWriteError: no space or no right to write.
        """

        def work() -> None:
            self.refresh()
            compact(self.uri, self._snapshot, keep, grace, self._storage)

        self._write_anew(work)
        self.refresh()

    def tidy_if_due(self) -> None:
        """Merge small files where many writes have left too many of them; several processes may do so at once."""
        if len(self._candidates.get_fragments()) >= FRAGMENTS_TO_TIDY:
            tidy(self.uri, self._storage)
            self.refresh()

    def delete(self) -> None:
        """Remove the index from its place.

        Raises:
            IndexWriteError: no right to do so.
        """
        delete_tables(self.uri, self._storage)
        self._snapshot = replace(self._snapshot, images={})

    def _write_images(self, images: Sequence[IndexedImage], properties: dict[str, str] | None = None) -> None:
        self._sequence = max(self._sequence, self._snapshot.sequence) + 1
        self._write("images", images_table(images, self.settings, self._sequence), properties)

    def _write(self, name: str, table: pa.Table, properties: dict[str, str] | None = None) -> None:
        held = self._table if name == "images" else self._candidates
        if any(field not in held.schema.names for field, _ in LATER_FIELDS[name]):
            add_later_columns(self.uri, name, self._storage)
        try:
            lance.write_dataset(
                table,
                join_uri(self.uri, name),
                mode="append",
                storage_options=self._storage,
                transaction_properties=properties,
            )
        except OSError as error:
            raise unwritable(self.uri, error) from error

    def _read_anew(self, read: Callable[[], Read]) -> Read:
        return read_anew(self.uri, read, lambda: self._snapshot.version, self.refresh)

    def _write_anew(self, write: Callable[[], None]) -> None:
        write_anew(self.uri, write, lambda: self._snapshot.version, self.refresh)
