"""Inspected references: what is shown of each, in which order, what is left out; the sheet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import refseg
from refseg.candidates.crops import crop_corners
from refseg.dataset.references import collect_references
from refseg.errors import DatasetError, PrototypeMismatchError
from refseg.images.drawing import COLORS, INK, PAPER
from refseg.progress import Progress, drain
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.inspection import PICTURE_SIDE, WARNING, InspectedReference, inspection_sheet, iter_inspect_references

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(five_trays: fo.Dataset) -> fo.Dataset:
    return five_trays


def prototypes_of(dataset: fo.Dataset, negatives: tuple[str, ...] = ()) -> Prototypes:
    """All objects but the last tray's as references, those as negatives called by these names."""
    references = collect_references(dataset[:4], "ground_truth")
    others = []
    if negatives:
        for label, name in zip(dataset.last().ground_truth.detections, negatives, strict=False):
            (other,) = collect_references(dataset, "ground_truth", label_ids=[label.id])
            others.append(type(other)(other.id, name, other.image, other.box, other.mask))
    return build_prototypes(references, "demo", negatives=others, progress=False)


@pytest.fixture
def prototypes(trays: fo.Dataset) -> Prototypes:
    return prototypes_of(trays)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


class TestInspectReferences:
    def test_every_reference_class_by_class(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        found = refseg.inspect_references(trays, prototypes, progress=False)
        assert [item.label for item in found] == ["star"] * 4 + ["tee"] * 4
        assert {item.id for item in found} == set(prototypes.reference_ids)
        for item in found:
            assert item.crop.size == item.pca.size == item.parts.size
            assert max(item.crop.size) == PICTURE_SIDE
            assert not item.is_negative
            assert item.quality is not None
            assert item.quality.id == item.id
        quality = {item.id: item for item in refseg.reference_quality(prototypes)}
        assert all(item.quality == quality[item.id] for item in found)

    def test_least_like_their_class_first_and_problems_before_them(self, trays: fo.Dataset) -> None:
        label = trays.first().ground_truth.detections[0]
        wrong = "tee" if label.label == "star" else "star"
        sample = trays.first()
        sample.ground_truth.detections[0].label = wrong
        sample.save()
        found = refseg.inspect_references(trays, prototypes_of(trays), classes=[wrong], progress=False)
        assert found[0].id == label.id
        assert "more like" in (found[0].quality.problem or "")
        rest = [item.quality.similarity for item in found if item.quality.problem is None]
        assert rest == sorted(rest)

    def test_crop_is_what_the_encoder_was_shown(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        item = refseg.inspect_references(trays, prototypes, progress=False)[0]
        (reference,) = collect_references(trays, "ground_truth", label_ids=[item.id])
        image = Image.open(reference.image).convert("RGB")
        crop = image.crop(crop_corners(reference.box, (image.height, image.width)))
        assert np.abs(pixels(item.crop) - pixels(crop.resize(item.crop.size, Image.Resampling.BICUBIC))).max() == 0

    def test_object_is_coloured_and_its_surroundings_are_not(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for item in refseg.inspect_references(trays, prototypes, num_parts=3, progress=False):
            crop, parts = pixels(item.crop), pixels(item.parts)
            tints = [np.abs(parts - (0.35 * crop + 0.65 * np.array(color))).max(-1) <= 1 for color in COLORS[:3]]
            paper = np.abs(parts - (0.35 * crop + 0.65 * np.array(PAPER))).max(-1) <= 1
            inside = np.any(tints, axis=0)
            assert (inside | paper).all()
            assert 0.1 < inside.mean() < 0.7
            # Only patches at the object's border lie between the two.
            light = pixels(item.pca).max(-1)
            assert np.quantile(light[paper], 0.7) <= 0.12 * 255 + 0.88 * max(INK) + 1
            assert np.quantile(light[inside], 0.3) >= 0.25 * 255 - 1

    def test_one_part_is_one_colour(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        item = refseg.inspect_references(trays, prototypes, num_parts=1, progress=False)[0]
        crop, parts = pixels(item.crop), pixels(item.parts)
        tint = np.abs(parts - (0.35 * crop + 0.65 * np.array(COLORS[0]))).max(-1) <= 1
        paper = np.abs(parts - (0.35 * crop + 0.65 * np.array(PAPER))).max(-1) <= 1
        assert (tint | paper).all()

    def test_same_pictures_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        first, second = (refseg.inspect_references(trays, prototypes, progress=False) for _ in range(2))
        assert all((pixels(a.parts) == pixels(b.parts)).all() for a, b in zip(first, second, strict=True))
        assert all((pixels(a.pca) == pixels(b.pca)).all() for a, b in zip(first, second, strict=True))

    def test_by_name_and_of_some_classes(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        refseg.save_prototypes(trays, prototypes, "kept")
        found = refseg.inspect_references(trays, "kept", classes=["tee", "tee"], progress=False)
        assert [item.label for item in found] == ["tee"] * 4

    def test_boxes_and_labels_of_several_fields(self, trays: fo.Dataset) -> None:
        for sample in trays.iter_samples(autosave=True):
            star, tee = sorted(sample.ground_truth.detections, key=lambda label: label.label)
            sample["boxes"] = fo.Detections(detections=[fo.Detection(label="tee", bounding_box=tee.bounding_box)])
            sample.ground_truth.detections = [star]
        references = [*collect_references(trays, "ground_truth"), *collect_references(trays, "boxes")]
        prototypes = build_prototypes(references, "demo", progress=False)
        found = refseg.inspect_references(trays, prototypes, progress=False)
        assert {item.id for item in found} == set(prototypes.reference_ids)
        assert {item.label for item in found} == {"star", "tee"}

    def test_negatives_come_last(self, trays: fo.Dataset) -> None:
        prototypes = prototypes_of(trays, ("tee", "shadow"))
        found = refseg.inspect_references(trays, prototypes, progress=False)
        assert [(item.label, item.is_negative) for item in found[8:]] == [("tee", True), ("shadow", True)]
        assert [item.quality for item in found[8:]] == [None, None]
        # One named like another class does not count for stars; one named like none counts for all.
        of_stars = refseg.inspect_references(trays, prototypes, classes=["star"], progress=False)
        assert [item.label for item in of_stars if item.is_negative] == ["shadow"]

    def test_at_most_so_many_of_a_class(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = drain(iter_inspect_references(trays, prototypes, max_references=3), False)
        assert (len(report.references), report.num_left_out, report.skipped) == (6, 2, ())
        every = refseg.inspect_references(trays, prototypes, classes=["star"], progress=False)
        assert [item.id for item in report.references[:3]] == [item.id for item in every[:3]]

    def test_steps(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        steps: list[Progress] = []
        refseg.inspect_references(trays, prototypes, progress=steps.append)
        assert steps == [Progress(number, 8, "references") for number in range(9)]


class TestGone:
    def test_deleted_label(self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture) -> None:
        sample = trays.first()
        gone, label = sample.ground_truth.detections[0].id, sample.ground_truth.detections[0].label
        trays.delete_labels(ids=[gone])
        report = drain(iter_inspect_references(trays, prototypes), False)
        words = f"{label!r} in {Path(sample.filepath).name}: its label is not in the dataset any more"
        assert report.skipped == ((gone, words),)
        assert len(report.references) == 7
        with caplog.at_level(logging.WARNING, "refseg.runs.inspection"):
            assert len(refseg.inspect_references(trays, prototypes, progress=False)) == 7
        assert gone in caplog.text

    def test_deleted_image(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        Path(trays.first().filepath).unlink()
        report = drain(iter_inspect_references(trays, prototypes), False)
        name = Path(trays.first().filepath).name
        expected = {f"{part!r} in {name}: the file does not exist" for part in ("star", "tee")}
        assert {reason for _, reason in report.skipped} == expected
        assert {name for name, _ in report.skipped} == {label.id for label in trays.first().ground_truth.detections}

    def test_mask_emptied_since(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        sample = trays.first()
        label = sample.ground_truth.detections[0]
        label.mask = np.zeros_like(label.mask)
        sample.save()
        report = drain(iter_inspect_references(trays, prototypes), False)
        what = f"{label.label!r} in {Path(sample.filepath).name}"
        assert report.skipped == ((label.id, f"{what}: its mask covers no patch any more"),)

    def test_all_labels_and_ids_of_no_label(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        trays.clear_sample_field("ground_truth")
        assert refseg.inspect_references(trays, prototypes, progress=False) == []
        assert len(drain(iter_inspect_references(trays, prototypes), False).skipped) == 8


class TestRefusals:
    def test_unknown_class_lists_the_known(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match=r"no class 'gear': choose one of 'star', 'tee'"):
            refseg.inspect_references(trays, prototypes, classes=["star", "gear"])

    def test_unknown_prototypes(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="keeps no prototypes named 'other'"):
            refseg.inspect_references(trays, "other")

    @pytest.mark.parametrize("numbers", [{"num_parts": 0}, {"max_references": 0}])
    def test_numbers_below_one(self, trays: fo.Dataset, prototypes: Prototypes, numbers: dict[str, int]) -> None:
        with pytest.raises(DatasetError, match="must be a whole number of at least 1, not 0"):
            refseg.inspect_references(trays, prototypes, **numbers)

    def test_another_encoder(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        other = Prototypes(prototypes.classes, prototypes.vectors, prototypes.labels, prototypes.reference_ids, "demo", "x")
        with pytest.raises(PrototypeMismatchError):
            refseg.inspect_references(trays, other)


class TestSheet:
    def test_a_row_for_each_and_a_heading_for_each_class(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        found = refseg.inspect_references(trays, prototypes, progress=False)
        one, two, other = (inspection_sheet(part).height for part in (found[:1], found[:2], [found[0], found[4]]))
        row, heading = two - one, other - two
        assert row >= 144
        assert 20 < heading < 60
        page = inspection_sheet(found)
        assert page.height == one + 7 * row + heading
        # The three pictures of the first row are those of the reference.
        for place, picture in enumerate((found[0].crop, found[0].pca, found[0].parts)):
            left = 8 + place * 152
            top = one - row
            cell = page.crop((left, top, left + 144, top + 144))
            expected = Image.new("RGB", (144, 144), PAPER)
            scale = 144 / max(picture.size)
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
            expected.paste(small, ((144 - small.width) // 2, (144 - small.height) // 2))
            assert np.abs(pixels(cell) - pixels(expected)).mean() < 1

    def test_problems_are_in_red(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        item = refseg.inspect_references(trays, prototypes, progress=False)[0]
        plain = Image.new("RGB", (10, 10))
        quality = item.quality
        assert quality is not None
        for problem, is_red in ((None, False), ("more like 'tee'", True)):
            judged = type(quality)(quality.id, quality.label, 0.5, "tee", 0.4, problem)
            page = inspection_sheet([InspectedReference("a", "star", plain, plain, plain, judged)])
            assert bool((pixels(page) == WARNING).all(-1).any()) is is_red

    def test_without_quality_or_references(self, trays: fo.Dataset) -> None:
        plain = Image.new("RGB", (10, 10))
        page = inspection_sheet([InspectedReference("a", "star", plain, plain, plain, None, True)])
        assert (pixels(page) != PAPER).any()
        assert (pixels(inspection_sheet([])) != PAPER).any()
