"""The index as the panel tells it: what it holds, what the rest takes and has room for, and what the other models would."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..build_index import room_of
from ..forms.constants import MODELS_THAT_KEEP_DUPLICATES
from ..forms.indexes import find_record
from ..forms.messages import size
from ..forms.models import model_choices
from ..forms.selection import all_images
from ..forms.weights import PLACES_OF_WEIGHTS, files_of, named_weights
from .settings import PanelSettings
from .telling import Section


def index(ctx: Any, settings: PanelSettings) -> Section:
    """How many images are indexed for the chosen model, what the rest takes, and what the other models would.

    `lent` is the index that serves until the model has one of its own, or None.
    """
    num_images = len(all_images(ctx))
    record = find_record(ctx, settings.model, by_files=True)
    held = 0 if record is None else min(num_images, record.num_images)
    exact = settings.model in MODELS_THAT_KEEP_DUPLICATES
    room = room_of(record, num_images - held, settings.model, exact=exact)
    files = files_of(ctx, settings.model)
    lent = None if record is not None else find_record(ctx, settings.model, by_files=True, borrows=True)
    return {
        "num_images": num_images,
        "num_indexed": held,
        "lent": None if lent is None else {"model": lent.model, "num_indexed": min(num_images, lent.num_images)},
        "size": None if record is None else size(record.num_bytes),
        "models": [asdict(choice) for choice in model_choices(ctx, num_images)],
        "room": {
            "needed": size(room.needed) if held < num_images else None,
            "free": None if room.free is None else size(room.free),
            "fits": room.fits,
        },
        "files": {name: files[name] for name in PLACES_OF_WEIGHTS},
        "weights": named_weights(settings.model),
    }
