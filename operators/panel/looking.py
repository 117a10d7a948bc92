"""What the panel knows of a dataset's labels: kept in this process, and true at each look, whoever wrote meanwhile.

A first look at a large dataset takes seconds. It goes on beside the request, the section says so, and the browser asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone as fo

from ..forms.constants import REJECTED_FIELD
from ..forms.form import object_fields
from ..forms.selection import collection
from .settings import PanelSettings

if TYPE_CHECKING:
    from refseg.dataset import TaggedLabels
    from refseg.review import Review


class StillReadingError(Exception):
    """Labels are still being read: ask again."""


def tagged_labels(ctx: Any, settings: PanelSettings, *, waits: bool = False) -> TaggedLabels:
    """References and negatives of all images, of grouped data of every slice.

    Raises:
        StillReadingError: that takes long, and nobody waits for it.
    """
    from refseg.dataset import look_at_tagged

    dataset = collection(ctx)
    media = dataset.group_media_types.items() if dataset.media_type == "group" else None
    slices = None if media is None else [name for name, kind in media if kind == "image"]
    found = look_at_tagged(dataset, accepted_field=settings.accepted_field, slices=slices, waits=waits)
    if found is None:
        raise StillReadingError
    return found


def review(ctx: Any, settings: PanelSettings, *, waits: bool = False) -> Review | None:
    """Predictions and decisions of all images, of grouped data of the active slice; None where there are no predictions.

    Raises:
        StillReadingError: that takes long, and nobody waits for it.
    """
    from refseg.review import look_at_review

    if settings.label_field not in object_fields(ctx, (fo.Detections,)):
        return None
    dataset = collection(ctx)
    found = look_at_review(
        dataset,
        settings.label_field,
        accepted_field=settings.accepted_field,
        rejected_field=REJECTED_FIELD,
        slices=[ctx.group_slice or dataset.group_slice] if dataset.media_type == "group" else None,
        waits=waits,
    )
    if found is None:
        raise StillReadingError
    return found


def forget(ctx: Any) -> None:
    """Read everything anew at the next look."""
    from refseg.dataset import forget_rows

    forget_rows(collection(ctx))
