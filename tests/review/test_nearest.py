"""The references that a prediction is most like, by an independent computation."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
import pytest

import refseg
from refseg.dataset.index_finding import open_index
from refseg.prototypes.prototypes import Prototypes
from refseg.review import nearest
from refseg.review.nearest import like_references
from refseg.review.places import Prediction, candidate_rows
from tests.review.test_suggesting import QUIET, calibrated, kept, plain, trays

__all__ = ["calibrated", "kept", "plain", "trays"]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_kept", type(nearest._kept)())


def places_of(view: Any) -> dict[str, str]:
    return {label.id: sample.id for sample in view for label in sample.predictions.detections}


def expected_of(dataset: fo.Dataset, label_id: str, sample_id: str, prototypes: Prototypes) -> list[tuple[str, float]]:
    """References of the prediction's class by cosine, computed by hand from the index."""
    label = next(one for one in dataset[sample_id].predictions.detections if one.id == label_id)
    (chunk,) = open_index(dataset, "demo").index.scan([sample_id])
    candidates = chunk.candidates(0)
    one = Prediction(label_id, sample_id, label.label, 0.0, tuple(label.bounding_box), label.predicted_iou, 1)
    feature = candidates.features[candidate_rows([one], candidates)[0]].float().numpy()
    rows = []
    for vector, row, reference in zip(
        prototypes.vectors.numpy(), prototypes.labels.tolist(), prototypes.reference_ids, strict=True
    ):
        if prototypes.classes[row] == label.label:
            cosine = float(vector @ feature / np.linalg.norm(vector) / np.linalg.norm(feature))
            rows.append((reference, cosine))
    return sorted(rows, key=lambda item: -item[1])


class TestLikeReferences:
    def test_of_the_class_and_the_runner_up(self, trays: fo.Dataset, plain: Prototypes) -> None:
        places = places_of(trays[5:7])
        found = like_references(trays, places, number=2)
        assert found.keys() == places.keys()
        for label_id, sample_id in places.items():
            label = next(one for one in trays[sample_id].predictions.detections if one.id == label_id)
            assert found[label_id].by == "first look"
            (name, rows), (runner_up, others) = found[label_id].classes
            assert (name, runner_up) == (label.label, label.runner_up)
            expected = expected_of(trays, label_id, sample_id, plain)[:2]
            assert [reference for reference, _ in rows] == [reference for reference, _ in expected]
            assert [cosine for _, cosine in rows] == pytest.approx([cosine for _, cosine in expected], abs=2e-3)
            own = [plain.classes[row] for row in plain.labels.tolist()]
            assert {own[plain.reference_ids.index(reference)] for reference, _ in others} == {runner_up}

    def test_by_second_looks_where_the_run_took_them(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        refseg.segment(trays, calibrated, run_key="looked", **QUIET)
        found = like_references(trays, places_of(trays[5:9]))
        assert {one.by for one in found.values()} == {"second look"}
        for one in found.values():
            for _, rows in one.classes:
                assert [cosine for _, cosine in rows] == sorted((cosine for _, cosine in rows), reverse=True)

    def test_only_those_that_can_be_shown(self, trays: fo.Dataset, plain: Prototypes) -> None:
        ((label_id, sample_id), *_) = places_of(trays[5:6]).items()
        every = [reference for reference, _ in like_references(trays, {label_id: sample_id})[label_id].classes[0][1]]
        found = like_references(trays, {label_id: sample_id}, among=every[1:])
        assert [reference for reference, _ in found[label_id].classes[0][1]] == every[1:]

    def test_what_cannot_be_told(self, trays: fo.Dataset) -> None:
        """A label that somebody moved, one that is gone, and a dataset without a run or an index."""
        sample = trays[5:6].first()
        moved, same = sample.predictions.detections[:2]
        moved.bounding_box = [0.0, 0.0, 0.02, 0.02]
        sample.save()
        found = like_references(trays, {moved.id: sample.id, same.id: sample.id, "0" * 24: sample.id})
        assert list(found) == [same.id]
        assert like_references(trays, {same.id: sample.id}, "others") == {}

    def test_without_an_index(self, trays: fo.Dataset) -> None:
        places = places_of(trays[5:6])
        open_index(trays, "demo").delete()
        assert like_references(trays, places) == {}

    def test_the_next_run_is_compared_with_its_own(self, trays: fo.Dataset, plain: Prototypes, calibrated: Prototypes) -> None:
        places = places_of(trays[5:9])
        assert {one.by for one in like_references(trays, places).values()} == {"first look"}
        refseg.segment(trays, calibrated, run_key="looked", **QUIET)
        assert {one.by for one in like_references(trays, places_of(trays[5:9])).values()} == {"second look"}
