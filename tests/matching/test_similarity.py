"""How similar candidates are to classes: by hand, and against loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg.errors import ShapeError
from refseg.matching.similarity import Gallery, classify, similarities
from tests.synthetic import WIDTH, make_candidates, make_matrix, random_unit
from tests.tolerance import TOLERANCE, assert_near


class TestClassify:
    def test_by_hand(self) -> None:
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
        prototypes = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        found = classify(features, Gallery(prototypes))
        assert_near(found.scores, torch.tensor([1.0, 0.8, 0.0]))
        assert_near(found.margins, torch.tensor([1.0, 0.2, 0.0]))
        assert found.labels[:2].tolist() == [1, 0]
        assert found.runners_up[:2].tolist() == [0, 1]
        assert (found.scores.dtype, found.labels.dtype) == (torch.float32, torch.int64)
        assert (found.margins.dtype, found.runners_up.dtype) == (torch.float32, torch.int64)

    def test_is_a_loop_over_pairs(self) -> None:
        features, prototypes = make_candidates().features, make_matrix(4)
        found = classify(features, Gallery(prototypes))
        columns = found.scores, found.labels, found.margins, found.runners_up
        for feature, score, label, margin, runner_up in zip(features, *columns, strict=True):
            similar = [max(0.0, float((feature * prototype).sum())) for prototype in prototypes]
            best, second = sorted(similar, reverse=True)[:2]
            assert float(score) == pytest.approx(best, abs=TOLERANCE[torch.float32])
            assert similar[int(label)] == best
            assert float(margin) == pytest.approx(best - second, abs=TOLERANCE[torch.float32])
            assert similar[int(runner_up)] == second
            assert int(runner_up) != int(label)

    def test_one_class(self) -> None:
        found = classify(make_candidates().features, Gallery(make_matrix(1)))
        assert found.labels.unique().tolist() == [0]
        assert torch.equal(found.margins, found.scores)
        assert found.runners_up.unique().tolist() == [-1]

    def test_of_equal_classes_the_first_wins_by_nothing(self) -> None:
        found = classify(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), Gallery(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])))
        assert found.labels.tolist() == [1, 0]
        assert found.runners_up.tolist() == [2, 1]
        assert found.margins.tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("classes", [1, 3])
    def test_of_nothing(self, classes: int) -> None:
        found = classify(torch.zeros(0, WIDTH), Gallery(make_matrix(classes)))
        assert found.scores.shape == found.labels.shape == found.margins.shape == found.runners_up.shape == (0,)

    def test_take(self) -> None:
        found = classify(make_candidates(6).features, Gallery(make_matrix()))
        for rows in (slice(2, 4), torch.tensor([2, 3])):
            part = found.take(rows)
            assert len(part) == 2
            assert torch.equal(part.scores, found.scores[2:4])
            assert torch.equal(part.labels, found.labels[2:4])
            assert torch.equal(part.margins, found.margins[2:4])
            assert torch.equal(part.runners_up, found.runners_up[2:4])


def make_negatives(rows: list[int], seed: int = 7) -> tuple[Tensor, Tensor]:
    return random_unit(torch.Generator().manual_seed(seed), len(rows), WIDTH), torch.tensor(rows, dtype=torch.int64)


class TestSimilarities:
    def test_by_hand(self) -> None:
        # The candidate's cosines: 0.6 with the class, 0.8 with the negative, which lies 0.2 nearer.
        candidate, prototypes = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
        negative = torch.tensor([[0.0, 1.0]])
        assert_near(similarities(candidate, Gallery(prototypes)), torch.tensor([[0.6]]))
        for row in (0, -1):
            lowered = similarities(candidate, Gallery(prototypes, negatives=(negative, torch.tensor([row]))))
            assert_near(lowered, torch.tensor([[0.6 * math.exp(-0.2 / 0.8)]]))

    @pytest.mark.parametrize("rows", [[0], [-1], [2, 2, 0], [1, -1, -1, 2, 0], []])
    def test_is_a_loop_over_pairs(self, rows: list[int]) -> None:
        features, prototypes = make_candidates(40).features, make_matrix()
        vectors, owners = make_negatives(rows)
        found = similarities(features, Gallery(prototypes, negatives=(vectors, owners)))
        for i, feature in enumerate(features):
            for k, prototype in enumerate(prototypes):
                similar = max(0.0, float(feature @ prototype))
                near = [float(feature @ vector) for vector, row in zip(vectors, rows, strict=True) if row in (k, -1)]
                expected = similar * math.exp(-max(0.0, max(near, default=-1.0) - similar) / 0.8)
                assert float(found[i, k]) == pytest.approx(expected, abs=TOLERANCE[torch.float32])
        assert bool((found < similarities(features, Gallery(prototypes)) - 0.01).any()) == bool(rows)

    def test_farther_negatives_change_nothing(self) -> None:
        features, prototypes = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[1.0, 0.0]])
        negatives = (torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([0, -1]))
        assert torch.equal(
            similarities(features, Gallery(prototypes, negatives=negatives)), similarities(features, Gallery(prototypes))
        )

    def test_order_of_the_negatives_does_not_matter(self) -> None:
        features, prototypes = make_candidates().features, make_matrix()
        vectors, rows = make_negatives([0, -1, 2, 1])
        order = torch.tensor([3, 0, 2, 1])
        found = similarities(features, Gallery(prototypes, negatives=(vectors[order], rows[order])))
        assert_near(found, similarities(features, Gallery(prototypes, negatives=(vectors, rows))))

    def test_changes_nothing_it_was_given(self) -> None:
        given = (make_candidates().features, make_matrix(), *make_negatives([0, -1]))
        before = [tensor.clone() for tensor in given]
        similarities(given[0], Gallery(given[1], negatives=given[2:]))
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))

    def test_of_nothing(self) -> None:
        assert similarities(torch.zeros(0, WIDTH), Gallery(make_matrix(), negatives=make_negatives([0, -1]))).shape == (0, 3)

    def test_negatives_of_another_width_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"Negatives of shape \(1, 9\) do not fit candidates with features of width 8"):
            similarities(make_candidates().features, Gallery(make_matrix(), negatives=(torch.ones(1, 9), torch.tensor([0]))))

    def test_a_negative_hands_its_class_over_to_the_second_best(self) -> None:
        features = F.normalize(torch.tensor([[1.0, 0.9, 0.8]]), dim=1)
        prototypes, negative = torch.eye(3)[:2], F.normalize(torch.tensor([[1.0, 0.7, 0.8]]), dim=1)
        assert classify(features, Gallery(prototypes)).labels.tolist() == [0]
        found = classify(features, Gallery(prototypes, negatives=(negative, torch.tensor([0]))))
        assert (found.labels.tolist(), found.runners_up.tolist()) == ([1], [0])


def plain_similarity(feature: Tensor, gallery: Gallery, row: int) -> float:
    """The mean of the highest cosines with a class's vectors, one at a time."""
    assert gallery.labels is not None
    own = [float(feature @ vector) for vector, label in zip(gallery.vectors, gallery.labels, strict=True) if label == row]
    best = sorted(own, reverse=True)[: gallery.num_averaged]
    return max(0.0, sum(best) / len(best)) if best else 0.0


