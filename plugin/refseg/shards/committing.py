"""The driver's part: the shards that workers have written become part of the index, each exactly once.

Candidates come before images, as in any other write: an image counts when its row is there and finds all its candidates. The
names of the shards stand in both transactions, and each shard's record stays until both are done. So a driver that goes on
after a failure, its own or that of the one before it, knows for each shard what is left to do.

Two ready-made ways were left out. The writer of `lance-ray` 0.5 can lose rows when a task is tried again (lance-ray#5290), and
Ray's own checkpoints mark ids as done whose files were never committed (ray#59871).
"""

from __future__ import annotations

import logging
import time

from ..failpoints import reach
from ..index import CandidateIndex, commit_candidates, names_since
from .records import Records
from .shard import Shard

logger = logging.getLogger(__name__)

SHARDS_A_COMMIT = 200
SECONDS_A_COMMIT = 60.0
"""Shards are committed when either is reached; what is written meanwhile is recorded, and lost by nobody's end."""


class Committer:
    """Commits shards to an index.

    Args:
        index: open; nobody else writes through it.
        storage_options: for an object store, as Lance takes them.
        seconds: between commits, at most.
    """

    def __init__(
        self, index: CandidateIndex, storage_options: dict[str, str] | None = None, seconds: float = SECONDS_A_COMMIT
    ) -> None:
        self._index, self._storage, self._seconds = index, storage_options, seconds
        self._records = Records(index.uri, storage_options)
        self._waiting: dict[str, Shard] = {}
        self._done: set[str] = set()
        self._committed_at = time.monotonic()

    def recover(self) -> list[Shard]:
        """Commit what drivers before this one have left.

        Returns:
            The shards that were taken in.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        left = self._records.read()
        if not left:
            return []
        known = self._named_since(left)
        if known is None:
            # Nobody can tell what the table has: the images are computed again, and files that nobody names are cleared away.
            logger.info("%d shards of an earlier build are too old to be taken in.", len(left))
            self._records.forget(shard.name for shard in left)
            return []
        keys = self._index.keys
        missing = [shard for shard in left if any(image.key not in keys for image in shard.images)]
        self._commit(missing, with_candidates=[shard for shard in missing if shard.name not in known])
        self._records.forget(shard.name for shard in left)
        return missing

    def add(self, shard: Shard) -> bool:
        """Note a shard to be committed; False where it has come before, as from a worker that was started again."""
        if shard.name in self._done or shard.name in self._waiting:
            return False
        self._waiting[shard.name] = shard
        return True

    def commit_if_due(self) -> bool:
        """Commit what waits, if that is much or old enough; see commit."""
        if len(self._waiting) < SHARDS_A_COMMIT and time.monotonic() - self._committed_at < self._seconds:
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Commit what waits.

        Raises:
            IndexWriteError: no space or no right to write; what waits goes on to wait, and so do its records.
        """
        waiting = list(self._waiting.values())
        if waiting:
            # A commit that failed may have come as far as the table of candidates.
            known = self._known(waiting)
            self._commit(waiting, with_candidates=[shard for shard in waiting if shard.name not in known])
            self._records.forget(self._waiting)
            self._done |= self._waiting.keys()
            self._waiting.clear()
        self._committed_at = time.monotonic()

    def _known(self, shards: list[Shard]) -> set[str]:
        """Names of those whose candidates the table has; where no transaction tells any more, by the rows of images."""
        known = self._named_since(shards)
        if known is not None:
            return known
        self._index.refresh()
        keys = self._index.keys
        return {shard.name for shard in shards if any(image.key in keys for image in shard.images)}

    def _named_since(self, shards: list[Shard]) -> set[str] | None:
        versions = [shard.version for shard in shards if shard.fragments]
        return names_since(self._index.uri, "candidates", min(versions), self._storage) if versions else set()

    def _commit(self, shards: list[Shard], with_candidates: list[Shard]) -> None:
        written = [shard for shard in with_candidates if shard.fragments]
        if written:
            fragments = [text for shard in written for text in shard.fragments]
            version = min(shard.version for shard in written)
            commit_candidates(self._index.uri, fragments, version, [shard.name for shard in written], self._storage)
            reach("shards.candidates")
        images = [image for shard in shards for image in shard.images]
        if images:
            self._index.note_images(images, [shard.name for shard in shards])
            reach("shards.images")
