"""Right, missed, wrong and confused, in cases checked by eye."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from refseg.coco.files import CocoDataset
from refseg.masks.rle import encode_mask
from refseg.published.judging import Judgement, Shown, judge, overlap, shown_of

LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
COCO = CocoDataset("targets.json", {}, {1: "cow", 2: "horse"}, ())
NAMES = {1: "cow", 2: "horse"}


class TestJudge:
    def test_right_missed_and_wrong(self) -> None:
        truth = [Shown("cow", LEFT), Shown("cow", (0, 20, 10, 30))]
        found = [Shown("cow", LEFT, score=0.9), Shown("cow", RIGHT, score=0.8)]
        judgement = judge(truth, found)
        assert judgement == Judgement(pairs=((0, 0),), missed=(1,), wrong=(1,))
        assert judgement.num_mistakes == 2
        assert judgement.f1 == pytest.approx(2 / 4)

    def test_the_better_score_takes_the_object(self) -> None:
        found = [Shown("cow", LEFT, score=0.3), Shown("cow", LEFT, score=0.9)]
        assert judge([Shown("cow", LEFT)], found) == Judgement(pairs=((0, 1),), wrong=(0,))

    def test_each_takes_the_object_it_overlaps_most(self) -> None:
        truth = [Shown("cow", (0, 0, 10, 10)), Shown("cow", (2, 0, 12, 10))]
        found = [Shown("cow", (0, 0, 10, 10), score=0.9), Shown("cow", (2, 0, 12, 10), score=0.8)]
        assert set(judge(truth, found).pairs) == {(0, 0), (1, 1)}
        assert set(judge(truth[::-1], found).pairs) == {(1, 0), (0, 1)}

    def test_another_class_is_a_confusion_and_the_object_is_missed(self) -> None:
        judgement = judge([Shown("cow", LEFT)], [Shown("horse", LEFT, score=0.9)])
        assert judgement == Judgement(missed=(0,), confused=((0, 0),))
        assert judgement.f1 == 0

    def test_a_second_prediction_on_an_object_that_was_found_is_a_confusion_too(self) -> None:
        found = [Shown("cow", LEFT, score=0.9), Shown("horse", LEFT, score=0.5)]
        assert judge([Shown("cow", LEFT)], found) == Judgement(pairs=((0, 0),), confused=((0, 1),))

    @pytest.mark.parametrize(("width", "right"), [(5, True), (4, False)])
    def test_limit_of_iou(self, width: int, right: bool) -> None:
        judgement = judge([Shown("cow", LEFT)], [Shown("cow", (0, 0, width, 10), score=0.9)])
        assert bool(judgement.pairs) is right

    def test_masks_decide_where_both_have_one(self) -> None:
        upper = np.zeros((10, 10), bool)
        upper[:5] = True
        assert not judge([Shown("cow", LEFT, upper)], [Shown("cow", LEFT, ~upper, 0.9)]).pairs
        assert judge([Shown("cow", LEFT)], [Shown("cow", LEFT, ~upper, 0.9)]).pairs

    def test_crowds_are_neither_missed_nor_make_wrong(self) -> None:
        crowd = Shown("cow", (0, 0, 100, 100), crowd=True)
        found = [Shown("cow", LEFT, score=0.9), Shown("horse", LEFT, score=0.9), Shown("cow", (95, 0, 115, 10), score=0.8)]
        assert judge([crowd], found) == Judgement(wrong=(1, 2))

    def test_masks_are_decoded_where_boxes_touch_alone(self) -> None:
        def fail() -> np.ndarray:
            raise AssertionError

        assert judge([Shown("cow", LEFT, fail)], [Shown("cow", RIGHT, fail, 0.9)]) == Judgement(missed=(0,), wrong=(0,))

    def test_nothing_at_all_is_right(self) -> None:
        assert judge([], []).f1 == 1.0
        assert judge([], [Shown("cow", LEFT, score=0.9)]).f1 == 0.0

    def test_order_of_predictions_does_not_matter(self, rng: np.random.Generator) -> None:
        def draw(scored: bool) -> list[Shown]:
            corners = rng.uniform(0, 30, (12, 2))
            scores = rng.permutation(12) / 12
            return [
                Shown(("cow", "horse")[i % 2], (x, y, x + 15, y + 15), score=scores[i] if scored else None)
                for i, (x, y) in enumerate(corners.tolist())
            ]

        truth, found = draw(False), draw(True)
        first, second = judge(truth, found), judge(truth, found[::-1])
        assert {(i, 11 - j) for i, j in second.pairs} == set(first.pairs)
        assert {11 - j for j in second.wrong} == set(first.wrong)
        assert len(first.pairs) + len(first.wrong) + len(first.confused) == 12


class TestOverlap:
    def test_equals_that_of_whole_masks(self, rng: np.random.Generator) -> None:
        for _ in range(50):
            boxes = [np.concatenate([low, low + rng.integers(1, 12, 2)]) for low in rng.integers(0, 12, (2, 2))]
            items, wholes = [], []
            for x0, y0, x1, y1 in boxes:
                mask = rng.random((y1 - y0, x1 - x0)) < 0.6
                whole = np.zeros((24, 24), bool)
                whole[y0:y1, x0:x1] = mask
                items.append(Shown("cow", (float(x0), float(y0), float(x1), float(y1)), mask))
                wholes.append(whole)
            assert overlap(*items) == ((wholes[0] & wholes[1]).sum(), wholes[0].sum(), wholes[1].sum())

    def test_boxes(self) -> None:
        assert overlap(Shown("cow", (0, 0, 4, 2)), Shown("cow", (3, 1, 5, 5))) == (1, 8, 8)


class TestShownOf:
    def entry(self, **more: Any) -> dict[str, Any]:
        return {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 1, 4, 3], **more}

    def test_polygon_over_its_box(self) -> None:
        (item,) = shown_of(COCO, [self.entry(segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])], NAMES, (10, 12))
        mask = item.pixels()
        assert (item.label, item.box, item.score, item.crowd) == ("cow", (2, 1, 6, 4), None, False)
        assert mask is not None
        assert mask.shape == (3, 4)
        assert mask.all()

    def test_run_length_code_of_a_result(self) -> None:
        mask = np.array([[True, False, True]])
        code = encode_mask(mask, (4, 5, 7, 6), (10, 12))
        code["counts"] = code["counts"].decode()
        (item,) = shown_of(COCO, [self.entry(bbox=[4, 5, 3, 1], score=0.7, segmentation=code)], NAMES, (10, 12))
        assert item.score == 0.7
        np.testing.assert_array_equal(item.pixels(), mask)

    def test_box_alone_and_mask_alone(self) -> None:
        box, mask = shown_of(
            COCO, [self.entry(), self.entry(bbox=None, segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])], NAMES, (10, 12)
        )
        assert box.pixels() is None
        assert mask.box == (2, 1, 6, 4)

    def test_a_box_is_cut_at_the_border_as_its_mask_is(self) -> None:
        entry = self.entry(bbox=[-2, -1, 5, 4], segmentation=[[-2, -1, 3, -1, 3, 3, -2, 3]])
        (item,) = shown_of(COCO, [entry], NAMES, (10, 12))
        mask = item.pixels()
        assert item.box == (0, 0, 3, 3)
        assert mask is not None
        assert mask.shape == (3, 3)
        assert mask.all()
        assert shown_of(COCO, [self.entry(bbox=[20, 0, 5, 5])], NAMES, (10, 12)) == []

    @pytest.mark.parametrize("key", ["iscrowd", "ignore", "difficult"])
    def test_what_does_not_count(self, key: str) -> None:
        (item,) = shown_of(COCO, [self.entry(**{key: 1})], NAMES, (10, 12))
        assert item.crowd

    def test_other_classes_are_left_out(self) -> None:
        assert shown_of(COCO, [self.entry(category_id=2)], {1: "cow"}, (10, 12)) == []

    def test_a_damaged_mask_leaves_the_box(self, caplog: pytest.LogCaptureFixture) -> None:
        entry = self.entry(segmentation={"size": [10, 12], "counts": "damaged"})
        (item,) = shown_of(COCO, [entry], NAMES, (10, 12))
        with caplog.at_level(logging.WARNING):
            assert item.pixels() is None
        assert "A mask is not shown" in caplog.text
        assert shown_of(COCO, [{**entry, "bbox": None}], NAMES, (10, 12)) == []

    def test_an_image_of_unknown_size_shows_boxes(self) -> None:
        (item,) = shown_of(COCO, [self.entry(segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])], NAMES, None)
        assert item.box == (2, 1, 6, 4)
        assert item.pixels() is None
