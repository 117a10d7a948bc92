"""Runs of two processes on one dataset at the same moment: each has a record of its own, and nothing is doubled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest
from fiftyone.core.odm import get_db_conn

from refseg.dataset.fields import PROTOTYPES_METHOD, SEGMENTING, newest_run, past_runs
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.store import list_prototypes, load_prototypes, save_prototypes
from refseg.prototypes.building import build_prototypes
from refseg.runs.segmenting import segment
from refseg.runs.updating import iter_learn, update
from tests.at_once import at_once
from tests.trays import propose_truth, tray_samples

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Four trays whose candidates, the ground truth, are indexed; the objects of the first are references."""
    dataset = make_dataset(tray_samples(tmp_path), persistent=True)
    dataset[:1].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    propose_truth(monkeypatch, dataset)
    build_index(dataset, "demo", num_workers=0, progress=False)
    prototypes = build_prototypes(collect_references(dataset, "ground_truth", tags="reference"), "demo", progress=False)
    save_prototypes(dataset, prototypes, "parts")
    return dataset


def segment_it(dataset: fo.Dataset) -> str:
    return segment(dataset, "parts", min_confidence=0.0, num_workers=0, progress=False).run_key


def update_it(dataset: fo.Dataset) -> str:
    return update(dataset, num_workers=0, progress=False).segmentation.run_key


def learn_it(dataset: fo.Dataset) -> str:
    work = iter_learn(dataset, "parts", sources=SourceSettings("demo", num_workers=0), calibrates=False)
    try:
        while True:
            next(work)
    except StopIteration as ended:
        return str(ended.value.stored.sha256)


def do(dataset: fo.Dataset, what: str) -> str:
    return {"segment": segment_it, "update": update_it, "learn": learn_it}[what](dataset)


def assert_whole(dataset: fo.Dataset, keys: list[str]) -> None:
    """Each run has one record, every object is there once, and each names a run that there is."""
    assert sorted(run.key for run in past_runs(dataset, [SEGMENTING])) == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert list_prototypes(dataset) == ["parts"]
    documents = list(get_db_conn().runs.find({"_dataset_id": dataset._doc.id}))
    dataset.reload()
    assert sorted(document["key"] for document in documents) == dataset.list_runs()
    assert {run.state for run in past_runs(dataset, [SEGMENTING])} == {"completed"}
    assert sorted(dataset.values("predictions.detections.label")) == [["star", "tee"]] * 4
    assert set(dataset.distinct("predictions.detections.run")) <= set(keys)
    assert load_prototypes(dataset, "parts").classes == ("star", "tee")


def test_first_runs(trays: fo.Dataset) -> None:
    """Both make the field."""
    keys = at_once(do, trays.name, ("segment",), ("segment",))
    assert all(isinstance(key, str) for key in keys), keys
    assert_whole(trays, keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(("update", "update"), marks=pytest.mark.thorough),
        ("segment", "update"),
        pytest.param(("learn", "learn"), marks=pytest.mark.thorough),
    ],
)
def test_later_runs(trays: fo.Dataset, what: tuple[str, str]) -> None:
    keys = [segment_it(trays)]
    answers = at_once(do, trays.name, *((one,) for one in what))
    assert all(isinstance(answer, str) for answer in answers), answers
    assert_whole(trays, [*keys, *(answer for answer, one in zip(answers, what, strict=True) if one != "learn")])
    newest = newest_run(trays, "predictions")
    assert newest is not None
    assert newest.config["prototypes_name"] == "parts"
    assert len(past_runs(trays, [PROTOTYPES_METHOD])) == 1
