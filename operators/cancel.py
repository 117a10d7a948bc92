"""Cancel a job that runs on the dataset, wherever it was started."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.messages import count
from .running import library
from .running.base import RefSegOperator, Result, Work, came_from_app
from .running.jobs import Job, request_cancel, running_jobs

ALL = "all"


class Cancel(RefSegOperator):
    """Asks running jobs to end."""

    title = "Cancel a running job"
    summary = "End a RefSeg job of this dataset after its current batch, and keep what it has done"
    may_be_delegated = False
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which job. Asks for no images, because a job must end whatever the dataset holds by now."""
        missing = library.problem()
        jobs = [] if ctx.dataset is None or missing is not None else running_jobs(ctx)
        inputs = types.Object()
        settings: dict[str, Any] = {"view": _choices(jobs)}
        if missing is not None:
            settings |= {"invalid": True, "error_message": missing}
        elif jobs:
            settings["default"] = _newest(jobs).id
        elif came_from_app(ctx) and not ctx.params.get("job"):
            # A job that ends while the form is open is no problem: there is then nothing left to do.
            settings |= {"invalid": True, "error_message": "Nothing is running."}
        description = "It ends after its current batch; what it has done by then is kept"
        inputs.str("job", label="Job", description=description, required=False, **settings)
        return types.Property(inputs, view=types.View(label="Cancel a running job"))

    def work(self, ctx: Any) -> Work[Result]:
        """Ask the chosen job to end: by default the newest from the App, all of them from Python."""
        from refseg.progress import Progress

        yield Progress(0, 1, "cancelling")
        jobs = running_jobs(ctx)
        chosen = ctx.params.get("job") or (_newest(jobs).id if jobs and came_from_app(ctx) else ALL)
        wanted = [job for job in jobs if chosen in (ALL, job.id)]
        request_cancel(ctx, wanted)
        yield Progress(1, 1, "cancelling")
        return {"cancelled": [job.id for job in wanted]}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say when it ends."""
        number = len(result["cancelled"])
        if number == 0:
            yield ctx.ops.notify("There is nothing to cancel: the job has ended.", variant="info")
        else:
            text = f"Cancelling {count(number, 'job')}: {'it ends' if number == 1 else 'they end'} after the current batch."
            yield ctx.ops.notify(text, variant="info")

    def __call__(self, sample_collection: Any, job: str | None = None) -> Any:
        """Cancel jobs that run on a dataset, in whatever process. They end after their current batch.

        Args:
            sample_collection: the dataset, or a view of it.
            job: an id: that of the delegated operation, where the job is one; by default every running job of the dataset.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `cancelled`, the ids of the
            jobs that were asked to end: none where nothing runs, or where the job has ended.
        """
        return self.call(locals())


def _choices(jobs: Sequence[Job]) -> types.DropdownView:
    view = types.DropdownView()
    now = time.time()
    for job in jobs:
        view.add_choice(job.id, label=job.describe(now))
    if len(jobs) > 1:
        view.add_choice(ALL, label=f"All {len(jobs)} jobs")
    return view


def _newest(jobs: Sequence[Job]) -> Job:
    """The newest job that was not cancelled before, or the newest of all."""
    return next((job for job in jobs if not job.is_cancelled), jobs[0])
