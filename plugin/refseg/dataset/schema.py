"""A dataset's fields as MongoDB has them now, whoever added them, and new fields beside those that others add.

A dataset object of FiftyOne knows the fields and runs of the moment when it was loaded, and writes its own list of fields as a
whole. So an object that is older than a field neither reads nor keeps it. Here it is compared with MongoDB first, and a field
is added by one update that takes no other away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import fiftyone.core.odm as foo
from fiftyone.core.fields import flatten_schema
from fiftyone.core.odm.dataset import SampleFieldDocument

from ..errors import DatasetError
from .connection import DURABLE, patiently

_LISTS = ("sample_fields", "frame_fields")
_NAMES = {f"{name}{path}": True for name in _LISTS for path in (".name", ".fields.name", ".fields.fields.name")}


def refresh(view: Any) -> None:
    """Load the dataset of a view anew where others have given it fields or runs, or taken some away, since it was loaded.

    Samples that are in memory keep what nobody has saved yet.

    Raises:
        DatasetError: others have deleted it.
    """
    for dataset in {id(one): one for one in (view._dataset, view._root_dataset)}.values():
        document = dataset._doc
        found = foo.get_db_conn().datasets.find_one({"_id": document.id}, {**_NAMES, "runs": True, "evaluations": True})
        if found is None:
            raise DatasetError(f"The dataset {dataset.name!r} was deleted: pass another one.")
        held = {name: set(_paths(getattr(document, name), "")) for name in _LISTS}
        stored = {name: set(_paths(found.get(name) or (), "")) for name in _LISTS}
        runs = [set(getattr(document, kind)) == set(found.get(kind) or ()) for kind in ("runs", "evaluations")]
        if held != stored or not all(runs):
            _load_anew(dataset)


def add_field(
    dataset: Any,
    name: str,
    example: Any,
    *,
    of_frames: bool = False,
    description: str | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Give a dataset a field of embedded documents, such as labels, with the attributes of an example.

    One that is there gets those it lacks, and keeps its description and info. Of several processes that add fields at once
    none takes those of the others away.
    """
    field = foo.create_implied_field(name, example, dynamic=True)
    field.name = field.db_field = name
    field.description, field.info = description, None if info is None else dict(info)
    prefix = "frames." if of_frames else ""
    if all(dataset.get_field(prefix + path) is not None for path in flatten_schema({name: field})):
        return
    now = datetime.now(timezone.utc)
    field._set_created_at(now)
    listed = "frame_fields" if of_frames else "sample_fields"
    datasets = foo.get_db_conn().datasets.with_options(write_concern=DURABLE)
    lacking = {"_id": dataset._doc.id, f"{listed}.name": {"$ne": name}}
    added = {"$push": {listed: SampleFieldDocument.from_field(field).to_dict()}, "$set": {"last_modified_at": now}}
    patiently(lambda: datasets.update_one(lacking, added))
    _load_anew(dataset)
    merge = dataset._merge_frame_field_schema if of_frames else dataset._merge_sample_field_schema
    merge({name: field})


def _load_anew(dataset: Any) -> None:
    """Load a dataset anew, with what somebody has changed in its `info`, say, and not saved yet.

    Samples in memory go by their dataset's class of samples: it stays the same, and learns new fields.
    """
    document = dataset._doc
    if document._get_changed_fields():
        dataset.save()
    kinds = [(dataset._sample_doc_cls, "sample_fields"), (dataset._frame_doc_cls, "frame_fields")]
    before = {listed: _trees(getattr(document, listed)) for _, listed in kinds}
    dataset._reload()
    now = {listed: _trees(getattr(document, listed)) for _, listed in kinds}
    if any(before[listed].keys() - now[listed].keys() for _, listed in kinds):
        dataset._reload(hard=True)
        return
    for kind, listed in kinds:
        for field in getattr(document, listed):
            if now[listed][field.name] != before[listed].get(field.name):
                kind._declare_field(dataset, field.name, field)


def _trees(fields: Iterable[Any]) -> dict[str, set[str]]:
    """The paths within each field."""
    return {one.name: set(_paths([one], "")) for one in fields}


def _paths(fields: Iterable[Any], parent: str) -> Iterator[str]:
    for one in fields:
        name, nested = (one["name"], one.get("fields")) if isinstance(one, Mapping) else (one.name, one.fields)
        path = f"{parent}.{name}"
        yield path
        if path.count(".") < 3:
            yield from _paths(nested or (), path)
