from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg import matching
from refseg.candidates import Candidates, grid_boxes, interpolation_matrix
from refseg.cropping import crop_instances, upsample
from refseg.errors import ShapeError
from refseg.instances import Instances, Ranking
from refseg.matching import match, rank
from refseg.overlaps import merge_overlaps
from refseg.packing import PackedCandidates, pack
from refseg.similarity import classify, similarities
from tests.test_packing import make_blobs
from tests.tolerance import TOLERANCE, assert_near

GRID = 16
WIDTH = 8


def random_unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def make_candidates(count: int = 30, seed: int = 0, image_hw: tuple[int, int] = (48, 64)) -> Candidates:
    """Random ellipses on the grid; the predicted IoU of each differs."""
    generator = torch.Generator().manual_seed(seed)
    center = (torch.rand(count, 2, 1, 1, generator=generator) * 0.6 + 0.2) * GRID
    radius = (torch.rand(count, 2, 1, 1, generator=generator) * 0.2 + 0.12) * GRID
    line = torch.arange(GRID) + 0.5
    logits = 4 * (
        1 - ((line[None, :] - center[:, 0]) / radius[:, 0]) ** 2 - ((line[:, None] - center[:, 1]) / radius[:, 1]) ** 2
    )
    predicted_iou = 0.4 + 0.6 * torch.rand(count, generator=generator)
    return Candidates(logits, predicted_iou, random_unit(generator, count, WIDTH), image_hw)


def make_prototypes(count: int = 3, seed: int = 1) -> Tensor:
    return random_unit(torch.Generator().manual_seed(seed), count, WIDTH)


def take(candidates: Candidates, rows: Tensor) -> Candidates:
    return Candidates(candidates.logits[rows], candidates.predicted_iou[rows], candidates.features[rows], candidates.image_hw)


def box_mask(x0: int, y0: int, x1: int, y1: int, side: int = GRID) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


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


