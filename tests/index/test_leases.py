"""Who computes which images: of two who want the same one has it, and whoever is gone has none."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import lance
import pytest

from refseg.index import leases as module
from refseg.index.leases import Leases
from refseg.processes import Process

_threads = itertools.count(1)
PREFIXES = ("", "file://", "file-object-store://")


def at_work(uri: Any) -> Leases:
    """As if a thread of its own carried on the work."""
    leases = Leases(str(uri))
    leases.thread = -next(_threads)
    return leases


def rows_of(place: Path) -> list[dict[str, Any]]:
    return lance.dataset(str(place / "leases.lance")).to_table().to_pylist()


class TestTake:
    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_what_one_has_another_does_not_get(self, place: Path, prefix: str) -> None:
        first, second = at_work(f"{prefix}{place}"), at_work(f"{prefix}{place}")
        assert first.others() == {}
        assert not place.exists(), "nothing is made before there is something to keep"
        assert first.take(["a", "b", "c"]) == {"a", "b", "c"}
        assert second.others() == dict.fromkeys("abc", first.owner)
        assert second.take(["b", "c", "d"]) == {"d"}
        assert second.take(["a"]) == set()
        assert first.others() == dict.fromkeys("bcd", second.owner)

    def test_until_it_is_done(self, place: Path) -> None:
        first, second = at_work(place), at_work(place)
        first.take(["a", "b"])
        first.take(["c"])
        first.settle(["a", "c"])
        first.release()
        assert second.others().keys() == {"a", "b"}
        first.settle(["b"])
        assert second.others().keys() == {"a", "b"}
        first.release()
        assert second.others() == {}
        assert rows_of(place) == []

    def test_a_lease_that_came_to_nothing_ends_no_other(self, place: Path) -> None:
        """What is done is not written yet: its lease lasts."""
        first, second = at_work(place), at_work(place)
        first.take(["a"])
        second.take(["b"])
        first.settle(["a"])
        assert first.take(["b"]) == set()
        assert second.others().keys() == {"a"}

    @pytest.mark.parametrize("num_builders", [2, 4])
    def test_of_those_who_want_it_at_once_one_has_it(self, place: Path, num_builders: int) -> None:
        builders = [at_work(place) for _ in range(num_builders)]
        together = Barrier(num_builders)
        names = [str(number) for number in range(10)]

        def take(leases: Leases) -> list[str]:
            won: list[str] = []
            for name in names:
                together.wait()
                won += leases.take([name])
            return won

        with ThreadPoolExecutor(num_builders) as pool:
            found = list(pool.map(take, builders))
        assert sorted(name for won in found for name in won) == names


class TestOver:
    def test_of_a_process_that_is_gone(self, place: Path) -> None:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=take_there, args=(str(place),))
        process.start()
        process.join()
        assert [row["images"] for row in rows_of(place)] == [["a", "b"]]
        leases = Leases(str(place))
        assert leases.others() == {}
        assert rows_of(place) == []

    def test_of_a_process_whose_number_another_one_has(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = at_work(place)
        process = Process.current()
        monkeypatch.setattr(Process, "current", lambda: replace(process, started_at=process.started_at - 60))
        other.take(["a"])
        monkeypatch.undo()
        assert Leases(str(place)).others() == {}

    def test_on_another_host_after_a_while(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other, own = at_work(place), at_work(place)
        process = Process.current()
        monkeypatch.setattr(Process, "current", lambda: replace(process, host="elsewhere"))
        other.take(["a"])
        monkeypatch.undo()
        del other
        gc.collect()
        assert own.others().keys() == {"a"}
        (row,) = rows_of(place)
        assert row["until"] == pytest.approx(time.time() + 300, abs=60)
        monkeypatch.setattr(time, "time", lambda: row["until"] - 1)
        assert own.others().keys() == {"a"}
        monkeypatch.setattr(time, "time", lambda: row["until"] + 1)
        assert own.others() == {}
        assert own.take(["a"]) == {"a"}

    def test_unless_it_is_renewed(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other, own = at_work(place), at_work(place)
        other.take(["a"])
        other.renew_if_due()
        assert len(rows_of(place)) == 1
        start, begun = time.time(), time.monotonic()
        monkeypatch.setattr(time, "time", lambda: start + 200)
        monkeypatch.setattr(time, "monotonic", lambda: begun + 200)
        other.renew_if_due()
        other.renew_if_due()
        assert len(rows_of(place)) == 2
        monkeypatch.setattr(time, "time", lambda: start + 450)
        assert own.others().keys() == {"a"}
        other.settle(["a"])
        other.release()
        assert rows_of(place) == []

    def test_in_this_process(self, place: Path) -> None:
        """Of another thread's work until that is forgotten; of this thread's own, which waits, at once."""
        other, own = at_work(place), Leases(str(place))
        other.take(["a"])
        assert own.others().keys() == {"a"}
        left_off = Leases(str(place))
        left_off.take(["b"])
        assert own.others().keys() == {"a"}
        del other
        gc.collect()
        assert own.others() == {}


class TestClose:
    def test_ends_what_is_not_done_and_leaves_no_files(self, place: Path) -> None:
        first, second = at_work(place), at_work(place)
        first.take(["a", "b"])
        second.take(["c"])
        first.close()
        assert second.others() == {}
        assert [row["images"] for row in rows_of(place)] == [["c"]]
        second.close()
        assert list((place / "leases.lance" / "data").iterdir()) == []

    def test_of_nothing(self, place: Path) -> None:
        Leases(str(place)).close()
        assert not place.exists()

    def test_where_nothing_can_be_written(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leases = at_work(place)
        leases.take(["a"])

        def refuse(*_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(module, "delete_rows", refuse)
        leases.close()
        assert [row["images"] for row in rows_of(place)] == [["a"]]


def take_there(place: str) -> None:
    Leases(place).take(["a", "b"])
    os._exit(0)
