"""One version of the tables of a candidate index: which images count in it, and where the candidates of each lie.

Other processes may write and merge files meanwhile: a version stays what it was, until its files are cleared away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..printing import one_line
from .storage import open_table, read_newest
from .tables import IndexChunk, IndexedImage, IndexSettings, features_of, read_images, sequences_of


@dataclass(frozen=True)
class Snapshot:
    """A version of an index.

    Attributes:
        settings: of the index.
        table: of images.
        candidates: their table.
        images: for each sample id what is indexed.
        starts: row of the first candidate by the key of the image, where they lie together.
        scattered: rows of the candidates, likewise, where merging files has parted them.
        sequence: the highest number of a row of the table of images; see sequences_of.
        named: keys of all its rows, whether they count or not.
        num_rows: of the table of candidates, whether they count or not.
    """

    settings: IndexSettings
    table: Any
    candidates: Any
    images: dict[str, IndexedImage]
    starts: dict[int, int] = field(default_factory=dict)
    scattered: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    sequence: int = 0
    named: frozenset[int] = frozenset()
    num_rows: int = 0

    __repr__ = one_line

    @property
    def version(self) -> tuple[int, int]:
        """Of both tables."""
        return self.table.version, self.candidates.version

    @property
    def is_newest(self) -> bool:
        """Whether no image was written since."""
        return bool(self.table.latest_version == self.table.version)

    def in_order(self, sample_ids: Collection[str]) -> list[IndexedImage]:
        """Those of these images that count, as their candidates lie."""
        found = [self.images[name] for name in sample_ids if name in self.images]
        return sorted(found, key=lambda image: self._start(image.key))

    def _start(self, key: int) -> int:
        return int(self.scattered[key][0]) if key in self.scattered else self.starts.get(key, -1)

    def take(self, images: Sequence[IndexedImage], columns: Sequence[str]) -> IndexChunk:
        """Read some columns of the candidates of some images.

        Raises:
            OSError: they cannot be read.
            ValueError: likewise.
        """
        counts = np.array([image.num_candidates for image in images], np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        begins = np.array([self.starts.get(image.key, 0) for image in images], np.int64)
        rows = np.repeat(begins - starts[:-1], counts) + np.arange(starts[-1])
        for number, image in enumerate(images):
            if image.key in self.scattered:
                rows[starts[number] : starts[number + 1]] = self.scattered[image.key]
        table = self.candidates.take(rows, columns=list(columns)).combine_chunks()
        return IndexChunk(tuple(images), starts, features_of(table, self.settings), table, self.settings)


def read_snapshot(uri: str, settings: IndexSettings, storage_options: dict[str, str] | None = None) -> Snapshot:
    """The newest version of an index.

    Raises:
        IndexNotFoundError: there is none.
        IndexDamagedError: a table cannot be read.
    """
    return read_newest(uri, lambda: _read(uri, settings, storage_options), storage_options)


def _read(uri: str, settings: IndexSettings, storage_options: dict[str, str] | None) -> Snapshot:
    # Images first: whatever they name is then among the candidates.
    table = open_table(uri, "images", storage_options)
    rows = table.to_table()
    candidates = open_table(uri, "candidates", storage_options)
    keys: NDArray[np.int64] = candidates.to_table(columns=["image"])["image"].to_numpy()
    begins = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1)) if len(keys) else np.zeros(0, np.int64)
    starts = dict(zip(keys[begins].tolist(), begins.tolist(), strict=True))
    counts = dict(zip(keys[begins].tolist(), np.diff(begins, append=len(keys)).tolist(), strict=True))
    scattered = _scattered(candidates, keys, begins) if len(starts) < len(begins) else {}
    counts |= {key: len(found) for key, found in scattered.items()}
    every, numbers = read_images(rows), sequences_of(rows)
    last = {every[number].sample_id: every[number] for number in np.argsort(numbers, kind="stable").tolist()}
    return Snapshot(
        settings,
        table,
        candidates,
        {name: image for name, image in last.items() if image.num_candidates == counts.get(image.key, 0)},
        starts,
        scattered,
        int(numbers.max(initial=0)),
        frozenset(image.key for image in every),
        len(keys),
    )


def _scattered(candidates: Any, keys: NDArray[np.int64], begins: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Rows of the candidates of each image that lie in several places; none where nothing tells their order."""
    parts, num_parts = np.unique(keys[begins], return_counts=True)
    found: dict[int, NDArray[np.int64]] = {key: np.zeros(0, np.int64) for key in parts[num_parts > 1].tolist()}
    if "row" not in candidates.schema.names:
        return found
    rows = candidates.to_table(columns=["row"])["row"].fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(keys, list(found)))
    places = places[np.lexsort((rows[places], keys[places]))]
    bounds = np.flatnonzero(np.diff(keys[places])) + 1
    for own in np.split(places, bounds):
        if np.array_equal(rows[own], np.arange(len(own))):
            found[int(keys[own[0]])] = own
    return found
