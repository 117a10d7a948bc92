"""`refseg index`: a FiftyOne dataset's index from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest

import refseg
from refseg.cli import main
from tests.trays import propose_truth, tray_samples

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    dataset = make_dataset(tray_samples(tmp_path, 3))
    propose_truth(monkeypatch, dataset)
    return dataset


def test_builds_and_goes_on(trays: fo.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trays.save_view("two", trays[:2])
    arguments = ["index", trays.name, "--model", "demo", "--device", "cpu", "--uri", str(tmp_path / "index"), "--quiet"]
    assert main([*arguments, "--view", "two", "--workers", "0"]) == 0
    assert "2 images in the index, 2 of them new" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "3 images in the index, 1 of them new" in capsys.readouterr().out
    assert len(refseg.open_index(trays, "demo", uri=str(tmp_path / "index")).index.images) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody's",), "nobody's"),
        (("{}", "--view", "none"), "has no saved view: leave out --view"),
        (("{}", "--engine", "mars"), "invalid choice: 'mars'"),
        (("{}", "--cores", "0"), "'0' is not a whole number of 1 or more"),
        (("{}", "--model", "huge"), "There is no model preset 'huge'"),
        (("{}", "--engine", "ray", "--workers", "0"), "num_workers must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be(trays: fo.Dataset, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", *(one.format(trays.name) for one in arguments)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("refseg: error: ")
    assert words in told
    assert told.count("\n") == 1


def test_other_views_are_named(trays: fo.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    trays.save_view("two", trays[:2])
    assert main(["index", trays.name, "--view", "three"]) == 2
    assert "has no saved view 'three': choose one of 'two'." in capsys.readouterr().err
