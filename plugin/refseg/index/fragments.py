"""Candidates written by many and named by one: files first, and later one transaction that makes rows of them.

Whoever writes files leaves no trace in the table but their bytes; a transaction names the shards whose files it takes in. So
whoever goes on after a failure finds out which of them the table has already, and takes none in twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from lance import LanceDataset, LanceOperation, Transaction
from lance.fragment import FragmentMetadata, write_fragments

from ..candidates import PackedCandidates
from .storage import join_uri, open_table, unwritable
from .tables import IndexedImage, IndexSettings, candidates_table

PROPERTY = "refseg.shards"
"""Of a transaction: the names of the shards it takes in, with commas between them."""


def write_candidates(
    uri: str,
    settings: IndexSettings,
    images: Sequence[IndexedImage],
    packed: Sequence[PackedCandidates],
    storage_options: dict[str, str] | None = None,
) -> tuple[tuple[str, ...], int]:
    """Write the candidates of some images to files that the table does not name yet.

    Returns:
        Metadata of the files as JSON, and the version of the table that they were written for.

    Raises:
        IndexWriteError: no space or no right to write.
    """
    table = candidates_table(images, packed, settings)
    try:
        written = write_fragments(
            table, join_uri(uri, "candidates"), mode="append", storage_options=storage_options, return_transaction=True
        )
    except OSError as error:
        raise unwritable(uri, error) from error
    return tuple(json.dumps(fragment.to_json()) for fragment in written.operation.fragments), written.read_version


def commit_candidates(
    uri: str, fragments: Iterable[str], version: int, names: Sequence[str], storage_options: dict[str, str] | None = None
) -> None:
    """Take files of candidates into the table, all of them or none.

    Args:
        uri: of the index.
        fragments: from write_candidates.
        version: likewise, the lowest of several.
        names: of the shards that they belong to.
        storage_options: as Lance takes them.

    Raises:
        IndexWriteError: no space or no right to write.
    """
    operation = LanceOperation.Append([FragmentMetadata.from_json(text) for text in fragments])
    transaction = Transaction(version, operation, transaction_properties=properties_of(names))
    try:
        LanceDataset.commit(join_uri(uri, "candidates"), transaction, storage_options=storage_options)
    except OSError as error:
        raise unwritable(uri, error) from error


def properties_of(names: Sequence[str]) -> dict[str, str]:
    """What a transaction says of the shards it takes in."""
    return {PROPERTY: ",".join(names)}


def names_since(uri: str, table: str, version: int, storage_options: dict[str, str] | None = None) -> set[str] | None:
    """Names of the shards that a table has taken in since a version; None where nobody can tell any more.

    Args:
        uri: of the index.
        table: "candidates" or "images".
        version: of the table.
        storage_options: as Lance takes them.
    """
    newest = open_table(uri, table, storage_options)
    if newest.version == version:
        return set()
    every = newest.get_transactions(newest.version - version)
    if any(one is None for one in every):
        return None
    return {name for one in every for name in one.transaction_properties.get(PROPERTY, "").split(",") if name}
