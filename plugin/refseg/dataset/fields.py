"""The fields and tags that RefSeg knows by name, and what its runs have written where.

Imports FiftyOne and nothing heavier, so that the App can ask at each click. Runs are read from the database, where other
processes write them too, and without their long lists: `Dataset.list_runs` and `Dataset.get_run_info` know those of when the
dataset was loaded, and go through every id in the settings of every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.odm import get_db_conn, validate_field_name

from ..errors import DatasetError
from ..processes import Process, is_gone
from .connection import patiently
from .labels import OBJECT_TYPES

REFERENCE_TAG = "reference"
NEGATIVE_TAG = "negative"
EMPTY_TAG = "known_empty"
"""Of samples known to hold no object of any class."""
ACCEPTED_FIELD = "accepted"
REJECTED_FIELD = "rejected"

PROTOTYPES_METHOD = "refseg/prototypes"
SEGMENTING = "refseg/segment"
INDEX_METHOD = "refseg/index"
INSPECTING = "refseg/inspect"
CHANGING = "refseg/changes"
"""Of what shows the objects that a run gained, lost or relabelled."""
PREDICTING = (SEGMENTING, "refseg/similar", INSPECTING, CHANGING)
"""Methods of the runs that fill a field with predictions and replace them when they run again."""


RUN = "run"
"""Attribute of predictions: the key of the run that wrote them."""
LONG_LISTS = ("changed_ids", "changed_objects", "cells", "skipped")
"""Settings of runs that are left in the database."""
RUNNING = "running"
INTERRUPTED = "interrupted"
"""What the state of a run that says "running" is where its process is gone. It is told, not written."""


@dataclass(frozen=True)
class PastRun:
    """A run as the dataset records it.

    Attributes:
        key: its name.
        config: its settings, without LONG_LISTS.
        is_whole: whether it was asked for the whole dataset, not for a view of it.
        at: when it was recorded, seconds since the epoch; 0 where that is unknown.
    """

    key: str
    config: Mapping[str, Any]
    is_whole: bool
    at: float = 0.0

    @property
    def state(self) -> str | None:
        """Of a run of segment "running", "completed", "cancelled", "failed" or "interrupted", as it is now; of others None."""
        state: str | None = self.config.get("state")
        if state != RUNNING:
            return state
        heard = datetime.fromisoformat(self.config.get("heard_at") or self.config["started_at"])
        silent = (datetime.now(timezone.utc) - heard).total_seconds()
        return INTERRUPTED if is_gone(Process.from_mapping(self.config.get("process")), silent) else RUNNING


def past_runs(dataset: Any, methods: Sequence[str], label_field: str | None = None) -> list[PastRun]:
    """The runs of these methods, newest last; of one field alone where it is named."""
    wanted = {} if label_field is None else {"label_field": label_field}
    return [_past_run(doc) for doc in _find_runs(dataset, methods, wanted).sort([("timestamp", 1), ("_id", 1)])]


def newest_of(dataset: Any, method: str, **wanted: Any) -> PastRun | None:
    """The latest run of a method with these settings, or None; however many there are, one is read."""
    found = _find_runs(dataset, [method], wanted).sort([("timestamp", -1), ("_id", -1)]).limit(1)
    return next(map(_past_run, found), None)


def _find_runs(dataset: Any, methods: Sequence[str], wanted: Mapping[str, Any]) -> Any:
    settings = {f"config.{name}": value for name, value in wanted.items()}
    # A process that was killed may have left records to which the dataset does not point.
    query = {"_id": {"$in": list(run_ids(dataset).values())}, "config.method": {"$in": list(methods)}, **settings}
    return get_db_conn().runs.find(query, {f"config.{name}": False for name in LONG_LISTS})


def _past_run(doc: Mapping[str, Any]) -> PastRun:
    recorded = doc.get("timestamp")
    at = 0.0 if recorded is None else recorded.replace(tzinfo=timezone.utc).timestamp()
    return PastRun(doc["key"], doc["config"], _is_whole(doc.get("view_stages") or ()), at)


def seconds_elsewhere(dataset: Any) -> dict[str, float]:
    """What computing an image took for the indexes of all other datasets of this database, by model; the newest counts.

    Indexes with tiles, in which an image takes many times longer, are left out.
    """
    wanted = {
        "config.method": INDEX_METHOD,
        "config.seconds_per_image": {"$gt": 0},
        "config.dataset_id": {"$ne": str(dataset._root_dataset._doc.id)},
        "config.tiles": {"$ne": True},
    }
    found = get_db_conn().runs.find(wanted, {"config.model": True, "config.seconds_per_image": True})
    return {doc["config"]["model"]: doc["config"]["seconds_per_image"] for doc in found.sort([("config.updated_at", 1)])}


def turned_before(dataset: Any, name: str | None = None) -> bool:
    """Whether the prototypes of this name, else the newest kept, were turned, as their record says: their file may be gone."""
    turned = {run.key: bool(run.config.get("turned", False)) for run in past_runs(dataset, [PROTOTYPES_METHOD])}
    return turned[name] if name in turned else next(reversed(turned.values()), False)


def _is_whole(stages: Sequence[str]) -> bool:
    """Whether these stages of a view, as JSON, leave nothing out: none do, and so do all frames of a dataset of videos."""
    return not stages or (len(stages) == 1 and "fiftyone.core.stages.ToFrames" in stages[0])


def whole_config(dataset: Any, key: str) -> Mapping[str, Any]:
    """All settings of a run, LONG_LISTS among them; empty where there is no such run."""
    held = run_ids(dataset).get(key)
    found = None if held is None else get_db_conn().runs.find_one({"_id": held}, {"config": True})
    return {} if found is None else found["config"]


def run_ids(dataset: Any) -> Mapping[str, Any]:
    """Of every run of a dataset, by key, the id of its document in the database."""
    datasets, wanted = get_db_conn().datasets, {"_id": dataset._root_dataset._doc.id}
    found = patiently(lambda: datasets.find_one(wanted, {"runs": True}))
    return {} if found is None else found.get("runs") or {}


def newest_run(dataset: Any, label_field: str) -> PastRun | None:
    """The latest run of segment that wrote to a field, or None."""
    return newest_of(dataset, SEGMENTING, label_field=label_field)


def prediction_fields(dataset: Any) -> set[str]:
    """Fields whose labels the next run replaces, so that nothing a user decides can be kept there."""
    return set(map(str, _find_runs(dataset, PREDICTING, {}).distinct("config.label_field")))


def holds_labels_of_others(dataset: Any, name: str) -> bool:
    """Whether a field of predictions, maps or presence holds labels, and no run of RefSeg seems to have written there.

    A dataset made of a view of another has its labels and not its runs: predictions are known by the run that they name, while
    decisions, which name it too, are somebody's.
    """
    for run in past_runs(dataset, PREDICTING):
        if name in [run.config.get(kind) for kind in ("label_field", "semantic_field", "presence_field")]:
            return False
    whole = every_image(dataset)
    kind = getattr(dataset.get_field(name), "document_type", None)
    if kind is fo.Detections:
        is_foreign = (F(RUN) == None) | (F("decision") != None)  # noqa: E711
        labelled = whole.match(F(f"{name}.detections").filter(is_foreign).length() > 0)
    elif kind is fo.Classifications:
        labelled = whole.match(F(f"{name}.classifications").length() > 0)
    else:
        labelled = whole.exists(name)
    return len(labelled.limit(1)) > 0


def object_fields(dataset: Any) -> list[str]:
    """Fields of detections or polylines, in the dataset's order."""
    schema = dataset.get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [name for name, entry in schema.items() if entry.document_type in OBJECT_TYPES]


