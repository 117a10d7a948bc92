"""Building the index of a dataset: what is computed, what is kept, and what is built anew when things change around it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

from refseg.candidates.packing import pack
from refseg.candidates.proposing import propose
from refseg.dataset.index_finding import open_index
from refseg.dataset.index_settings import settings_of
from refseg.dataset.indexing import IndexReport, iter_build_index
from refseg.dataset.known_indexes import index_records
from refseg.dataset.store import dataset_folder
from refseg.errors import DatasetError, IndexMismatchError, IndexNotFoundError
from refseg.images.reading import file_sha256, read_image
from refseg.index.candidate_index import CandidateIndex
from refseg.index.tables import FileState
from refseg.models.loaded import load_models
from refseg.progress import Progress, drain
from tests.dataset.building import build, held_by
from tests.index.test_candidate_index import assert_same, contents
from tests.trays import IMAGE_HW, draw_trays, propose_truth, quick_models, tray_samples

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


def path_of(dataset: fo.Dataset, number: int) -> Path:
    return Path(dataset.values("filepath")[number])


def redraw(path: Path) -> None:
    """Another picture at the same place, changed a second later."""
    before = path.stat()
    Image.fromarray(draw_trays(1, seed=99)[0].image).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


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
            assert (len(candidates), candidates.image_hw, candidates.grid_side) == (2, IMAGE_HW, 80)

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
        assert "1 image has changed or is gone: build the index again" in str(status)
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
        path_of(trays, 0).parent.rename(tmp_path / "elsewhere")
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
            with pytest.raises(IndexNotFoundError, match=f"The dataset {clone.name!r} has no candidate index: build one"):
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


class TestReadBack:
    """The report is of the index as it is at the end, whatever others have done to it."""

    @pytest.fixture
    def dataset(self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        dataset = make_dataset(tray_samples(tmp_path, 6))
        propose_truth(monkeypatch, dataset)
        return dataset

    def half_way(self, dataset: fo.Dataset) -> Generator[Progress, None, IndexReport]:
        """A build of which four images are written."""
        build(dataset[:4])
        work = iter_build_index(dataset, "demo", num_workers=0)
        next(work)
        return work

    def test_after_a_compaction_that_forgets(self, dataset: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        ids, paths = dataset.values("id"), dataset.values("filepath")
        work = self.half_way(dataset)
        dataset.delete_samples(ids[1:3])
        open_index(dataset).compact(grace_seconds=0)
        report = drain(work, False)
        assert (report.num_images, report.num_added, report.vanished) == (4, 2, (ids[1], ids[2]))
        assert len(open_index(dataset).index.images) == report.num_images
        words = "2 images left the index while it was built, as by deleting or compacting it: build it again to renew them"
        assert report.vanished_names == (Path(paths[1]).name, Path(paths[2]).name)
        assert f"{words} ({Path(paths[1]).name}, {Path(paths[2]).name})" in str(report)
        assert words in caplog.text

    def test_after_a_deletion(self, dataset: fo.Dataset) -> None:
        ids = dataset.values("id")
        work = self.half_way(dataset)
        open_index(dataset).delete()
        report = drain(work, False)
        assert (report.num_images, report.num_added, report.vanished) == (2, 2, tuple(ids[:4]))
        assert held_by(dataset).keys() == set(ids[4:])
        assert build(dataset).num_images == 6

    def test_of_what_was_computed_here(self, dataset: fo.Dataset) -> None:
        ids = dataset.values("id")
        work = iter_build_index(dataset, "demo", num_workers=0)
        while next(work).done < 4:
            pass
        open_index(dataset).index.forget(ids)  # the first two are written by now
        report = drain(work, False)
        assert (report.num_images, report.num_added, report.vanished) == (4, 6, tuple(ids[:2]))
        assert held_by(dataset).keys() == set(ids[2:])


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
