"""Second looks at the candidates of a dataset's images: those that an index holds, and new ones, kept there.

Known ones cost a read from the index. New ones cost reading the image, and for each candidate a quarter of a pass of the
encoder over a whole image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..dataset import Source
from ..dataset.sources import models_for
from ..errors import IndexWriteError, ModelError, PrototypeMismatchError
from ..index import IndexedImage
from ..matching import Looked, look_at_file
from ..models import Models
from ..printing import one_line
from ..prototypes import Prototypes

logger = logging.getLogger(__name__)

SECONDS_A_WRITE = 10.0
IMAGES_A_WRITE = 256
"""Second looks are written when either is reached: what a killed process loses."""

IMAGES_WAITING = 1024
"""Images whose looks wait, at most, until a builder has written their candidates."""

_Seen = tuple[str, "int | None", Tensor, Tensor]
"""Sample id, key of the candidates where they were indexed already, rows, and second looks at them."""


@dataclass
class Looker:
    """Looks again at candidates of a dataset's images, and keeps what was seen in the index.

    Attributes:
        source: of the candidates.
        prototypes: whose encoder looks.
        num_looked: images looked at again.
        num_unseen: images that could not be.
        trouble: why none can be, or why looks are no longer kept; None where all is well.
    """

    source: Source
    prototypes: Prototypes
    num_looked: int = 0
    num_unseen: int = 0
    trouble: str | None = None
    _models: Models | None = None
    _unwritten: list[_Seen] = field(default_factory=list)
    _written_at: float = field(default_factory=time.monotonic)

    __repr__ = one_line

    def known(self, images: Sequence[IndexedImage]) -> list[Looked | None]:
        """What the index holds of some images; None for each without one."""
        if self.source.index is None:
            return [None] * len(images)
        found = [Looked(rows, looks) for rows, looks in self.source.index.index.looks.read(images)]
        return [looked if len(looked.rows) else None for looked in found]

    def look_at(
        self,
        sample_id: str,
        path: str,
        candidates: Candidates | PackedCandidates,
        wanted: Tensor,
        *,
        anew: bool = True,
    ) -> Looked | None:
        """See look; what the index holds is read, and nothing else counts where nobody looks anew."""
        if not len(wanted):
            return None
        tables = None if self.source.index is None else self.source.index.index
        image = None if tables is None else tables.images.get(sample_id)
        known = None if image is None else self.known([image])[0]
        return self.look(sample_id, path, candidates, wanted, known) if anew else part(wanted, known).known

    def look(
        self, sample_id: str, path: str, candidates: Candidates | PackedCandidates, wanted: Tensor, known: Looked | None = None
    ) -> Looked | None:
        """Second looks at some candidates of an image; of those that cannot be looked at what is known, or None.

        Args:
            sample_id: of the image.
            path: of its file.
            candidates: of the image.
            wanted: (n,) int64, rows of these.
            known: what the index holds of the image.
        """
        parted = part(wanted, known)
        if not len(parted.missing):
            return parted.known
        models = self._load()
        seen = None if models is None else look_at_file(path, candidates, parted.missing, models, self.source.pixels)
        if seen is None:
            self.num_unseen += 1
            return parted.known
        self.num_looked += 1
        if self.source.index is not None and not candidates.gated:
            held = self.source.index.index.images.get(sample_id)
            self._unwritten.append((sample_id, None if held is None else held.key, seen.rows, seen.looks))
        if parted.known is None:
            return seen
        return Looked(torch.cat([parted.known.rows, seen.rows]), torch.cat([parted.known.looks, seen.looks]))

    def write_if_due(self) -> None:
        """Write where many looks, or old ones, have gathered."""
        if time.monotonic() - self._written_at >= SECONDS_A_WRITE or len(self._unwritten) >= IMAGES_A_WRITE:
            self.write()

    def write(self) -> None:
        """Write the looks at images that the index holds by now; where that fails they count all the same."""
        self._written_at = time.monotonic()
        if self.source.index is None or not self._unwritten:
            return
        tables, waiting = self.source.index.index, self._unwritten
        # Those of images that the builder has still to write; where it writes no more, nobody will.
        self._unwritten = [item for item in waiting if item[0] not in tables.images][-IMAGES_WAITING:]
        held = [(tables.images[name], key, rows, looks) for name, key, rows, looks in waiting if name in tables.images]
        try:
            # An image that was indexed again meanwhile has other candidates.
            tables.looks.append([(image, rows, looks) for image, key, rows, looks in held if key in (None, image.key)])
        except IndexWriteError as error:
            self.trouble = str(error)
            logger.warning("Second looks are not kept: %s", error)

    def has_models(self) -> bool:
        """Load the models, which may take long; False where they are not to be had."""
        return self._load() is not None

    def _load(self) -> Models | None:
        """The models; None where they are not to be had."""
        if self._models is None and self.trouble is None:
            try:
                # Whoever computes candidates takes the same.
                self._models = self.source.models = self.source.models or models_for(self.prototypes, self.source.asked)
            except (ModelError, PrototypeMismatchError) as error:
                self.trouble = str(error)
                logger.warning("Nobody looks again: %s", error)
        return self._models


@dataclass(frozen=True, eq=False)
class Parted:
    """Rows that are worth a second look, by whether somebody has looked.

    Attributes:
        known: those that have been looked at; None without any.
        missing: (n,) int64, the others, the best first.
    """

    known: Looked | None
    missing: Tensor

    __repr__ = one_line


def part(wanted: Tensor, known: Looked | None) -> Parted:
    """Part rows that are worth a second look by what is known; what is known of other rows does not count.

    Answers must not depend on what somebody looked at before for other prototypes.
    """
    if known is None or not len(known.rows):
        return Parted(None, wanted)
    # Of so few rows Python's sets are faster than torch.
    rows, seen = wanted.tolist(), known.rows.tolist()
    asked, answered = set(rows), set(seen)
    own = [place for place, row in enumerate(seen) if row in asked]
    missing = [place for place, row in enumerate(rows) if row not in answered]
    # A slice costs nothing, a choice of rows does.
    counted = known if len(own) == len(seen) else Looked(known.rows[own], known.looks[own]) if own else None
    return Parted(counted, wanted[missing] if missing else wanted[:0])
