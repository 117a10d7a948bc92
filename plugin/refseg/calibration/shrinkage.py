"""How much of a dataset's spread is taken out of its second looks: what finds references best that were left out.

Costs a pass of leave_one_out for each choice, a second or two where hundreds of images are known.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from ..matching import MatchSettings
from ..models import Preset
from ..prototypes import SHRINKAGE, Prototypes
from .left_out import LeftOut, leave_one_out

# Chosen on the tuning seeds of benchmarks/quality.py.
SHRINKAGES = (0.3, SHRINKAGE, 3.0, math.inf)
"""Between which is chosen; see `refseg.prototypes.cohort.Cohort`."""
GAIN = 0.1
"""So much more average precision than SHRINKAGE has is no chance. With 0.02 the choice won 0.003 mask AP on the seeds that it
was made on, and lost 0.003 to 0.009 on others."""
FEWEST_REFERENCES = 20
"""What fewer say is chance."""
FILLED = 0.4
"""A dataset that one class makes up to this share is full of what is looked for: without it nothing would be left."""
FEW = 4
LEAST_ALIKE = 0.2
"""A candidate that is more like a class than this share of its own references, left out, counts as one of it."""


def choose_shrinkage(prototypes: Prototypes, preset: Preset) -> Prototypes:
    """The same prototypes, whitened as finds their references best where these were left out; else by SHRINKAGE.

    Where a class fills the dataset they are not whitened: what everything has in common is then the class itself.

    Args:
        prototypes: where they have no cohort, or too few references in different images, nothing is chosen.
        preset: how many candidates of an image are looked at again.
    """
    cohort, around = prototypes.cohort, prototypes.surroundings
    if cohort is None or around is None:
        return prototypes
    if largest_share(prototypes) >= FILLED:
        return replace(prototypes, cohort=replace(cohort, shrinkage=math.inf))
    if sum(map(bool, around.shown)) < FEWEST_REFERENCES:
        return replace(prototypes, cohort=replace(cohort, shrinkage=SHRINKAGE))
    chosen = {value: replace(prototypes, cohort=replace(cohort, shrinkage=value)) for value in SHRINKAGES}
    left_out = {value: leave_one_out(own, preset, MatchSettings()) for value, own in chosen.items()}
    if int((left_out[SHRINKAGE].truth >= 0).sum()) < FEWEST_REFERENCES or not left_out[SHRINKAGE].looked_twice:
        return chosen[SHRINKAGE]
    worth = {value: average_precision(found) for value, found in left_out.items()}
    best = max(worth, key=lambda value: worth[value])
    return chosen[best if worth[best] >= worth[SHRINKAGE] + GAIN else SHRINKAGE]


def largest_share(prototypes: Prototypes) -> float:
    """The share of the cohort that is as like a class as its own references are, of the class of which there is most.

    Classes of less than FEW references do not count: nobody knows how like their objects are to each other.

    Args:
        prototypes: with a cohort, and second looks of their references.
    """
    assert prototypes.cohort is not None
    assert prototypes.looks is not None
    units, labels = F.normalize(prototypes.looks.float(), dim=-1), prototypes.labels
    sums = torch.stack([units[labels == row].sum(0) for row in range(len(prototypes.classes))])
    left_out = (units * F.normalize(sums[labels] - units, dim=-1)).sum(1)
    cosines, nearest = (prototypes.cohort.looks.float() @ F.normalize(sums, dim=-1).T).max(1)
    shares = [0.0]
    for row in range(len(prototypes.classes)):
        members = (labels == row) & units.any(1)
        number = int(members.sum())
        if number >= FEW:
            # The mean of more references is shorter, and everything is more like it.
            shorter = (sums[row] - units[members]).norm(dim=1).mean() / (number - 1) * number / sums[row].norm()
            alike = cosines[nearest == row] >= left_out[members].quantile(LEAST_ALIKE) * shorter
            shares.append(int(alike.sum()) / len(cosines))
    return max(shares)


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
