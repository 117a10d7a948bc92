"""Long executions on a dataset: each lists itself in the dataset's execution store and ends where someone asks for it.

A job writes only its entry, and whoever cancels writes only a request beside it, so neither can undo what the other wrote.
Noting a step costs one write and one read of MongoDB.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..forms.messages import duration

if TYPE_CHECKING:
    from refseg.progress import Progress

logger = logging.getLogger(__name__)

ENTRIES = "refseg_jobs"
REQUESTS = "refseg_cancel_requests"

SECONDS_KEPT = 24 * 3600
"""After which MongoDB removes what a killed process left behind. FiftyOne counts it from the first write; the entry of a job
that runs longer comes back with its next step."""

JOB_ID = "refseg_job"
"""Request parameter by which whoever starts an execution chooses the job's id."""

SECONDS_OF_SILENCE = 60
"""After which the list says how long nothing was heard of a job."""


class JobCancelledError(Exception):
    """Someone asked for this job to be cancelled, and it has ended."""


@dataclass(frozen=True)
class Job:
    """An execution that runs now.

    Attributes:
        id: of the delegated operation, where it is one.
        operator: the operator's name.
        label: what the App calls the operator.
        started_at: seconds since the epoch.
        updated_at: when it was last heard of, seconds since the epoch.
        done: finished steps.
        total: all steps; 0 before the first is known.
        step: what a step is, in the plural: "images".
        step_started_at: when the first of these steps began, seconds since the epoch; None where that is unknown.
        host: the machine it runs on, as `refseg.processes.this_machine` calls it.
        pid: its process there.
        process_started_at: when that process began, seconds since the epoch; 0 where that is unknown.
        found: objects that are written already.
        is_cancelled: whether it was asked to end, and will after its current batch.
    """

    id: str
    operator: str
    label: str
    started_at: float
    updated_at: float
    done: int = 0
    total: int = 0
    step: str = ""
    step_started_at: float | None = None
    host: str = ""
    pid: int = 0
    process_started_at: float = 0.0
    found: int = 0
    is_cancelled: bool = False

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one.

        Example:
            >>> Job("7f", "segment", "Segment", 0.0, 600.0, 120, 1000, "images", 540.0).seconds_left
            440.0
        """
        if self.step_started_at is None or not self.done:
            return None
        return (self.updated_at - self.step_started_at) * (self.total - self.done) / self.done

    def is_gone(self, now: float) -> bool:
        """Whether it goes on no more, at this time in seconds since the epoch."""
        try:
            from refseg.processes import Process, is_gone
        except ImportError:
            # Without the library, or beside an older one, nothing goes on.
            return True
        return is_gone(Process(self.host, self.pid, self.process_started_at), now - self.updated_at)

    def describe(self, now: float) -> str:
        """One line for a list, at this time in seconds since the epoch.

        Example:
            >>> Job("7f", "segment", "Segment", 0.0, 600.0, 120, 1000, "images").describe(610.0)
            'Segment: images 120 of 1,000, started 10 min ago'
        """
        parts = [f"{self.step} {self.done:,} of {self.total:,}" if self.total else "starting"]
        parts.append(f"started {duration(now - self.started_at)} ago")
        if now - self.updated_at > SECONDS_OF_SILENCE:
            parts.append(f"no news for {duration(now - self.updated_at)}")
        if self.is_cancelled:
            parts.append("ending")
        return f"{self.label}: {', '.join(parts)}"


class Listing:
    """A running execution's own entry. Trouble with it is logged and never raised, so that it cannot cost hours of work."""

    def __init__(self, ctx: Any, operator: str, label: str) -> None:
        """Prepare the entry; `open` writes it.

        Args:
            ctx: FiftyOne's execution context.
            operator: the operator's name.
            label: what the App calls it.
        """
        from refseg.processes import Process

        now, process = time.time(), Process.current()
        # With a delegated operation's id, whoever queued it can name the job.
        job_id = str(getattr(ctx, "_delegated_operation_id", None) or ctx.request_params.get(JOB_ID) or uuid.uuid4().hex)
        self._ctx = ctx
        self._job = Job(
            job_id,
            operator,
            label,
            now,
            now,
            step_started_at=now,
            host=process.host,
            pid=process.pid,
            process_started_at=process.started_at,
        )
        self._has_warned = False

    def open(self) -> None:
        """List the job."""
        self._attempt(self._write)

    def update(self, step: Progress) -> bool:
        """Note a step; returns whether someone asked for the job to be cancelled."""
        now = time.time()
        began = self._job.step_started_at if step.label == self._job.step else now
        self._job = replace(
            self._job,
            updated_at=now,
            done=step.done,
            total=step.total,
            step=step.label,
            step_started_at=began,
            found=step.found,
        )
        return self._attempt(self._exchange)

    def close(self) -> None:
        """Take the job off the list."""
        self._attempt(self._erase)

    def _attempt(self, action: Callable[[], bool]) -> bool:
        try:
            return action()
        except Exception as error:
            level = logging.DEBUG if self._has_warned else logging.WARNING
            logger.log(level, "%s goes on, but the list of running jobs cannot be kept: %s", self._job.label, error)
            self._has_warned = True
            return False

    def _write(self) -> bool:
        entry = asdict(self._job)
        del entry["is_cancelled"]
        self._ctx.store(ENTRIES).set(self._job.id, entry, ttl=SECONDS_KEPT)
        return True

    def _exchange(self) -> bool:
        self._write()
        return bool(self._ctx.store(REQUESTS).has(self._job.id))

    def _erase(self) -> bool:
        self._ctx.store(ENTRIES).delete(self._job.id)
        self._ctx.store(REQUESTS).delete(self._job.id)
        return True


def running_jobs(ctx: Any) -> list[Job]:
    """The jobs that run on the context's dataset, newest first."""
    entries, requests = ctx.store(ENTRIES), ctx.store(REQUESTS)
    # A job may end between the two calls.
    found = [entry for key in entries.list_keys() if (entry := entries.get(key)) is not None]
    jobs = [Job(**entry, is_cancelled=requests.has(entry["id"])) for entry in found]
    now = time.time()
    return sorted((job for job in jobs if not job.is_gone(now)), key=lambda job: job.started_at, reverse=True)


def request_cancel(ctx: Any, jobs: Iterable[Job]) -> None:
    """Ask jobs of the context's dataset to end after their current batch."""
    requests = ctx.store(REQUESTS)
    for job in jobs:
        requests.set(job.id, True, ttl=SECONDS_KEPT)