def label_fields(dataset: Any) -> list[str]:
    """Fields of objects that are no predictions of RefSeg: what is tagged there stays tagged."""
    predicted = prediction_fields(dataset)
    return [field for field in object_fields(dataset) if field not in predicted]


def every_image(dataset: Any) -> Any:
    """All images of a dataset, of grouped data those of every slice."""
    return dataset.select_group_slices(media_type="image") if dataset.media_type == "group" else dataset


def require_own_field(dataset: Any, name: str) -> None:
    """Refuse a field for what a user shows or decides in which it would be lost, or overwrite something else.

    Raises:
        DatasetError: it holds predictions, or something else than Detections, or no new field can have its name.
    """
    whose = f"The field {name!r} of dataset {dataset._root_dataset.name!r}"
    if name in prediction_fields(dataset):
        raise DatasetError(f"{whose} holds predictions, which the next run replaces: choose another field.")
    existing = dataset.get_field(name)
    kind = getattr(existing, "document_type", type(existing))
    if existing is None:
        check_name(dataset, name)
    elif kind is not fo.Detections:
        raise DatasetError(
            f"{whose} holds {kind.__name__}, not Detections: choose another field, so that nothing is overwritten."
        )


def check_name(dataset: Any, name: str) -> None:
    """Refuse a name that no new field can have.

    Raises:
        DatasetError: FiftyOne does not allow it, or it has a dot.
    """
    try:
        validate_field_name(name, media_type=dataset.media_type)
        if "." in name:
            raise ValueError("labels need a field of their own, without a dot in its name")
    except ValueError as error:
        raise DatasetError(f"{name!r} cannot name a field of dataset {dataset._root_dataset.name!r}: {error}") from error
