"""What a user has chosen in the panel: kept with the dataset, so that another browser, or another day, finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import fiftyone as fo

from ..forms.constants import ACCEPTED_FIELD, LABEL_FIELD, MODELS, REJECTED_FIELD, SHOTS
from ..forms.form import object_fields
from ..forms.inputs import default_model, reference_field
from ..forms.matching import chosen_matching, default_matching
from ..forms.selection import collection

STORE = "refseg_panel"
KEY = "settings"
ORDERS = ("teaching", "score")
MATCHING = ("negatives", "background", "class_similarity", "scenes", "overlaps", "second_look", "whiten")
"""What can be chosen of `refseg.MatchSettings`; whether scores are probabilities is no choice of the panel."""


@dataclass(frozen=True)
class PanelSettings:
    """The panel's inputs.

    Attributes:
        model: a preset's name.
        field: where references are drawn from.
        shots: references a class to draw.
        label_field: where predictions go.
        classes: the only classes to be written; None for all.
        thresholds: pairs of a class and the least score written, for classes whose threshold was moved.
        accepted_field: where accepted objects go.
        as_references: whether accepted objects become references.
        order: of the review queue, "teaching" or "score".
        matching: settings of `refseg.MatchSettings` that were changed; all others are as suits the model.
    """

    model: str
    field: str | None
    shots: int = SHOTS
    label_field: str = LABEL_FIELD
    classes: tuple[str, ...] | None = None
    thresholds: tuple[tuple[str, float], ...] = ()
    accepted_field: str = ACCEPTED_FIELD
    as_references: bool = True
    order: str = "teaching"
    matching: Mapping[str, Any] = field(default_factory=dict)


def read(ctx: Any) -> PanelSettings:
    """The dataset's settings; those never chosen, or not possible any more, by default."""
    from refseg.matching import SIMILARITIES

    kept = ctx.store(STORE).get(KEY) or {}
    known = {entry.name for entry in fields(PanelSettings)}
    given = {name: value for name, value in kept.items() if name in known}
    if given.get("model") not in MODELS:
        given["model"] = default_model(ctx)
    if given.get("field") is None or not collection(ctx).has_field(given["field"]):
        given["field"] = reference_field(ctx)
    # A number that was chosen where scores were others says nothing of these; earlier versions knew similarities alone.
    moved = given.get("thresholds", ()) if kept.get("scores", SIMILARITIES) == _scores(given["model"]) else ()
    given["thresholds"] = tuple((name, float(value)) for name, value in moved)
    if given.get("classes") is not None:
        given["classes"] = tuple(given["classes"])
    given["matching"] = {name: value for name, value in given.get("matching", {}).items() if name in MATCHING}
    return PanelSettings(**given)


def change(ctx: Any, **changes: Any) -> PanelSettings:
    """Keep changed settings, and return them all.

    Raises:
        ValueError: a value cannot be; the sentence for below its input.
    """
    before = read(ctx)
    settings = replace(before, **changes)
    if "thresholds" not in changes and _scores(settings.model) != _scores(before.model):
        settings = replace(settings, thresholds=())
    _check(settings)
    _check_fields(ctx, changes)
    kept = asdict(settings)
    kept["thresholds"] = [list(pair) for pair in settings.thresholds]
    kept["matching"] = dict(settings.matching)
    kept["scores"] = _scores(settings.model)
    kept["classes"] = None if settings.classes is None else list(settings.classes)
    ctx.store(STORE).set(KEY, kept)
    return settings


def _scores(model: str) -> str:
    """What scores are with a model, as a run's record says it."""
    from refseg.matching import PROBABILITIES, SIMILARITIES

    return PROBABILITIES if default_matching(model)["calibrated"] else SIMILARITIES


def _check(settings: PanelSettings) -> None:
    for what, name in (("Predictions", settings.label_field), ("Accepted objects", settings.accepted_field)):
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"{what} need a field's name of letters, digits and underscores, not {name!r}.")
    if settings.label_field == settings.accepted_field:
        raise ValueError(f"Predictions and accepted objects cannot share the field {settings.label_field!r}: name another.")
    if REJECTED_FIELD in (settings.label_field, settings.accepted_field):
        raise ValueError(f"The field {REJECTED_FIELD!r} is for rejected objects: name another.")
    for what, value, known in (("Model", settings.model, MODELS), ("Order", settings.order, ORDERS)):
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}, not {value!r}.")
    if not isinstance(settings.shots, int) or isinstance(settings.shots, bool) or settings.shots < 1:
        raise ValueError(f"Shots must be a whole number of 1 or more, not {settings.shots!r}.")
    for name, value in settings.thresholds:
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"The minimum score of {name!r} must lie between 0 and 1, not {value!r}.")
    _check_matching(settings)


def _check_matching(settings: PanelSettings) -> None:
    from refseg.errors import DatasetError

    for name, value in settings.matching.items():
        if name not in MATCHING:
            raise ValueError(f"There is no setting of matching {name!r}: choose from {', '.join(map(repr, MATCHING))}.")
        if name in ("negatives", "background", "scenes", "whiten") and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, not {value!r}.")
    try:
        chosen_matching(settings.matching, settings.model)
    except DatasetError as error:
        raise ValueError(str(error)) from error


def _check_fields(ctx: Any, changes: Mapping[str, Any]) -> None:
    """Refuse fields of the dataset that cannot serve; of those just chosen alone, so that no earlier choice is in the way."""
    from refseg.dataset import prediction_fields

    for name in (changes.get("label_field"), changes.get("accepted_field")):
        if name is not None and collection(ctx).has_field(name) and name not in object_fields(ctx, (fo.Detections,)):
            raise ValueError(f"The field {name!r} holds something else than detections: choose another, or a new name.")
    if changes.get("accepted_field") in prediction_fields(ctx.dataset):
        raise ValueError(
            f"The field {changes['accepted_field']!r} holds predictions, which the next run replaces: name another."
        )
    source = changes.get("field")
    if source is not None and source not in object_fields(ctx):
        raise ValueError(f"No field {source!r} holds labelled objects: choose one that does.")
