"""Labels added to, taken from and changed in the lists of an image, all of them by one atomic update of its document.

An edit names what it saw: the labels that each list held, their names and what was decided. Where another process has added,
removed or renamed one since, or decided otherwise, nothing is written and the image is named, so that whoever edits can look
again. Labels that an edit does not name stay as they are, those that a user moves meanwhile too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from ..errors import DatasetError
from ..failpoints import reach
from .connection import DURABLE, patiently
from .views import name_of

Document = dict[str, Any]
IMAGES_A_READ = 256
IMAGES_A_WRITE = 256
TRIES = 100
"""How often an image is looked at again that others change at the same moment."""


@dataclass
class ListEdit:
    """What becomes of one list of labels of an image; ids are those of MongoDB.

    Attributes:
        seen: the labels that it held, in their order.
        added: documents to append.
        removed: ids of labels to take away.
        changed: new values of attributes by the id of their label.
    """

    seen: Sequence[Document]
    added: list[Document] = field(default_factory=list)
    removed: set[ObjectId] = field(default_factory=set)
    changed: dict[ObjectId, Document] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @classmethod
    def between(cls, seen: Sequence[Document], after: Sequence[Document]) -> ListEdit:
        """What makes one list of labels of another; none of them loses an attribute."""
        before, now = ({label["_id"]: label for label in labels} for labels in (seen, after))
        changes = {
            name: {key: value for key, value in now[name].items() if key not in label or label[key] != value}
            for name, label in before.items()
            if name in now
        }
        return cls(
            seen,
            [label for name, label in now.items() if name not in before],
            before.keys() - now.keys(),
            {name: values for name, values in changes.items() if values},
        )


@dataclass
class ImageEdit:
    """What becomes of the lists of one image.

    Attributes:
        lists: edits by field.
        present: for each field ids of labels without which nothing is written.
    """

    lists: dict[str, ListEdit]
    present: dict[str, Sequence[ObjectId]] = field(default_factory=dict)


def read_documents(
    dataset: Any, sample_ids: Iterable[str], fields: Sequence[str], attributes: Sequence[str] = ()
) -> Iterator[tuple[str, Document]]:
    """Sample id, and the documents of labels by field, of each image as MongoDB has it now; dataset as from whole_of.

    A field that holds no list of labels counts as an empty one. Only some attributes are read where they are named.
    """
    paths = [f"{name}.detections{path}" for name in fields for path in ([f".{one}" for one in attributes] or [""])]
    collection = collection_of(dataset)
    chosen = [ObjectId(name) for name in sample_ids]
    for start in range(0, len(chosen), IMAGES_A_READ):
        wanted = {"_id": {"$in": chosen[start : start + IMAGES_A_READ]}}
        for found in _read(collection, wanted, paths):
            yield str(found["_id"]), {name: labels_in(found, name) for name in fields}


def labels_in(document: Mapping[str, Any], field: str) -> list[Document]:
    """The labels of a field of Detections in a sample's document; none where it holds something else."""
    held = document.get(field)
    labels = held.get("detections") if isinstance(held, dict) else None
    return [label for label in labels if isinstance(label, dict)] if isinstance(labels, list) else []


def images_with_labels(dataset: Any, name: str) -> list[str]:
    """The images that hold any label of a field; dataset as from whole_of."""
    wanted = {f"{name}.detections.0": {"$exists": True}}
    return [str(found["_id"]) for found in _read(collection_of(dataset), wanted, ["_id"])]


def images_that_hold(
    dataset: Any, name: str, label_ids: Iterable[str], sample_ids: Iterable[str] | None = None
) -> dict[str, list[str]]:
    """The images that hold these labels of a field, each with the ids of its own; dataset as from whole_of.

    Args:
        dataset: whose images.
        name: of the field.
        label_ids: ids that are no MongoDB's are held by none.
        sample_ids: where to look first; without, and for what is not there, MongoDB looks the labels up by an index.
    """
    wanted = {ObjectId(one) for one in label_ids if ObjectId.is_valid(one)}
    path = f"{name}.detections._id"
    collection = collection_of(dataset)
    found: dict[str, list[str]] = {}
    hint = [ObjectId(one) for one in sample_ids or () if ObjectId.is_valid(one)]
    for where in ([{"_id": {"$in": hint}}] if hint else []) + [{}]:
        left = wanted - {ObjectId(one) for ids in found.values() for one in ids}
        if not left:
            break
        if not where:
            collection.create_index(path)
        for start in range(0, len(ordered := list(left)), IMAGES_A_READ):
            part = set(ordered[start : start + IMAGES_A_READ])
            asked = {**where, path: {"$in": list(part)}}
            for image in _read(collection, asked, [path]):
                own = [str(label["_id"]) for label in labels_in(image, name) if label["_id"] in part]
                found.setdefault(str(image["_id"]), []).extend(own)
    return found


