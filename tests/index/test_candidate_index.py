"""The tables of the index alone, without FiftyOne and without models: what is written comes back, and nothing else."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event, Semaphore, Thread
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from refseg.candidates.packing import PackedCandidates, pack
from refseg.errors import CandidateIndexError, IndexDamagedError, IndexMismatchError, IndexNotFoundError
from refseg.index.candidate_index import CandidateIndex
from refseg.index.snapshot import Snapshot
from refseg.index.tables import (
    FORMAT_WITH_CLEAN_MASKS,
    METADATA_KEY,
    NEWEST_FORMAT,
    FileState,
    IndexedImage,
    IndexSettings,
    candidates_table,
    images_table,
)
from tests.candidates.test_packing import WIDTH, make_blobs

SETTINGS = IndexSettings(
    "demo",
    "f" * 12,
    "e" * 12,
    {"sam2": "a" * 64, "dinov2": "b" * 64},
    exact=False,
    grid_side=64,
    feature_width=WIDTH,
    dataset_id="7",
)
PREFIXES = ("", "file://", "file-object-store://")


def candidates_of(number: int) -> PackedCandidates:
    """Of an image: as many as its number, modulo 4; none for every fourth."""
    candidates = pack(make_blobs(4, seed=number, image_hw=(90 + number, 120)))
    return first_rows(candidates, number % 4)


def first_rows(packed: PackedCandidates, count: int) -> PackedCandidates:
    return replace(
        packed,
        codes=packed.codes[:count],
        edges=packed.edges[:count],
        boxes=packed.boxes[:count],
        predicted_iou=packed.predicted_iou[:count],
        features=packed.features[:count],
    )


def state_of(number: int) -> FileState:
    return FileState(
        f"image {number}.png", 1000 + number, 1_700_000_000_000_000_000 + number, f"{number:064x}" if number % 2 else ""
    )


def items(numbers: Iterable[int]) -> list[tuple[str, FileState, PackedCandidates]]:
    return [(f"sample-{number}", state_of(number), candidates_of(number)) for number in numbers]


def make_index(place: Any, numbers: Iterable[int] = range(12)) -> CandidateIndex:
    index = CandidateIndex.create(place, SETTINGS)
    index.append(items(numbers))
    index.refresh()
    return index


def contents(index: CandidateIndex, sample_ids: Any = None, **options: Any) -> dict[str, PackedCandidates]:
    """Everything scan hands out; each image once."""
    found: dict[str, PackedCandidates] = {}
    for chunk in index.scan(sample_ids, **options):
        for number, image in enumerate(chunk.images):
            assert image.sample_id not in found
            found[image.sample_id] = chunk.candidates(number)
    return found


def assert_same(found: PackedCandidates, expected: PackedCandidates) -> None:
    """Bit for bit."""
    assert found.codes.equals(expected.codes)
    assert found.edges.equals(expected.edges)
    for name in ("boxes", "predicted_iou", "features"):
        own, other = getattr(found, name), getattr(expected, name)
        assert own.dtype == other.dtype
        assert torch.equal(own, other), name
    assert (found.image_hw, found.grid_side) == (expected.image_hw, expected.grid_side)


def assert_holds(index: CandidateIndex, numbers: Iterable[int]) -> None:
    """Just these images, each as candidates_of makes it."""
    expected = {f"sample-{number}": candidates_of(number) for number in numbers}
    found = contents(index)
    assert found.keys() == index.images.keys() == expected.keys()
    for name, candidates in expected.items():
        assert_same(found[name], candidates)
    assert index.num_candidates == sum(map(len, expected.values()))


def bytes_on_disk(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


class TestAppend:
    def test_round_trip(self, place: Path) -> None:
        make_index(place)
        index = CandidateIndex.open(place)
        assert index.settings == SETTINGS
        assert_holds(index, range(12))

    def test_facts_of_each_image(self, place: Path) -> None:
        index = make_index(place)
        for number in range(12):
            image = index.images[f"sample-{number}"]
            assert image.file == state_of(number)
            assert image.image_hw == (90 + number, 120)
            assert image.num_candidates == number % 4
            assert image.builder == index.builder
        assert len({image.key for image in index.images.values()}) == 12

    def test_many_writes(self, place: Path) -> None:
        index = CandidateIndex.create(place, SETTINGS)
        for number in range(9):
            index.append(items([number]))
        index.refresh()
        assert_holds(index, range(9))

    def test_counts_only_after_refresh(self, place: Path) -> None:
        index = CandidateIndex.create(place, SETTINGS)
        index.append(items(range(3)))
        assert index.images == {}
        index.refresh()
        assert len(index.images) == 3

    def test_of_nothing(self, place: Path) -> None:
        index = CandidateIndex.create(place, SETTINGS)
        index.append([])
        index.refresh()
        assert contents(index) == {}
        assert (index.num_candidates, index.num_unread_rows, index.num_bytes) == (0, 0, 0)

    def test_image_indexed_again_replaces_its_candidates(self, place: Path) -> None:
        index = make_index(place)
        index.append([("sample-3", state_of(99), candidates_of(2)), ("sample-4", state_of(98), candidates_of(7))])
        for fresh in (index, CandidateIndex.open(place)):
            fresh.refresh()
            found = contents(fresh)
            assert len(found) == 12
            assert_same(found["sample-3"], candidates_of(2))
            assert_same(found["sample-4"], candidates_of(7))
            assert_same(found["sample-5"], candidates_of(5))
            assert fresh.images["sample-3"].file == state_of(99)
            assert fresh.num_unread_rows == 3  # what sample 3 had; sample 4 had none

    def test_image_without_candidates_replaces_one_with(self, place: Path) -> None:
        index = make_index(place)
        index.append([("sample-3", state_of(3), candidates_of(0))])
        index.refresh()
        assert len(contents(index)["sample-3"]) == 0
        assert index.num_unread_rows == 3

    def test_wide_features_of_real_models_fit(self, place: Path) -> None:
        index = CandidateIndex.create(place, replace(SETTINGS, feature_width=1024, grid_side=256))
        features = torch.nn.functional.normalize(torch.randn(5, 1024, generator=torch.Generator().manual_seed(0)), dim=1)
        packed = pack(replace(make_blobs(5, 256), features=features.half().float()))
        index.append([("one", state_of(1), packed)])
        index.refresh()
        assert_same(contents(index)["one"], packed)

    @pytest.mark.parametrize("keeps_floats", [True, False])
    def test_features_are_rounded_unless_the_index_keeps_them(self, place: Path, keeps_floats: bool) -> None:
        index = CandidateIndex.create(place, replace(SETTINGS, float_features=keeps_floats))
        features = torch.nn.functional.normalize(torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)
        index.append([("one", state_of(1), pack(replace(make_blobs(5), features=features)))])
        index.refresh()
        kept = contents(CandidateIndex.open(place))["one"].features
        assert torch.equal(kept, features if keeps_floats else features.half().float())

    def test_masks_that_were_cleaned_and_others_do_not_mix(self, place: Path) -> None:
        """Nor do versions that know of none of the former read them."""
        clean = replace(SETTINGS, clean_masks=True)
        assert (clean.format, replace(clean, exact=True, tiles=True).format) == (FORMAT_WITH_CLEAN_MASKS,) * 2
        CandidateIndex.create(place, clean)
        assert CandidateIndex.open(place).settings == clean
        with pytest.raises(IndexMismatchError, match="was built for clean masks True, not False: choose another place"):
            CandidateIndex.create(place, SETTINGS)


class TestScan:
    def test_every_chunk_size_gives_the_same(self, place: Path) -> None:
        index = make_index(place)
        whole = contents(index)
        for rows in (1, 2, 3, 4, 5, 7, 100):
            found = contents(index, rows=rows)
            assert list(found) == list(whole)
            for name, candidates in whole.items():
                assert_same(found[name], candidates)

    def test_chunks_are_as_large_as_asked_for_and_split_no_image(self, place: Path) -> None:
        index = make_index(place)
        sizes = [[image.num_candidates for image in chunk.images] for chunk in index.scan(rows=5)]
        assert sizes == [[0, 0, 0, 1, 2], [3, 1], [2, 3], [1, 2], [3]]

    def test_an_image_with_more_candidates_is_a_chunk_of_its_own(self, place: Path) -> None:
        index = make_index(place, range(6))
        sizes = [[image.num_candidates for image in chunk.images] for chunk in index.scan(rows=1)]
        assert sizes == [[0, 0, 1], [2], [3], [1]]

    def test_chunks_know_where_each_image_begins(self, place: Path) -> None:
        index = make_index(place)
        for chunk in index.scan(rows=6):
            assert chunk.starts.tolist() == [0, *np.cumsum([image.num_candidates for image in chunk.images]).tolist()]
            assert chunk.features.shape == (chunk.starts[-1], WIDTH)
            assert chunk.features.dtype == torch.float32
            assert chunk.settings == SETTINGS

    def test_order_is_that_of_writing(self, place: Path) -> None:
        index = make_index(place, [5, 1, 9])
        index.append(items([2, 7]))
        index.append([("sample-1", state_of(1), candidates_of(1))])
        index.refresh()
        written = ["sample-5", "sample-9", "sample-2", "sample-7", "sample-1"]
        assert list(contents(index)) == written
        assert list(contents(index, reversed(written))) == written

    def test_some_images(self, place: Path) -> None:
        index = make_index(place)
        wanted = ["sample-7", "sample-0", "sample-3"]
        found = contents(index, wanted)
        assert found.keys() == set(wanted)
        for name in wanted:
            assert_same(found[name], candidates_of(int(name.split("-")[1])))

    def test_images_not_indexed_are_left_out(self, place: Path) -> None:
        index = make_index(place)
        assert contents(index, ["nobody", "sample-6"]).keys() == {"sample-6"}
        assert contents(index, ["nobody"]) == contents(index, []) == {}

    def test_images_without_candidates_alone(self, place: Path) -> None:
        index = make_index(place)
        found = contents(index, ["sample-0", "sample-8"])
        assert {name: len(candidates) for name, candidates in found.items()} == {"sample-0": 0, "sample-8": 0}
        assert found["sample-8"].image_hw == (98, 120)
        assert found["sample-8"].features.shape == (0, WIDTH)
        assert found["sample-8"].logits_of(torch.zeros(0, dtype=torch.int64)).shape == (0, 64, 64)

    @pytest.mark.parametrize("sample_ids", [None, ["sample-7", "sample-2", "sample-0"], ["sample-0"]])
    def test_features_alone_are_the_same_features(self, place: Path, sample_ids: list[str] | None) -> None:
        index = make_index(place)
        pairs = zip(index.scan(sample_ids, rows=5), index.scan(sample_ids, features_only=True, rows=5), strict=True)
        for whole, alone in pairs:
            assert alone.images == whole.images
            assert alone.starts.tolist() == whole.starts.tolist()
            assert torch.equal(alone.features, whole.features)
            assert alone.rows.column_names == ["feature"]

    def test_a_scan_may_be_given_up(self, place: Path) -> None:
        index = make_index(place)
        scan = index.scan(rows=1)
        next(scan)
        scan.close()
        assert len(contents(index)) == 12

    def test_giving_one_up_waits_for_nothing(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python closes a generator that nobody holds any more in whatever thread is at hand: where it waited it could hang."""
        index = make_index(place)
        whole, may_read, reads = Snapshot.take, Event(), Semaphore(0)

        def slow(self: Snapshot, *args: Any) -> Any:
            reads.release()
            may_read.wait(60)
            return whole(self, *args)

        scan = index.scan(rows=2)
        next(scan)
        monkeypatch.setattr(Snapshot, "take", slow)
        next(scan)
        assert reads.acquire(timeout=60)
        closing = Thread(target=scan.close, daemon=True)
        closing.start()
        closing.join(20)
        is_closed = not closing.is_alive()
        may_read.set()
        assert is_closed

    def test_two_scans_at_once(self, place: Path) -> None:
        index = make_index(place)
        names = [
            (a.images[0].sample_id, b.images[0].sample_id) for a, b in zip(index.scan(rows=3), index.scan(rows=3), strict=True)
        ]
        assert all(a == b for a, b in names)
        assert len(names) > 3

    def test_a_snapshot_stays_what_it_was(self, place: Path) -> None:
        index = make_index(place)
        other = CandidateIndex.open(place)
        other.append([("sample-3", state_of(3), candidates_of(2)), *items([20])])
        assert_holds(index, range(12))


