"""Second looks in an index: written, read, found again, cleared away, and of another version."""

from __future__ import annotations

from pathlib import Path

import lance
import pytest
import torch

from refseg.errors import IndexDamagedError, IndexWriteError
from refseg.index import looks as module
from refseg.index.candidate_index import CandidateIndex
from refseg.index.looks import Looks
from refseg.index.tables import FileState, IndexedImage
from tests.index.test_candidate_index import candidates_of, make_index, state_of

WIDTH = 6


def image(key: int) -> IndexedImage:
    return IndexedImage(f"sample {key}", key, FileState("a.png", 1, 1), (4, 4), 9, 1)


def look(*rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(rows), torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed)).half().float()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    looks = Looks(str(tmp_path))
    assert len(looks) == 0
    first, second = look(4, 1), look(0, seed=1)
    looks.append([(image(7), *first), (image(-3), *second)])
    for opened in (looks, Looks(str(tmp_path))):
        assert len(opened) == 3
        found = opened.read([image(-3), image(5), image(7)])
        assert [rows.tolist() for rows, _ in found] == [[0], [], [1, 4]], "in the order of the images asked for, rows rising"
        assert torch.equal(found[0][1], second[1])
        assert torch.equal(found[2][1], first[1][[1, 0]])
        assert found[1][1].shape == (0, WIDTH)


def test_more_looks_at_the_same_image(tmp_path: Path) -> None:
    looks = Looks(str(tmp_path))
    looks.append([(image(7), *look(4, 1))])
    looks.append([(image(7), *look(2, seed=2))])
    ((rows, found),) = looks.read([image(7)])
    assert rows.tolist() == [1, 2, 4]
    assert torch.equal(found[1], look(2, seed=2)[1][0])


def test_two_processes_that_look_at_the_same(tmp_path: Path) -> None:
    """Each has opened the table before the other wrote; either look is right, and it is read once."""
    first, second = Looks(str(tmp_path)), Looks(str(tmp_path))
    first.append([(image(7), *look(1, 2))])
    second.append([(image(7), *look(2, 3))])
    ((rows, found),) = Looks(str(tmp_path)).read([image(7)])
    assert rows.tolist() == [1, 2, 3]
    assert found.shape == (3, WIDTH)


def test_many_small_writes_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAGMENTS_TO_TIDY", 4)
    looks = Looks(str(tmp_path))
    for key in range(9):
        looks.append([(image(key), *look(1, 2, seed=key))])
    assert len(lance.dataset(str(tmp_path / "looks.lance")).get_fragments()) < 4
    for opened in (looks, Looks(str(tmp_path))):
        for key, (rows, found) in enumerate(opened.read([image(key) for key in range(9)])):
            assert rows.tolist() == [1, 2]
            assert torch.equal(found, look(1, 2, seed=key)[1])


def test_of_nothing(tmp_path: Path) -> None:
    looks = Looks(str(tmp_path))
    looks.append([])
    looks.append([(image(7), torch.zeros(0, dtype=torch.int64), torch.zeros(0, WIDTH))])
    assert not (tmp_path / "looks.lance").exists(), "nothing is made before there is something to keep"
    assert [len(rows) for rows, _ in looks.read([image(7)])] == [0]
    assert looks.read([]) == []
    assert looks.num_bytes == 0


def test_looks_of_another_version_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Looks(str(tmp_path)).append([(image(7), *look(1, 2))])
    monkeypatch.setattr(module, "LOOK_VERSION", 99)
    looks = Looks(str(tmp_path))
    assert len(looks) == 0
    looks.append([(image(7), *look(5))])
    assert [rows.tolist() for rows, _ in Looks(str(tmp_path)).read([image(7)])] == [[5]], "the older ones are replaced"


def test_images_that_are_removed(tmp_path: Path) -> None:
    looks = Looks(str(tmp_path))
    looks.append([(image(key), *look(1, 2, seed=key)) for key in (1, 2, 3)])
    assert looks.keys == {1, 2, 3}
    looks.remove({1, 3, 9})
    for opened in (looks, Looks(str(tmp_path))):
        assert [len(rows) for rows, _ in opened.read([image(1), image(2), image(3)])] == [0, 2, 0]
        assert torch.equal(opened.read([image(2)])[0][1], look(1, 2, seed=2)[1])


def test_a_damaged_table_is_said_to_be_one(tmp_path: Path) -> None:
    make_index(tmp_path)
    looks = Looks(str(tmp_path))
    looks.append([(image(7), *look(1, 2))])
    for file in (tmp_path / "looks.lance" / "data").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(IndexDamagedError, match="cannot be read"):
        looks.read([image(7)])


def test_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    looks = Looks(str(tmp_path))
    monkeypatch.setattr(lance, "write_dataset", refuse)
    with pytest.raises(IndexWriteError, match="No space left"):
        looks.append([(image(7), *look(1))])


class TestInAnIndex:
    def test_they_follow_their_images(self, place: Path) -> None:
        """Looks at the candidates that an image had before it was indexed again are for nobody, and compact removes them."""
        index = make_index(place)
        names = ["sample-2", "sample-3"]
        index.looks.append([(index.images[name], *look(0, 1)) for name in names])
        assert [len(rows) for rows, _ in index.looks.read([index.images[name] for name in names])] == [2, 2]
        index.append([("sample-3", state_of(99), candidates_of(3))])
        index.refresh()
        assert [len(rows) for rows, _ in index.looks.read([index.images[name] for name in names])] == [2, 0]
        assert len(index.looks) == 4
        index.compact()
        assert len(index.looks) == 2
        assert [len(rows) for rows, _ in index.looks.read([index.images[name] for name in names])] == [2, 0]

    def test_they_count_in_the_size(self, place: Path) -> None:
        index = make_index(place)
        before = index.num_bytes
        index.looks.append([(index.images["sample-2"], *look(0, 1))])
        assert index.num_bytes == before + index.looks.num_bytes > before

    def test_an_index_without_gets_some(self, place: Path) -> None:
        make_index(place)
        assert not (place / "looks.lance").exists()
        opened = CandidateIndex.open(place)
        assert len(opened.looks) == 0
        opened.looks.append([(opened.images["sample-1"], *look(0))])
        assert len(CandidateIndex.open(place).looks) == 1

    def test_deleted_with_the_index(self, place: Path) -> None:
        index = make_index(place)
        index.looks.append([(index.images["sample-1"], *look(0))])
        index.delete()
        assert not place.exists()
