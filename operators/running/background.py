"""Long executions that need no browser: in a thread of the server, or queued for the delegated service.

What the App is to be told at the end is kept in the dataset's execution store, so that a panel opened while the job runs still
tells it; one opened later shows what the job left. Why it failed stands in `failures`.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import Executor

from ..forms.selection import collection, shows_frames
from .failures import PANEL_JOB, forget_failure, section_of
from .jobs import JOB_ID, running_jobs

logger = logging.getLogger(__name__)

PREFIX = "@refseg/reference-segmentation/"
"""With which the URIs of RefSeg's operators begin."""
THREADS = "refseg-job-"
"""With which the names of the threads begin that run them."""
OUTCOMES = "refseg_outcomes"
SECONDS_KEPT = 24 * 3600


def can_delegate() -> bool:
    """Whether FiftyOne is set to queue work for `fiftyone delegated launch`."""
    return bool(fo.config.allow_legacy_orchestrators)


def start(
    ctx: Any,
    operator: str,
    params: dict[str, Any],
    *,
    job: str | None = None,
    only_view: bool = False,
    delegate: bool = False,
) -> str:
    """Start an operator of RefSeg and return at once.

    Args:
        ctx: FiftyOne's execution context, of a panel.
        operator: the operator's URI.
        params: its parameters.
        job: the panel's name of what its button starts, kept with the reason where the job fails.
        only_view: work on the view that is open, instead of on the whole dataset, or on all frames where frames are open.
        delegate: queue the job for the delegated service, instead of running it in this server.

    Returns:
        The job's id, in the list of running jobs and among the outcomes.

    Raises:
        refseg.errors.RefSegError: a parameter is wrong; the sentence that its form would show.
    """
    params = {**params, **({PANEL_JOB: job} if job else {})}
    view = ctx.view if only_view else collection(ctx)
    stages = view._serialize() if isinstance(view, fo.DatasetView) else []
    request = {"dataset_name": ctx.dataset.name, "group_slice": ctx.group_slice, "view": stages, "params": params}
    found = foo.get_operator(operator)
    # That it names its operator tells that a browser asks.
    asked = foo.ExecutionContext({**request, "operator_uri": operator}, executor=Executor(), operator_uri=operator)
    isolate(asked)
    _refuse_what_its_form_refuses(found, asked)
    _refuse_what_runs_already(found, ctx)
    forget_failure(ctx, section_of(found.config.name, params))
    if delegate:
        where = {"view": view} if stages else {"dataset": ctx.dataset}
        queued = foo.execute_operator(
            operator, {**where, "group_slice": ctx.group_slice}, params=params, request_delegation=True
        )
        return str(queued.result["id"])
    job_id = uuid.uuid4().hex
    job_ctx = foo.ExecutionContext({**request, JOB_ID: job_id}, executor=Executor(), operator_uri=operator)
    isolate(job_ctx)
    threading.Thread(target=found.run_unattended, args=(job_ctx, job_id), name=THREADS + operator, daemon=True).start()
    return job_id


def waiting(ctx: Any) -> list[Any]:
    """RefSeg's jobs on the context's dataset that wait for the delegated service, as FiftyOne describes them."""
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionRunState

    service = DelegatedOperationService()
    found = service.list_operations(dataset_name=ctx.dataset.name, run_state=ExecutionRunState.QUEUED)
    return [item for item in found if item.operator.startswith(PREFIX)]


def withdraw(ctx: Any, job_id: str) -> bool:
    """Take a job that waits out of the delegated service's queue; False where none of this dataset's is called so."""
    from fiftyone.operators.delegated import DelegatedOperationService

    found = [item.id for item in waiting(ctx) if str(item.id) == job_id]
    for one in found:
        DelegatedOperationService().delete_operation(one)
    return bool(found)


def keep_outcome(ctx: Any, job_id: str, messages: Iterable[Any]) -> None:
    """Keep what the App is to be told about a job's end. Trouble with it is logged: the work itself is done.

    Args:
        ctx: FiftyOne's execution context.
        job_id: of the job.
        messages: as an operator in the App would yield them.
    """
    try:
        bodies = [message.to_json()["body"] for message in messages]
        told = [[body["operator_uri"], body["params"]] for body in bodies]
        # As text, because a view's stages may hold keys that MongoDB refuses.
        ctx.store(OUTCOMES).set(job_id, json.dumps(told), ttl=SECONDS_KEPT)
    except Exception:
        logger.exception("The end of the job %s cannot be told in the App", job_id)


def outcome(ctx: Any, job_id: str) -> list[tuple[str, dict[str, Any]]] | None:
    """What the App is to be told about a job: operators of the App and their parameters. None while it has not ended."""
    kept = ctx.store(OUTCOMES).get(job_id)
    return None if kept is None else [(uri, params) for uri, params in json.loads(kept)]


def isolate(ctx: Any) -> None:
    """Give a context a dataset object of its own, as another process has it.

    All requests of a process share one object otherwise, and each of them loads it anew: a run or a field that another thread
    adds at that moment fails with a ReferenceError, or is lost from the schema.
    """
    name = ctx.request_params.get("dataset_name")
    if ctx._dataset is not None or name is None or not fo.dataset_exists(name):
        return
    ctx._dataset = fo.Dataset._make_instance(name, _create=False)
    if ctx.group_slice is not None and ctx._dataset.media_type == "group":
        ctx._dataset.group_slice = ctx.group_slice
    if shows_frames(ctx):
        # FiftyOne keeps them in a dataset of its own, which all requests share too.
        frames = ctx.view._source_collection if ctx.view._is_patches else ctx.view
        frames._frames_dataset = fo.Dataset._make_instance(frames._dataset.name, _create=False)


def _refuse_what_runs_already(operator: Any, ctx: Any) -> None:
    from refseg.errors import DatasetError

    if any(job.operator == operator.config.name for job in running_jobs(ctx)):
        raise DatasetError(f"{operator.config.label} runs on this dataset already: wait for its end, or cancel it.")


def _refuse_what_its_form_refuses(operator: Any, ctx: Any) -> None:
    from fiftyone.operators.executor import ValidationContext

    from refseg.errors import DatasetError

    checked = ValidationContext(ctx, operator.resolve_input(ctx), operator)
    if checked.invalid:
        raise DatasetError(" ".join(dict.fromkeys(str(error.reason) for error in checked.errors)))
