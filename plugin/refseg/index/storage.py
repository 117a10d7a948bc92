"""Where tables lie, and what goes wrong there."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import lance
import numpy as np
import pyarrow as pa

from ..errors import IndexDamagedError, IndexNotFoundError, IndexWriteError
from .space import local_path
from .tables import LATER_CANDIDATE_FIELDS, LATER_IMAGE_FIELDS, IndexedImage, IndexSettings, candidates_schema, images_schema

logger = logging.getLogger(__name__)

KEYS_A_DELETE = 5000
ROWS_A_FRAGMENT = 1 << 17
TABLES = ("images", "candidates", "looks", "leases")
LATER_FIELDS = {"images": LATER_IMAGE_FIELDS, "candidates": LATER_CANDIDATE_FIELDS}
GRACE = timedelta(minutes=10)
"""How long files that were replaced stay for those who read them."""
PAUSES = (0.0, 0.05, 0.1, 0.2)
"""Seconds before each try to read the newest version of a table, which another process may just be replacing."""
TRIES = 5
"""So often in a row a read or write begins, where others have replaced or cleared away what it is about."""

Read = TypeVar("Read")


def create_table(uri: str, name: str, schema: pa.Schema, storage_options: dict[str, str] | None) -> None:
    """Make an empty table where there is none; of several processes that do so at once, one is first."""
    local = local_path(uri)
    if local is None:
        try:
            lance.write_dataset(schema.empty_table(), join_uri(uri, name), mode="create", storage_options=storage_options)
        except OSError as error:
            if "already exists" not in str(error):
                raise
        return
    table = local / f"{name}.lance"
    if table.exists():
        return
    # Lance lets two creations of one table at once succeed, the later in place of the earlier. A folder cannot be renamed to
    # one that is there and not empty.
    draft = local / f".{name}-{secrets.token_hex(4)}.lance"
    lance.write_dataset(schema.empty_table(), str(draft), mode="create")
    try:
        draft.rename(table)
    except OSError:
        shutil.rmtree(draft)
        if not table.exists():
            raise


def create_tables(uri: str, settings: IndexSettings, storage_options: dict[str, str] | None) -> None:
    """Make those that an index cannot do without, where they are not there.

    Raises:
        IndexWriteError: nothing can be written there.
    """
    try:
        for name, schema in (("candidates", candidates_schema(settings)), ("images", images_schema(settings))):
            create_table(uri, name, schema, storage_options)
    except OSError as error:
        raise unwritable(uri, error) from error


def add_later_columns(uri: str, name: str, storage_options: dict[str, str] | None) -> None:
    """Give a table the columns that it lacks because an earlier version made it; that version can go on.

    Raises:
        IndexWriteError: it cannot be written to.
    """
    for last in (False, True):
        table = open_table(uri, name, storage_options)
        missing = [field for field in LATER_FIELDS[name] if field[0] not in table.schema.names]
        try:
            for field in missing:
                # What is there was written before all that has a number.
                table.add_columns(_zeros(field) if field[0] == "sequence" else pa.schema([field]))
            return
        except OSError as error:
            # Another process may have done it at the same time: then nothing is missing at a second look.
            if last:
                raise unwritable(uri, error) from error


def _zeros(field: tuple[str, Any]) -> Any:
    """A new column of zeros that may be null in later rows, which a column made by SQL may not."""
    name, kind = field

    def zeros(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch([pa.array(np.zeros(len(rows)), kind)], [name])

    return lance.batch_udf(output_schema=pa.schema([field]))(zeros)


def delete_tables(uri: str, storage_options: dict[str, str] | None = None, names: Sequence[str] = TABLES) -> None:
    """Remove the index at this place, or some of its tables, whatever state they are in; other files there stay.

    Raises:
        IndexWriteError: no right to do so.
    """
    local = local_path(uri)
    try:
        for name in names:
            if local is None:
                lance.LanceDataset.drop(join_uri(uri, name), storage_options, ignore_not_found=True)
            else:
                for folder in (*local.glob(f"{name}.lance"), *local.glob(f".{name}-*.lance")):
                    shutil.rmtree(folder)
        if local is not None and local.is_dir() and not any(local.iterdir()):
            local.rmdir()
    except (OSError, ValueError) as error:
        raise IndexWriteError(f"The candidate index at {uri} cannot be deleted ({_first_line(error)}).") from error


def delete_rows(table: Any, column: str, values: Collection[int]) -> None:
    """Delete the rows of a table in which a column has one of some values."""
    every = sorted(values)
    for start in range(0, len(every), KEYS_A_DELETE):
        table.delete(f"{column} IN ({', '.join(map(str, every[start : start + KEYS_A_DELETE]))})")


def merge_files(table: Any) -> None:
    """Merge the small files of a table. Others may write to it meanwhile; of two who merge one is told of a conflict.

    Raises:
        OSError: another process was faster, or no space or no right to write.
    """
    table.optimize.compact_files(target_rows_per_fragment=ROWS_A_FRAGMENT)


def clean_up(table: Any, grace: timedelta) -> None:
    """Give back the space of versions that have not been the newest one for so long.

    Raises:
        OSError: no right to write.
    """
    age = age_of_unused([version["timestamp"] for version in table.versions()], grace) if grace else grace
    if age is not None:
        table.cleanup_old_versions(older_than=age)


def age_of_unused(written_at: Sequence[datetime], grace: timedelta, now: datetime | None = None) -> timedelta | None:
    """Versions of this age or more may go; None where there are none.

    The newest version of a moment ago may be years old: what counts is when the next one took its place.

    Example:
        >>> noon = datetime(2030, 1, 1, 12)
        >>> age_of_unused([datetime(2029, 1, 1), datetime(2030, 1, 1, 11, 59)], timedelta(minutes=10), noon) is None
        True
        >>> age_of_unused([datetime(2029, 1, 1), datetime(2030, 1, 1, 11)], timedelta(minutes=10), noon)
        datetime.timedelta(seconds=3601)
    """
    now = now or datetime.now(written_at[0].tzinfo if written_at else None)
    unused_from = [moment for moment in sorted(written_at) if moment <= now - grace]
    # Lance counts the age from a later now; a second more keeps the version that was the newest then.
    return now - unused_from[-1] + timedelta(seconds=1) if len(unused_from) > 1 else None


def read_anew(uri: str, read: Callable[[], Read], version: Callable[[], object], renew: Callable[[], None]) -> Read:
    """What a read gives; where others have cleared away the files that it was reading, it begins anew with the newest ones.

    Args:
        uri: of the index.
        read: is tried first.
        version: of what is read.
        renew: takes the newest version.

    Raises:
        IndexDamagedError: there is no newer version, or none that can be read.
    """
    tried = 0
    while True:
        before = version()
        try:
            return read()
        except (ValueError, OSError) as error:
            renew()
            tried += 1
            if version() == before or tried == TRIES:
                raise damaged(uri, error) from error
            logger.info("What was being read of the index at %s was replaced meanwhile: it is read again.", uri)


def write_anew(uri: str, write: Callable[[], None], version: Callable[[], object], renew: Callable[[], None]) -> None:
    """Write what depends on what is there; where another process was faster, renew and write again.

    Raises:
        IndexWriteError: no space or no right to write.
    """
    tried = 0
    while True:
        before = version()
        try:
            return write()
        except (ValueError, OSError) as error:
            renew()
            tried += 1
            if tried == TRIES or not (is_conflict(error) or version() != before):
                raise unwritable(uri, error) from error


def read_newest(uri: str, read: Callable[[], Read], storage_options: dict[str, str] | None = None) -> Read:
    """What a read of the newest version of the tables gives, which others may be replacing at this moment.

    Raises:
        IndexNotFoundError: there is no index.
        IndexDamagedError: it cannot be read.
    """
    for pause in PAUSES:
        time.sleep(pause)
        try:
            return read()
        except (ValueError, OSError) as error:
            if is_gone(uri, storage_options):
                raise not_found(uri) from error
            last = error
    raise damaged(uri, last) from last


def is_conflict(error: Exception) -> bool:
    """Whether a write failed because of another one at the same time."""
    return "conflict" in str(error).lower()


def is_gone(uri: str, storage_options: dict[str, str] | None) -> bool:
    """Whether both tables that an index cannot do without are; one alone is damage."""
    for name in ("images", "candidates"):
        try:
            open_table(uri, name, storage_options)
        except (ValueError, OSError) as error:
            if "not found" in str(error).lower():
                continue
        return False
    return True


def bytes_of(table: Any) -> int:
    """Size of a table's data files."""
    files = [file for fragment in table.get_fragments() for file in fragment.data_files()]
    return sum(file.file_size_bytes or 0 for file in files)


