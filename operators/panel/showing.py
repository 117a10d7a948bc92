"""Showing an object that has no label yet: a picture of an image in the panel, clicks on it, and the reference they become."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bson import ObjectId

from ..forms.constants import NEGATIVE_TAG, REFERENCE_TAG
from ..forms.form import object_fields
from ..forms.selection import all_images, collection, images_of
from ..forms.weights import using_files
from ..running.warming import warm_up
from . import settings as panel_settings
from .acting import send, send_overview, show_labels, told
from .examples import every_image

logger = logging.getLogger(__name__)

MOST_MASKS = 5
"""Masks among which a user can change, best first."""


class Showing:
    """Methods of the panel, called by `js/showing.js`; points and boxes are shares of the upright image."""

    @told
    def scene(self, ctx: Any) -> Any:
        """A picture of an image: the one asked for or its neighbour, else the one open or selected, else the view's first."""
        warm_up()
        sample = _sample_of(ctx)
        if sample is None:
            return None
        from refseg.images import as_data_uri, whole_picture

        return {
            "sample_id": sample.id,
            "name": Path(sample.filepath).name,
            "picture": as_data_uri(whole_picture(sample.filepath)),
            "known": _known(ctx, sample),
            "classes": _classes(ctx),
        }

    @told
    def prepare(self, ctx: Any) -> Any:
        """Do ahead what the first click would wait for; what is wrong is told once there is a click."""
        from refseg.errors import RefSegError
        from refseg.runs import prepare_prompts

        try:
            with using_files(ctx):
                prepare_prompts(collection(ctx), ctx.params["sample_id"], panel_settings.read(ctx).model)
        except RefSegError as error:
            logger.info("The image cannot be prepared: %s", error)
        return True

    @told
    def point(self, ctx: Any) -> Any:
        """The masks of the object that clicks and a box show, best first, each as a picture to lay over its box."""
        from refseg.images import as_data_uri, mask_picture
        from refseg.runs import MASK_COLOUR

        return {
            "masks": [
                {
                    "box": found.bounding_box,
                    "picture": as_data_uri(mask_picture(found.mask, MASK_COLOUR)),
                    "origin": found.origin,
                    "pieces": found.pieces,
                }
                for found in _found(ctx)[:MOST_MASKS]
            ]
        }

    @told
    def keep(self, ctx: Any) -> Any:
        """Label the object, as a reference or as a negative."""
        import refseg
        from refseg.dataset import SHOWN_FIELD

        name = str(ctx.params.get("label") or "").strip()
        if not name:
            raise ValueError("Name the object first: type what it is, or choose a class.")
        found = _found(ctx)[int(ctx.params.get("choice") or 0)]
        sample_id, is_negative = ctx.params["sample_id"], bool(ctx.params.get("is_negative"))
        is_new = not collection(ctx).has_field(SHOWN_FIELD)
        label_id = refseg.add_reference(
            collection(ctx), sample_id, name, found.bounding_box, found.mask, is_negative=is_negative
        )
        show_labels(ctx, has_new_field=is_new)
        send_overview(ctx)
        send(ctx, "references", "segment")
        sample = every_image(ctx)[sample_id]
        return {"id": label_id, "known": _known(ctx, sample), "classes": _classes(ctx)}


def _found(ctx: Any) -> Sequence[Any]:
    import refseg

    shown = ctx.params
    with using_files(ctx):
        return refseg.segment_prompt(
            collection(ctx),
            shown["sample_id"],
            shown.get("points") or (),
            beside=shown.get("beside") or (),
            box=shown.get("box"),
            model=panel_settings.read(ctx).model,
        )


def _sample_of(ctx: Any) -> Any:
    """The sample to show; None where the view holds no image."""
    asked, step = ctx.params.get("sample_id"), int(ctx.params.get("step") or 0)
    view = images_of(ctx, ctx.view)
    if asked and step:
        newer = {"$gt" if step > 0 else "$lt": ObjectId(asked)}
        ordered = view.match({"_id": newer}).sort_by("id", reverse=step < 0).limit(1)
        return ordered.first() if len(ordered) else every_image(ctx)[asked]
    chosen = [asked, ctx.current_sample, *(item["id"] for item in ctx.selected_samples if not ctx.view._is_patches)]
    for name in filter(None, chosen):
        found = every_image(ctx).select(name)
        if len(found):
            return found.first()
    images = view if len(view) else all_images(ctx)
    return images.first() if len(images) else None


def _known(ctx: Any, sample: Any) -> list[dict[str, Any]]:
    """Boxes of the references and negatives that the image has already."""
    from refseg.dataset import objects_of, relative_box
    from refseg.errors import LabelError

    known = []
    for field in object_fields(ctx):
        for label in objects_of(sample[field]) if sample.has_field(field) else ():
            kinds = {REFERENCE_TAG, NEGATIVE_TAG} & set(label.tags)
            if not kinds:
                continue
            try:
                box = relative_box(label)
            except LabelError:
                continue
            known.append({"id": label.id, "box": box, "label": label.label, "is_negative": NEGATIVE_TAG in kinds})
    return known


def _classes(ctx: Any) -> list[str]:
    """Names that references and negatives have already."""
    from . import looking

    tagged = looking.tagged_labels(ctx, panel_settings.read(ctx), waits=True)
    return sorted({label.label for label in tagged.labels if label.label})
