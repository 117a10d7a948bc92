"""Prototypes kept with a dataset: written once, found again, and never a changed file in their place."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import pytest
import torch
import torch.nn.functional as F
from fiftyone.core.odm import get_db_conn
from pymongo.errors import AutoReconnect

from refseg.dataset.fields import PROTOTYPES_METHOD, turned_before
from refseg.dataset.store import (
    dataset_folder,
    list_prototypes,
    load_prototypes,
    reusable_prototypes,
    run_key_from,
    save_prototypes,
    write_prototypes,
)
from refseg.errors import DatasetError, PrototypeFileError
from refseg.images.pixels import PixelSettings
from refseg.images.reading import file_sha256
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings
from tests.at_once import at_once
from tests.conftest import REPOSITORY

MakeDataset = Callable[..., fo.Dataset]


def prototypes_of(*classes: str, seed: int = 0) -> Prototypes:
    """Two references of the first class, one of every other."""
    labels = [0, *range(len(classes))]
    vectors = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    ids = tuple(f"reference {row}" for row in range(len(labels)))
    skipped, digests = (("other", "too small"),), tuple(f"digest {row}" for row in range(len(labels)))
    return Prototypes(classes, vectors, torch.tensor(labels), ids, "demo", "0123456789ab", skipped, digests)


def deny(path: str) -> str:
    raise PermissionError(13, "Permission denied", path)


def test_round_trip(dataset: fo.Dataset) -> None:
    prototypes = prototypes_of("a.b", "$c", "🦋 d")
    stored = save_prototypes(dataset, prototypes, "parts")
    assert stored.name == "parts"
    assert stored.sha256 == file_sha256(stored.path)
    loaded = load_prototypes(dataset, "parts")
    assert loaded.classes == prototypes.classes
    assert loaded.reference_ids == prototypes.reference_ids
    assert loaded.skipped == prototypes.skipped
    assert loaded.digests == prototypes.digests
    assert (loaded.model, loaded.fingerprint) == ("demo", "0123456789ab")
    torch.testing.assert_close(loaded.vectors, prototypes.vectors, rtol=0, atol=0)
    torch.testing.assert_close(loaded.labels, prototypes.labels, rtol=0, atol=0)


def test_run_holds_what_a_reader_wants_to_know(dataset: fo.Dataset) -> None:
    stored = save_prototypes(dataset, prototypes_of("a.b", "$c"), "parts")
    config = dataset.get_run_info("parts").config
    assert config.method == PROTOTYPES_METHOD
    assert (config.path, config.sha256) == (stored.path, stored.sha256)
    assert (config.model, config.fingerprint) == ("demo", "0123456789ab")
    assert config.shots == [["a.b", 2], ["$c", 1]]
    assert config.reference_ids == ["reference 0", "reference 1", "reference 2"]
    assert config.skipped == [["other", "too small"]]
    assert config.negative_ids == []
    assert config.pixels is None
    save_prototypes(dataset, replace(prototypes_of("a"), pixels=PixelSettings((0, 4095), (2, 1, 0))), "deep")
    config = dataset.get_run_info("deep").config
    assert str(PixelSettings.from_lists(config.pixels)) == "pixel_range=(0, 4095), channels=(2, 1, 0)"


def test_record_tells_whether_references_were_turned(dataset: fo.Dataset) -> None:
    """Also where the file is gone."""
    assert not turned_before(dataset, "parts")
    Path(save_prototypes(dataset, replace(prototypes_of("gear"), turned=True), "parts").path).unlink()
    assert turned_before(dataset, "parts")
    assert turned_before(dataset, "others"), "the newest"
    save_prototypes(dataset, prototypes_of("gear", seed=1), "plain")
    assert [turned_before(dataset, name) for name in ("parts", "plain", None)] == [True, False, False]


def test_negatives_are_kept_and_recorded(dataset: fo.Dataset) -> None:
    negatives = Negatives(torch.ones(2, 8), ("a.b", "$ dust"), ("x", "y"), ("", "d"))
    save_prototypes(dataset, replace(prototypes_of("a.b", "$c"), negatives=negatives), "parts")
    assert dataset.get_run_info("parts").config.negative_ids == ["x", "y"]
    found = load_prototypes(dataset, "parts").negatives
    assert found is not None
    assert (found.names, found.ids, found.digests) == (negatives.names, negatives.ids, negatives.digests)
    torch.testing.assert_close(found.vectors, negatives.vectors, rtol=0, atol=0)


def test_run_holds_what_calibration_found(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([fo.Sample(f"{number}.png", tags=["known_empty"] if number else []) for number in range(3)])
    prototypes = prototypes_of("a.b", "$c")
    images = ("one", "two", "two")
    shown = (*prototypes.reference_ids[:2], "", "")
    # What shows each reference of the first class is like the other one.
    first, second, other = F.normalize(prototypes.vectors, dim=-1)
    around = Surroundings(torch.stack([second, first, other, -other]).half(), ("one", "two", "two", "three"), shown)
    save_prototypes(dataset, replace(prototypes, images=images), "plain")
    config = dataset.get_run_info("plain").config
    assert (config.thresholds, config.num_shown, config.num_surroundings, config.num_empty) == ([], 0, 0, 0)
    calibrated = replace(prototypes, images=images, surroundings=around)
    save_prototypes(dataset, calibrated, "calibrated")
    config = dataset.get_run_info("calibrated").config
    assert config.thresholds == [["a.b", 0.5], ["$c", 0.5]]
    assert config.num_learnt == 2
    assert (config.num_shown, config.num_surroundings, config.num_empty) == (2, 2, 2)
    # One that matches as published has none, and of an unknown model nobody can say.
    for model in ("paper", "mine"):
        save_prototypes(dataset, replace(calibrated, model=model), model)
        assert dataset.get_run_info(model).config.thresholds == []


def test_mined_negatives_are_counted_apart(dataset: fo.Dataset) -> None:
    negatives = Negatives(torch.ones(2, 8), ("a.b", "a.b"), ("x", "mined 7f 0"), ("", ""))
    save_prototypes(dataset, replace(prototypes_of("a.b", "$c"), negatives=negatives), "parts")
    config = dataset.get_run_info("parts").config
    assert (config.negative_ids, config.num_mined) == (["x"], 1)


def test_same_content_is_one_file(dataset: fo.Dataset) -> None:
    first = save_prototypes(dataset, prototypes_of("a"), "first")
    second = save_prototypes(dataset, prototypes_of("a"), "second")
    other = write_prototypes(dataset, prototypes_of("a", seed=1))
    assert first.path == second.path != other.path
    folder = dataset_folder(dataset) / "prototypes"
    assert sorted(map(str, folder.iterdir())) == sorted([first.path, other.path])
    assert list_prototypes(dataset) == ["first", "second"]


def test_newest_last(dataset: fo.Dataset) -> None:
    for name in ("zebra", "ant", "mole"):
        save_prototypes(dataset, prototypes_of("a"), name)
    dataset.register_run("other", dataset.init_run(method="other"))
    assert list_prototypes(dataset) == ["zebra", "ant", "mole"]
    save_prototypes(dataset, prototypes_of("a"), "zebra", overwrite=True)
    assert list_prototypes(dataset) == ["ant", "mole", "zebra"]
    dataset.reload()
    assert list_prototypes(fo.load_dataset(dataset.name)) == ["ant", "mole", "zebra"]


def test_folders_are_the_datasets_own(make_dataset: MakeDataset) -> None:
    one, two = make_dataset(), make_dataset()
    save_prototypes(one, prototypes_of("a"), "parts")
    assert list_prototypes(two) == []
    assert dataset_folder(one) != dataset_folder(two)
    assert Path(fo.config.default_dataset_dir) in dataset_folder(one).parents


def test_renamed_dataset(dataset: fo.Dataset) -> None:
    save_prototypes(dataset, prototypes_of("a"), "parts")
    folder = dataset_folder(dataset)
    dataset.name = f"{dataset.name}-renamed"
    assert dataset_folder(dataset) == folder
    assert load_prototypes(dataset, "parts").classes == ("a",)


def test_name_taken(dataset: fo.Dataset) -> None:
    save_prototypes(dataset, prototypes_of("a"), "parts")
    with pytest.raises(DatasetError, match=f"{dataset.name!r} has a run named 'parts' already: choose another name"):
        save_prototypes(dataset, prototypes_of("b"), "parts")
    assert load_prototypes(dataset, "parts").classes == ("a",)
    save_prototypes(dataset, prototypes_of("b"), "parts", overwrite=True)
    assert load_prototypes(dataset, "parts").classes == ("b",)


@contextmanager
def disk_of(num_bytes: int) -> Iterator[None]:
    """No file that this process writes gets larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def nowhere(dataset: fo.Dataset) -> None:
    """A file lies where the folder should be; who may do everything is hindered too."""
    shutil.rmtree(dataset_folder(dataset))
    dataset_folder(dataset).touch()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("hindrance", ["full", "no folder"])
