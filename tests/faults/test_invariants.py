"""What is looked for after each kill is found where it is: a check that sees nothing would make any soak a success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest
from bson import ObjectId

from refseg.dataset.indexing import build_index
from refseg.dataset.store import save_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.review.decisions import accept, reject
from tests.faults.invariants import violations
from tests.faults.soak.__main__ import Ledger
from tests.trays import segment_all

Plant = Callable[[fo.Dataset], Any]


@pytest.fixture
def world(trays: fo.Dataset, prototypes: Prototypes) -> fo.Dataset:
    """Trays with an index, prototypes, predictions and a decision of each kind."""
    build_index(trays, "demo", num_workers=0, progress=False)
    save_prototypes(trays, prototypes, "parts")
    segment_all(trays, "parts")
    ids = trays.values("predictions.detections.id", unwind=True)
    accept(trays, ids[:2])
    reject(trays, ids[2:3])
    return trays


def both(dataset: fo.Dataset) -> None:
    sample = dataset.exists("accepted").first()
    sample["rejected"] = fo.Detections(detections=[sample.accepted.detections[0].copy()])
    sample.save()


def unknown_attribute(dataset: fo.Dataset) -> None:
    path = "predictions.detections.0.unheard_of"
    dataset._sample_collection.update_one({"predictions.detections.0": {"$exists": True}}, {"$set": {path: 1}})


def twice(dataset: fo.Dataset) -> None:
    sample = dataset.exists("predictions").first()
    copied = sample.predictions.detections[0].copy()
    copied.id = sample.predictions.detections[0].id
    sample.predictions.detections.append(copied)
    sample.save()


def lost_mask(dataset: fo.Dataset) -> None:
    sample = dataset.exists("predictions").first()
    sample.predictions.detections[0].mask_path = "/nowhere/gone.png"
    sample.save()


def lost_run(dataset: fo.Dataset) -> None:
    foo.get_db_conn().runs.delete_one({"_id": dataset._doc.runs["parts"].id})


def shared_run(dataset: fo.Dataset) -> None:
    dataset_id, run = dataset._doc.id, dataset._doc.runs["parts"].id
    foo.get_db_conn().datasets.update_one({"_id": dataset_id}, {"$set": {"runs.copy": run}})


def lost_file(dataset: fo.Dataset) -> None:
    Path(dataset.get_run_info("parts").config.path).unlink()


def lost_decision(dataset: fo.Dataset) -> None:
    dataset._sample_collection.update_many({}, {"$set": {"accepted.detections": []}})


def decision_that_came_back(dataset: fo.Dataset) -> None:
    sample = dataset.exists("accepted").first()
    label = sample.accepted.detections[0].copy()
    label.id = str(ObjectId())
    label["prediction_id"] = label.id
    sample.accepted.detections.append(label)
    sample.save()


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (both, "contradictions: BadReferenceError"),
        (unknown_attribute, "fields: predictions.detections.unheard_of is stored and not known"),
        (twice, "label_ids: predictions holds"),
        (lost_mask, "masks: predictions names /nowhere/gone.png, which does not exist"),
        (lost_run, "runs: the run parts has no document"),
        (shared_run, "runs: two runs share a document"),
        (lost_file, "prototypes: The file of the prototypes 'parts' is gone"),
        (lost_decision, "labels of acknowledged decisions are gone"),
        (decision_that_came_back, "labels came back that decisions had taken away"),
    ],
)
def test_what_is_planted_is_found(world: fo.Dataset, plant: Plant, told: str) -> None:
    held = {
        sample.id: {
            label.id for field in ("accepted", "rejected") if sample[field] is not None for label in sample[field].detections
        }
        for sample in world
    }
    assert violations(world.name, held) == []
    plant(world)
    assert any(told in one for one in violations(world.name, held))


class TestLedger:
    """What is known of decisions, from what users noted."""

    def read(self, tmp_path: Path, *lines: str) -> Ledger:
        log = tmp_path / "log"
        log.write_text("".join(line + "\n" for line in lines))
        ledger = Ledger()
        ledger.read(log)
        return ledger

    def test_decisions_add_up(self, tmp_path: Path) -> None:
        ledger = self.read(
            tmp_path,
            '{"holds": {"a": ["1"], "b": []}}',
            '{"begins": "decision", "images": ["a"]}',
            '{"decided": ["a"], "written": {"a": ["2"]}, "gone": {"a": ["1"]}}',
            '{"done": "accept", "seconds": 1}',
        )
        assert ledger.certain() == {"a": {"2"}, "b": set()}
        assert ledger.done == {"accept": 1}

    def test_what_is_begun_is_uncertain(self, tmp_path: Path) -> None:
        ledger = self.read(tmp_path, '{"holds": {"a": ["1"], "b": []}}', '{"begins": "decision", "images": ["a"]}')
        assert ledger.certain() == {"b": set()}
        ledger.end(tmp_path / "log")
        assert ledger.certain() == {"b": set()}

    def test_after_a_refusal_nothing_is_known_until_somebody_looks(self, tmp_path: Path) -> None:
        ledger = self.read(
            tmp_path,
            '{"holds": {"a": ["1"]}}',
            '{"begins": "decision", "images": ["a"]}',
            '{"refused": "accept", "error": "DatasetError", "message": "gone"}',
            '{"begins": "decision", "images": ["a"]}',
            '{"decided": ["a"], "written": {"a": ["2"]}, "gone": {}}',
        )
        assert ledger.certain() == {}

    def test_a_line_that_was_cut_off_waits(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text('{"holds": {"a": ["1"]}}\n{"begins": "deci')
        ledger = Ledger()
        ledger.read(log)
        assert ledger.certain() == {"a": {"1"}}
        with log.open("a") as stream:
            stream.write('sion", "images": ["a"]}\n')
        ledger.read(log)
        assert ledger.certain() == {}
