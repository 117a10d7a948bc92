"""How candidates are compared, and what counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .constants import (
    MODELS_AS_PUBLISHED,
    OVERLAPS,
    SECOND_LOOKS,
    SIMILARITIES,
)
from .form import Form, unknown_class

if TYPE_CHECKING:
    from refseg.matching import MatchSettings

CHANGES_SCORES = ("negatives", "background", "class_similarity", "scenes", "second_look", "whiten")
"""Of the settings of matching those that calibration depends on."""


def limits_inputs(form: Form, max_detections: int) -> None:
    """Which instances are written."""
    form.number(
        "min_confidence",
        None,
        "Minimum confidence",
        "Instances with a lower score are not written; leave it empty for each class's calibrated one, or the model's default",
        0,
        1,
    )
    form.number(
        "max_detections", max_detections, "Maximum detections", "The best so many of each image are written", 1, whole=True
    )


def classes_input(form: Form, known: Sequence[str]) -> None:
    """Which of the prototypes' classes are written."""
    form.names("classes", "Classes", "Write only these; leave it empty for every class", known)


def thresholds_input(form: Form, known: Sequence[str]) -> None:
    """A least score for some classes alone: callers give pairs, the form only says which."""
    pairs = form.value("min_confidences")
    if not pairs:
        return
    problem = _thresholds_problem(pairs, known)
    if problem is not None:
        form.obstacle("min_confidences", problem)
    else:
        listed = ", ".join(f"{name} {least:g}" for name, least in pairs)
        form.notice("min_confidences", f"Classes with a minimum confidence of their own: {listed}")


def _thresholds_problem(pairs: Any, known: Sequence[str]) -> str | None:
    shaped = isinstance(pairs, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    if not shaped:
        return f"Minimum confidences must be a list of pairs of a class and a number, not {pairs!r}."
    for name, least in pairs:
        if name not in known:
            return unknown_class(name, known)
        if not isinstance(least, int | float) or isinstance(least, bool) or not 0 <= least <= 1:
            return f"The minimum confidence of {name!r} must be a number from 0 to 1, not {least!r}."
    return None


def calibrated_notice(form: Form, prototypes: str) -> None:
    """Says what scores are, and which count, where no threshold was given."""
    if form.value("min_confidence") is not None:
        return
    config = form.ctx.dataset.get_run_info(prototypes).config
    calibrated = form.value("calibrated")
    if not (default_matching(config.model)["calibrated"] if calibrated is None else calibrated):
        return
    if not getattr(config, "thresholds", None):
        text = "The prototypes are not calibrated: scores are similarities, and the model's own threshold counts"
    elif not getattr(config, "num_learnt", 0):
        text = "Scores are probabilities as on other datasets: no class has references in two images"
    else:
        text = "Scores are probabilities: an instance of 0.5 or more is more likely right than wrong"
    form.notice("calibrated_thresholds", text)


NOT_TICKED = "Presence is a probability: tick 'Probabilities' below, or leave this empty."


def no_probabilities(form: Form, prototypes: str) -> str | None:
    """Why the scores that the form asks for would be similarities; None where they are probabilities, or nobody knows yet."""
    config = form.ctx.dataset.get_run_info(prototypes).config
    by_default = default_matching(config.model)["calibrated"]
    chosen = form.value("calibrated")
    if not (by_default if chosen is None else chosen):
        return NOT_TICKED
    if by_default and not getattr(config, "thresholds", None):
        return (
            "Presence is a probability, and these prototypes are not calibrated: run 'Calibrate thresholds' first, or leave "
            "this empty."
        )
    return None


def no_probabilities_of_new(form: Form, model: str) -> str | None:
    """The same for prototypes that are about to be built for a preset."""
    by_default = default_matching(model)["calibrated"]
    chosen = form.value("calibrated")
    if by_default and chosen is False:
        return NOT_TICKED
    if not by_default and not chosen:
        return f"Presence is a probability, and {model!r} gives similarities: choose another model, or leave this empty."
    if not form.value("calibrates", True):
        return "Presence is a probability: tick 'Calibrate thresholds' above, or leave this empty."
    return None


def kept_classes(ctx: Any, prototypes: str) -> list[str]:
    """The classes of prototypes that the dataset keeps."""
    return [name for name, _ in ctx.dataset.get_run_info(prototypes).config.shots]


def matching_inputs(form: Form, model: str) -> None:
    """How candidates are compared with prototypes; see `refseg.matching.settings`.

    Args:
        form: to add to.
        model: the preset's name, whose defaults are chosen at first.
    """
    defaults = default_matching(model)
    form.header("matching", "Matching", "How masks are compared with references; measured defaults are chosen")
    description = "What resembles a negative more than its class scores lower"
    form.switch("negatives", defaults["negatives"], "Use negatives", description)
    description = "Drop masks that are more like what surrounds the references than like any class"
    form.switch("background", defaults["background"], "Use backgrounds", description)
    description = "With what of a class a mask is compared"
    form.choice("class_similarity", SIMILARITIES, defaults["class_similarity"], "Class similarity", description, "")
    description = "A class also looks like the masks that show its references in their images, where these are calibrated"
    form.switch("scenes", defaults["scenes"], "Use scenes", description)
    description = "How a mask inside a better one of its class loses score"
    form.choice("overlaps", OVERLAPS, defaults["overlaps"], "Overlaps", description, "")
    description = "Whether the best masks are looked at again, as crops, and scored by that, where prototypes are calibrated"
    form.choice("second_look", SECOND_LOOKS, defaults["second_look"], "Second look", description, "")
    description = "Compare second looks by what sets them apart from everything else in the dataset"
    form.switch("whiten", defaults["whiten"], "Whiten", description)
    description = "Scores are probabilities, learnt from the images of references; otherwise similarities"
    form.switch("calibrated", defaults["calibrated"], "Probabilities", description)


def default_matching(model: str) -> dict[str, Any]:
    """The settings of matching that a preset has unless told otherwise, as forms have them."""
    from refseg.matching import settings_for

    return in_words(settings_for(model in MODELS_AS_PUBLISHED).as_dict())


def in_words(matching: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of matching as forms have them: a choice is a word."""
    from refseg.matching import SECOND_LOOK_WORDS

    look = matching.get("second_look")
    return {**matching, **({} if look is None else {"second_look": SECOND_LOOK_WORDS.get(look, look)})}


def chosen_matching(params: Mapping[str, Any], model: str) -> MatchSettings | None:
    """The settings of matching in an operator's parameters; None where they hold none."""
    from refseg.matching import MatchSettings

    defaults = default_matching(model)
    given = {name: params[name] for name in defaults if params.get(name) not in (None, "")}
    return MatchSettings.from_mapping({**defaults, **given}) if given else None
