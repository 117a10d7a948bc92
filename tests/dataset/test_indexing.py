"""The index of a dataset: what is computed, what is kept, and what an index says about itself when things change around it."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import refseg.dataset.indexing
from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import propose
from refseg.dataset.index import DatasetIndex
from refseg.dataset.index_finding import find_index, open_index
from refseg.dataset.index_records import INDEX_METHOD, index_records
from refseg.dataset.index_settings import settings_of
from refseg.dataset.indexing import IndexReport, build_index, iter_build_index
from refseg.dataset.store import dataset_folder
from refseg.errors import DatasetError, IndexMismatchError, IndexNotFoundError
from refseg.images.reading import file_sha256, read_image
from refseg.index.candidate_index import CandidateIndex
from refseg.index.tables import FileState
from refseg.models.loaded import load_models
from refseg.progress import Progress
from tests.index.test_candidate_index import assert_same, bytes_on_disk, contents
from tests.trays import IMAGE_HW, draw_trays, propose_truth, quick_models, tray_samples

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Four trays whose candidates are the ground truth: two each."""
    folder = tmp_path / "images"
    folder.mkdir()
    dataset = make_dataset(tray_samples(folder))
    propose_truth(monkeypatch, dataset)
    return dataset


@pytest.fixture(autouse=True)
def two_images_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every device."""
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", {"cpu": 2, "mps": 2, "cuda": 2})


@pytest.fixture
def computed(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each batch for which candidates are computed."""
    return count_batches(monkeypatch)


