"""References and negatives from what is selected in the App."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .constants import NEGATIVE_TAG, REFERENCE_TAG, REJECTED_FIELD
from .messages import count, listing
from .panel_settings import PanelSettings
from .selection import all_images


def add_selection(ctx: Any, settings: PanelSettings) -> str:
    """Make what is selected references, and what is selected with Alt negatives.

    Labels are tagged where they are. Predictions are copied first, because the next run replaces them: to the field of accepted
    objects, or to that of rejected ones. Of a whole image every object of the chosen field becomes a reference; of an image
    selected with Alt, which holds no object looked for, every prediction becomes a negative.

    Returns:
        What was done, in one sentence.

    Raises:
        ValueError: nothing is selected, or the selection holds no object.
    """
    chosen = _selected_labels(ctx)
    if chosen:
        done = {
            kind: sum(_add_labels(ctx, settings, field, ids, kind) for field, ids in chosen[kind].items()) for kind in chosen
        }
    elif ctx.selected_samples:
        done = {kind: _add_images(ctx, settings, _of_kind(ctx.selected_samples, kind), kind) for kind in ("default", "alt")}
    else:
        raise ValueError("Nothing is selected: select labels in an image, or images or patches in the grid.")
    parts = [count(done.get("default", 0), "reference")] * bool(done.get("default"))
    parts += [count(done.get("alt", 0), "negative")] * bool(done.get("alt"))
    if not parts:
        raise ValueError("The selected images hold no object that could serve: label some, or segment first.")
    return f"Added {' and '.join(parts)}."


def remove(ctx: Any, field: str, label_id: str, sample_id: str) -> None:
    """Take a label's tags off; one that was only kept for being rejected goes altogether."""
    view = all_images(ctx).select(sample_id)
    if field == REJECTED_FIELD:
        ctx.dataset.delete_labels(ids=[label_id], fields=field)
        return
    view.select_labels(ids=[label_id], fields=field).untag_labels([REFERENCE_TAG, NEGATIVE_TAG], label_fields=field)


def draw(ctx: Any, settings: PanelSettings) -> tuple[str, str]:
    """Draw references of each class; returns what to say and in which colour."""
    from refseg.references import sample_references

    if settings.field is None:
        raise ValueError("No field holds labelled objects: label some first.")
    drawn = sample_references(all_images(ctx), settings.field, settings.shots)
    number = sum(map(len, drawn.label_ids.values()))
    text = f"Drew {count(number, 'reference')} of {count(len(drawn.label_ids), 'class')}."
    if drawn.short:
        text += " Fewer suitable objects than asked for: " + listing([f"{name!r} has {n}" for name, n in drawn.short.items()])
    return text, "warning" if drawn.short else "success"


def selected_predictions(ctx: Any, settings: PanelSettings) -> list[str]:
    """Ids of the predictions selected in the App, in images or as patches."""
    return [
        label_id
        for fields in _selected_labels(ctx).values()
        for field, ids in fields.items()
        if field == settings.label_field
        for label_id in ids
    ]


def _selected_labels(ctx: Any) -> dict[str, dict[str, list[str]]]:
    """Ids of selected labels by kind of selection and field; a selected patch stands for its label."""
    found: dict[str, dict[str, list[str]]] = {}
    if ctx.selected_labels:
        for item in ctx.selected_labels:
            found.setdefault(item.get("type") or "default", {}).setdefault(item["field"], []).append(item["label_id"])
    elif ctx.view._is_patches and ctx.selected_samples:
        field = ctx.view.patches_field
        for kind in ("default", "alt"):
            if ids := _of_kind(ctx.selected_samples, kind):
                found[kind] = {field: ids}
    return found


def _of_kind(items: Sequence[Any], kind: str) -> list[str]:
    return [item["id"] for item in items if (item.get("type") or "default") == kind]


def _add_labels(ctx: Any, settings: PanelSettings, field: str, ids: Sequence[str], kind: str) -> int:
    from refseg import review
    from refseg.fields import prediction_fields

    if field in prediction_fields(ctx.dataset):
        if kind == "alt":
            review.reject(ctx.dataset, ids, field, rejected_field=REJECTED_FIELD, accepted_field=settings.accepted_field)
        else:
            review.accept(
                ctx.dataset,
                ids,
                field,
                accepted_field=settings.accepted_field,
                rejected_field=REJECTED_FIELD,
                as_references=True,
            )
    else:
        add, drop = (NEGATIVE_TAG, REFERENCE_TAG) if kind == "alt" else (REFERENCE_TAG, NEGATIVE_TAG)
        chosen = all_images(ctx).select_labels(ids=list(ids), fields=field)
        chosen.untag_labels(drop, label_fields=field)
        chosen.tag_labels(add, label_fields=field)
    return len(ids)


def _add_images(ctx: Any, settings: PanelSettings, sample_ids: Sequence[str], kind: str) -> int:
    from .selection import labels_path

    field = settings.label_field if kind == "alt" else settings.field
    if not sample_ids or field is None or not ctx.dataset.has_field(field):
        return 0
    ids = all_images(ctx).select(list(sample_ids)).values(f"{labels_path(ctx.dataset, field)}.id", unwind=True)
    ids = [label_id for label_id in ids if label_id is not None]
    return _add_labels(ctx, settings, field, ids, kind) if ids else 0