class TestClassify:
    def test_by_hand(self) -> None:
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
        prototypes = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        found = classify(features, prototypes)
        assert_near(found.scores, torch.tensor([1.0, 0.8, 0.0]))
        assert_near(found.margins, torch.tensor([1.0, 0.2, 0.0]))
        assert found.labels[:2].tolist() == [1, 0]
        assert found.runners_up[:2].tolist() == [0, 1]
        assert (found.scores.dtype, found.labels.dtype) == (torch.float32, torch.int64)
        assert (found.margins.dtype, found.runners_up.dtype) == (torch.float32, torch.int64)

    def test_is_a_loop_over_pairs(self) -> None:
        features, prototypes = make_candidates().features, make_prototypes(4)
        found = classify(features, prototypes)
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
        found = classify(make_candidates().features, make_prototypes(1))
        assert found.labels.unique().tolist() == [0]
        assert torch.equal(found.margins, found.scores)
        assert found.runners_up.unique().tolist() == [-1]

    def test_of_equal_classes_the_first_wins_by_nothing(self) -> None:
        found = classify(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
        assert found.labels.tolist() == [1, 0]
        assert found.runners_up.tolist() == [2, 1]
        assert found.margins.tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("classes", [1, 3])
    def test_of_nothing(self, classes: int) -> None:
        found = classify(torch.zeros(0, WIDTH), make_prototypes(classes))
        assert found.scores.shape == found.labels.shape == found.margins.shape == found.runners_up.shape == (0,)

    def test_take(self) -> None:
        found = classify(make_candidates(6).features, make_prototypes())
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
        assert_near(similarities(candidate, prototypes), torch.tensor([[0.6]]))
        for row in (0, -1):
            lowered = similarities(candidate, prototypes, (negative, torch.tensor([row])))
            assert_near(lowered, torch.tensor([[0.6 * math.exp(-0.2 / 0.8)]]))

    @pytest.mark.parametrize("rows", [[0], [-1], [2, 2, 0], [1, -1, -1, 2, 0], []])
    def test_is_a_loop_over_pairs(self, rows: list[int]) -> None:
        features, prototypes = make_candidates(40).features, make_prototypes()
        vectors, owners = make_negatives(rows)
        found = similarities(features, prototypes, (vectors, owners))
        for i, feature in enumerate(features):
            for k, prototype in enumerate(prototypes):
                similar = max(0.0, float(feature @ prototype))
                near = [float(feature @ vector) for vector, row in zip(vectors, rows, strict=True) if row in (k, -1)]
                expected = similar * math.exp(-max(0.0, max(near, default=-1.0) - similar) / 0.8)
                assert float(found[i, k]) == pytest.approx(expected, abs=TOLERANCE[torch.float32])
        assert bool((found < similarities(features, prototypes) - 0.01).any()) == bool(rows)

    def test_farther_negatives_change_nothing(self) -> None:
        features, prototypes = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[1.0, 0.0]])
        negatives = (torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([0, -1]))
        assert torch.equal(similarities(features, prototypes, negatives), similarities(features, prototypes))

    def test_order_of_the_negatives_does_not_matter(self) -> None:
        features, prototypes = make_candidates().features, make_prototypes()
        vectors, rows = make_negatives([0, -1, 2, 1])
        order = torch.tensor([3, 0, 2, 1])
        found = similarities(features, prototypes, (vectors[order], rows[order]))
        assert_near(found, similarities(features, prototypes, (vectors, rows)))

    def test_changes_nothing_it_was_given(self) -> None:
        given = (make_candidates().features, make_prototypes(), *make_negatives([0, -1]))
        before = [tensor.clone() for tensor in given]
        similarities(given[0], given[1], given[2:])
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))

    def test_of_nothing(self) -> None:
        assert similarities(torch.zeros(0, WIDTH), make_prototypes(), make_negatives([0, -1])).shape == (0, 3)

    def test_negatives_of_another_width_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"Negatives of shape \(1, 9\) do not fit candidates with features of width 8"):
            similarities(make_candidates().features, make_prototypes(), (torch.ones(1, 9), torch.tensor([0])))

    def test_a_negative_hands_its_class_over_to_the_second_best(self) -> None:
        features = F.normalize(torch.tensor([[1.0, 0.9, 0.8]]), dim=1)
        prototypes, negative = torch.eye(3)[:2], F.normalize(torch.tensor([[1.0, 0.7, 0.8]]), dim=1)
        assert classify(features, prototypes).labels.tolist() == [0]
        found = classify(features, prototypes, (negative, torch.tensor([0])))
        assert (found.labels.tolist(), found.runners_up.tolist()) == ([1], [0])


class TestGridBoxes:
    def test_is_a_loop_over_pixels(self) -> None:
        masks = torch.rand(20, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.97
        masks = masks[masks.flatten(1).any(1)]
        for mask, box in zip(masks, grid_boxes(masks).tolist(), strict=True):
            inside = mask.nonzero().tolist()
            ys, xs = [y for y, _ in inside], [x for _, x in inside]
            assert box == [min(xs), min(ys), max(xs), max(ys)]

    def test_full_and_single_pixel(self) -> None:
        single = box_mask(3, 5, 4, 6)
        full = torch.ones(GRID, GRID, dtype=torch.bool)
        assert grid_boxes(torch.stack([single, full])).tolist() == [[3, 5, 3, 5], [0, 0, 15, 15]]

    def test_of_nothing(self) -> None:
        assert grid_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)


