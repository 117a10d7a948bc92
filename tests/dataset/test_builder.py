"""Computing what an index lacks: the models a batch ahead, what is written when, two builders at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fiftyone as fo
import lance
import pytest

import refseg.candidates.tiles
import refseg.dataset.builder
from refseg.dataset.file_states import file_state
from refseg.dataset.index import index_for
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import iter_build_index
from refseg.index.leases import Leases
from refseg.models.loaded import load_models
from refseg.progress import Progress, drain
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import segment
from tests.dataset.building import build, count_batches, held_by
from tests.index.test_candidate_index import contents
from tests.trays import propose_truth, tray_samples

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


class TestBuild:
    def test_the_models_are_a_batch_ahead(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """While nobody asks for the second batch it is computed; closed then, the build keeps what it had handed on."""
        second, batches = threading.Event(), 0
        real = refseg.candidates.tiles.propose_from_pixels

        def propose_from_pixels(*arguments: Any, **options: Any) -> Any:
            nonlocal batches
            found = real(*arguments, **options)
            batches += 1
            if batches == 2:
                second.set()
            return found

        monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", propose_from_pixels)
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
        real, batches = refseg.candidates.tiles.propose_from_pixels, 0

        def propose_from_pixels(*arguments: Any, **options: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == 2:
                raise ZeroDivisionError("a mistake in the code")
            return real(*arguments, **options)

        monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", propose_from_pixels)
        with pytest.raises(ZeroDivisionError, match="a mistake in the code"):
            build(trays, num_workers=1)
        assert held_by(trays).keys() == set(trays[:2].values("id"))


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
        real, calls = refseg.candidates.tiles.propose_from_pixels, []

        def fails_at_the_second(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return real(*arguments, **options)

        monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", fails_at_the_second)
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
    def test_one_that_this_thread_has_left_off_is_not_waited_for(
        self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        first = iter_build_index(trays, "demo", num_workers=0)
        assert [next(first).done, next(first).done] == [0, 2]
        second = build(trays)
        assert (second.num_images, second.num_added) == (4, 4)  # nothing was written yet
        # Before it leases more the first one looks again.
        steps = list(first)
        assert [step.done for step in steps] == [4]
        assert computed == [2, 2, 2]
        assert {name: len(candidates) for name, candidates in held_by(trays).items()} == dict.fromkeys(trays.values("id"), 2)

    @pytest.mark.parametrize("num_builders", [2, 4])
    def test_each_image_is_computed_once(
        self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_builders: int
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 16))
        propose_truth(monkeypatch, dataset)
        batches = count_batches(monkeypatch)
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_LOOK", 0.05)
        index_for(dataset, load_models("demo"))
        with ThreadPoolExecutor(num_builders) as pool:
            reports = list(pool.map(lambda _: build(dataset), range(num_builders)))
        assert sum(batches) == sum(report.num_added for report in reports) == 16
        assert [(report.num_images, report.vanished) for report in reports] == [(16, ())] * num_builders
        assert held_by(dataset).keys() == set(dataset.values("id"))
        assert open_index(dataset).index.num_unread_rows == 0

    @pytest.mark.parametrize("beside", [{"cpu"}, set()])
    def test_what_another_one_computes_is_waited_for(
        self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch, beside: set[str]
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.BESIDE_PROCESSOR", beside)
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_LOOK", 0.02)
        ids = trays.values("id")
        leases = at_work_elsewhere(trays)
        assert leases.take(ids[:2]) == set(ids[:2])
        work = iter_build_index(trays, "demo", num_workers=1)
        steps = [next(work) for _ in range(4)]
        waiting = "images, 2 of them at work in another builder"
        assert [(step.done, step.label) for step in steps] == [(0, "images"), (2, "images"), (2, waiting), (2, waiting)]
        # What others may wait for is written meanwhile.
        assert held_by(trays).keys() == set(ids[2:])
        leases.close()
        assert next(step for step in work if step.label == "images").done == 4
        assert list(work) == []
        assert held_by(trays).keys() == set(ids)
        assert computed == [2, 2]

    def test_what_another_one_has_done_meanwhile_is_read(
        self, trays: fo.Dataset, prototypes: Prototypes, computed: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Segmenting waits too, and then answers from the index."""
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_LOOK", 0.02)
        ids = trays.values("id")
        build(trays, uri=None)
        kept = contents(open_index(trays).index)
        open_index(trays).index.forget(ids)
        leases, index = at_work_elsewhere(trays), open_index(trays).index
        leases.take(ids[:2])
        seen: list[Progress] = []

        def watch(step: Progress) -> None:
            seen.append(step)
            if step.label != "images" and "builder" in step.label:
                states = {sample.id: file_state(sample.filepath) for sample in trays}
                index.append([(name, states[name], kept[name]) for name in ids[:2]])
                leases.close()

        report = segment(trays, prototypes, num_workers=0, progress=watch, min_confidence=0.0)
        assert "images, 2 of them at work in another builder" in [step.label for step in seen]
        assert (report.num_images, report.num_from_index) == (4, 2)
        assert computed == [2, 2, 2]

    @pytest.mark.thorough
    def test_without_leases_the_work_goes_on(
        self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(trays[:2])
        place = Path(open_index(trays).uri) / "leases.lance"
        shutil.rmtree(place)
        place.write_text("no table")
        assert build(trays).num_images == 4
        assert computed == [2, 2]

    def test_leases_that_cannot_be_written_any_more_lose_no_image(
        self, trays: fo.Dataset, computed: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work), next(work)

        def refuse(*_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr("refseg.index.leases.create_table", refuse)
        assert drain(work, False).num_images == 4
        assert computed == [2, 2]
        assert held_by(trays).keys() == set(trays.values("id"))

    def test_leases_end_with_the_work(self, trays: fo.Dataset) -> None:
        build(trays[:2])
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work), next(work)
        place = Path(open_index(trays).uri) / "leases.lance"
        assert lance.dataset(str(place)).count_rows() == 1
        work.close()
        assert lance.dataset(str(place)).count_rows() == 0
        assert list((place / "data").iterdir()) == []


def at_work_elsewhere(dataset: fo.Dataset) -> Leases:
    """The leases of a builder that another thread carries on."""
    leases = index_for(dataset, load_models("demo")).index.leases()
    leases.thread += 1
    return leases
