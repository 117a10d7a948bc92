"""Figures of benchmarks/quality.py, by hand: two classes, four images of which two are empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.quality_scores import (
    best_fixed_f1,
    calibration_error,
    correction_cost,
    detection_f1,
    false_positives,
    images_opened,
    judge,
    measure,
    presence_ap,
    presence_f1,
    presence_scores,
    reachable,
    recall,
)
from refseg.coco.files import CocoDataset, CocoImage
from refseg.masks.rle import encode_mask

STAR, TEE = 1, 2
HW = (20, 40)
LEFT, RIGHT, MIDDLE = (2, 2, 12, 12), (22, 2, 32, 12), (14, 14, 18, 18)


def entry(image: int, category: int, box: tuple[int, int, int, int], score: float | None = None) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    code = encode_mask(np.ones((y1 - y0, x1 - x0), bool), box, HW)
    about = {"image_id": image, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": code}
    return about | ({"id": 10 * image + x0, "area": (x1 - x0) * (y1 - y0)} if score is None else {"score": score})


@pytest.fixture
def truth() -> CocoDataset:
    """A star and a tee in the first image, a star in the second."""
    images = {number: CocoImage(number, f"{number}.png", HW) for number in range(1, 5)}
    objects = (entry(1, STAR, LEFT), entry(1, TEE, RIGHT), entry(2, STAR, LEFT))
    return CocoDataset("by hand", images, {STAR: "star", TEE: "tee"}, objects)


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return [
        entry(1, STAR, LEFT, 0.9),
        entry(1, STAR, RIGHT, 0.8),  # the tee, under the wrong class
        entry(3, STAR, MIDDLE, 0.7),  # nothing is there
        entry(2, STAR, LEFT, 0.6),
        entry(2, STAR, LEFT, 0.5),  # the same object again
        entry(4, TEE, MIDDLE, 0.3),
    ]


def test_judge(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    judged = judge(truth, results[::-1])
    assert judged.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.3]
    assert judged.right.tolist() == [True, False, False, True, False, False]
    assert judged.shows.tolist() == [0, 1, -1, 2, 2, -1]
    assert judged.empty_images.tolist() == [2, 3]


def test_f1_at_thresholds(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    judged = judge(truth, results)
    assert detection_f1(judged, {STAR: 0.55, TEE: 0.55}) == pytest.approx(2 * 2 / (4 + 3))
    assert detection_f1(judged, {STAR: 0.85, TEE: 0.0}) == pytest.approx(2 * 1 / (2 + 3))
    # 0.6 lets in two of three objects and two others; above 0.8 one object comes alone: 4 / 7 and 2 / 4.
    assert best_fixed_f1(judged, [STAR, TEE]) == pytest.approx(4 / 7)


def test_silence(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    judged = judge(truth, results)
    assert false_positives(judged, {STAR: 0.0, TEE: 0.0}) == 1.0
    assert false_positives(judged, {STAR: 0.75, TEE: 0.0}) == 0.5
    # Stars: both images found, one of two empty ones said to hold one, which counts as one of two. Tees: none found.
    assert presence_f1(judged, {STAR: 0.55, TEE: 0.55}) == pytest.approx(2 * 2 / (2 + 1 + 3))


def test_presence_by_probabilities(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    """The chance that any instance is right, and a half says that the class is there, whatever is written."""
    judged = judge(truth, [*results, entry(1, STAR, MIDDLE, 0.5)])
    known, plain = presence_scores(judged, probabilities=True), presence_scores(judged)
    assert plain[0, STAR] == 0.9
    assert known[0, STAR] == pytest.approx(1 - 0.1 * 0.2 * 0.5)
    assert presence_f1(judged, {STAR: 2.0, TEE: 2.0}) == 0.0
    everything = {STAR: 0.0, TEE: 0.0}
    assert presence_f1(judged, {STAR: 2.0, TEE: 2.0}, probabilities=True) == presence_f1(judged, {STAR: 0.5, TEE: 0.5})
    assert presence_f1(judged, everything, probabilities=True) != presence_f1(judged, everything)


def test_images_ranked_by_what_they_may_hold(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    judged = judge(truth, results)
    # Stars: images 1, 3, 2 by their best score, of which the first and the third hold one. Tees: image 4, which holds none,
    # then those without any, in their order.
    assert presence_ap(judged, [STAR]) == pytest.approx((1 + 2 / 3) / 2)
    assert presence_ap(judged, [STAR, TEE]) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    # All three objects are seen when the third image is opened, and two images hold any.
    assert images_opened(judged) == pytest.approx(3 / 2)
    assert images_opened(judge(truth, results[:1] + results[3:4])) == 1.0


def test_recall(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    judged = judge(truth, results)
    assert recall(judged, {STAR: 0.0, TEE: 0.0}) == pytest.approx(2 / 3)
    assert recall(judged, {STAR: 0.7, TEE: 0.0}) == pytest.approx(1 / 3)


def test_calibration_error() -> None:
    """Fifteen bins of one instance each: their mean distance from being right or wrong; of more, bin by bin."""
    assert calibration_error(np.array([[0.8, 1], [0.3, 0]])) == pytest.approx((0.2 + 0.3) / 2)
    honest = np.array([[0.5, right] for right in (0, 1) * 150])
    assert calibration_error(honest) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(honest + np.array([[0.3, 0]])) == pytest.approx(0.3)
    assert np.isnan(calibration_error(np.zeros((0, 2))))


def test_always_present_is_two_thirds(truth: CocoDataset) -> None:
    everything = [entry(image, category, MIDDLE, 0.5) for image in range(1, 5) for category in (STAR, TEE)]
    assert presence_f1(judge(truth, everything), {STAR: 0.0, TEE: 0.0}) == pytest.approx(2 / 3)


def test_work_of_review(truth: CocoDataset, results: list[dict[str, Any]]) -> None:
    """Three objects are shown; the last is made right by the fourth decision: accept, relabel, reject, accept."""
    judged = judge(truth, results)
    assert correction_cost(judged) == pytest.approx(4 / 3)
    assert reachable(judged) == 1.0
    assert reachable(judge(truth, results[:1])) == pytest.approx(1 / 3)
    assert correction_cost(judge(truth, results[:1])) == 1.0
    assert np.isnan(correction_cost(judge(truth, [])))


def test_measure_of_nothing_found(truth: CocoDataset) -> None:
    figures = measure(truth, [], {STAR: 0.5, TEE: 0.5})
    assert (figures["ap"], figures["presence_f1"], figures["false_positives"], figures["f1"]) == (0.0, 0.0, 0.0, 0.0)
