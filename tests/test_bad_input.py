"""Everything that people's folders hold, through the whole library: references, prototypes, segment.

What is odd but readable is segmented as its plain twin; what cannot be read is skipped by name; a request that cannot be met is
refused by name. Refusals that concern fields, keys, videos and other models are in tests/runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.demo.world import Scene
from refseg.errors import ClassWithoutReferencesError, IndexDamagedError, RefSegError
from refseg.images.reading import read_image, segmenter_pixels
from refseg.models.loaded import load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import SegmentReport, segment
from tests.pipes import WatchedPipe
from tests.tolerance import Score
from tests.trays import (
    IMAGE_HW,
    PARTS,
    candidates_of,
    draw_trays,
    propose_truth,
    quick_models,
    tray_samples,
    whole_mask,
)

MakeDataset = Callable[..., fo.Dataset]
FLAT_SIZES = {"wide": (5000, 1), "high": (1, 5000)}


def save_turned(picture: Image.Image, path: Path) -> None:
    """Stored lying on its side, with the EXIF note that puts it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def save_16_bit(picture: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)


def save_alpha(picture: Image.Image, path: Path) -> None:
    with_alpha = picture.convert("RGBA")
    with_alpha.putalpha(0)  # dropped, not painted over
    with_alpha.save(path)


READABLE: dict[str, Callable[[Image.Image, Path], None]] = {
    "plain.png": lambda picture, path: picture.save(path),
    "sixteen_bit.png": save_16_bit,
    "palette.png": lambda picture, path: picture.quantize(64).save(path),
    "grey.png": lambda picture, path: picture.convert("L").save(path),
    "grey_alpha.png": lambda picture, path: picture.convert("LA").save(path),
    "cmyk.jpg": lambda picture, path: picture.convert("CMYK").save(path, quality=95),
    "alpha.png": save_alpha,
    "turned.jpg": save_turned,
}
UNREADABLE = {
    "missing.jpg": "the file does not exist",
    "empty.jpg": "this is not an image that can be read",
    "text.jpg": "this is not an image that can be read",
    "truncated.jpg": "the image cannot be read (image file is truncated",
    "pipe.jpg": "the file cannot be read (it is a pipe, not a file)",
    "device.jpg": "the file cannot be read (it is a device, not a file)",
}


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_trays(1)[0]


@pytest.fixture
def folder_of_everything(
    make_dataset: MakeDataset, tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> Iterator[fo.Dataset]:
    """One tray in every format with its ground truth, the same unreadable, blank and flat images between them."""
    picture = Image.fromarray(scene.image)
    samples = {}
    for name, save in READABLE.items():
        save(picture, tmp_path / name)
        objects = [
            fo.Detection.from_mask(mask, label=PARTS[family]) for mask, family in zip(scene.masks, scene.families, strict=True)
        ]
        samples[name] = fo.Sample(str(tmp_path / name), ground_truth=fo.Detections(detections=objects))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    picture.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "device.jpg").symlink_to("/dev/null")
    Image.new("RGB", (200, 160), (128, 128, 128)).save(tmp_path / "blank.png")
    for name, size in FLAT_SIZES.items():
        Image.new("RGB", size, (20, 40, 60)).save(tmp_path / f"{name}.png")
    others = [*UNREADABLE, "blank.png", *(f"{name}.png" for name in FLAT_SIZES)]
    samples.update({name: fo.Sample(str(tmp_path / name)) for name in others})
    # Good and bad take turns, so that batches mix them.
    dataset = make_dataset([samples[name] for name in sorted(samples)])
    with WatchedPipe(tmp_path / "pipe.jpg"):
        propose_truth(monkeypatch, dataset)
        yield dataset


def run(view: Any, prototypes: Prototypes, **options: Any) -> SegmentReport:
    return segment(view, prototypes, **{"min_confidence": 0.0, "num_workers": 0, "progress": False, **options})


