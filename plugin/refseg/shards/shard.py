"""Part of an index that one worker has computed: candidates in files that no version of the index names yet, and a record.

A shard is whole or is not there: its files are written first, its record after them, and whoever commits it reads the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..index import FileState, ImageFile, IndexedImage, SkippedImage
from ..printing import one_line


@dataclass(frozen=True)
class Shard:
    """What a worker hands the driver.

    Attributes:
        name: the same whoever computes these images, see name_of_shard.
        images: rows of the table of images; empty where none could be read.
        fragments: metadata of the files of candidates, in Lance's own JSON.
        version: of the table of candidates when they were written.
        skipped: images without a row.
        seconds: that the models took.
        worker: host and process that computed it.
    """

    name: str
    images: tuple[IndexedImage, ...]
    fragments: tuple[str, ...]
    version: int
    skipped: tuple[SkippedImage, ...] = ()
    seconds: float = 0.0
    worker: str = ""

    __repr__ = one_line

    def to_json(self) -> str:
        """For a file, and for the way from worker to driver."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Shard:
        """From to_json.

        Raises:
            ValueError: it is no such text.
        """
        try:
            given = json.loads(text)
            images = tuple(_image(one) for one in given.pop("images"))
            skipped = tuple(SkippedImage(**one) for one in given.pop("skipped"))
            fragments = tuple(given.pop("fragments"))
            return cls(images=images, skipped=skipped, fragments=fragments, **given)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"This is no record of a shard: {text[:80]!r}.") from error


def name_of_shard(images: Sequence[ImageFile]) -> str:
    """Sixteen hexadecimal digits that tell one set of images, in one state, from another."""
    about = repr([(image.sample_id, image.state) for image in images])
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _image(given: dict[str, Any]) -> IndexedImage:
    file, image_hw = FileState(**given.pop("file")), tuple(given.pop("image_hw"))
    return IndexedImage(file=file, image_hw=image_hw, **given)