class TestMergeOverlaps:
    def test_by_hand(self) -> None:
        # The second lies half in the first and their features have cosine 0.6: 0.9·√(1 − 0.5·0.6). The third is alone.
        masks = torch.stack([box_mask(0, 0, 8, 8), box_mask(4, 0, 12, 8), box_mask(0, 12, 4, 16)])
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
        found = merge_overlaps(masks, features, torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 0]))
        assert_near(found, torch.tensor([0.5, 0.9 * 0.7**0.5, 0.8]))

    def test_other_labels_do_not_count(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        scores = torch.tensor([0.5, 0.9])
        assert torch.equal(merge_overlaps(masks, features, scores, torch.tensor([0, 1])), scores)

    def test_a_copy_falls_to_zero(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        found = merge_overlaps(masks, features, torch.tensor([0.5, 0.9]), torch.tensor([2, 2]))
        assert_near(found, torch.tensor([0.5, 0.0]))

    def test_opposite_features_do_not_raise_a_score(self) -> None:
        masks = box_mask(0, 0, 8, 8).expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        scores = torch.tensor([0.5, 0.9])
        assert torch.equal(merge_overlaps(masks, features, scores, torch.tensor([0, 0])), scores)

    def test_an_empty_mask_stays_finite(self) -> None:
        masks = torch.stack([box_mask(0, 0, 8, 8), box_mask(0, 0, 0, 0)])
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert merge_overlaps(masks, features, torch.ones(2), torch.tensor([0, 0])).tolist() == [1, 1]

    def test_is_a_loop_over_pairs_and_leaves_its_arguments(self) -> None:
        candidates = make_candidates(40, seed=3)
        classified = classify(candidates.features, make_prototypes())
        scores, labels = classified.scores, classified.labels
        before = [tensor.clone() for tensor in (candidates.masks, candidates.features, scores, labels)]
        found = merge_overlaps(candidates.masks, candidates.features, scores, labels)
        for i in range(len(candidates)):
            decay = 0.0
            for j in range(i):
                if labels[i] == labels[j]:
                    share = float((candidates.masks[i] & candidates.masks[j]).sum() / candidates.masks[i].sum())
                    decay = max(decay, share * max(0.0, float(candidates.features[i] @ candidates.features[j])))
            assert float(found[i]) == pytest.approx(float(scores[i]) * (1 - decay) ** 0.5, abs=1e-4)
        assert bool((found < scores - 0.01).any())
        for tensor, copy in zip((candidates.masks, candidates.features, scores, labels), before, strict=True):
            assert torch.equal(tensor, copy)

    def test_of_nothing(self) -> None:
        empty = torch.zeros(0)
        found = merge_overlaps(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, WIDTH), empty, empty.long())
        assert found.shape == (0,)

    def test_disagreeing_arguments_are_counted_in_the_error(self) -> None:
        with pytest.raises(ShapeError, match="there are 2, 2, 3 and 2"):
            merge_overlaps(torch.zeros(2, 4, 4).bool(), torch.zeros(2, WIDTH), torch.zeros(3), torch.zeros(2).long())


class TestUpsample:
    def test_of_that_size_is_the_sign(self) -> None:
        logits = make_candidates(3).logits
        assert torch.equal(upsample(logits, (GRID, GRID)), logits > 0)

    def test_zero_is_outside(self) -> None:
        assert not upsample(torch.zeros(1, 4, 4), (8, 8)).any()

    def test_by_hand(self) -> None:
        # One row of (-1, 3), twice as wide: -1, 0, 2, 3.
        logits = torch.tensor([[-1.0, 3.0], [-1.0, 3.0]])[None]
        assert upsample(logits, (2, 4)).tolist() == [[[False, False, True, True]] * 2]

    @pytest.mark.parametrize("image_hw", [(1, 5000), (5000, 1), (2, 3), (48, 64)])
    def test_shapes(self, image_hw: tuple[int, int]) -> None:
        masks = upsample(make_candidates(2).logits, image_hw)
        assert masks.shape == (2, *image_hw)
        assert masks.dtype == torch.bool

    def test_of_nothing(self) -> None:
        assert upsample(torch.zeros(0, 4, 4), (5, 7)).shape == (0, 5, 7)


def assert_consistent(found: Instances, candidates: Candidates) -> None:
    """What holds of every answer."""
    height, width = candidates.image_hw
    assert found.boxes.shape == (len(found), 4)
    assert found.boxes.dtype == found.labels.dtype == found.rows.dtype == torch.int64
    assert found.scores.dtype == torch.float32
    assert len(found) == len(found.boxes) == len(found.labels) == len(found.scores) == len(found.rows)
    assert len(found) == len(found.margins) == len(found.runners_up)
    assert bool((found.scores.diff() <= 0).all())
    for mask, (x0, y0, x1, y1), row in zip(found.masks, found.boxes.tolist(), found.rows, strict=True):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert mask.shape == (y1 - y0, x1 - x0)
        # Tight: each side of the box touches the mask; whole: nothing of the mask lies outside the box.
        assert all(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        whole = torch.zeros(height, width, dtype=torch.bool)
        whole[y0:y1, x0:x1] = mask
        assert torch.equal(whole, upsample(candidates.logits[row][None], candidates.image_hw)[0])


class TestMatch:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_plain_method(self, seed: int) -> None:
        candidates, prototypes = make_candidates(40, seed), make_prototypes()
        found = match(candidates, prototypes, max_detections=20)
        plain = match_plainly(candidates, prototypes, 20)
        assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == [(row, label) for row, label, _ in plain]
        assert found.scores.tolist() == pytest.approx([score for _, _, score in plain], abs=1e-4)
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_no_candidate(self, as_published: bool) -> None:
        candidates = take(make_candidates(), torch.zeros(0, dtype=torch.int64))
        found = match(candidates, make_prototypes(), as_published=as_published)
        assert len(found) == 0
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_one_candidate(self, as_published: bool) -> None:
        candidates = take(make_candidates(), torch.tensor([4]))
        found = match(candidates, candidates.features, as_published=as_published)
        assert found.scores.tolist() == pytest.approx([1.0])
        assert_consistent(found, candidates)

    def test_all_scores_zero(self) -> None:
        candidates = make_candidates(5)
        away = torch.zeros(5, WIDTH)
        away[:, 0] = -1
        prototypes = torch.eye(WIDTH)[:1]
        assert len(match(Candidates(candidates.logits, candidates.predicted_iou, away, (48, 64)), prototypes)) == 0

    def test_best_so_many_are_returned(self) -> None:
        # On the grid, NMS keeps 8 × 3 of all these, so three and ten differ by the cut alone.
        candidates, prototypes = make_candidates(20), make_prototypes()
        ten, three = match(candidates, prototypes, max_detections=10), match(candidates, prototypes, max_detections=3)
        assert len(three) == 3
        assert three.rows.tolist() == ten.rows.tolist()[:3]

    def test_fewer_than_asked_for(self) -> None:
        candidates = make_candidates(6)
        found = match(candidates, make_prototypes(), max_detections=100)
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
        assert match(candidates, prototypes, max_detections=1).rows.tolist() == [7]
        assert match(candidates, prototypes, max_detections=2).rows.tolist() == [15, 14]

    def test_better_predicted_iou_wins_over_better_score(self) -> None:
        logits = make_candidates(1).logits.expand(2, -1, -1)
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        candidates = Candidates(logits, torch.tensor([0.5, 0.9]), features, (32, 32))
        found = match(candidates, torch.tensor([[1.0, 0.0]]))
        assert found.rows.tolist() == [1]
        assert found.scores.tolist() == pytest.approx([0.6])

    def test_min_score_is_included(self) -> None:
        candidates, prototypes = make_candidates(), make_prototypes()
        every = match(candidates, prototypes)
        limit = float(every.scores[4])
        found = match(candidates, prototypes, min_score=limit)
        assert found.rows.tolist() == every.rows.tolist()[:5]
        assert len(match(candidates, prototypes, min_score=1.01)) == 0

    def test_order_of_the_candidates_does_not_matter(self) -> None:
        candidates, prototypes = make_candidates(), make_prototypes()
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(5))
        found, shuffled = match(candidates, prototypes), match(take(candidates, order), prototypes)
        assert order[shuffled.rows].tolist() == found.rows.tolist()
        assert shuffled.labels.tolist() == found.labels.tolist()
        assert_near(shuffled.scores, found.scores)

    def test_mask_like_no_class_pushes_out_none_unless_as_published(self) -> None:
        logits = torch.full((2, 16, 16), -1.0)
        logits[:, 4:12, 4:12] = 1
        features = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # the first, with the better predicted IoU, is like no class
        candidates = Candidates(logits, torch.tensor([0.9, 0.8]), features, (16, 16))
        prototypes = torch.tensor([[1.0, 0.0]])
        assert match(candidates, prototypes).rows.tolist() == [1]
        assert match(candidates, prototypes, as_published=True).rows.tolist() == []

    def test_order_of_the_classes_permutes_the_labels(self) -> None:
        candidates, prototypes = make_candidates(), make_prototypes(4)
        order = torch.tensor([2, 0, 3, 1])
        found, permuted = match(candidates, prototypes), match(candidates, prototypes[order])
        assert permuted.rows.tolist() == found.rows.tolist()
        assert order[permuted.labels].tolist() == found.labels.tolist()
        assert_near(permuted.scores, found.scores)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_empty_mask_among_the_candidates_is_left_out(self, as_published: bool) -> None:
        candidates, prototypes = make_candidates(), make_prototypes()
        logits = candidates.logits.clone()
        logits[[3, 11]] = -1.0
        rest = torch.tensor([row for row in range(30) if row not in (3, 11)])
        emptied = Candidates(logits, candidates.predicted_iou, candidates.features, candidates.image_hw)
        found = match(emptied, prototypes, as_published=as_published)
        expected = match(take(candidates, rest), prototypes, as_published=as_published)
        assert found.rows.tolist() == rest[expected.rows].tolist()
        assert_near(found.scores, expected.scores)

    def test_all_masks_empty(self) -> None:
        candidates = make_candidates(4)
        emptied = Candidates(candidates.logits * 0 - 1, candidates.predicted_iou, candidates.features, (48, 64))
        assert len(match(emptied, make_prototypes())) == 0

    @pytest.mark.parametrize("as_published", [False, True])
    def test_mask_empty_at_full_size_gives_way_to_the_next(self, as_published: bool) -> None:
        # In an image of 3 × 2 pixels a single cell of the grid is averaged away; the half of the grid stays.
        logits = torch.full((2, GRID, GRID), -5.0)
        logits[0, 2, 2] = 5.0
        logits[1, :, 9:] = 5.0
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        candidates = Candidates(logits, torch.tensor([0.9, 0.8]), features, (2, 3))
        found = match(candidates, torch.tensor([[1.0, 0.0]]), max_detections=1, as_published=as_published)
        assert found.rows.tolist() == [1]
        assert found.boxes[0, 2:].tolist() == [3, 2]
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("image_hw", [(1, 5000), (5000, 1), (1, 1)])
    def test_extreme_images(self, image_hw: tuple[int, int]) -> None:
        candidates = make_candidates(image_hw=image_hw)
        for as_published in (False, True):
            assert_consistent(match(candidates, make_prototypes(), as_published=as_published), candidates)

    def test_as_published_in_chunks_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates, prototypes = make_candidates(), make_prototypes()
        whole = match(candidates, prototypes, as_published=True)
        monkeypatch.setattr(matching, "PIXELS_A_CHUNK", 2 * 48 * 64)
        parts = match(candidates, prototypes, as_published=True)
        assert parts.rows.tolist() == whole.rows.tolist()
        assert_near(parts.scores, whole.scores)
        assert all(torch.equal(a, b) for a, b in zip(parts.masks, whole.masks, strict=True))

    def test_changes_nothing_it_was_given(self) -> None:
        candidates, prototypes = make_candidates(), make_prototypes()
        given = (candidates.logits, candidates.predicted_iou, candidates.features, prototypes)
        before = [tensor.clone() for tensor in given]
        match(candidates, prototypes)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))

    @pytest.mark.parametrize("as_published", [False, True])
    def test_negatives_lower_what_resembles_them(self, as_published: bool) -> None:
        candidates, prototypes = make_spots(), make_prototypes()
        plain = match(candidates, prototypes, as_published=as_published)
        best = int(plain.rows[0])
        negatives = (candidates.features[best : best + 1], plain.labels[:1])
        found = match(candidates, prototypes, negatives=negatives, as_published=as_published)
        assert found.rows.tolist() != plain.rows.tolist()
        assert float(found.scores[found.rows == best].sum()) < float(plain.scores[0])
        assert_consistent(found, candidates)

    @pytest.mark.parametrize("prototypes", [torch.zeros(3, WIDTH + 1), torch.zeros(WIDTH), torch.zeros(1, 3, WIDTH)])
    def test_wrong_width_is_refused(self, prototypes: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"do not fit candidates with features of width 8: build them with the same"):
            match(make_candidates(), prototypes)


