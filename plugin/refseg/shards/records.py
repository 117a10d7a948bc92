"""Records of shards that are written and that no version of the index names yet: what a driver that was killed left undone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lance.file import LanceFileSession

from ..errors import IndexWriteError
from ..failpoints import reach
from .shard import Shard

logger = logging.getLogger(__name__)

FOLDER = "shards"
"""Beside the tables of an index."""


class Records:
    """The records beside an index.

    Args:
        uri: of the index, a folder or an object store's address.
        storage_options: as Lance takes them.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self._files = LanceFileSession(f"{uri.rstrip('/')}/{FOLDER}", storage_options=storage_options)
        self._uri = uri

    def keep(self, shard: Shard) -> None:
        """Write the record of a shard, in the place of one of its name.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        with tempfile.TemporaryDirectory(prefix="refseg-") as folder:
            local = Path(folder) / _file_of(shard.name)
            local.write_text(shard.to_json())
            try:
                self._files.upload_file(local, local.name)
            except OSError as error:
                raise IndexWriteError(f"A shard cannot be recorded beside the index at {self._uri} ({error}).") from error
        reach("shards.recorded")

    def read(self) -> list[Shard]:
        """All shards with a record, by name; what cannot be read is none."""
        found = []
        with tempfile.TemporaryDirectory(prefix="refseg-") as folder:
            for name in sorted(self._names()):
                local = Path(folder) / "record.json"
                try:
                    self._files.download_file(name, local)
                    found.append(Shard.from_json(local.read_text()))
                except (OSError, ValueError) as error:
                    logger.info("The record %s is not used: %s", name, error)
        return found

    def forget(self, names: Iterable[str]) -> None:
        """Remove records; those that are not there are no matter."""
        there = self._names()
        for name in names:
            if _file_of(name) in there:
                self._files.delete_file(_file_of(name))

    def _names(self) -> set[str]:
        try:
            return {name.rpartition("/")[2] for name in self._files.list() if name.endswith(".json")}
        except (OSError, ValueError):
            return set()


def _file_of(name: str) -> str:
    return f"{name}.json"