def test_what_cannot_be_written(dataset: fo.Dataset, hindrance: str, overwrite: bool) -> None:
    """The error is a sentence, what was kept holds, and nothing is left over."""
    stored = save_prototypes(dataset, prototypes_of("star"), "parts")
    before = dict(dataset.get_run_info("parts").config.serialize())
    if hindrance == "no folder":
        nowhere(dataset)
    name = "parts" if overwrite else "others"
    folder = f"{dataset._doc.id}/prototypes"
    words = rf"The prototypes of dataset '{dataset.name}' cannot be kept in the folder .*{folder} \(.+\): make room there"
    with disk_of(100 if hindrance == "full" else resource.RLIM_INFINITY), pytest.raises(PrototypeFileError, match=words):
        save_prototypes(dataset, prototypes_of("tee"), name, overwrite=overwrite)
    assert list_prototypes(dataset) == ["parts"]
    assert dataset.get_run_info("parts").config.serialize() == before
    if hindrance == "full":
        assert load_prototypes(dataset, "parts").classes == ("star",)
        assert list(map(str, (dataset_folder(dataset) / "prototypes").iterdir())) == [stored.path]
    else:
        dataset_folder(dataset).unlink()
    save_prototypes(dataset, prototypes_of("tee"), name, overwrite=overwrite)
    assert load_prototypes(dataset, name).classes == ("tee",)


