"""What tests change of a dataset that is kept is gone before the next one begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import pytest

from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index
from tests.kept import KeptDataset, kept_trays


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    def prepare(dataset: fo.Dataset) -> None:
        build_index(dataset[:1], "demo", num_workers=0, progress=False)

    with kept_trays(tmp_path_factory.mktemp("trays"), 2, prepare) as trays:
        yield trays


def test_all_comes_back(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trays = kept.put_back(monkeypatch)
    name, ids, fields = trays.name, trays.values("id"), set(trays.get_field_schema())
    labels, runs = trays.values("ground_truth.detections.id"), trays.list_runs()
    pixels = Path(trays.first().filepath).read_bytes()

    held = trays.first()
    held["more"] = 1
    held.ground_truth.detections = held.ground_truth.detections[:1]
    held.save()
    trays.tag_samples("seen")
    build_index(trays, "demo", num_workers=0, progress=False)
    trays.delete_run(runs[0])
    trays.register_run("another", trays.init_run(method="refseg/other"))
    trays.name = f"{name}-renamed"
    Path(held.filepath).write_bytes(b"")
    trays.delete_samples(ids[1])

    again = kept.put_back(monkeypatch)
    assert again is trays
    assert (again.name, again.values("id"), set(again.get_field_schema())) == (name, ids, fields)
    assert (again.values("ground_truth.detections.id"), again.list_runs()) == (labels, runs)
    assert again.count_sample_tags() == {}
    assert Path(again.first().filepath).read_bytes() == pixels
    assert open_index(again).status().num_indexed == 1
