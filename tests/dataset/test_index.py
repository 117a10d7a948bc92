"""The index of a dataset: where it lies, what it says of itself, what is damaged, and its care."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pyarrow as pa
import pytest
import torch

import refseg.dataset.file_states
from refseg.candidates.packing import PackedCandidates
from refseg.dataset.index import DatasetIndex
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import iter_build_index
from refseg.dataset.known_indexes import index_records
from refseg.dataset.store import dataset_folder
from refseg.errors import DatasetError, IndexNotFoundError
from refseg.progress import Progress
from tests.dataset.building import build, held_by
from tests.index.test_candidate_index import assert_same, bytes_on_disk, contents
from tests.trays import quick_models, tray_samples

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


class TestPlaces:
    def test_a_place_of_ones_own_is_found_again(self, trays: fo.Dataset, tmp_path: Path, computed: list[int]) -> None:
        report = build(trays, uri=tmp_path / "index")
        assert report.uri == str(tmp_path / "index")
        assert open_index(trays).uri == report.uri
        assert build(trays).uri == report.uri
        assert computed == [2, 2]
        assert not (dataset_folder(trays) / "index").exists()

    def test_a_relative_place_is_kept_whole(self, trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        report = build(trays, uri="index")
        assert report.uri == str(tmp_path / "index")
        monkeypatch.chdir("/")
        assert open_index(trays).status().num_indexed == 4
        assert build(trays).num_added == 0

    def test_a_relative_place_is_opened_whole(self, trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        build(trays, uri="index")
        index = open_index(trays, uri="index")
        assert index.uri == str(tmp_path / "index")
        index.compact()
        monkeypatch.chdir("/")
        assert open_index(trays).status().num_indexed == 4

    def test_the_home_folder(self, trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert build(trays, uri="~/index").uri == str(tmp_path / "index")
        assert open_index(trays, uri="~/index").uri == str(tmp_path / "index")

    @pytest.mark.parametrize("prefix", ["file://", "file-object-store://"])
    def test_an_address(self, trays: fo.Dataset, tmp_path: Path, computed: list[int], prefix: str) -> None:
        uri = f"{prefix}{tmp_path}/index"
        report = build(trays, uri=uri)
        assert report.uri == uri
        assert build(trays).num_added == 0
        assert computed == [2, 2]
        index = open_index(trays)
        assert (index.uri, index.status().num_indexed) == (uri, 4)
        assert len(contents(index.index)) == 4
        index.delete()
        assert index_records(trays) == []
        assert not (tmp_path / "index" / "images.lance").exists()

    def test_an_index_that_is_gone_is_built_anew(self, trays: fo.Dataset, tmp_path: Path) -> None:
        build(trays, uri=tmp_path / "index")
        shutil.rmtree(tmp_path / "index")
        with pytest.raises(IndexNotFoundError, match=f"There is no candidate index at {tmp_path / 'index'}"):
            open_index(trays)
        report = build(trays)
        assert (report.uri, report.num_added) == (str(tmp_path / "index"), 4)


def spoil(packed: PackedCandidates, what: str) -> PackedCandidates:
    """Candidates with one thing wrong in their second row."""
    features, boxes, predicted = packed.features.clone(), packed.boxes.clone(), packed.predicted_iou.clone()
    codes, edges = packed.codes.to_pylist(), packed.edges.to_pylist()
    if what == "edge too short":
        edges[1] = edges[1][:-1]
    elif what == "code of another size":
        codes[1] = codes[1][:-1]
    elif what == "empty mask":
        codes[1], edges[1] = pack_empty_code(packed.grid_side), b""
    elif what == "code of another mask":
        codes[1], edges[1] = codes[0], edges[0]
    elif what == "box":
        boxes[1, 2] += 1
    elif what == "feature not finite":
        features[1, 3] = torch.nan
    elif what == "feature too long":
        features[1] *= 1.5
    elif what == "feature of zeros":
        features[1] = 0
    else:
        predicted[1] = torch.inf
    return dataclasses.replace(
        packed,
        codes=pa.array(codes, pa.binary()),
        edges=pa.array(edges, pa.binary()),
        boxes=boxes,
        features=features,
        predicted_iou=predicted,
    )


def pack_empty_code(side: int) -> bytes:
    from tests.masks.test_rle import encode

    return encode(np.zeros((1, side, side), bool))[0]


DAMAGES = {
    "edge too short": "the logits along the edge of a mask do not fit it",
    "code of another size": "run-length code",
    "empty mask": "a box does not fit its mask",
    "code of another mask": "the logits along the edge of a mask do not fit it",
    "box": "a box does not fit its mask",
    "feature not finite": "a feature is not finite",
    "feature too long": "a feature is not of unit length",
    "feature of zeros": "a feature is not of unit length",
    "predicted IoU": "a predicted IoU is not finite",
}


class TestVerify:
    def test_nothing_wrong(self, trays: fo.Dataset) -> None:
        build(trays)
        steps: list[Progress] = []
        report = open_index(trays).verify(steps.append)
        assert (report.num_images, report.num_candidates, report.damaged) == (4, 8, ())
        assert str(report) == "4 images read, with 8 candidates: 0 damaged"
        assert [(step.done, step.total, step.label) for step in steps] == [(0, 4, "images"), (4, 4, "images")]

    def test_what_the_real_segmenter_gives_is_in_order(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 1))
        report = build(dataset, quick_models(), exact=True)
        verified = open_index(dataset).verify(progress=False)
        assert (verified.num_candidates, verified.damaged) == (report.num_candidates, ())

    @pytest.mark.parametrize("what", DAMAGES)
    def test_a_damaged_row_is_named_and_renewed(self, trays: fo.Dataset, computed: list[int], what: str) -> None:
        build(trays)
        before = held_by(trays)
        bad = trays.values("id")[2]
        index = open_index(trays)
        index.index.append([(bad, index.index.images[bad].file, spoil(before[bad], what))])
        report = index.verify(progress=False)
        ((sample_id, reason),) = report.damaged
        assert sample_id == bad
        assert DAMAGES[what] in reason
        assert reason.startswith(f"{Path(trays[bad].filepath).name}: ")
        assert f"{reason} (sample {bad})" in str(report)
        assert index.status().num_indexed == 3
        assert build(trays).num_added == 1
        assert computed == [2, 2, 1]
        after = held_by(trays)
        for name, candidates in before.items():
            torch.testing.assert_close(after[name].features, candidates.features, rtol=0, atol=2e-3)
            assert after[name].codes.equals(candidates.codes)
        assert open_index(trays).verify(progress=False).damaged == ()

    def test_of_an_empty_index(self, trays: fo.Dataset) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work)
        work.close()
        report = open_index(trays).verify(progress=False)
        assert (report.num_images, report.num_candidates, report.damaged) == (0, 0, ())

    def test_overwritten_bytes(self, trays: fo.Dataset, computed: list[int]) -> None:
        """Whatever half a kilobyte is turned over in the data: building brings every image back in order."""
        build(trays)
        index = open_index(trays)
        (path,) = Path(index.uri, "candidates.lance", "data").iterdir()
        content = bytearray(path.read_bytes())
        width = index.index.settings.feature_width
        start = content.find(next(iter(contents(index.index).values())).features[0].half().numpy().tobytes())
        assert start >= 0
        content[start : start + 2 * width] = bytes(255 - byte for byte in content[start : start + 2 * width])
        path.write_bytes(content)
        index = open_index(trays)
        report = index.verify(progress=False)
        ((_, words),) = report.damaged
        name, _, reason = words.partition(": ")
        assert name in {Path(path).name for path in trays.values("filepath")}
        assert reason in ("a feature is not of unit length", "a feature is not finite")
        assert build(trays).num_added == 1
        assert open_index(trays).verify(progress=False).damaged == ()


class TestCompactAndDelete:
    def test_compact_gives_space_back_and_renews_the_record(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        build(trays)
        for path in map(Path, trays.values("filepath")):
            os.utime(path, ns=(1, 2))
        build(trays)
        index = open_index(trays)
        before = bytes_on_disk(Path(index.uri))
        assert index.status().num_unread_rows == 8
        assert "8 candidates are read by nobody: compact" in str(index.status())
        held = held_by(trays)
        given_back = index.compact(grace_seconds=0)
        assert given_back > 0
        assert bytes_on_disk(Path(index.uri)) < before
        assert index_records(trays)[0]["num_bytes"] == index.index.num_bytes == index.status().num_bytes
        assert index.status().num_unread_rows == 0
        after = held_by(trays)
        assert list(after) == list(held)
        for name, candidates in held.items():
            assert_same(after[name], candidates)

    @pytest.mark.parametrize("value", [-1, float("nan"), None, "600", True])
    def test_a_grace_that_is_no_time_is_refused(self, trays: fo.Dataset, value: Any) -> None:
        build(trays[:1])
        with pytest.raises(DatasetError, match="grace_seconds must be a number of at least 0"):
            open_index(trays).compact(grace_seconds=value)

    def test_delete_removes_index_and_record(self, trays: fo.Dataset) -> None:
        build(trays, exact=True)
        report = build(trays)
        index = open_index(trays)
        index.delete()
        assert not Path(report.uri).exists()
        (left,) = index_records(trays)
        assert left["exact"]
        with pytest.raises(IndexNotFoundError):
            open_index(trays, exact=False)
        assert build(trays).num_added == 4

    def test_delete_after_relative_opening_removes_the_record(
        self, trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        build(trays, uri="index")
        open_index(trays, uri="index").delete()
        assert index_records(trays) == []


class TestStatus:
    def test_of_a_complete_index(self, trays: fo.Dataset) -> None:
        report = build(trays)
        status = open_index(trays).status()
        assert (status.uri, status.model, status.exact) == (report.uri, "demo", False)
        assert (status.num_samples, status.num_indexed, status.num_changed, status.num_deleted) == (4, 4, 0, 0)
        assert (status.num_candidates, status.num_unread_rows, status.num_bytes) == (8, 0, report.num_bytes)
        assert status.bytes_per_image == report.bytes_per_image
        assert str(status).splitlines() == [
            "4 of 4 images are indexed for the model 'demo'",
            f"8 candidates, 0 second looks, {status.num_bytes / 1e6:.1f} MB, {status.bytes_per_image / 1e3:.1f} KB an image; "
            f"{report.uri}",
        ]

    def test_sees_what_others_build(self, trays: fo.Dataset) -> None:
        build(trays[:1])
        index = open_index(trays)
        assert index.status().num_indexed == 1
        build(trays)
        assert index.status().num_indexed == 4

    def test_holds(self, trays: fo.Dataset) -> None:
        build(trays[:1])
        index: DatasetIndex = open_index(trays)
        ids, paths = trays.values(["id", "filepath"])
        states = [refseg.dataset.file_states.file_state(path) for path in paths]
        assert [index.holds(*image) for image in zip(ids, states, paths, strict=True)] == [True, False, False, False]
        assert not index.holds(ids[0], None, paths[0])
        assert not index.holds(ids[0], states[1], paths[0])
