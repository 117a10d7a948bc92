"""Predictions to decide on, as a run of segment leaves them, and what a dataset holds of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import fiftyone as fo
import numpy as np

LEFT = [0.1, 0.1, 0.2, 0.2]
RIGHT = [0.6, 0.6, 0.2, 0.2]


def predicted(label: str, box: Sequence[float], score: float, margin: float | None = 0.5, **attributes: Any) -> fo.Detection:
    if margin is not None:
        attributes |= {"margin": margin, "runner_up": "other"}
    mask = np.eye(4, dtype=bool)
    return fo.Detection(label=label, bounding_box=list(box), confidence=score, mask=mask, run="first", **attributes)


def record(dataset: Any, label_field: str = "predictions", method: str = "refseg/segment", **config: Any) -> None:
    key = f"run_{len(dataset.list_runs())}"
    dataset.register_run(key, dataset.init_run(method=method, label_field=label_field, **config))


def two_images(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """Two images with two predictions each."""
    first = [predicted("star", LEFT, 0.9, index=3, tags=["odd"]), predicted("tee", RIGHT, 0.6)]
    second = [predicted("star", LEFT, 0.8, 0.05), predicted("star", RIGHT, 0.55)]
    samples = [
        fo.Sample(f"{number}.png", predictions=fo.Detections(detections=labels))
        for number, labels in enumerate([first, second])
    ]
    dataset = make_dataset()
    dataset.add_samples(samples, dynamic=True, progress=False)
    record(dataset, min_confidence=0.5, min_confidences=[["star", 0.5], ["tee", 0.3]])
    return dataset


def ids_of(dataset: Any, field: str = "predictions") -> list[str]:
    return dataset.values(f"{field}.detections.id", unwind=True)


def labels_in(dataset: fo.Dataset, field: str) -> list[fo.Detection]:
    dataset.reload()
    return dataset.values(f"{field}.detections", unwind=True) if dataset.has_field(field) else []


def segment_again(dataset: fo.Dataset, move: float = 0.0) -> None:
    """The same predictions with new ids, some pixels further."""
    values = {}
    for sample in dataset:
        values[sample.id] = fo.Detections(
            detections=[
                predicted(label.label, [label.bounding_box[0] + move, *label.bounding_box[1:]], label.confidence)
                for label in sample.predictions.detections
            ]
        )
    dataset.set_values("predictions", values, key_field="id")
