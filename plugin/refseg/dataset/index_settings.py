"""What candidates of one index have in common."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ..candidates import (
    EDGE_CELLS,
    JUDGED_IOU,
    MIN_OVERLAP,
    MOST_OF_A_MASK,
    NEAR_DUPLICATE_IOU,
    SAME_MASK_IOU,
    cleaning_of,
    decoding,
    voting_of,
)
from ..images import PLAIN, PixelSettings
from ..index import FORMAT, FORMAT_WITH_TILES, IndexSettings
from ..models import Models
from .views import id_of

AS_PUBLISHED = "float32 features, clicks half a pixel on"
"""In the fingerprint of indexes of the published profile: those of earlier versions were not to its letter."""


def settings_of(
    dataset: Any, models: Models, exact: bool | None = None, tiles: bool = False, pixels: PixelSettings = PLAIN
) -> IndexSettings:
    """What candidates of these models have in common; see IndexSettings."""
    preset = models.preset
    keeps_all = preset.as_published if exact is None else exact
    parts = [
        *(models.revisions["sam2"], models.revisions["dinov2"], preset.encoder_side, preset.points_per_side),
        *(preset.add_no_memory, decoding.MIN_PREDICTED_IOU, None if keeps_all else NEAR_DUPLICATE_IOU, FORMAT),
        # Nothing of what earlier versions did not have: they made the fingerprints of their indexes of the others alone.
        *((MIN_OVERLAP, EDGE_CELLS, FORMAT_WITH_TILES) if tiles else ()),
        *(("judged prompts", JUDGED_IOU, SAME_MASK_IOU, MOST_OF_A_MASK) if preset.adaptive_prompts else ()),
        *cleaning_of(preset),
        *voting_of(preset),
        *((AS_PUBLISHED,) if preset.as_published else ()),
        *(() if pixels.is_plain else ("pixels", pixels.pixel_range, pixels.channels)),
    ]
    fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return IndexSettings(
        preset.name,
        fingerprint,
        models.fingerprint,
        dict(models.revisions),
        keeps_all,
        models.grid_side,
        models.feature_width,
        id_of(dataset),
        tiles,
        models.feature_dtype == torch.float32,
        pixels.as_lists(),
        preset.clean_masks,
    )
