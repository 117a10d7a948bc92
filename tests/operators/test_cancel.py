"""Running jobs end where someone cancels them, wherever they run; what they have done is kept."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError, Executor

import refseg.runs.segmenting
from operators.running import jobs
from refseg.progress import Progress
from tests.operators.counting import CANCELLED, Count, advance, body, cancel, context, listed
from tests.operators.helpers import app_request, form_of, named, problems_of, run_in_app, uri

pytestmark = pytest.mark.usefixtures("every_step")

SEGMENT_CANCELLED = "Segment was cancelled; the predictions written so far are kept."


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
