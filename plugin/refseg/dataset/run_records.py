"""Records of RefSeg's runs as they are written: each change is one update of MongoDB, and holds for every process.

FiftyOne keeps a run as a document of its own, to which the dataset's document points by the run's key. Its `register_run` and
`delete_run` go by the dataset as this process once loaded it: of two processes at once, one takes away what the other has just
written, or leaves a document to which nothing points. Costs a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import fiftyone as fo
from bson import json_util
from fiftyone.core.odm import get_db_conn
from fiftyone.core.odm.runs import RunDocument

from ..errors import DatasetError
from ..names import run_key_from
from .connection import patiently
from .fields import run_ids

KEPT_UNPOINTED = timedelta(hours=1)
"""A record to which nothing points was left by a killed process after so long: one that is being made takes milliseconds."""


def claim(view: Any, text: str, config: Any, *, replaces: Mapping[str, Any] | None = None) -> str:
    """Register a run under the first key made of a text that is free, or whose run is ours to replace.

    Args:
        view: whose run it is.
        text: such as the name of a field.
        config: from `init_run`.
        replaces: settings by which a run is known whose place this one takes; None where it takes no other's.

    Returns:
        The key.
    """
    base = key = run_key_from(text)
    number = 1
    while not register(view, key, config, replaces=replaces):
        number += 1
        key = f"{base}_{number}"
    return key


def register(view: Any, key: str, config: Any, *, replaces: Mapping[str, Any] | None = None) -> bool:
    """Register a run; of several processes that want one key at once, one gets it, or the last replaces the others.

    Arguments are those of claim, and the key itself. A record that is replaced stays the same document: whoever holds it can
    still read it.

    Returns:
        Whether it was registered; False where the key is that of a run which is not ours.
    """
    root, runs = view._root_dataset, get_db_conn().runs
    values = {
        "key": key,
        "version": fo.__version__,
        # FiftyOne's own have no time zone.
        "timestamp": datetime.now(timezone.utc).replace(tzinfo=None),
        "config": config.serialize(),
        "view_stages": _stages(view),
    }
    is_done = False
    while not is_done:
        held = run_ids(root).get(key)
        if held is None or not runs.count_documents({"_id": held}, limit=1):
            is_done = _point_to_new(root, key, held, values)
        elif replaces is None:
            return False
        else:
            ours = {"_id": held, **{f"config.{name}": value for name, value in replaces.items()}}
            is_done = bool(patiently(partial(runs.update_one, ours, {"$set": values})).matched_count)
            if not is_done and runs.count_documents({"_id": held}, limit=1):
                return False
    _show(root, key)
    _remove_unpointed(root)
    return True


def update_run(dataset: Any, key: str, values: Mapping[str, Any]) -> None:
    """Change some settings of a run, whatever else is changed meanwhile; nothing where the run is gone."""
    held = run_ids(dataset).get(key)
    changed = {f"config.{name}": value for name, value in values.items()}
    runs = get_db_conn().runs
    if held is not None and patiently(lambda: runs.update_one({"_id": held}, {"$set": changed})).matched_count:
        _show(dataset._root_dataset, key)


def remove_run(dataset: Any, key: str) -> None:
    """Remove a run of RefSeg and what points to it; nothing where it is gone."""
    root, conn = dataset._root_dataset, get_db_conn()
    held = run_ids(root).get(key)
    if held is not None:
        pointing = {"_id": root._doc.id, f"runs.{key}": held}
        patiently(lambda: conn.datasets.update_one(pointing, {"$unset": {f"runs.{key}": True}}))
        patiently(lambda: conn.runs.delete_one({"_id": held}))
    _show(root, key)


def _point_to_new(root: Any, key: str, held: Any, values: Mapping[str, Any]) -> bool:
    """Make a record and let the dataset point to it, where it points to none, or still to the one that is gone."""
    conn = get_db_conn()
    document = RunDocument(dataset_id=root._doc.id, results=None, **values)
    patiently(document.save)
    # None is also found where there is no such key; the new one where an update arrived of which nobody heard.
    unchanged = {"_id": root._doc.id, f"runs.{key}": {"$in": [held, document.id]}}
    changed = {"$set": {f"runs.{key}": document.id, "last_modified_at": values["timestamp"]}}
    try:
        is_taken = bool(patiently(lambda: conn.datasets.update_one(unchanged, changed)).matched_count)
    except BaseException:
        conn.runs.delete_one({"_id": document.id})
        raise
    if not is_taken:
        conn.runs.delete_one({"_id": document.id})
        if not conn.datasets.count_documents({"_id": root._doc.id}, limit=1):
            raise DatasetError(f"The dataset {root.name!r} was deleted: nothing can be kept with it any more.")
    return is_taken


def _stages(view: Any) -> list[str] | None:
    """The stages of a view as FiftyOne keeps them with a run; None for a whole dataset."""
    if not isinstance(view, fo.DatasetView):
        return None
    return [json_util.dumps(stage) for stage in view._serialize(include_uuids=False)]


def _show(root: Any, key: str) -> None:
    """Let this process's own copy of the dataset tell of a run what MongoDB tells."""
    held = run_ids(root).get(key)
    document = None if held is None else RunDocument.objects(id=held).first()
    # Past the overrides that note a change, which the dataset's next save would write.
    if document is None:
        dict.pop(root._doc.runs, key, None)
    else:
        dict.__setitem__(root._doc.runs, key, document)


def _remove_unpointed(root: Any) -> None:
    """Remove records of RefSeg's runs on a dataset that processes left when they were killed."""
    before = datetime.now(timezone.utc).replace(tzinfo=None) - KEPT_UNPOINTED
    get_db_conn().runs.delete_many(
        {
            "_dataset_id": root._doc.id,
            "_id": {"$nin": list(run_ids(root).values())},
            "config.type": "run",
            "config.method": {"$regex": "^refseg/"},
            "timestamp": {"$lt": before},
        }
    )