class TestSeveralVectorsAClass:
    def test_by_hand(self) -> None:
        feature = torch.tensor([[0.6, 0.8]])
        vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.8, 0.6]])
        gallery = Gallery(vectors, torch.tensor([0, 0, 0, 1]), 2, num_rows=3)
        # 0.8 and 0.6 of the first class's three, the one of the second, and nothing to be like in the third.
        assert_near(similarities(feature, gallery), torch.tensor([[0.7, 0.96, 0.0]]))
        assert gallery.num_classes == 3

    @pytest.mark.parametrize("num_averaged", [1, 2, 3, 9])
    def test_is_a_loop_over_pairs(self, num_averaged: int) -> None:
        features, vectors = make_candidates(40).features, make_matrix(9)
        # Class 3 has no vector, class 2 a single one.
        gallery = Gallery(vectors, torch.tensor([0, 1, 0, 4, 2, 1, 4, 4, 0]), num_averaged, num_rows=5)
        found = similarities(features, gallery)
        assert found.shape == (40, 5)
        for i, feature in enumerate(features):
            for row in range(5):
                assert float(found[i, row]) == pytest.approx(plain_similarity(feature, gallery, row), abs=1e-6)
        assert bool(found[:, [0, 1, 2, 4]].any(0).all())

    def test_a_vector_each_is_the_same_as_no_labels(self) -> None:
        features, vectors = make_candidates().features, make_matrix(4)
        labelled = Gallery(vectors, torch.arange(4), 3, num_rows=4)
        assert torch.equal(similarities(features, labelled), similarities(features, Gallery(vectors)))

    def test_order_of_the_vectors_does_not_matter(self) -> None:
        features, vectors, labels = make_candidates().features, make_matrix(6), torch.tensor([0, 1, 0, 1, 1, 0])
        order = torch.tensor([5, 2, 4, 0, 3, 1])
        found = similarities(features, Gallery(vectors[order], labels[order], 2, num_rows=2))
        assert_near(found, similarities(features, Gallery(vectors, labels, 2, num_rows=2)))

    def test_no_class_without_vectors_wins_over_one_with(self) -> None:
        features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        found = classify(features, Gallery(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), num_rows=2))
        assert found.scores.tolist() == [1.0, 0.0]
        assert (int(found.labels[0]), int(found.runners_up[0])) == (1, 0)

    def test_of_nothing(self) -> None:
        gallery = Gallery(make_matrix(2), torch.tensor([0, 2]), 3, num_rows=3)
        assert similarities(torch.zeros(0, WIDTH), gallery).shape == (0, 3)
        assert (
            similarities(torch.ones(2, WIDTH), Gallery(torch.zeros(0, WIDTH), torch.zeros(0).long(), num_rows=2)).tolist()
            == [[0.0, 0.0]] * 2
        )

    def test_negatives_lower_the_mean(self) -> None:
        # 0.7 with the class, as above, and 1 with its negative.
        vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        negatives = (torch.tensor([[0.6, 0.8]]), torch.tensor([0]))
        found = similarities(torch.tensor([[0.6, 0.8]]), Gallery(vectors, torch.zeros(3).long(), 2, negatives, None, 1))
        assert_near(found, torch.tensor([[0.7 * math.exp(-0.3 / 0.8)]]))


