"""How much of a dataset's spread is taken out of its second looks: what finds references best that were left out.

Costs a pass of leave_one_out for each choice, a second or two where hundreds of images are known.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..matching import MatchSettings
from ..models import Preset
from ..prototypes import SHRINKAGE, Prototypes
from .left_out import LeftOut, leave_one_out

# Chosen on the tuning seeds of benchmarks/quality.py.
SHRINKAGES = (0.3, SHRINKAGE, 3.0, math.inf)
"""Between which is chosen; see `refseg.prototypes.cohort.Cohort`."""
GAIN = 0.02
"""So much more average precision than SHRINKAGE has is no chance."""
FEWEST_REFERENCES = 20
"""What fewer say is chance."""


def choose_shrinkage(prototypes: Prototypes, preset: Preset) -> Prototypes:
    """The same prototypes, whitened as finds their references best where these were left out; else by SHRINKAGE.

    Args:
        prototypes: where they have no cohort, or too few references in different images, nothing is chosen.
        preset: how many candidates of an image are looked at again.
    """
    cohort, around = prototypes.cohort, prototypes.surroundings
    if cohort is None or around is None or sum(map(bool, around.shown)) < FEWEST_REFERENCES:
        return prototypes
    chosen = {value: replace(prototypes, cohort=replace(cohort, shrinkage=value)) for value in SHRINKAGES}
    left_out = {value: leave_one_out(own, preset, MatchSettings()) for value, own in chosen.items()}
    if int((left_out[SHRINKAGE].truth >= 0).sum()) < FEWEST_REFERENCES or not left_out[SHRINKAGE].looked_twice:
        return chosen[SHRINKAGE]
    worth = {value: average_precision(found) for value, found in left_out.items()}
    best = max(worth, key=lambda value: worth[value])
    return chosen[best if worth[best] >= worth[SHRINKAGE] + GAIN else SHRINKAGE]


def average_precision(found: LeftOut) -> float:
    """Of finding references, all classes together: the mean over references of the precision at the score of each.

    Example:
        >>> scores, one = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
        >>> average_precision(LeftOut(scores, one, torch.tensor([0, -1, 0]), ("",) * 3))
        0.8333333730697632
    """
    order = found.scores.argsort(descending=True, stable=True)
    right = found.right[order].float()
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
    return float((precision * right).sum() / max(1, int((found.truth >= 0).sum())))
