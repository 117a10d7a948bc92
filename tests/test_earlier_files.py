"""Files that d27e48e wrote: this version reads them, adds to them, and finds in them what that commit found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import lance
import pytest
import torch
from bson import ObjectId
from safetensors import safe_open

from refseg.candidates.grids import grid_boxes
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index
from refseg.dataset.known_indexes import INDEX_METHOD, index_records
from refseg.errors import IndexMismatchError, PrototypeMismatchError
from refseg.index.candidate_index import CandidateIndex
from refseg.index.tables import METADATA_KEY, FileState
from refseg.matching.settings import MatchSettings
from refseg.models.loaded import Models
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import segment
from tests.index.test_candidate_index import candidates_of, first_rows

WRITTEN = Path(__file__).parent / "fixtures" / "d27e48e"
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())
INDEXES = [(record["folder"], record["tiles"]) for record in EXPECTED["records"]]
SAMPLE_IDS = [image["sample_id"] for image in EXPECTED["images"]]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy of what was written, its images of the age that they had."""
    folder = tmp_path / "earlier"
    shutil.copytree(WRITTEN, folder)
    for image in EXPECTED["images"]:
        os.utime(folder / "images" / image["name"], ns=(image["mtime_ns"], image["mtime_ns"]))
    return folder


@pytest.fixture
def dataset(earlier: Path, make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """The dataset that was indexed, made anew: the same samples, and the records of both indexes.

    A dataset's id cannot be chosen, so the copies are told the new one; nothing else in them changes.
    """
    dataset = make_dataset([fo.Sample(str(earlier / "images" / image["name"])) for image in EXPECTED["images"]])
    documents = dataset._sample_collection
    for sample_id, image in zip(dataset.values("id"), EXPECTED["images"], strict=True):
        document = documents.find_one({"_id": ObjectId(sample_id)})
        documents.delete_one({"_id": ObjectId(sample_id)})
        documents.insert_one({**document, "_id": ObjectId(image["sample_id"])})
    dataset_id = str(dataset._doc.id)
    for record in EXPECTED["records"]:
        facts = {name: value for name, value in record.items() if name not in ("key", "folder")}
        uri = earlier / record["folder"]
        for table in map(lance.dataset, (str(uri / "images.lance"), str(uri / "candidates.lance"))):
            about = json.loads(table.schema.metadata[METADATA_KEY])
            assert about["dataset_id"] == EXPECTED["dataset_id"]
            table.update_schema_metadata({METADATA_KEY.decode(): json.dumps({**about, "dataset_id": dataset_id})})
        config = dataset.init_run(method=INDEX_METHOD, dataset_id=dataset_id, uri=str(uri), **facts)
        dataset.register_run(record["key"], config)
    return dataset


def assert_found(dataset: fo.Dataset, field: str) -> None:
    """What is found in each image is what d27e48e found."""
    for image in EXPECTED["images"]:
        found = dataset[image["sample_id"]][field].detections
        assert [one.label for one in found] == [one["label"] for one in image["found"]]
        for one, expected in zip(found, image["found"], strict=True):
            assert one.confidence == pytest.approx(expected["score"], abs=1e-4)
            assert one.bounding_box == pytest.approx(expected["box"], abs=1e-5)
            assert int((one.get_mask() > 0).sum()) == expected["pixels"]


@pytest.mark.parametrize(("folder", "tiles"), INDEXES)
class TestTables:
    def test_are_read(self, earlier: Path, folder: str, tiles: bool) -> None:
        index = CandidateIndex.open(earlier / folder)
        (record,) = (record for record in EXPECTED["records"] if record["folder"] == folder)
        assert (index.settings.model, index.settings.fingerprint) == (record["model"], record["fingerprint"])
        assert (index.settings.tiles, index.settings.exact, index.settings.encoder) == (tiles, False, record["encoder"])
        assert (index.num_candidates, index.num_unread_rows) == (record["num_candidates"], 0)
        assert list(index.images) == SAMPLE_IDS
        for image in EXPECTED["images"]:
            held = index.images[image["sample_id"]]
            file = earlier / "images" / image["name"]
            assert (held.file.name, held.file.size, held.file.mtime_ns) == (file.name, file.stat().st_size, image["mtime_ns"])
            assert held.image_hw == (160, 200)
        for chunk in index.scan():
            for number, held in enumerate(chunk.images):
                candidates = chunk.candidates(number)
                assert len(candidates) == held.num_candidates > 0
                masks = candidates.logits_of(torch.arange(len(candidates))) > 0
                assert torch.equal(grid_boxes(masks), candidates.boxes)
                assert torch.allclose(candidates.features.norm(dim=1), torch.ones(len(candidates)), atol=1e-3)

    def test_take_more(self, earlier: Path, folder: str, tiles: bool) -> None:
        index = CandidateIndex.open(earlier / folder)
        old = {image.sample_id: chunk.candidates(n) for chunk in index.scan() for n, image in enumerate(chunk.images)}
        new = candidates_of(3)
        # As wide as the index; features are of no matter here.
        features = torch.nn.functional.normalize(torch.ones(3, index.settings.feature_width), dim=1)
        new = type(new)(new.codes, new.edges, new.boxes, new.predicted_iou, features, (160, 200), new.grid_side)
        index.append([("another", FileState("another.png", 5, 7), new)])
        index.append([(SAMPLE_IDS[0], FileState("changed.png", 5, 7), first_rows(new, 1))])
        again = CandidateIndex.open(earlier / folder)
        found = {image.sample_id: chunk.candidates(n) for chunk in again.scan() for n, image in enumerate(chunk.images)}
        assert {name: len(candidates) for name, candidates in found.items()} == {
            SAMPLE_IDS[0]: 1,
            **{name: len(old[name]) for name in SAMPLE_IDS[1:]},
            "another": 3,
        }
        assert found["another"].codes.equals(new.codes)
        assert again.images["another"].file.size == 5
        for name in SAMPLE_IDS[1:]:
            assert found[name].codes.equals(old[name].codes)
            assert torch.equal(found[name].features, old[name].features)
        again.compact()
        assert again.num_unread_rows == 0
        assert len(again.images) == 4


class TestPrototypes:
    def test_are_read(self, earlier: Path) -> None:
        prototypes = Prototypes.load(earlier / "prototypes.safetensors")
        assert list(prototypes.classes) == EXPECTED["classes"]
        assert torch.allclose(prototypes.matrix, torch.tensor(EXPECTED["matrix"]), atol=2e-5)
        assert prototypes.shots == {"star": 2, "tee": 2}
        assert (prototypes.model, prototypes.fingerprint) == ("demo", EXPECTED["records"][0]["encoder"])
        assert prototypes.negatives is not None
        assert prototypes.negatives.names == ("tee",)
        assert prototypes.background is not None
        assert prototypes.background.shape == (4, 8, 160)
        assert prototypes.surroundings is not None
        assert set(prototypes.surroundings.shown) == {"", *prototypes.reference_ids}
        assert set(prototypes.surroundings.images) == set(prototypes.images)
        assert all(prototypes.digests)

    def test_survive_being_written_again(self, earlier: Path) -> None:
        prototypes = Prototypes.load(earlier / "prototypes.safetensors")
        prototypes.save(earlier / "again.safetensors")
        with (
            safe_open(str(earlier / "prototypes.safetensors"), framework="pt") as first,
            safe_open(str(earlier / "again.safetensors"), framework="pt") as second,
        ):
            for name in first.keys():  # noqa: SIM118
                assert torch.equal(first.get_tensor(name), second.get_tensor(name)), name


class TestDataset:
    @pytest.mark.parametrize("tiles", [False, True])
    def test_is_segmented_from_the_index_alone(self, dataset: fo.Dataset, earlier: Path, tiles: bool, monkeypatch: Any) -> None:
        """Where that is asked for: of itself a run makes a new one, of clean masks."""
        monkeypatch.setattr("refseg.dataset.sources.load_models", lambda *names, **options: pytest.fail("no models are needed"))
        prototypes = Prototypes.load(earlier / "prototypes.safetensors")
        index = open_index(dataset, tiles=tiles)
        as_then = MatchSettings(calibrated=False)  # what is no probability
        options = {"min_confidence": 0.1, "matching": as_then, "num_workers": 0, "progress": False}
        report = segment(dataset, prototypes, "found", index=index, **options)
        assert (report.num_images, report.num_from_index, report.skipped) == (3, 3, ())
        assert_found(dataset, "found")

    def test_its_index_is_found_and_whole(self, dataset: fo.Dataset, earlier: Path) -> None:
        assert [record["uri"] for record in index_records(dataset)] == [str(earlier / folder) for folder, _ in INDEXES]
        index = open_index(dataset)
        status = index.status()
        assert (status.num_indexed, status.num_changed, status.num_deleted) == (3, 0, 0)
        assert index.verify(progress=False).damaged == ()

    @pytest.mark.thorough
    def test_its_index_is_not_mixed_with_clean_masks(self, dataset: fo.Dataset, earlier: Path, models: Models) -> None:
        """Another index is made beside it, of all images."""
        shutil.copy(earlier / "images" / "tray_0.jpg", earlier / "another.jpg")
        dataset.add_sample(fo.Sample(str(earlier / "another.jpg")))
        prototypes = Prototypes.load(earlier / "prototypes.safetensors")
        with pytest.raises(IndexMismatchError, match="was built for clean masks False, not True: choose another place"):
            build_index(dataset, models, uri=earlier / "index", num_workers=0, progress=False)
        report = build_index(dataset, models, num_workers=0, progress=False)
        assert (report.num_images, report.num_added) == (4, 4)
        assert report.uri not in {str(earlier / folder) for folder, _ in INDEXES}
        assert len(index_records(dataset)) == len(INDEXES) + 1
        assert len(CandidateIndex.open(earlier / "index").images) == 3
        with pytest.raises(PrototypeMismatchError, match="build them again with the model that is to use them"):
            segment(dataset, prototypes, "found", model=models, num_workers=0, progress=False)
        fitting = replace(prototypes, fingerprint=models.fingerprint)  # the demo's encoder was trained further since
        again = segment(dataset, fitting, "found", model=models, min_confidence=0.1, num_workers=0, progress=False)
        assert (again.num_images, again.num_from_index) == (4, 4)