class TestBackground:
    def test_by_hand(self) -> None:
        background = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        features = torch.tensor([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
        found = similarities(features, Gallery(torch.tensor([[1.0, 0.0]]), background=background))
        assert_near(found, torch.tensor([[0.8], [0.0], [1.0]]))

    def test_is_a_loop_over_candidates(self) -> None:
        features, matrix, background = make_candidates(60).features, make_matrix(), make_matrix(4, seed=9)
        plain = similarities(features, Gallery(matrix))
        found = similarities(features, Gallery(matrix, background=background))
        lost = 0
        for feature, before, after in zip(features, plain, found, strict=True):
            wins = max(float(feature @ vector) for vector in background) > float(before.max())
            lost += wins
            assert torch.equal(after, torch.zeros(3) if wins else before)
        assert 0 < lost < 60

    def test_as_similar_as_the_class_takes_nothing(self) -> None:
        features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        found = similarities(features, Gallery(torch.eye(2)[:1], background=torch.eye(2)[:1]))
        assert found.tolist() == [[1.0], [0.0], [0.0]]

    def test_is_compared_with_the_similarity_before_negatives(self) -> None:
        """What a negative lowers is not lost to a background that is farther away than the class."""
        feature, negative = torch.tensor([[0.8, 0.6, 0.0]]), torch.tensor([[0.8, 0.6, 0.0]])
        gallery = Gallery(
            torch.eye(3)[:1], negatives=(negative, torch.tensor([0])), background=torch.tensor([[0.6, 0.4, 0.69]])
        )
        cosine = float((feature @ gallery.background.T)[0, 0]) if gallery.background is not None else 0.0
        lowered = 0.8 * math.exp(-0.2 / 0.8)
        assert lowered < cosine < 0.8
        assert_near(similarities(feature, gallery), torch.tensor([[lowered]]))

    def test_what_it_wins_is_of_no_class(self) -> None:
        found = classify(torch.tensor([[0.6, 0.8]]), Gallery(torch.tensor([[1.0, 0.0]]), background=torch.tensor([[0.0, 1.0]])))
        assert found.scores.tolist() == [0.0]

    def test_of_nothing(self) -> None:
        features, matrix = make_candidates().features, make_matrix()
        none = Gallery(matrix, background=torch.zeros(0, WIDTH))
        assert torch.equal(similarities(features, none), similarities(features, Gallery(matrix)))
        assert similarities(torch.zeros(0, WIDTH), Gallery(matrix, background=make_matrix(2))).shape == (0, 3)

    @pytest.mark.parametrize(
        ("gallery", "words"),
        [
            (
                Gallery(torch.ones(1, 9)),
                r"Prototypes of shape \(1, 9\) do not fit candidates with features of width 8: build them",
            ),
            (
                Gallery(torch.ones(1, WIDTH), background=torch.ones(2, 9)),
                r"Background prototypes of shape \(2, 9\) do not fit candidates with features of width 8: build them",
            ),
        ],
    )
    def test_another_width_is_refused(self, gallery: Gallery, words: str) -> None:
        with pytest.raises(ShapeError, match=words):
            similarities(make_candidates().features, gallery)
