"""Nearest neighbours of two sets: by a plain loop, in parts, of equals, and of nothing."""

from __future__ import annotations

import torch

from refseg.matching.neighbours import Nearest, find_nearest, join_nearest
from tests.synthetic import random_unit


def make_sets(num_queries: int = 40, num_keys: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.rand(num_queries, 1, generator=generator) + 0.5
    return lengths * random_unit(generator, num_queries, 6), random_unit(generator, num_keys, 6)


def test_by_a_plain_loop() -> None:
    queries, keys = make_sets()
    found = find_nearest(queries, keys)
    cosines = [[float(torch.cosine_similarity(query, key, dim=0)) for key in keys] for query in queries]
    for row, own in enumerate(cosines):
        best = own.index(max(own))
        assert int(found.keys[row]) == best
        assert abs(float(found.similarities[row]) - max(own)) < 1e-6
        assert bool(found.mutual[row]) is (max(range(len(cosines)), key=lambda other, best=best: cosines[other][best]) == row)
    assert 0 < int(found.mutual.sum()) <= len(keys)
    assert len(set(found.keys[found.mutual].tolist())) == int(found.mutual.sum())


def test_in_parts() -> None:
    queries, keys = make_sets()
    whole = find_nearest(queries, keys)
    parts = [find_nearest(part, keys) for part in (queries[:0], queries[:7], queries[7:7], queries[7:30], queries[30:])]
    joined = join_nearest(parts)
    for name in ("keys", "queries", "mutual"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    torch.testing.assert_close(joined.highest, whole.highest)


def test_of_equals_the_first() -> None:
    one = torch.tensor([[1.0, 0.0]])
    found = join_nearest([find_nearest(one.expand(2, -1), one.expand(2, -1)), find_nearest(one, one.expand(2, -1))])
    assert (found.keys.tolist(), found.queries.tolist()) == ([0, 0, 0], [0, 0])
    assert found.mutual.tolist() == [True, False, False]


def test_of_nothing() -> None:
    _, keys = make_sets()
    found: Nearest = join_nearest([find_nearest(keys[:0], keys)] * 2)
    assert (len(found.keys), len(found.mutual), found.queries.tolist()) == (0, 0, [-1] * len(keys))
