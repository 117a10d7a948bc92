"""The same index from Ray's workers as from one process, on a real Ray of this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

import refseg
from refseg.dataset import IndexPlace
from refseg.dataset.indexing import iter_build_index
from refseg.errors import WorkersError
from tests.index.test_candidate_index import assert_same, contents
from tests.trays import tray_samples

pytestmark = pytest.mark.slow

NUM_TRAYS = 4
QUIET = {"progress": False}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    """Of two cores, for all tests here: starting one takes seconds, and so does an actor that imports PyTorch."""
    ray = pytest.importorskip("ray")
    from refseg.shards import connected

    with connected(num_cpus=2):
        yield ray


@pytest.fixture
def trays(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    return make_dataset(tray_samples(tmp_path, NUM_TRAYS))


def held(dataset: fo.Dataset, place: Path) -> dict[str, Any]:
    return contents(refseg.open_index(dataset, "demo", uri=str(place)).index)


def test_same_as_of_one_process_though_a_worker_is_killed(
    trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refseg.shards.on_ray.IMAGES_A_SHARD", 1)
    (tmp_path / "bad.png").write_bytes(b"no image")
    trays.add_sample(fo.Sample(str(tmp_path / "bad.png")))
    local = refseg.build_index(trays, "demo", uri=tmp_path / "local", **QUIET)
    steps: list[Any] = []
    killed: list[int] = []

    def watch(step: Any) -> None:
        steps.append(step)
        if step.done and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    report = refseg.build_index(trays, "demo", uri=tmp_path / "ray", engine="ray", num_workers=2, cores=1, progress=watch)
    assert killed
    for name in ("num_images", "num_added", "num_candidates", "skipped"):
        assert getattr(report, name) == getattr(local, name), name
    assert (report.num_images, len(report.skipped)) == (NUM_TRAYS, 1)
    own, expected = held(trays, tmp_path / "ray"), held(trays, tmp_path / "local")
    assert own.keys() == expected.keys()
    for name, candidates in expected.items():
        assert_same(own[name], candidates)
    index = refseg.open_index(trays, "demo", uri=str(tmp_path / "ray")).index
    assert index.num_unread_rows == 0
    assert (steps[-1].done, steps[-1].total) == (NUM_TRAYS + 1, NUM_TRAYS + 1)
    assert any("worker" in step.label for step in steps)
    assert not (tmp_path / "ray" / "shards").exists() or not os.listdir(tmp_path / "ray" / "shards")
    # Once more: nothing is left to do.
    assert refseg.build_index(trays, "demo", uri=tmp_path / "ray", engine="ray", **QUIET).num_added == 0


@pytest.mark.thorough
def test_cancelled_goes_on(trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.shards.on_ray.IMAGES_A_SHARD", 1)
    place = IndexPlace(tmp_path / "ray")
    work = iter_build_index(trays, "demo", place, engine="ray", num_workers=1, cores=1)
    for step in work:
        if step.done:
            break
    work.close()
    done = len(held(trays, tmp_path / "ray"))
    assert 0 < done < NUM_TRAYS
    report = refseg.build_index(trays, "demo", uri=tmp_path / "ray", engine="ray", num_workers=1, cores=1, **QUIET)
    assert report.num_images == NUM_TRAYS
    assert report.num_added <= NUM_TRAYS - done
    assert len(held(trays, tmp_path / "ray")) == NUM_TRAYS


def workers() -> list[int]:
    """Processes of actors that hold the models."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(b"ray::") and b"MapWorker" in line:
                found.append(int(entry.name))
    return found


@pytest.mark.thorough
def test_a_worker_without_weights_says_so_once(trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.dataset.many_workers.files_for", lambda name: (str(tmp_path / "gone.pt"), None))
    began = time.monotonic()
    with pytest.raises(WorkersError, match=r"A worker cannot go on, .*gone\.pt") as caught:
        refseg.build_index(trays, "demo", uri=tmp_path / "ray", engine="ray", num_workers=1, cores=1, **QUIET)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 300


@pytest.mark.thorough
def test_a_second_driver_is_refused(trays: fo.Dataset, tmp_path: Path) -> None:
    first = iter_build_index(trays, "demo", IndexPlace(tmp_path / "ray"), engine="ray", num_workers=1, cores=1)
    for step in first:
        if step.done:
            break
    other = threading.Thread(target=lambda: told.append(error_of(trays, tmp_path / "ray")))
    told: list[str] = []
    other.start()
    other.join()
    first.close()
    assert told[0].startswith("Another driver lets workers build the index at ")


def error_of(trays: fo.Dataset, place: Path) -> str:
    with pytest.raises(WorkersError) as caught:
        refseg.build_index(trays, "demo", uri=place, engine="ray", num_workers=1, cores=1, **QUIET)
    return str(caught.value)
