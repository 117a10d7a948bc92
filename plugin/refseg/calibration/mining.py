"""Negatives from images known not to hold some classes: what is taken for these there, all the same. No FiftyOne.

Costs a ranking of each image's candidates, about a millisecond.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..errors import ShapeError
from ..matching import Looked, Matcher
from ..printing import one_line
from ..prototypes import Negatives, Prototypes

MINED_PREFIX = "mined "
"""With which the ids of negatives begin that nobody labelled."""
MAX_MINED = 20
"""Mined negatives of a class, unless more are asked for."""
FINDS_HELD = 64
"""Images whose mined negatives are best held at once, before the best among them are chosen."""
ALMOST_EQUAL = 0.95
"""Of negatives with a higher cosine only one is kept."""


@dataclass(frozen=True, eq=False)
class Mined:
    """Candidates that were taken for a class in images known not to hold it.

    Attributes:
        negatives: Q of them, each named like the class it was taken for; None where Q is 0.
        scores: (Q,) float32 in [0, 1], how confidently.
    """

    negatives: Negatives | None
    scores: Tensor

    __repr__ = one_line

    def __post_init__(self) -> None:
        if len(self) != len(self.scores):
            raise ShapeError(f"Mined negatives need one score each, but {len(self)} have {len(self.scores)}.")

    def __len__(self) -> int:
        return 0 if self.negatives is None else len(self.negatives)

    def take(self, rows: Sequence[int]) -> Mined:
        """Some, in this order."""
        if self.negatives is None or not rows:
            return NOTHING
        return Mined(self.negatives.take(rows), self.scores[list(rows)])

    def above(self, thresholds: Mapping[str, float]) -> Mined:
        """Those whose score reaches the threshold of their class; none of a class without a threshold."""
        names = () if self.negatives is None else self.negatives.names
        least = [thresholds.get(name, float("inf")) for name in names]
        return self.take([row for row, score in enumerate(self.scores.tolist()) if score >= least[row]])


NOTHING = Mined(None, torch.zeros(0))


def mine(
    candidates: Candidates | PackedCandidates,
    matcher: Matcher,
    classes: Sequence[str],
    image: str,
    source: str,
    looked: Looked | None = None,
) -> Mined:
    """Rank the candidates of an image as a run would; whatever it would write is a negative of the class it is taken for.

    Args:
        candidates: of an image known to hold none of the classes that the matcher writes.
        matcher: best of prototypes without mined negatives, so that mining again finds the same; its thresholds decide.
        classes: of the prototypes, by row.
        image: its key, see `refseg.prototypes.surroundings.image_key`.
        source: id of the sample, or name of the file; the ids of the negatives tell it.
        looked: second looks at some of the candidates; None where nobody has looked again.
    """
    ranking = matcher.rank(candidates, looked=looked)
    count = min(len(ranking), matcher.max_detections)
    if not count:
        return NOTHING
    rows = ranking.rows[:count]
    negatives = Negatives(
        candidates.features[rows].float(),
        tuple(classes[label] for label in ranking.labels[:count].tolist()),
        tuple(f"{_stem(source)}{row}" for row in rows.tolist()),
        ("",) * count,
        (image,) * count,
        None if looked is None else looked.at(rows).half(),
    )
    return Mined(negatives, ranking.scores[:count])


def best_mined(found: Sequence[Mined], max_negatives: int = MAX_MINED, beside: Negatives | None = None) -> Mined:
    """The most confident ones of each class, without those almost equal to a more confident one.

    Args:
        found: of any number of images; where an id comes twice, the later one counts.
        max_negatives: of a class.
        beside: negatives that there are already; what is almost equal to one of the same name is left out too.

    Returns:
        Class by class, the most confident first.
    """
    every = _joined(found)
    if every.negatives is None:
        return NOTHING
    units = F.normalize(every.negatives.vectors.float(), dim=-1)
    order = every.scores.argsort(descending=True, stable=True).tolist()
    names = every.negatives.names
    kept: list[int] = []
    for name in sorted(set(names)):
        near = _units_of(beside, name, units.shape[1])
        own = 0
        for row in (row for row in order if names[row] == name):
            if own == max_negatives:
                break
            if not bool((near @ units[row] > ALMOST_EQUAL).any()):
                near = torch.cat([near, units[row : row + 1]])
                kept.append(row)
                own += 1
    return every.take(kept)


def add_mined(
    prototypes: Prototypes,
    found: Sequence[Mined],
    matcher: Matcher,
    *,
    sources: Collection[str] = (),
    classes: Collection[str] | None = None,
    max_negatives: int = MAX_MINED,
) -> Prototypes:
    """Prototypes with mined negatives, in place of those mined before from the same images for the same classes.

    Args:
        prototypes: that may have negatives, mined ones among them.
        found: by mine.
        matcher: of the prototypes without mined negatives: how confidently those mined before, from other images, are taken for
            their class.
        sources: the samples or files that were looked at, those without a find too.
        classes: that were looked for there; None for all.
        max_negatives: of a class.
    """
    stems = {_stem(source) for source in sources}
    own, earlier = _parted(prototypes.negatives)
    if earlier is not None:
        again = [
            name
            for name, label in zip(earlier.ids, earlier.names, strict=True)
            if name[: name.rindex(" ") + 1] in stems and (classes is None or label in classes)
        ]
        earlier = earlier.remove(again)
    before = NOTHING if earlier is None else Mined(earlier, _confidence(earlier, matcher, prototypes.classes))
    best = best_mined([before, *found], max_negatives, own).negatives
    return replace(prototypes, negatives=own.add(best) if own and best else own or best)


def without_mined(prototypes: Prototypes) -> Prototypes:
    """Prototypes with those negatives alone that somebody labelled."""
    return replace(prototypes, negatives=_parted(prototypes.negatives)[0])


def labelled_ids(negatives: Negatives | None) -> tuple[str, ...]:
    """Ids of the negatives that somebody labelled."""
    return () if negatives is None else tuple(name for name in negatives.ids if not name.startswith(MINED_PREFIX))


def num_mined(negatives: Negatives | None) -> int:
    """How many negatives nobody labelled."""
    return 0 if negatives is None else len(negatives) - len(labelled_ids(negatives))


def _stem(source: str) -> str:
    """With which the ids of the negatives mined from a sample or file begin; the row of the candidate follows."""
    return f"{MINED_PREFIX}{source} "


def _parted(negatives: Negatives | None) -> tuple[Negatives | None, Negatives | None]:
    """Those that somebody labelled, and those that were mined."""
    if negatives is None:
        return None, None
    labelled = labelled_ids(negatives)
    return negatives.remove(set(negatives.ids) - set(labelled)), negatives.remove(labelled)


def _joined(found: Sequence[Mined]) -> Mined:
    """All together, each id once."""
    every = NOTHING
    for mined in found:
        if mined.negatives is None:
            continue
        if every.negatives is None:
            every = mined
            continue
        new = set(mined.negatives.ids)
        old = every.take([row for row, name in enumerate(every.negatives.ids) if name not in new])
        negatives = mined.negatives if old.negatives is None else old.negatives.add(mined.negatives)
        every = Mined(negatives, torch.cat([old.scores, mined.scores]))
    return every


def _units_of(negatives: Negatives | None, name: str, width: int) -> Tensor:
    """(n, C) unit vectors of the negatives of this name."""
    if negatives is None:
        return torch.zeros(0, width)
    rows = [row for row, other in enumerate(negatives.names) if other == name]
    return F.normalize(negatives.vectors[rows].float(), dim=-1)


def _confidence(negatives: Negatives, matcher: Matcher, classes: Sequence[str]) -> Tensor:
    """(Q,) how confidently each is taken for the class of its name; 0 where it is taken for another."""
    first = matcher.classify(F.normalize(negatives.vectors.float(), dim=-1))
    every = torch.arange(len(negatives))
    looked = None if negatives.looks is None else Looked(every, negatives.looks.float())
    scored = matcher.scored(first, looked)
    return scored.scores.where(scored.labels == negatives.rows(classes), 0.0)
