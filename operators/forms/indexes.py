"""What the forms know of a dataset's candidate indexes: its records of them, and which of the chosen images they hold.

Nothing is loaded for it. The records are in the database; which images an index holds, beyond their number, is read from the
index itself only where Lance is loaded already, as it is once an operator has used an index in this process.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .constants import INDEX_METHOD, MODELS, MODELS_AS_PUBLISHED, MODELS_THAT_KEEP_DUPLICATES
from .messages import count, duration, size
from .selection import chose_whole_dataset, collection, every_sample, target_ids
from .weights import files_of

if TYPE_CHECKING:
    from refseg.images import PixelSettings

logger = logging.getLogger(__name__)

IMAGES_COMPARED = 2000
"""Ids of so many chosen images are compared with an index; listing more would hold up the form."""
IMAGES_IN_SECONDS = 20_000
"""So many indexed images are segmented within a minute: each took 3 to 6 ms on two cores, writing included."""
IMAGES_READ = 20_000
"""Ids in an index of so many images are read; reading more would hold up the form."""


@dataclass(frozen=True)
class IndexRecord:
    """What the dataset has recorded of one of its indexes.

    Attributes:
        key: of the run that is the record.
        uri: where the index lies.
        model: the preset's name.
        encoder: its encoder's fingerprint.
        exact: near-duplicates are kept.
        num_images: images it held when it was last built or completed.
        num_bytes: its size then.
        seconds_per_image: what computing an image took; None where none was computed yet.
        pixels: how its images were read, as record_pixels reads it; None where nothing was said of it.
        updated_at: when it was last built or completed, seconds since the epoch.
    """

    key: str
    uri: str
    model: str
    encoder: str
    exact: bool
    num_images: int
    num_bytes: int
    seconds_per_image: float | None
    pixels: Any = None
    updated_at: float = 0.0

    def describe(self) -> str:
        """One line for a list.

        Example:
            >>> IndexRecord("k", "/x", "demo", "e", True, 812, 14_200_000, None).describe()
            'demo, near-duplicates kept: 812 images, 14.2 MB'
        """
        kind = f"{self.model}, near-duplicates kept" if self.exact else self.model
        return f"{kind}: {count(self.num_images, 'image')}, {size(self.num_bytes)}"


@dataclass(frozen=True)
class Coverage:
    """How many of the chosen images an index holds.

    Attributes:
        num_images: the images chosen; None where counting them would hold up the form.
        num_indexed: of these, images that the index holds; None where only a bound is known.
        most_missing: the largest number that can be missing.
        seconds_per_image: what computing an image took; None where that is unknown.
    """

    num_images: int | None
    num_indexed: int | None
    most_missing: int
    seconds_per_image: float | None

    def describe(self, if_all: str) -> str:
        """One sentence.

        Args:
            if_all: what follows where every image is indexed.

        Example:
            >>> Coverage(1000, 812, 188, 0.64).describe("segmenting takes seconds")
            '812 of 1,000 images are indexed; the other 188 take about 2 min.'
        """
        number, missing, each = self.num_images, self.most_missing, self.seconds_per_image
        time = "" if each is None else duration(missing * each)
        if number == 0:
            return "There are no images in it."
        if missing == 0:
            every = {None: "All images chosen are", 1: "The image is"}.get(number, f"All {number or 0:,} images are")
            return f"{every} indexed: {if_all}."
        which = "images chosen" if number is None else f"{number:,} images"
        if self.num_indexed == 0:
            if number == 1:
                return f"The image is not indexed yet: it is computed once and kept{time and f', about {time}'}."
            in_all = f", about {time} in all" if time and number else ""
            return f"None of the {which} is indexed yet: each is computed once and kept{in_all}."
        if self.num_indexed is None:
            return f"Up to {missing:,} of the {which} are not indexed yet{time and f': {time} at most'}."
        if time:
            rest = f"{'takes' if missing == 1 else 'take'} about {time}"
        else:
            rest = f"{'is' if missing == 1 else 'are'} computed once and kept"
        return f"{self.num_indexed:,} of {number:,} images are indexed; the other {missing:,} {rest}."

    def describe_segment(self) -> str:
        """One sentence for a run that segments the images."""
        is_few = self.num_images is not None and self.num_images <= IMAGES_IN_SECONDS
        return self.describe(f"segmenting takes {'seconds' if is_few else 'a few milliseconds each'}")

    def describe_without(self) -> str:
        """One sentence for a run that leaves the index alone."""
        which = "Every image" if self.num_images is None else f"Each of {count(self.num_images, 'image')}"
        if self.num_images is None or self.seconds_per_image is None:
            return f"{which} is computed, and nothing is kept."
        return f"{which} is computed, about {duration(self.num_images * self.seconds_per_image)} in all, and nothing is kept."

    def describe_preview(self) -> str:
        """One sentence for a run that looks at indexed images alone."""
        if self.num_images is None or self.num_indexed is None:
            return "The images that are indexed are ranked, which takes seconds."
        return f"{self.num_indexed:,} of {count(self.num_images, 'image')} are indexed and ranked, which takes seconds."


def index_records(ctx: Any) -> list[IndexRecord]:
    """The dataset's own records, the index built or completed last at the end; as refseg.dataset's index_records."""
    from refseg.dataset import past_runs

    found = []
    for run in past_runs(ctx.dataset, [INDEX_METHOD]):
        config = run.config
        # A clone inherits the records of the dataset it was made from, whose indexes hold that dataset's samples.
        if config["dataset_id"] == str(ctx.dataset._doc.id) and not _is_outdated(config):
            names = ("uri", "model", "encoder", "exact", "num_images", "num_bytes", "seconds_per_image")
            # Records of earlier versions say nothing of pixels.
            updated_at = datetime.fromisoformat(config["updated_at"]).timestamp()
            found.append(IndexRecord(run.key, *(config[name] for name in names), config.get("pixels"), updated_at))
    return sorted(found, key=lambda record: record.updated_at)


def record_pixels(record: IndexRecord) -> PixelSettings:
    """How the images of an index were read."""
    from refseg.images import PixelSettings

    return PixelSettings.from_lists(record.pixels)


def _is_outdated(config: Mapping[str, Any]) -> bool:
    """Whether an earlier version built it otherwise than the preset wants it now; no run reads it any more."""
    is_published = config["model"] in MODELS_AS_PUBLISHED
    return config["model"] in MODELS and not config.get("float_features" if is_published else "clean_masks", False)


def find_record(
    ctx: Any,
    model: str,
    *,
    encoder: str | None = None,
    exact: bool | None = None,
    records: Sequence[IndexRecord] | None = None,
    by_files: bool = False,
    borrows: bool = False,
) -> IndexRecord | None:
    """The record of the index for this model, of this encoder and kind where they are given, or None.

    With `borrows` it may be that of the preset of the same models where there is no own, as for whoever only reads an index.

    With `by_files` it is one that was built or completed since the model's weights come from where they come from now: another
    is of other weights, or the next build finds that it is of these after all.

    Of two kinds the one that the preset makes by default, as find_index of refseg.dataset does; of one kind one that says
    how pixels are read, and the last used.
    """
    by_default = model in MODELS_THAT_KEEP_DUPLICATES
    records = sorted(
        index_records(ctx) if records is None else records,
        key=lambda record: (record.exact == by_default, record.pixels is not None),
    )
    since = files_of(ctx, model)["since"] if by_files else 0.0
    for record in records[::-1]:
        is_wanted = encoder in (None, record.encoder) and exact in (None, record.exact)
        if record.model == model and record.updated_at >= since and is_wanted:
            return record
    other = lender(model) if borrows else None
    return None if other is None else find_record(ctx, other, encoder=encoder, exact=exact, records=records, by_files=by_files)


def lender(model: str) -> str | None:
    """The preset whose index serves where this one has none."""
    from refseg.models import same_models

    return same_models(model)


def coverage(ctx: Any, record: IndexRecord | None) -> Coverage:
    """How many of the images chosen in the form an index holds; None stands for an index that holds nothing."""
    from refseg.dataset import count_samples

    held = _held_ids(record)
    num_held = len(held) if held is not None else record.num_images if record is not None else 0
    seconds = None if record is None else record.seconds_per_image
    if chose_whole_dataset(ctx):
        number = count_samples(collection(ctx))
        indexed = min(number, num_held)
        return Coverage(number, indexed, number - indexed, seconds)
    ids = target_ids(ctx, IMAGES_COMPARED)
    if ids is not None and held is not None:
        indexed = len(held.intersection(ids))
        return Coverage(len(ids), indexed, len(ids) - indexed, seconds)
    outside = max(0, count_samples(every_sample(ctx)) - num_held)
    if ids is None:
        return Coverage(None, 0 if num_held == 0 else None, outside, seconds)
    return Coverage(len(ids), None, min(len(ids), outside), seconds)


def _held_ids(record: IndexRecord | None) -> set[str] | None:
    """Ids of the samples in an index; None where reading them needs Lance to be loaded, or would take long."""
    if record is None:
        return set()
    if "://" in record.uri or record.num_images > IMAGES_READ:
        return None
    table = os.path.join(record.uri, "images.lance")
    if not os.path.isdir(table):
        return set()
    open_table = getattr(sys.modules.get("lance"), "dataset", None)
    if open_table is None:
        return None
    try:
        rows = open_table(table).to_table(columns=["sample_id", "num_candidates"])
    except (OSError, ValueError) as error:
        logger.info("The candidate index at %s cannot be read: %s", record.uri, error)
        return None
    # The last row of a sample counts; one with a negative number says that it was forgotten.
    last = dict(zip(rows["sample_id"].to_pylist(), rows["num_candidates"].to_pylist(), strict=True))
    return {sample_id for sample_id, number in last.items() if number >= 0}
