"""Where tables lie, and what goes wrong there."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import lance
import pyarrow as pa

from ..errors import IndexDamagedError, IndexNotFoundError, IndexWriteError
from .space import local_path
from .tables import (
    LATER_IMAGE_FIELDS,
    IndexedImage,
)

KEYS_A_DELETE = 5000


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


def add_later_columns(uri: str, storage_options: dict[str, str] | None) -> None:
    """Give the table of images the columns that it lacks because an earlier version made it; that version can go on.

    Raises:
        IndexWriteError: it cannot be written to.
    """
    place = join_uri(uri, "images")
    for last in (False, True):
        table = lance.dataset(place, storage_options=storage_options)
        missing = [field for field in LATER_IMAGE_FIELDS if field[0] not in table.schema.names]
        try:
            if missing:
                table.add_columns(pa.schema(missing))
            return
        except OSError as error:
            # Another process may have done it at the same time: then nothing is missing at a second look.
            if last:
                raise unwritable(uri, error) from error


def delete_tables(uri: str, storage_options: dict[str, str] | None = None) -> None:
    """Remove the index at this place, whatever state it is in; other files there stay.

    Raises:
        IndexWriteError: no right to do so.
    """
    local = local_path(uri)
    try:
        for name in ("images", "candidates", "looks"):
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


def is_gone(uri: str, storage_options: dict[str, str] | None) -> bool:
    """Whether both tables that an index cannot do without are; one alone is damage."""
    for name in ("images", "candidates"):
        try:
            lance.dataset(join_uri(uri, name), storage_options=storage_options)
        except (ValueError, OSError) as error:
            if "not found" in str(error).lower():
                continue
        return False
    return True


def bytes_of(table: Any) -> int:
    """Size of a table's data files."""
    files = [file for fragment in table.get_fragments() for file in fragment.data_files()]
    return sum(file.file_size_bytes or 0 for file in files)


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
