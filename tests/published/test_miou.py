from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from refseg.coco.files import CocoDataset, CocoImage
from refseg.errors import CocoError, ShapeError
from refseg.published.miou import EpisodeDrawer, MeanIou, Overlap, class_mask, group_annotations, overlap_of

CLASSES = {0: "zero", 4: "cow", 8: "cat"}


def coco_of(annotations: list[dict[str, Any]], image_hw: tuple[int, int] | None = (8, 10)) -> CocoDataset:
    images = {entry["image_id"]: CocoImage(entry["image_id"], f"{entry['image_id']}.jpg", image_hw) for entry in annotations}
    return CocoDataset("val.json", images, CLASSES, tuple(annotations))


def entry(image_id: Any, category_id: int, **rest: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": [0, 0, 4, 4], **rest}


@pytest.fixture
def pool() -> CocoDataset:
    shown = [entry(image, category) for image in range(8) for category in CLASSES for _ in range(2)]
    return coco_of([*shown, entry("text", 4), entry(90, 4, iscrowd=1)])


class TestEpisodes:
    def test_an_episode_has_different_images_of_its_class(self, pool: CocoDataset) -> None:
        episodes = EpisodeDrawer(pool).draw([0, 4], 3, 33, 200)
        assert len(episodes) == 200
        for episode in episodes:
            shown = {episode.query, *episode.supports}
            assert len(shown) == 4
            assert shown <= {entry["image_id"] for entry in pool.annotations if entry["category_id"] == episode.category_id}
            assert 90 not in shown  # a crowd alone
        drawn = [episode.category_id for episode in episodes]
        assert 70 < drawn.count(4) < 130
        assert set(drawn) == {0, 4}
        assert {episode.query for episode in episodes if episode.category_id == 4} == {*range(8), "text"}

    def test_query_and_class_are_the_same_for_all_shots(self, pool: CocoDataset) -> None:
        one, five = (EpisodeDrawer(pool).draw([0, 4, 8], shots, 33, 40) for shots in (1, 5))
        assert [(e.category_id, e.query, e.supports[:1]) for e in five] == [(e.category_id, e.query, e.supports) for e in one]
        assert EpisodeDrawer(pool).draw([0, 4, 8], 1, 33, 15) == one[:15]

    def test_seeds_differ_and_order_does_not_matter(self, pool: CocoDataset) -> None:
        episodes = EpisodeDrawer(pool).draw([0, 4, 8], 2, 33, 20)
        turned = replace(pool, annotations=pool.annotations[::-1])
        assert EpisodeDrawer(turned).draw([8, 0, 4], 2, 33, 20) == episodes
        assert EpisodeDrawer(pool).draw([0, 4, 8], 2, 34, 20) != episodes

    def test_too_few_images_are_said(self, pool: CocoDataset) -> None:
        with pytest.raises(CocoError, match=r"val\.json: 8 shots need each class in 9 images, but it shows zero in 8\."):
            EpisodeDrawer(pool).draw([4, 0], 8, 33, 1)
        for classes, shots in (([], 1), ([4], 0)):
            with pytest.raises(CocoError, match="at least one class and one shot"):
                EpisodeDrawer(pool).draw(classes, shots, 33, 1)


class TestClassMask:
    def test_all_objects_of_the_class_count(self) -> None:
        crowd = np.zeros((8, 10), np.uint8)
        crowd[5:, 7:] = 1
        code = mask_utils.encode(np.asfortranarray(crowd))
        coco = coco_of(
            [
                entry("a", 4, segmentation=[[0, 0, 3, 0, 3, 2, 0, 2]]),
                entry("a", 4, iscrowd=1, segmentation={"size": [8, 10], "counts": code["counts"].decode()}),
                entry("a", 8, segmentation=[[4, 0, 6, 0, 6, 2, 4, 2]]),
                entry("b", 4, segmentation=[[0, 0, 9, 0, 9, 7]]),
            ]
        )
        expected = crowd.astype(bool)
        expected[:2, :3] = True
        grouped = group_annotations(coco)
        np.testing.assert_array_equal(class_mask(coco, grouped, "a", 4), expected)
        assert class_mask(coco, grouped, "a", 8).sum() == 4
        assert class_mask(coco, grouped, "b", 8).sum() == 0

    def test_what_has_no_mask_is_said(self) -> None:
        coco = coco_of([entry("a", 4)])
        with pytest.raises(CocoError, match=r"val\.json: the annotation 1 has a box alone"):
            class_mask(coco, group_annotations(coco), "a", 4)
        coco = coco_of([entry("a", 4)], image_hw=None)
        with pytest.raises(CocoError, match=r"no height and width for the image a\.jpg"):
            class_mask(coco, group_annotations(coco), "a", 4)


def test_overlap() -> None:
    predicted, truth = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    predicted[0], truth[:, 0] = True, True
    assert overlap_of(predicted, truth) == Overlap(1, 6, 12)
    assert overlap_of(~predicted, predicted) == Overlap(0, 12, 12)
    with pytest.raises(ShapeError, match=r"\(3, 4\).*\(4, 3\)"):
        overlap_of(predicted, truth.T)


def test_mean_iou_by_hand() -> None:
    meter = MeanIou(CLASSES)
    assert meter.figures().figures == {"mIoU": None, "FB-IoU": None}
    for category_id, overlap in ((4, Overlap(10, 20, 100)), (4, Overlap(0, 60, 100)), (0, Overlap(30, 40, 50))):
        meter.add(category_id, overlap)
    scores = meter.figures()
    # The cow's pixels are summed before dividing, 10 / 80; the cat was never asked for.
    assert scores.per_class == {"zero": {"IoU": 0.75}, "cow": {"IoU": 0.125}}
    assert scores.figures["mIoU"] == pytest.approx((0.75 + 0.125) / 2)
    # Foreground 40 / 120; background: pixels outside the union, 130, over pixels outside the intersection, 210.
    assert scores.figures["FB-IoU"] == pytest.approx((40 / 120 + 130 / 210) / 2)


def test_the_mean_iou_equals_a_confusion_matrix(rng: np.random.Generator) -> None:
    meter = MeanIou({1: "a", 2: "b"})
    counts = {key: np.zeros((2, 2)) for key in (1, 2)}
    for number in range(20):
        predicted, truth = rng.random((2, 7, 9)) < 0.4
        key = 1 + number % 2
        meter.add(key, overlap_of(predicted, truth))
        np.add.at(counts[key], (truth.astype(int), predicted.astype(int)), 1)

    def iou(matrix: np.ndarray, row: int) -> float:
        return float(matrix[row, row] / (matrix[row].sum() + matrix[:, row].sum() - matrix[row, row]))

    both = counts[1] + counts[2]
    figures = meter.figures().figures
    assert figures["mIoU"] == pytest.approx((iou(counts[1], 1) + iou(counts[2], 1)) / 2)
    assert figures["FB-IoU"] == pytest.approx((iou(both, 0) + iou(both, 1)) / 2)
