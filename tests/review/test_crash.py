"""Decisions survive a crash of MongoDB once they are acknowledged."""

from __future__ import annotations

import time
from pathlib import Path

import fiftyone as fo
import pymongo
import pytest

from refseg.review.decisions import accept
from tests.faults.processes import OtherProcess
from tests.private_mongod import PrivateMongod, find_mongod
from tests.review.predictions import LEFT, ids_of, predicted, record

NUM_IMAGES = 400
SECONDS_UNTIL_CRASH = 0.7


def many_images() -> fo.Dataset:
    """Images with a prediction each, of a persistent dataset."""
    dataset = fo.Dataset("crash", persistent=True)
    samples = [
        fo.Sample(f"{number}.png", predictions=fo.Detections(detections=[predicted("star", LEFT, 0.9)]))
        for number in range(NUM_IMAGES)
    ]
    dataset.add_samples(samples, dynamic=True, progress=False)
    record(dataset)
    accept(dataset, ids_of(dataset)[:1])
    return dataset


def accept_one_by_one(dataset: fo.Dataset, log: str) -> None:
    """Accept predictions until MongoDB is gone; the log holds those that were acknowledged."""
    ids, images = ids_of(dataset), dataset.values("id")
    with Path(log).open("w") as stream:
        for label_id, sample_id in zip(ids, images, strict=True):
            accept(dataset, [label_id], sample_ids=[sample_id])
            stream.write(label_id + "\n")
            stream.flush()


accept_one_by_one.prepare = lambda log: many_images()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_acknowledged_decisions_are_there_after_a_crash(tmp_path: Path) -> None:
    executable = find_mongod()
    assert executable is not None
    log = tmp_path / "acknowledged.txt"
    server = PrivateMongod(executable, tmp_path)
    try:
        with OtherProcess(accept_one_by_one, str(log), environment={"FIFTYONE_DATABASE_URI": server.uri}) as process:
            process.wait_until_ready()
            process.begin()
            while not log.exists() or not log.stat().st_size:
                time.sleep(0.01)
            time.sleep(SECONDS_UNTIL_CRASH)
            server.kill()
        acknowledged = log.read_text().split()
        server = PrivateMongod(executable, tmp_path)
        with pymongo.MongoClient(server.uri) as client:
            database = client["fiftyone"]
            (collection,) = [name for name in database.list_collection_names() if name.startswith("samples.")]
            images = list(database[collection].find({"accepted.detections.0": {"$exists": True}}))
        held = {label["prediction_id"] for image in images for label in image["accepted"]["detections"]}
        assert len(acknowledged) > 10
        assert set(acknowledged) <= held
    finally:
        server.stop()
