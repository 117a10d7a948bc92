"""Who computes which images of an index at the moment, so that builders at once share them and none is computed twice.

A Lance table holds a row a lease: its images, its owner, and until when it holds unless it is renewed. Leases are appended.
Lance puts appends in one order, the same for everyone: of two leases of the same image the earlier row counts. Merging on a key
would not do, since two that insert the same key at once both succeed. A lease ends when its row is deleted: by its owner, or,
once its owner is gone, by whoever wants the images. It takes two small commits, together about 20 ms on a local disk.

Nothing depends on leases but the sharing of work: an image that is computed twice all the same has the same answer.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

import lance
import pyarrow as pa

from ..processes import Process
from .storage import PAUSES, clean_up, create_table, delete_rows, join_uri, open_table

logger = logging.getLogger(__name__)

NAME = "leases"
SECONDS = 300.0
"""A lease that is not renewed for so long is over, wherever its owner is; it is renewed after a quarter of that."""
SCHEMA = pa.schema(
    [
        ("lease", pa.int64()),
        ("owner", pa.int64()),
        ("host", pa.string()),
        ("pid", pa.int64()),
        ("started_at", pa.float64()),
        ("until", pa.float64()),
        ("images", pa.list_(pa.string())),
    ]
)


_OWNERS: WeakValueDictionary[int, Leases] = WeakValueDictionary()
"""Those of this process by number."""


@dataclass(frozen=True)
class Lease:
    """One row of the table: a lease, or that one was renewed, which has no images.

    Attributes:
        lease: its number.
        owner: number of the builder.
        process: in which it works.
        until: when the lease is over, in seconds since 1970.
        images: sample ids.
    """

    lease: int
    owner: int
    process: Process
    until: float
    images: tuple[str, ...]


class Leases:
    """The leases of an index, as one builder takes them.

    Attributes:
        owner: its number.
        thread: that carries on the work, or did so last.
        seconds: how long a lease holds.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.owner = secrets.randbits(62)
        self.thread = threading.get_ident()
        self.seconds = SECONDS
        self._uri = uri
        self._storage = storage_options
        self._waiting: dict[int, set[str]] = {}
        self._renewed_at = time.monotonic()
        _OWNERS[self.owner] = self

    def others(self) -> dict[str, int]:
        """The images that other builders compute now, and by which; leases of owners that are gone are ended.

        Raises:
            OSError: the table cannot be read.
            ValueError: likewise.
        """
        rows = self._read()
        until: dict[int, float] = {}
        for row in rows:
            until[row.lease] = max(row.until, until.get(row.lease, 0.0))
        over = {row.lease for row in rows if row.owner != self.owner and self._is_over(row, until[row.lease])}
        if over:
            with suppress(OSError):
                delete_rows(self._open(), "lease", over)
        current = [row for row in rows if row.owner != self.owner and row.lease not in over]
        return {name: row.owner for row in reversed(current) for name in row.images}

    def take(self, sample_ids: Sequence[str]) -> set[str]:
        """Lease those of these images that nobody else has.

        Raises:
            OSError: no space or no right to write, or the table cannot be read.
            ValueError: likewise.
        """
        create_table(self._uri, NAME, SCHEMA, self._storage)
        lease = secrets.randbits(62)
        appended = self._append(lease, sample_ids)
        try:
            rows = _rows_of(appended)
        except (ValueError, OSError):
            # Another builder has just cleared away what is over; the order of the others is the same.
            rows = self._read()
        own = next((number for number, row in enumerate(rows) if row.lease == lease), None)
        earlier = {name for row in rows[:own] if row.owner != self.owner for name in row.images}
        won = set(sample_ids) - earlier
        if won:
            self._waiting[lease] = set(won)
        else:
            delete_rows(self._open(), "lease", [lease])
        return won

    def settle(self, sample_ids: Collection[str]) -> None:
        """Note that this builder has done with some images; their leases end with the next release."""
        for images in list(self._waiting.values()):
            images.difference_update(sample_ids)

    def release(self) -> None:
        """End the leases with whose images this builder has done.

        Raises:
            OSError: no space or no right to write.
        """
        done = [lease for lease, images in list(self._waiting.items()) if not images]
        if done:
            delete_rows(self._open(), "lease", done)
            for lease in done:
                del self._waiting[lease]

    def renew_if_due(self) -> None:
        """Say that this builder is still there.

        Raises:
            OSError: no space or no right to write.
        """
        if self._waiting and time.monotonic() - self._renewed_at >= self.seconds / 4:
            for lease in list(self._waiting):
                self._append(lease, [])
            self._renewed_at = time.monotonic()

    def close(self) -> None:
        """End all leases of this builder, and remove what is left of others that are over, as far as can be written."""
        for images in self._waiting.values():
            images.clear()
        try:
            self.release()
            if not self.others():
                table = self._open()
                # Nobody reads leases that are over.
                clean_up(table, timedelta(0))
        except (OSError, ValueError) as error:
            if "not found" not in str(error).lower():
                logger.info("Leases of the index at %s were not ended: %s", self._uri, error)
        self._waiting.clear()

    def _is_over(self, row: Lease, until: float) -> bool:
        if until < time.time():
            return True
        if row.process != Process.current():
            return row.process.is_known_to_be_gone
        owner = _OWNERS.get(row.owner)
        # One that this thread has left off can do nothing while this one waits for it.
        return owner is None or owner.thread == self.thread

    def _open(self) -> Any:
        return open_table(self._uri, NAME, self._storage)

    def _read(self) -> list[Lease]:
        for pause in PAUSES:
            time.sleep(pause)
            try:
                return _rows_of(self._open())
            except (ValueError, OSError) as error:
                if "not found" in str(error).lower() and not self._has_table():
                    return []
                last = error
        raise last

    def _has_table(self) -> bool:
        try:
            return self._open() is not None
        except (ValueError, OSError) as error:
            return "not found" not in str(error).lower()

    def _append(self, lease: int, images: Sequence[str]) -> Any:
        process = Process.current()
        until = time.time() + self.seconds
        row = (lease, self.owner, process.host, process.pid, process.started_at, until, list(images))
        columns = [pa.array([value], kind) for value, kind in zip(row, SCHEMA.types, strict=True)]
        table = pa.Table.from_arrays(columns, schema=SCHEMA)
        return lance.write_dataset(table, join_uri(self._uri, NAME), mode="append", storage_options=self._storage)


def _rows_of(table: Any) -> list[Lease]:
    return [
        Lease(
            row["lease"], row["owner"], Process(row["host"], row["pid"], row["started_at"]), row["until"], tuple(row["images"])
        )
        for row in table.to_table(columns=SCHEMA.names).to_pylist()
    ]
