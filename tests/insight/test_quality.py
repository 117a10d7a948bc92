"""Quality of references: leave-one-out similarities worked by hand, and what counts as a mistake."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg.insight.quality import ReferenceQuality, reference_quality
from refseg.prototypes.prototypes import Prototypes


def prototypes(
    vectors: list[list[float]] | Tensor, labels: list[int], classes: tuple[str, ...] = ("star", "tee")
) -> Prototypes:
    rows = torch.as_tensor(vectors, dtype=torch.float32)
    names = tuple(f"r{number}" for number in range(len(rows)))
    return Prototypes(classes[: max(labels) + 1], rows, torch.tensor(labels), names, "demo", "encoder")


def at(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def problems(items: tuple[ReferenceQuality, ...]) -> list[str | None]:
    return [item.problem for item in items]


class TestSimilarities:
    def test_two_shots_see_each_other(self) -> None:
        first, second, _ = reference_quality(prototypes([at(0), at(60), at(180)], [0, 0, 1]))
        assert (first.id, first.label, second.id) == ("r0", "star", "r1")
        assert first.similarity == second.similarity == pytest.approx(0.5, abs=1e-6)
        assert (first.nearest_class, first.nearest_similarity) == ("tee", pytest.approx(-1.0, abs=1e-6))

    def test_longer_vectors_count_for_more_in_the_mean_of_the_others(self) -> None:
        # The mean of (3, 0) and (0, 1) points to atan(1/3); normalised first it would point to 45 degrees.
        item = reference_quality(prototypes([[5.0, 0.0], [3.0, 0.0], [0.0, 1.0]], [0, 0, 0]))[0]
        assert item.similarity == pytest.approx(3 / math.sqrt(10), abs=1e-6)

    def test_single_shot(self) -> None:
        single = reference_quality(prototypes([at(0), at(10), at(90)], [0, 0, 1]))[2]
        assert (single.label, single.similarity, single.problem) == ("tee", None, None)
        assert single.nearest_class == "star"
        assert single.nearest_similarity == pytest.approx(math.cos(math.radians(85)), abs=1e-6)

    def test_one_class(self) -> None:
        item = reference_quality(prototypes([at(0), at(30)], [0, 0]))[0]
        assert (item.nearest_class, item.nearest_similarity) == (None, None)

    def test_opposite_others_leave_no_direction(self) -> None:
        assert reference_quality(prototypes([at(90), at(0), at(180)], [0, 0, 0]))[0].similarity == pytest.approx(0, abs=1e-6)

    def test_against_a_plain_loop_in_any_order(self) -> None:
        generator = torch.Generator().manual_seed(5)
        labels = [0, 1, 2, 1, 0, 2, 2, 1, 0, 3]
        vectors = torch.randn(10, 6, generator=generator) + F.one_hot(torch.tensor(labels), 6) * 2
        names = ("star", "tee", "gear", "nut")
        found = reference_quality(prototypes(vectors, labels, names))
        for number, item in enumerate(found):
            mates = [row for row in range(10) if labels[row] == labels[number] and row != number]
            others = {
                name: F.cosine_similarity(vectors[number], vectors[[r for r in range(10) if labels[r] == k]].mean(0), dim=0)
                for k, name in enumerate(names)
                if k != labels[number]
            }
            if mates:
                expected = float(F.cosine_similarity(vectors[number], vectors[mates].mean(0), dim=0))
                assert item.similarity == pytest.approx(expected, abs=1e-5)
            else:
                assert item.similarity is None
            assert item.nearest_class == max(others, key=lambda name: float(others[name]))
            assert item.nearest_similarity == pytest.approx(float(max(others.values())), abs=1e-5)
        order = torch.randperm(10, generator=generator)
        shuffled = reference_quality(prototypes(vectors[order], [labels[row] for row in order], names))
        for row, item in zip(order.tolist(), shuffled, strict=True):
            assert item.similarity == pytest.approx(found[row].similarity, abs=1e-5)
            assert (item.problem is None) == (found[row].problem is None)


class TestProblems:
    def test_more_like_another_class(self) -> None:
        found = reference_quality(prototypes([at(0), at(10), at(80), at(90), at(100)], [0, 0, 0, 1, 1]))
        # cos(80 - 5) and cos(80 - 95)
        assert found[2].problem == "more like 'tee' (0.97) than like the other references of 'star' (0.26)"
        assert problems(found)[:2] == [None, None]

    def test_unlike_its_mates(self) -> None:
        vectors = torch.eye(4)[[0, 0, 0, 1]]
        vectors[3, 0] = 0.5
        found = reference_quality(prototypes(vectors, [0, 0, 0, 0]))
        usual = 2.5 / math.hypot(2.5, 1)  # each good one against two like it and the odd one
        assert problems(found) == [
            *(None, None, None),
            f"unlike the other references of 'star': {0.5 / math.hypot(0.5, 1):.2f}, the others about {usual:.2f}",
        ]

    def test_two_shots_are_not_judged(self) -> None:
        assert problems(reference_quality(prototypes([at(0), at(80)], [0, 0]))) == [None, None]

    def test_small_gap_in_a_close_class_is_none(self) -> None:
        # 20 degrees from mates that coincide: 0.06 below them, although they do not vary at all.
        assert problems(reference_quality(prototypes([at(0), at(0), at(0), at(0), at(20)], [0] * 5))) == [None] * 5

    def test_varied_class_has_a_wider_margin(self) -> None:
        """The same distance to the median of the mates counts in a close class and not in a varied one."""
        close = reference_quality(prototypes([at(0), at(0), at(1), at(-1), at(50)], [0] * 5))
        assert [problem is not None for problem in problems(close)] == [False] * 4 + [True]
        varied = reference_quality(prototypes([at(0), at(30), at(-30), at(-45), at(50)], [0] * 5))
        assert problems(varied) == [None] * 5

    def test_classes_do_not_disturb_each_other(self) -> None:
        star, tee = [at(0), at(5), at(-5)], [at(90), at(95), at(20)]
        alone = problems(reference_quality(prototypes(star, [0, 0, 0])))
        assert problems(reference_quality(prototypes(star + tee, [0, 0, 0, 1, 1, 1])))[:3] == alone == [None] * 3
