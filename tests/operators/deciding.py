"""Predictions as the App selects them, and what was decided on them."""

from __future__ import annotations

import fiftyone as fo


def picked(sample: fo.Sample, field: str = "predictions") -> list[dict[str, str]]:
    return [{"label_id": label.id, "sample_id": sample.id, "field": field} for label in sample[field].detections]


def decided(dataset: fo.Dataset, field: str) -> list[fo.Detection]:
    dataset.reload()
    return dataset.values(f"{field}.detections", unwind=True) if dataset.has_field(field) else []
