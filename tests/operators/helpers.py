"""Contexts as the App and Python make them, and what comes back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionResult, Executor, execute_or_delegate_operator

PLUGIN = "@refseg/reference-segmentation"


def uri(name: str) -> str:
    return f"{PLUGIN}/{name}"


def app_request(dataset: fo.Dataset | None, operator: str, params: dict[str, Any] | None = None, **more: Any) -> dict:
    """What the App sends: unlike a call from Python it names the operator."""
    view = more.pop("view", None)
    return {
        "dataset_name": dataset.name if dataset is not None else None,
        "operator_uri": uri(operator),
        "params": params or {},
        "view": view._serialize() if view is not None else [],
        **more,
    }


def form_of(dataset: fo.Dataset | None, operator: str, params: dict[str, Any] | None = None, **more: Any) -> dict:
    """The form's inputs as the App gets them, by name."""
    request = app_request(dataset, operator, params, **more)
    found = foo.get_operator(uri(operator))
    ctx = foo.ExecutionContext(request, executor=Executor(), operator_uri=uri(operator))
    return found.resolve_type(ctx, "inputs").to_json()["type"]["properties"]


def problems_of(form: dict) -> dict[str, str]:
    """The sentences shown under fields, by field."""
    return {name: field["error_message"] for name, field in form.items() if field["invalid"]}


def run_in_app(dataset: fo.Dataset, operator: str, params: dict[str, Any] | None = None, **more: Any) -> list[dict]:
    """Messages the App receives while an operator runs, as JSON."""
    request = app_request(dataset, operator, params, **more)
    answer = asyncio.run(execute_or_delegate_operator(uri(operator), request))
    answer.raise_exceptions()
    assert answer.is_generator
    return [message.to_json()["body"] for message in answer.result]


def named(messages: list[dict], operator: str) -> list[dict]:
    """Parameters of the messages of one built-in operator."""
    return [message["params"] for message in messages if message["operator_uri"] == operator]


def call(name: str, /, *args: object, **kwargs: object) -> dict:
    """The result of an operator called from Python; it must survive JSON."""
    result = foo.get_operator(uri(name))(*args, **kwargs).result
    return json.loads(json.dumps(result))


def run_delegated(execution: ExecutionResult) -> object:
    """Run the one queued job, as `fiftyone delegated launch` does."""
    assert execution.delegated
    service = DelegatedOperationService()
    service.execute_queued_operations(limit=1)
    return service.get(execution.result["id"])


def broken(dataset: fo.Dataset, folder: Path) -> str:
    """Point the last sample to a file that is no image; returns its path."""
    path = folder / "broken.png"
    path.write_bytes(b"no image")
    sample = dataset.last()
    sample.filepath = str(path)
    sample.save()
    return str(path)
