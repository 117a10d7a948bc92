"""The panel as the App calls it: one request for each event or button, and what comes back."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import Executor, execute_or_delegate_operator

from refseg.dataset import kept_rows
from tests.operators.helpers import named, uri

# Tests look once, on however busy a machine; the browser would ask again.
kept_rows.PATIENCE = 60.0

NAME = "reference_segmentation"
SECTIONS = ("references", "index", "segment", "suggested", "review", "results", "inspection")


@dataclass
class Answer:
    """What a call of the panel sent to the browser; everything has been through JSON.

    Attributes:
        result: what the method returned.
        messages: operators of the App with their parameters, in order.
        trouble: what went wrong, as the section says it whose button was pressed, or the panel where nobody pressed anything:
            `text` and `at`, seconds since the epoch.
    """

    result: Any
    messages: list[dict[str, Any]]
    trouble: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """What the panel's components are to show, by path; the last word on each counts."""
        return {path: value for sent in named(self.messages, "patch_panel_data") for path, value in sent["data"].items()}

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Colour and text of each notification; what went wrong comes last, as "trouble"."""
        told = [(note["variant"], note["message"]) for note in named(self.messages, "notify")]
        return told + ([] if self.trouble is None else [("trouble", self.trouble["text"])])

    @property
    def error(self) -> str:
        """The text of what went wrong, which no notification tells."""
        ((variant, text),) = self.notes
        assert variant == "trouble"
        assert self.trouble is not None
        assert abs(time.time() - self.trouble["at"]) < 60
        return text

    @property
    def operators(self) -> list[str]:
        """Names of the App's operators that are called, drawing apart."""
        drawing = ("patch_panel_data", "show_panel_output")
        return [message["operator_uri"] for message in self.messages if message["operator_uri"] not in drawing]


def press(dataset: fo.Dataset | None, method: str, params: dict[str, Any] | None = None, **request: Any) -> Answer:
    """Call a method of the panel as a press of a button does; `request` is what the App says of its own state."""
    view = request.pop("view", None)
    sent = {
        "dataset_name": dataset.name if dataset is not None else None,
        "operator_uri": uri(NAME),
        "view": view._serialize() if view is not None else [],
        "params": {"__method__": method, "panel_id": "panel", **(params or {})},
        **request,
    }
    # As over HTTP, so that nothing but JSON goes in or comes out.
    answer = asyncio.run(execute_or_delegate_operator(uri(NAME), json.loads(json.dumps(sent))))
    answer.raise_exceptions()
    messages = json.loads(json.dumps(answer.executor.to_json()["requests"], allow_nan=False))
    made = Answer(json.loads(json.dumps(answer.result)), messages)
    if isinstance(made.result, dict) and set(made.result) == {"trouble"}:
        return Answer(None, messages, made.result["trouble"])
    return Answer(made.result, messages, made.data.get("trouble"))


def section(dataset: fo.Dataset, name: str, **request: Any) -> dict[str, Any]:
    """What one section shows."""
    answer = press(dataset, "load", {"sections": [name]}, **request)
    assert answer.notes == []
    return answer.data[name]


def choose(dataset: fo.Dataset, **changes: Any) -> None:
    """Keep changed settings, as the inputs do."""
    assert press(dataset, "choose", {"changes": changes}).result == {"problem": None}


def failures(dataset: fo.Dataset) -> dict[str, dict[str, Any]]:
    """Why jobs failed, by section, as a panel that is opened now shows it."""
    found: dict[str, dict[str, Any]] = press(dataset, "on_load").data["overview"]["failures"]
    return found


def context(dataset: fo.Dataset, **request: Any) -> foo.ExecutionContext:
    """A context of the panel, for what is called without the App."""
    params = {"panel_id": "panel"}
    return foo.ExecutionContext({"dataset_name": dataset.name, "params": params, **request}, executor=Executor())


def label_of(sample: fo.Sample, number: int = 0, field: str = "ground_truth", kind: str = "default") -> dict[str, str]:
    """A label of an image as the App names one that is selected."""
    return {"label_id": sample[field].detections[number].id, "sample_id": sample.id, "field": field, "type": kind}


def run_job(dataset: fo.Dataset, job: str, **request: Any) -> Answer:
    """Start a job by its button and watch it to its end, as the browser does."""
    started = press(dataset, "start", {"job": job}, **request)
    assert started.notes == [], started.notes
    return watch_to_the_end(dataset, started.result["id"], **request)


def watch_to_the_end(dataset: fo.Dataset, job_id: str, **request: Any) -> Answer:
    """Ask after a job until it has ended; a minute is far more than any takes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = press(dataset, "watch", {"known": [job_id]}, **request)
        if answer.result["ended"]:
            assert answer.result["ended"] == [job_id]
            dataset.reload()
            return answer
        time.sleep(0.02)
    raise AssertionError(f"The job {job_id} has not ended")
