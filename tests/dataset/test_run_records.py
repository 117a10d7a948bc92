"""Records of runs: none is doubled, lost or left over, whatever other processes do meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import fiftyone as fo
import pytest
from bson import ObjectId
from fiftyone.core.odm import get_db_conn
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from refseg.dataset.fields import past_runs, whole_config
from refseg.dataset.run_records import KEPT_UNPOINTED, claim, register, remove_run, update_run
from refseg.errors import DatasetError
from tests.at_once import at_once, other_process

MakeDataset = Callable[..., fo.Dataset]

METHOD = "refseg/test"
TIMES = 20


def register_often(dataset: fo.Dataset, number: int) -> list[bool]:
    """Take the place of a run again and again."""
    return [register(dataset, "parts", config(dataset, number=number), replaces={"method": METHOD}) for _ in range(TIMES)]


def claim_often(dataset: fo.Dataset) -> list[str]:
    return [claim(dataset, "my run", config(dataset)) for _ in range(TIMES)]


def config(dataset: Any, **settings: Any) -> Any:
    return dataset.init_run(method=METHOD, **settings)


def records_of(dataset: fo.Dataset) -> dict[str, list[dict[str, Any]]]:
    """Every document of a run of the dataset, by key, whether anything points to it or not."""
    found: dict[str, list[dict[str, Any]]] = {}
    for document in get_db_conn().runs.find({"_dataset_id": dataset._doc.id}):
        found.setdefault(document["key"], []).append(document)
    return found


def pointers_of(dataset: fo.Dataset) -> dict[str, ObjectId]:
    found = get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {"runs": True})
    assert found is not None
    return dict(found["runs"])


def assert_whole(dataset: fo.Dataset) -> None:
    """Each key points to one document, and each document is pointed to."""
    held = records_of(dataset)
    assert {key: documents[0]["_id"] for key, documents in held.items()} == pointers_of(dataset)
    assert {len(documents) for documents in held.values()} <= {1}
    dataset.reload()
    assert dataset.list_runs() == sorted(held)


class TestTwoProcesses:
    @pytest.mark.thorough
    def test_that_claim_keys(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset(persistent=True)
        first, second = at_once(claim_often, dataset.name, (), ())
        assert len(first) == len(second) == TIMES
        assert sorted(first + second) == sorted(["my_run", *(f"my_run_{number}" for number in range(2, 2 * TIMES + 1))])
        assert sorted(pointers_of(dataset)) == sorted(first + second)
        assert_whole(dataset)

    @pytest.mark.thorough
    def test_that_replace_one_run(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset(persistent=True)
        assert at_once(register_often, dataset.name, (1,), (2,)) == [[True] * TIMES] * 2
        assert list(pointers_of(dataset)) == ["parts"]
        assert whole_config(dataset, "parts")["number"] in (1, 2)
        assert_whole(dataset)


class TestRegister:
    def test_fiftyone_reads_it(self, dataset: fo.Dataset) -> None:
        dataset.add_samples([fo.Sample("a.png"), fo.Sample("b.png")], progress=False)
        assert register(dataset.limit(1), "one", config(dataset, settings=[["a.b", 0.5]]))
        for known in (dataset, other_process(dataset)):
            assert known.get_run_info("one").config.settings == [["a.b", 0.5]]
            assert known.load_run_view("one").values("id") == dataset.limit(1).values("id")
        assert [(run.key, run.is_whole) for run in past_runs(dataset, [METHOD])] == [("one", False)]
        dataset.delete_run("one")
        assert_whole(dataset)

    def test_a_replaced_record_can_still_be_read_by_who_holds_it(self, dataset: fo.Dataset) -> None:
        register(dataset, "one", config(dataset, number=1))
        other = other_process(dataset)
        register(dataset, "one", config(dataset, number=2), replaces={"method": METHOD})
        assert other.get_run_info("one").config.number == 1
        other._doc.reload()
        assert other.get_run_info("one").config.number == dataset.get_run_info("one").config.number == 2
        assert_whole(dataset)

    @pytest.mark.parametrize("replaces", [None, {"method": "another"}])
    def test_a_run_that_is_not_ours_stays(self, dataset: fo.Dataset, replaces: dict[str, Any] | None) -> None:
        other = other_process(dataset)
        register(dataset, "one", config(dataset, number=1))
        assert not register(other, "one", config(dataset, number=2), replaces=replaces)
        assert claim(other, "one", config(dataset, number=2), replaces=replaces) == "one_2"
        assert [whole_config(dataset, key)["number"] for key in ("one", "one_2")] == [1, 2]
        assert other.list_runs() == ["one_2"], "what FiftyOne has loaded there is its own"
        assert_whole(dataset)

    def test_a_pointer_to_nothing_is_no_run(self, dataset: fo.Dataset) -> None:
        register(dataset, "one", config(dataset, number=1))
        get_db_conn().runs.delete_one({"_id": pointers_of(dataset)["one"]})
        assert register(dataset, "one", config(dataset, number=2))
        assert whole_config(dataset, "one")["number"] == 2
        assert_whole(dataset)

    def test_a_deleted_dataset_says_so(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset()
        other = other_process(dataset)
        dataset.delete()
        with pytest.raises(DatasetError, match="was deleted: nothing can be kept with it any more"):
            register(other, "one", config(other))
        assert not get_db_conn().runs.count_documents({"_dataset_id": other._doc.id})

    def test_an_interruption_leaves_nothing(self, dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("pymongo.collection.Collection.update_one", interrupt)
            with pytest.raises(KeyboardInterrupt):
                register(dataset, "one", config(dataset))
        assert records_of(dataset) == {}

    def test_an_answer_that_was_lost(self, dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            lose_answers(patch)
            assert register(dataset, "one", config(dataset, number=1))
            assert register(dataset, "one", config(dataset, number=2), replaces={"method": METHOD})
            update_run(dataset, "one", {"more": 3})
        known = whole_config(dataset, "one")
        assert (known["number"], known["more"]) == (2, 3)
        assert_whole(dataset)
        with monkeypatch.context() as patch:
            lose_answers(patch)
            remove_run(dataset, "one")
        assert records_of(dataset) == {}
        assert pointers_of(dataset) == {}


def lose_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update and deletion arrives, and its first answer does not."""
    monkeypatch.setattr("refseg.dataset.connection.time.sleep", lambda seconds: None)
    for name in ("update_one", "delete_one"):
        whole = getattr(Collection, name)
        is_lost = itertools.cycle([True, False])

        def first_lost(*args: Any, whole: Any = whole, is_lost: Any = is_lost, **kwargs: Any) -> Any:
            answer = whole(*args, **kwargs)
            if next(is_lost):
                raise AutoReconnect("the connection broke")
            return answer

        monkeypatch.setattr(Collection, name, first_lost)


