"""References out of every kind of label field, by tag, id and class; and the rule by which they are drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.drawn_references import sample_references
from refseg.dataset.references import (
    collect_negatives,
    collect_references,
    tag_references,
    tagged_references,
)
from refseg.errors import DatasetError, NoReferencesError
from refseg.images.reading import read_image
from refseg.prototypes.building import build_prototypes
from tests.dataset.conftest import SIZE
from tests.trays import IMAGE_HW, PARTS, tray_samples, whole_mask

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path) -> fo.Dataset:
    return make_dataset(tray_samples(tmp_path))


def box_of(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    width, height = SIZE
    return [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]


def boxed(label: str, *box: float, **attributes: object) -> fo.Detection:
    return fo.Detection(label=label, bounding_box=box_of(*box), **attributes)


def square(label: str, x0: float, y0: float, x1: float, y1: float, **options: object) -> fo.Polyline:
    width, height = SIZE
    corners = [(x0 / width, y0 / height), (x1 / width, y0 / height), (x1 / width, y1 / height), (x0 / width, y1 / height)]
    return fo.Polyline(label=label, points=[corners], closed=True, filled=True, **options)


def ids_of(dataset: fo.Dataset) -> list[str]:
    return [label_id for ids in dataset.values("ground_truth.detections.id") for label_id in ids]


class TestCollect:
    def test_every_object_in_the_views_order(self, trays: fo.Dataset) -> None:
        references = collect_references(trays, "ground_truth")
        assert [reference.id for reference in references] == ids_of(trays)
        objects = [(sample.filepath, label) for sample in trays for label in sample.ground_truth.detections]
        for reference, (path, label) in zip(references, objects, strict=True):
            rows, columns = np.nonzero(whole_mask(label))
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert (reference.label, reference.image) == (label.label, path)
            assert reference.box == pytest.approx(tight)
            assert reference.mask is not None
            assert reference.mask.dtype == bool
            np.testing.assert_array_equal(reference.mask, label.mask)

    def test_a_views_samples_and_order(self, trays: fo.Dataset) -> None:
        view = trays[2:].sort_by("filepath", reverse=True)
        assert [reference.image for reference in collect_references(view, "ground_truth")] == [
            path for path in view.values("filepath") for _ in PARTS
        ]

    def test_sample_tag(self, trays: fo.Dataset) -> None:
        trays[1:3].tag_samples("shown")
        assert [reference.id for reference in collect_references(trays, "ground_truth", tags="shown")] == ids_of(trays)[2:6]

    def test_label_tag(self, trays: fo.Dataset) -> None:
        chosen = [ids_of(trays)[1], ids_of(trays)[4]]
        trays.select_labels(ids=chosen).tag_labels("shown")
        assert [reference.id for reference in collect_references(trays, "ground_truth", tags="shown")] == chosen

    def test_negative_in_a_tagged_sample_is_no_reference(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        sample.tags = ["reference"]
        first, *others = sample.ground_truth.detections
        first.tags = ["negative"]
        sample.save()
        collected = collect_references(trays, "ground_truth", tags="reference")
        assert first.id not in {reference.id for reference in collected}
        assert {label.id for label in others} <= {reference.id for reference in collected}

    def test_several_tags_of_samples_and_labels(self, trays: fo.Dataset) -> None:
        every = ids_of(trays)
        trays[:1].tag_samples("whole")
        trays.select_labels(ids=every[7]).tag_labels("one")
        assert [r.id for r in collect_references(trays, "ground_truth", tags=["whole", "one"])] == [
            every[0],
            every[1],
            every[7],
        ]

    def test_label_ids(self, trays: fo.Dataset) -> None:
        every = ids_of(trays)
        found = collect_references(trays, "ground_truth", label_ids=iter([every[5], every[0]]))
        assert [reference.id for reference in found] == [every[0], every[5]]

    def test_label_ids_and_tags_both_hold(self, trays: fo.Dataset) -> None:
        every = ids_of(trays)
        trays[:1].tag_samples("shown")
        found = collect_references(trays, "ground_truth", label_ids=[every[1], every[2]], tags="shown")
        assert [reference.id for reference in found] == [every[1]]

    def test_classes(self, trays: fo.Dataset) -> None:
        assert {reference.label for reference in collect_references(trays, "ground_truth", classes=["tee"])} == {"tee"}

    def test_crowds_and_nameless_objects_are_left_out(self, dataset: fo.Dataset, plain: str) -> None:
        objects = [
            boxed("a", 10, 10, 60, 60, iscrowd=1),
            boxed("a", 10, 10, 60, 60, iscrowd=0),
            boxed("a", 10, 10, 60, 60, attributes={"iscrowd": fo.NumericAttribute(value=1)}),
            fo.Detection(bounding_box=box_of(10, 10, 60, 60)),
        ]
        dataset.add_sample(fo.Sample(plain, ground_truth=fo.Detections(detections=objects)))
        assert [reference.id for reference in collect_references(dataset, "ground_truth")] == [objects[1].id]

    def test_box_only(self, dataset: fo.Dataset, plain: str) -> None:
        dataset.add_sample(fo.Sample(plain, objects=fo.Detections(detections=[boxed("a", 20, 30, 70, 90)])))
        (reference,) = collect_references(dataset, "objects")
        assert reference.mask is None
        assert reference.box == pytest.approx((20, 30, 70, 90))

    def test_field_of_one_detection(self, dataset: fo.Dataset, plain: str) -> None:
        mask = np.eye(50, dtype=bool)
        samples = [fo.Sample(plain, part=boxed("a", 20, 30, 70, 80, mask=mask, tags=["shown"])), fo.Sample(plain)]
        dataset.add_samples(samples, progress=False)
        for options in ({}, {"tags": "shown"}, {"label_ids": [samples[0].part.id]}):
            (reference,) = collect_references(dataset, "part", **options)
            assert reference.box == pytest.approx((20, 30, 70, 80))
            np.testing.assert_array_equal(reference.mask, mask)

    @pytest.mark.parametrize("kind", ["Polyline", "Polylines"])
    def test_polygons(self, dataset: fo.Dataset, plain: str, kind: str) -> None:
        polygon = square("a", 20, 30, 70, 90, tags=["shown"])
        value = polygon if kind == "Polyline" else fo.Polylines(polylines=[polygon, square("b", 0, 0, 5, 5)])
        dataset.add_sample(fo.Sample(plain, outline=value))
        (reference,) = collect_references(dataset, "outline", tags="shown")
        assert (reference.id, reference.label) == (polygon.id, "a")
        assert reference.box == pytest.approx((20, 30, 70, 90))
        assert reference.mask is not None
        assert reference.mask.shape == (60, 50)
        assert reference.mask.mean() > 0.9

    def test_polygon_with_a_hole_beside_it(self, dataset: fo.Dataset, plain: str) -> None:
        """Two shapes of one object: the gap between them belongs to neither."""
        first, second = square("a", 20, 30, 40, 90), square("a", 60, 30, 80, 90)
        both = fo.Polyline(label="a", points=[*first.points, *second.points], closed=True, filled=True)
        dataset.add_sample(fo.Sample(plain, outline=both))
        (reference,) = collect_references(dataset, "outline")
        assert reference.mask is not None
        assert reference.mask[:, 25:35].sum() == 0
        assert reference.mask[:, :15].all()
        assert reference.mask[:, 45:55].all()

    def test_polyline_without_points_is_skipped_by_id(self, dataset: fo.Dataset, plain: str) -> None:
        empty = fo.Polyline(label="a", points=[], closed=True, filled=True)
        good = square("a", 20, 30, 90, 100)
        dataset.add_sample(fo.Sample(plain, outline=fo.Polylines(polylines=[empty, good])))
        prototypes = build_prototypes(collect_references(dataset, "outline"), "demo", progress=False)
        assert prototypes.reference_ids == (good.id,)
        assert [label_id for label_id, _ in prototypes.skipped] == [empty.id]

    def test_mask_in_a_file(self, dataset: fo.Dataset, plain: str, tmp_path: Path) -> None:
        mask = np.tri(60, 50, dtype=bool)
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
        label = boxed("a", 20, 30, 70, 90, mask_path=str(tmp_path / "mask.png"))
        dataset.add_sample(fo.Sample(plain, objects=fo.Detections(detections=[label])))
        np.testing.assert_array_equal(collect_references(dataset, "objects")[0].mask, mask)

    @pytest.mark.parametrize("content", [None, b"", b"no image at all"])
    def test_unreadable_mask_file_is_skipped_by_id(
        self, dataset: fo.Dataset, plain: str, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "mask.png"
        if content is not None:
            path.write_bytes(content)
        bad = boxed("a", 20, 30, 70, 90, mask_path=str(path))
        good = boxed("a", 20, 30, 120, 130, mask=np.ones((100, 100), bool))
        dataset.add_sample(fo.Sample(plain, objects=fo.Detections(detections=[bad, good])))
        with caplog.at_level(logging.WARNING, "refseg"):
            references = collect_references(dataset, "objects")
        assert bad.id in caplog.text
        assert str(path) in caplog.text
        prototypes = build_prototypes(references, "demo", progress=False)
        assert prototypes.reference_ids == (good.id,)
        assert [label_id for label_id, _ in prototypes.skipped] == [bad.id]

    def test_labels_that_have_no_place_are_skipped_by_id_and_reason(
        self, dataset: fo.Dataset, plain: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = boxed("star", 40, 30, 90, 80, mask=np.ones((50, 50), bool))
        bad = {
            "not four numbers": fo.Detection(label="star", bounding_box=[0.1, 0.1, 0.2, 0.2, 0.3]),
            "is not finite": fo.Detection(label="star", bounding_box=[float("nan")] * 4),
            "times as large as its image": fo.Detection(label="star", bounding_box=[-100, -100, 30000, 30000]),
            "its bounding box is": fo.Detection(label="star"),
        }
        unclear = boxed("star", 40, 30, 90, 80, iscrowd="perhaps")
        dataset.add_sample(fo.Sample(plain, ground_truth=fo.Detections(detections=[good, *bad.values(), unclear])))
        found = build_prototypes(collect_references(dataset, "ground_truth"), "demo", progress=False)
        assert found.reference_ids == (good.id,)
        reasons = dict(found.skipped)
        assert reasons.keys() == {label.id for label in bad.values()}
        assert all(words in reasons[label.id] for words, label in bad.items())
        # A label that may be a crowd is none of the references, and nobody is left wondering why.
        assert f"The label {unclear.id} ('star') cannot be used: its attribute iscrowd is 'perhaps'" in caplog.text
        assert plain in caplog.text
        assert all(reason.startswith(f"'star' in {Path(plain).name}: ") for reason in reasons.values())
        drawn = sample_references(dataset, "ground_truth", 5)
        assert drawn.label_ids == {"star": [good.id]}
        assert dict(drawn.left_out) == reasons

    def test_labels_without_a_class_are_told_where_they_are_wanted(
        self, dataset: fo.Dataset, plain: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        good, nameless = boxed("star", 40, 30, 90, 80), fo.Detection(bounding_box=box_of(40, 30, 90, 80))
        blank = fo.Detection(label=" ", bounding_box=box_of(40, 30, 90, 80))
        dataset.add_sample(fo.Sample(plain, ground_truth=fo.Detections(detections=[good, nameless, blank])))
        assert len(collect_references(dataset, "ground_truth", classes=["star"])) == 1
        assert nameless.id not in caplog.text
        assert [reference.id for reference in collect_references(dataset, "ground_truth")] == [good.id]
        assert f"{plain}: The label {nameless.id} (None) cannot be used: it has no class" in caplog.text
        assert f"{plain}: The label {blank.id} (' ') cannot be used: it has no class" in caplog.text

    def test_masks_of_whole_images_need_no_box(self, dataset: fo.Dataset, plain: str, caplog: pytest.LogCaptureFixture) -> None:
        whole = np.zeros(SIZE[::-1], np.uint8)
        whole[30:80, 40:90] = 255
        label = fo.Detection(label="star", bounding_box=[0, 0, 0, 0], mask=whole)
        dataset.add_sample(fo.Sample(plain, ground_truth=fo.Detections(detections=[label])))
        (reference,) = collect_references(dataset, "ground_truth")
        assert (reference.box, reference.problem) == ((40, 30, 90, 80), "")
        assert "1 object has a mask and no box in the field 'ground_truth': the mask's own was used" in caplog.text
        assert sample_references(dataset, "ground_truth", 1).label_ids == {"star": [label.id]}

    def test_unreadable_image_is_skipped_by_id(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        Path(sample.filepath).unlink()
        prototypes = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert len(prototypes.reference_ids) == 2 * (len(trays) - 1)
        assert prototypes.skipped == tuple(
            (label.id, f"{label.label!r} in {Path(sample.filepath).name}: the file does not exist")
            for label in sample.ground_truth.detections
        )

    @pytest.mark.parametrize("orientation", [3, 6, 8])
    def test_exif_orientation(self, dataset: fo.Dataset, tmp_path: Path, orientation: int) -> None:
        """Labels are relative to the picture as it is seen; the file holds it turned."""
        upright = np.zeros((200, 160, 3), np.uint8)
        upright[40:90, 20:50] = 250
        turns = {3: 2, 6: 1, 8: 3}[orientation]  # quarter turns anticlockwise from seen to stored
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = str(tmp_path / "turned.png")
        Image.fromarray(np.rot90(upright, turns).copy()).save(path, exif=exif)
        label = fo.Detection(label="a", bounding_box=[20 / 160, 40 / 200, 30 / 160, 50 / 200])
        dataset.add_sample(fo.Sample(path, objects=fo.Detections(detections=[label])))
        (reference,) = collect_references(dataset, "objects")
        assert reference.box == pytest.approx((20, 40, 50, 90))
        x0, y0, x1, y1 = (round(value) for value in reference.box)
        seen = np.asarray(read_image(path))
        assert (seen[y0:y1, x0:x1] == 250).all()
        assert (seen == 250).all(-1).sum() == 50 * 30

    def test_nothing_chosen(self, trays: fo.Dataset) -> None:
        with pytest.raises(NoReferencesError) as caught:
            collect_references(trays, "ground_truth", tags=["none", "neither"])
        assert str(caught.value) == (
            f"No object in the field 'ground_truth' of dataset {trays.name!r} with the tag 'neither' or 'none' can serve as a "
            "reference: tag or select at least one labelled object of each class."
        )
        for options in ({"label_ids": []}, {"label_ids": ["0" * 24]}, {"label_ids": ["abc"]}, {"classes": ["gear"]}):
            with pytest.raises(NoReferencesError, match="tag or select"):
                collect_references(trays, "ground_truth", **options)

    def test_empty_view(self, trays: fo.Dataset) -> None:
        with pytest.raises(NoReferencesError, match=trays.name):
            collect_references(trays.limit(0), "ground_truth")

    def test_no_such_field(self, trays: fo.Dataset) -> None:
        trays.add_sample_field("lanes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
        with pytest.raises(DatasetError) as caught:
            collect_references(trays, "truth")
        assert str(caught.value) == (
            f"The field 'truth' of dataset {trays.name!r} does not exist, but objects are needed: choose one of "
            "'ground_truth', 'lanes'."
        )

    def test_field_of_another_type(self, trays: fo.Dataset) -> None:
        trays.add_sample_field("weather", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
        with pytest.raises(DatasetError, match=r"'weather' .* holds Classification.* choose one of 'ground_truth'\."):
            collect_references(trays, "weather")
        with pytest.raises(DatasetError, match=r"'filepath' .* holds no labels.* choose one of 'ground_truth'\."):
            collect_references(trays, "filepath")

    def test_no_field_of_objects_at_all(self, dataset: fo.Dataset, plain: str) -> None:
        dataset.add_sample(fo.Sample(plain))
        with pytest.raises(DatasetError, match="label some objects first"):
            collect_references(dataset, "ground_truth")

    def test_videos(self, dataset: fo.Dataset) -> None:
        dataset.add_sample(fo.Sample("clip.mp4"))
        with pytest.raises(DatasetError, match=f"{dataset.name!r} holds videos"):
            collect_references(dataset, "ground_truth")


def test_no_tag_is_not_every_object(trays: fo.Dataset) -> None:
    with pytest.raises(NoReferencesError, match="No tag is named"):
        collect_references(trays, "ground_truth", tags=[])


class TestTag:
    def test_count(self, trays: fo.Dataset) -> None:
        every = ids_of(trays)
        assert tag_references(trays, every[:3], "ground_truth") == 3
        assert tag_references(trays, [*every[2:4], "0" * 24], "ground_truth") == 2
        assert trays.count_label_tags(label_fields="ground_truth") == {"reference": 4}
        assert tag_references(trays, [], "ground_truth") == 0

    def test_other_fields_are_left_alone(self, trays: fo.Dataset) -> None:
        trays.clone_sample_field("ground_truth", "copies")
        tag_references(trays, ids_of(trays)[:2], "ground_truth", "mine")
        assert trays.count_label_tags(label_fields="ground_truth") == {"mine": 2}
        assert trays.count_label_tags(label_fields="copies") == {}

    def test_field_without_objects(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="objects are needed"):
            tag_references(trays, ids_of(trays), "filepath")


def test_image_size_of_the_trays(trays: fo.Dataset) -> None:
    assert {read_image(path).size for path in trays.values("filepath")} == {IMAGE_HW[::-1]}


class TestNegatives:
    def test_label_tags_alone_count(self, trays: fo.Dataset) -> None:
        every = ids_of(trays)
        trays[:1].tag_samples("negative")
        trays.select_labels(ids=[every[5], every[2]]).tag_labels("negative")
        assert [negative.id for negative in collect_negatives(trays, "ground_truth")] == [every[2], every[5]]
        assert collect_negatives(trays, "ground_truth", "other") == []

    def test_several_fields(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        crowd = boxed("crowd", 20, 20, 60, 60, iscrowd=True, tags=["negative"])
        nameless = fo.Detection(bounding_box=box_of(20, 20, 60, 60), tags=["negative"])
        sample["rejected"] = fo.Detections(detections=[boxed("star", 20, 30, 60, 60, tags=["negative"]), crowd, nameless])
        sample.save()
        trays.select_labels(ids=ids_of(trays)[-1:]).tag_labels("negative")
        names = [negative.label for negative in collect_negatives(trays, ["rejected", "ground_truth"])]
        assert names == ["star", trays.last().ground_truth.detections[-1].label]
        (boxy,) = collect_negatives(trays, "rejected")
        assert (boxy.box, boxy.mask) == (pytest.approx((20, 30, 60, 60)), None)

    def test_bad_fields(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"'nope' .* does not exist"):
            collect_negatives(trays, ["ground_truth", "nope"])


class TestTagged:
    def test_every_field_but_predictions_and_rejected_ones(self, trays: fo.Dataset) -> None:
        for number, name in enumerate(["predictions", "similar", "rejected", "accepted"]):
            trays.clone_sample_field("ground_truth", name)
            # Copies of a field keep their labels' ids.
            labels = trays.values(f"{name}.detections")
            trays.set_values(f"{name}.detections", [[label.copy() for label in own] for own in labels])
            if number < 2:
                method = "refseg/segment" if number == 0 else "refseg/similar"
                trays.register_run(f"run_{number}", trays.init_run(method=method, label_field=name))
        trays[:1].select_labels().tag_labels("reference")
        found = {reference.id for reference in tagged_references(trays)}
        assert found == set(ids_of(trays[:1]) + trays[:1].values("accepted.detections.id", unwind=True))
        others = {reference.id for reference in tagged_references(trays, rejected_field="accepted")}
        assert others == set(ids_of(trays[:1]) + trays[:1].values("rejected.detections.id", unwind=True))

    def test_tagged_samples(self, trays: fo.Dataset) -> None:
        trays[1:2].tag_samples("reference")
        assert [reference.id for reference in tagged_references(trays)] == ids_of(trays[1:2])

    def test_none(self, trays: fo.Dataset) -> None:
        with pytest.raises(NoReferencesError) as caught:
            tagged_references(trays, "mine")
        assert str(caught.value) == (
            f"No object of dataset {trays.name!r} carries the tag 'mine' (looked in 'ground_truth'): tag some of each class, "
            "or accept predictions as references."
        )

    def test_no_field_of_objects(self, dataset: fo.Dataset, plain: str) -> None:
        dataset.add_sample(fo.Sample(plain))
        with pytest.raises(NoReferencesError, match="carries the tag 'reference': tag some"):
            tagged_references(dataset)