def flat_samples(folder: Path) -> list[fo.Sample]:
    """Images of 5000 by 1 pixels and 1 by 5000 that show something, their first halves labelled as objects."""
    rng = np.random.default_rng(5)
    samples = []
    for name, (width, height) in FLAT_SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{name}.png")
        mask = np.zeros((height, width), bool)
        mask[: max(1, height // 2), : max(1, width // 2)] = True
        label = fo.Detection.from_mask(mask, label=name)
        samples.append(fo.Sample(str(folder / f"{name}.png"), ground_truth=fo.Detections(detections=[label])))
    return samples


def by_name(dataset: fo.Dataset) -> dict[str, fo.Sample]:
    return {Path(sample.filepath).name: sample for sample in dataset}


class TestOneDataset:
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_readable_images_are_segmented_and_others_named(
        self, folder_of_everything: fo.Dataset, prototypes: Prototypes, num_workers: int
    ) -> None:
        report = run(folder_of_everything, prototypes, num_workers=num_workers)
        samples = by_name(folder_of_everything)
        reasons = {Path(image.filepath).name: image.reason for image in report.skipped}
        assert reasons.keys() == UNREADABLE.keys()
        for name, reason in UNREADABLE.items():
            assert reasons[name].startswith(reason)
            assert samples[name].predictions is None
        assert {image.sample_id for image in report.skipped} == {samples[name].id for name in UNREADABLE}
        assert report.num_images == len(samples) - len(UNREADABLE)
        assert report.num_instances == 2 * len(READABLE)
        config = folder_of_everything.get_run_info(report.run_key).config
        assert (config.state, len(config.skipped)) == ("completed", len(UNREADABLE))
        for name in READABLE:
            truth = [whole_mask(label) for label in samples[name].ground_truth.detections]
            found = [whole_mask(label) for label in samples[name].predictions.detections]
            ious = [max((mask & other).sum() / (mask | other).sum() for other in found) for mask in truth]
            assert min(ious) > 0.7, name

    def test_images_without_candidate_have_no_predictions(
        self, folder_of_everything: fo.Dataset, prototypes: Prototypes
    ) -> None:
        run(folder_of_everything, prototypes, semantic_field="map")
        samples = by_name(folder_of_everything)
        for name, size in {"blank.png": (200, 160), "wide.png": (5000, 1), "high.png": (1, 5000)}.items():
            assert samples[name].predictions.detections == []
            assert samples[name].map.get_mask().shape == size[::-1]
            assert not samples[name].map.get_mask().any()

    @pytest.mark.parametrize("name", READABLE)
    def test_references_in_every_format(self, folder_of_everything: fo.Dataset, prototypes: Prototypes, name: str) -> None:
        """Their vectors are those of the same picture in another format, of grey ones without its colours."""
        view = folder_of_everything.match(fo.ViewField("filepath").ends_with(f"/{name}"))
        built = build_prototypes(collect_references(view, "ground_truth"), "demo", progress=False)
        assert (built.classes, built.skipped) == (PARTS, ())
        other = {"grey.png": "grey_alpha.png", "grey_alpha.png": "grey.png", "sixteen_bit.png": "grey.png"}.get(
            name, "plain.png"
        )
        same = folder_of_everything.match(fo.ViewField("filepath").ends_with(f"/{other}"))
        expected = build_prototypes(collect_references(same, "ground_truth"), "demo", progress=False)
        assert (built.matrix * expected.matrix).sum(1).min() > 0.95


def no_proposing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that computes candidates fail."""

    def propose_from_pixels(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("candidates were computed")

    monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", propose_from_pixels)


class TestIndexOfOneDataset:
    def test_second_run_is_answered_from_the_index_and_names_the_same_images(
        self, folder_of_everything: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(folder_of_everything, prototypes, label_field="first")
        no_proposing(monkeypatch)
        second = run(folder_of_everything, prototypes, label_field="second")
        assert (first.num_from_index, second.num_from_index) == (0, second.num_images)
        assert second.num_images == first.num_images
        assert second.skipped == first.skipped
        for name, sample in by_name(folder_of_everything).items():
            if name in UNREADABLE:
                assert sample.second is None
                continue
            assert len(sample.second.detections) == len(sample.first.detections)
            for own, other in zip(sample.second.detections, sample.first.detections, strict=True):
                assert (own.label, Score(own.confidence), own.bounding_box) == (
                    other.label,
                    other.confidence,
                    other.bounding_box,
                )
                np.testing.assert_array_equal(own.mask, other.mask)

    def test_index_holds_what_can_be_read_and_names_the_rest(self, folder_of_everything: fo.Dataset) -> None:
        report = build_index(folder_of_everything, "demo", num_workers=0, progress=False)
        reasons = {Path(image.filepath).name: image.reason for image in report.skipped}
        assert reasons.keys() == UNREADABLE.keys()
        assert all(reasons[name].startswith(reason) for name, reason in UNREADABLE.items())
        assert all(f"skipped {image.filepath}: {image.reason}" in str(report) for image in report.skipped)
        readable = len(folder_of_everything) - len(UNREADABLE)
        assert (report.num_images, report.num_added) == (readable, readable)
        images = open_index(folder_of_everything).index.images
        samples = by_name(folder_of_everything)
        assert images.keys() == {sample.id for name, sample in samples.items() if name not in UNREADABLE}
        for name, (width, height) in [("blank.png", (200, 160)), *((f"{name}.png", size) for name, size in FLAT_SIZES.items())]:
            image = images[samples[name].id]
            assert (image.image_hw, image.num_candidates) == ((height, width), 0)

    def test_damaged_index_is_named_and_can_be_replaced(self, folder_of_everything: fo.Dataset, prototypes: Prototypes) -> None:
        run(folder_of_everything, prototypes)
        before = by_name(folder_of_everything)["plain.png"].predictions
        index = open_index(folder_of_everything)
        for path in Path(index.uri, "candidates.lance").rglob("*.lance"):
            path.write_bytes(b"")
        with pytest.raises(IndexDamagedError, match=f"index at {index.uri} cannot be read .*: delete it and build it again"):
            run(folder_of_everything, prototypes)
        assert by_name(folder_of_everything)["plain.png"].predictions == before
        index.delete()
        report = run(folder_of_everything, prototypes)
        assert (report.num_from_index, len(report.skipped)) == (0, len(UNREADABLE))


def test_objects_in_flat_images(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a line of pixels is found as just that half, its box on whole pixels."""
    dataset = make_dataset(flat_samples(tmp_path))
    propose_truth(monkeypatch, dataset)
    models = load_models("demo")
    vectors = []
    for sample, (width, height) in zip(dataset, FLAT_SIZES.values(), strict=True):
        masks = whole_mask(sample.ground_truth.detections[0], (height, width))[None]
        pixels = segmenter_pixels(read_image(sample.filepath), models.segmenter_side)
        vectors.append(candidates_of(pixels, masks, (height, width), models).features)
    names = tuple(FLAT_SIZES)
    found = Prototypes(names, torch.cat(vectors), torch.arange(2), names, "demo", models.fingerprint)
    assert run(dataset, found).num_instances == 2
    for sample, (width, height) in zip(dataset, FLAT_SIZES.values(), strict=True):
        (label,) = sample.predictions.detections
        corners = np.array(label.bounding_box) * [width, height, width, height]
        np.testing.assert_allclose(corners, corners.round(), rtol=0, atol=1e-6)
        assert label.mask.shape == (round(corners[3]), round(corners[2]))
        assert max(label.mask.shape) == pytest.approx(2500, abs=60)
        assert corners[:2].tolist() == [0, 0]


class TestRealSegmenter:
    """The same shapes with the network itself, which answers at every prompt or at none as the threshold tells it."""

    def test_flat_images(
        self, make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1)
        dataset = make_dataset(flat_samples(tmp_path))
        report = run(dataset, prototypes, model=quick_models())
        assert (report.num_images, report.skipped) == (2, ())
        assert all(value is not None for value in dataset.values("predictions"))

    def test_no_candidate(
        self, make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 2)
        dataset = make_dataset(tray_samples(tmp_path, 1))
        report = run(dataset, prototypes, model=quick_models())
        assert (report.num_images, report.num_instances, report.skipped) == (1, 0, ())
        assert dataset.first().predictions.detections == []


class TestReferences:
    def change(self, dataset: fo.Dataset, number: int, part: str, **attributes: Any) -> str:
        """Change the object of this part in this sample; its id."""
        sample = dataset[number : number + 1].first()
        (label,) = [label for label in sample.ground_truth.detections if label.label == part]
        for name, value in attributes.items():
            label[name] = value
        sample.save()
        return str(label.id)

    def test_empty_mask_is_skipped_and_the_rest_used(self, trays: fo.Dataset) -> None:
        bad = self.change(trays, 0, "star", mask=np.zeros((20, 20), bool))
        found = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert found.skipped == ((bad, f"'star' in {Path(trays.first().filepath).name}: its mask is empty"),)
        assert found.shots == {"star": 3, "tee": 4}
        report = run(trays, found)
        assert report.num_images == 4
        assert bad not in trays.get_run_info(report.run_key).config.reference_ids

    @pytest.mark.parametrize("shape", [(0, 0), (0, 5)])
    def test_mask_without_pixels(self, trays: fo.Dataset, shape: tuple[int, int]) -> None:
        bad = self.change(trays, 0, "star", mask=np.zeros(shape, bool))
        found = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert [label_id for label_id, _ in found.skipped] == [bad]

    @pytest.mark.parametrize(
        ("box", "reason"),
        [
            ([0.2, 0.2, 0, 0], "its box is empty or lies outside the image"),
            ([1.2, 0.2, 0.3, 0.3], "its box is empty or lies outside the image"),
            ([-0.5, 0.2, 0.4, 0.4], "its box is empty or lies outside the image"),
            ([0.2, 0.2, 0.0005, 0.3], "its box is smaller than a pixel"),
        ],
    )
    def test_boxes_that_hold_nothing(self, trays: fo.Dataset, box: list[float], reason: str) -> None:
        bad = self.change(trays, 0, "star", bounding_box=box)
        found = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        ((skipped, told),) = found.skipped
        assert skipped == bad
        assert told.endswith(reason)

    def test_box_that_leaves_the_image_is_used(self, trays: fo.Dataset) -> None:
        self.change(trays, 0, "star", bounding_box=[-0.1, 0.3, 0.5, 0.5])
        found = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert found.skipped == ()

    def test_class_without_references_is_named(self, trays: fo.Dataset) -> None:
        bad = [self.change(trays, number, "tee", mask=np.zeros((20, 20), bool)) for number in range(4)]
        with pytest.raises(ClassWithoutReferencesError) as caught:
            build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert caught.value.label == "tee"
        message = str(caught.value)
        assert message.startswith("The class 'tee' has no usable reference: ")
        names = [Path(path).name for path in trays.values("filepath")]
        assert all(f"'tee' in {name}: its mask is empty ({one})" in message for name, one in zip(names, bad, strict=True))
        # Left out, as the message says, the others go on.
        found = build_prototypes(collect_references(trays, "ground_truth", classes=["star"]), "demo", progress=False)
        run(trays, found)
        assert set(trays.distinct("predictions.detections.label")) == {"star"}

    def test_unequal_shots(self, trays: fo.Dataset) -> None:
        ids = dict.fromkeys(PARTS, ())
        for part in PARTS:
            view = trays.filter_labels("ground_truth", fo.ViewField("label") == part)
            ids[part] = tuple(view.values("ground_truth.detections.id", unwind=True))
        chosen = [*ids["star"][:3], ids["tee"][0]]
        found = build_prototypes(collect_references(trays, "ground_truth", label_ids=chosen), "demo", progress=False)
        assert found.shots == {"star": 3, "tee": 1}
        report = run(trays, found)
        assert report.num_instances == 8
        assert sorted(trays.get_run_info(report.run_key).config.reference_ids) == sorted(chosen)

    def test_unreadable_reference_images(self, trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        first, second = trays[:2]
        Path(first.filepath).unlink()
        content = Path(second.filepath).read_bytes()
        Path(second.filepath).write_bytes(content[: len(content) // 2])
        with caplog.at_level(logging.WARNING, "refseg"):
            found = build_prototypes(collect_references(trays, "ground_truth"), "demo", progress=False)
        assert first.filepath in caplog.text
        reasons = dict(found.skipped)
        for sample, words in ((first, "the file does not exist"), (second, "the image cannot be read")):
            for label in sample.ground_truth.detections:
                assert reasons[label.id].startswith(f"{label.label!r} in {Path(sample.filepath).name}: {words}")
        assert found.shots == {"star": 2, "tee": 2}


def test_every_refusal_is_the_librarys_own() -> None:
    """One root to catch; the command line prints it as one line."""
    import refseg.errors

    errors = [value for value in vars(refseg.errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 10
    assert all(issubclass(error, RefSegError) for error in errors)


def test_trays_are_what_the_tests_above_take_them_for(scene: Scene) -> None:
    assert scene.image.shape == (*IMAGE_HW, 3)
    assert len(scene.masks) == 2