def test_a_database_that_is_gone_leaves_those_of_the_name(dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    save_prototypes(dataset, prototypes_of("star"), "parts")

    def fail(*_: object, **__: object) -> None:
        raise AutoReconnect("no server")

    with monkeypatch.context() as patch:
        patch.setattr("pymongo.collection.Collection.update_one", fail)
        with pytest.raises(AutoReconnect):
            save_prototypes(dataset, prototypes_of("tee"), "parts", overwrite=True)
    assert load_prototypes(dataset, "parts").classes == ("star",)


@pytest.mark.thorough
def test_a_killed_process_leaves_those_of_the_name(make_dataset: MakeDataset) -> None:
    """Whenever it is killed, there are the old ones or the new ones."""
    dataset = make_dataset(persistent=True)
    save_prototypes(dataset, prototypes_of("star"), "parts")
    code = f"""
import os, signal
import fiftyone as fo
from refseg.dataset.store import save_prototypes
from tests.dataset.test_store import prototypes_of
calls = 0
def count(real):
    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls > int(os.environ["LIVES"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return wrapped
dataset = fo.load_dataset({dataset.name!r})
dataset.list_runs()
from pymongo.collection import Collection
for name in ("insert_one", "update_one", "replace_one", "delete_one", "find_one_and_delete"):
    setattr(Collection, name, count(getattr(Collection, name)))
save_prototypes(dataset, prototypes_of("tee"), "parts", overwrite=True)
"""
    for lives in range(8):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "LIVES": str(lives)}, cwd=REPOSITORY, timeout=120
        )
        assert list_prototypes(dataset) == ["parts"]
        assert load_prototypes(dataset, "parts").classes in (("star",), ("tee",))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    else:
        pytest.fail("it never got to its end")
    assert lives > 0
    assert load_prototypes(dataset, "parts").classes == ("tee",)


def keep_often(dataset: fo.Dataset, label: str) -> int:
    for seed in range(5):
        save_prototypes(dataset, prototypes_of(label, seed=seed), "parts", overwrite=True)
    return len(list_prototypes(dataset))


