"""References and negatives from what is selected in the App."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson import json_util

from ..forms.constants import NEGATIVE_TAG, REFERENCE_TAG, REJECTED_FIELD
from ..forms.form import object_fields
from ..forms.messages import count, listing
from ..forms.selection import all_images, collection
from .alike import require_named
from .settings import STORE, PanelSettings

DRAWN, REMOVED = "drawn", "removed"
"""Keys of the panel's store: why the last draw fell short, by class, and what was removed last."""


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
    """Take a label's tags off; one that was only kept for being rejected goes altogether. The last removal can be taken back.

    Raises:
        ValueError: it is its image that is tagged, or the label is gone.
    """
    from refseg.dataset import delete_labels, read_documents

    view = every_image(ctx).select(sample_id)
    if field != REJECTED_FIELD and len(view.match_tags(REFERENCE_TAG)):
        raise ValueError(
            f"The whole image is tagged {REFERENCE_TAG!r}, so each of its objects is a reference: take the tag off the image."
        )
    held = [label for _, lists in read_documents(collection(ctx), [sample_id], [field]) for label in lists[field]]
    (found, *_) = [label for label in held if str(label["_id"]) == label_id] or [None]
    if found is None:
        raise ValueError("This label is gone: somebody has deleted it meanwhile.")
    tags = [tag for tag in (REFERENCE_TAG, NEGATIVE_TAG) if tag in found["tags"]]
    removed = {"field": field, "id": label_id, "sample_id": sample_id, "tags": tags, "label": found["label"]}
    if field == REJECTED_FIELD:
        delete_labels(collection(ctx), [{"label_id": label_id, "sample_id": sample_id, "field": field}])
        removed["document"] = json_util.dumps(found)
    else:
        view.select_labels(ids=[label_id], fields=field).untag_labels(tags, label_fields=field)
    ctx.store(STORE).set(REMOVED, removed)


def restore(ctx: Any) -> None:
    """Take the last removal back.

    Raises:
        ValueError: nothing was removed, or it was taken back already.
    """
    from refseg.dataset import ImageEdit, ListEdit, edit_labels, read_documents

    store = ctx.store(STORE)
    removed = store.get(REMOVED)
    if not removed:
        raise ValueError("There is no removal to take back.")
    field, label_id, sample_id = removed["field"], removed["id"], removed["sample_id"]
    if removed.get("document"):
        document = json_util.loads(removed["document"])

        def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
            seen = read_documents(collection(ctx), ids, [field])
            lists = {name: found[field] for name, found in seen}
            return {
                name: ImageEdit({field: ListEdit(labels, added=[document])})
                for name, labels in lists.items()
                if all(label["_id"] != document["_id"] for label in labels)
            }

        edit_labels(collection(ctx), [sample_id], edits_of)
    else:
        chosen = every_image(ctx).select(sample_id).select_labels(ids=[label_id], fields=field)
        for tag in removed["tags"]:
            chosen.tag_labels(tag, label_fields=field)
    store.delete(REMOVED)


def draw(ctx: Any, settings: PanelSettings) -> tuple[str, str]:
    """Draw references of each class; returns what to say and in which colour. Why a class fell short is kept beside it."""
    from refseg.dataset import sample_references

    if settings.field is None:
        raise ValueError("No field holds labelled objects: label some first, or press 'Show an object'.")
    if settings.field not in drawn_from(ctx):
        raise ValueError(f"The objects in the field {settings.field!r} cannot be references as they are: draw from another.")
    drawn = sample_references(all_images(ctx), settings.field, settings.shots)
    number = sum(map(len, drawn.label_ids.values()))
    text = f"Drew {count(number, 'reference')} of {count(len(drawn.label_ids), 'class')}."
    ctx.store(STORE).set(DRAWN, dict(zip(drawn.short, drawn.describe_short(), strict=True)))
    if drawn.short:
        text += f" Of {count(len(drawn.short), 'class')} there were fewer than {settings.shots}: the section says why."
    return text, "warning" if drawn.short else "success"


def drawn_from(ctx: Any) -> list[str]:
    """Fields from which references may be drawn: what a run replaces is none, and what was shown by hand stays so."""
    from refseg.dataset import SHOWN_FIELD, prediction_fields

    own = {*prediction_fields(ctx.dataset), REJECTED_FIELD, SHOWN_FIELD}
    return [name for name in object_fields(ctx) if name not in own]


def selected_predictions(ctx: Any, settings: PanelSettings) -> list[str]:
    """Ids of the predictions selected in the App, in images or as patches."""
    return selected_of(ctx, settings.label_field)


def selected_of(ctx: Any, name: str, kinds: Sequence[str] = ("default", "alt")) -> list[str]:
    """Ids of the labels of a field that are selected in the App, in images or as patches: with Alt, without, or both."""
    chosen = _selected_labels(ctx)
    return [label_id for kind in kinds for label_id in chosen.get(kind, {}).get(name, ())]


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
        require_named(ctx, field, ids)
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
