"""What a user has chosen in the panel: kept with the dataset, so that another browser, or another day, finds it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .constants import ACCEPTED_FIELD, LABEL_FIELD, MIN_CONFIDENCE, MODELS, OTHER_MIN_CONFIDENCE, SHOTS
from .forms import default_model, reference_field

STORE = "refseg_panel"
KEY = "settings"


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

    def threshold(self, name: str) -> float:
        """The least score written of a class."""
        return dict(self.thresholds).get(name, MIN_CONFIDENCE.get(self.model, OTHER_MIN_CONFIDENCE))


def read(ctx: Any) -> PanelSettings:
    """The dataset's settings; those never chosen, or not possible any more, by default."""
    kept = ctx.store(STORE).get(KEY) or {}
    known = {entry.name for entry in fields(PanelSettings)}
    given = {name: value for name, value in kept.items() if name in known}
    if given.get("model") not in MODELS:
        given["model"] = default_model(ctx)
    if given.get("field") is None or not ctx.dataset.has_field(given["field"]):
        given["field"] = reference_field(ctx)
    given["thresholds"] = tuple((name, float(value)) for name, value in given.get("thresholds", ()))
    if given.get("classes") is not None:
        given["classes"] = tuple(given["classes"])
    return PanelSettings(**given)


def change(ctx: Any, **changes: Any) -> PanelSettings:
    """Keep changed settings, and return them all.

    Raises:
        ValueError: a value cannot be; the sentence for below its input.
    """
    settings = replace(read(ctx), **changes)
    _check(settings)
    kept = asdict(settings)
    kept["thresholds"] = [list(pair) for pair in settings.thresholds]
    kept["classes"] = None if settings.classes is None else list(settings.classes)
    ctx.store(STORE).set(KEY, kept)
    return settings


def _check(settings: PanelSettings) -> None:
    for what, name in (("Predictions", settings.label_field), ("Accepted objects", settings.accepted_field)):
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{what} need a field's name of letters, digits and underscores, not {name!r}.")
    if settings.label_field == settings.accepted_field:
        raise ValueError(f"Predictions and accepted objects cannot share the field {settings.label_field!r}: name another.")
    if not isinstance(settings.shots, int) or settings.shots < 1:
        raise ValueError(f"Shots must be a whole number of 1 or more, not {settings.shots!r}.")
    for name, value in settings.thresholds:
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"The minimum score of {name!r} must lie between 0 and 1, not {value!r}.")