@pytest.mark.thorough
def test_two_processes_that_keep_one_name(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(persistent=True)
    assert at_once(keep_often, dataset.name, ("star",), ("tee",)) == [1, 1]
    assert get_db_conn().runs.count_documents({"_dataset_id": dataset._doc.id}) == 1
    assert load_prototypes(dataset, "parts").classes in (("star",), ("tee",))
    assert reusable_prototypes(dataset) is not None


def test_prototypes_of_another_process_are_found(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(persistent=True)
    assert dataset.list_runs() == []
    assert at_once(keep_often, dataset.name, ("star",)) == [1]
    assert load_prototypes(dataset, "parts").classes == ("star",)
    with pytest.raises(DatasetError, match="has a run named 'parts' already"):
        save_prototypes(dataset, prototypes_of("tee"), "parts")


def test_drafts_of_killed_processes_are_removed(dataset: fo.Dataset) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    folder = dataset_folder(dataset) / "prototypes"
    folder.mkdir(parents=True)
    names = {
        "old": f"a.{child.pid}.part",
        "old, of a draft": f"b.{child.pid}.part.{child.pid}.part",
        "new": f"c.{child.pid}.part",
        "of this process": f"d.{os.getpid()}.part",
        "somebody's": "e.part",
    }
    for kind, name in names.items():
        (folder / name).touch()
        if kind != "new":
            os.utime(folder / name, (0, 0))
    stored = save_prototypes(dataset, prototypes_of("star"), "parts")
    left = sorted(path.name for path in folder.iterdir() if str(path) != stored.path)
    assert left == sorted(names[kind] for kind in ("new", "of this process", "somebody's"))


def test_a_run_of_another_method_is_never_overwritten(dataset: fo.Dataset) -> None:
    dataset.register_run("mine", dataset.init_run(method="other"))
    with pytest.raises(DatasetError, match="has a run named 'mine' already"):
        save_prototypes(dataset, prototypes_of("a"), "mine", overwrite=True)
    assert dataset.get_run_info("mine").config.method == "other"
    with pytest.raises(DatasetError, match="keeps no prototypes named 'mine'"):
        load_prototypes(dataset, "mine")


@pytest.mark.parametrize("name", ["my parts", "", "1st", "a.b", "$a"])
def test_name_is_no_identifier(dataset: fo.Dataset, name: str) -> None:
    with pytest.raises(DatasetError, match="use letters, digits and underscores, such as") as caught:
        save_prototypes(dataset, prototypes_of("a"), name)
    assert repr(run_key_from(name)) in str(caught.value)
    assert dataset.list_runs() == []


def test_unknown_name_lists_the_known(dataset: fo.Dataset) -> None:
    with pytest.raises(DatasetError, match=r"keeps no prototypes named 'parts'; it keeps none yet: build some first\."):
        load_prototypes(dataset, "parts")
    for name in ("one", "two"):
        save_prototypes(dataset, prototypes_of("a"), name)
    with pytest.raises(DatasetError, match=r"named 'parts'; it keeps 'one', 'two'\."):
        load_prototypes(dataset, "parts")


def test_file_gone(dataset: fo.Dataset) -> None:
    stored = save_prototypes(dataset, prototypes_of("a"), "parts")
    Path(stored.path).unlink()
    with pytest.raises(PrototypeFileError, match=r"prototypes 'parts' is gone .*: build them again"):
        load_prototypes(dataset, "parts")


def test_file_changed(dataset: fo.Dataset) -> None:
    stored = save_prototypes(dataset, prototypes_of("a"), "parts")
    prototypes_of("a", seed=1).save(stored.path)  # a valid file, only not the one that was kept
    with pytest.raises(PrototypeFileError, match=r"prototypes 'parts' was changed .*: build them again"):
        load_prototypes(dataset, "parts")
    # Building them again mends it.
    save_prototypes(dataset, prototypes_of("a"), "parts", overwrite=True)
    assert load_prototypes(dataset, "parts").classes == ("a",)


def test_reusable_are_those_of_the_name_or_the_newest(dataset: fo.Dataset) -> None:
    def classes(name: str | None = None) -> tuple[str, ...] | None:
        found = reusable_prototypes(dataset, name)
        return None if found is None else found.classes

    assert classes() is None
    assert classes("first") is None
    for name in ("first", "second"):
        save_prototypes(dataset, prototypes_of(f"of {name}"), name)
    dataset.register_run("other", dataset.init_run(method="other"))
    assert classes("first") == ("of first",)
    assert classes("third") == classes("other") == classes() == ("of second",)


def test_file_unreadable(dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    save_prototypes(dataset, prototypes_of("a"), "parts")
    monkeypatch.setattr("refseg.dataset.store.file_sha256", deny)
    with pytest.raises(PrototypeFileError, match=r"prototypes 'parts' cannot be read .*Permission denied.*: build them again"):
        load_prototypes(dataset, "parts")


@pytest.mark.parametrize("damage", ["gone", "changed", "a folder", "unreadable"])
def test_damaged_prototypes_are_not_reused(
    dataset: fo.Dataset, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(save_prototypes(dataset, prototypes_of("a"), "parts").path)
    assert reusable_prototypes(dataset, "parts") is not None
    if damage == "changed":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "unreadable":
        monkeypatch.setattr("refseg.dataset.store.file_sha256", deny)  # root, who may run the tests, can read every file
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    assert caplog.messages == []
    assert reusable_prototypes(dataset, "parts") is None
    assert [message.split(":")[0] for message in caplog.messages] == ["No earlier prototypes are reused"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("parts", "parts"),
        ("my parts, v2", "my_parts_v2"),
        ("  a--b  ", "a_b"),
        ("2 shots", "refseg_2_shots"),
        ("Schräubchen", "Schraubchen"),
        ("a.b$c", "a_b_c"),
        ("🦋", "refseg"),
        ("", "refseg"),
        ("_", "refseg"),
    ],
)
def test_run_key_from(text: str, key: str) -> None:
    assert run_key_from(text) == key
    assert key.isidentifier()
