"""Mask files of replaced predictions: they go, and no label of anybody's is left without its file."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from pymongo.errors import ExecutionTimeout

import refseg.runs.writing
from refseg.dataset.indexing import build_index
from refseg.dataset.store import dataset_folder, save_prototypes
from refseg.errors import DatasetError
from refseg.prototypes.prototypes import Prototypes
from refseg.review.decisions import accept
from tests.at_once import ANSWER_SECONDS, servers
from tests.kept import KeptDataset
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "masks"


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.png"))


def paths_of(dataset: fo.Dataset, field: str = "predictions") -> list[str]:
    dataset.reload()
    return sorted(path for path in dataset.values(f"{field}.detections.mask_path", unwind=True) if path)


def make_old(*paths: str | Path) -> None:
    for path in paths:
        os.utime(path, (0, 0))


def test_as_many_after_every_run(trays: fo.Dataset, prototypes: Prototypes, folder: Path) -> None:
    before: list[str] = []
    for _ in range(3):
        run(trays, prototypes, mask_dir=folder)
        assert files_in(folder) == paths_of(trays)
        assert len(paths_of(trays)) == 8
        assert not set(paths_of(trays)) & set(before)
        before = paths_of(trays)
    run(trays[:1], prototypes, mask_dir=folder)
    assert files_in(folder) == paths_of(trays), "those of the other images stay"
    run(trays, prototypes, semantic_field="map")
    assert (files_in(folder), paths_of(trays)) == ([], [])


def test_masks_too_large_for_a_document(trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in folders of the runs, which go with their last file."""
    monkeypatch.setattr("refseg.dataset.labels.MASK_PIXELS_IN_DOCUMENT", 100)
    folder = dataset_folder(trays) / "masks"
    first = run(trays, prototypes).run_key
    assert files_in(folder) == paths_of(trays)
    second = run(trays[1:], prototypes, min_confidence=0.99, presence_field=None, semantic_field="map").run_key
    assert files_in(folder) == paths_of(trays)
    assert {path.name for path in folder.iterdir()} <= {first, second}
    third = run(trays, prototypes, semantic_field="map").run_key
    assert files_in(folder) == paths_of(trays)
    assert [path.name for path in folder.iterdir()] == [third]


def test_copied_fields_keep_theirs(trays: fo.Dataset, prototypes: Prototypes, folder: Path) -> None:
    """An accepted copy needs no file: it has a mask of its own."""
    run(trays, prototypes, mask_dir=folder)
    accept(trays, [trays.first().predictions.detections[0].id])
    assert paths_of(trays, "accepted") == []
    trays.clone_sample_field("predictions", "mine")
    mine = paths_of(trays, "mine")
    run(trays, prototypes, mask_dir=folder)
    assert files_in(folder) == sorted([*mine, *paths_of(trays)])
    trays.delete_sample_field("mine")
    run(trays, prototypes, mask_dir=folder)
    make_old(*(path for path in mine if path not in paths_of(trays)))
    run(trays, prototypes, mask_dir=folder)
    assert files_in(folder) == paths_of(trays)
    assert (trays.first().accepted.detections[0].get_mask() > 0).any()


def test_clones_keep_theirs(trays: fo.Dataset, prototypes: Prototypes, folder: Path) -> None:
    """Neither of the two takes the files of the other, also where the other has samples of its own."""
    run(trays, prototypes, mask_dir=folder)
    clone = trays.clone()
    copy = fo.Dataset()
    copy.add_samples([sample.copy() for sample in trays[:1]], progress=False)
    try:
        shared = paths_of(clone)
        assert copy.first().id not in trays.values("id")
        run(trays, prototypes, mask_dir=folder)
        assert files_in(folder) == sorted([*shared, *paths_of(trays)])
        run(clone, prototypes, mask_dir=folder)
        assert set(paths_of(copy)) < set(files_in(folder)) >= {*paths_of(trays), *paths_of(clone)}
    finally:
        clone.delete()
        copy.delete()


