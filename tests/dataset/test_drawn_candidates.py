"""What stands for a dataset is looked at twice while its index is built, so that whoever learns does not wait for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset import drawn_candidates
from refseg.dataset.drawn_candidates import drawn_rows, in_drawn_order
from refseg.dataset.index_finding import open_index
from refseg.dataset.references import collect_references
from refseg.errors import IndexWriteError
from refseg.index.looks import Looks
from refseg.models.loaded import load_models
from refseg.progress import Progress
from refseg.prototypes.building import build_prototypes
from refseg.runs.known_images import calibrate
from tests.dataset.building import build


@pytest.fixture(autouse=True)
def four_images_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_candidates, "MOST_IMAGES", 4)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that builds look at again, from now on."""
    names: list[str] = []
    real = drawn_candidates.look_at_file

    def look_at_file(path: str, *arguments: Any) -> Any:
        names.append(Path(path).name)
        return real(path, *arguments)

    monkeypatch.setattr(drawn_candidates, "look_at_file", look_at_file)
    return names


def test_each_once(trays: fo.Dataset, looked_at: list[str]) -> None:
    steps: list[Progress] = []
    build(trays, progress=steps.append)
    assert sorted(looked_at) == sorted(Path(path).name for path in trays.values("filepath"))
    assert [(step.done, step.total) for step in steps if step.label == "second looks"] == [(n, 4) for n in range(4)]
    assert len(open_index(trays).index.looks) == 8, "every candidate of trays of two"
    looked_at.clear()
    build(trays)
    assert looked_at == []


def test_too_few_images_wait_for_whoever_learns(trays: fo.Dataset, looked_at: list[str]) -> None:
    build(trays[:3])
    assert (looked_at, len(open_index(trays).index.looks)) == ([], 0)


def test_nobody_who_learns_looks_again(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    build(trays)
    trays[:1].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    prototypes = build_prototypes(collect_references(trays, "ground_truth", tags="reference"), "demo", progress=False)
    monkeypatch.setattr("refseg.runs.looking.look_at_file", lambda *_: pytest.fail("somebody looks"))
    calibrated = calibrate(trays, prototypes, num_workers=0, progress=False)
    assert calibrated.surroundings is not None


def test_a_preset_that_never_looks_twice(trays: fo.Dataset, looked_at: list[str]) -> None:
    models = load_models("demo")
    build(trays, replace(models, preset=replace(models.preset, second_looks=0)))
    assert looked_at == []


def test_an_index_that_cannot_take_them(
    trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Looks, looks: Any) -> None:
        raise IndexWriteError("There is no room.")

    monkeypatch.setattr(Looks, "append", fail)
    with caplog.at_level(logging.WARNING, drawn_candidates.__name__):
        report = build(trays)
    assert report.num_images == 4
    assert [record.getMessage() for record in caplog.records] == ["Second looks are not kept: There is no room."]


def test_a_file_that_is_gone_is_passed_over(trays: fo.Dataset, looked_at: list[str]) -> None:
    build(trays[:3])
    Path(trays.first().filepath).unlink()
    build(trays[3:])
    assert len(looked_at) == 4
    assert len(open_index(trays).index.looks) == 6


def test_the_draw_knows_neither_order_nor_place() -> None:
    names = [f"{number}.png" for number in range(20)]
    here = {f"a{number}": f"/here/{name}" for number, name in enumerate(names)}
    there = {f"b{number}": f"/there/{name}" for number, name in reversed(list(enumerate(names)))}
    drawn = [Path(here[name]).name for name in in_drawn_order(here)]
    assert drawn == [Path(there[name]).name for name in in_drawn_order(there)] != names
    assert [Path(here[name]).name for name in in_drawn_order(here, ["a3"])] == [name for name in drawn if name != "3.png"]
    rows = drawn_rows("/here/3.png", 50, 100).tolist()
    assert rows == drawn_rows("/there/3.png", 50, 100).tolist()
    assert len(set(rows)) == 3