class TestUpdate:
    def test_other_settings_stay(self, dataset: fo.Dataset) -> None:
        register(dataset, "one", config(dataset, first=1, second=1))
        other = other_process(dataset)
        update_run(dataset, "one", {"first": 2})
        update_run(other, "one", {"second": 2})
        known = whole_config(dataset, "one")
        assert (known["first"], known["second"]) == (2, 2)
        info = other.get_run_info("one").config
        assert (info.first, info.second) == (2, 2)

    def test_a_run_that_is_gone_stays_gone(self, dataset: fo.Dataset) -> None:
        register(dataset, "one", config(dataset))
        other = other_process(dataset)
        dataset.delete_run("one")
        update_run(other, "one", {"first": 2})
        remove_run(other, "one")
        assert records_of(dataset) == {}


def test_remove(dataset: fo.Dataset) -> None:
    other = other_process(dataset)
    register(dataset, "one", config(dataset))
    register(dataset, "two", config(dataset))
    remove_run(other, "one")
    assert list(pointers_of(dataset)) == ["two"]
    assert_whole(dataset)


@pytest.mark.parametrize(
    ("method", "kind", "age", "stays"),
    [
        (METHOD, "run", 2 * KEPT_UNPOINTED, False),
        (METHOD, "run", timedelta(), True),
        ("somebody/else", "run", 2 * KEPT_UNPOINTED, True),
        (METHOD, "evaluation", 2 * KEPT_UNPOINTED, True),
    ],
)
def test_what_killed_processes_left(dataset: fo.Dataset, method: str, kind: str, age: timedelta, stays: bool) -> None:
    """Nobody lists it, and the next run on the dataset removes it."""
    left = {
        "_dataset_id": dataset._doc.id,
        "key": "parts",
        "timestamp": datetime.now(timezone.utc).replace(tzinfo=None) - age,
        "config": {"method": method, "type": kind},
    }
    get_db_conn().runs.insert_one(left)
    assert past_runs(dataset, [method]) == []
    assert whole_config(dataset, "parts") == {}
    register(dataset, "parts", config(dataset))
    assert [run.key for run in past_runs(dataset, [METHOD])] == ["parts"]
    assert get_db_conn().runs.count_documents({"_id": left["_id"]}) == stays
