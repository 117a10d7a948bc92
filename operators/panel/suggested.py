"""What the panel shows of suggested references: those kept from the last time they were asked for that are still open."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from ..forms.constants import SUGGESTED_STORE
from ..forms.form import object_fields
from ..forms.indexes import find_record
from . import looking
from .settings import PanelSettings
from .telling import Section


def suggested(ctx: Any, settings: PanelSettings) -> Section:
    """Suggestions by class; `is_possible` says whether any can be asked for: there is a finished run, and an index."""
    from refseg.dataset import newest_run

    run = newest_run(ctx.dataset, settings.label_field)
    if (
        run is None
        or run.config.get("state") != "completed"
        or settings.label_field not in object_fields(ctx, (fo.Detections,))
        or find_record(ctx, str(run.config.get("model")), borrows=True) is None
    ):
        return {"is_possible": False, "was_asked": False, "num_found": 0, "num_open": 0, "classes": []}
    kept = ctx.store(SUGGESTED_STORE).get(settings.label_field)
    # What was suggested of another run's predictions says nothing of these.
    was_asked = kept is not None and kept["run"] == run.key
    rows = kept["rows"] if was_asked else []
    found = looking.review(ctx, settings) if rows else None
    is_open = set() if found is None else found.open.among({row["label_id"] for row in rows})
    classes: dict[str, list[Section]] = {}
    for row in rows:
        if row["label_id"] in is_open:
            item = {"id": row["label_id"], "sample_id": row["sample_id"], "field": settings.label_field}
            about = {"score": round(row["score"], 3), "reason": row["reason"]}
            classes.setdefault(row["label"], []).append(item | about)
    return {
        "is_possible": True,
        "was_asked": was_asked,
        "num_found": len(rows),
        "num_open": sum(map(len, classes.values())),
        "classes": [{"name": name, "items": classes[name]} for name in sorted(classes)],
    }
