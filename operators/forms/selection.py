"""What the user is looking at: the images an operator works on and the labels picked in the App."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fiftyone as fo


def target_images(ctx: Any) -> Any:
    """The images chosen in the form; for patches, the images they were cut from."""
    return images_of(ctx, target_view(ctx))


def target_view(ctx: Any) -> Any:
    """The view chosen in the form: images, frames or patches; of dynamic groups all images of each."""
    # FiftyOne takes dynamic groups for groups of slices, and fails.
    view = ctx.target_view(require_flat=not ctx.view._is_dynamic_groups)
    if shows_frames(ctx) and not view._is_frames:
        # FiftyOne's whole dataset is that of the videos.
        return collection(ctx)
    return ctx.flatten_group_slices(view.flatten() if view._is_dynamic_groups else view)


def all_images(ctx: Any) -> Any:
    """The whole dataset, of grouped data the active slice, of frames all of them."""
    return ctx.flatten_group_slices(collection(ctx))


def shows_frames(ctx: Any) -> bool:
    """Whether frames of videos are open, or patches of them."""
    return ctx.view is not None and bool(ctx.view._is_frames)


def collection(ctx: Any) -> Any:
    """What has the fields of the images: the dataset, or of frames the view of all of them."""
    if not shows_frames(ctx):
        return ctx.dataset
    from refseg.dataset import whole_of

    return whole_of(ctx.view)


def chose_whole_dataset(ctx: Any) -> bool:
    """Whether the images chosen in the form are all that the dataset has."""
    view = target_view(ctx)
    return not isinstance(view, fo.DatasetView) or not (view._is_patches or view._stages)


def target_ids(ctx: Any, most: int) -> set[str] | None:
    """Sample ids of the images chosen in the form, or None where there are more than so many images or patches."""
    view = target_view(ctx).limit(most + 1)
    ids = view.values(_image_id(view))
    return set(ids) if len(ids) <= most else None


def every_sample(ctx: Any) -> Any:
    """Every sample of the dataset, of grouped data those of all slices."""
    dataset = collection(ctx)
    return dataset.select_group_slices(_allow_mixed=True) if dataset.media_type == "group" else dataset


def images_of(ctx: Any, view: Any) -> Any:
    """The view itself, its dynamic groups flattened, or the images that its patches were cut from."""
    if view._is_dynamic_groups:
        view = view.flatten()
    if not view._is_patches:
        return view
    return all_images(ctx).select(view.distinct(_image_id(view)))


def _image_id(view: Any) -> str:
    """The field that holds the id of an image, or of that of a patch; a frame calls its video `sample_id`."""
    if not view._is_patches:
        return "id"
    return "frame_id" if view._is_frames else "sample_id"


def selected_label_ids(ctx: Any, field: str | None) -> list[str] | None:
    """Ids of the labels of a field that are selected in the App, or were given by a caller in Python; None for no selection.

    Labels picked in an image come first. In a view of patches a selected patch stands for its label.
    """
    given = ctx.params.get("label_ids")
    if given is not None:
        # One id, from a caller in Python, is a list of one.
        return [given] if isinstance(given, str) else list(given)
    picked = [label["label_id"] for label in ctx.selected_labels or () if label.get("field") == field]
    if picked:
        return picked
    if ctx.selected and field is not None and getattr(ctx.view, "patches_field", None) == field:
        return list(ctx.selected)
    return None


def picked_label_ids(ctx: Any, fields: Iterable[str]) -> list[str]:
    """The same of several fields, without repetition; empty for no selection."""
    return list(dict.fromkeys(label_id for field in fields for label_id in selected_label_ids(ctx, field) or ()))


def chosen_classes(ctx: Any) -> list[str] | None:
    """The classes named in the form; None for every class. Rows of the form's list that were left empty do not count."""
    return [name for name in ctx.params.get("classes") or () if name] or None


def labels_path(dataset: Any, field: str) -> str:
    """The path of a field's labels: "ground_truth.detections" for Detections, "part" for a single Detection."""
    kind: type[fo.Label] = dataset.get_field(field).document_type
    inner = getattr(kind, "_LABEL_LIST_FIELD", None)
    return f"{field}.{inner}" if inner else field
