"""Pictures of single objects for the panel, as addresses of themselves (data URIs)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..forms.selection import collection
from .examples import every_image

logger = logging.getLogger(__name__)

SIDE = 72
"""Of a thumbnail, pixels: shown at half as many, so that it is sharp on fine screens."""
MOST_SIDE = 320
"""Of the largest crop that is made."""
WIDTH, HEIGHT = 640, 400
SHARP = 3
"""So many times more pixels across has a picture that is looked at more closely."""
MOST = 200
"""Pictures made for one request."""


def pictures(
    ctx: Any, wanted: Iterable[Mapping[str, str]], *, large: bool, side: int = SIDE, plain: bool = False, sharp: bool = False
) -> dict[str, str]:
    """Pictures of labels, by label id; labels and images that are gone or cannot be read are left out.

    Args:
        ctx: FiftyOne's execution context.
        wanted: for each label its `id`, `field` and `sample_id`.
        large: the object outlined in its surroundings, instead of a crop.
        side: of a crop, pixels.
        plain: of large ones, without the outline.
        sharp: of large ones, SHARP times as large.
    """
    from refseg.dataset import objects_of

    chosen = {item["id"]: item for item in list(wanted)[:MOST]}
    if not chosen:
        return {}
    fields = {item["field"] for item in chosen.values()} & set(collection(ctx).get_field_schema())
    view = every_image(ctx).select({item["sample_id"] for item in chosen.values()}).select_fields(sorted(fields))
    found: dict[str, str] = {}
    for sample in view.iter_samples(progress=False):
        for field in fields:
            for label in objects_of(sample[field]):
                if (
                    label.id in chosen
                    and (picture := _picture(sample, label, large, side, plain=plain, sharp=sharp)) is not None
                ):
                    found[label.id] = picture
    return found


def _picture(sample: Any, label: Any, large: bool, side: int, *, plain: bool, sharp: bool) -> str | None:
    from refseg.errors import RefSegError
    from refseg.images import MAX_MAGNIFICATION, as_data_uri, crop_thumbnail, object_picture

    try:
        box, mask = _region(sample, label)
        if large:
            times = SHARP if sharp else 1
            framing = {"width": times * WIDTH, "height": times * HEIGHT, "outlined": not plain}
            return as_data_uri(object_picture(sample.filepath, box, mask, most=times * MAX_MAGNIFICATION, **framing))
        return as_data_uri(crop_thumbnail(sample.filepath, box, side=min(side, MOST_SIDE), mask=mask))
    except RefSegError as error:
        logger.info("No picture of the label %s: %s", label.id, error)
        return None


def _region(sample: Any, label: Any) -> tuple[tuple[float, float, float, float], Any]:
    """Relative xywh box, and the mask over it where there is one."""
    from refseg.dataset import image_hw_of, object_region

    (height, width), _ = image_hw_of(sample)
    (x0, y0, x1, y1), mask = object_region(label, (height, width))
    return (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height), mask
