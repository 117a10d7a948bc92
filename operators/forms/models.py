"""The presets as a menu: how large each is, what it runs on here, and how long it takes for the images of the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .constants import MODELS
from .indexes import find_record, index_records
from .machine import NAMES, cost_of, device
from .messages import duration
from .selection import collection


@dataclass(frozen=True)
class ModelChoice:
    """A preset in the menu.

    Attributes:
        name: that is chosen.
        label: its line in the menu.
        about: what it is, and where its time is known from.
    """

    name: str
    label: str
    about: str


def model_choices(ctx: Any, num_images: int | None = None) -> list[ModelChoice]:
    """The presets, each with its time for the images that its index lacks.

    Args:
        ctx: FiftyOne's execution context.
        num_images: that are to be in the index; None for all of the dataset.
    """
    from refseg.dataset import count_samples, seconds_elsewhere
    from refseg.models import PRESETS

    wanted = count_samples(collection(ctx)) if num_images is None else num_images
    records = index_records(ctx)
    known = {record.model: record.seconds_per_image for record in records if record.seconds_per_image}
    elsewhere, choices = seconds_elsewhere(ctx.dataset), []
    for name, text in MODELS.items():
        record = find_record(ctx, name, records=records, by_files=True)
        missing = wanted - (0 if record is None else min(wanted, record.num_images))
        cost = cost_of(name, known, elsewhere)
        megabytes = PRESETS[name].sam2_megabytes + PRESETS[name].dinov2_megabytes
        if missing == 0:
            time = "all indexed"
        elif cost is None:
            time = f"time on {NAMES[device()]} unknown"
        else:
            time = f"about {duration(cost.seconds * missing)} on {NAMES[device()]}"
        about = text.partition(": ")[2]
        origin = f". Time {cost.origin}" if cost is not None and missing else ""
        label = " · ".join((name, _size(megabytes), time))
        choices.append(ModelChoice(name, label, about + origin))
    return choices


def _size(megabytes: int) -> str:
    if not megabytes:
        return "no download"
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
