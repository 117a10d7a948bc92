from __future__ import annotations

import numpy as np

from refseg.demo.world.families import (
    TRAINING_PARTS,
    draw_family,
    draw_grammar_family,
    draw_rich_family,
    mutate_family,
    mutate_rich_family,
    vary_family,
)
from refseg.demo.world.outlines import GRAMMAR, NOVEL_PARTS


def test_families_are_of_training_parts_unless_told() -> None:
    rng = np.random.default_rng(0)
    families = [draw_family(rng) for _ in range(300)]
    assert {family.part for family in families} == set(TRAINING_PARTS)
    changed = [mutate_family(rng, family) for family in families]
    assert {family.part for family in changed} <= set(TRAINING_PARTS)


def test_families_of_novel_parts() -> None:
    rng = np.random.default_rng(0)
    assert {draw_family(rng, NOVEL_PARTS).part for _ in range(200)} == set(NOVEL_PARTS)


def test_families_are_distinct() -> None:
    rng = np.random.default_rng(0)
    assert len({draw_family(rng) for _ in range(1000)}) == 1000


def test_mutated_family_differs_in_one_respect() -> None:
    rng = np.random.default_rng(0)
    respects = {"outline": 0, "color": 0, "surface": 0}
    for _ in range(100):
        family = draw_family(rng)
        other = mutate_family(rng, family)
        changed = {name for name in vars(family) if getattr(family, name) != getattr(other, name)}
        assert changed
        if changed <= {"part", "shape"}:
            respects["outline"] += 1
        elif changed <= {"color", "accent"}:
            respects["color"] += 1
        else:
            assert changed <= {"pattern", "detail", "material", "accent"}
            respects["surface"] += 1
    assert min(respects.values()) > 10


def test_rich_families_are_of_many_kinds_and_of_no_novel_type() -> None:
    rng = np.random.default_rng(0)
    families = [draw_rich_family(rng) for _ in range(300)]
    shares = {
        "grammar": np.mean([family.part.startswith(GRAMMAR) for family in families]),
        "textured": np.mean([family.texture is not None for family in families]),
        "compound": np.mean([bool(family.pieces) for family in families]),
    }
    assert 0.7 < shares["grammar"] < 0.9
    assert 0.5 < shares["textured"] < 0.7
    assert 0.1 < shares["compound"] < 0.3
    named = {family.part for family in families if not family.part.startswith(GRAMMAR)}
    pieces = {piece.family.part for family in families for piece in family.pieces}
    assert not (named | pieces) & set(NOVEL_PARTS)
    assert not any(draw_grammar_family(rng).part in NOVEL_PARTS for _ in range(50))


def test_a_rich_look_alike_keeps_some_traits_and_changes_others() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        family = draw_rich_family(rng)
        other = mutate_rich_family(rng, family)
        changed = {name for name in vars(family) if getattr(family, name) != getattr(other, name)}
        assert changed
        assert "size" not in changed
        assert len(changed & {"part", "color", "profile"}) <= 1


def test_individuals_differ_by_the_amount() -> None:
    rng = np.random.default_rng(0)
    family = draw_family(rng)
    assert vary_family(rng, family, 0.0) == family
    sizes = [vary_family(rng, family, 0.1).size / family.size for _ in range(200)]
    assert 0.05 < np.std(np.log(sizes)) < 0.15
    individual = vary_family(rng, family, 0.3)
    assert individual.part == family.part
    assert min(individual.shape) >= 0
    assert max(individual.shape) < 1
