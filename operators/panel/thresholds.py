"""The least score of each class as the panel shows it: moved by the user, a half for probabilities, or the preset's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..forms.constants import MIN_CONFIDENCE, OTHER_MIN_CONFIDENCE
from ..forms.matching import CHANGES_SCORES, default_matching, in_words
from .settings import PanelSettings

OWN, CALIBRATED, LATER, DEFAULT = "own", "calibrated", "later", "default"
"""Where a threshold comes from. LATER: the next run calibrates it, and the number shown is only the best known so far."""


@dataclass(frozen=True)
class Thresholds:
    """The least scores that the next run writes.

    Attributes:
        default: the preset's, or a half where the next run makes scores probabilities.
        own: of classes whose slider was moved.
        calibrated: of classes that are known; where is_later is set, as they are for other settings.
        is_later: whether the next run calibrates anew.
    """

    default: float
    own: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)
    is_later: bool = False

    def of(self, name: str) -> float:
        """The least score of a class."""
        return self.own.get(name, self.calibrated.get(name, self.default))

    def origin(self, name: str) -> str:
        """Where it comes from."""
        if name in self.own:
            return OWN
        if self.is_later:
            return LATER
        return CALIBRATED if name in self.calibrated else DEFAULT


def thresholds(settings: PanelSettings, prototypes: Mapping[str, Any] | None, run: Mapping[str, Any] | None) -> Thresholds:
    """What the next run writes.

    Args:
        settings: of the panel.
        prototypes: settings of the newest that are kept, or None.
        run: settings of the last run, or None.
    """
    from refseg.matching import HALF

    default, own = MIN_CONFIDENCE.get(settings.model, OTHER_MIN_CONFIDENCE), dict(settings.thresholds)
    defaults = default_matching(settings.model)
    if not defaults["calibrated"]:
        return Thresholds(default, own)
    # Records of before scores were probabilities hold similarities.
    if prototypes is None or prototypes["model"] != settings.model or "num_learnt" not in prototypes:
        return Thresholds(HALF, own, is_later=True)
    known = dict(prototypes.get("thresholds") or ())
    matching = {**defaults, **settings.matching}
    if not known or all(matching[name] == defaults[name] for name in CHANGES_SCORES):
        return Thresholds(default, own, known)
    of_run = _of_run(run or {}, prototypes, matching)
    return Thresholds(default, own, of_run or known, is_later=not of_run)


def _of_run(run: Mapping[str, Any], prototypes: Mapping[str, Any], matching: Mapping[str, Any]) -> dict[str, float]:
    """The thresholds that the last run calibrated, where it matched the same references in the same way."""
    is_same = run.get("reference_ids") == prototypes.get("reference_ids") and run.get("calibrated")
    matched = in_words(run.get("matching") or {})
    if not is_same or any(matched.get(name) != matching[name] for name in CHANGES_SCORES):
        return {}
    own = dict(run.get("own_confidences") or ())
    return {name: least for name, least in run.get("min_confidences") or () if name not in own}
