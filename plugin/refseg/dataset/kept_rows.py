"""What this process keeps of every sample of a dataset, so that only samples written since are read again.

FiftyOne notes on a sample when it was last written, whoever writes. MongoDB counts these times and adds them up from their
index alone, about a microsecond each: where number and sum are those of what is kept, nothing was written, added or deleted.
Else a few changed samples are found by their times at once; many, or all at first, are read by a thread beside the caller.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pymongo.command_cursor import CommandCursor
from pymongo.errors import OperationFailure

from ..printing import one_line

MODIFIED = "last_modified_at"
PATIENCE = 0.25
"""Seconds that who asks waits at most, unless for all that is to be read."""
FEW = 1000
"""So many changed samples are read at once by who asks."""
COMPARED_AT_ONCE = 20_000
"""The times of so many samples are."""
SAMPLES_A_CHUNK = 200
"""Documents that are held at a time. Of thousands, Python would go through all its objects again and again for those to throw
away, which takes three times as long as reading does, and MongoDB's batches of 16 MB hold up every other thread."""
UNSETTLED_MS = 1000
"""Times are in milliseconds: what was written so shortly before it was read could be written again within the same one."""
TRIES = 2
"""So often the few changed samples are looked for: some may be written while others are read."""
TABLES_KEPT = 8

Kind = TypeVar("Kind", bound="Rows")
Kept = TypeVar("Kept", bound="KeptRows")


@dataclass(frozen=True, eq=False)
class Rows:
    """Columns of what was read of samples, in arrays as long as `numbers`.

    Attributes:
        numbers: (n,) int64 the place of each row's sample in the dataset, counted from 0.
    """

    numbers: NDArray[np.int64]

    __repr__ = one_line

    def renumbered(self: Kind, places: NDArray[np.int64]) -> Kind:
        """The rows with new places of their samples; without those of samples that have none, which is -1."""
        numbers = places[self.numbers]
        stays = numbers >= 0
        columns = {entry.name: getattr(self, entry.name)[stays] for entry in fields(self)}
        return replace(self, **{**columns, "numbers": numbers[stays]})

    @classmethod
    def join(cls: type[Kind], parts: Sequence[Kind]) -> Kind:
        """All rows of some, one after the other."""
        return cls(*(np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(cls)))


@dataclass(frozen=True, eq=False)
class Content:
    """What is kept at one moment.

    Attributes:
        ids: of the samples, in the database's own order.
        rows: what was read of them, a table each of its own kind.
    """

    ids: Sequence[Any]
    rows: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class _State:
    """Content with what it takes to know whether it is still true."""

    content: Content
    numbers: Mapping[Any, int]
    times: NDArray[np.int64]
    unsettled: tuple[Any, ...]

    @property
    def stamp(self) -> tuple[int, int]:
        return len(self.times), int(self.times.sum())