def write_edits(dataset: Any, edits: Mapping[str, ImageEdit]) -> set[str]:
    """Edit the labels of some images; dataset as from whole_of.

    Args:
        dataset: whose images.
        edits: by sample id; one that changes nothing costs nothing.

    Returns:
        Ids of images that had changed since they were read, and of those that are gone: nothing was written there.

    Raises:
        DatasetError: MongoDB did not confirm the writes.
    """
    real = {name: edit for name, edit in edits.items() if any(edit.lists.values())}
    if not real:
        return set()
    now = datetime.now(timezone.utc)
    collection = collection_of(dataset).with_options(write_concern=DURABLE)
    updates = {name: _update(edit, now) for name, edit in real.items()}
    reach("decision.read")
    try:
        requests = [UpdateOne(_unchanged(name, edit), updates[name]) for name, edit in real.items()]
        written = patiently(lambda: collection.bulk_write(requests, ordered=False))
    except PyMongoError as error:
        raise DatasetError(
            f"MongoDB did not confirm what was decided in the dataset {name_of(dataset)!r} ({error}): look at its labels and "
            "decide again what is missing."
        ) from error
    reach("decision.written")
    late = _not_applied(dataset, real) if written.matched_count < len(real) else set()
    done = [name for name in real if name not in late]
    tell_copies(dataset, {name: updates[name] for name in done})
    return late


def edit_labels(dataset: Any, sample_ids: Iterable[str], edits_of: Callable[[Iterable[str]], Mapping[str, ImageEdit]]) -> None:
    """Edit images; those that somebody changes between reading and writing are read again. Dataset as from whole_of.

    Args:
        dataset: whose images.
        sample_ids: of the images.
        edits_of: reads some images and says what becomes of each that is still there.

    Raises:
        DatasetError: MongoDB did not confirm the writes, or others change an image each time.
    """
    every = list(sample_ids)
    for start in range(0, len(every), IMAGES_A_WRITE):
        left: Iterable[str] = every[start : start + IMAGES_A_WRITE]
        for _ in range(TRIES):
            left = write_edits(dataset, edits_of(left))
            if not left:
                break
        else:
            raise DatasetError(
                f"Others keep changing the labels of the image {sorted(left)[0]} of dataset {name_of(dataset)!r}: try again."
            )


def _unchanged(sample_id: str, edit: ImageEdit) -> Document:
    """Matches an image while its lists hold what the edit saw."""
    lists = [
        {
            "$eq": [
                {"$ifNull": [f"${name}.detections.{key}", []]},
                {"$literal": [label[key] for label in one.seen if key in label]},
            ]
        }
        for name, one in edit.lists.items()
        for key in ("_id", "label", "decision")
    ]
    present = {f"{name}.detections._id": {"$all": list(ids)} for name, ids in edit.present.items() if ids}
    return {"_id": ObjectId(sample_id), **present, "$expr": {"$and": lists}}


def _update(edit: ImageEdit, now: datetime) -> list[Document]:
    values: Document = {"last_modified_at": now}
    for name, one in edit.lists.items():
        if one:
            values[name] = {"$mergeObjects": [f"${name}", {"_cls": "Detections", "detections": _list(name, one)}]}
    return [{"$set": values}]


def _list(name: str, edit: ListEdit) -> Document:
    # As literals, because a class may be called "$name", which MongoDB would take for a field.
    kept: Any = {"$ifNull": [f"${name}.detections", []]}
    if edit.removed:
        kept = {"$filter": {"input": kept, "cond": {"$not": [{"$in": ["$$this._id", list(edit.removed)]}]}}}
    if edit.changed:
        cases = [
            {"case": {"$eq": ["$$this._id", label_id]}, "then": {"$mergeObjects": ["$$this", {"$literal": values}]}}
            for label_id, values in edit.changed.items()
        ]
        kept = {"$map": {"input": kept, "as": "this", "in": {"$switch": {"branches": cases, "default": "$$this"}}}}
    return {"$concatArrays": [kept, {"$literal": edit.added}]}


def _not_applied(dataset: Any, edits: Mapping[str, ImageEdit]) -> set[str]:
    """The images in which an edit cannot be seen."""
    fields = sorted({name for edit in edits.values() for name in edit.lists})
    seen = {name for name, lists in read_documents(dataset, edits, fields) if _shows(lists, edits[name])}
    return edits.keys() - seen


def _shows(lists: Document, edit: ImageEdit) -> bool:
    for name, one in edit.lists.items():
        held = {label["_id"]: label for label in lists[name]}
        if one.removed & held.keys() or any(label["_id"] not in held for label in one.added):
            return False
        if any(held.get(label_id, {}).get(key) != value for label_id, new in one.changed.items() for key, value in new.items()):
            return False
    return True


def tell_copies(dataset: Any, updates: Mapping[str, Any]) -> None:
    """Let FiftyOne know what was written in collection_of, by sample id: it has samples in memory, and copies of frames."""
    done = list(updates)
    if _is_of_frames(dataset):
        # The frames of a view are a copy, of this process alone.
        dataset._dataset._bulk_write([UpdateOne({"_id": ObjectId(name)}, updates[name]) for name in done], ids=done)
        fo.Frame._reload_docs(dataset._root_dataset._frame_collection_name, frame_ids=done)
    else:
        fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=done)


def _read(collection: Any, wanted: Document, paths: Sequence[str]) -> list[Document]:
    """Documents of which these paths are read, in one piece: what was read in part cannot be read again."""
    return patiently(lambda: list(collection.find(wanted, dict.fromkeys(paths, True))))


def collection_of(dataset: Any) -> Any:
    """Where the images of a dataset, as from whole_of, are: of frames the videos' own."""
    return dataset._root_dataset._frame_collection if _is_of_frames(dataset) else dataset._sample_collection


def _is_of_frames(dataset: Any) -> bool:
    return bool(dataset._is_frames and not dataset._is_patches)
