"""The one door for datasets and views: what every function that takes one makes of it before it does anything else.

A name loads its dataset, dynamic groups are flattened, and what holds no images is refused with what to pass instead. Frames of
videos that lie on disk count as images: FiftyOne keeps them in a dataset that it throws away, so what is written goes through
their view, which passes it on to the videos, and runs, prototypes and indexes are kept with the dataset of the videos.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.media import get_media_type
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from ..errors import DatasetError
from .connection import patiently
from .fields import every_image
from .schema import add_field, refresh

NAMES_LISTED = 10


def image_view(given: Any) -> Any:
    """The images that a caller means.

    Args:
        given: a dataset or view, or a dataset's name.

    Returns:
        The same, dynamic groups flattened: a collection of images, perhaps an empty one.

    Raises:
        DatasetError: no dataset, or one of videos, groups, point clouds, patches or clips; the message says what to pass.
    """
    view = open_collection(given)
    path = "view"
    if view._is_dynamic_groups:
        # Without, a view of groups counts each group as the first of its images.
        view, path = view.flatten(), "view.flatten()"
    _require_images(view, path)
    return view


def image_dataset(given: Any) -> Any:
    """The whole dataset that a caller means by it, by a view of it or by its name, where labels are named by their ids.

    Patches and slices of groups stand for the images they come from; see also whole_of.

    Raises:
        DatasetError: no dataset, or one without images; the message says what to pass.
    """
    view = open_collection(given)
    if view._is_generated and not view._is_patches:
        _require_images(view)
    whole = whole_of(view)
    _require_images(every_image(whole) if _has_slices_of_images(whole) else whole)
    return whole


def kept_with(given: Any) -> Any:
    """The dataset with which runs, prototypes and indexes of a dataset, a view of it or a dataset of this name are kept.

    Raises:
        DatasetError: no dataset.
    """
    return open_collection(given)._root_dataset


def whole_of(view: Any) -> Any:
    """All images of the dataset that a view is of, to be read and written; of frames and patches of them, all made with it."""
    if not view._is_frames or not isinstance(view, fo.DatasetView):
        return view._root_dataset
    return (view._source_collection if view._is_patches else view)._base_view


def open_collection(given: Any) -> Any:
    """A dataset or view as it is, or the dataset of this name.

    Raises:
        DatasetError: there is no such dataset, or it was deleted, or this is no dataset.
    """
    if isinstance(given, str):
        if not fo.dataset_exists(given):
            raise DatasetError(f"There is no dataset named {given!r}: {_other_names(given)}.")
        return fo.load_dataset(given)
    if not isinstance(given, SampleCollection):
        raise DatasetError(
            f"A FiftyOne dataset, a view of one, or a dataset's name is needed, not {type(given).__name__}: make one of image "
            "files with fiftyone.Dataset.from_images."
        )
    if isinstance(given, fo.Dataset) and given.deleted:
        raise DatasetError(f"The dataset {given.name!r} was deleted: pass another one.")
    refresh(given)
    return given


def name_of(view: Any) -> str:
    """The name of the dataset that a dataset, a view, or frames of videos belong to."""
    return str(view._root_dataset.name)


def id_of(view: Any) -> str:
    """The id of that dataset, which it keeps when it is renamed."""
    return str(view._root_dataset._doc.id)


def count_samples(view: Any) -> int:
    """How many samples a dataset or view has: len of a whole dataset is MongoDB's estimate, which a crash leaves wrong."""
    # A view with a stage, even one that does nothing, is counted.
    return int(view.skip(0).count())


def has_samples(view: Any) -> bool:
    """Whether a dataset or view has any, without counting them all."""
    return bool(view.limit(1).count())


def require_samples(view: Any) -> None:
    """Refuse an empty view.

    Raises:
        DatasetError: there is no sample in it.
    """
    if not has_samples(view):
        raise DatasetError(f"The view of dataset {name_of(view)!r} is empty: choose at least one image.")


def sample_or_none(view: Any, sample_id: str) -> Any:
    """A sample of a dataset or view; None where somebody has deleted it."""
    try:
        return view[sample_id]
    except KeyError:
        return None


