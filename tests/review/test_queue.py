"""The queue of predictions to decide on, and its order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import fiftyone as fo
import numpy as np
import pytest

from refseg.dataset.contradictions import SAME_PLACE, box_iou
from refseg.errors import DatasetError
from refseg.review.decisions import accept, reject, relabel
from refseg.review.queue import QueueItem, review_queue
from tests.review.predictions import LEFT, RIGHT, ids_of, predicted, record, segment_again

MakeDataset = Callable[..., fo.Dataset]


class TestBadInput:
    def test_queue_of_patches_and_of_no_order(self, dataset: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"holds patches, .*pass the images they were cut from"):
            review_queue(dataset.to_patches("predictions"))
        with pytest.raises(DatasetError, match="no order 'worst' of review: choose 'teaching' or 'score'"):
            review_queue(dataset, order="worst")  # type: ignore[arg-type]

    def test_videos(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.mp4")])
        with pytest.raises(DatasetError, match="holds videos"):
            review_queue(dataset)


class TestQueue:
    def test_order(self, dataset: fo.Dataset) -> None:
        """Sureness by hand, the least of margin and score − threshold: 0.4, 0.3; 0.05, 0.05."""
        queue = review_queue(dataset)
        assert [round(item.margin, 6) for item in queue] == [0.05, 0.05, 0.3, 0.4]
        # Of equals the better score first.
        assert [item.score for item in queue] == [0.8, 0.55, 0.6, 0.9]
        assert [item.score for item in review_queue(dataset, order="score")] == [0.9, 0.8, 0.6, 0.55]
        first = dataset.last()
        label = first.predictions.detections[0]
        assert queue[0] == QueueItem(label.id, first.id, "star", 0.8, "other", pytest.approx(0.05), tuple(LEFT))

    def test_predictions_that_lost_their_box_stay_in_the_queue(self, dataset: fo.Dataset) -> None:
        first = dataset.first()
        label = first.predictions.detections[0]
        label.bounding_box = [0.1, 0.2, 0.3]
        first.save()
        queue = review_queue(dataset)
        assert len(queue) == 4
        assert {item.box for item in queue if item.label_id == label.id} == {(0, 0, 0, 0)}
        accept(dataset, [label.id])
        assert label.id not in {item.label_id for item in review_queue(dataset)}

    def test_thresholds_of_the_newest_run(self, dataset: fo.Dataset) -> None:
        record(dataset, "others", min_confidence=0.0)
        record(dataset, min_confidence=0.2)  # as older versions record it
        assert {item.score: round(item.margin, 6) for item in review_queue(dataset)} == {
            0.9: 0.5,
            0.6: 0.4,
            0.8: 0.05,
            0.55: 0.35,
        }

    def test_predictions_without_margin_or_score(self, make_dataset: MakeDataset) -> None:
        labels = [predicted("star", LEFT, 0.9, None), fo.Detection(label="tee", bounding_box=RIGHT)]
        dataset = make_dataset([fo.Sample("a.png", predictions=fo.Detections(detections=labels)), fo.Sample("b.png")])
        assert [(item.score, item.runner_up, item.margin) for item in review_queue(dataset)] == [
            (0.0, None, 0.0),
            (0.9, None, 0.9),
        ]

    def test_decided_ones_leave_it(self, dataset: fo.Dataset) -> None:
        every = ids_of(dataset)
        accept(dataset, every[:1])
        reject(dataset, every[1:2])
        relabel(dataset, every[2:3], "gear")
        assert [item.label_id for item in review_queue(dataset)] == every[3:]

    def test_decided_by_place(self, dataset: fo.Dataset) -> None:
        every = ids_of(dataset)
        accept(dataset, every[:1])
        reject(dataset, every[1:2])
        segment_again(dataset, 0.01)
        assert {item.sample_id for item in review_queue(dataset)} == {dataset.last().id}
        sample = dataset.first()
        for label in sample.predictions.detections:
            label.label = "gear"
        sample.save()
        # What was accepted stays decided; the rejected object is something new.
        (item,) = [item for item in review_queue(dataset) if item.sample_id == sample.id]
        assert item.label_id == sample.predictions.detections[1].id

    @pytest.mark.parametrize(("move", "is_open"), [(0.03, False), (0.04, True)])
    def test_how_near(self, dataset: fo.Dataset, move: float, is_open: bool) -> None:
        """Of boxes 0.2 wide moved by 0.03 the IoU is 17 / 23 = 0.74, by 0.04 it is 16 / 24 = 0.67."""
        accept(dataset, ids_of(dataset)[:1])
        segment_again(dataset, move)
        assert (ids_of(dataset)[0] in {item.label_id for item in review_queue(dataset)}) is is_open
        assert SAME_PLACE == 0.7

    def test_views(self, dataset: fo.Dataset) -> None:
        accept(dataset, ids_of(dataset)[:1])
        assert len(review_queue(dataset[1:])) == 2
        # A view may hide what was decided; it is decided nevertheless.
        dataset.reload()
        view = dataset.filter_labels("accepted", fo.ViewField("label") == "none", only_matches=False)
        assert len(review_queue(view)) == 3
        stars = dataset.filter_labels("predictions", fo.ViewField("label") == "star")
        assert {item.label for item in review_queue(stars)} == {"star"}
        assert review_queue(dataset.limit(0)) == []

    def test_like_a_plain_loop(
        self, make_dataset: MakeDataset, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.review.queue.PREDICTIONS_A_CHUNK", 7)

        def draw(number: int) -> list[fo.Detection]:
            corners = rng.integers(0, 3, (number, 2)) / 10
            return [
                fo.Detection(label=str(rng.choice(["a", "b"])), bounding_box=[x, y, 0.5, 0.5], confidence=float(rng.random()))
                for x, y in corners.tolist()
            ]

        fields = ("predictions", "accepted", "rejected")
        samples = [
            fo.Sample(f"{n}.png", **{name: fo.Detections(detections=draw(int(rng.integers(0, 4)))) for name in fields})
            for n in range(30)
        ]
        dataset = make_dataset(samples)
        expected = {
            label.id
            for sample in dataset
            for label in sample.predictions.detections
            if not any(box_iou(label.bounding_box, own.bounding_box) >= 0.7 for own in sample.accepted.detections)
            and not any(
                own.label == label.label and box_iou(label.bounding_box, own.bounding_box) >= 0.7
                for own in sample.rejected.detections
            )
        }
        assert {item.label_id for item in review_queue(dataset)} == expected
        assert 5 < len(expected) < len(ids_of(dataset))


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, refseg.review.queue, refseg.dataset.fields, refseg.review.decisions\n"
        "print([name for name in ('torch', 'lance', 'sam2', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
