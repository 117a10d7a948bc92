"""Running jobs are listed, and end where someone cancels them, wherever they run; what they have done by then stays."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pymongo.errors
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError, Executor
from fiftyone.operators.store import ExecutionStore

import refseg.runs.segmenting
from operators.running import base, jobs
from refseg.errors import DatasetError
from refseg.progress import Progress
from tests.operators.helpers import app_request, form_of, named, problems_of, run_in_app, uri

pytestmark = pytest.mark.usefixtures("every_step")

STEPS = 5
CANCELLED = "Count was cancelled; what was done is kept."
SEGMENT_CANCELLED = "Segment was cancelled; the predictions written so far are kept."


class Count(base.RefSegOperator):
    """Counts to STEPS; `before` is called ahead of each step with its number, `at_end` when the work ends or is closed."""

    before: Callable[[int], None] = staticmethod(lambda step: None)
    at_end: Callable[[], None] = staticmethod(lambda: None)
    is_long = True

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[int] = []

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(name="count", label="Count", allow_delegated_execution=self.is_long)

    def work(self, ctx: Any) -> base.Work[base.Result]:
        try:
            yield Progress(0, STEPS, "numbers")
            for number in range(1, STEPS + 1):
                self.before(number)
                self.counted.append(number)
                yield Progress(number, STEPS, "numbers")
        finally:
            self.at_end()
        return {"counted": STEPS}

    def tell(self, ctx: Any, result: base.Result) -> Iterator[Any]:
        yield ctx.ops.notify(f"Counted to {result['counted']}.")


def context(dataset: fo.Dataset, from_app: bool = True) -> foo.ExecutionContext:
    request = app_request(dataset, "count") if from_app else {"dataset_name": dataset.name, "params": {}}
    return foo.ExecutionContext(request, executor=Executor())


def cancel(dataset: fo.Dataset, job: str | None = None) -> list[str]:
    result = foo.get_operator(uri("cancel"))(dataset, job=job).result
    assert list(result) == ["cancelled"]
    return result["cancelled"]


def listed(dataset: fo.Dataset) -> dict[str, str]:
    """What the form offers, by id; the age of the jobs is left out."""
    choices = form_of(dataset, "cancel")["job"]["view"]["choices"]
    return {choice["value"]: re.sub(r", started \d+ \w+ ago", "", choice["label"]) for choice in choices}


def body(message: Any) -> dict[str, Any]:
    return message.to_json()["body"]


def advance(stream: Iterator[Any], done: int) -> None:
    """Read messages up to the one of this step."""
    next(message for message in stream if message.body.params.get("progress", 0) >= done / STEPS)


# Where the work runs


def test_streamed_job_ends_within_a_step(dataset: fo.Dataset) -> None:
    operator = Count()
    stream = operator.execute(context(dataset))
    advance(stream, 2)
    ids = list(listed(dataset))
    assert cancel(dataset) == ids
    assert [body(message) for message in stream] == [
        {"operator_uri": "reload_dataset", "params": {}},
        {"operator_uri": "notify", "params": {"message": CANCELLED, "variant": "info"}},
    ]
    assert operator.counted == [1, 2]
    assert listed(dataset) == {}
    assert context(dataset).store(jobs.REQUESTS).list_keys() == []


def test_streamed_segmentation_keeps_what_is_done(with_prototypes: fo.Dataset) -> None:
    request = app_request(with_prototypes, "segment", {"run_key": "stopped", "min_confidence": 0.0})
    operator = foo.get_operator(uri("segment"))
    stream = operator.execute(foo.ExecutionContext(request, executor=Executor(), operator_uri=operator.uri))
    next(message for message in stream if message.body.params.get("progress", 0) > 0)
    # As someone in a second browser does.
    (job,) = listed(with_prototypes)
    messages = run_in_app(with_prototypes, "cancel", {"job": job})
    text = "Cancelling 1 job: it ends after the current batch."
    assert named(messages, "notify") == [{"message": text, "variant": "info"}]
    rest = [body(message) for message in stream]
    assert named(rest, "set_progress") == []
    assert named(rest, "notify") == [{"message": SEGMENT_CANCELLED, "variant": "info"}]
    with_prototypes.reload()
    assert with_prototypes.get_run_info("stopped").config.state == "cancelled"
    assert 0 < len(with_prototypes.exists("predictions")) < 4


def test_delegated_segmentation_is_cancelled_by_its_operations_id(
    with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    real = refseg.runs.segmenting.iter_segment

    def iter_segment(*args: Any, **kwargs: Any) -> Generator[Progress, None, Any]:
        with closing(real(*args, **kwargs)) as work:
            for step in work:
                if step.done:
                    started.set()
                    assert go_on.wait(60)
                yield step

    monkeypatch.setattr(refseg.runs, "iter_segment", iter_segment)
    operator = foo.get_operator(uri("segment"))
    queued = operator(with_prototypes, "parts", min_confidence=0.0, run_key="stopped", delegate=True).result["id"]
    service = DelegatedOperationService()
    assert cancel(with_prototypes) == []
    thread = threading.Thread(target=service.execute_queued_operations, kwargs={"limit": 1})
    thread.start()
    try:
        assert started.wait(60)
        assert listed(with_prototypes) == {str(queued): "Segment: images 0 of 4"}
        assert cancel(with_prototypes, str(queued)) == [str(queued)]
    finally:
        go_on.set()
        thread.join(60)
    done = service.get(queued)
    assert done.run_state == "failed"
    assert done.result.error.strip().endswith(
        "JobCancelledError: Segment was cancelled; the predictions written so far are kept."
    )
    with_prototypes.reload()
    assert with_prototypes.get_run_info("stopped").config.state == "cancelled"
    assert 0 < len(with_prototypes.exists("predictions")) < 4
    assert listed(with_prototypes) == {}


def test_call_from_python_raises(dataset: fo.Dataset) -> None:
    operator = Count()
    operator.before = lambda step: cancel(dataset) if step == 2 else None
    with pytest.raises(jobs.JobCancelledError, match=f"^{CANCELLED}$"):
        operator.execute(context(dataset, from_app=False))
    assert operator.counted == [1, 2]
    assert listed(dataset) == {}


def test_interrupted_job_leaves_the_list(dataset: fo.Dataset) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    ended: list[bool] = []
    operator = Count()
    operator.at_end = lambda: ended.append(True)
    request = {"dataset_name": dataset.name, "params": {}, "delegated": True}
    with pytest.raises(KeyboardInterrupt) as caught:
        operator.execute(foo.ExecutionContext(request, executor=Executor(), set_progress=interrupt))
    # The error's traceback holds on to the generator, so only its being closed ends it.
    assert caught.tb is not None
    assert ended == [True]
    assert listed(dataset) == {}


def test_operator_says_what_it_keeps(dataset: fo.Dataset) -> None:
    operator = Count()
    operator.kept_when_cancelled = "nothing was changed"
    stream = operator.execute(context(dataset))
    next(stream)
    cancel(dataset)
    assert body(list(stream)[-1])["params"]["message"] == "Count was cancelled; nothing was changed."


# What is listed


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
    age(dataset, jobs.SECONDS_UNTIL_GONE)
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


# The form, and what it cancels


@pytest.fixture
def two(dataset: fo.Dataset) -> Iterator[tuple[list[str], list[Iterator[Any]]]]:
    """Ids of an older and a newer job, and their streams."""
    ids: list[str] = []
    streams = []
    for _ in range(2):
        stream = Count().execute(context(dataset))
        next(stream)
        streams.append(stream)
        ids += [job for job in listed(dataset) if job not in (*ids, "all")]
    yield ids, streams
    for stream in streams:
        stream.close()


def endings(streams: list[Iterator[Any]]) -> list[str]:
    return [body(list(stream)[-1])["params"]["message"] for stream in streams]


def test_one_of_two_jobs(dataset: fo.Dataset, two: tuple[list[str], list[Iterator[Any]]]) -> None:
    (older, _), streams = two
    assert cancel(dataset, older) == [older]
    assert endings(streams) == [CANCELLED, "Counted to 5."]


def test_python_cancels_all_jobs(dataset: fo.Dataset, two: tuple[list[str], list[Iterator[Any]]]) -> None:
    (older, newer), streams = two
    assert cancel(dataset.limit(1)) == [newer, older]
    assert endings(streams) == [CANCELLED, CANCELLED]


def test_form_offers_the_newest_first(dataset: fo.Dataset, two: tuple[list[str], list[Iterator[Any]]]) -> None:
    (older, newer), streams = two
    assert list(listed(dataset).items()) == [(newer, "Count: starting"), (older, "Count: starting"), ("all", "All 2 jobs")]
    assert form_of(dataset, "cancel")["job"]["default"] == newer
    run_in_app(dataset, "cancel")
    # Cancelled and not yet ended.
    assert listed(dataset)[newer] == "Count: starting, ending"
    assert form_of(dataset, "cancel")["job"]["default"] == older
    assert endings(streams) == ["Counted to 5.", CANCELLED]


def test_all_jobs_from_the_app(dataset: fo.Dataset, two: tuple[list[str], list[Iterator[Any]]]) -> None:
    _, streams = two
    messages = run_in_app(dataset, "cancel", {"job": "all"})
    assert named(messages, "notify")[0]["message"] == "Cancelling 2 jobs: they end after the current batch."
    assert endings(streams) == [CANCELLED, CANCELLED]


def test_nothing_is_running(dataset: fo.Dataset) -> None:
    assert problems_of(form_of(dataset, "cancel")) == {"job": "Nothing is running."}
    assert problems_of(form_of(None, "cancel")) == {"job": "Nothing is running."}
    with pytest.raises(ExecutionError, match="Nothing is running"):
        run_in_app(dataset, "cancel")
    assert cancel(dataset) == []
    assert cancel(dataset, "unknown") == []


def test_job_that_ended_while_the_form_was_open(dataset: fo.Dataset) -> None:
    messages = run_in_app(dataset, "cancel", {"job": "ended"})
    assert named(messages, "notify") == [{"message": "There is nothing to cancel: the job has ended.", "variant": "info"}]