class TestForgetAndTouch:
    def test_forgotten_images_do_not_count(self, place: Path) -> None:
        index = make_index(place)
        index.forget(["sample-2", "sample-8", "nobody"])
        rest = [number for number in range(12) if number not in (2, 8)]
        assert_holds(index, rest)
        assert_holds(CandidateIndex.open(place), rest)
        assert index.num_unread_rows == 2

    def test_forgotten_images_can_be_indexed_again(self, place: Path) -> None:
        index = make_index(place)
        index.forget(["sample-2", "sample-8"])
        index.append(items([2, 8]))
        index.refresh()
        assert_holds(index, range(12))

    def test_forget_nothing(self, place: Path) -> None:
        index = make_index(place)
        versions = index._table.version
        index.forget([])
        index.forget(["nobody"])
        assert CandidateIndex.open(place)._table.version == versions

    def test_touched_images_keep_their_candidates(self, place: Path) -> None:
        index = make_index(place)
        moved = replace(index.images["sample-7"], file=state_of(70))
        index.touch([moved])
        index.touch([])
        for fresh in (index, CandidateIndex.open(place)):
            assert fresh.images["sample-7"] == moved
            assert_holds(fresh, range(12))
            assert fresh.num_unread_rows == 0


class TestCompact:
    def fragmented(self, place: Any) -> CandidateIndex:
        """Twelve writes, of which two replace an image, and one forgotten image: 3 + 3 + 2 rows are read by nobody."""
        index = CandidateIndex.create(place, SETTINGS)
        for number in range(10):
            index.append(items([number]))
        index.append(items([3]))
        index.append(items([7]))
        index.refresh()
        index.forget(["sample-6"])
        return index

    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_keeps_every_answer_and_drops_what_nobody_reads(self, place: Path, prefix: str) -> None:
        index = self.fragmented(f"{prefix}{place}")
        rest = [number for number in range(10) if number != 6]
        assert_holds(index, rest)
        assert index.num_unread_rows == 8
        index.compact()
        for fresh in (index, CandidateIndex.open(f"{prefix}{place}")):
            assert fresh.num_unread_rows == 0
            assert_holds(fresh, rest)
            assert fresh._candidates.count_rows() == fresh.num_candidates
            assert fresh._table.count_rows() == len(rest)

    def test_merges_files_and_gives_their_space_back(self, place: Path) -> None:
        index = self.fragmented(place)
        before, on_disk = index.num_bytes, bytes_on_disk(place)
        index.compact(grace=timedelta(0))
        assert len(index._candidates.get_fragments()) == len(index._table.get_fragments()) == 1
        assert index.num_bytes < before
        assert bytes_on_disk(place) < on_disk
        assert index.num_bytes <= bytes_on_disk(place) <= index.num_bytes + 20_000  # the rest are manifests

    def test_files_stay_a_while_for_those_who_read_them(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index = self.fragmented(place)
        reader = CandidateIndex.open(place)
        monkeypatch.setattr(reader, "refresh", lambda: pytest.fail("what it reads has gone"))
        index.compact()
        assert_holds(reader, [number for number in range(10) if number != 6])
        on_disk = bytes_on_disk(place)
        index.compact(grace=timedelta(0))
        assert bytes_on_disk(place) < on_disk

    def test_keeps_only_what_is_asked_for(self, place: Path) -> None:
        index = make_index(place)
        index.compact({"sample-3", "sample-4", "sample-5", "nobody"})
        assert_holds(index, [3, 4, 5])
        assert index.num_unread_rows == 0
        assert_holds(CandidateIndex.open(place), [3, 4, 5])

    def test_keeps_nothing(self, place: Path) -> None:
        index = make_index(place)
        index.compact(set())
        assert_holds(index, [])
        index.append(items([1, 2]))
        index.refresh()
        assert_holds(index, [1, 2])

    def test_sees_what_others_have_written(self, place: Path) -> None:
        index = make_index(place)
        other = CandidateIndex.open(place)
        other.append(items([20, 21, 3]))
        index.compact({f"sample-{number}" for number in (3, 5, 20)})
        assert_holds(index, [3, 5, 20])
        assert index.num_unread_rows == 0

    def test_twice(self, place: Path) -> None:
        index = self.fragmented(place)
        index.compact()
        size = index.num_bytes
        index.compact()
        assert index.num_bytes == size

    def test_goes_on_after(self, place: Path) -> None:
        index = self.fragmented(place)
        index.compact()
        index.append(items([6, 30]))
        index.refresh()
        assert_holds(index, [*range(10), 30])

    def test_what_a_builder_is_writing_stays(self, place: Path) -> None:
        """Candidates are written before their image; who builds holds a lease for so long."""
        index = make_index(place)
        leases = CandidateIndex.open(place).leases()
        leases.thread += 1  # as if at work in another thread
        leases.take(["sample-30"])
        coming = IndexedImage("sample-30", 5, state_of(30), (90, 120), 2, 1)
        index._write("candidates", candidates_table([coming], [candidates_of(2)], SETTINGS))
        index.forget(["sample-3"])
        CandidateIndex.open(place).compact()
        index._write_images([coming])
        leases.close()
        index.refresh()
        assert {name: len(candidates) for name, candidates in contents(index).items()} == {
            **{f"sample-{number}": number % 4 for number in range(12) if number != 3},
            "sample-30": 2,
        }
        assert index.num_unread_rows == 0

    def test_leases_that_cannot_be_read_are_made_anew(self, place: Path) -> None:
        index = make_index(place)
        leases = index.leases()
        leases.take(["sample-30"])
        for path in (place / "leases.lance" / "data").iterdir():
            damage(path, 0.5)
        with pytest.raises((OSError, ValueError)):
            index.leases().others()
        index.compact()
        assert index.leases().others() == {}
        assert index.leases().take(["sample-30"]) == {"sample-30"}
        assert_holds(index, range(12))

    def test_two_at_once(self, place: Path) -> None:
        self.fragmented(place)
        with ThreadPoolExecutor(3) as pool:
            for work in [pool.submit(CandidateIndex.open(place).compact, grace=timedelta(0)) for _ in range(3)]:
                work.result()
        assert_holds(CandidateIndex.open(place), [number for number in range(10) if number != 6])

    def test_later_rows_stay_later_when_files_are_merged_beside_a_writer(self, place: Path) -> None:
        """Lance puts what it has merged behind what was written meanwhile."""
        index = make_index(place, range(6))
        index.append(items(range(6, 12)))
        index.refresh()
        before = lance.dataset(str(place / "images.lance"))
        index.forget(["sample-3"])
        index.append([("sample-5", state_of(50), candidates_of(2))])
        index.append(items([20]))
        before.optimize.compact_files(target_rows_per_fragment=100)
        index.refresh()
        assert index._table.to_table()["sample_id"].to_pylist()[:3] == ["sample-3", "sample-5", "sample-20"]
        for fresh in (index, CandidateIndex.open(place)):
            assert "sample-3" not in fresh.images
            assert fresh.images["sample-5"].file == state_of(50)
            assert_same(contents(fresh)["sample-5"], candidates_of(2))
            fresh.compact()
            assert "sample-3" not in fresh.images
            assert fresh.images["sample-5"].file == state_of(50)

    def test_candidates_of_an_image_that_are_parted_are_put_together(self, place: Path) -> None:
        """Merging ends a file where it is full, in the middle of an image too, and may move each half."""
        index = make_index(place)
        rows = index._candidates.to_table()
        parted = rows.take([*range(1, len(rows), 2), *range(0, len(rows), 2)])
        lance.write_dataset(parted, str(place / "candidates.lance"), mode="overwrite")
        opened = CandidateIndex.open(place)
        assert len(opened._snapshot.scattered) == 6  # those of 2 and 3 candidates
        for numbers in (range(12), [number for number in range(12) if number != 3]):
            assert_holds(opened, numbers)
            opened.compact([f"sample-{number}" for number in range(12) if number != 3])

    def test_parted_candidates_that_nothing_tells_the_order_of_do_not_count(self, place: Path) -> None:
        """As of an index by an earlier version."""
        rows = make_index(place)._candidates.to_table()
        parted = rows.take([*range(1, len(rows), 2), *range(0, len(rows), 2)]).drop_columns(["row"])
        lance.write_dataset(parted, str(place / "candidates.lance"), mode="overwrite")
        opened = CandidateIndex.open(place)
        assert_holds(opened, [0, 1, 4, 5, 8, 9])
        opened.append(items([2, 3]))
        opened.refresh()
        assert_holds(opened, [0, 1, 2, 3, 4, 5, 8, 9])

    def test_of_an_empty_index(self, place: Path) -> None:
        index = CandidateIndex.create(place, SETTINGS)
        index.compact()
        assert_holds(index, [])

    def test_candidates_whose_image_was_never_written_go(self, place: Path) -> None:
        """What a process leaves that was killed between the two tables."""
        index = make_index(place)
        lost = IndexedImage("sample-30", 5, state_of(30), (90, 120), 2, 1)
        index._write("candidates", candidates_table([lost], [candidates_of(2)], SETTINGS))
        index.refresh()
        assert_holds(index, range(12))
        assert index.num_unread_rows == 2
        index.compact()
        assert_holds(index, range(12))
        assert index.num_unread_rows == 0

    def test_merged_when_there_are_many_small_files(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.index.candidate_index.FRAGMENTS_TO_TIDY", 5)
        index = CandidateIndex.create(place, SETTINGS)
        counts = []
        for number in range(1, 12):
            index.append(items([number]))
            index.refresh()
            index.tidy_if_due()
            counts.append(len(index._candidates.get_fragments()))
        assert max(counts) < 5
        assert_holds(index, range(1, 12))
        # Whoever reads meanwhile still finds the files of a snapshot.
        assert len(list((place / "candidates.lance" / "data").iterdir())) > 5


class TestTwoHandles:
    def test_each_sees_the_others_writes_after_refresh(self, place: Path) -> None:
        first = CandidateIndex.create(place, SETTINGS)
        second = CandidateIndex.create(place, SETTINGS)
        first.append(items([1, 2]))
        second.append(items([3]))
        first.append(items([4]))
        for index in (first, second):
            index.refresh()
            assert_holds(index, [1, 2, 3, 4])

    def test_the_last_to_write_an_image_is_right(self, place: Path) -> None:
        first, second = make_index(place), CandidateIndex.open(place)
        second.append([("sample-5", state_of(50), candidates_of(3))])
        first.append([("sample-5", state_of(51), candidates_of(2))])
        first.refresh()
        second.refresh()
        for index in (first, second):
            assert_same(contents(index)["sample-5"], candidates_of(2))
            assert index.images["sample-5"].file == state_of(51)

    def test_threads_that_write_at_once(self, place: Path) -> None:
        handles = [CandidateIndex.create(place, SETTINGS) for _ in range(4)]

        def write(number: int) -> None:
            for position in range(4):
                handles[number].append(items([4 * number + position]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert_holds(CandidateIndex.open(place), range(16))

    def test_created_at_once(self, tmp_path: Path) -> None:
        """The first write follows at once, so that a creation which overwrites another one loses it."""
        for attempt in range(25):
            place, together = tmp_path / str(attempt), Barrier(4)

            def create_and_write(number: int, place: Path = place, together: Barrier = together) -> None:
                together.wait()
                CandidateIndex.create(place, SETTINGS).append(items([number]))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(create_and_write, range(4)))
            assert_holds(CandidateIndex.open(place), range(4))


class TestEarlierVersions:
    """They write no sequence numbers and no places of candidates in their image."""

    def test_what_they_add_is_the_latest(self, place: Path) -> None:
        index = make_index(place)
        index.forget(["sample-7"])
        rows = [IndexedImage(f"sample-{number}", 70 + number, state_of(50), (90 + number, 120), 2, 1) for number in (5, 7, 20)]
        candidates = candidates_table(rows, [candidates_of(2)] * 3, SETTINGS).drop_columns(["row"])
        lance.write_dataset(candidates, str(place / "candidates.lance"), mode="append")
        images = images_table(rows, SETTINGS, 0).drop_columns(["sequence"])
        lance.write_dataset(images, str(place / "images.lance"), mode="append")
        opened = CandidateIndex.open(place)
        assert opened.images.keys() == {*(f"sample-{number}" for number in range(12)), "sample-20"}
        for row in rows:
            assert opened.images[row.sample_id].file == state_of(50)
            assert len(contents(opened)[row.sample_id]) == 2
        opened.append([("sample-5", state_of(51), candidates_of(3))])
        opened.compact()
        assert opened.images["sample-5"].file == state_of(51)
        assert len(contents(opened)["sample-7"]) == 2

    def test_what_they_have_written_is_the_earliest(self, place: Path) -> None:
        index = make_index(place)
        for name, column in (("images", "sequence"), ("candidates", "row")):
            table = lance.dataset(str(place / f"{name}.lance"))
            table.drop_columns([column])
        index = CandidateIndex.open(place)
        assert_holds(index, range(12))
        index.append([("sample-5", state_of(51), candidates_of(2))])
        index.refresh()
        index.forget(["sample-7"])
        # Wherever merging files moves the rows from before.
        rows = index._table.to_table()
        lance.write_dataset(rows.take([*range(12, len(rows)), *range(12)]), str(place / "images.lance"), mode="overwrite")
        opened = CandidateIndex.open(place)
        assert opened.images["sample-5"].file == state_of(51)
        assert "sample-7" not in opened.images


class TestPlaces:
    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_every_address(self, place: Path, prefix: str) -> None:
        uri = f"{prefix}{place}"
        index = make_index(uri)
        assert index.uri == uri
        assert_holds(CandidateIndex.open(uri), range(12))
        assert (place / "images.lance").is_dir()
        index.delete()
        assert not (place / "images.lance").exists()
        assert not (place / "candidates.lance").exists()
        assert index.images == {}
        with pytest.raises(IndexNotFoundError):
            CandidateIndex.open(uri)

    def test_a_slash_at_the_end_does_not_matter(self, place: Path) -> None:
        make_index(f"{place}/")
        assert_holds(CandidateIndex.open(place), range(12))

    def test_spaces_and_other_letters(self, tmp_path: Path) -> None:
        place = tmp_path / "my índex 名前"
        make_index(place)
        assert_holds(CandidateIndex.open(place), range(12))

    def test_size_is_that_of_the_data_files(self, place: Path) -> None:
        index = make_index(place)
        data = sum(path.stat().st_size for path in place.rglob("data/*"))
        assert index.num_bytes == data > 0
        CandidateIndex.open(place).append(items(range(20, 30)))
        assert index.num_bytes == data
        index.refresh()
        assert index.num_bytes == sum(path.stat().st_size for path in place.rglob("data/*")) > data


class TestCreate:
    def test_twice_is_the_same_index(self, place: Path) -> None:
        make_index(place)
        assert_holds(CandidateIndex.create(place, SETTINGS), range(12))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dataset_id": "8"}, "was built for the dataset '7', not '8'"),
            ({"model": "large"}, "was built for the model 'demo', not 'large'"),
            ({"exact": True}, "was built for exact False, not True"),
            ({"fingerprint": "0" * 12}, "was built for other weights or settings of the same preset"),
        ],
    )
    def test_of_other_settings(self, place: Path, change: dict[str, Any], words: str) -> None:
        index = make_index(place)
        for refuse in (index.require, lambda settings: CandidateIndex.create(place, settings)):
            with pytest.raises(IndexMismatchError, match=f"{words}: choose another place for this one") as caught:
                refuse(replace(SETTINGS, **change))
            assert str(place) in str(caught.value)
        assert_holds(CandidateIndex.open(place), range(12))

    def test_what_follows_from_the_models_is_not_compared(self, place: Path) -> None:
        make_index(place).require(replace(SETTINGS, revisions={}))


def damage(path: Path, keep: float) -> None:
    """Cut a file off after this share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def data_files(place: Path, table: str) -> list[Path]:
    return sorted((place / f"{table}.lance" / "data").iterdir())


class TestRefused:
    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_nothing_there(self, place: Path, prefix: str) -> None:
        with pytest.raises(IndexNotFoundError, match=f"There is no candidate index at {prefix}{place}: build one first."):
            CandidateIndex.open(f"{prefix}{place}")
        assert not place.exists()

    def test_another_lance_table(self, place: Path) -> None:
        lance.write_dataset(pa.table({"a": [1, 2]}), str(place / "images.lance"))
        with pytest.raises(IndexDamagedError, match=f"What lies at {place} is not a candidate index: choose another place"):
            CandidateIndex.open(place)
        with pytest.raises(IndexDamagedError, match="is not a candidate index: choose another place"):
            CandidateIndex.create(place, SETTINGS)
        assert lance.dataset(str(place / "images.lance")).count_rows() == 2

    def test_newer_format(self, place: Path) -> None:
        about = json.dumps({"format": NEWEST_FORMAT + 1, "news": True}).encode()
        schema = pa.schema([("a", pa.int64())], metadata={METADATA_KEY: about})
        lance.write_dataset(schema.empty_table(), str(place / "images.lance"))
        with pytest.raises(
            IndexMismatchError, match=rf"written by a newer RefSeg \(format {NEWEST_FORMAT + 1}, this one reads up to"
        ) as caught:
            CandidateIndex.open(place)
        assert "update RefSeg" in str(caught.value)

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
    @pytest.mark.parametrize("table", ["images", "candidates"])
    def test_truncated_data_file(self, place: Path, table: str, keep: float) -> None:
        make_index(place)
        damage(data_files(place, table)[0], keep)
        with pytest.raises(IndexDamagedError, match=f"{place} cannot be read .*: delete it and build it again") as caught:
            contents(CandidateIndex.open(place))
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("table", ["images", "candidates"])
    def test_missing_data_file(self, place: Path, table: str) -> None:
        make_index(place)
        data_files(place, table)[0].unlink()
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            contents(CandidateIndex.open(place))

    @pytest.mark.parametrize("table", ["images", "candidates"])
    def test_truncated_manifest(self, place: Path, table: str) -> None:
        make_index(place)
        for path in (place / f"{table}.lance" / "_versions").glob("*.manifest"):
            damage(path, 0.5)
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            CandidateIndex.open(place)

    def test_missing_candidates(self, place: Path) -> None:
        make_index(place)
        shutil.rmtree(place / "candidates.lance")
        with pytest.raises(IndexDamagedError, match=f"The candidate index at {place} cannot be read"):
            CandidateIndex.open(place)

    def test_data_that_goes_while_it_is_read(self, place: Path) -> None:
        index = make_index(place)
        index.append(items(range(20, 40)))
        index.refresh()
        fresh = CandidateIndex.open(place)
        for path in data_files(place, "candidates"):
            path.unlink()
        with pytest.raises(IndexDamagedError, match="cannot be read"):
            contents(fresh)

    def test_bytes_overwritten_in_the_middle_are_an_error_or_found_by_looking(self, place: Path) -> None:
        """Lance keeps no check sums: what comes back may be wrong, but has the shape of what was written."""
        make_index(place)
        (path,) = data_files(place, "candidates")
        content = bytearray(path.read_bytes())
        for start in range(0, len(content) - 64, len(content) // 12):
            spoilt = bytearray(content)
            spoilt[start : start + 64] = bytes(255 - byte for byte in spoilt[start : start + 64])
            path.write_bytes(spoilt)
            try:
                found = contents(CandidateIndex.open(place))
            except IndexDamagedError:
                continue
            assert all(len(candidates) <= 4 for candidates in found.values())
        path.write_bytes(content)
        assert_holds(CandidateIndex.open(place), range(12))

    def test_images_whose_candidates_are_not_all_there_do_not_count(self, place: Path) -> None:
        index = make_index(place)
        index._candidates.delete(f"image = {index.images['sample-3'].key}")
        assert_holds(CandidateIndex.open(place), [number for number in range(12) if number != 3])

    @pytest.mark.parametrize(
        "cause",
        [
            lambda place: CandidateIndex.open(place / "nowhere"),
            lambda place: CandidateIndex.create(place, replace(SETTINGS, model="large")),
            lambda place: (damage(data_files(place, "images")[0], 0.5), CandidateIndex.open(place)),
            lambda place: (place.joinpath("file").touch(), CandidateIndex.create(place / "file", SETTINGS)),
        ],
        ids=["not found", "mismatch", "damaged", "unwritable"],
    )
    def test_errors_survive_pickling(self, place: Path, cause: Callable[[Path], Any]) -> None:
        make_index(place)
        with pytest.raises(CandidateIndexError) as caught:
            cause(place)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert type(copy) is type(caught.value)
        assert str(copy) == str(caught.value)
        assert "\n" not in str(copy)
