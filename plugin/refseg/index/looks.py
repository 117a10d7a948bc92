"""Second looks at the candidates of an index: a third Lance table, filled as they are needed.

A row is a look: the key of its image, the candidate's number in the image, and D half-precision values. An image that is
indexed again gets another key, so that no look is ever taken for one at another candidate. Opening reads 12 bytes a look.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import LOOK_VERSION
from ..printing import counted
from .storage import (
    GRACE,
    bytes_of,
    clean_up,
    create_table,
    delete_rows,
    join_uri,
    merge_files,
    open_table,
    read_anew,
    read_newest,
    unwritable,
)
from .tables import IndexedImage, column_of

logger = logging.getLogger(__name__)

NAME = "looks"
FRAGMENTS_TO_TIDY = 64
"""Each write adds a fragment; beyond so many small ones reading slows down."""
LOOKS_KEY = b"refseg_looks"

Look = tuple[IndexedImage, Tensor, Tensor]
"""An image, (n,) int64 rows of its candidates, and (n, D) second looks at them."""


class Looks:
    """The second looks of an index, as of when it was opened.

    Attributes:
        uri: of the index.
        width: D; 0 where there is no table yet.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self.width = 0
        self._storage = storage_options
        self._table: Any = None
        self._keys: NDArray[np.int64]
        self._rows: NDArray[np.int64]
        self._positions: NDArray[np.int64]
        self._open()

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"Looks({counted(len(self), 'second look')}; {self.uri})"

    @property
    def num_bytes(self) -> int:
        """Size of the table's data files."""
        return 0 if self._table is None else bytes_of(self._table)

    @property
    def keys(self) -> set[int]:
        """Of the images of which there are looks."""
        return set(np.unique(self._keys).tolist())

    def _open(self) -> None:
        read_newest(self.uri, self._read_names, self._storage)

    def _read_names(self) -> None:
        self._table, self.width = None, 0
        self._keys = self._rows = self._positions = np.zeros(0, np.int64)
        try:
            table = open_table(self.uri, NAME, self._storage)
        except (ValueError, OSError) as error:
            if "not found" in str(error).lower():
                return
            raise
        about = json.loads((table.schema.metadata or {}).get(LOOKS_KEY, b"{}"))
        if about.get("version") != LOOK_VERSION:
            return
        names = table.to_table(columns=["image", "row"])
        self._table, self.width = table, int(about["width"])
        keys, rows = names["image"].to_numpy(), names["row"].to_numpy().astype(np.int64)
        # Two processes may have looked at the same candidate: either look is right.
        order = np.lexsort((rows, keys))
        keys, rows = keys[order], rows[order]
        first = np.ones(len(keys), bool)
        first[1:] = (np.diff(keys) != 0) | (np.diff(rows) != 0)
        self._keys, self._rows, self._positions = keys[first], rows[first], order[first]

    def read(self, images: Sequence[IndexedImage]) -> list[tuple[Tensor, Tensor]]:
        """For each image (n,) int64 rows of its candidates and (n, D) float32 second looks at them.

        Raises:
            IndexDamagedError: the table cannot be read.
        """
        return read_anew(self.uri, lambda: self._take(images), self._version, self._open)

    def _version(self) -> int | None:
        return None if self._table is None else self._table.version

    def _take(self, images: Sequence[IndexedImage]) -> list[tuple[Tensor, Tensor]]:
        if self._table is None or not images:
            return [(torch.zeros(0, dtype=torch.int64), torch.zeros(0, self.width)) for _ in images]
        starts, stops = (np.searchsorted(self._keys, [image.key + more for image in images]) for more in (0, 1))
        wanted = np.concatenate([self._positions[start:stop] for start, stop in zip(starts, stops, strict=True)])
        order = np.argsort(wanted)
        table = self._table.take(wanted[order], columns=["look"]).combine_chunks()
        column = column_of(table, "look")
        flat = torch.utils.dlpack.from_dlpack(column.flatten()) if len(column) else torch.zeros(0, dtype=torch.float16)
        looks = torch.empty(len(wanted), self.width)
        looks[torch.from_numpy(order)] = flat.reshape(-1, self.width).float()
        ends = np.cumsum(stops - starts)
        parts = zip(starts, stops, ends, strict=True)
        return [
            (torch.from_numpy(self._rows[start:stop].copy()), looks[end - (stop - start) : end]) for start, stop, end in parts
        ]

    def append(self, looks: Sequence[Look]) -> None:
        """Add second looks, all of them or none; an earlier table of another version is replaced.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        looks = [item for item in looks if len(item[1])]
        if not looks:
            return
        values = torch.cat([own for _, _, own in looks]).half()
        width = values.shape[1]
        about = json.dumps({"version": LOOK_VERSION, "width": width}).encode()
        fields = [("image", pa.int64()), ("row", pa.int32()), ("look", pa.list_(pa.float16(), width))]
        schema = pa.schema(fields, metadata={LOOKS_KEY: about})
        counts = [len(rows) for _, rows, _ in looks]
        columns = [
            pa.array(np.repeat([image.key for image, _, _ in looks], counts), pa.int64()),
            pa.array(torch.cat([rows for _, rows, _ in looks]).numpy(), pa.int32()),
            pa.FixedSizeListArray.from_arrays(pa.array(values.numpy().ravel()), width),
        ]
        place = join_uri(self.uri, NAME)
        try:
            if self._table is None:
                self._make(place, schema)
            table = pa.Table.from_arrays(columns, schema=schema)
            written = lance.write_dataset(table, place, mode="append", storage_options=self._storage)
        except OSError as error:
            raise unwritable(self.uri, error) from error
        if len(written.get_fragments()) >= FRAGMENTS_TO_TIDY:
            self.tidy(GRACE)
        self._open()

    def tidy(self, grace: timedelta) -> None:
        """Merge small files, and give back the space of versions that others may have been reading for so long."""
        if self._table is None:
            return
        try:
            table = open_table(self.uri, NAME, self._storage)
            merge_files(table)
            clean_up(table, grace)
        except (ValueError, OSError) as error:
            # Another process was faster, or the disk is full: reading works as it did.
            logger.info("The small files of second looks at %s were not merged: %s", self.uri, error)

    def remove(self, keys: Collection[int]) -> None:
        """Remove the looks at these images.

        Raises:
            OSError: no right to write.
        """
        if self._table is not None:
            delete_rows(self._table, "image", keys)
            self._open()

    def _make(self, place: str, schema: pa.Schema) -> None:
        create_table(self.uri, NAME, schema, self._storage)
        found = lance.dataset(place, storage_options=self._storage).schema
        if (found.metadata or {}).get(LOOKS_KEY) != schema.metadata[LOOKS_KEY]:
            lance.write_dataset(schema.empty_table(), place, mode="overwrite", storage_options=self._storage)
