"""What forms and notifications say of an index, and what a dataset holds of it."""

from __future__ import annotations

import sys
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset.index import DatasetIndex
from refseg.dataset.index_finding import open_index
from refseg.dataset.known_indexes import index_records
from tests.operators.helpers import form_of, named

Notes = list[dict[str, Any]]


def notes(messages: list[dict]) -> Notes:
    return named(messages, "notify")


def notice(dataset: fo.Dataset, operator: str, params: dict[str, Any] | None = None, **more: Any) -> str:
    """What the form says about the index, without the time."""
    return form_of(dataset, operator, params, **more)["coverage"]["view"]["label"]


def records(dataset: fo.Dataset) -> list[dict[str, Any]]:
    dataset.reload()
    return index_records(dataset)


def opened(dataset: fo.Dataset) -> DatasetIndex:
    dataset.reload()
    return open_index(dataset)


def picked(sample: fo.Sample, number: int = 0, field: str = "ground_truth") -> dict[str, Any]:
    """A label as the App names a selected one."""
    return {"label_id": sample[field].detections[number].id, "sample_id": sample.id, "field": field}


def no_lance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an App whose server has not used an index yet."""
    monkeypatch.delitem(sys.modules, "lance")