def open_table(uri: str, name: str, storage_options: dict[str, str] | None) -> Any:
    """The newest version of a table of an index."""
    return lance.dataset(join_uri(uri, name), storage_options=storage_options)


def join_uri(uri: str, name: str) -> str:
    """Where a table of an index lies."""
    return f"{uri.rstrip('/')}/{name}.lance"


def parts_of(images: Sequence[IndexedImage], rows: int) -> Iterator[list[IndexedImage]]:
    """The images in parts of at most so many candidates, but for an image that has more."""
    part: list[IndexedImage] = []
    size = 0
    for image in images:
        if part and size + image.num_candidates > rows:
            yield part
            part, size = [], 0
        part.append(image)
        size += image.num_candidates
    if part:
        yield part


def not_found(uri: str) -> IndexNotFoundError:
    """The error where there is no index."""
    return IndexNotFoundError(f"There is no candidate index at {uri}: build one first.")


def damaged(uri: str, error: Exception) -> IndexDamagedError:
    """The error where an index cannot be read."""
    # Of an object store nobody can tell what is damaged from what is out of reach.
    first = "" if local_path(uri) is not None else "check the address, its scheme and your rights; if it is damaged, "
    return IndexDamagedError(
        f"The candidate index at {uri} cannot be read ({_first_line(error)}): {first}delete it and build it again."
    )


def unwritable(uri: str, error: Exception) -> IndexWriteError:
    """The error where an index cannot be written to."""
    return IndexWriteError(
        f"Nothing more can be written to the candidate index at {uri} ({_first_line(error)}). What it held before is kept: "
        "make room, or choose another place, and run again to go on."
    )


def _first_line(error: Exception) -> str:
    # Lance appends where in its own source an error arose.
    return re.split(r", /", str(error).strip().split("\n")[0])[0][:200]