def whole_masks(found: Instances, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool: each mask at its place in the image."""
    whole = torch.zeros(len(found), *image_hw, dtype=torch.bool)
    for canvas, mask, (x0, y0, x1, y1) in zip(whole, found.masks, found.boxes.tolist(), strict=True):
        canvas[y0:y1, x0:x1] = mask
    return whole


def rank_all(candidates: Candidates | PackedCandidates) -> Ranking:
    """Every candidate in its order, of one label and score."""
    count = len(candidates)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Ranking(torch.arange(count), zeros, torch.ones(count), torch.linspace(0, 1, count), torch.arange(count) + 10)


def make_spots(count: int = 60, seed: int = 0, image_hw: tuple[int, int] = (96, 128)) -> Candidates:
    """Uneven masks of every size all over a grid of 64 × 64 cells, so that some lie beside and some within others."""
    blobs = make_blobs(count, seed=seed, image_hw=image_hw)
    generator = torch.Generator().manual_seed(seed + 100)
    center, line = 64 * torch.rand(count, 2, 1, 1, generator=generator), torch.arange(64) + 0.5
    radius = 4 + 16 * torch.rand(count, 1, 1, generator=generator)
    square = (line[None, :] - center[:, 0]) ** 2 + (line[:, None] - center[:, 1]) ** 2
    return replace(blobs, logits=0.3 * blobs.logits + 4 * (1 - square / radius**2))


FULL_SIZES = [(64, 64), (96, 128), (481, 640), (50, 700), (30, 20), (7, 300), (300, 7), (1, 400), (400, 1), (1, 1), (65, 63)]


class TestCropInstances:
    @pytest.mark.parametrize("image_hw", FULL_SIZES)
    @pytest.mark.parametrize("packed", [False, True])
    def test_are_the_masks_of_the_whole_image_resized(self, image_hw: tuple[int, int], packed: bool) -> None:
        blobs = make_blobs(30, image_hw=image_hw)
        candidates = pack(blobs) if packed else blobs
        rows_axis, columns_axis = (interpolation_matrix(64, side) for side in image_hw)
        full = rows_axis @ candidates.logits_of(torch.arange(30)) @ columns_axis.T
        found = crop_instances(candidates, rank_all(candidates))
        masks = torch.zeros(30, *image_hw, dtype=torch.bool)
        masks[found.rows] = whole_masks(found, image_hw)
        # Values so close to 0 may fall to either side, with the order of the additions.
        assert not bool(((masks != (full > 0)) & (full.abs() > 1e-4)).any())
        assert not bool(((masks != upsample(candidates.logits_of(torch.arange(30)), image_hw)) & (full.abs() > 1e-4)).any())
        for mask in found.masks:
            assert all(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))

    def test_small_masks_in_large_images(self) -> None:
        """Each alone in a corner, at a border, or in the middle: the window around it must hold all that is looked at."""
        logits = torch.full((5, 16, 16), -0.01)
        for row, (y, x) in enumerate([(0, 0), (15, 15), (0, 15), (8, 0), (7, 9)]):
            logits[row, y, x] = 9.0
        candidates = Candidates(logits, torch.ones(5), torch.ones(5, WIDTH), (333, 201))
        found = crop_instances(candidates, rank_all(candidates))
        assert torch.equal(whole_masks(found, (333, 201)), upsample(logits, (333, 201)))

    def test_masks_that_vanish_give_way(self) -> None:
        logits = torch.full((4, GRID, GRID), -5.0)
        logits[[0, 2], 2, 2] = 5.0  # averaged away in an image of 3 × 2 pixels
        logits[[1, 3], :, 9:] = 5.0
        candidates = Candidates(logits, torch.ones(4), torch.ones(4, WIDTH), (2, 3))
        for given in (candidates, pack(candidates)):
            assert crop_instances(given, rank_all(given)).rows.tolist() == [1, 3]
            assert crop_instances(given, rank_all(given), 1).rows.tolist() == [1]
            assert crop_instances(given, rank_all(given)).runners_up.tolist() == [11, 13]

    def test_no_more_than_asked_for_across_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates = make_blobs(20)
        every = crop_instances(candidates, rank_all(candidates))
        monkeypatch.setattr(matching, "MASKS_A_CHUNK", 3)
        assert crop_instances(candidates, rank_all(candidates)).rows.tolist() == every.rows.tolist() == list(range(20))
        for count in (1, 3, 4, 19, 20, 21):
            found = crop_instances(candidates, rank_all(candidates), count)
            assert found.rows.tolist() == list(range(min(count, 20)))
            assert torch.equal(found.boxes, every.boxes[:count])

    def test_order_is_that_of_the_ranking(self) -> None:
        candidates = make_blobs(6)
        columns = torch.tensor([2, 0]), torch.tensor([0.9, 0.3]), torch.tensor([0.5, 0.1]), torch.tensor([0, 1])
        ranking = Ranking(torch.tensor([4, 1]), *columns)
        found = crop_instances(candidates, ranking)
        assert (found.rows.tolist(), found.labels.tolist()) == ([4, 1], [2, 0])
        assert torch.equal(found.scores, ranking.scores)
        assert torch.equal(found.margins, ranking.margins)
        assert torch.equal(found.runners_up, ranking.runners_up)

    def test_of_nothing(self) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        for candidates in (empty, pack(empty)):
            assert_consistent(crop_instances(candidates, rank_all(candidates)), empty)


class TestRank:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("min_score", [0.2, 0.5])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_least_score_changes_no_other(self, packed: bool, min_score: float, seed: int) -> None:
        """Scores are not computed to the end where they fall short of it, but merging looks at all masks."""
        spots = make_spots(seed=seed)
        candidates = pack(spots) if packed else spots
        prototypes = make_prototypes(2, seed)
        classified = classify(candidates.features, prototypes)
        every = rank(candidates, classified)
        found = rank(candidates, classified, min_score=min_score)
        keep = every.scores >= min_score
        assert 0 < int(keep.sum()) < len(every)
        assert torch.equal(found.rows, every.rows[keep])
        assert torch.equal(found.labels, every.labels[keep])
        assert torch.equal(found.scores, every.scores[keep])

    def test_merging_lowers_some_scores_here(self) -> None:
        """What the test above stands on."""
        candidates, prototypes = make_spots(), make_prototypes(2, 0)
        classified = classify(candidates.features, prototypes)
        ranking = rank(candidates, classified)
        assert bool((ranking.scores < classified.scores[ranking.rows] - 0.01).any())
        assert bool((ranking.scores <= classified.scores[ranking.rows]).all())

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("as_published", [False, True])
    def test_a_least_score_for_each_class(self, packed: bool, as_published: bool) -> None:
        spots = make_spots()
        candidates = pack(spots) if packed else spots
        classified = classify(candidates.features, make_prototypes())
        every = rank(candidates, classified, as_published=as_published)
        least = torch.tensor([0.5, 0.2, 0.35])
        keep = every.scores >= least[every.labels]
        assert {int(label) for label in every.labels[keep]} == {0, 1, 2}
        found = rank(candidates, classified, min_score=least, as_published=as_published)
        assert torch.equal(found.rows, every.rows[keep])
        assert torch.equal(found.scores, every.scores[keep])
        assert not torch.equal(found.rows, rank(candidates, classified, min_score=0.35, as_published=as_published).rows)

    def test_a_class_that_is_not_asked_for_makes_no_room_for_itself(self) -> None:
        # Twenty disjoint masks, the first sixteen of class 0: of one detection asked for, NMS keeps eight.
        logits = torch.full((20, GRID, GRID), -5.0)
        for row in range(20):
            logits[row, 3 * (row // 5) : 3 * (row // 5) + 2, 3 * (row % 5) : 3 * (row % 5) + 2] = 5.0
        features = torch.eye(2)[[0] * 16 + [1] * 4]
        candidates = Candidates(logits, torch.linspace(1, 0.5, 20), features, (32, 32))
        classified = classify(features, torch.eye(2))
        assert set(rank(candidates, classified, max_detections=1).labels.tolist()) == {0}
        found = rank(candidates, classified, max_detections=1, min_score=torch.tensor([float("inf"), 0.3]))
        assert found.rows.tolist() == [16, 17, 18, 19]

    def test_margins_and_runners_up_stay_with_their_rows(self) -> None:
        candidates, prototypes = make_spots(), make_prototypes()
        classified = classify(candidates.features, prototypes)
        ranking = rank(candidates, classified)
        assert torch.equal(ranking.margins, classified.margins[ranking.rows])
        assert torch.equal(ranking.runners_up, classified.runners_up[ranking.rows])
        found = match(candidates, prototypes)
        assert torch.equal(found.margins, classified.margins[found.rows])
        assert torch.equal(found.runners_up, classified.runners_up[found.rows])

    def test_images_classified_together_are_each_alone(self) -> None:
        images, prototypes = [make_spots(10, seed) for seed in range(3)], make_prototypes()
        classified = classify(torch.cat([candidates.features for candidates in images]), prototypes)
        for number, candidates in enumerate(images):
            together = rank(candidates, classified.take(slice(10 * number, 10 * number + 10)))
            alone = rank(candidates, classify(candidates.features, prototypes))
            assert together.rows.tolist() == alone.rows.tolist()
            assert_near(together.scores, alone.scores)

    def test_of_nothing(self) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        for candidates in (empty, pack(empty)):
            ranking = rank(candidates, classify(candidates.features, make_prototypes()))
            assert len(ranking) == 0


class TestPackedCandidates:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("min_score", [0.0, 0.4])
    def test_match_as_the_dense_ones(self, seed: int, min_score: float) -> None:
        candidates, prototypes = make_spots(60, seed, (150, 220)), make_prototypes(seed=seed)
        dense, packed = (match(given, prototypes, min_score=min_score) for given in (candidates, pack(candidates)))
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
        candidates, prototypes = make_spots(60, seed, (150, 220)), make_prototypes(seed=seed)
        dense, packed = (match(given, prototypes, as_published=True) for given in (candidates, pack(candidates)))
        assert set(packed.rows.tolist()) == set(dense.rows.tolist())
        order = [packed.rows.tolist().index(row) for row in dense.rows.tolist()]
        assert packed.labels[order].tolist() == dense.labels.tolist()
        assert_near(packed.scores[order], dense.scores, at_most=0.01)

    def test_rows_are_those_of_the_masks_that_are_not_empty(self) -> None:
        candidates, prototypes = make_spots(30), make_prototypes()
        logits = candidates.logits.clone()
        logits[[3, 11]] = -1.0
        emptied = Candidates(logits, candidates.predicted_iou, candidates.features, candidates.image_hw)
        rest = torch.tensor([row for row in range(30) if row not in (3, 11)])
        dense, packed = (match(given, prototypes) for given in (emptied, pack(emptied)))
        assert rest[packed.rows].tolist() == dense.rows.tolist()
        assert torch.equal(packed.scores, dense.scores)

    @pytest.mark.parametrize("as_published", [False, True])
    def test_of_nothing(self, as_published: bool) -> None:
        empty = take(make_blobs(2), torch.zeros(0, dtype=torch.int64))
        assert_consistent(match(pack(empty), make_prototypes(), as_published=as_published), empty)
