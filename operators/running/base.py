"""How every operator of RefSeg runs: streamed to the App, as a delegated job, or to its end when called from Python.

A subclass writes `work`, a generator of progress that returns a JSON result, and `tell`, what the App shows at the end. What
may be delegated may be long: it is listed as a job while it runs, and ends between two steps where someone cancels it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
from fiftyone.operators.executor import ExecutionError

from ..forms.allowed_folders import is_from_browser, require_allowed
from ..forms.weights import keep_given_files, with_files
from . import library
from .background import keep_outcome
from .failures import forget_earlier, keep_failure
from .jobs import JobCancelledError, Listing

if TYPE_CHECKING:
    from refseg.progress import Progress

logger = logging.getLogger(__name__)

Result = dict[str, Any]
Report = TypeVar("Report")
Work = Generator["Progress", None, Report]

SECONDS_BETWEEN_MESSAGES = 0.2
SECONDS_BETWEEN_DATABASE_WRITES = 1.0

_FOR_FIFTYONE = ("self", "sample_collection", "delegate", "delegation_target")
"""Arguments of an operator's `__call__` that are none of its form's."""
_FORESEEN = re.compile(r"(?:refseg\.errors\.\w+|[\w.]+\.JobCancelledError|[\w.]+\.LibraryProblemError): (.+)", re.DOTALL)
"""The end of a traceback whose error is a sentence for the user."""


class RefSegOperator(foo.Operator, ABC):
    """An operator whose work is a generator."""

    title: ClassVar[str]
    summary: ClassVar[str]
    """What the App calls it, and says of it."""
    may_be_delegated: ClassVar[bool] = True
    risk: ClassVar[types.RiskLevel] = types.RiskLevel.MEDIUM
    kept_when_cancelled: ClassVar[str] = "what was done is kept"
    """What a cancelled execution leaves behind, as the end of a sentence."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name, which is that of its file, label, and how it may run."""
        return foo.OperatorConfig(
            name=type(self).__module__.rpartition(".")[2],
            label=self.title,
            description=self.summary,
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=self.may_be_delegated,
            risk_level=self.risk,
        )

    @abstractmethod
    def work(self, ctx: Any) -> Work[Result]:
        """Do the job, yielding progress. Where the execution is cancelled this generator is closed after a step.

        Args:
            ctx: FiftyOne's execution context.

        Returns:
            What a caller in Python gets: JSON, no class names as keys, because MongoDB refuses some.

        Raises:
            refseg.errors.RefSegError: something the user can put right, in one sentence.
        """

    @abstractmethod
    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Messages to the App once the work is done."""

    def execute(self, ctx: Any) -> Any:
        """Run the work where it was asked for; errors reach Python as exceptions and the App as a notification.

        Raises:
            JobCancelledError: the execution was delegated or called from Python, and someone cancelled it. An exception, so
                that no script or pipeline goes on with half a result; FiftyOne marks a delegated operation as failed, with
                this reason.
        """
        if came_from_app(ctx):
            return self._stream(ctx)
        library.require()
        from refseg.progress import drain

        if ctx.delegated:
            return self._run_delegated(ctx)
        with closing(self._cancellable(ctx)) as work:
            return drain(work)

    def run_unattended(self, ctx: Any, job_id: str) -> None:
        """Run to the end without anybody waiting, and keep what there is to tell.

        Args:
            ctx: FiftyOne's execution context.
            job_id: under which `background.outcome` finds it.
        """
        keep_outcome(ctx, job_id, self._stream(ctx, shows_progress=False))

    def call(self, arguments: Mapping[str, Any], **instead: Any) -> Any:
        """Execute from Python: what an operator's `__call__` ends with.

        Args:
            arguments: of the `__call__`, by name: `locals()` in its only line. Those that are None are left to the form's
                defaults.
            instead: what goes to the form in the place of arguments of these names.

        Raises:
            ExecutionError: the sentence that the App would show; FiftyOne's own words and a traceback for what nobody foresaw.
        """
        missing = library.problem()
        if missing is not None:
            raise ExecutionError(missing)
        sample_collection = _collection(arguments["sample_collection"])
        kind = "view" if isinstance(sample_collection, fo.DatasetView) else "dataset"
        params = {name: value for name, value in arguments.items() if name not in _FOR_FIFTYONE} | instead
        try:
            return foo.execute_operator(
                self.uri,
                {kind: sample_collection},
                params={name: _plain(value) for name, value in params.items() if value is not None},
                request_delegation=arguments.get("delegate", False),
                delegation_target=arguments.get("delegation_target"),
            )
        except ExecutionError as error:
            sentence = _foreseen_sentence(str(error))
            if sentence is None:
                raise
            # Without the cause, whose text is the traceback through FiftyOne's executor.
            raise ExecutionError(sentence) from None

    def _run_delegated(self, ctx: Any) -> Result:
        from refseg.progress import drain

        job_id = str(ctx._delegated_operation_id)
        try:
            with closing(self._cancellable(ctx)) as work:
                result: Result = drain(work, delegated_watcher(ctx))
        except Exception as error:
            told = [ctx.ops.reload_dataset()]
            if isinstance(error, JobCancelledError):
                told.append(ctx.ops.notify(str(error), variant="info"))
            else:
                self._keep_failure(ctx, error)
            keep_outcome(ctx, job_id, told)
            raise
        keep_outcome(ctx, job_id, self.tell(ctx, result))
        return result

    def _stream(self, ctx: Any, *, shows_progress: bool = True) -> Iterator[Any]:
        missing = library.problem()
        if missing is not None:
            yield ctx.ops.notify(missing, variant="error")
            return
        work = self._cancellable(ctx)
        try:
            result = yield from _show_progress(ctx, work, shows_progress)
            yield from self.tell(ctx, result)
        except JobCancelledError as cancelled:
            # What was done may have made a new field.
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify(str(cancelled), variant="info")
        except Exception as error:
            sentence = self._keep_failure(ctx, error)
            if shows_progress:
                # Of a form, whose panel may not be open. An exception would cut the stream, and the App would then report a
                # lost connection instead of the reason.
                yield ctx.ops.notify(sentence, variant="error")
        finally:
            # Reached too when the user leaves: the run is then marked cancelled and keeps what is done.
            work.close()

    def _keep_failure(self, ctx: Any, error: Exception) -> str:
        """Keep what the panel's section says from now on, and return it."""
        config, sentence = self.config, self._sentence(error)
        if config.allow_delegated_execution:
            keep_failure(ctx, config.name, config.label, sentence)
        return sentence

    def _sentence(self, error: Exception) -> str:
        """What the App says about an error; what nobody foresaw is logged whole."""
        from refseg.errors import RefSegError

        if isinstance(error, RefSegError | JobCancelledError):
            return str(error)
        logger.exception("%s failed", self.uri, exc_info=error)
        return f"{self.config.label} failed ({type(error).__name__}: {error}). The server's log has the details."

    def _cancellable(self, ctx: Any) -> Work[Result]:
        config, work = self.config, self._allowed(ctx)
        if not config.allow_delegated_execution:
            return work
        farewell = f"{config.label} was cancelled; {self.kept_when_cancelled}."
        forget_earlier(ctx, config.name)
        return _listed(work, Listing(ctx, config.name, config.label), farewell)

    def _allowed(self, ctx: Any) -> Work[Result]:
        """The work, where it names no place that it may not; a pipeline runs it without its form."""
        require_allowed(ctx)
        keep_given_files(ctx)
        result: Result = yield from with_files(ctx, self.work(ctx))
        return result


