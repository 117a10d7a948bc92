"""Between FiftyOne's labels and the library's: fields that fit, regions, and instances written as labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

from refseg import labels
from refseg.errors import DatasetError
from refseg.instances import Instances
from refseg.labels import (
    needs_files,
    object_region,
    objects_of,
    require_object_field,
    require_samples,
    to_detections,
)

MakeDataset = Callable[..., fo.Dataset]
IMAGE_HW = (60, 70)  # neither divides a power of two: relative boxes are inexact


def instances(*placed: tuple[tuple[int, int, int, int], int, float]) -> Instances:
    """Instances of a full rectangle each, less its first pixel, as (box, label row, score)."""
    masks = []
    for (x0, y0, x1, y1), _, _ in placed:
        mask = torch.ones(y1 - y0, x1 - x0, dtype=torch.bool)
        mask[0, 0] = False
        masks.append(mask)
    return Instances(
        tuple(masks),
        torch.tensor([box for box, _, _ in placed], dtype=torch.int64).reshape(-1, 4),
        torch.tensor([row for _, row, _ in placed], dtype=torch.int64),
        torch.tensor([score for _, _, score in placed]),
        torch.arange(len(placed)),
        margins=torch.tensor([score / 4 for _, _, score in placed]),
        runners_up=torch.tensor([1 - row for _, row, _ in placed], dtype=torch.int64),
    )


class TestRequire:
    def test_empty(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        for view in (make_dataset(), dataset.limit(0), dataset.match_tags("none")):
            with pytest.raises(DatasetError, match=r"The view of dataset '.*' is empty"):
                require_samples(view)

    @pytest.mark.parametrize("kind", [fo.Detections, fo.Detection, fo.Polylines, fo.Polyline])
    def test_object_fields(self, dataset: fo.Dataset, kind: type) -> None:
        dataset.add_sample_field("objects", fo.EmbeddedDocumentField, embedded_doc_type=kind)
        assert require_object_field(dataset, "objects") is kind

    @pytest.mark.parametrize("kind", [fo.Classification, fo.Keypoints, fo.Segmentation, fo.Heatmap])
    def test_other_fields(self, dataset: fo.Dataset, kind: type) -> None:
        dataset.add_sample_field("other", fo.EmbeddedDocumentField, embedded_doc_type=kind)
        with pytest.raises(DatasetError, match=f"holds {kind.__name__}, but objects are needed: label some objects first"):
            require_object_field(dataset, "other")


def test_objects_of() -> None:
    one, two = fo.Detection(label="a"), fo.Detection(label="b")
    lane = fo.Polyline(label="c")
    assert objects_of(None) == []
    assert objects_of(fo.Detections()) == []
    assert objects_of(fo.Detections(detections=[one, two])) == [one, two]
    assert objects_of(fo.Polylines(polylines=[lane])) == [lane]
    assert objects_of(one) == [one]


class TestRegion:
    def test_box(self) -> None:
        box, mask = object_region(fo.Detection(label="a", bounding_box=[0.1, 0.25, 0.5, 0.25]), (80, 100))
        assert box == pytest.approx((10, 20, 60, 40))
        assert mask is None

    @pytest.mark.parametrize("kind", [np.uint8, np.float32, bool, np.int64])
    def test_masks_of_any_number_type(self, kind: type) -> None:
        drawn = np.eye(4).astype(kind)
        _, mask = object_region(fo.Detection(bounding_box=[0, 0, 0.5, 0.5], mask=drawn), (8, 8))
        assert mask is not None
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, np.eye(4, dtype=bool))

    def test_mask_of_three_channels_in_a_file(self, tmp_path: Path) -> None:
        drawn = np.zeros((4, 4, 3), np.uint8)
        drawn[1, 2] = (0, 0, 255)
        Image.fromarray(drawn).save(tmp_path / "mask.png")
        label = fo.Detection(bounding_box=[0, 0, 0.5, 0.5], mask_path=str(tmp_path / "mask.png"))
        _, mask = object_region(label, (8, 8))
        assert mask is not None
        assert np.argwhere(mask).tolist() == [[1, 2]]

    def test_unreadable_mask_file_is_named(self, tmp_path: Path) -> None:
        label = fo.Detection(bounding_box=[0, 0, 0.5, 0.5], mask_path=str(tmp_path / "gone.png"))
        with pytest.raises(DatasetError, match=f"The mask of the label {label.id} cannot be read from .*gone.png"):
            object_region(label, (8, 8))

    def test_polygon(self) -> None:
        triangle = fo.Polyline(points=[[(0, 0), (0.5, 0), (0, 0.5)]], closed=True, filled=True)
        box, mask = object_region(triangle, (100, 100))
        assert box == pytest.approx((0, 0, 50, 50))
        assert mask is not None
        assert mask.shape == (50, 50)
        assert mask[5, 5]
        assert not mask[45, 45]
        assert 0.45 < mask.mean() < 0.6


class TestDetections:
    def test_values(self) -> None:
        found = instances(((3, 5, 13, 25), 1, 0.75), ((0, 0, 70, 60), 0, 0.5))
        written = to_detections(found, ["a", "b"], [0.9, 0.8], IMAGE_HW, "run_1").detections
        assert [label.label for label in written] == ["b", "a"]
        assert [label.confidence for label in written] == [0.75, 0.5]
        assert [label.predicted_iou for label in written] == [0.9, 0.8]
        assert [(label.margin, label.runner_up) for label in written] == [(0.1875, "a"), (0.125, "b")]
        assert [label.run for label in written] == ["run_1", "run_1"]
        assert written[0].bounding_box == pytest.approx([3 / 70, 5 / 60, 10 / 70, 20 / 60])
        assert written[1].bounding_box == [0, 0, 1, 1]
        for label, mask in zip(written, found.masks, strict=True):
            assert label.mask.dtype == bool
            assert label.mask_path is None
            np.testing.assert_array_equal(label.mask, mask.numpy())

    def test_one_class_has_no_runner_up(self) -> None:
        found = replace(instances(((3, 5, 13, 25), 0, 0.75)), runners_up=torch.tensor([-1]))
        (label,) = to_detections(found, ["a"], [0.9], IMAGE_HW, "").detections
        assert label.runner_up is None

    def test_region_of_what_was_written(self) -> None:
        found = instances(((3, 5, 13, 25), 1, 0.75))
        (label,) = to_detections(found, ["a", "b"], [0.9], IMAGE_HW, "").detections
        box, mask = object_region(label, IMAGE_HW)
        assert box == pytest.approx((3, 5, 13, 25), abs=1e-6)
        np.testing.assert_array_equal(mask, found.masks[0].numpy())

    def test_none(self) -> None:
        assert to_detections(instances(), ["a"], [], IMAGE_HW, "r").detections == []

    def test_mask_files(self, tmp_path: Path) -> None:
        found = instances(((3, 5, 13, 25), 0, 0.75), ((0, 0, 70, 60), 0, 0.5))
        folder = tmp_path / "deep" / "folder"
        written = to_detections(found, ["a", "b"], [0.9, 0.8], IMAGE_HW, "r", folder).detections
        assert {Path(label.mask_path).name for label in written} == {path.name for path in folder.iterdir()}
        assert len(list(folder.iterdir())) == 2
        for label, mask in zip(written, found.masks, strict=True):
            assert label.mask is None
            np.testing.assert_array_equal(label.get_mask() > 0, mask.numpy())

    def test_predicted_iou_for_each(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            to_detections(instances(((0, 0, 5, 5), 0, 0.5)), ["a"], [], IMAGE_HW, "")


def test_needs_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MASK_PIXELS_IN_DOCUMENT", 20)
    assert not needs_files(instances())
    assert not needs_files(instances(((0, 0, 4, 5), 0, 0.5)))
    assert needs_files(instances(((0, 0, 4, 5), 0, 0.5), ((0, 0, 1, 1), 0, 0.5)))