class KeptRows(ABC):
    """Keeps what is read of a dataset's samples.

    Args:
        samples: MongoDB's collection of them.
        slices: the field of the group's slice and the only slices that are read; None for all samples.
    """

    def __init__(self, samples: Any, slices: tuple[str, frozenset[str]] | None = None) -> None:
        self._samples, self._slices = samples, slices
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._state: _State | None = None
        self._error: Exception | None = None
        # Datasets of old versions of FiftyOne lack it; without the right to make one, looking takes longer.
        with suppress(OperationFailure):
            samples.create_index(MODIFIED)

    @property
    @abstractmethod
    def read_fields(self) -> Mapping[str, Any]:
        """What is read of a sample, as MongoDB's $project takes it."""

    @abstractmethod
    def read(self, documents: Sequence[Mapping[str, Any]], numbers: NDArray[np.int64]) -> tuple[Any, ...]:
        """Rows of some samples, of none too.

        Args:
            documents: what was read of them.
            numbers: (n,) their places in the dataset.
        """

    def look(self, *, waits: bool = True) -> Content | None:
        """What the samples hold now.

        Args:
            waits: however much has to be read; else for PATIENCE alone.

        Returns:
            None where that takes longer. Reading goes on, and a later look finds what was read.
        """
        until = None if waits else time.monotonic() + PATIENCE
        while True:
            with self._lock:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                reader = self._reader
                if reader is None:
                    if self._catch_up() and self._state is not None:
                        return self._state.content
                    reader = threading.Thread(target=self._read_beside, name="refseg-reader", daemon=True)
                    self._reader = reader
                    reader.start()
            reader.join(None if until is None else max(0.0, until - time.monotonic()))
            if reader.is_alive():
                return None

    def _catch_up(self) -> bool:
        """Read again what has changed; False, and nothing is read, where that is much."""
        if self._state is None:
            return False
        for attempt in range(TRIES):
            state, started = self._state, _now()
            newest = datetime(1970, 1, 1) + timedelta(milliseconds=int(state.times.max(initial=0)))
            changed = {"$or": [{MODIFIED: {"$gt": newest}}, {"_id": {"$in": list(state.unsettled)}}]}
            documents = list(islice(self._documents(changed), FEW + 1))
            # New samples are not in the database's order among these, and those that are gone not at all.
            if len(documents) > FEW or any(document["_id"] not in state.numbers for document in documents):
                break
            if documents:
                self._state = self._with(state, documents, started)
            if self._stamp(anew=attempt > 0) == self._state.stamp:
                return True
        if len(self._state.times) > COMPARED_AT_ONCE:
            return False
        self._compare()
        return True

    def _read_beside(self) -> None:
        try:
            self._compare()
        except Exception as error:
            self._error = error
        finally:
            self._reader = None

    def _compare(self) -> None:
        """Read every sample whose time is another than that of what is kept."""
        state, started = self._state, _now()
        if state is None:
            self._state = self._read_all(started)
            return
        found = self._samples.aggregate([{"$project": {MODIFIED: _TIME}}], batchSize=SAMPLES_A_CHUNK)
        listed = [(one["_id"], one[MODIFIED] or 0) for one in found]
        unsettled = set(state.unsettled)
        places = np.full(len(state.numbers), -1, np.int64)
        times = np.fromiter((moment for _, moment in listed), np.int64, len(listed))
        wanted = []
        for number, (name, moment) in enumerate(listed):
            before = state.numbers.get(name)
            if before is not None:
                places[before] = number
            if before is None or state.times[before] != moment or name in unsettled:
                wanted.append(name)
        if 2 * len(wanted) > len(listed):
            self._state = self._read_all(started)
            return
        ids = [name for name, _ in listed]
        rows = tuple(kind.renumbered(places) for kind in state.content.rows)
        numbers = {name: number for number, name in enumerate(ids)}
        after = _State(Content(ids, rows), numbers, times, ())
        changed = (self._documents({"_id": {"$in": part}}) for part in in_chunks(wanted))
        self._state = self._with(after, [document for part in changed for document in part], started)

    def _read_all(self, started: int) -> _State:
        ids: list[Any] = []
        times: list[int] = []
        parts = [self.read([], np.zeros(0, np.int64))]
        for documents in in_chunks(self._documents(None)):
            parts.append(self._rows_of(documents, np.arange(len(ids), len(ids) + len(documents))))
            ids += [document["_id"] for document in documents]
            times += [document[MODIFIED] or 0 for document in documents]
        rows = tuple(type(kinds[0]).join(kinds) for kinds in zip(*parts, strict=True))
        moments = np.array(times, np.int64)
        unsettled = tuple(ids[row] for row in np.flatnonzero(moments >= started - UNSETTLED_MS))
        return _State(Content(ids, rows), {name: number for number, name in enumerate(ids)}, moments, unsettled)

    def _with(self, state: _State, documents: Sequence[Mapping[str, Any]], started: int) -> _State:
        """What is kept once some samples, whose places are known, were read again."""
        numbers = np.fromiter((state.numbers[document["_id"]] for document in documents), np.int64, len(documents))
        times = state.times.copy()
        times[numbers] = [document[MODIFIED] or 0 for document in documents]
        rows = state.content.rows
        if len(documents):
            stays = np.arange(len(times))
            stays[numbers] = -1
            fresh = self._rows_of(documents, numbers)
            rows = tuple(type(kind).join([kind.renumbered(stays), new]) for kind, new in zip(rows, fresh, strict=True))
        unsettled = tuple(document["_id"] for document in documents if (document[MODIFIED] or 0) >= started - UNSETTLED_MS)
        return _State(Content(state.content.ids, rows), state.numbers, times, unsettled)

    def _rows_of(self, documents: Sequence[Mapping[str, Any]], numbers: NDArray[np.int64]) -> tuple[Any, ...]:
        if self._slices is not None:
            field, wanted = self._slices
            chosen = [row for row, one in enumerate(documents) if (one.get(field) or {}).get("name") in wanted]
            documents, numbers = [documents[row] for row in chosen], numbers[chosen]
        return self.read(documents, numbers)

    def _documents(self, match: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        project = {**self.read_fields, MODIFIED: _TIME}
        if self._slices is not None:
            project[f"{self._slices[0]}.name"] = True
        stages: list[Mapping[str, Any]] = [] if match is None else [{"$match": match}]
        return iter(self._samples.aggregate([*stages, {"$project": project}], batchSize=SAMPLES_A_CHUNK))

    def _stamp(self, *, anew: bool) -> tuple[int, int]:
        """How many samples there are, and the sum of their times; of the present moment where it is told, see at_one_moment."""
        known = _moment.get()
        if known is None:
            return self._read_stamp()
        if anew or self._samples.name not in known:
            known[self._samples.name] = self._read_stamp()
        return known[self._samples.name]

    def _read_stamp(self) -> tuple[int, int]:
        total = [{"$group": {"_id": None, "number": {"$sum": 1}, "times": {"$sum": _TIME}}}]
        try:
            found = list(self._samples.aggregate(total, hint={MODIFIED: 1}))
        except OperationFailure:
            found = list(self._samples.aggregate(total))
        return (found[0]["number"], found[0]["times"]) if found else (0, 0)


_TIME = {"$toLong": f"${MODIFIED}"}
_moment: ContextVar[dict[str, tuple[int, int]] | None] = ContextVar("moment", default=None)
_kept: dict[Hashable, KeptRows] = {}
_kept_lock = threading.Lock()


def keep_rows(kind: type[Kept], dataset: Any, *settings: Hashable, slices: Iterable[str] | None = None) -> Kept:
    """What this process keeps of a dataset; the same for who asks for the same.

    Args:
        kind: what is kept; made of MongoDB's collection, the slices and the settings.
        dataset: a dataset, or the view of all frames of one.
        settings: what tells it from others of its kind.
        slices: of grouped data, the slices that are read.
    """
    samples = dataset._dataset._sample_collection
    chosen = None if slices is None else (dataset._dataset.group_field, frozenset(slices))
    key = (kind, samples.name, chosen, *settings)
    with _kept_lock:
        found = _kept.pop(key, None) or kind(samples, chosen, *settings)
        # The one used last stands at the end.
        _kept[key] = found
        while len(_kept) > TABLES_KEPT:
            _kept.pop(next(iter(_kept)))
    assert isinstance(found, kind)
    return found


def in_chunks(documents: Iterable[Any]) -> Iterator[list[Any]]:
    """Documents, such as a cursor of MongoDB's, SAMPLES_A_CHUNK at a time."""
    if isinstance(documents, CommandCursor):
        documents = documents.batch_size(SAMPLES_A_CHUNK)
    rest = iter(documents)
    while chunk := list(islice(rest, SAMPLES_A_CHUNK)):
        yield chunk


@contextmanager
def at_one_moment() -> Iterator[None]:
    """Several looks at a dataset within this see what it held at the first of them, or later; for looks without writes between.

    MongoDB is asked once whether anything was written, instead of by each of them.
    """
    token = _moment.set({})
    try:
        yield
    finally:
        _moment.reset(token)


def forget_rows(dataset: Any) -> None:
    """Keep nothing of a dataset any more: everything is read anew when it is next asked for."""
    name = dataset._dataset._sample_collection.name
    with _kept_lock:
        for key in [key for key, found in _kept.items() if found._samples.name == name]:
            del _kept[key]


def _now() -> int:
    return time.time_ns() // 1_000_000
