"""Computing what an index lacks: the models a batch ahead, what is written when, two builders at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

import refseg.dataset.builder
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import iter_build_index
from refseg.index.candidate_index import CandidateIndex
from tests.dataset.building import build, count_batches, held_by
from tests.trays import propose_truth, tray_samples

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


class TestBuild:
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
