"""What is listed of running jobs, and for how long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import fiftyone as fo
import pymongo.errors
import pytest
from fiftyone.operators.store import ExecutionStore

from operators.running import base, jobs
from refseg.errors import DatasetError
from refseg.processes import SECONDS_UNTIL_GONE
from tests.operators.counting import STEPS, Count, advance, body, cancel, context, listed
from tests.operators.helpers import named

pytestmark = pytest.mark.usefixtures("every_step")


def test_uncancelled_job_runs_to_its_end(dataset: fo.Dataset) -> None:
    seen: list[dict[str, str]] = []
    operator = Count()
    operator.before = lambda step: seen.append(listed(dataset))
    messages = [body(message) for message in operator.execute(context(dataset))]
    assert named(messages, "notify") == [{"message": "Counted to 5.", "variant": "info"}]
    labels = [label for step in seen for label in step.values()]
    assert labels == [f"Count: numbers {number} of 5" for number in range(STEPS)]
    assert listed(dataset) == {}
    assert Count().execute(context(dataset, from_app=False)) == {"counted": STEPS}
    assert listed(dataset) == {}


def test_job_is_listed_before_its_first_step(dataset: fo.Dataset) -> None:
    listing = jobs.Listing(context(dataset), "count", "Count")
    listing.open()
    assert list(listed(dataset).values()) == ["Count: starting"]
    listing.close()
    assert listed(dataset) == {}


def test_jobs_of_other_datasets_stay_unseen(make_dataset: Callable[..., fo.Dataset]) -> None:
    dataset, other = make_dataset(), make_dataset()
    stream = Count().execute(context(dataset))
    next(stream)
    assert listed(other) == {}
    assert cancel(other) == []
    assert named([body(message) for message in stream], "notify")[0]["message"] == "Counted to 5."


@pytest.mark.parametrize("error", [DatasetError("wrong"), RuntimeError("broken")])
@pytest.mark.parametrize("from_app", [True, False])
def test_failed_job_leaves_the_list(dataset: fo.Dataset, error: Exception, from_app: bool) -> None:
    def fail(step: int) -> None:
        assert len(listed(dataset)) == 1
        raise error

    operator = Count()
    operator.before = fail
    if from_app:
        assert str(error) in body(list(operator.execute(context(dataset)))[-1])["params"]["message"]
    else:
        with pytest.raises(type(error), match=str(error)):
            operator.execute(context(dataset, from_app=False))
    assert listed(dataset) == {}


def test_work_that_cannot_keep_what_was_done_reports_that(dataset: fo.Dataset) -> None:
    def fail() -> None:
        raise OSError("disk full")

    operator = Count()
    operator.at_end = fail
    stream = operator.execute(context(dataset))
    next(stream)
    cancel(dataset)
    note = body(list(stream)[-1])["params"]
    assert note["variant"] == "error"
    assert note["message"].startswith("Count failed (OSError: disk full).")
    assert listed(dataset) == {}


def test_job_whose_browser_left_leaves_the_list(dataset: fo.Dataset) -> None:
    stream = Count().execute(context(dataset))
    next(stream)
    assert len(listed(dataset)) == 1
    stream.close()
    assert listed(dataset) == {}


def test_quick_operator_is_not_listed(dataset: fo.Dataset) -> None:
    operator = Count()
    operator.is_long = False
    operator.before = lambda step: listed(dataset) and pytest.fail("listed")
    assert operator.execute(context(dataset, from_app=False)) == {"counted": STEPS}


@pytest.mark.parametrize(
    ("updated_at", "done", "total", "now", "line"),
    [
        (0, 0, 0, 89, "Segment: starting, started 89 s ago, no news for 89 s"),
        (90, 0, 1234, 91, "Segment: images 0 of 1,234, started 2 min ago"),
        (9000, 3, 4, 9000, "Segment: images 3 of 4, started 2.5 h ago"),
    ],
)
def test_line_of_a_job(updated_at: float, done: int, total: int, now: float, line: str) -> None:
    assert jobs.Job("7f", "segment", "Segment", 0, updated_at, done, total, "images").describe(now) == line


def age(dataset: fo.Dataset, seconds: float) -> None:
    """Let the only job have been silent for so long."""
    store = context(dataset).store(jobs.ENTRIES)
    (key,) = store.list_keys()
    entry = store.get(key)
    store.set(key, {**entry, "updated_at": entry["updated_at"] - seconds})


def test_silent_job_says_so_then_counts_as_gone_and_comes_back(dataset: fo.Dataset) -> None:
    stream = Count().execute(context(dataset))
    advance(stream, 1)
    advance(stream, 2)
    age(dataset, 300)
    assert list(listed(dataset).values()) == ["Count: numbers 1 of 5, no news for 5 min"]
    age(dataset, SECONDS_UNTIL_GONE)
    assert listed(dataset) == {}
    assert cancel(dataset) == []
    advance(stream, 3)
    assert list(listed(dataset).values()) == ["Count: numbers 2 of 5"]
    stream.close()


def test_entries_of_killed_processes_expire(dataset: fo.Dataset) -> None:
    listing = jobs.Listing(context(dataset), "count", "Count")
    listing.open()
    (job,) = listed(dataset)
    jobs.request_cancel(context(dataset), jobs.running_jobs(context(dataset)))
    for name in (jobs.ENTRIES, jobs.REQUESTS):
        assert context(dataset).store(name).get_metadata(job)["expires_at"] is not None


def test_steps_that_follow_quickly_are_not_all_written(dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SECONDS_BETWEEN_DATABASE_WRITES", 3600.0)
    written: list[int] = []
    real = ExecutionStore.set

    def count(store: ExecutionStore, key: str, value: Any, **options: Any) -> None:
        written.append(value["done"])
        real(store, key, value, **options)

    monkeypatch.setattr(ExecutionStore, "set", count)
    Count().execute(context(dataset, from_app=False))
    # When it is listed, at the first step, and at the last.
    assert written == [0, 0, STEPS]


@pytest.mark.parametrize("method", ["set", "has", "delete"])
def test_unreachable_store_does_not_reach_the_work(
    dataset: fo.Dataset, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise pymongo.errors.AutoReconnect("no server")

    monkeypatch.setattr(ExecutionStore, method, fail)
    with caplog.at_level(logging.WARNING, jobs.__name__):
        assert Count().execute(context(dataset, from_app=False)) == {"counted": STEPS}
    assert [record.getMessage() for record in caplog.records] == [
        "Count goes on, but the list of running jobs cannot be kept: no server"
    ]


@pytest.mark.parametrize(
    ("changes", "is_listed"),
    [({}, True), ({"process_started_at": 1.0}, False), ({"process_started_at": 1.0, "host": "elsewhere"}, True)],
)
def test_job_of_a_killed_process_whose_id_was_given_to_another(
    dataset: fo.Dataset, changes: dict[str, Any], is_listed: bool
) -> None:
    jobs.Listing(context(dataset), "count", "Count").open()
    store = context(dataset).store(jobs.ENTRIES)
    (key,) = store.list_keys()
    store.set(key, {**store.get(key), **changes})
    assert list(listed(dataset)) == [key] * is_listed
