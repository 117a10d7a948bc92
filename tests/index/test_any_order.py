"""Whatever is done to an index in whatever order, by one or two who write to it: it holds what a dictionary would."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule, run_state_machine_as_test

from refseg.candidates.packing import PackedCandidates
from refseg.index.candidate_index import CandidateIndex
from refseg.index.compacting import tidy
from refseg.index.tables import FileState, IndexChunk
from tests.index.test_candidate_index import SETTINGS, assert_same, candidates_of, contents, state_of

NAMES = st.lists(st.integers(0, 5), unique=True, max_size=4)
"""Images by number."""
HANDLES = st.integers(0, 1)
STATES = st.integers(0, 99)

_packed = [candidates_of(number) for number in range(8)]


class AnyOrder(RuleBasedStateMachine):
    """An index that two handles write to, a dictionary of what it should hold, and scans that are half done."""

    scans = Bundle("scans")

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.handles = [CandidateIndex.create(self.place, SETTINGS) for _ in range(2)]
        self.held: dict[str, tuple[FileState, PackedCandidates]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def name(self, number: int) -> str:
        return f"sample-{number}"

    def fresh(self, handle: int) -> CandidateIndex:
        """A handle that knows what the other one has written: who writes on what is outdated changes nothing newer."""
        self.handles[handle].refresh()
        return self.handles[handle]

    @initialize(numbers=NAMES)
    def begins(self, numbers: list[int]) -> None:
        self.append(0, numbers, 3, 1)

    @rule(handle=HANDLES, numbers=NAMES, which=st.integers(0, 7), state=STATES)
    def append(self, handle: int, numbers: list[int], which: int, state: int) -> None:
        packed = [_packed[(number + which) % len(_packed)] for number in numbers]
        new = {self.name(number): (state_of(state), own) for number, own in zip(numbers, packed, strict=True)}
        self.fresh(handle).append([(name, *facts) for name, facts in new.items()])
        self.held |= new

    @rule(handle=HANDLES, numbers=NAMES)
    def forget(self, handle: int, numbers: list[int]) -> None:
        self.fresh(handle).forget([self.name(number) for number in numbers])
        for number in numbers:
            self.held.pop(self.name(number), None)

    @rule(handle=HANDLES, numbers=NAMES, state=STATES)
    def touch(self, handle: int, numbers: list[int], state: int) -> None:
        index = self.fresh(handle)
        known = [index.images[self.name(number)] for number in numbers if self.name(number) in self.held]
        index.touch([replace_state(image, state_of(state)) for image in known])
        self.held |= {image.sample_id: (state_of(state), self.held[image.sample_id][1]) for image in known}

    @rule(handle=HANDLES, numbers=st.none() | NAMES, seconds=st.sampled_from([0, 600]))
    def compact(self, handle: int, numbers: list[int] | None, seconds: int) -> None:
        keep = None if numbers is None else {self.name(number) for number in numbers}
        self.handles[handle].compact(keep, timedelta(seconds=seconds))
        if keep is not None:
            self.held = {name: facts for name, facts in self.held.items() if name in keep}

    @rule()
    def merge(self) -> None:
        tidy(str(self.place), None)

    @rule(handle=HANDLES, numbers=NAMES, which=st.integers(0, 7), name=st.sampled_from(["images", "candidates"]))
    def merge_beside_a_write(self, handle: int, numbers: list[int], which: int, name: str) -> None:
        """Files as they were before a write are merged after it."""
        before = getattr(self.fresh(handle)._snapshot, {"images": "table", "candidates": "candidates"}[name])
        self.append(1 - handle, numbers, which, 7)
        before.optimize.compact_files(target_rows_per_fragment=5)

    @rule(target=scans, handle=HANDLES, num_chunks=st.integers(1, 2))
    def begin_scan(self, handle: int, num_chunks: int) -> tuple[object, ...]:
        scan = self.fresh(handle).scan(rows=2)
        given = [chunk for _, chunk in zip(range(num_chunks), scan, strict=False)]
        return scan, given, dict(self.held)

    @rule(scan=consumes(scans))
    def end_scan(self, scan: tuple[object, ...]) -> None:
        """Each image that was there then, and that nobody took out since, comes once, as it was then or is now."""
        rest, given, before = scan
        chunks: list[IndexChunk] = [*given, *rest]  # type: ignore[misc]
        found = [(image, chunk.candidates(number)) for chunk in chunks for number, image in enumerate(chunk.images)]
        names = [image.sample_id for image, _ in found]
        assert len(set(names)) == len(names)
        assert set(before) & set(self.held) <= set(names) <= set(before)
        for image, candidates in found:
            one = before[image.sample_id], self.held.get(image.sample_id, before[image.sample_id])
            assert any(same(candidates, packed) for _, packed in one)

    @invariant()
    def holds(self) -> None:
        index = CandidateIndex.open(self.place)
        assert {name: image.file for name, image in index.images.items()} == {
            name: state for name, (state, _) in self.held.items()
        }
        for name, candidates in contents(index, rows=3).items():
            assert_same(candidates, self.held[name][1])


def replace_state(image: object, state: FileState) -> object:
    from dataclasses import replace

    return replace(image, file=state)  # type: ignore[type-var]


def same(found: PackedCandidates, expected: PackedCandidates) -> bool:
    return found.codes.equals(expected.codes) and found.image_hw == expected.image_hw


@pytest.mark.slow
@pytest.mark.thorough
def test_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.index.storage.ROWS_A_FRAGMENT", 5)
    run = settings(
        max_examples=25, stateful_step_count=15, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(AnyOrder, settings=run)