def _plain(value: Any) -> Any:
    """The same as JSON has it: what can be gone through becomes lists, NumPy's numbers Python's, paths texts."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(one) for one in value]
    return value


def _collection(given: Any) -> Any:
    """A dataset or view, or the dataset of this name.

    Raises:
        ExecutionError: there is none, in one sentence.
    """
    if isinstance(given, fo.Dataset | fo.DatasetView):
        return given
    from refseg.dataset import open_collection
    from refseg.errors import DatasetError

    try:
        return open_collection(given)
    except DatasetError as error:
        raise ExecutionError(str(error)) from None


def came_from_app(ctx: Any) -> bool:
    """Whether someone in the App waits for the messages."""
    return is_from_browser(ctx) and not ctx.delegated and ctx.pipeline is None


def delegated_watcher(ctx: Any) -> Any:
    """A function that keeps the progress of a delegated job in the database."""
    is_due = _Clock(SECONDS_BETWEEN_DATABASE_WRITES)

    def watch(step: Progress) -> None:
        if is_due(step):
            ctx.set_progress(progress=step.fraction, label=_describe(step))

    return watch


def _listed(work: Work[Report], listing: Listing, farewell: str) -> Work[Report]:
    """The same work, listed as a job while it runs; raises JobCancelledError with the farewell where someone cancels it."""
    is_due = _Clock(SECONDS_BETWEEN_DATABASE_WRITES)
    listing.open()
    try:
        with closing(work):
            while True:
                try:
                    step = next(work)
                except StopIteration as end:
                    report: Report = end.value
                    return report
                yield step
                # After the step was shown, so that a request made meanwhile does not wait for another batch.
                if is_due(step) and listing.update(step):
                    raise JobCancelledError(farewell)
    finally:
        listing.close()


def _show_progress(ctx: Any, work: Work[Result], shows: bool) -> Generator[Any, None, Result]:
    is_due = _Clock(SECONDS_BETWEEN_MESSAGES)
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        if shows and is_due(step):
            yield ctx.ops.set_progress(label=_describe(step), progress=step.fraction)


def _foreseen_sentence(text: str) -> str | None:
    """What a traceback's error says, where it is one of RefSeg's own; FiftyOne hands on nothing but the text."""
    error = text.rpartition("\n  ")[2].partition("\n")[2].strip()
    found = _FORESEEN.fullmatch(error)
    return None if found is None else found[1]


def _describe(step: Progress) -> str:
    return f"{step.label}: {step.done} of {step.total}"


class _Clock:
    """Lets through the first and last step of each label, and between them one per interval."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._label: str | None = None
        self._shown = 0.0

    def __call__(self, step: Progress) -> bool:
        now = time.monotonic()
        due = step.label != self._label or step.done >= step.total or now - self._shown >= self._seconds
        if due:
            self._label, self._shown = step.label, now
        return due
