"""Segmenting a view: what is written, what is recorded, what is refused before anything is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

import refseg.candidates.proposing
import refseg.matching.matcher
import refseg.runs.writing
from refseg.dataset.references import collect_references
from refseg.dataset.store import dataset_folder, load_prototypes, save_prototypes
from refseg.errors import DatasetError, PrototypeMismatchError
from refseg.matching.similarity import Gallery, similarities
from refseg.models.loaded import load_models
from refseg.progress import Progress
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import Segmenter
from tests.dataset.building import build
from tests.tolerance import Score
from tests.trays import IMAGE_HW, PARTS, candidates_of, propose_truth, quick_models, tray_samples, whole_mask
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]
ODD_NAMES = ("star v1.0 $\u00df", "$tee.🦋")


def content_of(view: Any, field: str = "predictions", *, with_run: bool = True) -> list[Any]:
    """Everything a field of predictions holds but ids, by sample."""
    return [
        sample[field]
        and [
            (
                label.label,
                Score(label.confidence),
                label.predicted_iou,
                tuple(label.bounding_box),
                np.asarray(label.get_mask()).tobytes(),
                label.run if with_run else None,
            )
            for label in sample[field].detections
        ]
        for sample in view
    ]


def assert_well_formed(label: fo.Detection, image_hw: tuple[int, int]) -> None:
    """Boxes on whole pixels inside the image, and the tight boolean mask of just that size."""
    height, width = image_hw
    corners = np.array(label.bounding_box) * [width, height, width, height]
    np.testing.assert_allclose(corners, corners.round(), rtol=0, atol=1e-6)
    x, y, w, h = corners.round().astype(int)
    assert 0 <= x < x + w <= width
    assert 0 <= y < y + h <= height
    assert label.mask.dtype == bool
    assert label.mask.shape == (h, w)
    assert label.mask.any(0)[[0, -1]].all()
    assert label.mask.any(1)[[0, -1]].all()


class TestPredictions:
    def test_detections(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes)
        assert (report.num_images, report.num_instances, report.skipped) == (4, 8, ())
        assert report.label_field == "predictions"
        assert report.seconds > 0
        assert trays.get_field("predictions").document_type is fo.Detections
        for sample in trays:
            labels = sample.predictions.detections
            assert len(labels) == 2
            scores = [label.confidence for label in labels]
            assert scores == sorted(scores, reverse=True)
            for label in labels:
                assert_well_formed(label, IMAGE_HW)
                assert label.label in PARTS
                assert label.run == report.run_key
                assert label.predicted_iou == pytest.approx(0.9) or label.predicted_iou == pytest.approx(0.8)
            # Each predicted mask is one of the ground truth, up to the mask grid of 64 by 64.
            truth = [whole_mask(label) for label in sample.ground_truth.detections]
            predicted = [whole_mask(label) for label in labels]
            ious = [[(a & b).sum() / (a | b).sum() for b in truth] for a in predicted]
            assert sorted(int(np.argmax(row)) for row in ious) == [0, 1]
            assert np.max(ious, 1).min() > 0.7

    def test_attributes_can_be_queried(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes)
        schema = trays.get_field_schema(flat=True)
        assert "predictions.detections.run" in schema
        assert "predictions.detections.predicted_iou" in schema
        assert trays.count_values("predictions.detections.run") == {report.run_key: 8}

    def test_scores_are_the_cosine_of_feature_and_prototype(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        side = load_models("demo").segmenter_side
        sample = trays.last()
        pixels = refseg.candidates.proposing.segmenter_pixels(Image.open(sample.filepath).convert("RGB"), side)

        masks = np.array([whole_mask(label) for label in sample.ground_truth.detections])
        candidates = candidates_of(pixels, masks, IMAGE_HW, load_models("demo"))
        scores = (candidates.features @ prototypes.matrix.T).clamp(min=0)
        expected = sorted(scores.max(1).values.tolist(), reverse=True)
        assert [label.confidence for label in sample.predictions.detections] == pytest.approx(expected, abs=1e-5)

    def test_real_segmenter(self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a threshold on predicted IoU the segmenter answers at every prompt, whatever its weights."""
        dataset = make_dataset(tray_samples(tmp_path, 2))
        found = build_prototypes(collect_references(dataset, "ground_truth"), "demo", progress=False)
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1)
        report = run(dataset, found, model=quick_models(), max_detections=7)
        assert report.num_instances == sum(len(ids) for ids in dataset.values("predictions.detections.id"))
        assert 2 <= report.num_instances <= 14
        for sample in dataset:
            for label in sample.predictions.detections:
                assert_well_formed(label, IMAGE_HW)

    def test_min_confidence(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, "all")
        scores = sorted(trays.values("all.detections.confidence", unwind=True))
        limit = (scores[3] + scores[4]) / 2
        assert run(trays, prototypes, "some", min_confidence=limit).num_instances == 4
        assert sorted(trays.values("some.detections.confidence", unwind=True)) == list(map(Score, scores[4:]))
        assert run(trays, prototypes, "none", min_confidence=1.0).num_instances == 0
        # No prediction is an answer: the image was seen.
        assert [value.detections for value in trays.values("none")] == [[], [], [], []]

    def test_default_confidence_is_the_presets(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes, min_confidence=None)
        chosen = load_models("demo").preset.min_confidence
        assert trays.get_run_info(report.run_key).config.min_confidence == chosen
        assert all(score >= chosen for score in trays.values("predictions.detections.confidence", unwind=True))

    @pytest.mark.parametrize("part", PARTS)
    def test_min_confidence_of_a_class(self, trays: fo.Dataset, prototypes: Prototypes, part: str) -> None:
        """The other takes the preset's."""
        run(trays, prototypes, "all")
        default = load_models("demo").preset.min_confidence
        labels = trays.values("all.detections", unwind=True)
        scores = sorted(label.confidence for label in labels if label.label == part)
        least = (scores[1] + scores[2]) / 2
        report = run(trays, prototypes, "some", min_confidence={part: least})
        kept = [(label.label, Score(label.confidence)) for label in labels]
        expected = [(name, score) for name, score in kept if score >= (least if name == part else default)]
        assert len(expected) < len([score for name, score in kept if name != part or score >= scores[0]])
        found = trays.values("some.detections", unwind=True)
        assert sorted((label.label, label.confidence) for label in found) == sorted(expected)
        config = trays.get_run_info(report.run_key).config
        assert config.min_confidence is None
        assert config.min_confidences == [[name, least if name == part else default] for name in PARTS]

    @pytest.mark.parametrize("part", PARTS)
    def test_classes(self, trays: fo.Dataset, prototypes: Prototypes, part: str) -> None:
        run(trays, prototypes, "all")
        report = run(trays, prototypes, "some", classes=[part])
        for sample in trays:
            expected = [(Score(x.confidence), Score(x.margin), x.runner_up) for x in sample.all.detections if x.label == part]
            assert [(x.confidence, x.margin, x.runner_up) for x in sample.some.detections] == expected
        assert trays.count_values("some.detections.label") == {part: report.num_instances}
        config = trays.get_run_info(report.run_key).config
        assert (config.classes, config.min_confidence, config.min_confidences) == (list(PARTS), 0.0, [[part, 0.0]])

    def test_margins(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        for label in trays.values("predictions.detections", unwind=True):
            assert label.runner_up == PARTS[1 - PARTS.index(label.label)]
            assert 0 <= label.margin <= label.confidence + 1e-6
        schema = trays.get_field_schema(flat=True)
        assert "predictions.detections.margin" in schema
        assert "predictions.detections.runner_up" in schema

    def test_one_class_has_no_runner_up(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        stars = prototypes.remove([name for name in prototypes.reference_ids if "tee" in name], keep_classes=False)
        assert run(trays, stars).num_written == 4
        labels = trays.values("predictions.detections", unwind=True)
        assert {label.runner_up for label in labels} == {None}
        assert [label.margin for label in labels] == [label.confidence for label in labels]
        assert run(trays, stars).num_written == 0

    @pytest.mark.parametrize("index", [True, False])
    @pytest.mark.parametrize("name", [*PARTS, "shadow"])
    def test_negatives(self, trays: fo.Dataset, prototypes: Prototypes, name: str, index: bool) -> None:
        """One that looks like the star of the first reference image lowers what is like it, in the classes that it is for."""
        star = prototypes.reference_ids.index("star 0")
        negatives = Negatives(3 * prototypes.vectors[star : star + 1], (name,), ("n",), ("",))
        lowered = dataclasses.replace(prototypes, negatives=negatives)
        report = run(trays, lowered, index=index)
        assert trays.get_run_info(report.run_key).config.negative_ids == ["n"]
        models = load_models("demo")
        rows = torch.tensor([PARTS.index(name) if name in PARTS else -1])
        differs = False
        for sample in trays:
            pixels = refseg.candidates.proposing.segmenter_pixels(
                Image.open(sample.filepath).convert("RGB"), models.segmenter_side
            )
            masks = np.array([whole_mask(label) for label in sample.ground_truth.detections])
            features = candidates_of(pixels, masks, IMAGE_HW, models).features
            vector = torch.nn.functional.normalize(negatives.vectors, dim=1)
            expected = similarities(features, Gallery(prototypes.matrix, negatives=(vector, rows))).max(1).values
            differs |= bool((expected < (features @ prototypes.matrix.T).max(1).values - 0.01).any())
            found = [label.confidence for label in sample.predictions.detections]
            assert found == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-3)
        assert differs or name == "tee"

    def test_max_detections(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, "all")
        assert run(trays, prototypes, "best", max_detections=1).num_instances == 4
        for sample in trays:
            assert [x.confidence for x in sample.best.detections] == [Score(sample.all.detections[0].confidence)]

    def test_mask_dir(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run(trays, prototypes, "inside")
        monkeypatch.chdir(tmp_path)
        key = run(trays, prototypes, "outside", mask_dir="masks").run_key
        monkeypatch.chdir("/")
        assert trays.get_run_info(key).config.mask_dir == str(tmp_path / "masks"), "where an update writes them too"
        for sample in trays:
            for inside, outside in zip(sample.inside.detections, sample.outside.detections, strict=True):
                assert outside.mask is None
                assert Path(outside.mask_path).is_relative_to(tmp_path / "masks")
                np.testing.assert_array_equal(outside.get_mask() > 0, inside.mask)
        assert len(list((tmp_path / "masks").rglob("*.png"))) == 8

    def test_a_mask_dir_that_is_a_file(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        (tmp_path / "notes").write_text("kept")
        for place in ("notes", "notes/masks"):
            with pytest.raises(DatasetError, match=r"mask_dir must be a folder, but .*notes is a file: name another folder"):
                run(trays, prototypes, mask_dir=tmp_path / place)
        assert (trays.has_field("predictions"), trays.list_runs()) == (False, [])

    def test_a_mask_dir_may_be_a_path(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        report = run(trays[:1], prototypes, mask_dir=tmp_path / "masks")
        assert trays.get_run_info(report.run_key).config.mask_dir == str(tmp_path / "masks")

    def test_too_many_masks_for_a_document_go_to_files(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.labels.MASK_PIXELS_IN_DOCUMENT", 100)
        run(trays[:1], prototypes)
        for label in trays.first().predictions.detections:
            assert label.mask is None
            assert Path(label.mask_path).is_relative_to(dataset_folder(trays))

    def test_semantic_field(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, semantic_field="map")
        assert trays.mask_targets["map"] == {1: "star", 2: "tee"}
        for sample in trays:
            expected = np.zeros(IMAGE_HW, int)
            for label in reversed(sample.predictions.detections):
                expected[whole_mask(label)] = 1 + PARTS.index(label.label)
            np.testing.assert_array_equal(sample.map.get_mask(), expected)
            assert expected.any()

    def test_semantic_targets_of_other_fields_stay(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        trays.mask_targets = {"mine": {1: "ground"}}
        run(trays[:1], prototypes, semantic_field="map")
        assert fo.load_dataset(trays.name).mask_targets == {"mine": {1: "ground"}, "map": {1: "star", 2: "tee"}}

    def test_second_run_replaces_only_its_images(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        first = run(trays, prototypes)
        before = content_of(trays)
        second = run(trays[1:3], prototypes, max_detections=1)
        assert second.run_key != first.run_key
        after = content_of(trays)
        assert (after[0], after[3]) == (before[0], before[3])
        assert [len(labels) for labels in after] == [2, 1, 1, 2]
        assert {label[-1] for label in after[1] + after[2]} == {second.run_key}

    def test_prototypes_by_name(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        save_prototypes(trays, prototypes, "parts")
        by_name = run(trays, "parts")
        by_value = run(trays, prototypes, "direct", index=False)
        configs = [trays.get_run_info(report.run_key).config for report in (by_name, by_value)]
        assert [(config.prototypes_name, config.index) for config in configs] == [("parts", True), (None, False)]
        assert content_of(trays, with_run=False) == content_of(trays, "direct", with_run=False)
        with pytest.raises(DatasetError, match="keeps no prototypes named 'part'; it keeps 'parts'"):
            run(trays, "part")

    def test_a_worker_process_changes_nothing(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, "here", num_workers=0)
        run(trays, prototypes, "there", num_workers=1)
        assert content_of(trays, "here", with_run=False) == content_of(trays, "there", with_run=False)

    def test_images_of_a_grouped_dataset(self, dataset: fo.Dataset, trays: fo.Dataset, prototypes: Prototypes) -> None:
        dataset.add_group_field("group", default="left")
        paths = trays.values("filepath")
        for left, right in (paths[:2], paths[2:]):
            group = fo.Group()
            dataset.add_samples(
                [fo.Sample(left, group=group.element("left")), fo.Sample(right, group=group.element("right"))], progress=False
            )
        with pytest.raises(DatasetError, match=r"select_group_slices"):
            run(dataset, prototypes)
        assert not dataset.has_field("predictions")
        flat = dataset.select_group_slices(media_type="image")
        assert run(flat, prototypes).num_instances == 8
        run(trays, prototypes)
        by_path = dict(zip(paths, content_of(trays, with_run=False), strict=True))
        assert [by_path[path] for path in flat.values("filepath")] == content_of(flat, with_run=False)


class TestSegmenter:
    def test_apply_model_writes_the_same(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, index=False)
        model = Segmenter(prototypes, min_confidence=0.0)
        trays.apply_model(model, "applied", batch_size=3, num_workers=0, progress=False)
        assert content_of(trays, "applied", with_run=False) == content_of(trays, with_run=False)


class TestProvenance:
    def test_progress(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        steps: list[Any] = []
        run(trays, prototypes, progress=steps.append)
        assert [(step.done, step.total) for step in steps] == [(0, 4), (2, 4), (4, 4)]

    @pytest.mark.parametrize("indexed", [False, True])
    def test_progress_tells_what_others_see_already(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, indexed: bool
    ) -> None:
        if indexed:
            build(trays)
        monkeypatch.setattr(refseg.runs.writing, "SECONDS_FIRST", 0.0)
        told: list[tuple[int, int]] = []

        def watch(step: Progress) -> None:
            told.append((step.found, trays.count("predictions.detections")))

        run(trays, prototypes, progress=watch)
        assert told[0] == (0, 0)
        assert max(told)[0] >= 2
        assert all(found == seen for found, seen in told)

    def test_bad_image_is_skipped_recorded_reported(
        self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture
    ) -> None:
        run(trays, prototypes)
        before = content_of(trays)
        bad = trays.skip(1).first()
        Path(bad.filepath).write_bytes(b"no image")
        report = run(trays, prototypes, max_detections=1, semantic_field="map")
        (skipped,) = report.skipped
        assert (skipped.sample_id, skipped.filepath) == (bad.id, bad.filepath)
        assert skipped.reason == "this is not an image that can be read"
        assert report.num_images == 3
        assert f"skipped {bad.filepath}: {skipped.reason}" in str(report)
        assert bad.filepath in caplog.text
        config = trays.get_run_info(report.run_key).config
        assert config.state == "completed"
        assert config.skipped == [[bad.id, bad.filepath, skipped.reason]]
        after = content_of(trays)
        assert after[1] == before[1]
        assert [len(labels) for labels in after] == [1, 2, 1, 1]
        assert [value is None for value in trays.values("map")] == [False, True, False, False]

    def test_every_image_bad(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for path in trays.values("filepath"):
            Path(path).unlink()
        report = run(trays, prototypes)
        assert (report.num_images, report.num_instances, len(report.skipped)) == (0, 0, 4)
        assert trays.get_run_info(report.run_key).config.state == "completed"


class TestRefused:
    """Each by one sentence, and nothing of the dataset is changed."""

    @pytest.fixture(autouse=True)
    def nothing_changes(self, trays: fo.Dataset, prototypes: Prototypes) -> Any:
        schema, runs = trays.get_field_schema(flat=True).keys(), trays.list_runs()
        yield
        trays.reload()
        assert trays.get_field_schema(flat=True).keys() == schema
        assert trays.list_runs() == runs

    def test_run_key_taken(self, make_dataset: MakeDataset, prototypes: Prototypes, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 1))
        run(dataset, prototypes, run_key="r")
        with pytest.raises(DatasetError, match=f"{dataset.name!r} has a run named 'r' already: choose another run key"):
            run(dataset, prototypes, "others", run_key="r")
        assert not dataset.has_field("others")

    @pytest.mark.parametrize("key", ["my run", "1st", "a.b", "$"])
    def test_run_key_is_no_identifier(self, trays: fo.Dataset, prototypes: Prototypes, key: str) -> None:
        with pytest.raises(DatasetError, match="cannot name a run: use letters, digits and underscores, such as"):
            run(trays, prototypes, run_key=key)

    @pytest.mark.parametrize(("field", "held"), [("filepath", "StringField"), ("tags", "ListField")])
    def test_field_of_another_type(self, trays: fo.Dataset, prototypes: Prototypes, field: str, held: str) -> None:
        before = trays.values(field)
        with pytest.raises(DatasetError, match=f"The field {field!r} of dataset {trays.name!r} holds {held}, not Detections"):
            run(trays, prototypes, field)
        assert trays.values(field) == before

    @pytest.mark.parametrize("field", ["", "a.b", "_private", "$field"])
    def test_field_of_an_impossible_name(self, trays: fo.Dataset, prototypes: Prototypes, field: str) -> None:
        with pytest.raises(DatasetError, match="cannot name a field of dataset"):
            run(trays, prototypes, field)

    def test_semantic_field(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match=r"'ground_truth' .* holds Detections, not Segmentation"):
            run(trays, prototypes, semantic_field="ground_truth")
        with pytest.raises(DatasetError, match="needs a field of its own, not 'predictions' again"):
            run(trays, prototypes, semantic_field="predictions")

    def test_empty_view(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match=f"The view of dataset {trays.name!r} is empty"):
            run(trays.limit(0), prototypes)

    def test_videos(self, make_dataset: MakeDataset, prototypes: Prototypes) -> None:
        dataset = make_dataset([fo.Sample("clip.mp4")])
        assert dataset.media_type == "video"
        with pytest.raises(DatasetError, match=f"The dataset {dataset.name!r} holds videos"):
            run(dataset, prototypes)
        assert not dataset.has_field("predictions")

    @pytest.mark.parametrize("give", ["by value", "by name"])
    def test_prototypes_of_another_model(self, trays: fo.Dataset, prototypes: Prototypes, give: str) -> None:
        other = dataclasses.replace(prototypes, fingerprint="f" * 12)
        if give == "by name":
            save_prototypes(trays, other, "others")
        try:
            with pytest.raises(PrototypeMismatchError, match=r"f{12}.*build them again with the model that is to use them"):
                run(trays, "others" if give == "by name" else other)
        finally:
            if give == "by name":
                trays.delete_run("others")
        with pytest.raises(PrototypeMismatchError):
            Segmenter(other)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"classes": ["gear"]}, r"know no class 'gear': choose from 'star', 'tee', or build them again with references of"),
            ({"classes": []}, r"no class to write: name at least one, or leave the choice of classes out"),
            ({"min_confidence": {"star": 0.2, "gear": 0.5}}, r"know no class 'gear': choose from 'star', 'tee'"),
            ({"min_confidence": {"star": 1.2}}, r"min_confidence of the class 'star' must be a number from 0 to 1, not 1\.2"),
            ({"min_confidence": {"star": float("nan")}}, r"of the class 'star' must be a number from 0 to 1, not nan"),
        ],
    )
    def test_classes(self, trays: fo.Dataset, prototypes: Prototypes, options: dict[str, Any], words: str) -> None:
        with pytest.raises(DatasetError, match=words):
            run(trays, prototypes, **options)
        assert not trays.has_field("predictions")

    @pytest.mark.parametrize("limits", [{"min_confidence": -0.1}, {"min_confidence": 1.1}, {"max_detections": 0}])
    def test_limits(self, trays: fo.Dataset, prototypes: Prototypes, limits: dict[str, float]) -> None:
        with pytest.raises(DatasetError, match=f"must .*, not {next(iter(limits.values()))}"):
            run(trays, prototypes, **limits)


def test_field_of_another_label_type_is_not_overwritten(trays: fo.Dataset, prototypes: Prototypes) -> None:
    sample = trays.first()
    sample["weather"] = fo.Classification(label="sunny")
    sample.save()
    with pytest.raises(DatasetError, match=r"'weather' .* holds Classification, not Detections: choose another field"):
        run(trays, prototypes, "weather")
    assert trays.values("weather.label") == ["sunny", None, None, None]
    assert trays.list_runs() == []


def test_labels_with_dots_dollars_and_emoji_go_all_the_way(
    make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refseg.evaluation.evaluating import evaluate

    dataset = make_dataset(tray_samples(tmp_path, labels=ODD_NAMES))
    propose_truth(monkeypatch, dataset)
    prototypes = build_prototypes(collect_references(dataset, "ground_truth", classes=ODD_NAMES), "demo", progress=False)
    assert prototypes.classes == tuple(sorted(ODD_NAMES))
    save_prototypes(dataset, prototypes, "odd")
    assert load_prototypes(dataset, "odd").classes == prototypes.classes
    report = run(dataset, "odd", semantic_field="map")
    assert report.num_instances == 8
    config = fo.load_dataset(dataset.name).get_run_info(report.run_key).config
    assert config.classes == list(prototypes.classes)
    assert dataset.mask_targets["map"] == dict(enumerate(prototypes.classes, 1))
    assert set(dataset.distinct("predictions.detections.label")) <= set(ODD_NAMES)
    evaluated = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert set(evaluated.per_class) == set(ODD_NAMES)
    assert evaluated.num_predictions == evaluated.num_ground_truth == 8
