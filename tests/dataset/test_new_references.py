"""Labels for objects that somebody has shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from refseg.dataset.new_references import add_reference
from refseg.errors import DatasetError, LabelError
from tests.at_once import at_once

MakeDataset = Callable[..., fo.Dataset]
BOX = (0.1, 0.2, 0.3, 0.4)
TIMES = 10


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> fo.Dataset:
    return make_dataset([fo.Sample("one.png"), fo.Sample("two.png")])


def labels_of(dataset: fo.Dataset, field: str = "references") -> list[Any]:
    dataset.reload()
    return [label for sample in dataset if sample[field] is not None for label in sample[field].detections]


def add_often(dataset: fo.Dataset, sample_id: str, name: str) -> list[str]:
    return [add_reference(dataset, sample_id, name, BOX) for _ in range(TIMES)]


class TestAdd:
    def test_a_field_of_its_own(self, dataset: fo.Dataset) -> None:
        mask = np.zeros((4, 5), bool)
        mask[1:, 2:] = True
        label_id = add_reference(dataset, dataset.first().id, " bolt ", BOX, mask)
        (label,) = labels_of(dataset)
        assert (label.id, label.label, label.tags, label.confidence) == (label_id, "bolt", ["reference"], None)
        assert label.bounding_box == list(BOX)
        assert label.mask.dtype == bool
        assert np.array_equal(label.mask, mask)

    def test_a_negative(self, dataset: fo.Dataset) -> None:
        add_reference(dataset, dataset.first().id, "bolt", BOX, is_negative=True)
        assert [label.tags for label in labels_of(dataset)] == [["negative"]]

    def test_beside_what_is_there(self, make_dataset: MakeDataset) -> None:
        there = fo.Detection(label="nut", bounding_box=[0.5, 0.5, 0.1, 0.1])
        dataset = make_dataset([fo.Sample("one.png", ground_truth=fo.Detections(detections=[there]))])
        add_reference(dataset[:1], dataset.first().id, "bolt", BOX, field="ground_truth")
        tags = {label.label: label.tags for label in labels_of(dataset, "ground_truth")}
        assert tags == {"nut": [], "bolt": ["reference"]}

    @pytest.mark.thorough
    def test_of_two_at_once_both_stay(self, dataset: fo.Dataset) -> None:
        sample_id = dataset.first().id
        dataset.persistent = True
        at_once(add_often, dataset.name, (sample_id, "bolt"), (sample_id, "nut"))
        names = [label.label for label in labels_of(dataset)]
        assert sorted(names) == ["bolt"] * TIMES + ["nut"] * TIMES

    def test_of_a_grouped_dataset_every_slice_serves(self, make_dataset: MakeDataset) -> None:
        group = fo.Group()
        dataset = make_dataset([])
        dataset.add_group_field("group", default="left")
        samples = [fo.Sample(f"{name}.png", group=group.element(name)) for name in ("left", "right")]
        dataset.add_samples(samples)
        add_reference(dataset, samples[1].id, "bolt", BOX)
        dataset.group_slice = "right"
        assert [label.label for label in dataset.first().references.detections] == ["bolt"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"label": "  "}, "'  ' cannot name a class"),
            ({"bounding_box": (0.1, 0.2, 0.0, 0.4)}, "empty or lies outside"),
            ({"bounding_box": (0.1, 0.2, 0.3)}, "bounding_box must be 4 numbers"),
            ({"mask": np.zeros((3, 3), bool)}, "The mask shows nothing"),
            ({"mask": np.zeros(3)}, "The mask cannot be used"),
            ({"sample_id": "5" * 24}, "holds no image '555555555555555555555555'"),
            ({"field": "weather"}, "holds Classification, not Detections"),
            ({"field": "a.b"}, "a.b"),
        ],
    )
    def test_is_refused(self, dataset: fo.Dataset, given: dict[str, Any], words: str) -> None:
        dataset.add_sample_field("weather", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
        whole = {"sample_id": dataset.first().id, "label": "bolt", "bounding_box": BOX, **given}
        with pytest.raises((DatasetError, LabelError), match=words):
            add_reference(dataset, **whole)
        assert not dataset.has_field("references")

    def test_predictions_would_be_lost(self, dataset: fo.Dataset) -> None:
        dataset.register_run("segmented", dataset.init_run(method="refseg/segment", label_field="predictions"))
        with pytest.raises(DatasetError, match="holds predictions, which the next run replaces"):
            add_reference(dataset, dataset.first().id, "bolt", BOX, field="predictions")
