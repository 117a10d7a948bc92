"""A dataset that is made once for several tests, and put back as it was before each of them.

Making a dataset and its index takes some tenths of a second, putting both back a few hundredths. What comes back is all that
tests change: samples, fields, runs, stores, the images, and what RefSeg keeps in files. A test that deletes the dataset itself,
or is about what happens to one that is new, makes its own with `make_dataset`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import fiftyone as fo

    from tests.trays import Truth

OWN_RECORDS = {"runs": "_dataset_id", "execution_store": "dataset_id", "delegated_ops": "dataset_id"}
"""Collections of the database that hold documents of each dataset, and the name under which these say whose they are."""


class KeptFolder:
    """The files below a folder, to be put back."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self._folder, self._copies = folder, copies
        if folder.exists():
            shutil.copytree(folder, copies)
        self._state = self._look()

    def put_back(self) -> None:
        """Leave the folder as it was; where nothing has changed, nothing is touched."""
        if self._look() != self._state:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._copies.exists():
                shutil.copytree(self._copies, self._folder)

    def _look(self) -> dict[Path, tuple[int, int]]:
        states = ((path, path.lstat()) for path in self._folder.rglob("*") if path.is_symlink() or not path.is_dir())
        return {path: (state.st_size, state.st_mtime_ns) for path, state in states}


class KeptDataset:
    """A dataset as it is now.

    Args:
        dataset: persistent or not; it must not be deleted by those that use it.
        images: folder of its images.
        copies: an empty folder for copies of all files.
        truth: what `tests.trays.truth_of` says of the dataset, for tests whose candidates are the labelled objects.
        made: what else was made of it once.
    """

    def __init__(self, dataset: fo.Dataset, images: Path, copies: Path, truth: Truth | None = None, made: Any = None) -> None:
        import fiftyone.core.odm as foo

        from refseg.dataset.store import dataset_folder

        self.dataset, self.truth, self.made = dataset, truth, made
        self._id, self._samples = dataset._doc.id, foo.get_db_conn()[dataset._sample_collection_name]
        self._datasets = foo.get_db_conn().datasets
        self._records = {name: foo.get_db_conn()[name] for name in OWN_RECORDS}
        self._document = self._datasets.find_one({"_id": self._id})
        self._kept_samples = list(self._samples.find())
        self._indexes = set(self._samples.index_information())
        self._kept_records = {name: list(found.find(self._own(name))) for name, found in self._records.items()}
        assert not any(run.get("results") for run in self._kept_records["runs"]), "results lie elsewhere and are not kept"
        self._folders = [KeptFolder(dataset_folder(dataset), copies / "made"), KeptFolder(images, copies / "images")]

    def put_back(self, monkeypatch: pytest.MonkeyPatch | None = None) -> fo.Dataset:
        """The dataset as it was; with `monkeypatch`, until the end of the test its candidates are the labelled objects."""
        for folder in self._folders:
            folder.put_back()
        self._samples.delete_many({})
        self._samples.insert_many(self._kept_samples)
        for name in set(self._samples.index_information()) - self._indexes:
            self._samples.drop_index(name)
        for name, records in self._kept_records.items():
            self._records[name].delete_many(self._own(name))
            if records:
                self._records[name].insert_many(records)
        if self.dataset.name != self._document["name"]:
            self.dataset.name = self._document["name"]
        self._datasets.replace_one({"_id": self._id}, self._document)
        self.dataset.clear_cache()
        self.dataset.reload()
        if monkeypatch is not None and self.truth is not None:
            self.truth.propose(monkeypatch)
        return self.dataset

    def _own(self, name: str) -> dict[str, Any]:
        return {OWN_RECORDS[name]: self._id}


@contextmanager
def kept_trays(
    folder: Path,
    num_images: int = 4,
    prepare: Callable[[fo.Dataset], object] = lambda _: None,
    *,
    begin: Callable[[fo.Dataset], object] = lambda _: None,
    **options: Any,
) -> Iterator[KeptDataset]:
    """Trays of `tests.trays.tray_samples`, the last arguments are its own, after `prepare` with the truth as candidates.

    What `prepare` returns is kept as `made`; `begin` changes what the truth is.
    """
    import fiftyone as fo

    from tests.trays import tray_samples, truth_of

    images = folder / "images"
    images.mkdir()
    dataset = fo.Dataset()
    try:
        dataset.add_samples(tray_samples(images, num_images, **options), progress=False)
        begin(dataset)
        truth = truth_of(dataset)
        with pytest.MonkeyPatch.context() as patch:
            truth.propose(patch)
            made = prepare(dataset)
        yield KeptDataset(dataset, images, folder / "copies", truth, made)
    finally:
        dataset.delete()
