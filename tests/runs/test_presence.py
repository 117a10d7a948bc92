"""The presence of classes in images: right values, written where they change, and nothing else written or lost for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

from refseg import MatchSettings, build_index, calibrate, segment
from refseg.dataset.references import collect_references
from refseg.dataset.store import save_prototypes
from refseg.errors import DatasetError
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.updating import update
from tests.dataset.test_views import video_dataset
from tests.kept import KeptDataset, kept_trays
from tests.runs.test_segmenting import content_of
from tests.tolerance import Score
from tests.trays import propose_truth

QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Six indexed trays; what is found are the objects labelled: of the third a star alone, of the fourth nothing."""

    def begin(dataset: fo.Dataset) -> None:
        third, fourth = dataset.skip(2).limit(2)
        third.ground_truth.detections = [label for label in third.ground_truth.detections if label.label == "star"]
        fourth.ground_truth.detections = []
        third.save(), fourth.save()

    def prepare(dataset: fo.Dataset) -> tuple[Prototypes, Prototypes]:
        tag(dataset[:2])
        build_index(dataset, "demo", **QUIET)
        plain = build_prototypes(collect_references(dataset, "ground_truth", tags="reference"), "demo", progress=False)
        return plain, calibrate(dataset, plain, **QUIET)

    with kept_trays(tmp_path_factory.mktemp("trays"), 6, prepare, begin=begin) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


@pytest.fixture
def plain(kept: KeptDataset) -> Prototypes:
    """Not calibrated."""
    return kept.made[0]


@pytest.fixture
def prototypes(kept: KeptDataset) -> Prototypes:
    return kept.made[1]


def tag(view: Any) -> None:
    view.select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")


def run(view: Any, prototypes: Prototypes | str, label_field: str = "predictions", **options: Any) -> Any:
    return segment(view, prototypes, label_field, **{"presence_field": "presence", **QUIET, **options})


def presence_of(dataset: Any, field: str = "presence") -> list[list[tuple[str, float]] | None]:
    return [
        sample[field] and [(label.label, label.confidence) for label in sample[field].classifications] for sample in dataset
    ]


def chance_of(dataset: Any, field: str = "every") -> list[dict[str, float]]:
    """How probable it is that any prediction of each class is right, as if each were so by itself."""
    found: list[dict[str, float]] = []
    for sample in dataset:
        missed = {"star": 1.0, "tee": 1.0}
        for label in sample[field].detections:
            missed[label.label] *= 1 - label.confidence
        found.append({name: 1 - chance for name, chance in missed.items()})
    return found


