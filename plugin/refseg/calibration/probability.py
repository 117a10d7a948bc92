"""How probable it is that an instance of some similarity is right, learnt by leaving out one image of references at a time.

The function is logistic, of one slope for all classes, which have few references each, and a centre for each class. Where
references say little it stays near what it was on other datasets. Source: J. Platt, "Probabilistic outputs for support vector
machines", 1999.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..matching import (
    HALF,
    PROBABILITIES,
    SIMILARITIES,
    Calibrator,
    MatchSettings,
    is_whitened,
    make_gallery,
    prepare_second_looks,
)
from ..models import Preset
from ..prototypes import Prototypes
from .left_out import LeftOut, leave_one_out

# Chosen on the tuning seeds of benchmarks/quality.py.
SLOPE = 12.0
"""Of the logistic function before anything is learnt."""
CENTER = 0.5
"""Its centre for whitened second looks; else the preset's threshold."""
SLOPE_SPREAD, CENTER_SPREAD, CLASS_SPREAD = 0.5, 0.16, 1.0
"""How far slopes, as a logarithm, centres, and the log odds of a class at the common centre are expected to lie from that."""
ROUNDS = 100


def scores_of(matching: MatchSettings, prototypes: Prototypes) -> str:
    """What the scores of a run with these are."""
    return PROBABILITIES if matching.calibrated and prototypes.surroundings is not None else SIMILARITIES


def calibrator_for(prototypes: Prototypes, preset: Preset, settings: MatchSettings) -> Calibrator | None:
    """What turns similarities into probabilities; None where settings or prototypes know of none, and scores stay similarities.

    Args:
        prototypes: with surroundings; where no class has references in two images they say nothing, and what holds on other
            datasets is taken.
        preset: of the prototypes.
        settings: how candidates are compared.
    """
    if not settings.calibrated or prototypes.surroundings is None:
        return None
    found = leave_one_out(prototypes, preset, settings)
    whitened = found.looked_twice and is_whitened(prototypes, settings)
    return fit_calibrator(found, len(prototypes.classes), CENTER if whitened else preset.typical_threshold)


def default_thresholds(
    prototypes: Prototypes, preset: Preset, settings: MatchSettings, calibrator: Calibrator | None
) -> dict[str, float]:
    """The least score of each class that is written where nobody says otherwise.

    Args:
        prototypes: of these classes.
        preset: whose threshold counts for similarities of first looks.
        settings: how candidates are compared.
        calibrator: of calibrator_for.
    """
    least = preset.min_confidence
    if calibrator is not None:
        least = HALF
    elif is_whitened(prototypes, settings):
        looks_twice = prepare_second_looks(prototypes, preset, settings, make_gallery(prototypes, settings)) is not None
        least = CENTER if looks_twice else least
    return dict.fromkeys(prototypes.classes, least)


def fit_calibrator(found: LeftOut, num_classes: int, center: float) -> Calibrator:
    """The most probable slope and centres, by what leave_one_out has found and what is expected before.

    Args:
        found: instances, right and wrong; where none is right nothing is learnt.
        num_classes: K.
        center: where the function is expected to be a half.

    Example:
        >>> scores = torch.tensor([0.8, 0.7, 0.6, 0.4, 0.3, 0.2])
        >>> truth = torch.tensor([0, 0, 0, -1, -1, -1])
        >>> fitted = fit_calibrator(LeftOut(scores, torch.zeros(6, dtype=torch.int64), truth, ("",) * 6), 1, 0.3)
        >>> 0.3 < float(fitted.centers[0]) < 0.6
        True
    """
    # Models run in inference mode, where nothing could be learnt.
    with torch.inference_mode(False), torch.enable_grad():
        return _fit(found, num_classes, center)


def _fit(found: LeftOut, num_classes: int, center: float) -> Calibrator:
    kept = found.scores > 0
    scores, labels, right = found.scores[kept].double(), found.labels[kept].clone(), found.right[kept].double()
    if not bool(right.any()):
        return Calibrator(SLOPE, torch.full((num_classes,), center))
    start = math.log(SLOPE)
    slope, middle = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (start, center))
    odds = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, middle, odds], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = slope.exp() * (scores - middle) + odds[labels]
        fits = F.binary_cross_entropy_with_logits(logits, right, reduction="sum")
        apart = ((slope - start) / SLOPE_SPREAD).square() + ((middle - center) / CENTER_SPREAD).square()
        total: Tensor = fits + (apart + (odds / CLASS_SPREAD).square().sum()) / 2
        total.backward()
        return total

    optimizer.step(loss)
    steep = float(slope.detach().exp())
    centers = (middle.detach() - odds.detach() / steep).float()
    return Calibrator(steep, centers, int(right.sum()))
