"""Giving back the space of what nobody reads in an index, and merging its small files, while others read and build."""

from __future__ import annotations

import logging
from collections.abc import Collection, Set
from datetime import timedelta
from typing import Any

import numpy as np

from .leases import Leases
from .looks import Looks
from .snapshot import Snapshot
from .storage import GRACE, clean_up, delete_rows, delete_tables, merge_files, open_table
from .tables import sequences_of

logger = logging.getLogger(__name__)


def compact(
    uri: str, snapshot: Snapshot, keep: Collection[str] | None, grace: timedelta, storage_options: dict[str, str] | None
) -> None:
    """Remove rows that nobody reads, and merge small files.

    Args:
        uri: of the index.
        snapshot: of its newest version.
        keep: sample ids of the images to keep; None keeps all.
        grace: how long what is replaced stays for those who read it.
        storage_options: for an object store, as Lance takes them.

    Raises:
        OSError: no space or no right to write, or another process was faster.
        IndexDamagedError: second looks cannot be read.
    """
    kept = {image.key for name, image in snapshot.images.items() if keep is None or name in keep}
    # A builder writes candidates before their image. Its lease ends after both, so whoever has none now has written both.
    leases = Leases(uri, storage_options)
    others = _has_others(leases, uri, storage_options)
    later = _keys_of(open_table(uri, "images", storage_options)) - snapshot.named

    def unread(keys: Set[int]) -> set[int]:
        return {key for key in keys - kept - later if key in snapshot.named or not others}

    delete_rows(snapshot.candidates, "image", unread(snapshot.starts.keys() | snapshot.scattered.keys()))
    looks = Looks(uri, storage_options)
    looks.remove(unread(looks.keys))
    delete_rows(snapshot.table, "_rowid", _superseded(snapshot, kept))
    for name in ("candidates", "images"):
        _merge(open_table(uri, name, storage_options), grace)
    looks.tidy(grace)
    leases.close()


def tidy(uri: str, storage_options: dict[str, str] | None) -> None:
    """Merge small files; where that does not work, reading works as it did."""
    try:
        Looks(uri, storage_options).tidy(GRACE)
        for name in ("candidates", "images"):
            _merge(open_table(uri, name, storage_options), GRACE)
    except (OSError, ValueError) as error:
        # Another process was faster, or the disk is full.
        logger.info("The small files of the index at %s were not merged: %s", uri, error)


def _has_others(leases: Leases, uri: str, storage_options: dict[str, str] | None) -> bool:
    """Whether others are building; leases that cannot be read are removed, and then some may be."""
    try:
        return bool(leases.others())
    except (OSError, ValueError) as error:
        logger.warning("Leases of the index at %s cannot be read, and are made anew: %s", uri, error)
        delete_tables(uri, storage_options, ("leases",))
        return True


def _keys_of(table: Any) -> set[int]:
    return set(table.to_table(columns=["key"])["key"].to_pylist())


def _superseded(snapshot: Snapshot, kept: Collection[int]) -> list[int]:
    """Ids of the rows of the table of images that name no image that is kept, or one that a later row names."""
    names = ["key", "sample_id", *(["sequence"] if "sequence" in snapshot.table.schema.names else [])]
    rows = snapshot.table.to_table(columns=names, with_row_id=True)
    keys, samples, ids = (rows[name].to_pylist() for name in ("key", "sample_id", "_rowid"))
    last = {samples[number]: number for number in np.argsort(sequences_of(rows), kind="stable").tolist()}
    wanted = {number for number in last.values() if keys[number] in kept}
    return [row for number, row in enumerate(ids) if number not in wanted]


def _merge(table: Any, grace: timedelta) -> None:
    merge_files(table)
    if table.describe_indices():
        table.optimize.optimize_indices()
    clean_up(table, grace)