def count_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of images of each batch from now on."""
    batches: list[int] = []
    real = refseg.dataset.builder.propose_from_pixels

    def propose_from_pixels(pixels: Any, *arguments: Any, **options: Any) -> Any:
        batches.append(len(pixels))
        return real(pixels, *arguments, **options)

    monkeypatch.setattr("refseg.dataset.builder.propose_from_pixels", propose_from_pixels)
    return batches


def build(view: Any, model: Any = "demo", **options: Any) -> IndexReport:
    """build_index, in this process."""
    return build_index(view, model, **{"num_workers": 0, "progress": False, **options})


def path_of(dataset: fo.Dataset, number: int) -> Path:
    return Path(dataset.values("filepath")[number])


def redraw(path: Path) -> None:
    """Another picture at the same place, changed a second later."""
    before = path.stat()
    Image.fromarray(draw_trays(1, seed=99)[0].image).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


def held_by(dataset: fo.Dataset) -> dict[str, PackedCandidates]:
    return contents(open_index(dataset).index)


class TestBuild:
    def test_report(self, trays: fo.Dataset) -> None:
        report = build(trays)
        assert (report.num_images, report.num_added, report.num_candidates, report.skipped) == (4, 4, 8, ())
        assert report.seconds > 0
        assert report.num_bytes == sum(path.stat().st_size for path in Path(report.uri).rglob("data/*"))
        assert report.bytes_per_image == report.num_bytes // 4
        assert str(report).startswith("4 images in the index, 4 of them new (")
        assert f"8 candidates, {report.num_bytes / 1e6:.1f} MB" in str(report)
        assert report.uri in str(report)

    def test_lies_in_a_folder_of_the_dataset(self, trays: fo.Dataset) -> None:
        report = build(trays)
        settings = settings_of(trays, load_models("demo"))
        assert Path(report.uri) == dataset_folder(trays) / "index" / f"demo-{settings.fingerprint}"

    def test_holds_the_candidates_of_every_image(self, trays: fo.Dataset) -> None:
        build(trays)
        found = held_by(trays)
        assert found.keys() == set(trays.values("id"))
        for candidates in found.values():
            assert (len(candidates), candidates.image_hw, candidates.grid_side) == (2, IMAGE_HW, 64)

    def test_states_of_the_files(self, trays: fo.Dataset) -> None:
        build(trays)
        images = open_index(trays).index.images
        for sample_id, path in zip(*trays.values(["id", "filepath"]), strict=True):
            found = Path(path).stat()
            assert images[sample_id].file == FileState(
                Path(path).name, found.st_size, found.st_mtime_ns, "", found.st_ctime_ns, 1
            )

    def test_the_second_build_computes_nothing(self, trays: fo.Dataset, computed: list[int]) -> None:
        first = build(trays)
        assert computed == [2, 2]
        second = build(trays)
        assert computed == [2, 2]
        assert (second.num_images, second.num_added, second.num_candidates) == (4, 0, 8)
        assert (second.uri, second.num_bytes) == (first.uri, first.num_bytes)

    def test_progress(self, trays: fo.Dataset) -> None:
        steps: list[Progress] = []
        build(trays, progress=steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [(0, 4, "images"), (2, 4, "images"), (4, 4, "images")]
        again: list[Progress] = []
        build(trays, progress=again.append)
        assert [(step.done, step.total) for step in again] == [(4, 4)]

    def test_a_worker_thread_changes_nothing(self, trays: fo.Dataset, tmp_path: Path) -> None:
        here, there = (
            CandidateIndex.open(build(trays, uri=tmp_path / str(number), num_workers=number).uri) for number in (0, 2)
        )
        own, other = contents(here), contents(there)
        assert list(own) == list(other)
        for name, candidates in own.items():
            assert_same(candidates, other[name])

    def test_the_models_are_a_batch_ahead(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """While nobody asks for the second batch it is computed; closed then, the build keeps what it had handed on."""
        second, batches = threading.Event(), 0
        real = refseg.dataset.builder.propose_from_pixels

        def propose_from_pixels(*arguments: Any, **options: Any) -> Any:
            nonlocal batches
            found = real(*arguments, **options)
            batches += 1
            if batches == 2:
                second.set()
            return found

        monkeypatch.setattr("refseg.dataset.builder.propose_from_pixels", propose_from_pixels)
        monkeypatch.setattr("refseg.dataset.builder.BESIDE_PROCESSOR", {"cpu"})
        work = iter_build_index(trays, "demo", num_workers=1)
        assert [next(work).done, next(work).done] == [0, 2]
        assert second.wait(10)
        work.close()
        assert held_by(trays).keys() == set(trays[:2].values("id"))
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("refseg")] == []

    @pytest.mark.parametrize("beside", [{"cpu"}, set()])
    def test_an_error_of_the_models_comes_after_what_was_done(
        self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch, beside: set[str]
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.BESIDE_PROCESSOR", beside)
        real, batches = refseg.dataset.builder.propose_from_pixels, 0

        def propose_from_pixels(*arguments: Any, **options: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == 2:
                raise ZeroDivisionError("a mistake in the code")
            return real(*arguments, **options)

        monkeypatch.setattr("refseg.dataset.builder.propose_from_pixels", propose_from_pixels)
        with pytest.raises(ZeroDivisionError, match="a mistake in the code"):
            build(trays, num_workers=1)
        assert held_by(trays).keys() == set(trays[:2].values("id"))

    def test_of_part_of_a_dataset(self, trays: fo.Dataset, computed: list[int]) -> None:
        report = build(trays[1:3])
        assert (report.num_images, report.num_added) == (2, 2)
        assert held_by(trays).keys() == set(trays[1:3].values("id"))
        whole = build(trays)
        assert (whole.num_images, whole.num_added) == (4, 2)
        assert computed == [2, 2]
        again = build(trays[:1])
        assert (again.num_images, again.num_added, again.num_candidates) == (1, 0, 8)

    def test_images_of_a_grouped_dataset(self, dataset: fo.Dataset, trays: fo.Dataset) -> None:
        dataset.add_group_field("group", default="left")
        paths = trays.values("filepath")
        for left, right in (paths[:2], paths[2:]):
            group = fo.Group()
            dataset.add_samples(
                [fo.Sample(left, group=group.element("left")), fo.Sample(right, group=group.element("right"))], progress=False
            )
        with pytest.raises(DatasetError, match="select_group_slices"):
            build(dataset)
        assert index_records(dataset) == []
        flat = dataset.select_group_slices(media_type="image")
        assert build(flat).num_added == 4
        assert held_by(dataset).keys() == set(flat.values("id"))
        status = open_index(dataset).status()
        assert (status.num_samples, status.num_indexed) == (4, 4)
        assert open_index(flat).uri == open_index(dataset).uri

    def test_empty_view(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=f"The view of dataset {trays.name!r} is empty"):
            build(trays.limit(0))
        assert trays.list_runs() == []

    def test_videos(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("clip.mp4")])
        with pytest.raises(DatasetError, match="holds videos"):
            build(dataset)
        assert not dataset_folder(dataset).exists()

    def test_real_segmenter(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        """What is kept is what propose finds."""
        dataset = make_dataset(tray_samples(tmp_path, 2))
        models = quick_models()
        build(dataset, models)
        found = held_by(dataset)
        for sample in dataset:
            (expected,) = propose([read_image(sample.filepath)], models, max_iou=0.95)
            own, other = found[sample.id], pack(expected)
            assert len(own) == len(other) > 1
            torch.testing.assert_close(own.predicted_iou, other.predicted_iou, rtol=0, atol=1e-4)
            torch.testing.assert_close(own.features, other.features, rtol=0, atol=2e-3)
            rows = torch.arange(len(own))
            differ = (own.logits_of(rows) > 0) != (other.logits_of(rows) > 0)
            assert int(differ.flatten(1).sum(1).max()) <= 2  # cells, for two images in a batch round otherwise than one


class TestChangedFiles:
    def test_a_new_image(self, trays: fo.Dataset, computed: list[int], tmp_path: Path) -> None:
        build(trays)
        (tmp_path / "more").mkdir()
        trays.add_samples(tray_samples(tmp_path / "more", 1, seed=5), progress=False)
        assert open_index(trays).status().num_indexed == 4
        report = build(trays)
        assert (report.num_images, report.num_added, computed) == (5, 1, [2, 2, 1])

    def test_a_changed_image(self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays)
        before = held_by(trays)
        changed = trays.values("id")[1]
        redraw(path_of(trays, 1))
        status = open_index(trays).status()
        assert (status.num_indexed, status.num_changed) == (3, 1)
        assert "1 images have changed or are gone: build the index again" in str(status)
        report = build(trays)
        assert (report.num_images, report.num_added, computed) == (4, 1, [2, 2, 1])
        after = held_by(trays)
        assert len(after[changed]) == 0  # nothing is labelled in the new picture
        for sample_id in before.keys() - {changed}:
            assert_same(after[sample_id], before[sample_id])
        status = open_index(trays).status()
        assert (status.num_indexed, status.num_changed, status.num_unread_rows) == (4, 0, 2)

    def test_a_changed_image_becomes_that_of_another_size(self, trays: fo.Dataset) -> None:
        build(trays)
        path = path_of(trays, 0)
        read_image(path).resize((77, 33)).save(path)
        build(trays)
        assert held_by(trays)[trays.first().id].image_hw == (33, 77)

    def test_a_touched_file_is_computed_again(self, trays: fo.Dataset, computed: list[int]) -> None:
        build(trays)
        os.utime(path_of(trays, 2), ns=(1, 2))
        assert build(trays).num_added == 1
        assert computed == [2, 2, 1]

    def test_a_touched_file_is_kept_by_its_bytes(self, trays: fo.Dataset, computed: list[int]) -> None:
        build(trays, content_hash=True)
        path = path_of(trays, 2)
        assert open_index(trays).index.images[trays.values("id")[2]].file.sha256 == file_sha256(path)
        os.utime(path, ns=(1, 2))
        assert build(trays, content_hash=True).num_added == 0
        # The new time is noted: without looking at its bytes the file is known too.
        assert build(trays).num_added == 0
        assert open_index(trays).status().num_changed == 0
        assert computed == [2, 2]

    def test_bytes_may_be_noted_later(self, trays: fo.Dataset, computed: list[int]) -> None:
        build(trays)
        build(trays, content_hash=True)
        os.utime(path_of(trays, 2), ns=(1, 2))
        assert build(trays, content_hash=True).num_added == 0
        assert computed == [2, 2]
        assert all(len(candidates) == 2 for candidates in held_by(trays).values())

    def test_other_bytes_of_the_same_size_and_time(self, trays: fo.Dataset, computed: list[int]) -> None:
        """As from a tool that sets the time back: only the bytes tell."""
        path = path_of(trays, 0).with_suffix(".bmp")
        picture = np.asarray(read_image(path_of(trays, 0)))
        Image.fromarray(picture).save(path)
        sample = trays.first()
        sample.filepath = str(path)
        sample.save()
        build(trays, content_hash=True)
        before = path.stat()
        Image.fromarray(picture[::-1]).save(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        assert (build(trays).num_added, open_index(trays).status().num_changed) == (0, 0)
        assert build(trays, content_hash=True).num_added == 1
        assert computed == [2, 2, 1]
        assert build(trays, content_hash=True).num_added == 0

    def test_a_moved_folder(self, trays: fo.Dataset, computed: list[int], tmp_path: Path) -> None:
        build(trays)
        (tmp_path / "images").rename(tmp_path / "elsewhere")
        assert open_index(trays).status().num_changed == 4
        paths = [str(tmp_path / "elsewhere" / Path(path).name) for path in trays.values("filepath")]
        trays.set_values("filepath", paths)
        assert build(trays).num_added == 0
        assert computed == [2, 2]

    def test_a_file_of_another_name(self, trays: fo.Dataset) -> None:
        build(trays)
        sample = trays.first()
        moved = Path(sample.filepath).with_name("other.png")
        Path(sample.filepath).rename(moved)
        sample.filepath = str(moved)
        sample.save()
        assert build(trays).num_added == 1

    def test_a_file_that_changes_between_looking_and_reading(self, trays: fo.Dataset) -> None:
        """Its state was taken before: the next build computes it again."""
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work)
        redraw(path_of(trays, 3))
        assert [step.done for step in work] == [2, 4]
        assert open_index(trays).status().num_changed == 1
        assert build(trays).num_added == 1


class TestChangedDataset:
    def test_a_deleted_sample(self, trays: fo.Dataset) -> None:
        build(trays)
        gone = trays.values("id")[:2]
        trays.delete_samples(gone)
        index = open_index(trays)
        status = index.status()
        assert (status.num_samples, status.num_indexed, status.num_deleted, status.num_candidates) == (2, 2, 2, 8)
        assert "2 images left the dataset" in str(status)
        assert index.compact() > 0
        status = index.status()
        assert (status.num_deleted, status.num_candidates, status.num_unread_rows) == (0, 4, 0)
        assert held_by(trays).keys() == set(trays.values("id"))
        assert build(trays).num_added == 0

    def test_a_renamed_dataset(self, trays: fo.Dataset, computed: list[int]) -> None:
        report = build(trays)
        trays.name = f"{trays.name}-renamed"
        assert build(trays).num_added == 0
        assert open_index(trays).uri == report.uri
        assert computed == [2, 2]

    def test_a_clone_has_no_part_in_the_index_of_the_original(self, trays: fo.Dataset, computed: list[int]) -> None:
        report = build(trays)
        clone = trays.clone()
        try:
            assert clone.values("id") == trays.values("id")
            assert index_records(clone) == []
            with pytest.raises(IndexNotFoundError, match=f"The dataset {clone.name!r} has no candidate index; it has none"):
                open_index(clone)
            with pytest.raises(IndexMismatchError, match="was built for the dataset"):
                build(clone, uri=report.uri)
            with pytest.raises(IndexMismatchError, match="was built for the dataset"):
                open_index(clone, uri=report.uri)
            own = build(clone)
            assert (own.num_added, computed) == (4, [2, 2, 2, 2])
            assert own.uri != report.uri
            assert open_index(clone).uri == own.uri
        finally:
            clone.delete()
        assert open_index(trays).uri == report.uri
        assert open_index(trays).status().num_indexed == 4


class TestBadImages:
    def test_are_skipped_and_named(self, trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        path_of(trays, 0).unlink()
        path_of(trays, 2).write_bytes(b"no image")
        report = build(trays)
        assert (report.num_images, report.num_added) == (2, 2)
        ids, paths = trays.values(["id", "filepath"])
        assert [(image.sample_id, image.filepath, image.reason) for image in report.skipped] == [
            (ids[0], paths[0], "the file does not exist"),
            (ids[2], paths[2], "this is not an image that can be read"),
        ]
        assert f"skipped {paths[2]}: this is not an image that can be read" in str(report)
        assert paths[0] in caplog.text
        assert held_by(trays).keys() == {ids[1], ids[3]}

    def test_are_tried_again_and_indexed_once_corrected(self, trays: fo.Dataset) -> None:
        path = path_of(trays, 2)
        content = path.read_bytes()
        path.write_bytes(content[:100])
        assert len(build(trays).skipped) == len(build(trays).skipped) == 1
        path.write_bytes(content)
        report = build(trays)
        assert (report.num_images, report.num_added, report.skipped) == (4, 1, ())
        assert len(held_by(trays)[trays.values("id")[2]]) == 2

    def test_all_of_them(self, trays: fo.Dataset) -> None:
        for path in trays.values("filepath"):
            Path(path).unlink()
        report = build(trays)
        assert (report.num_images, report.num_added, len(report.skipped), report.num_candidates) == (0, 0, 4, 0)
        assert held_by(trays) == {}

    def test_an_indexed_image_that_breaks_keeps_its_row_but_counts_as_changed(self, trays: fo.Dataset) -> None:
        build(trays)
        path_of(trays, 1).unlink()
        report = build(trays)
        assert (report.num_images, len(report.skipped)) == (3, 1)
        status = open_index(trays).status()
        assert (status.num_indexed, status.num_changed, status.num_deleted) == (3, 1, 0)


class TestModelsAndSettings:
    def test_exact_keeps_near_duplicates_in_a_place_of_its_own(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 1))
        demo = load_models("demo")
        models = dataclasses.replace(demo, preset=dataclasses.replace(demo.preset, points_per_side=8))
        plain, exact = build(dataset, models), build(dataset, models, exact=True)
        assert plain.uri != exact.uri
        assert exact.num_candidates > plain.num_candidates > 1
        (everything,) = propose([read_image(dataset.first().filepath)], models)
        assert exact.num_candidates == len(pack(everything))
        assert open_index(dataset, exact=True).uri == exact.uri
        assert open_index(dataset, exact=False).uri == plain.uri
        assert open_index(dataset).uri == exact.uri  # the one used last
        assert (open_index(dataset).status().exact, "near-duplicates kept" in str(open_index(dataset).status())) == (True, True)
        build(dataset, models)
        assert open_index(dataset).uri == plain.uri

    def test_other_settings_of_a_preset_go_elsewhere(self, trays: fo.Dataset) -> None:
        first, second = build(trays), build(trays, quick_models())
        assert first.uri != second.uri
        assert second.num_added == 4
        assert {record["uri"] for record in index_records(trays)} == {first.uri, second.uri}

    def test_fingerprint_changes_with_what_candidates_depend_on(
        self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models = load_models("demo")
        own = settings_of(trays, models).fingerprint
        assert settings_of(trays, models).fingerprint == own

        def with_preset(**changes: Any) -> str:
            return settings_of(
                trays, dataclasses.replace(models, preset=dataclasses.replace(models.preset, **changes))
            ).fingerprint

        others = [
            settings_of(trays, models, exact=True).fingerprint,
            settings_of(trays, dataclasses.replace(models, revisions={**models.revisions, "sam2": "0"})).fingerprint,
            settings_of(trays, dataclasses.replace(models, revisions={**models.revisions, "dinov2": "0"})).fingerprint,
            with_preset(encoder_side=210),
            with_preset(points_per_side=7),
            with_preset(add_no_memory=False),
        ]
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 0.5)
        others.append(settings_of(trays, models).fingerprint)
        assert len({own, *others}) == len(others) + 1
        monkeypatch.undo()
        assert with_preset(typical_threshold=0.9) == own

    def test_a_preset_that_matches_as_published_keeps_near_duplicates(self, trays: fo.Dataset) -> None:
        models = load_models("demo")
        published = dataclasses.replace(models, preset=dataclasses.replace(models.preset, as_published=True))
        assert not settings_of(trays, models).exact
        assert settings_of(trays, published).exact
        assert not settings_of(trays, published, exact=False).exact

    @pytest.mark.parametrize("change", ["settings", "exact", "model"])
    def test_a_place_that_is_taken_is_refused(self, trays: fo.Dataset, tmp_path: Path, change: str) -> None:
        place = tmp_path / "index"
        build(trays, uri=place)
        models = load_models("demo")
        renamed = dataclasses.replace(models, preset=dataclasses.replace(models.preset, name="tiny"))
        arguments: dict[str, Any] = {
            "settings": {"model": quick_models()},
            "exact": {"model": models, "exact": True},
            "model": {"model": renamed},
        }[change]
        with pytest.raises(IndexMismatchError, match=f"The candidate index at {place} was built for .*: choose another place"):
            build(trays, uri=place, **arguments)
        assert open_index(trays).uri == str(place)
        assert open_index(trays).status().num_indexed == 4


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


class TestCancelled:
    def test_what_is_done_is_kept(self, trays: fo.Dataset, computed: list[int]) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        assert [next(work).done, next(work).done] == [0, 2]
        work.close()
        assert held_by(trays).keys() == set(trays[:2].values("id"))
        report = build(trays)
        assert (report.num_images, report.num_added) == (4, 2)
        assert computed == [2, 2]

    def test_before_the_first_batch(self, trays: fo.Dataset) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work)
        work.close()
        status = open_index(trays).status()
        assert (status.num_samples, status.num_indexed) == (4, 0)

    def test_a_failure_keeps_what_is_done(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = refseg.dataset.builder.propose_from_pixels, []

        def fails_at_the_second(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return real(*arguments, **options)

        monkeypatch.setattr("refseg.dataset.builder.propose_from_pixels", fails_at_the_second)
        with pytest.raises(RuntimeError, match="out of memory"):
            build(trays)
        assert held_by(trays).keys() == set(trays[:2].values("id"))

    def test_writes_come_in_time(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each batch, where no second may be lost."""
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        work = iter_build_index(trays, "demo", num_workers=0)
        held = [len(open_index(trays).index.images) for _ in work]
        assert held == [0, 0, 2]  # what was just reported is written next
        assert len(open_index(trays).index.images) == 4

    def test_writes_come_by_the_number(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_WRITE", 2)
        build(trays)
        assert len(open_index(trays).index._candidates.get_fragments()) == 2


class TestTwoBuilders:
    def test_the_second_takes_what_the_first_has_written(
        self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_STRETCH", 2)
        first = iter_build_index(trays, "demo", num_workers=0)
        assert [next(first).done, next(first).done] == [0, 2]
        second = build(trays)
        assert (second.num_images, second.num_added) == (4, 4)  # nothing was written yet
        # Before its next stretch the first one looks again.
        steps = list(first)
        assert [step.done for step in steps] == [4]
        assert computed == [2, 2, 2]
        assert {name: len(candidates) for name, candidates in held_by(trays).items()} == dict.fromkeys(trays.values("id"), 2)

    def test_they_meet_in_the_middle(self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As soon as it knows of the other one, that with the higher number begins at the end."""
        folder = tmp_path / "eight"
        folder.mkdir()
        dataset = make_dataset(tray_samples(folder, 8))
        propose_truth(monkeypatch, dataset)
        batches = count_batches(monkeypatch)
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_STRETCH", 2)
        monkeypatch.setattr("refseg.index.candidate_index.CandidateIndex.__init__", numbered(iter([5, 9])))
        builders = [iter_build_index(dataset, "demo", num_workers=0) for _ in range(2)]
        for _ in range(6):
            for work in builders:
                next(work, None)
        built = open_index(dataset).index.images
        # Both do the first two images, before either has written anything, and the two at which they meet.
        assert sum(batches) == 8 + 2 + 2
        assert [built[sample_id].builder for sample_id in dataset.values("id")] == [9, 9, 5, 5, 9, 9, 9, 9]
        assert {name: len(candidates) for name, candidates in held_by(dataset).items()} == dict.fromkeys(
            dataset.values("id"), 2
        )


def numbered(numbers: Any) -> Callable[..., None]:
    """CandidateIndex.__init__, but builders get these numbers."""
    real = CandidateIndex.__init__

    def init(self: CandidateIndex, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.builder = next(numbers, self.builder)

    return init


class TestRecord:
    def test_run(self, trays: fo.Dataset) -> None:
        report = build(trays)
        (record,) = index_records(trays)
        settings = settings_of(trays, load_models("demo"))
        assert trays.list_runs(method=INDEX_METHOD) == [record["key"]] == [f"index_demo_{settings.fingerprint}"]
        assert (
            record.items()
            >= {
                "uri": report.uri,
                "model": "demo",
                "exact": False,
                "fingerprint": settings.fingerprint,
                "encoder": load_models("demo").fingerprint,
                "num_images": 4,
                "num_candidates": 8,
                "num_bytes": report.num_bytes,
            }.items()
        )
        assert 0 < record["seconds_per_image"] < 60

    def test_is_renewed(self, trays: fo.Dataset) -> None:
        build(trays[:2])
        (before,) = index_records(trays)
        build(trays)
        (after,) = index_records(trays)
        assert (before["num_images"], after["num_images"]) == (2, 4)
        assert after["num_bytes"] > before["num_bytes"]
        assert after["updated_at"] >= before["updated_at"]
        build(trays)
        assert index_records(trays)[0]["seconds_per_image"] == after["seconds_per_image"]

    def test_nothing_computed_has_no_seconds(self, trays: fo.Dataset) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work)
        work.close()
        (record,) = index_records(trays)
        assert (record["num_images"], record["seconds_per_image"]) == (0, None)

    def test_other_runs_are_none_of_it(self, trays: fo.Dataset) -> None:
        trays.register_run("mine", trays.init_run(method="me/mine"))
        assert index_records(trays) == []

    def test_survives_a_reload(self, trays: fo.Dataset) -> None:
        report = build(trays)
        trays.reload()
        assert index_records(fo.load_dataset(trays.name))[0]["uri"] == report.uri


class TestOpen:
    def test_needs_no_models(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays)

        def fail(*arguments: Any, **options: Any) -> Any:
            raise AssertionError("models were loaded")

        monkeypatch.setattr("refseg.dataset.indexing.load_models", fail)
        index = open_index(trays)
        assert index.index.settings.model == "demo"
        assert index.status().num_indexed == 4
        assert repr(index) == f"<index of {trays.name!r} for 'demo' at {index.uri}>"

    @pytest.mark.parametrize("model", ["demo", "models"])
    def test_by_model(self, trays: fo.Dataset, model: str) -> None:
        report = build(trays)
        assert open_index(trays, load_models("demo") if model == "models" else model).uri == report.uri

    def test_of_a_view(self, trays: fo.Dataset) -> None:
        build(trays)
        assert open_index(trays[:1]).status().num_samples == 4

    def test_there_is_none(self, trays: fo.Dataset) -> None:
        with pytest.raises(
            IndexNotFoundError, match=f"The dataset {trays.name!r} has no candidate index; it has none: build one"
        ):
            open_index(trays)

    def test_there_is_none_for_this_model(self, trays: fo.Dataset) -> None:
        build(trays)
        with pytest.raises(IndexNotFoundError, match="has no candidate index for the model 'large'; it has 'demo': build one"):
            open_index(trays, "large")
        with pytest.raises(IndexNotFoundError, match="has no candidate index"):
            open_index(trays, exact=True)

    def test_there_is_none_at_this_place(self, trays: fo.Dataset, tmp_path: Path) -> None:
        build(trays)
        with pytest.raises(IndexNotFoundError, match=f"There is no candidate index at {tmp_path / 'nowhere'}"):
            open_index(trays, uri=tmp_path / "nowhere")

    def test_of_another_model_at_this_place(self, trays: fo.Dataset) -> None:
        report = build(trays)
        with pytest.raises(IndexMismatchError, match="was built for the model 'demo', not 'large'"):
            open_index(trays, "large", uri=report.uri)

    def test_of_another_dataset_at_this_place(self, trays: fo.Dataset, dataset: fo.Dataset) -> None:
        report = build(trays)
        with pytest.raises(IndexMismatchError, match="was built for the dataset"):
            open_index(dataset, uri=report.uri)


class TestFind:
    def test_the_kind_that_the_preset_makes_comes_first(self, trays: fo.Dataset) -> None:
        """Of an index with near-duplicates and one without."""
        encoder = load_models("demo").fingerprint
        assert find_index(trays, "demo", encoder) is None
        exact = build(trays, exact=True)
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == exact.uri
        plain = build(trays)
        build(trays, exact=True)
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == plain.uri

    def test_of_one_kind_the_one_used_last(self, trays: fo.Dataset) -> None:
        encoder = load_models("demo").fingerprint
        uris = [build(trays, model).uri for model in ("demo", quick_models(), "demo")]
        assert uris[0] == uris[2] != uris[1]
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == uris[0]
        build(trays, quick_models())
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == uris[1]

    def test_only_of_this_encoder(self, trays: fo.Dataset) -> None:
        build(trays)
        assert find_index(trays, "demo", "0" * 12) is None
        assert find_index(trays, "large", load_models("demo").fingerprint) is None

    def test_a_record_whose_index_is_gone(self, trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        plain, exact = build(trays), build(trays, exact=True)
        shutil.rmtree(plain.uri)
        with caplog.at_level(logging.WARNING, "refseg"):
            found = find_index(trays, "demo", load_models("demo").fingerprint)
        assert found is not None
        assert found.uri == exact.uri
        assert "names an index that is gone" in caplog.text

    def test_what_lies_at_a_recorded_place_now_is_looked_at(self, trays: fo.Dataset, tmp_path: Path) -> None:
        """The folder was removed by hand, and an index of another encoder was built there."""
        models = load_models("demo")
        build(trays, uri=tmp_path / "index")
        shutil.rmtree(tmp_path / "index")
        newer = dataclasses.replace(models, revisions={**models.revisions, "dinov2": "0" * 64})
        build(trays, newer, uri=tmp_path / "index")
        found = find_index(trays, "demo", models.fingerprint)
        assert found is None or found.index.settings.encoder == models.fingerprint


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
        assert str(report) == "4 images with 8 candidates are read, 0 are damaged"
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
        assert f"{bad}: {reason}" in str(report)
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
        assert [reason for _, reason in report.damaged] in (["a feature is not of unit length"], ["a feature is not finite"])
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
        given_back = index.compact()
        assert given_back > 0
        assert bytes_on_disk(Path(index.uri)) < before
        assert index_records(trays)[0]["num_bytes"] == index.index.num_bytes == index.status().num_bytes
        assert index.status().num_unread_rows == 0
        after = held_by(trays)
        assert list(after) == list(held)
        for name, candidates in held.items():
            assert_same(after[name], candidates)

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
            f"8 candidates, {status.num_bytes / 1e6:.1f} MB, {status.bytes_per_image / 1e3:.1f} KB an image; {report.uri}",
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
        assert [index.holds(*pair) for pair in zip(ids, states, strict=True)] == [True, False, False, False]
        assert not index.holds(ids[0], None)
        assert not index.holds(ids[0], states[1])
