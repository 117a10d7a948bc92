"""A worker's part: candidates of some images computed, packed and written as one shard. Nothing of FiftyOne here."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ..candidates import PackedCandidates, pack, propose_read
from ..failpoints import reach
from ..images import IMAGES_A_BATCH, load_batches, stack_pixels
from ..index import ImageFile, IndexedImage, IndexSettings, SkippedImage, write_candidates
from ..models import Models
from ..processes import Process
from .records import Records
from .shard import Shard, name_of_shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardWriter:
    """Computes and writes shards of one index.

    Attributes:
        uri: of the index.
        settings: of the index.
        models: that compute candidates.
        storage_options: for an object store, as Lance takes them.
        num_workers: threads that decode images.
    """

    uri: str
    settings: IndexSettings
    models: Models
    storage_options: dict[str, str] | None = None
    num_workers: int | None = None
    builder: int = field(default_factory=lambda: secrets.randbits(62))

    def write(self, images: Sequence[ImageFile]) -> Shard:
        """Compute some images and write what was found.

        Raises:
            IndexWriteError: no space or no right to write.
        """
        found: list[tuple[ImageFile, PackedCandidates]] = []
        skipped: list[SkippedImage] = []
        seconds = 0.0
        device = self.models.device.type
        batches = load_batches(
            [image.path for image in images],
            self.models.segmenter_side,
            batch_size=IMAGES_A_BATCH[device],
            num_workers=self.num_workers,
            tiles=self.settings.tiles,
            device=device,
            reading=self.settings.pixel_settings,
        )
        with closing(batches):
            for batch in batches:
                good = [loaded for loaded in batch if loaded.error is None]
                for loaded in batch:
                    if loaded.error is not None:
                        image = images[loaded.index]
                        skipped.append(SkippedImage(image.sample_id, image.path, loaded.error))
                if not good:
                    continue
                started = time.monotonic()
                pictures = [loaded.image for loaded in good if loaded.image is not None]
                proposed = propose_read(
                    None if self.settings.tiles else stack_pixels(good),
                    [loaded.image_hw for loaded in good],
                    pictures,
                    self.models,
                    exact=self.settings.exact,
                )
                packed = [one if isinstance(one, PackedCandidates) else pack(one, fine=self.settings.exact) for one in proposed]
                seconds += time.monotonic() - started
                found += [
                    (images[loaded.index].with_orientation(loaded.orientation), one)
                    for loaded, one in zip(good, packed, strict=True)
                ]
        return self._written(name_of_shard(images), found, skipped, seconds)

    def _written(
        self,
        name: str,
        found: Sequence[tuple[ImageFile, PackedCandidates]],
        skipped: Sequence[SkippedImage],
        seconds: float,
    ) -> Shard:
        rows = [
            IndexedImage(image.sample_id, secrets.randbits(62), image.state, packed.image_hw, len(packed), self.builder)
            for image, packed in found
        ]
        fragments: tuple[str, ...] = ()
        version = 0
        if found:
            packed = [candidates for _, candidates in found]
            fragments, version = write_candidates(self.uri, self.settings, rows, packed, self.storage_options)
            reach("shards.written")
        here = Process.current()
        shard = Shard(name, tuple(rows), fragments, version, tuple(skipped), seconds, f"{here.host} {here.pid}")
        Records(self.uri, self.storage_options).keep(shard)
        return shard
