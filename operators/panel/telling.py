"""Runs, evaluations and jobs as the panel tells them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from ..forms.form import object_fields
from ..forms.messages import count
from ..forms.selection import all_images, collection, labels_path
from ..running import background
from .figures import class_rows, confusion_table

if TYPE_CHECKING:
    from refseg.dataset import PastRun

Section = dict[str, Any]


def describe_run(ctx: Any, run: PastRun) -> Section:
    """What a run did; of one that has not said so, or was interrupted before, what its field holds."""
    config = run.config
    changes = config.get("changes") or {}
    num_instances, num_images = config.get("num_instances"), config.get("num_images")
    if num_instances is None:
        num_instances, num_images = _held(ctx, config["label_field"])
    return {
        "found": count(num_instances, "object"),
        "images": count(num_images or 0, "image"),
        "at": epoch(config.get("started_at")),
        "state": run.state,
        "error": config.get("error"),
        "preview": bool(config.get("preview")),
        "gained": changes.get("gained") or [],
        "lost": changes.get("lost") or [],
        "relabelled": changes.get("relabelled") or [],
        "num_skipped": config.get("num_skipped") or 0,
    }


def _held(ctx: Any, label_field: str) -> tuple[int, int]:
    """Objects in a field, and images that have an answer there."""
    if label_field not in object_fields(ctx, (fo.Detections,)):
        return 0, 0
    labels = labels_path(collection(ctx), label_field)
    stages = [
        {"$match": {f"{labels.rpartition('.')[0]}._cls": {"$exists": True}}},
        {"$group": {"_id": None, "objects": {"$sum": {"$size": {"$ifNull": [f"${labels}", []]}}}, "images": {"$sum": 1}}},
    ]
    found = list(all_images(ctx)._aggregate(post_pipeline=stages))
    return (found[0]["objects"], found[0]["images"]) if found else (0, 0)


def describe_evaluation(config: Mapping[str, Any]) -> Section:
    """What an evaluation came to."""
    names = ("mask_ap", "mask_ap50", "box_ap", "box_ap50", "num_images", "num_ground_truth", "gt_field", "eval_key")
    return {
        **{name: config.get(name) for name in names},
        "per_class": config.get("per_class") or [],
        "classes": class_rows(config),
        "confusion": confusion_table(config.get("numbers") or ()),
        "least": sorted({row[6] for row in config.get("classes") or ()}),
        "not_compared": config.get("not_compared") or [],
        "num_outside": config.get("num_outside") or 0,
        "without_references": config.get("without_references") or [],
        "num_left_out": config.get("num_left_out") or 0,
        "num_skipped": config.get("num_skipped") or 0,
        "notes": config.get("notes") or [],
        "hint": config.get("hint") or "",
        "at": epoch(config.get("evaluated_at")),
    }


def newest(ctx: Any, method: str, *, whole: bool = False, **wanted: Any) -> dict[str, Any] | None:
    """Settings of the newest run of a method, with its key and `at`, when it was recorded, seconds since the epoch.

    Settings that can be long are among them only where they are all wanted.
    """
    from refseg.dataset import newest_of, whole_config

    run = newest_of(ctx.dataset, method, **wanted)
    if run is None:
        return None
    return {**(whole_config(ctx.dataset, run.key) if whole else run.config), "key": run.key, "at": run.at}


def epoch(moment: str | None) -> float | None:
    """Seconds since the epoch of a moment in ISO's form; the browser says how long ago that is, and goes on saying it."""
    return None if moment is None else datetime.fromisoformat(moment).timestamp()


def queued(ctx: Any, running: set[str]) -> list[Section]:
    """Jobs that wait for the delegated service."""
    return [
        {
            "id": str(item.id),
            "operator": item.operator.removeprefix(background.PREFIX),
            "label": item.label or item.operator,
            "fraction": None,
            "done": 0,
            "total": 0,
            "step": "",
            "text": "waits for `fiftyone delegated launch`",
            "left": None,
            "is_cancelled": False,
            "seconds": 0,
        }
        for item in background.waiting(ctx)
        if str(item.id) not in running
    ]
