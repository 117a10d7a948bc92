"""Where predictions, maps and presence go; labels of others are replaced on request alone."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from ..running.failures import PANEL_JOB
from .constants import (
    LABEL_FIELD,
    SEGMENT_METHOD,
)
from .form import Form, object_fields
from .selection import collection


def label_field_input(form: Form) -> None:
    """Where predictions go; labels that no run of RefSeg wrote are replaced only on request."""
    field = form.value("label_field", LABEL_FIELD)
    problem = None
    if _exists(form, field) and field not in object_fields(form.ctx, (fo.Detections,)):
        problem = f"The field {field!r} holds something else than detections: choose another, or a new name."
    description = "A new field, or one of an earlier run, whose labels on the same images are replaced"
    problem = problem or _loss_of_labels(form, field)
    form.text("label_field", LABEL_FIELD, "Predictions", description, problem, segmented_fields(form.ctx))
    if _is_foreign(form, field):
        _replace_labels_input(form, field)


def semantic_field_input(form: Form) -> None:
    """Where semantic maps go, if anywhere; as for predictions, those of others are replaced only on request."""
    field = form.value("semantic_field")
    description = "Also write one map of classes an image to this field; optional"
    form.text("semantic_field", None, "Semantic map", description, _loss_of_labels(form, field))
    if _is_foreign(form, field) and not _is_foreign(form, form.value("label_field", LABEL_FIELD)):
        _replace_labels_input(form, field)


def presence_field_input(form: Form, no_probabilities: str | None) -> None:
    """Where presence goes, if anywhere; as for predictions, labels of others are replaced only on request.

    Args:
        form: to add to.
        no_probabilities: why scores would be similarities, which presence cannot be; None where they are probabilities.
    """
    field = form.value("presence_field")
    description = "Also write how probable it is that each class is in an image to this field, to sort images by; optional"
    others = form.value("label_field", LABEL_FIELD), form.value("semantic_field")
    unfit = None
    if field and field in others:
        unfit = f"Presence needs a field of its own, not {field!r} again."
    elif _exists(form, field) and field not in object_fields(form.ctx, (fo.Classifications,)):
        unfit = f"The field {field!r} holds something else than classifications: choose another, or a new name."
    problem = unfit or _loss_of_labels(form, field) or (no_probabilities if field else None)
    form.text("presence_field", None, "Presence", description, problem)
    if unfit is None and _is_foreign(form, field) and not any(_is_foreign(form, other) for other in others):
        _replace_labels_input(form, field)


def _exists(form: Form, field: Any) -> bool:
    return isinstance(field, str) and collection(form.ctx).get_field(field) is not None


def _is_foreign(form: Form, field: Any) -> bool:
    from refseg.dataset import holds_labels_of_others

    return _exists(form, field) and holds_labels_of_others(collection(form.ctx), field)


def _loss_of_labels(form: Form, field: Any) -> str | None:
    """What is wrong with writing to a field where nobody has said that its labels may be lost."""
    if form.value("overwrite_labels", False) or not _is_foreign(form, field):
        return None
    # The panel has no such tick: there a slip would cost somebody's labels.
    way_out = "name another field" if PANEL_JOB in form.ctx.params else "choose another field, or tick 'Replace labels'"
    return f"The labels in the field {field!r} are not RefSeg's: {way_out}."


def _replace_labels_input(form: Form, field: str) -> None:
    form.switch("overwrite_labels", False, "Replace labels", f"Lose the labels in {field!r} of the images segmented")


def segmented_fields(ctx: Any) -> list[str]:
    """Fields of detections that runs of RefSeg have written, the latest first."""
    from refseg.dataset import past_runs

    detections = object_fields(ctx, (fo.Detections,))
    fields = [run.config["label_field"] for run in past_runs(ctx.dataset, [SEGMENT_METHOD])[::-1]]
    return list(dict.fromkeys(field for field in fields if field in detections))
