"""Which vectors of two sets are each other's nearest. Pure tensor functions.

Queries may come in parts, so that no more of them than one part are in memory at once: of each only its nearest key is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..printing import one_line


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest key of each query, and the nearest query of each key; of equals the first.

    Attributes:
        keys: (Q,) int64, row of the key nearest to each query.
        similarities: (Q,) float32, their cosine.
        queries: (R,) int64, row of the query nearest to each key; -1 where there is no query.
        highest: (R,) float32, their cosine; minus infinity where there is no query.
    """

    keys: Tensor
    similarities: Tensor
    queries: Tensor
    highest: Tensor

    __repr__ = one_line

    @property
    def mutual(self) -> Tensor:
        """(Q,) bool: whether each query is the nearest to the key that is nearest to it; true of one query a key at most."""
        return self.queries[self.keys] == torch.arange(len(self.keys))


def find_nearest(queries: Tensor, keys: Tensor) -> Nearest:
    """Compare every query with every key by the cosine.

    Args:
        queries: (Q, C), not all zero.
        keys: (R, C), not all zero; at least one.

    Example:
        >>> found = find_nearest(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        >>> found.keys.tolist(), found.queries.tolist(), found.mutual.tolist()
        ([0, 0, 1], [0, 1], [True, False, False])
    """
    if not len(queries):
        none = torch.zeros(0, dtype=torch.int64)
        return Nearest(none, torch.zeros(0), torch.full((len(keys),), -1), torch.full((len(keys),), -torch.inf))
    cosines = F.normalize(queries.float(), dim=-1) @ F.normalize(keys.float(), dim=-1).T  # (Q, R)
    similarities, nearest = cosines.max(1)
    highest, best = cosines.max(0)
    return Nearest(nearest, similarities, best, highest)


def join_nearest(parts: Sequence[Nearest]) -> Nearest:
    """What find_nearest gives for all queries together, of those of each part; at least one, all compared with the same keys.

    Example:
        >>> keys = torch.tensor([[1.0, 0.0]])
        >>> parts = [find_nearest(torch.tensor([[1.0, 1.0]]), keys), find_nearest(torch.tensor([[2.0, 0.0]]), keys)]
        >>> join_nearest(parts).queries.tolist()
        [1]
    """
    highest, which = torch.stack([part.highest for part in parts]).max(0)  # (R,)
    starts, start = [], 0
    for part in parts:
        starts.append(start)
        start += len(part.keys)
    own = torch.stack([part.queries for part in parts]).gather(0, which[None])[0]
    queries = torch.where(own < 0, own, own + torch.tensor(starts)[which])
    return Nearest(torch.cat([part.keys for part in parts]), torch.cat([part.similarities for part in parts]), queries, highest)
