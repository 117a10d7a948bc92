"""Candidates of images that an index does not hold, computed by workers on one machine or many: as Builder, on Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ..errors import IndexWriteError, WorkersError
from ..index import ImageFile, Leases, SkippedImage
from ..models import Models, files_for
from ..printing import counted
from ..shards import Committer, Shard, WorkerSettings, compute_shards, connected, pool_of
from .index import DatasetIndex, record_index

logger = logging.getLogger(__name__)

DRIVER = "driver"
"""Leased, as an image is, by whoever commits what workers write."""
SECONDS_A_LEASE = 3600.0
"""It is renewed whenever a shard comes, which may take a while. On the same machine one knows at once that a driver is gone."""
SECONDS_ALIVE = 120.0
"""A worker that was heard of within so long counts as alive."""


@dataclass
class ManyWorkers:
    """Lets workers compute candidates of images, and commits what they write.

    Attributes:
        index: where candidates are kept.
        models: as the driver has loaded them; workers load the same.
        num_workers: None for as many as there is room for.
        cores: of each; None to share out what there is.
        storage_options: for an object store, as Lance takes them.
        skipped: images that could not be read.
        num_computed: images computed.
    """

    index: DatasetIndex
    models: Models
    num_workers: int | None = None
    cores: int | None = None
    storage_options: dict[str, str] | None = None
    skipped: list[SkippedImage] = field(default_factory=list)
    num_computed: int = 0
    _committer: Committer | None = None
    _leases: Leases | None = None
    _seconds: float = 0.0
    _heard_of: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What progress is counted in, and how many workers were heard of lately."""
        since = time.monotonic() - SECONDS_ALIVE
        alive = sum(at >= since for at in self._heard_of.values())
        return f"images, {counted(alive, 'worker')}" if alive else "images"

    def compute(self, images: Sequence[ImageFile]) -> Generator[Sequence[ImageFile | SkippedImage], None, None]:
        """Images that are done, shard by shard; closing stops the workers.

        Raises:
            WorkersError: another driver is at work, Ray is not here, or a worker cannot load the models.
            IndexWriteError: no space or no right to write.
        """
        tables = self.index.index
        self._claim()
        committer = self._committer = Committer(tables, self.storage_options)
        if committer.recover():
            tables.refresh()
            done = [image for image in images if self.index.holds(image.sample_id, image.state, image.path)]
            self.num_computed += len(done)
            yield done
        waiting = [image for image in images if not self.index.holds(image.sample_id, image.state, image.path)]
        if not waiting:
            return
        preset = self.models.preset
        about = WorkerSettings(
            tables.uri,
            tables.settings,
            preset,
            files_for(preset.name),
            str(self.models.device) if self.models.device.type == "cpu" else None,
            str(self.models.dtype).removeprefix("torch."),
            self.storage_options,
        )
        with connected() as ray:
            pool = pool_of(ray, self.num_workers, self.cores)
            with closing(compute_shards(ray, waiting, about, pool)) as shards:
                for shard in shards:
                    if committer.add(shard):
                        yield self._note(shard)
                    committer.commit_if_due()
                    self._renew()
            committer.commit()

    def close(self) -> None:
        """Commit what is not committed yet, and renew the index's record."""
        try:
            if self._committer is not None:
                self._committer.commit()
        finally:
            if self._leases is not None:
                self._leases.close()
            if self.num_computed:
                record_index(self.index, self._seconds / self.num_computed if self._seconds else None)

    def _claim(self) -> None:
        """Be the only driver of this index.

        Raises:
            WorkersError: another one is at work.
        """
        leases = self.index.index.leases()
        leases.seconds = SECONDS_A_LEASE
        try:
            leases.others()
            if DRIVER not in leases.take([DRIVER]):
                raise WorkersError(
                    f"Another driver lets workers build the index at {self.index.uri}: wait for it, or cancel it."
                )
        except (OSError, ValueError) as error:
            raise IndexWriteError(f"Nothing can be written to the candidate index at {self.index.uri} ({error}).") from error
        self._leases = leases

    def _renew(self) -> None:
        if self._leases is not None:
            try:
                self._leases.renew_if_due()
            except (OSError, ValueError) as error:
                logger.info("The lease of the driver was not renewed: %s", error)

    def _note(self, shard: Shard) -> Sequence[ImageFile | SkippedImage]:
        self._heard_of[shard.worker] = time.monotonic()
        self.skipped += shard.skipped
        self.num_computed += len(shard.images)
        self._seconds += shard.seconds
        return [*(ImageFile(image.sample_id, image.file.name, image.file) for image in shard.images), *shard.skipped]
