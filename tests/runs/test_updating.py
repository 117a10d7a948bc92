"""Review, update, review again: what is learned from tags, which settings carry over, and what is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset.fields import PastRun, newest_run
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.dataset.run_records import update_run
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.store import list_prototypes, load_prototypes, save_prototypes
from refseg.errors import BadReferenceError, ClassWithoutReferencesError, DatasetError, NoReferencesError
from refseg.images.pixels import PLAIN, PixelSettings
from refseg.progress import Progress, drain
from refseg.prototypes.building import build_prototypes
from refseg.review.decisions import accept, reject
from refseg.review.queue import review_queue
from refseg.runs.segmenting import SegmentReport, segment
from refseg.runs.update_report import UpdateReport
from refseg.runs.updating import Learnt, TagSettings, iter_learn, settings_of, update
from tests.kept import KeptDataset, kept_trays

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Four trays whose candidates are the ground truth; the objects of the first are references."""

    def prepare(dataset: fo.Dataset) -> None:
        dataset[:1].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")

    with kept_trays(tmp_path_factory.mktemp("trays"), prepare=prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


def begin(dataset: fo.Dataset, view: Any = None, name: str | None = "parts", **options: Any) -> SegmentReport:
    """The first run, with prototypes of the references tagged now."""
    prototypes = build_prototypes(collect_references(dataset, "ground_truth", tags="reference"), "demo", progress=False)
    if name is not None:
        save_prototypes(dataset, prototypes, name)
    options = {"min_confidence": 0.0, "num_workers": 0, "progress": False, **options}
    return segment(dataset if view is None else view, name or prototypes, **options)


def again(view: Any, **options: Any) -> UpdateReport:
    return update(view, num_workers=0, progress=False, **options)


def labels_of(dataset: fo.Dataset, field: str = "predictions") -> list[list[str]]:
    dataset.reload()
    return dataset.values(f"{field}.detections.label")


def ids_tagged(dataset: fo.Dataset, tag: str) -> set[str]:
    return {label["label_id"] for label in dataset._get_selected_labels(tags=tag)}


def test_the_whole_loop(trays: fo.Dataset) -> None:
    begin(trays)
    queue = review_queue(trays)
    right, wrong = [item for item in queue if item.label == "star"][:2]
    accepted = accept(trays, [right.label_id], as_references=True, sample_ids=[right.sample_id])
    rejected = reject(trays, [wrong.label_id])
    report = again(trays)
    assert report.prototypes_name == "parts"
    assert report.classes == ("star", "tee")
    assert (report.references_added, report.references_removed) == (accepted.accepted_ids, ())
    assert (report.negatives_added, report.negatives_removed) == (rejected.rejected_ids, ())
    assert (report.classes_added, report.classes_dropped, report.skipped) == ((), (), ())
    # Two of the four vectors were known.
    assert report.num_reused == 2
    assert (report.segmentation.num_images, report.segmentation.num_from_index) == (4, 4)
    kept = load_prototypes(trays, "parts")
    assert set(kept.reference_ids) == ids_tagged(trays, "reference")
    assert kept.negatives is not None
    assert kept.negatives.ids == rejected.rejected_ids
    run = newest_run(trays, "predictions")
    assert run is not None
    assert run.config["prototypes_name"] == "parts"
    text = str(report)
    assert text.startswith("Prototypes 'parts': references +1 −0, negatives +1 −0\n")
    assert str(report.segmentation) in text

    # Nothing new: everything is known, nothing is written.
    third = again(trays)
    assert (third.references_added, third.negatives_added, third.num_reused) == ((), (), 4)
    assert (third.segmentation.num_written, third.segmentation.changes.num_samples) == (0, 0)

    # Tags taken off: they are forgotten.
    trays.untag_labels("negative")
    trays.select_labels(ids=list(accepted.accepted_ids)).untag_labels("reference")
    fourth = again(trays)
    assert (fourth.references_removed, fourth.negatives_removed) == (accepted.accepted_ids, rejected.rejected_ids)
    assert load_prototypes(trays, "parts").negatives is None


def test_a_negative_changes_predictions(trays: fo.Dataset) -> None:
    """What was just above the threshold of its class falls below it, and the report says so."""
    begin(trays)
    weakest = min(review_queue(trays[1:], order="score"), key=lambda item: item.score)
    segment(trays, "parts", min_confidence=weakest.score - 1e-4, num_workers=0, progress=False)
    before = trays.count("predictions.detections")
    reject(trays, [weakest.label_id])
    report = again(trays)
    changes = report.segmentation.changes
    assert changes.lost[weakest.label] >= 1
    assert weakest.sample_id in changes.sample_ids
    assert changes.gained == {}
    assert trays.count("predictions.detections") == before - changes.num_lost


def test_settings_carry_over(trays: fo.Dataset, tmp_path: Path) -> None:
    options = {"max_detections": 1, "semantic_field": "map", "mask_dir": str(tmp_path / "masks"), "classes": ["star"]}
    begin(trays, min_confidence={"star": 0.25}, index=False, **options)
    again(trays, calibrates=False)
    run = newest_run(trays, "predictions")
    assert run is not None
    assert run.config["min_confidences"] == [["star", 0.25]]
    for name in ("max_detections", "semantic_field", "mask_dir"):
        assert run.config[name] == options[name]
    assert run.config["index"] is False
    assert {label for own in labels_of(trays) for label in own} == {"star"}
    assert Path(trays.values("predictions.detections.mask_path", unwind=True)[0]).is_file()


def test_a_new_class_and_a_lost_one(trays: fo.Dataset) -> None:
    begin(trays, min_confidence={"star": 0.1, "tee": 0.2})
    sample = trays.first()
    for label in sample.ground_truth.detections:
        if label.label == "tee":
            label.label = "gear"
    sample.save()
    report = again(trays, calibrates=False)
    assert (report.classes, report.classes_added, report.classes_dropped) == (("gear", "star"), ("gear",), ("tee",))
    run = newest_run(trays, "predictions")
    assert run is not None
    thresholds = dict(run.config["min_confidences"])
    assert thresholds["star"] == 0.1
    assert thresholds["gear"] > 0.2  # the preset's own
    assert "new classes: gear\nwithout references now, so no longer looked for: tee" in str(report)
    assert "tee" not in {label for own in labels_of(trays) for label in own}


def test_least_scores_on_another_scale_are_dropped_and_told(trays: fo.Dataset) -> None:
    """Similarities become probabilities once prototypes are calibrated; 0 stays 0 on either scale."""
    begin(trays, min_confidence={"star": 0.85, "tee": 0.0})
    report = again(trays)
    assert report.dropped_confidences == {"star": 0.85}
    assert "least scores of the last run that count no more, because scores mean something else now: star 0.85" in str(report)
    run = newest_run(trays, "predictions")
    assert run is not None
    assert run.config["scores"] == "probabilities"
    assert dict(run.config["min_confidences"]) == {"star": 0.5, "tee": 0.5}
    # Those chosen since stay.
    segment(trays, "parts", min_confidence=0.2, num_workers=0, progress=False)
    report = again(trays)
    assert report.dropped_confidences == {}
    run = newest_run(trays, "predictions")
    assert run is not None
    assert dict(run.config["min_confidences"]) == {"star": 0.2, "tee": 0.2}


def test_prototypes_without_a_name(trays: fo.Dataset) -> None:
    begin(trays, name=None)
    assert again(trays).prototypes_name == "prototypes"
    # From now on they have one.
    assert again(trays).prototypes_name == "prototypes"
    assert trays.list_runs(method="refseg/prototypes") == ["prototypes"]


def test_images(trays: fo.Dataset) -> None:
    """Of runs on views alone, the images that have predictions; after a run on all of them, every image."""
    begin(trays, trays[:2])
    report = again(trays)
    assert report.segmentation.num_images == 2
    assert len(trays.exists("predictions")) == 2
    segment(trays, "parts", num_workers=0, progress=False)
    segment(trays[:1], "parts", num_workers=0, progress=False)
    assert again(trays).segmentation.num_images == 4
    assert again(trays[1:]).segmentation.num_images == 3


def test_after_a_preview_of_a_view(trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 1)
    build_index(trays, "demo", num_workers=0, progress=False)
    begin(trays, trays[:3], preview=True)
    assert len(trays.exists("predictions")) == 1
    assert again(trays).segmentation.num_images == 3
    assert len(trays.exists("predictions")) == 3


def test_earlier_prototypes_are_gone(trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    begin(trays)
    Path(trays.get_run_info("parts").config.path).unlink()
    with caplog.at_level(logging.WARNING, "refseg"):
        assert again(trays).num_reused == 0
    assert "No earlier prototypes are reused" in caplog.text


def learn(view: Any, *args: Any, pixels: PixelSettings = PLAIN, **options: Any) -> Learnt:
    return drain(iter_learn(view, *args, sources=SourceSettings("demo", pixels=pixels), **options))


class TestLearn:
    def test_every_field_of_the_whole_dataset(self, trays: fo.Dataset) -> None:
        begin(trays)
        right, wrong = review_queue(trays)[:2]
        accepted = accept(trays, [right.label_id], as_references=True)
        rejected = reject(trays, [wrong.label_id])
        # Neither counts: predictions are replaced, and what was rejected is no example.
        trays.select_labels(ids=[review_queue(trays)[0].label_id]).tag_labels("reference", label_fields="predictions")
        stray = trays.last().ground_truth.detections[0].copy()
        stray.tags = ["reference"]
        sample = trays.last()
        sample["rejected"] = fo.Detections(detections=[*(sample["rejected"].detections if sample["rejected"] else ()), stray])
        sample.save()
        learnt = learn(trays[3:])
        own = {label.id for label in trays.first().ground_truth.detections}
        assert set(learnt.prototypes.reference_ids) == own | set(accepted.accepted_ids)
        assert learnt.prototypes.negatives is not None
        assert learnt.prototypes.negatives.ids == rejected.rejected_ids
        assert learnt.stored.name == "prototypes"
        assert load_prototypes(trays, "prototypes").reference_ids == learnt.prototypes.reference_ids
        # Those of another name were the newest: both references were known.
        assert learnt.num_reused == 2

    def test_pixels_are_read_as_is_said(self, trays: fo.Dataset) -> None:
        pixels = PixelSettings((0, 4095), (2, 1, 0))
        assert learn(trays, calibrates=False, pixels=pixels).prototypes.pixels == pixels
        assert learn(trays, calibrates=False).prototypes.pixels == pixels

    def test_takes_the_place_of_the_same_name(self, trays: fo.Dataset) -> None:
        steps: list[Progress] = []
        first = drain(iter_learn(trays, "mine", sources=SourceSettings("demo")), steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [
            *((done, 2, "references") for done in range(3)),
            *((done, 1, "known images") for done in range(2)),
            *((done, 3, "images of the dataset") for done in range(4)),
        ]
        assert first.num_reused == 0
        trays[1:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        second = learn(trays, "mine")
        assert (second.num_reused, len(second.prototypes.reference_ids)) == (2, 4)
        assert list_prototypes(trays) == ["mine"]
        assert second.stored.sha256 != first.stored.sha256

    def test_a_grouped_dataset_counts_as_a_whole(self, dataset: fo.Dataset, trays: fo.Dataset) -> None:
        dataset.add_group_field("group", default="left")
        group, samples = fo.Group(), list(trays[:2])
        sides = zip(("left", "right"), samples, strict=True)
        dataset.add_samples(
            [fo.Sample(one.filepath, group=group.element(side), ground_truth=one.ground_truth.copy()) for side, one in sides],
            progress=False,
        )
        right = dataset.select_group_slices("right")
        right.select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        learnt = learn(dataset.select_group_slices("left"))
        assert len(learnt.prototypes.reference_ids) == 4

    def test_closing_early_keeps_nothing(self, trays: fo.Dataset) -> None:
        work = iter_learn(trays, "mine", sources=SourceSettings("demo"))
        while next(work).done < 1:
            pass
        work.close()
        assert list_prototypes(trays) == []

    def test_other_tags(self, trays: fo.Dataset) -> None:
        trays[1:2].select_labels(fields="ground_truth").tag_labels("mine", label_fields="ground_truth")
        trays[2:3].select_labels(fields="ground_truth").tag_labels("not mine", label_fields="ground_truth")
        learnt = learn(trays, tags=TagSettings("mine", "not mine"))
        assert set(learnt.prototypes.reference_ids) == ids_tagged(trays, "mine")
        assert learnt.prototypes.negatives is not None
        assert set(learnt.prototypes.negatives.ids) == ids_tagged(trays, "not mine")

    def test_bad_input(self, trays: fo.Dataset, make_dataset: MakeDataset) -> None:
        with pytest.raises(NoReferencesError, match="carries the tag 'nobody'"):
            learn(trays, tags=TagSettings("nobody"))
        trays.register_run("taken", trays.init_run(method="mine"))
        with pytest.raises(DatasetError, match="has a run named 'taken' already"):
            learn(trays, "taken")
        trays[:1].select_labels(tags="reference").tag_labels("negative", label_fields="ground_truth")
        with pytest.raises(BadReferenceError, match="both a reference and a negative"):
            learn(trays)
        trays.untag_labels("negative", label_fields="ground_truth")
        sample = trays.first()
        sample.filepath = "/nowhere/gone.png"
        sample.save()
        with pytest.raises(ClassWithoutReferencesError):
            learn(trays)
        assert list_prototypes(trays) == []
        with pytest.raises(DatasetError, match="holds videos"):
            learn(make_dataset([fo.Sample("a.mp4")]))


class TestSettings:
    def config(self, **changes: Any) -> PastRun:
        usual = {"classes": ["a", "b", "c"], "min_confidences": [["a", 0.1], ["b", 0.2], ["c", 0.3]], "max_detections": 7}
        return PastRun("run", {**usual, **changes}, True)

    def test_every_class(self) -> None:
        settings = settings_of(self.config(), {"a", "b", "new"})
        assert settings.classes is None
        assert settings.min_confidence == {"a": 0.1, "b": 0.2}
        assert (settings.max_detections, settings.preview) == (7, False)

    def test_chosen_classes_and_new_ones(self) -> None:
        some = self.config(min_confidences=[["a", 0.1], ["b", 0.2]], preview=True)
        settings = settings_of(some, {"b", "c", "new"})
        assert settings.classes == ("b", "new")
        assert settings.min_confidence == {"b": 0.2}
        assert settings.preview is False

    def test_no_chosen_class_is_left(self) -> None:
        with pytest.raises(DatasetError, match="wrote 'a' alone, and no reference shows any of these now"):
            settings_of(self.config(min_confidences=[["a", 0.1]]), {"b", "c"})

    def test_a_run_of_an_earlier_version(self) -> None:
        settings = settings_of(self.config(min_confidences=None, min_confidence=0.4), {"a"})
        assert (settings.classes, settings.min_confidence) == (None, 0.4)


class TestBadInput:
    def test_no_run_yet(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError) as caught:
            again(trays)
        assert str(caught.value) == (
            f"No image of this view of dataset {trays.name!r} was segmented by RefSeg in the field 'predictions': run segment "
            "first."
        )

    def test_a_view_of_other_images(self, trays: fo.Dataset) -> None:
        begin(trays, trays[:2])
        with pytest.raises(DatasetError, match="run segment first"):
            again(trays[2:])

    def test_no_references(self, trays: fo.Dataset) -> None:
        begin(trays)
        trays.untag_labels("reference")
        with pytest.raises(NoReferencesError, match=f"No object of dataset {trays.name!r} carries the tag 'reference'"):
            again(trays)

    def test_both_tags_on_one_object(self, trays: fo.Dataset) -> None:
        begin(trays)
        trays[:1].select_labels(tags="reference").tag_labels("negative")
        with pytest.raises(BadReferenceError, match="both a reference and a negative"):
            again(trays)

    def test_the_name_is_taken(self, trays: fo.Dataset) -> None:
        begin(trays, name=None)
        trays.register_run("prototypes", trays.init_run(method="mine"))
        with pytest.raises(DatasetError, match="a run named 'prototypes' that holds no prototypes: rename it"):
            again(trays)

    def test_videos(self, make_dataset: MakeDataset) -> None:
        with pytest.raises(DatasetError, match="holds videos"):
            again(make_dataset([fo.Sample("a.mp4")]))


def test_after_an_interrupted_run(trays: fo.Dataset) -> None:
    """Its process is gone: the update says so, and goes on from what it left."""
    first = begin(trays)
    assert "interrupted" not in str(again(trays))
    before = newest_run(trays, "predictions")
    assert before is not None
    update_run(trays, before.key, {"state": "running", "process": {**before.config["process"], "started_at": 1.0}})
    report = again(trays)
    assert report.interrupted_run == before.key != first.run_key
    assert f"the last run {before.key!r} was interrupted: what it had not answered yet is answered now" in str(report)
    assert report.segmentation.changes.num_samples == 0
