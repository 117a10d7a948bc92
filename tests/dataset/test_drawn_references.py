"""References drawn at random, and why a class got fewer than asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.drawn_references import sample_references
from refseg.dataset.references import collect_references
from refseg.errors import DatasetError
from tests.dataset.test_references import boxed, ids_of, square
from tests.trays import PARTS, tray_samples

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(make_dataset: MakeDataset, tmp_path: Path) -> fo.Dataset:
    return make_dataset(tray_samples(tmp_path))


class TestSample:
    def test_rule(self, dataset: fo.Dataset, plain: str) -> None:
        """One suitable object, and around it one that breaks each rule by a pixel."""
        good = boxed("a", 10, 10, 42, 42)
        bad = [
            boxed("a", 9, 10, 60, 60),
            boxed("a", 10, 9, 60, 60),
            boxed("a", 100, 50, 191, 100),
            boxed("a", 100, 50, 150, 151),
            boxed("a", 50, 50, 81, 90),
            boxed("a", 50, 50, 90, 81),
            boxed("a", 50, 50, 100, 100, iscrowd=True),
        ]
        for label in [*bad, good]:
            dataset.add_sample(fo.Sample(plain, objects=fo.Detections(detections=[label])))
        drawn = sample_references(dataset, "objects", 2)
        assert drawn.label_ids == {"a": [good.id]}
        assert drawn.short == {"a": 1}
        assert drawn.passed_over == {"a": {"border": 4, "small": 2, "crowd": 1}}
        assert drawn.describe_short() == (
            "'a' has 1 reference: 4 other objects are too near the edge of their image, 2 are too small, 1 is a crowd.",
        )
        assert len(sample_references(dataset, "objects", 9, min_side=31, border=9).label_ids["a"]) == 7

    def test_boxes_of_whole_pixels_pass_at_the_limit(self, dataset: fo.Dataset, tmp_path: Path) -> None:
        """Relative boxes come back from floating point a hair short: 32 pixels must still be 32."""
        path = tmp_path / "wide.png"
        Image.new("RGB", (641, 160)).save(path)
        labels = [
            fo.Detection(label=f"at {x}", bounding_box=[x / 641, 10 / 160, 32 / 641, 32 / 160]) for x in range(10, 599, 7)
        ]
        labels += [
            fo.Detection(label=f"up to the border from {x}", bounding_box=[x / 641, 10 / 160, (631 - x) / 641, 140 / 160])
            for x in range(11, 591, 7)
        ]
        dataset.add_sample(fo.Sample(str(path), objects=fo.Detections(detections=labels)))
        assert sample_references(dataset, "objects", 1).short == {}

    def test_one_object_of_a_class_from_an_image(self, dataset: fo.Dataset, plain: str) -> None:
        for _ in range(3):
            twins = [boxed(label, x, 20, x + 40, 60) for label in "ab" for x in (20, 80, 140)]
            dataset.add_sample(fo.Sample(plain, objects=fo.Detections(detections=twins)))
        drawn = sample_references(dataset, "objects", 3)
        assert drawn.short == {}
        assert drawn.passed_over == {name: {"same image": 6} for name in "ab"}
        for label, ids in drawn.label_ids.items():
            chosen = dataset.select_labels(ids=ids, fields="objects")
            assert chosen.values("objects.detections.label") == [[label]] * 3

    def test_seed(self, dataset: fo.Dataset, plain: str) -> None:
        labels = [boxed("a", 20, 20, 60, 60) for _ in range(12)]
        samples = [fo.Sample(plain, objects=fo.Detections(detections=[label])) for label in labels]
        dataset.add_samples(samples, progress=False)
        draws = {seed: sample_references(dataset, "objects", 4, seed=seed).label_ids for seed in (1, 2)}
        again = sample_references(dataset, "objects", 4, seed=1)
        assert again.label_ids == draws[1]
        places = {label.id: (sample.filepath, label.bounding_box) for sample in dataset for label in sample.objects.detections}
        assert again.places.keys() == {one for ids in again.label_ids.values() for one in ids}
        for one, (path, box) in again.places.items():
            assert path == places[one][0]
            np.testing.assert_allclose(box, places[one][1], rtol=0, atol=1e-9)
        assert draws[1] != draws[2]
        # Another order of the same samples is the same draw.
        assert sample_references(dataset.shuffle(seed=3), "objects", 4, seed=1).label_ids == draws[1]

    def test_tags_are_what_is_reported_and_collected(self, trays: fo.Dataset) -> None:
        drawn = sample_references(trays, "ground_truth", 2, seed=1, min_side=1, border=0)
        assert sorted(drawn.label_ids) == list(PARTS)
        assert drawn.short == {}
        collected = collect_references(trays, "ground_truth", tags="reference")
        for part in PARTS:
            assert {r.id for r in collected if r.label == part} == set(drawn.label_ids[part])

    def test_drawing_again_replaces(self, trays: fo.Dataset) -> None:
        for seed in range(4):
            drawn = sample_references(trays, "ground_truth", 1, seed=seed, min_side=1, border=0)
            tagged = trays.select_labels(tags="reference", fields="ground_truth").values(
                "ground_truth.detections.id", unwind=True
            )
            assert sorted(tagged) == sorted(label_id for ids in drawn.label_ids.values() for label_id in ids)

    def test_drawing_one_class_leaves_the_others_tags(self, trays: fo.Dataset) -> None:
        first = sample_references(trays, "ground_truth", 1, min_side=1, border=0)
        again = sample_references(trays, "ground_truth", 3, min_side=1, border=0, classes=["tee"])
        assert list(again.label_ids) == ["tee"]
        tagged = {r.id for r in collect_references(trays, "ground_truth", tags="reference")}
        assert tagged == {*first.label_ids["star"], *again.label_ids["tee"]}

    def test_own_tag(self, trays: fo.Dataset) -> None:
        sample_references(trays, "ground_truth", 1, min_side=1, border=0)
        sample_references(trays, "ground_truth", 2, tag="more", min_side=1, border=0)
        assert trays.count_label_tags(label_fields="ground_truth") == {"reference": 2, "more": 4}

    def test_short_classes(self, trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        sample = trays.first()
        sample.ground_truth.detections[0].label = "lonely"
        sample.save()
        with caplog.at_level(logging.WARNING, "refseg"):
            drawn = sample_references(trays, "ground_truth", 3, min_side=1, border=0, classes=["lonely", "none", "tee"])
        assert drawn.short["lonely"] == 1
        assert drawn.short["none"] == 0
        assert "none" not in drawn.label_ids
        assert len(drawn.label_ids["lonely"]) == 1
        assert "'lonely' has 1 suitable" in caplog.text

    def test_polygons(self, dataset: fo.Dataset, plain: str) -> None:
        good = [square("a", 20, 20, 70, 70), square("a", 30, 30, 80, 80)]
        bad = [square("a", 5, 20, 70, 70), square("a", 20, 20, 40, 70), fo.Polyline(label="a", points=[])]
        for polygon in [*good, *bad]:
            dataset.add_sample(fo.Sample(plain, lanes=fo.Polylines(polylines=[polygon])))
        drawn = sample_references(dataset, "lanes", 5)
        assert set(drawn.label_ids["a"]) == {polygon.id for polygon in good}
        assert dataset.count_label_tags(label_fields="lanes") == {"reference": 2}

    def test_single_detections(self, dataset: fo.Dataset, plain: str) -> None:
        parts = [boxed("a", 20, 20, 70, 70), boxed("b", 20, 20, 70, 70)]
        dataset.add_samples([fo.Sample(plain, part=part) for part in parts] + [fo.Sample(plain)], progress=False)
        for _ in range(2):
            assert sample_references(dataset, "part", 1).label_ids == {"a": [parts[0].id], "b": [parts[1].id]}
        assert dataset.count_label_tags(label_fields="part") == {"reference": 2}

    def test_unreadable_image_gives_no_reference(self, trays: fo.Dataset) -> None:
        Path(trays.first().filepath).unlink()
        drawn = sample_references(trays, "ground_truth", 4, min_side=1, border=0)
        assert drawn.short == dict.fromkeys(PARTS, len(trays) - 1)
        assert not set(ids_of(trays)[:2]) & {label_id for ids in drawn.label_ids.values() for label_id in ids}

    def test_upright_size_counts(self, dataset: fo.Dataset, tmp_path: Path) -> None:
        """A file of 200 by 160 turned by EXIF is 160 wide: 12 % of that is 19 pixels, of 200 it would be 24."""
        exif = Image.Exif()
        exif[0x0112] = 6
        path = str(tmp_path / "turned.jpg")
        Image.new("RGB", (200, 160)).save(path, exif=exif)
        label = fo.Detection(label="a", bounding_box=[0.3, 0.3, 0.12, 0.3])
        dataset.add_sample(fo.Sample(path, objects=fo.Detections(detections=[label])))
        assert sample_references(dataset, "objects", 1, min_side=20).short == {"a": 0}
        assert sample_references(dataset, "objects", 1, min_side=19).short == {}

    def test_no_shots(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="shots must be a whole number of at least 1, not 0"):
            sample_references(trays, "ground_truth", 0)

    def test_empty_view(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"is empty: choose at least one image"):
            sample_references(trays.limit(0), "ground_truth", 1)

    def test_field_without_objects(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="objects are needed"):
            sample_references(trays, "filepath", 1)
