"""Two images with objects and predictions, as the panel shows them, and what becomes of their labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo

from operators.forms.machine import fitting_model
from tests.operators.app_panel import NAME, press
from tests.operators.helpers import uri

DEFAULTS = {
    "model": fitting_model(),
    "field": "ground_truth",
    "shots": 3,
    "label_field": "predictions",
    "classes": None,
    "thresholds": [],
    "accepted_field": "accepted",
    "as_references": True,
    "order": "teaching",
    "matching": {},
}


def detections(prefix: str, labels: Sequence[str], **about: Any) -> fo.Detections:
    """Objects side by side."""
    boxes = [[0.1 + 0.3 * number, 0.2, 0.2, 0.5] for number in range(len(labels))]
    return fo.Detections(
        detections=[
            fo.Detection(label=prefix + name, bounding_box=box, **about) for name, box in zip(labels, boxes, strict=True)
        ]
    )


def settings(dataset: fo.Dataset) -> dict[str, Any]:
    shown: dict[str, Any] = press(dataset, "on_load").data["overview"]["settings"]
    return shown


def tags(dataset: fo.Dataset, field: str = "ground_truth") -> list[list[list[str]]]:
    dataset.reload()
    found: list[list[list[str]]] = dataset.values(f"{field}.detections.tags") if dataset.has_field(field) else []
    return found


def kept(dataset: fo.Dataset, field: str) -> list[fo.Detection]:
    dataset.reload()
    return list(dataset.values(f"{field}.detections", unwind=True)) if dataset.has_field(field) else []


def loaded(name: str) -> Any:
    """A module of the plugin as FiftyOne loads it, apart from the one that tests import."""
    package = type(foo.get_operator(uri(NAME))).__module__.rpartition(".")[0]
    return sys.modules[f"{package}.{name}"]
