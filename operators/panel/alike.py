"""Objects that "Find similar" found: what the panel knows of those that are open, and whether they have a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..forms.constants import SIMILAR_METHOD
from ..forms.selection import collection

UNNAMED = "similar"
"""What the library calls what is like objects of several classes."""


def found_similar(ctx: Any) -> dict[str, Any] | None:
    """Of the patches that are open: their field, their class where it is known, how many and how alike; None of others."""
    field = getattr(ctx.view, "patches_field", None) if ctx.view is not None and ctx.view._is_patches else None
    if field is None or (config := _search_of(ctx, field)) is None:
        return None
    return {
        "field": field,
        "label": config.get("label"),
        "num_found": config.get("num_found"),
        "score_range": config.get("score_range"),
    }


def require_named(ctx: Any, field: str, label_ids: Sequence[str]) -> None:
    """Refuse objects that were found by their likeness to several classes, and that nobody has named.

    Raises:
        ValueError: there are some: as references they would be a class of their own.
    """
    config = _search_of(ctx, field)
    if config is None or config.get("label") is not None:
        return
    from refseg.dataset import every_image

    found = every_image(collection(ctx)).select_labels(ids=list(label_ids), fields=field)
    if UNNAMED in found.distinct(f"{field}.detections.label"):
        raise ValueError(
            "These objects are like several classes, so they have no name yet: name them under 'Similar objects' in the panel."
        )


def _search_of(ctx: Any, field: str) -> Any:
    from refseg.dataset import newest_of

    run = newest_of(ctx.dataset, SIMILAR_METHOD, label_field=field)
    return None if run is None else run.config
