"""Shards become part of an index exactly once, whatever fails on the way."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from refseg.errors import IndexWriteError
from refseg.index import CandidateIndex, ImageFile, IndexedImage, SkippedImage, names_since, write_candidates
from refseg.shards import Committer, Records, Shard
from refseg.shards.shard import name_of_shard
from tests.index.test_candidate_index import assert_holds, candidates_of, make_index, state_of


def shard_of(index: CandidateIndex, numbers: Iterable[int], *, recorded: bool = True) -> Shard:
    """As a worker writes it."""
    files = [ImageFile(f"sample-{number}", f"/x/{number}.png", state_of(number)) for number in numbers]
    packed = [candidates_of(number) for number in numbers]
    rows = [
        IndexedImage(file.sample_id, secrets.randbits(62), file.state, found.image_hw, len(found), 1)
        for file, found in zip(files, packed, strict=True)
    ]
    fragments, version = write_candidates(index.uri, index.settings, rows, packed)
    shard = Shard(name_of_shard(files), tuple(rows), fragments, version)
    if recorded:
        Records(index.uri).keep(shard)
    return shard


@pytest.fixture
def index(tmp_path: Path) -> CandidateIndex:
    return make_index(tmp_path / "index", ())


def records(index: CandidateIndex) -> list[str]:
    folder = Path(index.uri) / "shards"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def num_rows(index: CandidateIndex) -> int:
    index.refresh()
    return index.num_candidates + index.num_unread_rows


class TestShard:
    def test_to_json_and_back(self, index: CandidateIndex) -> None:
        shard = replace(
            shard_of(index, [0, 1]), skipped=(SkippedImage("s9", "/x/9.png", "no image"),), seconds=1.5, worker="w 1"
        )
        assert Shard.from_json(shard.to_json()) == shard

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"name": 1}', '{"images": [{}], "skipped": []}'])
    def test_what_is_no_record(self, text: str) -> None:
        with pytest.raises(ValueError, match="no record of a shard"):
            Shard.from_json(text)

    def test_name_tells_states_apart(self) -> None:
        one = [ImageFile("s1", "/x/1.png", state_of(1))]
        changed = [replace(one[0], state=replace(one[0].state, mtime_ns=5))]
        assert name_of_shard(one) == name_of_shard([replace(one[0], path="/elsewhere/1.png")])
        assert name_of_shard(one) != name_of_shard(changed)


class TestCommit:
    def test_written_files_count_once_they_are_committed(self, index: CandidateIndex) -> None:
        committer = Committer(index)
        for numbers in ([0, 1, 2], [3, 4], [5]):
            assert committer.add(shard_of(index, numbers))
        assert num_rows(index) == 0
        committer.commit()
        index.refresh()
        assert_holds(index, range(6))
        assert index.num_unread_rows == 0
        assert records(index) == []

    def test_of_a_worker_that_was_started_again(self, index: CandidateIndex) -> None:
        committer = Committer(index)
        assert committer.add(shard_of(index, [0, 1]))
        assert not committer.add(shard_of(index, [0, 1]))
        committer.commit()
        assert not committer.add(shard_of(index, [0, 1]))
        committer.commit()
        index.refresh()
        assert_holds(index, range(2))
        assert index.num_unread_rows == 0

    def test_without_any_image(self, index: CandidateIndex) -> None:
        committer = Committer(index)
        shard = Shard("a", (), (), 0, (SkippedImage("s0", "/x/0.png", "no image"),))
        Records(index.uri).keep(shard)
        assert committer.add(shard)
        committer.commit()
        assert num_rows(index) == 0
        assert records(index) == []

    def test_is_due_after_a_while_or_after_many(self, index: CandidateIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        committer = Committer(index)
        committer.add(shard_of(index, [0]))
        assert not committer.commit_if_due()
        monkeypatch.setattr("refseg.shards.committing.SHARDS_A_COMMIT", 2)
        committer.add(shard_of(index, [1]))
        assert committer.commit_if_due()
        hasty = Committer(index, seconds=0.0)
        hasty.add(shard_of(index, [2]))
        assert hasty.commit_if_due()
        index.refresh()
        assert_holds(index, range(3))

    @pytest.mark.parametrize("fails_at", ["shards.candidates", "shards.images"])
    def test_that_failed_goes_on(self, index: CandidateIndex, fails_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str) -> None:
            if name == fails_at:
                raise IndexWriteError("full")

        committer = Committer(index)
        committer.add(shard_of(index, [0, 1]))
        with monkeypatch.context() as patch:
            patch.setattr("refseg.shards.committing.reach", fail)
            with pytest.raises(IndexWriteError):
                committer.commit()
        committer.add(shard_of(index, [2]))
        committer.commit()
        index.refresh()
        assert_holds(index, range(3))
        assert index.num_unread_rows == 0
        assert records(index) == []


class TestRecover:
    def test_nothing_left(self, index: CandidateIndex) -> None:
        assert Committer(index).recover() == []

    @pytest.mark.parametrize("done", ["nothing", "candidates", "images"])
    def test_what_a_killed_driver_left(self, index: CandidateIndex, done: str) -> None:
        shards = [shard_of(index, [0, 1]), shard_of(index, [2])]
        kept = [shard.to_json() for shard in shards]
        if done != "nothing":
            before = Committer(index)
            before.add(shards[0])
            before._records.forget = lambda names: None  # type: ignore[method-assign]
            if done == "candidates":
                index_without_images = make_index(index.uri, ())
                index_without_images.note_images = lambda *a: None  # type: ignore[method-assign]
                before._index = index_without_images
            before.commit()
            index.refresh()
        assert [shard.to_json() for shard in Records(index.uri).read()] == sorted(kept, key=lambda text: text[:30])
        recovered = Committer(index).recover()
        assert {shard.name for shard in recovered} == {shard.name for shard in shards[1 if done == "images" else 0 :]}
        index.refresh()
        assert_holds(index, range(3))
        assert index.num_unread_rows == 0
        assert records(index) == []
        assert Committer(index).recover() == []

    def test_what_nobody_can_read_is_left(self, index: CandidateIndex) -> None:
        shard_of(index, [0])
        (Path(index.uri) / "shards" / "bad.json").write_text("{")
        assert len(Committer(index).recover()) == 1
        index.refresh()
        assert_holds(index, [0])

    def test_of_which_nobody_knows_is_computed_again(self, index: CandidateIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        shard_of(index, [1])
        monkeypatch.setattr("refseg.shards.committing.names_since", lambda *a: None)
        assert Committer(index).recover() == []
        assert num_rows(index) == 0
        assert records(index) == []


def test_names_stay_in_the_transactions(index: CandidateIndex) -> None:
    committer = Committer(index)
    shards = [shard_of(index, [1]), shard_of(index, [2])]
    for shard in shards:
        committer.add(shard)
    committer.commit()
    names = {shard.name for shard in shards}
    assert names_since(index.uri, "candidates", shards[0].version) == names
    assert names_since(index.uri, "images", 1) == names


def test_others_append_meanwhile(index: CandidateIndex) -> None:
    shard = shard_of(index, [0, 1])
    other = CandidateIndex.open(index.uri)
    other.append([("sample-2", state_of(2), candidates_of(2))])
    other.append([("sample-3", state_of(3), candidates_of(3))])
    committer = Committer(index)
    committer.add(shard)
    committer.commit()
    index.refresh()
    assert_holds(index, range(4))
