"""What the panel shows of the last inspection: what is still open of it."""

from __future__ import annotations

from typing import Any

from ..forms.constants import PROTOTYPES_METHOD
from ..forms.inspections import done_since, kept_inspection
from . import looking
from .settings import PanelSettings
from .telling import Section, epoch, newest


def inspection(ctx: Any, settings: PanelSettings) -> Section:
    """Classes, how alike they are, references that hurt and are still references, and suggestions nobody has decided on."""
    kept = kept_inspection(ctx)
    if kept is None:
        return {"is_there": False}
    actions = done_since(ctx, kept)
    decided = {action["id"] for action in actions if action["kind"] != "remove"}
    places = {}
    removed = {action["id"] for action in actions if action["kind"] == "remove"}
    if kept["references"]:
        tagged = looking.tagged_labels(ctx, settings)
        places = {label.label_id: label for label in tagged.labels if not label.is_negative}
    suggestions = kept["suggestions"]
    prototypes = newest(ctx, PROTOTYPES_METHOD)
    return {
        "is_there": True,
        "prototypes": kept["prototypes"],
        "at": epoch(kept["made_at"]),
        "is_current": prototypes is not None and prototypes.get("sha256") == kept["sha256"],
        "classes": [
            {"name": name, "num_references": number, "similarity": similarity, "threshold": threshold, "f1": f1}
            for name, number, similarity, threshold, f1 in kept["classes"]
        ],
        "num_classes": kept["num_classes"],
        "between": kept["between"],
        "confused": kept["confused"],
        "references": [
            {"id": name, "sample_id": places[name].sample_id, "field": places[name].field, "label": label, "why": why}
            for name, label, why in kept["references"]
            if name in places
        ],
        "num_removed": len(removed - places.keys()),
        "num_scored": kept["num_scored"],
        "suggestions": None
        if suggestions is None
        else [
            {name: row[name] for name in ("id", "sample_id", "label", "score", "change", "reason")}
            for row in suggestions
            if row["id"] not in decided
        ],
        "num_suggested": len(suggestions or ()),
        "num_references": sum(action["kind"] == "reference" for action in actions),
        "num_negatives": sum(action["kind"] == "negative" for action in actions),
        "can_undo": bool(actions),
        "notes": kept["notes"],
        "files": sorted(kept["files"]),
    }
