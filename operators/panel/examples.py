"""References and negatives from what is selected in the App."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..forms.constants import NEGATIVE_TAG, REFERENCE_TAG, REJECTED_FIELD
from ..forms.messages import count, listing
from ..forms.selection import all_images, collection
from .settings import PanelSettings


def add_selection(ctx: Any, settings: PanelSettings, *, only_negatives: bool = False) -> str:
    """Make what is selected references, and what is selected with Alt negatives; or all of it negatives.

    Labels are tagged where they are. Predictions are copied first, because the next run replaces them: to the field of accepted
    objects, or to that of rejected ones. Of a whole image every object of the chosen field becomes a reference; of an image
    selected with Alt, which holds no object looked for, every prediction becomes a negative.

    Returns:
        What was done, in one sentence.

    Raises:
        ValueError: nothing is selected, or the selection holds no object.
    """
    chosen = _selected_labels(ctx)
    if only_negatives and chosen:
        together: dict[str, list[str]] = {}
        for fields in chosen.values():
            for field, ids in fields.items():
                together.setdefault(field, []).extend(ids)
        chosen = {"alt": together}
    if chosen:
        done = {
            kind: sum(_add_labels(ctx, settings, field, ids, kind) for field, ids in chosen[kind].items()) for kind in chosen
        }
    elif ctx.selected_samples:
        of_kind = {kind: _of_kind(ctx.selected_samples, kind) for kind in ("default", "alt")}
        if only_negatives:
            of_kind = {"alt": of_kind["default"] + of_kind["alt"]}
        done = {kind: _add_images(ctx, settings, ids, kind) for kind, ids in of_kind.items()}
    else:
        raise ValueError("Nothing is selected: select labels in an image, or images or patches in the grid.")
    parts = [count(done.get("default", 0), "reference")] * bool(done.get("default"))
    parts += [count(done.get("alt", 0), "negative")] * bool(done.get("alt"))
    if not parts:
        raise ValueError("The selected images hold no object that could serve: label some, or segment first.")
    return f"Added {' and '.join(parts)}."


def every_image(ctx: Any) -> Any:
    """The images of the whole dataset, of grouped data those of every slice: where the library looks for what is tagged."""
    from refseg.dataset import fields

    return fields.every_image(collection(ctx))


def remove(ctx: Any, field: str, label_id: str, sample_id: str) -> None:
    """Take a label's tags off; one that was only kept for being rejected goes altogether.

    Raises:
        ValueError: it is its image that is tagged.
    """
    if field == REJECTED_FIELD:
        from refseg.dataset import delete_labels

        delete_labels(collection(ctx), [{"label_id": label_id, "sample_id": sample_id, "field": field}])
        return
    view = every_image(ctx).select(sample_id)
    if len(view.match_tags(REFERENCE_TAG)):
        raise ValueError(
            f"The whole image is tagged {REFERENCE_TAG!r}, so each of its objects is a reference: take the tag off the image."
        )
    view.select_labels(ids=[label_id], fields=field).untag_labels([REFERENCE_TAG, NEGATIVE_TAG], label_fields=field)


def draw(ctx: Any, settings: PanelSettings) -> tuple[str, str]:
    """Draw references of each class; returns what to say and in which colour."""
    from refseg.dataset import prediction_fields, sample_references

    if settings.field is None:
        raise ValueError("No field holds labelled objects: label some first.")
    if settings.field in {*prediction_fields(ctx.dataset), REJECTED_FIELD}:
        raise ValueError(f"The objects in the field {settings.field!r} cannot be references as they are: draw from another.")
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


def selected_others(ctx: Any, settings: PanelSettings) -> dict[str, int]:
    """How many selected labels are no predictions, by field."""
    found: dict[str, int] = {}
    for fields in _selected_labels(ctx).values():
        for field, ids in fields.items():
            if field != settings.label_field:
                found[field] = found.get(field, 0) + len(ids)
    return found


def only_predictions(settings: PanelSettings, others: Mapping[str, int]) -> str:
    """Why nothing can be decided on a selection."""
    held = listing([f"{count(number, 'object')} of the field {field!r}" for field, number in sorted(others.items())])
    return (
        f"Accepting and rejecting is for predictions alone, and the selection holds {held}: select objects of the field "
        f"{settings.label_field!r} alone."
    )


def _selected_labels(ctx: Any) -> dict[str, dict[str, list[str]]]:
    """Ids of selected labels by kind of selection and field; a selected patch stands for its label."""
    found: dict[str, dict[str, list[str]]] = {}
    if ctx.selected_labels:
        # FiftyOne 1.22 itself does not say which labels were selected with Alt; the panel does.
        alt = set(ctx.params.get("alt_label_ids") or ())
        for item in ctx.selected_labels:
            kind = "alt" if item["label_id"] in alt else item.get("type") or "default"
            found.setdefault(kind, {}).setdefault(item["field"], []).append(item["label_id"])
    elif ctx.view._is_patches and ctx.selected_samples:
        field = getattr(ctx.view, "patches_field", None)
        if field is None:
            raise ValueError("Patches of an evaluation show two fields at once: select objects in images, or in other patches.")
        for kind in ("default", "alt"):
            if ids := _of_kind(ctx.selected_samples, kind):
                found[kind] = {field: ids}
    return found


def _of_kind(items: Sequence[Any], kind: str) -> list[str]:
    return [item["id"] for item in items if (item.get("type") or "default") == kind]


def _add_labels(ctx: Any, settings: PanelSettings, field: str, ids: Sequence[str], kind: str) -> int:
    import refseg
    from refseg.dataset import CHANGING, newest_of, prediction_fields

    if newest_of(ctx.dataset, CHANGING, label_field=field) is not None:
        raise ValueError(f"The objects of the field {field!r} only show what a run has changed: select predictions instead.")
    if field in prediction_fields(ctx.dataset):
        if kind == "alt":
            refseg.reject(collection(ctx), ids, field, rejected_field=REJECTED_FIELD, accepted_field=settings.accepted_field)
        else:
            refseg.accept(
                collection(ctx),
                ids,
                field,
                accepted_field=settings.accepted_field,
                rejected_field=REJECTED_FIELD,
                as_references=True,
            )
    else:
        add, drop = (NEGATIVE_TAG, REFERENCE_TAG) if kind == "alt" else (REFERENCE_TAG, NEGATIVE_TAG)
        chosen = every_image(ctx).select_labels(ids=list(ids), fields=field)
        chosen.untag_labels(drop, label_fields=field)
        chosen.tag_labels(add, label_fields=field)
    return len(ids)


def _add_images(ctx: Any, settings: PanelSettings, sample_ids: Sequence[str], kind: str) -> int:
    from ..forms.selection import labels_path

    field = settings.label_field if kind == "alt" else settings.field
    if not sample_ids or field is None or not collection(ctx).has_field(field):
        return 0
    ids = all_images(ctx).select(list(sample_ids)).values(f"{labels_path(collection(ctx), field)}.id", unwind=True)
    ids = [label_id for label_id in ids if label_id is not None]
    return _add_labels(ctx, settings, field, ids, kind) if ids else 0
