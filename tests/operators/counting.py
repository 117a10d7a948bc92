"""An operator that counts, and its jobs as they are listed and cancelled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import Executor

from operators.running import base
from refseg.progress import Progress
from tests.operators.helpers import app_request, form_of, uri

STEPS = 5
CANCELLED = "Count was cancelled; what was done is kept."


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
