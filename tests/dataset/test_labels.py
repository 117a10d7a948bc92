"""Between FiftyOne's labels and the library's: fields that fit, regions, and instances written as labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

from refseg.dataset import labels
from refseg.dataset.labels import (
    has_box,
    image_hw_of,
    is_crowd,
    needs_files,
    object_box,
    object_region,
    objects_of,
    relative_box,
    require_object_field,
    require_predictions,
    to_detections,
    to_document,
)
from refseg.errors import DatasetError, ImageError, LabelError
from refseg.matching.instances import Instances

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
    @pytest.mark.parametrize("kind", [fo.Detections, fo.Detection, fo.Polylines, fo.Polyline])
    def test_object_fields(self, dataset: fo.Dataset, kind: type) -> None:
        dataset.add_sample_field("objects", fo.EmbeddedDocumentField, embedded_doc_type=kind)
        assert require_object_field(dataset, "objects") is kind

    @pytest.mark.parametrize("kind", [fo.Classification, fo.Keypoints, fo.Segmentation, fo.Heatmap])
    def test_other_fields(self, dataset: fo.Dataset, kind: type) -> None:
        dataset.add_sample_field("other", fo.EmbeddedDocumentField, embedded_doc_type=kind)
        with pytest.raises(DatasetError, match=f"holds {kind.__name__}, but objects are needed: label some objects first"):
            require_object_field(dataset, "other")
        with pytest.raises(DatasetError, match=f"holds {kind.__name__}, but predictions are needed: segment the dataset first"):
            require_predictions(dataset, "other")

    def test_predictions(self, dataset: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"'found' .* does not exist, .*: segment the dataset first"):
            require_predictions(dataset, "found")
        dataset.add_sample_field("found", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        require_predictions(dataset, "found")
        dataset.add_sample_field("lines", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
        with pytest.raises(DatasetError, match=r"'lines' .* holds Polylines, .*: choose one of 'found'"):
            require_predictions(dataset, "lines")


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
        with pytest.raises(LabelError, match=f"The label {label.id} .* its mask's file .*gone.png does not exist"):
            object_region(label, (8, 8))

    @pytest.mark.parametrize(
        ("box", "reason"),
        [
            (None, "is None, not four numbers"),
            ([], r"is \[\], not four numbers"),
            ([0.1, 0.1, 0.2, 0.2, 0.3], "not four numbers"),
            (["left", 0, 1, 1], "not four numbers"),
            ([float("nan")] * 4, "is not finite"),
            ([0.1, 0.1, 0.2, float("inf")], "is not finite"),
            ([-100, -100, 30000, 30000], "30000 × 30000 times as large as its image"),
            ([0.2, 0.2, 0.0, 0.1], "its box is empty or lies outside"),
            ([1.0, 0.2, 0.1, 0.1], "its box is empty or lies outside"),
        ],
    )
    def test_what_is_no_box_is_told(self, box: Any, reason: str) -> None:
        for mask in (None, np.ones((3, 3), bool)):
            label = SimpleNamespace(id="7", label="nut", bounding_box=box, mask=mask, mask_path=None)
            with pytest.raises(LabelError, match=rf"The label 7 \('nut'\) cannot be used: .*{reason}") as caught:
                object_region(label, (8, 8))
            assert (caught.value.label_id, caught.value.label) == ("7", "nut")

    @pytest.mark.parametrize("box", [[0, 0, 0, 0], None])
    def test_the_mask_of_a_whole_image_needs_no_box(self, box: Any) -> None:
        whole = np.zeros((6, 9), np.uint8)
        whole[2:5, 3:4] = 255
        label = SimpleNamespace(id="7", label="nut", bounding_box=box, mask=whole, mask_path=None)
        found, mask = object_region(label, (6, 9))
        assert found == (3, 2, 4, 5)
        assert mask is not None
        assert mask.tolist() == [[True]] * 3
        with pytest.raises(LabelError):
            object_region(label, (6, 10))

    @pytest.mark.parametrize(
        ("points", "reason"),
        [
            ([], "no shape of 3 points"),
            ([[]], "no shape of 3 points"),
            ([[(0.5, 0.5)]], "no shape of 3 points"),
            ([[(0.1, 0.1), (0.2, 0.2)], [(0.1, 0.1)]], "no shape of 3 points"),
            ([[(1.5, 1.5), (1.7, 1.5), (1.7, 1.9)]], "no area in the image"),
            ([[(0.1, 0.2), (0.5, 0.2), (0.7, 0.2)]], "no area in the image"),
            ([[(0.1, 0.2), (0.5, float("nan")), (0.7, 0.2)]], "not finite"),
            ([[(0.1, 0.2), (500, 0.3), (0.7, 0.2)]], "far outside"),
        ],
    )
    def test_lines_without_an_area_are_told(self, points: Any, reason: str) -> None:
        for read in (relative_box, lambda label: object_region(label, (8, 8))):
            with pytest.raises(LabelError, match=reason):
                read(fo.Polyline(label="nut", points=points, closed=True, filled=True))

    @pytest.mark.parametrize("far", [(0.2001, 0.8), (0.8, 0.2001), (0.2001, 0.2001)])
    def test_lines_smaller_than_a_pixel_are_told(self, far: tuple[float, float]) -> None:
        corners = [(0.2, 0.2), (far[0], 0.2), far]
        line = fo.Polyline(label="nut", points=[corners], closed=True, filled=True)
        with pytest.raises(LabelError, match="smaller than a pixel of its image of 100×80"):
            object_region(line, (80, 100))

    def test_a_mask_of_no_pixels_is_told(self) -> None:
        label = fo.Detection(label="nut", bounding_box=[0.1, 0.1, 0.2, 0.2], mask=np.zeros((0, 4), bool))
        with pytest.raises(LabelError, match=r"its mask cannot be read \(it has no pixels\)"):
            object_region(label, (80, 100))

    def test_the_box_alone(self) -> None:
        whole = np.zeros((80, 100), np.uint8)
        whole[8:16, 50:60] = 1
        plain = fo.Detection(bounding_box=[0.5, 0.1, 0.1, 0.1], mask_path="is not read")
        boxless = fo.Detection(bounding_box=[0, 0, 0, 0], mask=whole)
        assert object_box(plain, (80, 100)) == pytest.approx((50, 8, 60, 16))
        assert object_box(boxless, (80, 100)) == (50, 8, 60, 16)
        assert (has_box(plain), has_box(boxless)) == (True, False)
        with pytest.raises(LabelError):
            object_box(fo.Detection(bounding_box=[0, 0, 0, 0]), (80, 100))

    def test_shapes_of_too_few_points_do_not_spoil_the_others(self) -> None:
        square = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
        line = fo.Polyline(points=[square, [(0.9, 0.9)], []], closed=True, filled=True)
        assert relative_box(line) == pytest.approx((0.25, 0.25, 0.5, 0.5))
        box, _ = object_region(line, (40, 40))
        assert box == pytest.approx((10, 10, 30, 30))

    def test_a_closed_line_holds_what_it_surrounds(self) -> None:
        square = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
        masks = [
            object_region(fo.Polyline(points=[square], closed=True, filled=filled), (40, 40))[1] for filled in (True, False)
        ]
        assert masks[0] is not None
        assert masks[0].mean() > 0.9
        np.testing.assert_array_equal(masks[0], masks[1])

    @pytest.mark.parametrize(
        ("value", "expected"), [("0", False), ("False", False), (0.0, False), (None, False), ("1", True), (1, True)]
    )
    def test_crowds_by_whatever_flag(self, value: Any, expected: bool) -> None:
        assert is_crowd(fo.Detection(label="nut", iscrowd=value)) is expected

    def test_a_crowd_flag_that_says_nothing_is_told(self) -> None:
        with pytest.raises(LabelError, match="iscrowd is 'maybe', neither yes nor no"):
            is_crowd(fo.Detection(label="nut", iscrowd="maybe"))


class TestImageSize:
    def test_the_file_counts_before_the_metadata(self, tmp_path: Path) -> None:
        Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
        sizes = {(30, 20): False, (20, 30): True}
        for (width, height), differs in sizes.items():
            sample = fo.Sample(str(tmp_path / "a.png"), metadata=fo.ImageMetadata(width=width, height=height))
            assert image_hw_of(sample) == ((20, 30), differs)
        assert image_hw_of(fo.Sample(str(tmp_path / "a.png"))) == ((20, 30), False)

    def test_metadata_where_the_file_is_gone(self, tmp_path: Path) -> None:
        gone = str(tmp_path / "gone.png")
        assert image_hw_of(fo.Sample(gone, metadata=fo.ImageMetadata(width=30, height=20))) == ((20, 30), False)
        with pytest.raises(ImageError, match="does not exist"):
            image_hw_of(fo.Sample(gone))


class TestPolygons:
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

    def test_pieces_are_told_where_there_are_several(self) -> None:
        found = instances(((3, 5, 13, 25), 0, 0.75), ((0, 0, 70, 60), 0, 0.5))
        found.masks[0][:, 4:7] = False
        found.masks[1][5:] = False
        two, one = to_detections(found, ["a", "b"], [0.9, 0.8], IMAGE_HW, "").detections
        assert two["pieces"] == 2
        assert not one.has_field("pieces")

    def test_region_of_what_was_written(self) -> None:
        found = instances(((3, 5, 13, 25), 1, 0.75))
        (label,) = to_detections(found, ["a", "b"], [0.9], IMAGE_HW, "").detections
        box, mask = object_region(label, IMAGE_HW)
        assert box == pytest.approx((3, 5, 13, 25), abs=1e-6)
        np.testing.assert_array_equal(mask, found.masks[0].numpy())

    @pytest.mark.parametrize("in_files", [False, True])
    def test_documents_are_those_of_fiftyone(self, tmp_path: Path, in_files: bool) -> None:
        """Every attribute, its type and its place, and the bytes of masks."""
        found = instances(((3, 5, 13, 25), 1, 0.75), ((0, 0, 70, 60), 0, 0.5))
        found.masks[0][:, 4:7] = False
        found = replace(found, runners_up=torch.tensor([0, -1]))
        folder = tmp_path if in_files else None
        document = to_document(found, ["a", "b"], [0.9, 0.8], IMAGE_HW, "run_1", folder)
        made = []
        boxes = [[3 / 70, 5 / 60, 10 / 70, 20 / 60], [0.0, 0.0, 1.0, 1.0]]
        for row, (name, other, score, quality, margin) in enumerate(
            [("b", "a", 0.75, 0.9, 0.1875), ("a", None, 0.5, 0.8, 0.125)]
        ):
            label = fo.Detection(label=name, bounding_box=boxes[row], confidence=score)
            label["predicted_iou"], label["margin"], label["runner_up"], label["run"] = quality, margin, other, "run_1"
            if row == 0:
                label["pieces"] = 2
            label.id = str(document["detections"][row]["_id"])
            if in_files:
                label.mask_path = str(tmp_path / f"{label.id}.png")
            else:
                label.mask = found.masks[row].numpy()
            made.append(label)
        assert bson.encode(document) == bson.encode(fo.Detections(detections=made).to_dict())

    def test_none(self) -> None:
        assert to_document(instances(), ["a"], [], IMAGE_HW, "r") == fo.Detections().to_dict()
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
