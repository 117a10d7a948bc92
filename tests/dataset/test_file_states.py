"""What makes an indexed file another: orientation, dates of change; indexes of earlier versions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import lance
import pytest

import refseg.dataset.file_states
from refseg.dataset.file_states import file_state, still_held
from refseg.dataset.index_finding import open_index
from refseg.dataset.references import collect_references
from refseg.images.reading import read_image
from refseg.models.loaded import load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.vectors import reference_digest
from refseg.runs.segmenting import segment
from tests.dataset.building import build, save_deep


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files whose headers are read to compare them with an index."""
    paths: list[str] = []
    real = refseg.dataset.file_states.read_header

    def read_header(path: str) -> Any:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(refseg.dataset.file_states, "read_header", read_header)
    return paths


def retag(path: Path, orientation: int) -> None:
    """Change the orientation in a JPEG in place, and keep its size and date, as tools that turn pictures without loss do."""
    before, content = path.stat(), bytearray(path.read_bytes())
    big = content.find(bytes.fromhex("01120003 00000001"))
    place = big if big >= 0 else content.index(bytes.fromhex("12010300 01000000"))
    content[place + 8 : place + 10] = orientation.to_bytes(2, "big" if big >= 0 else "little")
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestOrientation:
    @pytest.mark.parametrize("orientation", [3, 6])
    def test_turned_in_place(self, photos: fo.Dataset, orientation: int) -> None:
        build(photos)
        path = Path(photos.first().filepath)
        before = file_state(str(path))
        retag(path, orientation)
        now = file_state(str(path))
        assert before is not None
        assert now is not None
        assert (before.size, before.mtime_ns) == (now.size, now.mtime_ns)
        status = open_index(photos).status()
        assert (status.num_indexed, status.num_changed) == (1, 1)
        assert build(photos).num_added == 1
        held = open_index(photos).index.images[photos.first().id]
        assert (held.file.orientation, held.image_hw) == (orientation, read_image(path).size[::-1])
        assert build(photos).num_added == 0

    def test_segment_takes_nothing_from_before(self, photos: fo.Dataset) -> None:
        references = collect_references(photos, "ground_truth")
        prototypes = build_prototypes(references, "demo", progress=False)
        assert segment(photos, prototypes, progress=False).num_from_index == 0
        assert segment(photos, prototypes, progress=False).num_from_index == 2
        retag(Path(photos.first().filepath), 8)
        assert segment(photos, prototypes, progress=False).num_from_index == 1

    def test_references(self, photos: fo.Dataset) -> None:
        models = load_models("demo")
        (reference, *_) = collect_references(photos, "ground_truth")
        digest = reference_digest(reference, models)
        retag(Path(reference.image), 3)
        assert reference_digest(reference, models) not in (digest, None)
        retag(Path(reference.image), 1)
        assert reference_digest(reference, models) == digest


class TestDates:
    def test_rights_and_copies_only_make_it_look_again(self, photos: fo.Dataset, opened: list[str], tmp_path: Path) -> None:
        build(photos)
        paths = photos.values("filepath")
        assert open_index(photos).status().num_indexed == 2
        assert opened == []
        for path in paths:
            os.chmod(path, 0o600)
        assert build(photos).num_added == 0
        assert sorted(opened) == sorted(paths)
        opened.clear()
        (tmp_path / "copied").mkdir()
        for sample in photos:
            sample.filepath = shutil.copy2(sample.filepath, tmp_path / "copied")
            sample.save()
        assert open_index(photos).status().num_changed == 0
        assert len(opened) == 2
        # What was seen is noted.
        assert open_index(photos).status().num_changed == 0
        assert (build(photos).num_added, len(opened)) == (0, 2)

    def test_an_index_that_cannot_be_written_to_answers_all_the_same(
        self, photos: fo.Dataset, monkeypatch: pytest.MonkeyPatch, opened: list[str]
    ) -> None:
        build(photos)
        os.chmod(photos.first().filepath, 0o600)

        def full(*_: Any, **__: Any) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(lance, "write_dataset", full)
        for _ in range(2):
            assert open_index(photos).status().num_indexed == 2
        assert len(opened) == 2

    def test_bytes_that_are_known_stay_known(self, photos: fo.Dataset) -> None:
        build(photos, content_hash=True)
        path, sample_id = photos.first().filepath, photos.first().id
        os.chmod(path, 0o600)
        build(photos)
        held = open_index(photos).index.images[sample_id]
        assert held.file == replace(file_state(path, content_hash=True), orientation=1)
        assert still_held(held, path, file_state(path)) is held


class TestEarlierVersions:
    """Their tables know neither when a file's state changed nor orientations."""

    @pytest.fixture
    def old(self, photos: fo.Dataset) -> fo.Dataset:
        lance.dataset(f"{build(photos[:1]).uri}/images.lance").drop_columns(["ctime_ns", "orientation"])
        return photos

    def test_opens_answers_and_grows(self, old: fo.Dataset, opened: list[str]) -> None:
        (image,) = open_index(old).index.images.values()
        assert (image.file.ctime_ns, image.file.orientation) == (0, 0)
        assert open_index(old).status().num_indexed == 1
        assert opened == [old.first().filepath]
        assert open_index(old).status().num_indexed == 1
        assert (build(old).num_added, len(opened)) == (1, 1)
        assert all(image.file.orientation == 1 for image in open_index(old).index.images.values())

    def test_a_turn_that_changes_the_size_is_seen(self, old: fo.Dataset) -> None:
        retag(Path(old.first().filepath), 6)
        assert open_index(old).status().num_changed == 1

    def test_two_that_write_to_it_at_once(self, old: fo.Dataset) -> None:
        first, second = open_index(old), open_index(old)
        (image,) = first.index.images.values()
        first.index.touch([image])
        second.index.touch([image])
        assert open_index(old).status().num_indexed == 1

    def test_such_a_version_may_go_on_writing(self, old: fo.Dataset) -> None:
        build(old)
        place = f"{open_index(old).uri}/images.lance"
        rows = lance.dataset(place).to_table().drop_columns(["ctime_ns", "orientation"])
        lance.write_dataset(rows.slice(0, 1), place, mode="append")
        assert open_index(old).status().num_indexed == 2

    def test_deep_images_were_read_otherwise(self, make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
        dataset = make_dataset([fo.Sample(save_deep(tmp_path / "a.png", 4000))])
        lance.dataset(f"{build(dataset).uri}/images.lance").drop_columns(["ctime_ns", "orientation"])
        assert open_index(dataset).status().num_changed == 1
        assert build(dataset).num_added == 1
