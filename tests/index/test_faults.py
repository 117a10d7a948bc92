"""What happens to an index when processes are killed, disks are full, files are cut off, or others tidy up meanwhile.

Builders run in processes of their own, on the session's database.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch

import refseg.dataset.indexing
from refseg.candidates.packing import PackedCandidates
from refseg.dataset.index import index_for
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index, iter_build_index
from refseg.errors import CandidateIndexError, IndexDamagedError, IndexNotFoundError
from refseg.index.candidate_index import CandidateIndex
from refseg.index.search import make_vector_index, search_all, search_vectors
from refseg.progress import drain
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import segment
from tests.at_once import ANSWER_SECONDS, servers
from tests.index.test_candidate_index import assert_holds, assert_same, candidates_of, contents, first_rows, items, make_index
from tests.trays import quick_models, tray_prototypes, tray_samples

MakeDataset = Callable[..., fo.Dataset]

NUM_IMAGES = 12
NUM_KILLS = 4
IMAGES_A_BATCH = 2


@pytest.fixture
def dataset(make_dataset: MakeDataset, tmp_path: Path) -> fo.Dataset:
    """Twelve trays; persistent, because other processes come and go."""
    return make_dataset(draw(tmp_path, NUM_IMAGES), persistent=True)


def draw(folder: Path, num_images: int, seed: int = 33) -> list[fo.Sample]:
    (folder / str(seed)).mkdir()
    return tray_samples(folder / str(seed), num_images, seed=seed)


@pytest.fixture(autouse=True)
def as_in_the_other_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Numbers can differ in the last bit with the images in a batch and with the threads; and threads of several processes
    stand in each other's way."""
    monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_LOOK", 0.1)
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", dict.fromkeys(("cpu", "mps", "cuda"), IMAGES_A_BATCH))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Worker:
    """A process that waits for a word before it begins, and then reports how far it is."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._pipe, other = servers.Pipe()
        self._process = servers.Process(target=target, args=(other, *arguments), daemon=True)
        self._process.start()
        other.close()

    def begin(self) -> None:
        """Let it go on from where it waits."""
        assert self.hear() == "ready"
        self._pipe.send("go")

    def hear(self) -> Any:
        """Its next message; None when it has ended."""
        try:
            assert self._pipe.poll(ANSWER_SECONDS), "the process says nothing"
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return None

    def hear_out(self) -> Any:
        """Its last message."""
        last = None
        while (message := self.hear()) is not None:
            last = message
        return last

    def kill(self) -> bool:
        """Kill it at once; whether it was still at work."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        return self._process.exitcode == -signal.SIGKILL

    def end(self) -> int | None:
        """Wait for it; its exit code."""
        self._process.join(ANSWER_SECONDS)
        return self._process.exitcode


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Start a worker; whatever happens, none outlives the test."""
    workers: list[Worker] = []

    def start_one(target: Callable[..., None], *arguments: Any) -> Worker:
        workers.append(Worker(target, *arguments))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.kill()


def _prepare(pipe: Connection, name: str) -> Any:
    """In a worker: settings of the tests; dataset and models, as soon as it is told to begin."""
    torch.set_num_threads(1)
    refseg.dataset.builder.SECONDS_A_WRITE = 0.0
    refseg.dataset.builder.SECONDS_A_LOOK = 0.1
    refseg.dataset.builder.IMAGES_A_BATCH = dict.fromkeys(("cpu", "mps", "cuda"), IMAGES_A_BATCH)
    dataset, models = fo.load_dataset(name), quick_models()
    pipe.send("ready")
    pipe.recv()
    return dataset, models


def build_there(pipe: Connection, name: str, full_after: int | None = None) -> None:
    """In a worker: build the index, reporting images done; from some number on the disk is full."""
    dataset, models = _prepare(pipe, name)
    work = iter_build_index(dataset, models, num_workers=0)
    try:
        while True:
            done = next(work).done
            pipe.send(done)
            if full_after is not None and done >= full_after:
                fill_disk()
    except StopIteration as end:
        pipe.send((end.value.num_images, end.value.num_added))
    except CandidateIndexError as error:
        pipe.send((type(error).__name__, str(error)))
    finally:
        free_disk()


def segment_there(pipe: Connection, name: str, prototypes: str) -> None:
    """In a worker: segment, with a disk that is full from the first batch on."""
    dataset, models = _prepare(pipe, name)
    loaded = Prototypes.load(prototypes)

    def watch(step: Any) -> None:
        if step.done:
            fill_disk()

    try:
        report = segment(dataset, loaded, model=models, min_confidence=0.0, num_workers=0, progress=watch)
    finally:
        free_disk()
    pipe.send((report.num_images, report.num_written, report.index_trouble))


def lease_there(pipe: Connection, uri: str, sample_ids: list[str]) -> None:
    """In a worker: lease images, and do nothing."""
    pipe.send("ready")
    pipe.recv()
    leases = CandidateIndex.open(uri).leases()
    pipe.send(len(leases.take(sample_ids)))
    time.sleep(ANSWER_SECONDS)


def fill_disk() -> None:
    """No file of this process may grow beyond some bytes any more: writes fail as they do on a full disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def free_disk() -> None:
    """Files may grow again: the captured output is one, and a last flush that fails ends a process with 1 and no word."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)


def held(dataset: fo.Dataset) -> dict[str, PackedCandidates]:
    return contents(open_index(dataset).index)


def built_in_one_go(dataset: fo.Dataset, place: Path) -> dict[str, PackedCandidates]:
    return contents(CandidateIndex.open(build_index(dataset, quick_models(), uri=place, num_workers=0, progress=False).uri))


def assert_alike(found: PackedCandidates, expected: PackedCandidates) -> None:
    """The same masks, whatever else was in the batch that each was computed in."""
    assert len(found) == len(expected)
    torch.testing.assert_close(found.predicted_iou, expected.predicted_iou, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=2e-3)
    rows = torch.arange(len(found))
    differ = (found.logits_of(rows) > 0) != (expected.logits_of(rows) > 0)
    assert int(differ.flatten(1).sum(1).max()) <= 2


@pytest.mark.slow
@pytest.mark.thorough
def test_killed_again_and_again(
    dataset: fo.Dataset, start: Callable[..., Worker], tmp_path: Path, rng: np.random.Generator
) -> None:
    """At random moments: each kill loses a batch at most, and in the end nothing tells that there were any."""
    dataset.add_samples(draw(tmp_path, NUM_IMAGES, seed=34), progress=False)  # so many that none gets to the end
    index_for(dataset, quick_models())
    worker, num_killed, num_held = start(build_there, dataset.name), 0, 0
    for _ in range(NUM_KILLS):
        following = start(build_there, dataset.name)  # so that it imports while this one works
        worker.begin()
        done = 0
        for _ in range(rng.integers(1, 4)):
            message = worker.hear()
            done = message if isinstance(message, int) else done
        time.sleep(rng.random() * 0.15)
        num_killed += worker.kill()
        now_held = len(held(dataset))
        assert now_held >= max(num_held, done - IMAGES_A_BATCH)
        worker, num_held = following, now_held
    assert num_killed >= NUM_KILLS / 2
    worker.begin()
    assert worker.hear_out()[0] == 2 * NUM_IMAGES
    assert worker.end() == 0
    index = open_index(dataset)
    status = index.status()
    assert (status.num_indexed, status.num_changed, status.num_deleted) == (2 * NUM_IMAGES, 0, 0)
    assert index.verify(progress=False).damaged == ()
    found, expected = held(dataset), built_in_one_go(dataset, tmp_path / "one go")
    assert found.keys() == expected.keys() == set(dataset.values("id"))
    for name, candidates in expected.items():
        assert_same(found[name], candidates)
    index.compact()
    assert index.status().num_unread_rows == 0
    for name, candidates in contents(index.index).items():
        assert_same(candidates, expected[name])


@pytest.mark.slow
class TestTwoBuilders:
    @pytest.mark.thorough
    def test_share_the_images(self, dataset: fo.Dataset, start: Callable[..., Worker], tmp_path: Path) -> None:
        """Each is computed once, and both return when all are there."""
        dataset.add_samples(draw(tmp_path, NUM_IMAGES, seed=34), progress=False)
        index_for(dataset, quick_models())
        workers = [start(build_there, dataset.name) for _ in range(2)]
        for worker in workers:
            worker.begin()
        reports = [worker.hear_out() for worker in workers]
        assert [worker.end() for worker in workers] == [0, 0]
        assert [num_images for num_images, _ in reports] == [2 * NUM_IMAGES] * 2
        assert sum(num_added for _, num_added in reports) == 2 * NUM_IMAGES
        assert all(num_added for _, num_added in reports)
        found, expected = held(dataset), built_in_one_go(dataset, tmp_path / "one go")
        assert found.keys() == expected.keys()
        for name, candidates in expected.items():
            assert_alike(found[name], candidates)
        assert open_index(dataset).verify(progress=False).damaged == ()

    @pytest.mark.thorough
    def test_one_takes_over_from_one_that_is_killed(self, dataset: fo.Dataset, start: Callable[..., Worker]) -> None:
        index_for(dataset, quick_models())
        killed, other = (start(build_there, dataset.name) for _ in range(2))
        killed.begin()
        while killed.hear() < IMAGES_A_BATCH:
            pass
        assert killed.kill(), "it was still at work"
        other.begin()
        assert other.hear_out()[0] == NUM_IMAGES
        assert other.end() == 0
        assert held(dataset).keys() == set(dataset.values("id"))

    def test_one_that_waits_takes_over_from_one_that_is_killed(self, dataset: fo.Dataset, start: Callable[..., Worker]) -> None:
        index_for(dataset, quick_models())
        ids = dataset.values("id")
        holder = start(lease_there, open_index(dataset).uri, ids)
        holder.begin()
        assert holder.hear() == len(ids)
        work = iter_build_index(dataset, quick_models(), num_workers=0)
        steps = [next(work) for _ in range(3)]
        assert [step.label for step in steps[1:]] == [f"images, {NUM_IMAGES} of them at work in another builder"] * 2
        assert holder.kill(), "it was still at work"
        assert drain(work, False).num_added == NUM_IMAGES


@pytest.mark.slow
class TestFullDisk:
    def test_building_stops_with_a_sentence_and_goes_on_later(
        self, dataset: fo.Dataset, start: Callable[..., Worker], tmp_path: Path
    ) -> None:
        worker = start(build_there, dataset.name, 6)
        worker.begin()
        kind, words = worker.hear_out()
        assert worker.end() == 0
        dataset.reload()
        index = open_index(dataset)
        assert kind == "IndexWriteError"
        assert words.startswith(f"Nothing more can be written to the candidate index at {index.uri} (")
        assert words.endswith("What it held before is kept: make room, or choose another place, and run again to go on.")
        before = held(dataset)
        assert len(before) == 6 - IMAGES_A_BATCH  # the batch that was reported last could not be written any more
        report = build_index(dataset, quick_models(), num_workers=0, progress=False)
        assert (report.num_images, report.num_added) == (NUM_IMAGES, NUM_IMAGES - len(before))
        expected = built_in_one_go(dataset, tmp_path / "one go")
        after = contents(CandidateIndex.open(report.uri))
        for name, candidates in expected.items():
            assert_same(after[name], candidates)

    @pytest.mark.thorough
    def test_segmenting_goes_on_without_keeping_anything(
        self, dataset: fo.Dataset, start: Callable[..., Worker], tmp_path: Path
    ) -> None:
        prototypes = tmp_path / "prototypes.safetensors"
        tray_prototypes(tmp_path).save(prototypes)
        worker = start(segment_there, dataset.name, str(prototypes))
        worker.begin()
        num_images, num_written, trouble = worker.hear_out()
        assert worker.end() == 0
        assert (num_images, num_written) == (NUM_IMAGES, NUM_IMAGES)
        assert trouble.startswith("Nothing more can be written to the candidate index at ")
        dataset.reload()
        assert all(value is not None for value in dataset.values("predictions"))
        assert held(dataset) == {}


class TestCutOffFiles:
    @pytest.mark.thorough
    def test_any_file_cut_off_is_an_error_or_makes_no_difference(self, tmp_path: Path) -> None:
        place = tmp_path / "index"
        make_index(place).append(items([12, 13]))
        CandidateIndex.open(place).forget(["sample-5"])
        expected = contents(CandidateIndex.open(place))
        refused = []
        for path in [path for path in sorted(place.rglob("*")) if path.is_file()]:
            content = path.read_bytes()
            for keep in (0, len(content) // 2, len(content) - 1):
                path.write_bytes(content[:keep])
                try:
                    found = contents(CandidateIndex.open(place))
                except CandidateIndexError:
                    refused.append(path)
                    continue
                assert found.keys() == expected.keys()
                for name, candidates in expected.items():
                    assert_same(found[name], candidates)
            path.write_bytes(content)
        assert {path for path in refused if path.parent.name == "data"} == set(place.rglob("data/*"))
        assert_holds(CandidateIndex.open(place), [number for number in range(14) if number != 5])


NOW = timedelta(0)
"""What compacting replaces goes at once."""


def number_of(sample_id: str) -> int:
    return int(sample_id.split("-")[1])


class TestTidiedUpMeanwhile:
    @pytest.mark.parametrize("chunks_before", [0, 1, 5])
    @pytest.mark.parametrize("features_only", [False, True])
    def test_a_scan_gives_each_image_once(self, tmp_path: Path, chunks_before: int, features_only: bool) -> None:
        """Its files go while it reads: what it has not given yet comes as it is now."""
        index = CandidateIndex.create(tmp_path, make_index(tmp_path).settings)
        for number in range(12, 40):
            index.append(items([number]))
        reader = CandidateIndex.open(tmp_path)
        scan = reader.scan(rows=3, features_only=features_only)
        seen = [next(scan) for _ in range(chunks_before)]
        given = {image.sample_id for chunk in seen for image in chunk.images}
        index.refresh()
        index.forget(["sample-30"])
        index.append([("sample-31", items([31])[0][1], candidates_of(30))])
        index.compact(grace=NOW)
        seen += list(scan)
        names = [image.sample_id for chunk in seen for image in chunk.images]
        assert sorted(names, key=number_of) == [f"sample-{number}" for number in range(40) if number != 30]
        assert len(given) < 40 - 3
        for chunk in seen:
            for number, image in enumerate(chunk.images):
                expected = candidates_of(30 if image.sample_id == "sample-31" else number_of(image.sample_id))
                own = chunk.features[chunk.starts[number] : chunk.starts[number + 1]]
                assert torch.equal(own, expected.features)
                if not features_only:
                    assert_same(chunk.candidates(number), expected)
        # Whoever asks next sees what the scan saw.
        assert contents(reader).keys() == set(names)

    def test_files_that_go_without_a_newer_version_are_damage(self, tmp_path: Path) -> None:
        reader = make_index(tmp_path)
        scan = reader.scan(rows=3)
        next(scan)
        for path in (tmp_path / "candidates.lance" / "data").iterdir():
            path.unlink()
        with pytest.raises(IndexDamagedError, match="delete it and build it again"):
            list(scan)

    def test_damage_stays_damage_beside_a_builder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is a newer version at each try, and none can be read."""
        reader, writer = make_index(tmp_path, range(1, 12)), CandidateIndex.open(tmp_path)
        spoilt = list((tmp_path / "candidates.lance" / "data").iterdir())
        scan = reader.scan(rows=3)
        next(scan)
        real, tries = reader.refresh, []

        def refresh() -> None:
            tries.append(1)
            writer.append(items([20 + len(tries)]))
            real()

        monkeypatch.setattr(reader, "refresh", refresh)
        for path in spoilt:
            # The names of images can still be read.
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
        with pytest.raises(IndexDamagedError, match="delete it and build it again"):
            list(scan)
        assert len(tries) <= 5

    def test_second_looks(self, tmp_path: Path) -> None:
        index = make_index(tmp_path)
        names = ["sample-2", "sample-3", "sample-7"]
        looks = {name: torch.randn(2, 6, generator=torch.Generator().manual_seed(number_of(name))).half() for name in names}
        for name in names:
            index.looks.append([(index.images[name], torch.tensor([0, 1]), looks[name])])
        reader = CandidateIndex.open(tmp_path)
        assert len(reader.looks) == 6
        index.compact([name for name in index.images if name != "sample-2"], grace=NOW)
        found = reader.looks.read([reader.images[name] for name in names])
        assert [rows.tolist() for rows, _ in found] == [[], [0, 1], [0, 1]]
        for name, (_, own) in list(zip(names, found, strict=True))[1:]:
            assert torch.equal(own, looks[name].float())

    @pytest.mark.parametrize("phase", [0, 1])
    def test_the_exact_search(self, tmp_path: Path, phase: int) -> None:
        """Also where the nearest image is indexed again between comparing and fetching: its rows are others then."""
        index = make_index(tmp_path, [1, 2, 3, 5, 6, 7])
        reader = CandidateIndex.open(tmp_path)
        vector = candidates_of(7).features[2]
        search = search_all(reader, vector, 1)
        for _ in range(phase):
            next(search)
        index.append([("sample-7", items([7])[0][1], first_rows(candidates_of(7), 1)), *items([9])])
        index.append([("sample-2", items([2])[0][1], candidates_of(7))])
        index.compact(grace=NOW)
        if phase:
            reader.refresh()
        (found,) = drain(search, False)
        assert found.image.sample_id == "sample-2"
        assert found.score == pytest.approx(1, abs=1e-3)
        assert torch.equal(found.candidate.features[0], vector)

    def test_segmenting(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """Again and again, while each image is indexed again and the files of before go at once."""
        options: dict[str, Any] = {"min_confidence": 0.0, "num_workers": 0, "progress": False}
        segment(trays, prototypes, "before", **options)
        index, stop, rounds = open_index(trays).index, Event(), []

        def compact() -> None:
            writer = CandidateIndex.open(index.uri)
            known = contents(writer)
            while not stop.is_set():
                writer.append([(name, writer.images[name].file, candidates) for name, candidates in known.items()])
                writer.compact(grace=NOW)
                rounds.append(1)

        thread = Thread(target=compact)
        thread.start()
        try:
            for number in range(4):
                report = segment(trays, prototypes, f"after_{number}", **options)
                assert (report.num_images, report.num_from_index) == (4, 4)
        finally:
            stop.set()
            thread.join()
        assert rounds
        before = trays.values("before.detections.confidence")
        assert all(before)
        for number in range(4):
            after = trays.values(f"after_{number}.detections.confidence")
            # Which images are matched together depends on when the files went, and the last digits on that.
            for scores, expected in zip(after, before, strict=True):
                assert scores == pytest.approx(expected, abs=1e-6)

    def test_the_vector_index(self, tmp_path: Path) -> None:
        index = make_index(tmp_path, range(1, 60))
        make_vector_index(index)
        reader = CandidateIndex.open(tmp_path)
        index.forget(["sample-5"])
        index.append(items([60, 61]))
        index.compact(grace=NOW)
        assert reader.has_vector_index
        vector = candidates_of(7).features[2]
        found = search_vectors(reader, vector, 5)
        assert found[0].image.sample_id == "sample-7"
        assert found[0].score == pytest.approx(1, abs=1e-3)

    def test_readers_beside_a_writer_that_compacts(self, tmp_path: Path) -> None:
        make_index(tmp_path, range(1, 12))
        stop, answers = Event(), []

        def read() -> None:
            while not stop.is_set():
                answers.append(contents(CandidateIndex.open(tmp_path), rows=4))

        def read_after_refresh() -> None:
            reader = CandidateIndex.open(tmp_path)
            while not stop.is_set():
                reader.refresh()
                answers.append(contents(reader, rows=4))

        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=guarded, args=(work,)) for work in (read, read_after_refresh)]
        for thread in threads:
            thread.start()
        writer = CandidateIndex.open(tmp_path)
        for number in range(12, 24):
            writer.append(items([number, number - 11]))
            writer.compact(grace=NOW)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert answers
        for answer in answers:
            assert answer.keys() >= {f"sample-{number}" for number in range(1, 12)}
            for name, candidates in answer.items():
                assert_same(candidates, candidates_of(int(name.split("-")[1])))
        assert_holds(CandidateIndex.open(tmp_path), range(1, 24))

    def test_writers_beside_one_that_merges_small_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.index.candidate_index.FRAGMENTS_TO_TIDY", 3)
        make_index(tmp_path, range(1, 4))
        failures: list[BaseException] = []

        def write(first: int) -> None:
            try:
                index = CandidateIndex.open(tmp_path)
                for number in range(first, first + 8):
                    index.append(items([number]))
                    index.refresh()
                    index.tidy_if_due()
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=write, args=(first,)) for first in (10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        written = [*range(1, 4), *range(10, 18), *range(20, 28), *range(30, 38)]
        index = CandidateIndex.open(tmp_path)
        found = contents(index)
        assert found.keys() == {f"sample-{number}" for number in written}
        for name, candidates in found.items():
            assert_same(candidates, candidates_of(int(name.split("-")[1])))

    def test_an_index_deleted_while_it_is_read(self, tmp_path: Path) -> None:
        index = make_index(tmp_path / "index")
        reader = CandidateIndex.open(tmp_path / "index")
        index.delete()
        for read in (lambda: contents(reader), reader.refresh, reader.refresh_if_changed):
            with pytest.raises(IndexNotFoundError, match=r"There is no candidate index at .*: build one first"):
                read()