def test_a_database_too_large_to_be_searched(
    trays: fo.Dataset, prototypes: Prototypes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot tell whether others need the files leaves them."""

    def takes_too_long(*_: Any) -> None:
        raise ExecutionTimeout("operation exceeded time limit")

    run(trays, prototypes, mask_dir=folder)
    before = files_in(folder)
    with monkeypatch.context() as patch:
        patch.setattr("refseg.runs.mask_files._fields_of_masks", takes_too_long)
        run(trays, prototypes, mask_dir=folder)
    assert files_in(folder) == sorted([*before, *paths_of(trays)])
    make_old(*before)
    run(trays, prototypes, mask_dir=folder)
    assert files_in(folder) == paths_of(trays)


def test_files_of_others_stay(trays: fo.Dataset, prototypes: Prototypes, folder: Path, tmp_path: Path) -> None:
    """Only a file named by the label and the sample, in a folder that a run wrote to, is ours."""
    run(trays, prototypes, mask_dir=folder)
    sample = trays.first()
    own = Path(sample.predictions.detections[0].mask_path)
    elsewhere = tmp_path / "mine" / sample.id / own.name
    elsewhere.parent.mkdir(parents=True)
    others = [elsewhere, own.with_name("notes.png"), own.with_name(f"{sample.id}.txt"), folder / f"{sample.id}.png"]
    for path in others:
        path.write_bytes(own.read_bytes())
    for label, path in zip(sample.predictions.detections, (elsewhere, others[1]), strict=True):
        label.mask_path = str(path)
    sample.save()
    make_old(*others)
    run(trays, prototypes, mask_dir=folder)
    assert all(path.exists() for path in others)


def test_what_a_killed_run_left(kept_five: KeptDataset, prototypes: Prototypes, folder: Path) -> None:
    """Files without labels, which go later; no label without a file."""
    trays = kept_five.put_back()
    trays.persistent = True
    build_index(trays, "demo", num_workers=0, progress=False)
    stored = save_prototypes(trays, prototypes, "parts")
    run(trays, "parts", mask_dir=folder)
    before = paths_of(trays)
    for when in ("before", "after"):
        killed = servers.Process(target=segment_and_die, args=(trays.name, stored.name, str(folder), when))
        killed.start()
        killed.join(ANSWER_SECONDS)
        assert killed.exitcode == -signal.SIGKILL
        assert set(paths_of(trays)) <= set(files_in(folder))
        assert (paths_of(trays) == before) == (when == "before")
        assert len(files_in(folder)) > len(paths_of(trays))
    run(trays, "parts", mask_dir=folder)
    left = set(files_in(folder)) - set(paths_of(trays))
    assert left, "they are too young to be anybody's"
    make_old(*left)
    run(trays, "parts", mask_dir=folder)
    assert files_in(folder) == paths_of(trays)
    trays.persistent = False


def segment_and_die(name: str, prototypes: str, folder: str, when: str) -> None:
    """Segment a dataset, and be killed as the labels are to be written, or when they are and old files would go."""
    real = refseg.runs.writing.write_detections

    def write_and_die(*arguments: Any, **options: Any) -> None:
        if when == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    refseg.runs.writing.write_detections = write_and_die
    run(fo.load_dataset(name), prototypes, mask_dir=folder)


def test_a_disk_that_is_full(trays: fo.Dataset, prototypes: Prototypes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    run(trays, prototypes, mask_dir=folder)
    before, sample = paths_of(trays), trays.first()
    monkeypatch.setattr("PIL.Image.Image.save", full)
    words = rf"The masks of the image {sample.filepath} cannot be written to the folder {folder}/{sample.id} \(.*No space left"
    with pytest.raises(DatasetError, match=words):
        run(trays, prototypes, mask_dir=folder, run_key="full")
    assert (paths_of(trays), files_in(folder)) == (before, before)
    assert trays.get_run_info("full").config.state == "failed"
