from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.world.families import TRAINING_PARTS
from refseg.demo.world.outlines import GRAMMAR, NOVEL_PARTS, OUTLINES, outline_of, part_of_grammar


@pytest.mark.parametrize("part", OUTLINES)
@pytest.mark.parametrize("shape", [0.0, 0.5, 0.9999])
def test_every_outline_draws_something_inside_its_circle(part: str, shape: float) -> None:
    line = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    inside = OUTLINES[part](x, y, np.full(6, shape, np.float32)) < 0
    area = inside.mean() * 9  # of a square of side 3
    assert 0.3 < area < np.pi * 1.05**2
    # Painting reaches to 1.05 radii on each side; corners may stick out of the circle, never of that square.
    assert np.abs(x[inside]).max() <= 1.05
    assert np.abs(y[inside]).max() <= 1.05


def test_training_and_novel_parts_are_disjoint() -> None:
    assert set(TRAINING_PARTS) & set(NOVEL_PARTS) == set()
    assert set(TRAINING_PARTS) | set(NOVEL_PARTS) == set(OUTLINES)
    assert len(set(NOVEL_PARTS)) == len(NOVEL_PARTS) >= 6
    assert len(TRAINING_PARTS) >= 6


def test_a_name_is_an_outline() -> None:
    assert outline_of("disc") is OUTLINES["disc"]
    part = part_of_grammar(np.random.default_rng(0))
    assert part.startswith(GRAMMAR)
    assert outline_of(part) is outline_of(part)
    with pytest.raises(KeyError):
        outline_of("dice")
