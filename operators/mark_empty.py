"""Mark images that are known to hold no object of any class, or take the mark off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import EMPTY_TAG, REFERENCE_TAG
from .forms.form import Form
from .forms.messages import count
from .forms.selection import chose_whole_dataset, collection, images_of, shows_frames, target_images
from .running.base import RefSegOperator, Result, Work, came_from_app

OF_FRAMES = (
    "FiftyOne keeps no tags of frames of videos: make a dataset of them, "
    "dataset.to_frames(sample_frames=True).clone('frames', persistent=True), and mark its images."
)


class MarkEmpty(RefSegOperator):
    """Tags samples, so that thresholds and negatives can be learnt from them."""

    title = "Mark as empty"
    summary = "Mark images that hold no object of any class, so that RefSeg learns to keep quiet there"
    may_be_delegated = False
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which images, and whether to take the mark off."""
        form = Form(
            ctx,
            "Mark as empty",
            f"Mark images that hold no object of any class (the tag {EMPTY_TAG!r}): whatever is taken for one there is a "
            "mistake, from which thresholds and negatives are learnt.",
            action="Mark",
        )
        if form.usable and shows_frames(ctx):
            form.obstacle("frames", OF_FRAMES)
        elif form.usable:
            unmark = form.switch("unmark", False, "Remove", "Take the mark off instead")
            if not unmark and came_from_app(ctx) and not _will_be_selection(ctx) and chose_whole_dataset(ctx):
                form.obstacle("whole", "These are all images of the dataset: select the empty ones, or filter the view.")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Add the mark, or take it off."""
        from refseg.progress import Progress

        unmark = bool(ctx.params.get("unmark", False))
        yield Progress(0, 1, "marking")
        selected = _will_be_selection(ctx)
        images = images_of(ctx, ctx.view.select(ctx.selected)) if selected else target_images(ctx)
        number = mark(images, unmark=unmark)
        yield Progress(1, 1, "marking")
        return {"num_samples": number, "unmarked": unmark, "num_empty": count_empty(ctx)}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the tags and say how many images are marked now."""
        yield ctx.ops.reload_samples()
        yield ctx.ops.notify(describe(result), variant="success")

    def __call__(self, sample_collection: Any, unmark: bool = False) -> Any:
        """Mark images as empty, with the tag `known_empty`.

        Args:
            sample_collection: a dataset or view of images, all of which hold no object of any class.
            unmark: take the mark off instead.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `num_samples` (images of
            the collection), `unmarked` and `num_empty` (images of the dataset that are marked now).
        """
        return self.call(locals())


def _will_be_selection(ctx: Any) -> bool:
    """Whether something is selected in the App, which has not filled in the form's choice of images yet."""
    return bool(came_from_app(ctx) and ctx.request_params.get("view_target") is None and ctx.selected)


def mark(images: Any, *, unmark: bool = False) -> int:
    """Mark images as empty, or take the mark off; returns how many images there are.

    Raises:
        refseg.errors.DatasetError: there are none, some hold references, or they are frames.
    """
    from refseg.dataset import count_samples
    from refseg.errors import DatasetError

    # Counted before, because a view that selects by tag holds other samples afterwards.
    number = count_samples(images)
    if images._is_frames:
        raise DatasetError(OF_FRAMES)
    if not number:
        raise DatasetError("There is no image to mark: select some, or widen the view.")
    if unmark:
        images.untag_samples(EMPTY_TAG)
        return number
    holding = _holding_references(images)
    if holding:
        raise DatasetError(
            f"References lie in {count(len(holding), 'image')} of these, so not all are empty: leave them out, or take the "
            f"references' tags off first (one is {holding[0]})."
        )
    images.tag_samples(EMPTY_TAG)
    return number


def count_empty(ctx: Any) -> int:
    """How many images of the dataset, of all slices, are marked as empty."""
    from refseg.dataset import every_image

    return int(every_image(collection(ctx)).match_tags(EMPTY_TAG).count())


def describe(result: Result) -> str:
    """One sentence on what was marked."""
    images, empty = count(result["num_samples"], "image"), result["num_empty"]
    did = f"Took the mark off {images}." if result["unmarked"] else f"Marked {images} as empty."
    return f"{did} {count(empty, 'image')} of the dataset {'is' if empty == 1 else 'are'} known to be empty."


def _holding_references(images: Any) -> list[str]:
    """Paths of the images that hold references."""
    from refseg.dataset import REJECTED_FIELD, object_fields, prediction_fields

    dataset = images._dataset
    fields = [name for name in object_fields(dataset) if name not in {*prediction_fields(dataset), REJECTED_FIELD}]
    found = images.match_tags(REFERENCE_TAG).values("filepath")
    for field in fields:
        found += images.match_labels(tags=REFERENCE_TAG, fields=field).values("filepath")
    return list(dict.fromkeys(found))
