"""What holds of a dataset and its index at every moment, whoever was killed: the list of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo

from refseg.dataset.contradictions import require_no_contradictions
from refseg.dataset.fields import PROTOTYPES_METHOD
from refseg.dataset.known_indexes import index_records
from refseg.dataset.references import label_fields
from refseg.dataset.store import list_prototypes, load_prototypes
from refseg.errors import RefSegError
from refseg.index.candidate_index import CandidateIndex

DECIDED = ("accepted", "rejected")


def violations(name: str, decided: Mapping[str, set[str]] | None = None) -> list[str]:
    """What does not hold of a dataset of this name, in a sentence each.

    Args:
        name: of the dataset.
        decided: for each sample id the ids of the labels that acknowledged decisions have left there.
    """
    dataset = fo.Dataset._make_instance(name, _create=False)
    found = []
    for check in (_contradictions, _fields, _label_ids, _masks, _runs, _prototypes, _indexes):
        found += [f"{check.__name__[1:]}: {one}" for one in _problems(check, dataset)]
    found += [f"decisions: {one}" for one in _lost_decisions(dataset, decided or {})]
    return found


def _problems(check: Callable[[Any], Iterator[str]], dataset: Any) -> list[str]:
    try:
        return list(check(dataset))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def _contradictions(dataset: Any) -> Iterator[str]:
    """No object is both accepted and rejected as the same class."""
    require_no_contradictions(dataset, label_fields(dataset), "rejected")
    yield from ()


def _fields(dataset: Any) -> Iterator[str]:
    """Whatever labels hold is a field or an attribute that FiftyOne knows."""
    known = set(dataset.get_field_schema(flat=True))
    for document in dataset._sample_collection.find():
        for name, value in document.items():
            if not isinstance(value, dict) or "detections" not in value:
                continue
            attributes = {key for label in value["detections"] for key in label if not key.startswith("_")}
            for path in [name, *(f"{name}.detections.{key}" for key in attributes - {"attributes"})]:
                if path not in known:
                    yield f"{path} is stored and not known"
                    known.add(path)


def _label_ids(dataset: Any) -> Iterator[str]:
    """Each label is there once."""
    for name in dataset.get_field_schema(embedded_doc_type=fo.Detections):
        doubled = [one for one, number in Counter(dataset.values(f"{name}.detections.id", unwind=True)).items() if number > 1]
        if doubled:
            yield f"{name} holds {doubled[0]} twice, and {len(doubled) - 1} more"


def _masks(dataset: Any) -> Iterator[str]:
    """Each file of a mask that a label names is there."""
    for name in dataset.get_field_schema(embedded_doc_type=fo.Detections):
        for path in dataset.values(f"{name}.detections.mask_path", unwind=True):
            if path and not Path(path).is_file():
                yield f"{name} names {path}, which does not exist"


def _runs(dataset: Any) -> Iterator[str]:
    """Each run that is listed has its document, and is listed once."""
    database = foo.get_db_conn()
    listed = list((database.datasets.find_one({"_id": dataset._doc.id}).get("runs") or {}).items())
    stored = {document["_id"] for document in database.runs.find({}, {"_id": True})}
    for key, document_id in listed:
        if document_id not in stored:
            yield f"the run {key} has no document"
    if len({document_id for _, document_id in listed}) < len(listed):
        yield "two runs share a document"


def _prototypes(dataset: Any) -> Iterator[str]:
    """All prototypes that are kept can be loaded."""
    for name in list_prototypes(dataset):
        try:
            load_prototypes(dataset, name)
        except RefSegError as error:
            yield str(error)
    assert all(dataset.get_run_info(name).config.method == PROTOTYPES_METHOD for name in list_prototypes(dataset))


def _indexes(dataset: Any) -> Iterator[str]:
    """Each index can be opened, and what it says it holds can be read."""
    for record in index_records(dataset):
        index = CandidateIndex.open(record["uri"])
        held = 0
        for chunk in index.scan():
            for number, image in enumerate(chunk.images):
                held += 1
                if len(chunk.candidates(number)) != image.num_candidates:
                    yield f"{image.sample_id} has {image.num_candidates} candidates, and others are read"
        if held != len(index.images):
            yield f"the index at {record['uri']} holds {len(index.images)} images, and {held} are read"


def _lost_decisions(dataset: Any, decided: Mapping[str, set[str]]) -> Iterator[str]:
    """What was acknowledged is there, and nothing else."""
    fields = {f"{name}.detections._id": True for name in DECIDED}
    for document in dataset._sample_collection.find({}, fields):
        sample_id = str(document["_id"])
        lists = [(document.get(name) or {}).get("detections") or [] for name in DECIDED]
        there = {str(label["_id"]) for labels in lists for label in labels}
        wanted = decided.get(sample_id, there)
        if wanted - there:
            yield f"in {sample_id} {len(wanted - there)} labels of acknowledged decisions are gone"
        if there - wanted:
            yield f"in {sample_id} {len(there - wanted)} labels came back that decisions had taken away"