class TestValues:
    def test_is_the_chance_that_any_is_right_whatever_the_threshold(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        segment(trays, prototypes, "every", min_confidence=0.0, **QUIET)
        expected = chance_of(trays)
        least = float(np.median([score for image in expected for score in image.values() if score]))
        report = run(trays, prototypes, min_confidence=least)
        assert trays.get_field("presence").document_type is fo.Classifications
        found = presence_of(trays)
        for own, chance in zip(found, expected, strict=True):
            assert own is not None
            assert dict(own) == {name: Score(score) for name, score in chance.items()}
            scores = [score for _, score in own]
            assert scores == sorted(scores, reverse=True)
        assert found[2][-1][1] == 0.0, "no tee is found there"
        assert [score for _, score in found[3]] == [0.0, 0.0]
        for sample, own in zip(trays, found, strict=True):
            for label in sample.predictions.detections:
                assert dict(own)[label.label] >= label.confidence, "never less than what is written"
        assert 0 < report.num_instances < trays.count("every.detections")
        assert trays.get_run_info(report.run_key).config.presence_field == "presence"

    @pytest.mark.parametrize("options", [{"classes": "star"}, {"min_confidence": {"star": 1.0, "tee": 0.1}}, {"index": False}])
    def test_predictions_are_what_they_are_without(
        self, trays: fo.Dataset, prototypes: Prototypes, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        propose_truth(monkeypatch, trays)
        run(trays, prototypes, **options)
        segment(trays, prototypes, "other", **QUIET, **options)
        assert content_of(trays, with_run=False) == content_of(trays, "other", with_run=False)
        assert trays.count("predictions.detections") > 0

    def test_of_some_classes(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        every = presence_of(trays)
        run(trays, prototypes, "other", classes=["tee"], min_confidence={"tee": 1.0})
        assert trays.count("other.detections") == 0
        assert presence_of(trays) == [[pair for pair in own if pair[0] == "tee"] for own in every]

    def test_a_preview_writes_to_the_images_that_it_writes(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 2)
        report = run(trays, prototypes, min_confidence=0.0, preview=True)
        assert set(trays.exists("presence").values("id")) == {sample_id for sample_id, _ in report.best}
        for sample in trays.exists("presence"):
            assert sample.presence.classifications[0].confidence == sample.predictions.detections[0].confidence

    def test_sorts_and_filters(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """As the README has it."""
        run(trays, prototypes)
        of_star = F("presence.classifications").filter(F("label") == "star").map(F("confidence")).max()
        scores = [dict(own)["star"] for own in presence_of(trays.sort_by(of_star, reverse=True))]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) > 2
        likely = trays.filter_labels("presence", (F("label") == "star") & (F("confidence") >= 0.5))
        assert len(likely) == sum(score >= 0.5 for score in scores)

    def test_frames_of_videos(
        self, make_dataset: Callable[..., fo.Dataset], tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = video_dataset(make_dataset, tmp_path)
        frames = dataset.to_frames()
        propose_truth(monkeypatch, frames)
        run(frames, prototypes, index=False)
        assert dataset.count("frames.presence.classifications") == 2 * len(frames)
        assert run(dataset.to_frames(), prototypes, index=False).num_written == 0


class TestOnlyChangesAreWritten:
    def test_the_same_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        assert run(trays, prototypes).num_written == 6
        before = trays.values("presence.classifications.id")
        assert run(trays, prototypes).num_written == 0
        assert trays.values("presence.classifications.id") == before

    def test_predictions_that_are_the_same_stay(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        segment(trays, prototypes, **QUIET)
        before = content_of(trays)
        ids = trays.values("predictions.detections.id")
        report = run(trays, prototypes)
        assert (report.num_written, report.changes.num_samples) == (6, 0)
        assert trays.values("predictions.detections.id") == ids
        assert content_of(trays) == before

    @pytest.mark.parametrize("edit", ["moved", "slightly", "gone", "nothing"])
    def test_what_somebody_has_changed(self, trays: fo.Dataset, prototypes: Prototypes, edit: str) -> None:
        run(trays, prototypes)
        expected, ids = presence_of(trays), trays.values("predictions.detections.id")
        sample = trays.first()
        labels = sample.presence.classifications
        if edit == "moved":
            labels[0].confidence -= 1e-4
        elif edit == "slightly":
            labels[0].confidence -= 1e-7
        elif edit == "gone":
            del labels[1]
        else:
            sample.presence = None
        sample.save()
        assert run(trays, prototypes).num_written == (0 if edit == "slightly" else 1)
        if edit != "slightly":
            assert presence_of(trays) == expected
        assert trays.values("predictions.detections.id") == ids

    def test_what_people_added_or_noted_stays(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        expected = presence_of(trays)[0]
        sample = trays.first()
        ids = [label.id for label in sample.presence.classifications]
        best = sample.presence.classifications[0]
        best.tags, best["note"] = ["checked"], "twice"
        best.confidence /= 2
        mine = [fo.Classification(label="sunny", confidence=0.3, tags=["mine"]), fo.Classification(label=best.label)]
        first, second = sample.presence.classifications
        sample.presence = fo.Classifications(classifications=[first, *mine, second])
        sample.save()
        assert trays.count_values("presence.classifications.label")["sunny"] == 1
        assert run(trays, prototypes).num_written == 1
        held = trays.first().presence.classifications
        assert presence_of(trays)[0] == [*expected, ("sunny", 0.3), (best.label, None)]
        assert [label.id for label in held] == [*ids, mine[0].id, mine[1].id]
        assert (held[0].tags, held[0]["note"], held[2].tags) == (["checked"], "twice", ["mine"])
        assert run(trays, prototypes).num_written == 0
        assert run(trays, prototypes, overwrite=True).num_written == 1
        assert presence_of(trays)[0] == expected
        assert trays.first().presence.classifications[0].tags == ["checked"]

    def test_a_class_of_an_earlier_run_goes(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """It has no prototype any more, so its probability would stay as it was for ever."""
        key = run(trays, prototypes).run_key
        expected = presence_of(trays)
        sample = trays.first()
        sample.presence.classifications.append(fo.Classification(label="gone", confidence=0.4))
        sample.save()
        config = trays.get_run_info(key).config
        config.classes = [*config.classes, "gone"]
        trays.update_run_config(key, config)
        assert run(trays, prototypes).num_written == 1
        assert presence_of(trays) == expected

    def test_an_image_that_stays_as_it_is_keeps_its_presence(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, classes=["star"])
        sample = trays.first()
        sample.predictions.detections.append(fo.Detection(label="mine", bounding_box=[0.1, 0.1, 0.2, 0.2]))
        sample.save()
        report = run(trays, prototypes)
        assert (report.protected, report.num_written) == ((sample.id,), 5)
        assert [len(own) for own in presence_of(trays)] == [1, 2, 2, 2, 2, 2]

    def test_a_reference_less(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """`update` keeps the field; what it writes is what a new run finds."""
        save_prototypes(trays, prototypes, "parts")
        run(trays, "parts")
        before = presence_of(trays)
        second = trays[1:2].select_labels(fields="ground_truth")
        second.untag_labels("reference", label_fields="ground_truth")
        try:
            report = update(trays, **QUIET)
        finally:
            tag(trays[1:2])
        assert len(report.references_removed) == 2
        assert trays.get_run_info(report.segmentation.run_key).config.presence_field == "presence"
        after = presence_of(trays)
        assert after != before
        run(trays, "parts", "other", presence_field="mine")
        assert presence_of(trays, "mine") == [[(name, Score(score)) for name, score in own] for own in after]


class TestRefusals:
    def test_similarities(self, trays: fo.Dataset, plain: Prototypes, prototypes: Prototypes) -> None:
        words = r"scores of prototypes that are not calibrated are similarities: .* refseg\.calibrate\(dataset, prototypes\)"
        with pytest.raises(DatasetError, match=words):
            run(trays, plain)
        words = r"similarities where matching is not calibrated.*: pass matching=refseg\.MatchSettings\(\) and prototypes from"
        with pytest.raises(DatasetError, match=words):
            run(trays, prototypes, matching=MatchSettings(calibrated=False))
        assert not trays.has_field("predictions")
        assert not trays.has_field("presence")
        assert trays.list_runs(method=SEGMENT_METHOD) == []
        # Nor is an index made for it.
        without_index = trays[:1].clone()
        with pytest.raises(DatasetError, match="not calibrated"):
            run(without_index, plain)
        assert without_index.list_runs() == []
        without_index.delete()

    def test_update_without_calibrating(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """Nothing is lost by asking: the prototypes kept are those of before."""
        save_prototypes(trays, prototypes, "parts")
        run(trays, "parts")
        before = trays.get_run_info("parts").config.sha256
        with pytest.raises(DatasetError, match="or calibrates=True, or leave presence_field out"):
            update(trays, calibrates=False, **QUIET)
        assert trays.get_run_info("parts").config.sha256 == before

    def test_fields(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match="Presence needs a field of its own, not 'predictions' again"):
            run(trays, prototypes, presence_field="predictions")
        with pytest.raises(DatasetError, match="Presence needs a field of its own, not 'mine' again"):
            run(trays, prototypes, semantic_field="mine", presence_field="mine")
        with pytest.raises(DatasetError, match=r"'ground_truth' of dataset .* holds Detections, not Classifications"):
            run(trays, prototypes, presence_field="ground_truth", overwrite=True)
        with pytest.raises(DatasetError, match=r"'a\.b' cannot name a field"):
            run(trays, prototypes, presence_field="a.b")
        assert trays.list_runs(method=SEGMENT_METHOD) == []

    def test_labels_of_others(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        trays.set_values("mine", [fo.Classifications()] * 6)
        run(trays[:1], prototypes, presence_field="mine")
        trays.delete_run(trays.list_runs(method=SEGMENT_METHOD)[0])
        sample = trays.last()
        sample["mine"] = fo.Classifications(classifications=[fo.Classification(label="sunny")])
        sample.save()
        with pytest.raises(
            DatasetError, match=r"'mine' of dataset .* holds labels that no run of RefSeg wrote.*overwrite=True"
        ):
            run(trays, prototypes, "other", presence_field="mine")
        assert trays.last().mine.classifications[0].label == "sunny"
        assert not trays.has_field("other")
        run(trays, prototypes, "other", presence_field="mine", overwrite=True)
        run(trays, prototypes, "other", presence_field="mine")
        assert trays.count_values("mine.classifications.label") == {"star": 6, "tee": 6}
