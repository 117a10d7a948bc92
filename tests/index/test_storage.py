"""Where tables of an index lie: made, refused and removed there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refseg.errors import CandidateIndexError, IndexWriteError
from refseg.index.candidate_index import CandidateIndex
from refseg.index.space import local_path
from tests.index.test_candidate_index import SETTINGS, assert_holds, items, make_index


class TestPlaces:
    @pytest.mark.parametrize(
        ("uri", "path"),
        [
            ("/data/index", Path("/data/index")),
            ("file:///data/index", Path("/data/index")),
            ("data/index", Path("data/index")),
            ("s3://bucket/index", None),
            ("file-object-store:///data/index", None),
        ],
    )
    def test_local_path(self, uri: str, path: Path | None) -> None:
        assert local_path(uri) == path

    def test_delete_leaves_what_is_not_its_own(self, place: Path) -> None:
        index = make_index(place)
        (place / "notes.txt").write_text("mine")
        index.delete()
        assert [path.name for path in place.iterdir()] == ["notes.txt"]

    def test_delete_of_an_index_that_cannot_be_read(self, place: Path) -> None:
        index = make_index(place)
        for path in place.rglob("*.lance"):
            if path.is_file():
                path.write_bytes(b"no table")
        index.delete()
        assert not place.exists()

    def test_delete_twice(self, place: Path) -> None:
        index = make_index(place)
        index.delete()
        index.delete()
        assert not place.exists()


class TestCreate:
    @pytest.mark.parametrize("missing", ["images", "candidates"])
    def test_half_made(self, place: Path, missing: str) -> None:
        """As a process leaves it that is killed between the two tables."""
        CandidateIndex.create(place, SETTINGS)
        shutil.rmtree(place / f"{missing}.lance")
        index = CandidateIndex.create(place, SETTINGS)
        index.append(items([1, 2]))
        index.refresh()
        assert_holds(index, [1, 2])

    def test_where_a_file_lies(self, place: Path) -> None:
        place.write_text("a file")
        with pytest.raises(IndexWriteError, match=f"Nothing more can be written to the candidate index at {place}") as caught:
            CandidateIndex.create(place, SETTINGS)
        assert "/rustc" not in str(caught.value)
        assert ".rs" not in str(caught.value)

    def test_on_an_unknown_kind_of_store(self) -> None:
        with pytest.raises(CandidateIndexError, match="ftp://host/index"):
            CandidateIndex.create("ftp://host/index", SETTINGS)