def require_image(dataset: Any, sample_id: str) -> Any:
    """An image of a dataset; of a grouped one, from any slice. Dataset as from image_dataset.

    Raises:
        DatasetError: it holds no such image.
    """
    found = sample_or_none(every_image(dataset), sample_id)
    if found is None:
        raise DatasetError(f"The dataset {name_of(dataset)!r} holds no image {sample_id!r}: look at the present ones.")
    return found


def write_values(view: Any, field: str, values: Mapping[str, Any], *, dynamic: bool = False) -> None:
    """Write one value of a field for each sample id, whatever the view hides; those of frames reach their videos."""
    if values:
        whole = whole_of(view)
        # FiftyOne carries every frame of the view to its video: of all others nothing has changed.
        chosen = whole.select(list(values)) if _holds_frames(whole) else whole
        patiently(lambda: chosen.set_values(field, dict(values), key_field="id", dynamic=dynamic))


def write_detections(view: Any, field: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write Detections for each sample id, whatever the view hides, from what MongoDB is to hold; those of frames reach videos.

    FiftyOne would copy, check and serialize each label first, which takes ten times as long.

    Args:
        view: whose images are written to.
        field: that gets the attributes it lacks.
        documents: by sample id; one whose sample is gone is passed over.

    Raises:
        DatasetError: MongoDB did not take them.
    """
    whole = whole_of(view)
    if not documents:
        return
    if _holds_frames(whole) or "." in field:
        write_values(view, field, {name: fo.Detections.from_dict(one) for name, one in documents.items()}, dynamic=True)
        return
    known = {"_id", "_cls", *whole.get_field(f"{field}.detections").field.get_field_schema()}
    for document in documents.values():
        attributes = {name for label in document["detections"] for name, value in label.items() if value is not None}
        if not attributes <= known:
            add_labels_field(whole, field, fo.Detections.from_dict(document))
            known |= attributes
    now = datetime.now(timezone.utc)
    updates = [
        UpdateOne({"_id": ObjectId(name)}, {"$set": {field: document, "last_modified_at": now}})
        for name, document in documents.items()
    ]
    try:
        patiently(lambda: whole._dataset._sample_collection.bulk_write(updates, ordered=False))
    except PyMongoError as error:
        raise DatasetError(
            f"MongoDB did not take the labels of the field {field!r} of dataset {name_of(view)!r} ({error}): what was written "
            "before is kept, run again to write the rest."
        ) from error
    fo.Sample._reload_docs(whole._dataset._sample_collection_name, sample_ids=list(documents))


def read_detections(
    view: Any, field: str, sample_ids: Iterable[str], attributes: Sequence[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Sample id and labels of each image whose field holds Detections, be they none; of these so many attributes.

    Args:
        view: whose images are read, whatever it hides.
        field: of Detections.
        sample_ids: of images.
        attributes: those that a label does not have are missing.
    """
    wanted = {"_id": {"$in": [ObjectId(name) for name in sample_ids]}}
    paths = dict.fromkeys((f"{field}.detections.{name}" for name in attributes), True)
    for found in whole_of(view)._dataset._sample_collection.find(wanted, paths):
        value: Any = found
        for name in (*field.split("."), "detections"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield str(found["_id"]), value


def add_labels_field(
    dataset: Any, name: str, example: Any, *, description: str | None = None, info: Mapping[str, Any] | None = None
) -> None:
    """Add a field of labels, or of other embedded documents, like this one, or what it lacks; dataset as from whole_of."""
    for holder, path in _holders(dataset, name):
        add_field(holder, name, example, of_frames=path != name, description=description, info=info)


def stored_field(dataset: Any, name: str) -> Any:
    """A field of images as it is stored, of frames that of the videos; None where there is none. dataset as from whole_of."""
    holder, path = _holders(dataset, name)[-1]
    return holder.get_field(path)


def delete_labels_fields(dataset: Any, names: Collection[str]) -> None:
    """Delete fields or attributes of labels; dataset as from whole_of."""
    is_of_frames = _holds_frames(dataset)
    for holder in (dataset._dataset, dataset._root_dataset) if is_of_frames else (dataset,):
        is_video = is_of_frames and holder is dataset._root_dataset
        schema = holder.get_frame_field_schema(flat=True) if is_video else holder.get_field_schema(flat=True)
        known = [name for name in names if name in schema]
        if known:
            (holder.delete_frame_fields if is_video else holder.delete_sample_fields)(known)


def clear_labels(dataset: Any, name: str) -> None:
    """Empty a field of labels; dataset as from whole_of."""
    for holder, path in _holders(dataset, name):
        (holder.clear_sample_field if path == name else holder.clear_frame_field)(name)


def delete_labels(dataset: Any, labels: Sequence[Mapping[str, str]]) -> None:
    """Delete labels, each given by its `label_id`, `sample_id` and `field`; dataset as from whole_of."""
    dataset._dataset.delete_labels(labels=[dict(label) for label in labels])
    if _holds_frames(dataset) and labels:
        paths = sorted({f"frames.{label['field']}" for label in labels})
        dataset._root_dataset.delete_labels(ids=[label["label_id"] for label in labels], fields=paths)


def ids_in(dataset: Any) -> set[str]:
    """Ids of every image that a dataset has, of frames also those that its view was not made of; dataset as from whole_of."""
    ids = set(every_image(dataset).values("id"))
    return ids | set(dataset._root_dataset.values("frames.id", unwind=True)) if _holds_frames(dataset) else ids


def _holders(dataset: Any, field: str) -> list[tuple[Any, str]]:
    """The datasets that hold a field of images, with its path in each: of frames theirs and that of the videos."""
    if not _holds_frames(dataset):
        return [(dataset, field)]
    return [(dataset._dataset, field), (dataset._root_dataset, f"frames.{field}")]


def _holds_frames(view: Any) -> bool:
    """Whether its images are frames; FiftyOne says so of patches of frames too."""
    return bool(view._is_frames and not view._is_patches)


def _has_slices_of_images(view: Any) -> bool:
    return view.media_type == "group" and "image" in (view.group_media_types or {}).values()


def _require_images(view: Any, path: str = "view") -> None:
    """Refuse what is no collection of images; path is how a caller gets to it."""
    name = f"The dataset {name_of(view)!r}"
    if view._is_patches:
        ids = "frame_id" if view._is_frames else "sample_id"
        whole = "dataset.to_frames(sample_frames=True)" if view._is_frames else "dataset"
        raise DatasetError(
            f"The view of dataset {name_of(view)!r} holds patches, which are pieces of images: pass the images they"
            f" were cut from, {whole}.select(view.distinct({ids!r}))."
        )
    if view._is_clips:
        raise DatasetError(
            f"The view of dataset {name_of(view)!r} holds clips of videos, which RefSeg cannot segment: pass their"
            " frames, view.to_frames(sample_frames=True)."
        )
    if view.media_type == "video":
        raise DatasetError(
            f"{name} holds videos, which RefSeg cannot segment: pass their frames, view.to_frames(sample_frames=True)."
        )
    if _holds_frames(view):
        paths = whole_of(view).limit(1).values("filepath")
        # FiftyOne can also read frames out of their video each time, whose path they then have.
        if not paths or get_media_type(paths[0]) != "image":
            raise DatasetError(
                f"The frames of the dataset {name_of(view)!r} do not lie on disk: write them with"
                " dataset.to_frames(sample_frames=True), or set their filepath, and pass that view."
            )
    if view.media_type == "group":
        if view.group_media_types and not _has_slices_of_images(view):
            listed = ", ".join(sorted(set(map(repr, view.group_media_types.values()))))
            raise DatasetError(f"{name} is grouped and holds media of type {listed} alone, but RefSeg needs images.")
        raise DatasetError(f"{name} is grouped: choose its images with {path}.select_group_slices(media_type='image').")
    if view.media_type not in ("image", None):
        raise DatasetError(f"{name} holds media of type {view.media_type!r}, but RefSeg needs images.")


def _other_names(name: str) -> str:
    """What to pass instead of a name that no dataset has."""
    known = fo.list_datasets()
    near = difflib.get_close_matches(name, known, n=3) or known[:NAMES_LISTED]
    if not near:
        return "there is none yet, so make one first"
    more = f" or another of {len(known)}" if len(known) > len(near) else ""
    return f"pass a dataset, a view, or one of the names {', '.join(map(repr, near))}{more}"
