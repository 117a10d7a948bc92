from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from refseg.demo.world import grammar
from refseg.demo.world.grammar import ALIKE_IOU, draw_outline, grammar_outline, likeness
from refseg.demo.world.outlines import NOVEL_PARTS, OUTLINES

LINE = np.linspace(-1.3, 1.3, 131, dtype=np.float32)
X, Y = np.meshgrid(LINE, LINE)
V = np.full(6, 0.4, np.float32)


def inside(number: int) -> np.ndarray:
    return np.asarray(grammar_outline(number)(X, Y, V) < 0)


@pytest.mark.parametrize("number", range(25))
def test_an_outline_is_one_piece_that_fills_its_circle(number: int) -> None:
    cells = inside(number)
    labels, _ = ndimage.label(cells)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.max() > 0.95 * cells.sum()
    reach = np.hypot(X[cells], Y[cells]).max()
    assert 0.85 < reach < 1.05
    assert cells.sum() * (LINE[1] - LINE[0]) ** 2 > 0.1 * np.pi


def test_the_same_number_is_the_same_outline_and_others_are_others() -> None:
    assert np.array_equal(inside(3), inside(3))
    masks = [inside(number) for number in range(30)]
    for row, mask in enumerate(masks):
        for other in masks[:row]:
            assert (mask & other).sum() / (mask | other).sum() < 0.98


@pytest.mark.parametrize("part", NOVEL_PARTS)
def test_novel_types_are_known_in_any_turn_and_mirror_image(part: str) -> None:
    centered = grammar._centered(OUTLINES[part], V)

    def turned(x: np.ndarray, y: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = 2.3
        px, py = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        return centered(px, -py, V)

    # Stars of five points and others of six are types of their own; the bank holds some of each.
    assert likeness(turned) > (0.8 if part == "star" else ALIKE_IOU)


def test_training_types_are_not_taken_for_novel_ones() -> None:
    for part in ("disc", "ring", "nut", "gear", "plate"):
        assert likeness(lambda x, y, v, part=part: OUTLINES[part](x, y, V)) < 0.8


def test_an_outline_too_much_like_a_novel_type_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0.95, 0.91, 0.2])
    monkeypatch.setattr(grammar, "likeness", lambda outline: next(answers))
    outline, too_alike = draw_outline(3)
    assert too_alike == 2
    assert outline != grammar_outline(3)


def test_no_outline_used_is_like_a_novel_type() -> None:
    assert max(likeness(grammar_outline(number)) for number in range(60)) < ALIKE_IOU
