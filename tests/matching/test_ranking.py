"""From candidates to instances: against the method step by step, and what holds of every answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refseg.candidates.packing import pack
from refseg.candidates.proposing import Candidates
from refseg.errors import ShapeError
from refseg.matching import cropping
from refseg.matching.ranking import NMS_KEEPS, match, rank
from refseg.matching.similarity import Gallery, classify
from tests.candidates.test_packing import make_blobs
from tests.synthetic import GRID, WIDTH, assert_consistent, make_candidates, make_matrix, make_spots, take, whole_masks
from tests.tolerance import assert_near


def match_plainly(candidates: Candidates, prototypes: Tensor, max_detections: int) -> list[tuple[int, int, float]]:
    """The method, step by step, one mask at a time: (row, label, score), best first."""
    best: list[tuple[float, int]] = []
    boxes = []
    for feature, mask in zip(candidates.features, candidates.masks, strict=True):
        similar = [max(0.0, float(feature @ prototype)) for prototype in prototypes]
        best.append((max(similar), similar.index(max(similar))))
        inside = mask.nonzero().tolist()
        ys, xs = [y for y, _ in inside], [x for _, x in inside]
        boxes.append((min(xs), min(ys), max(xs), max(ys)))

    def overlap(a: int, b: int) -> float:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = boxes[a], boxes[b]
        both = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
        return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both)

    kept: list[int] = []
    for row in sorted(range(len(candidates)), key=lambda row: -float(candidates.predicted_iou[row])):
        if best[row][0] > 0 and all(best[other][1] != best[row][1] or overlap(other, row) <= 0.5 for other in kept):
            kept.append(row)
    kept = kept[: 8 * max_detections]
    answer = []
    for position, row in enumerate(kept):
        decay = 0.0
        for other in kept[:position]:
            if best[other][1] == best[row][1]:
                both = float((candidates.masks[row] & candidates.masks[other]).sum())
                alike = max(0.0, float(candidates.features[row] @ candidates.features[other]))
                decay = max(decay, both / float(candidates.masks[row].sum()) * alike)
        answer.append((row, best[row][1], best[row][0] * (1 - decay) ** 0.5))
    return sorted(answer, key=lambda found: -found[2])[:max_detections]


class TestMatch:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_plain_method(self, seed: int) -> None:
        candidates, prototypes = make_candidates(40, seed), make_matrix()
        found = match(candidates, Gallery(prototypes), max_detections=20)
        plain = match_plainly(candidates, prototypes, 20)
        assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == [(row, label) for row, label, _ in plain]
        assert found.scores.tolist() == pytest.approx([score for _, _, score in plain], abs=1e-4)
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_no_candidate(self, as_published: bool) -> None:
        candidates = take(make_candidates(), torch.zeros(0, dtype=torch.int64))
        found = match(candidates, Gallery(make_matrix()), as_published=as_published)
        assert len(found) == 0
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_one_candidate(self, as_published: bool) -> None:
        candidates = take(make_candidates(), torch.tensor([4]))
        found = match(candidates, Gallery(candidates.features), as_published=as_published)
        assert found.scores.tolist() == pytest.approx([1.0])
        assert_consistent(found, candidates)

    def test_all_scores_zero(self) -> None:
        candidates = make_candidates(5)
        away = torch.zeros(5, WIDTH)
        away[:, 0] = -1
        prototypes = torch.eye(WIDTH)[:1]
        assert len(match(Candidates(candidates.logits, candidates.predicted_iou, away, (48, 64)), Gallery(prototypes))) == 0

    def test_best_so_many_are_returned(self) -> None:
        # On the grid, NMS keeps 8 × 3 of all these, so three and ten differ by the cut alone.
        candidates, prototypes = make_candidates(20), make_matrix()
        ten, three = (
            match(candidates, Gallery(prototypes), max_detections=10),
            match(candidates, Gallery(prototypes), max_detections=3),
        )
        assert len(three) == 3
        assert three.rows.tolist() == ten.rows.tolist()[:3]

    def test_fewer_than_asked_for(self) -> None:
        candidates = make_candidates(6)
        found = match(candidates, Gallery(make_matrix()), max_detections=100)
        assert 0 < len(found) <= 6

    def test_nms_keeps_eight_times_what_is_asked_for(self) -> None:
        # 16 disjoint masks, the better the segmenter's opinion the lower the score: of one asked for, the eighth wins.
        logits = torch.full((16, GRID, GRID), -5.0)
        for row in range(16):
            logits[row, 4 * (row // 4) : 4 * (row // 4) + 3, 4 * (row % 4) : 4 * (row % 4) + 3] = 5.0
        angle = torch.linspace(1.5, 0, 16)
        features = torch.stack([angle.cos(), angle.sin()], 1)
        candidates = Candidates(logits, torch.linspace(1, 0.5, 16), features, (32, 32))
        prototypes = torch.tensor([[1.0, 0.0]])
        assert match(candidates, Gallery(prototypes), max_detections=1).rows.tolist() == [7]
        assert match(candidates, Gallery(prototypes), max_detections=2).rows.tolist() == [15, 14]

    def test_better_predicted_iou_wins_over_better_score(self) -> None:
        logits = make_candidates(1).logits.expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        candidates = Candidates(logits, torch.tensor([0.5, 0.9]), features, (32, 32))
        found = match(candidates, Gallery(torch.tensor([[1.0, 0.0]])))
        assert found.rows.tolist() == [1]
        assert found.scores.tolist() == pytest.approx([0.6])

    def test_min_score_is_included(self) -> None:
        candidates, prototypes = make_candidates(), make_matrix()
        every = match(candidates, Gallery(prototypes))
        limit = float(every.scores[4])
        found = match(candidates, Gallery(prototypes), min_score=limit)
        assert found.rows.tolist() == every.rows.tolist()[:5]
        assert len(match(candidates, Gallery(prototypes), min_score=1.01)) == 0

    def test_order_of_the_candidates_does_not_matter(self) -> None:
        candidates, prototypes = make_candidates(), make_matrix()
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(5))
        found, shuffled = match(candidates, Gallery(prototypes)), match(take(candidates, order), Gallery(prototypes))
        assert order[shuffled.rows].tolist() == found.rows.tolist()
        assert shuffled.labels.tolist() == found.labels.tolist()
        assert_near(shuffled.scores, found.scores)

    def test_mask_like_no_class_pushes_out_none_unless_as_published(self) -> None:
        logits = torch.full((2, 16, 16), -1.0)
        logits[:, 4:12, 4:12] = 1
        features = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # the first, with the better predicted IoU, is like no class
        candidates = Candidates(logits, torch.tensor([0.9, 0.8]), features, (16, 16))
        prototypes = torch.tensor([[1.0, 0.0]])
        assert match(candidates, Gallery(prototypes)).rows.tolist() == [1]
        assert match(candidates, Gallery(prototypes), as_published=True).rows.tolist() == []

    def test_order_of_the_classes_permutes_the_labels(self) -> None:
        candidates, prototypes = make_candidates(), make_matrix(4)
        order = torch.tensor([2, 0, 3, 1])
        found, permuted = match(candidates, Gallery(prototypes)), match(candidates, Gallery(prototypes[order]))
        assert permuted.rows.tolist() == found.rows.tolist()
        assert order[permuted.labels].tolist() == found.labels.tolist()
        assert_near(permuted.scores, found.scores)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_empty_mask_among_the_candidates_is_left_out(self, as_published: bool) -> None:
        candidates, prototypes = make_candidates(), make_matrix()
        logits = candidates.logits.clone()
        logits[[3, 11]] = -1.0
        rest = torch.tensor([row for row in range(30) if row not in (3, 11)])
        emptied = Candidates(logits, candidates.predicted_iou, candidates.features, candidates.image_hw)
        found = match(emptied, Gallery(prototypes), as_published=as_published)
        expected = match(take(candidates, rest), Gallery(prototypes), as_published=as_published)
        assert found.rows.tolist() == rest[expected.rows].tolist()
        assert_near(found.scores, expected.scores)

    def test_all_masks_empty(self) -> None:
        candidates = make_candidates(4)
        emptied = Candidates(candidates.logits * 0 - 1, candidates.predicted_iou, candidates.features, (48, 64))
        assert len(match(emptied, Gallery(make_matrix()))) == 0

    @pytest.mark.parametrize("as_published", [False, True])
    def test_mask_empty_at_full_size_gives_way_to_the_next(self, as_published: bool) -> None:
        # In an image of 3 × 2 pixels a single cell of the grid is averaged away; the half of the grid stays.
        logits = torch.full((2, GRID, GRID), -5.0)
        logits[0, 2, 2] = 5.0
        logits[1, :, 9:] = 5.0
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        candidates = Candidates(logits, torch.tensor([0.9, 0.8]), features, (2, 3))
        found = match(candidates, Gallery(torch.tensor([[1.0, 0.0]])), max_detections=1, as_published=as_published)
        assert found.rows.tolist() == [1]
        assert found.boxes[0, 2:].tolist() == [3, 2]
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("image_hw", [(1, 5000), (5000, 1), (1, 1)])
    def test_extreme_images(self, image_hw: tuple[int, int]) -> None:
        candidates = make_candidates(image_hw=image_hw)
        for as_published in (False, True):
            assert_consistent(match(candidates, Gallery(make_matrix()), as_published=as_published), candidates)

    def test_as_published_in_chunks_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates, prototypes = make_candidates(), make_matrix()
        whole = match(candidates, Gallery(prototypes), as_published=True)
        monkeypatch.setattr(cropping, "MASKS_A_CHUNK", 2)
        parts = match(candidates, Gallery(prototypes), as_published=True)
        assert parts.rows.tolist() == whole.rows.tolist()
        assert_near(parts.scores, whole.scores)
        assert all(torch.equal(a, b) for a, b in zip(parts.masks, whole.masks, strict=True))

    def test_changes_nothing_it_was_given(self) -> None:
        candidates, prototypes = make_candidates(), make_matrix()
        given = (candidates.logits, candidates.predicted_iou, candidates.features, prototypes)
        before = [tensor.clone() for tensor in given]
        match(candidates, Gallery(prototypes))
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))

    @pytest.mark.parametrize("as_published", [False, True])
    def test_negatives_lower_what_resembles_them(self, as_published: bool) -> None:
        candidates, prototypes = make_spots(), make_matrix()
        plain = match(candidates, Gallery(prototypes), as_published=as_published)
        best = int(plain.rows[0])
        negatives = (candidates.features[best : best + 1], plain.labels[:1])
        found = match(candidates, Gallery(prototypes, negatives=negatives), as_published=as_published)
        assert found.rows.tolist() != plain.rows.tolist()
        assert float(found.scores[found.rows == best].sum()) < float(plain.scores[0])
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("prototypes", [torch.zeros(3, WIDTH + 1), torch.zeros(WIDTH), torch.zeros(1, 3, WIDTH)])
    def test_wrong_width_is_refused(self, prototypes: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"do not fit candidates with features of width 8: build them with the same"):
            match(make_candidates(), Gallery(prototypes))


class TestRank:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("min_score", [0.2, 0.5])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_least_score_changes_no_other(self, packed: bool, min_score: float, seed: int) -> None:
        """Scores are not computed to the end where they fall short of it, but merging looks at all masks."""
        spots = make_spots(seed=seed)
        candidates = pack(spots) if packed else spots
        prototypes = make_matrix(2, seed)
        classified = classify(candidates.features, Gallery(prototypes))
        every = rank(candidates, classified)
        found = rank(candidates, classified, min_score=min_score)
        keep = every.scores >= min_score
        assert 0 < int(keep.sum()) < len(every)
        assert torch.equal(found.rows, every.rows[keep])
        assert torch.equal(found.labels, every.labels[keep])
        assert torch.equal(found.scores, every.scores[keep])

    def test_merging_lowers_some_scores_here(self) -> None:
        """What the test above stands on."""
        candidates, prototypes = make_spots(), make_matrix(2, 0)
        classified = classify(candidates.features, Gallery(prototypes))
        ranking = rank(candidates, classified)
        assert bool((ranking.scores < classified.scores[ranking.rows] - 0.01).any())
        assert bool((ranking.scores <= classified.scores[ranking.rows]).all())

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("as_published", [False, True])
    def test_a_least_score_for_each_class(self, packed: bool, as_published: bool) -> None:
        spots = make_spots()
        candidates = pack(spots) if packed else spots
        classified = classify(candidates.features, Gallery(make_matrix()))
        every = rank(candidates, classified, as_published=as_published)
        least = torch.tensor([0.5, 0.2, 0.35])
        keep = every.scores >= least[every.labels]
        assert {int(label) for label in every.labels[keep]} == {0, 1, 2}
        found = rank(candidates, classified, min_score=least, as_published=as_published)
        assert torch.equal(found.rows, every.rows[keep])
        assert torch.equal(found.scores, every.scores[keep])
        assert not torch.equal(found.rows, rank(candidates, classified, min_score=0.35, as_published=as_published).rows)

    @pytest.mark.parametrize("max_detections", [1, 100])
    def test_a_class_that_nothing_reaches(self, max_detections: int) -> None:
        """It is left out before the NMS, but where it takes room from what NMS keeps."""
        candidates, gallery = make_spots(), Gallery(make_matrix())
        classified = classify(candidates.features, gallery)
        every = rank(candidates, classified, max_detections=max_detections)
        reached = classified.labels != 1
        assert 0 < int(reached.sum()) < len(reached)
        least = torch.tensor([0.2, 1.1, 0.2])
        keep = every.scores >= least[every.labels]
        found = rank(candidates, classified, min_score=least, max_detections=max_detections)
        assert torch.equal(found.rows, every.rows[keep])
        assert torch.equal(found.scores, every.scores[keep])
        is_full = len(candidates) > NMS_KEEPS * max_detections
        assert is_full == (max_detections == 1)

    def test_a_class_that_is_not_asked_for_makes_no_room_for_itself(self) -> None:
        # Twenty disjoint masks, the first sixteen of class 0: of one detection asked for, NMS keeps eight.
        logits = torch.full((20, GRID, GRID), -5.0)
        for row in range(20):
            logits[row, 3 * (row // 5) : 3 * (row // 5) + 2, 3 * (row % 5) : 3 * (row % 5) + 2] = 5.0
        features = torch.eye(2)[[0] * 16 + [1] * 4]
        candidates = Candidates(logits, torch.linspace(1, 0.5, 20), features, (32, 32))
        classified = classify(features, Gallery(torch.eye(2)))
        assert set(rank(candidates, classified, max_detections=1).labels.tolist()) == {0}
        found = rank(candidates, classified, max_detections=1, min_score=torch.tensor([float("inf"), 0.3]))
        assert found.rows.tolist() == [16, 17, 18, 19]

    def test_margins_and_runners_up_stay_with_their_rows(self) -> None:
        candidates, prototypes = make_spots(), make_matrix()
        classified = classify(candidates.features, Gallery(prototypes))
        ranking = rank(candidates, classified)
        assert torch.equal(ranking.margins, classified.margins[ranking.rows])
        assert torch.equal(ranking.runners_up, classified.runners_up[ranking.rows])
        found = match(candidates, Gallery(prototypes))
        assert torch.equal(found.margins, classified.margins[found.rows])
        assert torch.equal(found.runners_up, classified.runners_up[found.rows])

    def test_images_classified_together_are_each_alone(self) -> None:
        images, prototypes = [make_spots(10, seed) for seed in range(3)], make_matrix()
        classified = classify(torch.cat([candidates.features for candidates in images]), Gallery(prototypes))
        for number, candidates in enumerate(images):
            together = rank(candidates, classified.take(slice(10 * number, 10 * number + 10)))
            alone = rank(candidates, classify(candidates.features, Gallery(prototypes)))
            assert together.rows.tolist() == alone.rows.tolist()
            assert_near(together.scores, alone.scores)

    def test_of_nothing(self) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        for candidates in (empty, pack(empty)):
            ranking = rank(candidates, classify(candidates.features, Gallery(make_matrix())))
            assert len(ranking) == 0


class TestPackedCandidates:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("min_score", [0.0, 0.4])
    def test_match_as_the_dense_ones(self, seed: int, min_score: float) -> None:
        candidates, prototypes = make_spots(60, seed, (150, 220)), make_matrix(seed=seed)
        dense, packed = (match(given, Gallery(prototypes), min_score=min_score) for given in (candidates, pack(candidates)))
        assert len(dense) > 5
        assert packed.rows.tolist() == dense.rows.tolist()
        assert packed.labels.tolist() == dense.labels.tolist()
        assert torch.equal(packed.scores, dense.scores)
        own, other = whole_masks(packed, (150, 220)), whole_masks(dense, (150, 220))
        ious = (own & other).flatten(1).sum(1) / (own | other).flatten(1).sum(1)
        assert float(ious.min()) >= 0.99

    @pytest.mark.parametrize("seed", range(3))
    def test_as_published(self, seed: int) -> None:
        """There the masks are merged at full size, where packed ones differ by some pixels."""
        candidates, prototypes = make_spots(60, seed, (150, 220)), make_matrix(seed=seed)
        dense, packed = (match(given, Gallery(prototypes), as_published=True) for given in (candidates, pack(candidates)))
        assert set(packed.rows.tolist()) == set(dense.rows.tolist())
        order = [packed.rows.tolist().index(row) for row in dense.rows.tolist()]
        assert packed.labels[order].tolist() == dense.labels.tolist()
        assert_near(packed.scores[order], dense.scores, at_most=0.01)

    def test_rows_are_those_of_the_masks_that_are_not_empty(self) -> None:
        candidates, prototypes = make_spots(30), make_matrix()
        logits = candidates.logits.clone()
        logits[[3, 11]] = -1.0
        emptied = Candidates(logits, candidates.predicted_iou, candidates.features, candidates.image_hw)
        rest = torch.tensor([row for row in range(30) if row not in (3, 11)])
        dense, packed = (match(given, Gallery(prototypes)) for given in (emptied, pack(emptied)))
        assert rest[packed.rows].tolist() == dense.rows.tolist()
        assert torch.equal(packed.scores, dense.scores)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_of_nothing(self, as_published: bool) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        assert_consistent(match(pack(empty), Gallery(make_matrix()), as_published=as_published), empty)
