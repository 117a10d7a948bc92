"""Calibrating and mining on a real dataset: which objects count as known, where candidates come from, what is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
import torch

from refseg import calibrate, mine_negatives
from refseg.calibration.mining import num_mined
from refseg.dataset.fields import EMPTY_TAG, newest_run
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.store import load_prototypes, save_prototypes
from refseg.errors import DatasetError, IndexDamagedError
from refseg.progress import Progress, drain
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings, image_key
from refseg.review.merging import merge_accepted
from refseg.runs.known_images import iter_calibrate, iter_mine_negatives
from refseg.runs.segmenting import segment
from refseg.runs.settings import SegmentSettings
from refseg.runs.updating import iter_learn, update
from tests.kept import KeptDataset, kept_trays

MakeDataset = Callable[..., fo.Dataset]
QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Four trays whose candidates are the objects labelled at first; those of the first two are references."""

    def prepare(dataset: fo.Dataset) -> Prototypes:
        dataset[:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        return build_prototypes(collect_references(dataset, "ground_truth", tags="reference"), "demo", progress=False)

    with kept_trays(tmp_path_factory.mktemp("trays"), prepare=prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


@pytest.fixture
def prototypes(kept: KeptDataset) -> Prototypes:
    return kept.made


def around(prototypes: Prototypes) -> Surroundings:
    assert prototypes.surroundings is not None
    return prototypes.surroundings


def keys(dataset: fo.Dataset) -> list[str]:
    return [image_key(path) for path in dataset.values("filepath")]


def take_label(dataset: fo.Dataset, number: int, label: str) -> fo.Detection:
    """Remove an object from ground truth; its candidate stays."""
    sample = dataset[number : number + 1].first()
    (taken,) = [each for each in sample.ground_truth.detections if each.label == label]
    sample.ground_truth.detections = [each for each in sample.ground_truth.detections if each.label != label]
    sample.save()
    return taken


def mined_of(prototypes: Prototypes) -> dict[str, str]:
    """Class by id."""
    assert prototypes.negatives is not None
    return dict(zip(prototypes.negatives.ids, prototypes.negatives.names, strict=True))


class TestCalibrate:
    def test_references_strangers_and_empty_images(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        # All objects are labelled: no candidate is a stranger.
        found = around(calibrate(trays, prototypes, **QUIET))
        assert set(found.shown) == set(prototypes.reference_ids)
        shown = dict(zip(prototypes.reference_ids, prototypes.images, strict=True))
        assert [shown[name] for name in found.shown] == list(found.images)
        # One is not labelled any more: its candidate is one, and its reference is passed over.
        gone = take_label(trays, 1, "tee")
        found = around(calibrate(trays, prototypes, **QUIET))
        assert set(found.shown) == set(prototypes.reference_ids) - {gone.id} | {""}
        assert [image for image, name in zip(found.images, found.shown, strict=True) if not name] == [keys(trays)[1]]
        # In a known-empty image all are.
        found = around(calibrate(trays, prototypes, empty=trays[3:], **QUIET))
        strangers = [image for image, name in zip(found.images, found.shown, strict=True) if not name]
        assert strangers == [keys(trays)[1], *[keys(trays)[3]] * 2]

    def test_labelled_objects_are_no_strangers(self, trays: fo.Dataset) -> None:
        """Of the fields that hold references, and of `accepted`; those of other fields are."""
        trays[1:2].untag_labels("reference")
        trays[1:2].select_labels(ids=[trays[1:2].first().ground_truth.detections[0].id]).tag_labels("reference")
        prototypes = build_prototypes(collect_references(trays, "ground_truth", tags="reference"), "demo", progress=False)
        assert set(around(calibrate(trays, prototypes, **QUIET)).shown) == set(prototypes.reference_ids)
        other = trays[1:2].first().ground_truth.detections[1].label
        taken = take_label(trays, 1, other)
        for field, strangers in (("elsewhere", 1), ("accepted", 0)):
            sample = trays[1:2].first()
            sample[field] = fo.Detections(detections=[taken.copy()])
            sample.save()
            assert around(calibrate(trays, prototypes, **QUIET)).shown.count("") == strangers

    @pytest.mark.parametrize("into", ["accepted", "a_truth"])
    def test_a_merged_copy_is_no_other_object(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, into: str
    ) -> None:
        """Beside its reference, or where the copy is the reference."""
        from refseg.runs import known_images

        merge_accepted(trays[:2], into, accepted_field="ground_truth", progress=False)
        if into == "a_truth":
            trays.rename_sample_field("ground_truth", "accepted")
            prototypes = replace(prototypes, reference_ids=tuple(trays[:2].values(f"{into}.detections.id", unwind=True)))
        seen: list[list[str]] = []
        whole = known_images.look_around
        monkeypatch.setattr(known_images, "look_around", lambda *args: seen.append([one.id for one in args[1]]) or whole(*args))
        calibrate(trays, prototypes, **QUIET)
        assert [len(ids) for ids in seen] == [2, 2]
        assert {name for ids in seen for name in ids} == set(prototypes.reference_ids)

    def test_a_box_is_enough(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for sample in trays.iter_samples(autosave=True):
            for label in sample.ground_truth.detections:
                label.mask = None
        assert set(around(calibrate(trays, prototypes, **QUIET)).shown) == set(prototypes.reference_ids)

    def test_names_and_index(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = calibrate(trays, prototypes, index=False, **QUIET)
        assert trays.list_runs(method="refseg/index") == []
        save_prototypes(trays, prototypes, "parts")
        build_index(trays[1:], "demo", **QUIET)
        steps: list[Progress] = []
        mixed = drain(iter_calibrate(trays[3:], "parts", sources=SourceSettings(num_workers=0)), steps.append)
        told = [(step.done, step.total, step.label) for step in steps]
        assert told == [(n, 2, what) for what in ("known images", "images of the dataset") for n in range(3)]
        # The first image is in the index by now: no model is asked for.
        monkeypatch.setattr("refseg.dataset.sources.load_models", lambda *_, **__: pytest.fail("models are loaded"))
        again = calibrate(trays, "parts", **QUIET)
        for found in (mixed, again):
            assert around(found).shown == around(alone).shown
            assert around(found).images == around(alone).images
            torch.testing.assert_close(around(found).features, around(alone).features, atol=2e-3, rtol=0)
        assert around(load_prototypes(trays, "parts")).shown == around(alone).shown

    def test_an_empty_image_with_a_reference(
        self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "refseg"):
            found = around(calibrate(trays, prototypes, empty=trays[1:3], **QUIET))
        assert "tray_1.png is not empty, it shows a reference" in caplog.text
        assert {image for image, name in zip(found.images, found.shown, strict=True) if not name} == {keys(trays)[2]}

    def test_only_some_empty_images_count(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.calibration.known_objects.spread.__defaults__", (1,))
        found = around(calibrate(trays, prototypes, empty=trays[2:], **QUIET))
        assert set(found.images) == set(keys(trays)[:3])

    def test_bad_images_are_passed_over(
        self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        for number, path in ((0, str(broken)), (3, str(tmp_path / "gone.png"))):
            sample = trays[number : number + 1].first()
            sample.filepath = path
            sample.save()
        with caplog.at_level(logging.WARNING, "refseg"):
            found = around(calibrate(trays, prototypes, empty=trays[3:], **QUIET))
        assert set(found.images) == {keys(trays)[1]}
        assert "broken.png: this is not an image" in caplog.text
        assert "gone.png: the file does not exist" in caplog.text

    def test_an_image_deleted_meanwhile(
        self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture
    ) -> None:
        work = iter_calibrate(trays, prototypes)
        while next(work).done == 0:
            pass
        kept, gone = keys(trays)[0], trays[1:2].first().id
        trays.delete_samples([gone])
        with caplog.at_level(logging.WARNING, "refseg"):
            assert set(around(drain(work, False)).images) == {kept}
        assert f"image {gone} was deleted meanwhile" in caplog.text

    def test_nothing_to_be_had(self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture) -> None:
        save_prototypes(trays, prototypes, "parts")
        before = trays.get_run_info("parts").timestamp
        trays.delete_samples(trays[:2])
        with caplog.at_level(logging.WARNING, "refseg"):
            assert calibrate(trays, prototypes, empty=trays, **QUIET) is prototypes
            assert calibrate(trays, "parts", **QUIET).surroundings is None
        assert "are not calibrated: no image that shows one of their references" in caplog.text
        assert trays.get_run_info("parts").timestamp == before

    def test_prototypes_of_an_earlier_version_learn_their_images(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        gone = take_label(trays, 1, "tee")
        expected = ["" if name == gone.id else key for name, key in zip(*ids_and_images(prototypes), strict=True)]
        assert list(calibrate(trays, replace(prototypes, images=()), **QUIET).images) == expected

    def test_bad_input(self, trays: fo.Dataset, prototypes: Prototypes, make_dataset: MakeDataset) -> None:
        with pytest.raises(DatasetError, match="keeps no prototypes named 'nobody'"):
            calibrate(trays, "nobody", **QUIET)
        with pytest.raises(DatasetError, match=f"are of the dataset '.*', not of {trays.name!r}"):
            calibrate(trays, prototypes, empty=make_dataset([fo.Sample("a.png")]), **QUIET)
        with pytest.raises(DatasetError, match="holds videos"):
            calibrate(make_dataset([fo.Sample("a.mp4")]), prototypes, **QUIET)


def ids_and_images(prototypes: Prototypes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return prototypes.reference_ids, prototypes.images


class TestMine:
    def mine(self, view: Any, prototypes: Prototypes | str, **options: Any) -> Prototypes:
        return mine_negatives(view, prototypes, **{"min_confidence": 0.0, **QUIET, **options})

    def test_what_is_taken_for_a_class(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        once = self.mine(trays[3:], prototypes)
        sample_id = trays.last().id
        assert set(mined_of(once)) == {f"mined {sample_id} 0", f"mined {sample_id} 1"}
        assert sorted(mined_of(once).values()) == ["star", "tee"]
        assert once.negatives is not None
        assert set(once.negatives.images) == {keys(trays)[3]}
        # Again, with more images, and with one class alone.
        assert mined_of(self.mine(trays[3:], once)) == mined_of(once)
        assert len(mined_of(self.mine(trays[2:], once, max_negatives=1))) == 2
        rest = mined_of(self.mine(trays[3:], once, classes=["star"], min_confidence=1.0))
        assert list(rest.values()) == ["tee"]
        assert self.mine(trays[3:], once, min_confidence=1.0).negatives is None
        # What it was mined from is quiet now.
        segment(trays[3:], prototypes, "before", min_confidence=0.0, **QUIET)
        segment(trays[3:], once, "after", min_confidence=0.0, **QUIET)
        scores = [trays.values(f"{field}.detections.confidence")[3] for field in ("before", "after")]
        assert max(scores[1]) < max(scores[0])

    def test_names_are_kept_and_labelled_negatives_stay(self, trays: fo.Dataset) -> None:
        references = collect_references(trays, "ground_truth", tags="reference")
        negatives = collect_references(trays[2:3], "ground_truth")[:1]
        save_prototypes(trays, build_prototypes(references, "demo", negatives=negatives, progress=False), "parts")
        steps: list[Progress] = []
        mined = drain(
            iter_mine_negatives(trays[3:], "parts", SegmentSettings(0.0), SourceSettings(num_workers=0)), steps.append
        )
        assert [(step.done, step.total) for step in steps] == [(0, 1), (1, 1)]
        assert mined.negatives is not None
        assert mined.negatives.ids[0] == negatives[0].id
        kept = load_prototypes(trays, "parts").negatives
        assert kept is not None
        assert kept.ids == mined.negatives.ids
        config = trays.get_run_info("parts").config
        assert (config.negative_ids, config.num_mined) == ([negatives[0].id], num_mined(kept))

    def test_images_of_references_are_passed_over(
        self, trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "refseg"):
            assert self.mine(trays[:2], prototypes).negatives is None
        assert "No negative is mined from" in caplog.text

    def test_of_a_class_that_the_image_does_not_show(self, trays: fo.Dataset) -> None:
        """An image may show references of the other classes."""
        trays[1:2].untag_labels("reference")
        (star,) = [each for each in trays[1:2].first().ground_truth.detections if each.label == "star"]
        trays.select_labels(ids=[star.id]).tag_labels("reference")
        prototypes = build_prototypes(collect_references(trays, "ground_truth", tags="reference"), "demo", progress=False)
        mined = self.mine(trays[1:2], prototypes, classes=["tee"])
        assert set(mined_of(mined).values()) == {"tee"}
        assert self.mine(trays[1:2], prototypes, classes=["star"]).negatives is None

    def test_bad_input(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for words, options in (
            ("know no class 'cog'", {"classes": ["cog"]}),
            ("There is no class to write", {"classes": []}),
            ("min_confidence must be a number from 0 to 1, not 2", {"min_confidence": 2.0}),
            ("max_negatives must be a whole number of at least 1, not 0", {"max_negatives": 0}),
        ):
            with pytest.raises(DatasetError, match=words):
                self.mine(trays, prototypes, **options)
        with pytest.raises(DatasetError, match="is empty: choose at least one image"):
            self.mine(trays.limit(0), prototypes)
        with pytest.raises(DatasetError, match="keeps no prototypes named 'nobody'"):
            self.mine(trays, "nobody")


class TestLoop:
    def test_learn_and_update(self, trays: fo.Dataset) -> None:
        trays[3:].tag_samples(EMPTY_TAG)
        steps: list[Progress] = []
        learnt = drain(iter_learn(trays, "parts", sources=SourceSettings("demo", num_workers=0)), steps.append)
        assert {step.label for step in steps} == {"references", "known images", "images of the dataset"}
        kept = load_prototypes(trays, "parts")
        assert around(kept).shown == around(learnt.prototypes).shown
        assert set(around(kept).images) == {keys(trays)[row] for row in (0, 1, 3)}
        segment(trays, "parts", min_confidence=0.0, **QUIET)
        report = update(trays, **QUIET)
        assert (report.num_mined, report.negatives_added) == (2, ())
        assert "negatives +0 −0, 2 mined from images known to be empty" in str(report)
        run = newest_run(trays, "predictions")
        assert run is not None
        assert (run.config["negative_ids"], run.config["num_mined"]) == ([], 2)
        # Not empty any more: what was learnt from it is forgotten.
        trays.untag_samples(EMPTY_TAG)
        report = update(trays, **QUIET)
        assert (report.num_mined, report.negatives_removed) == (0, ())
        assert set(around(load_prototypes(trays, "parts")).images) == set(keys(trays)[:2])
        assert update(trays, calibrates=False, **QUIET).num_mined == 0
        assert load_prototypes(trays, "parts").surroundings is None

    def test_not_asked_for(self, trays: fo.Dataset) -> None:
        trays[3:].tag_samples(EMPTY_TAG)
        learnt = drain(iter_learn(trays, "parts", sources=SourceSettings("demo", num_workers=0), calibrates=False))
        assert (learnt.prototypes.surroundings, learnt.prototypes.negatives) == (None, None)
        assert trays.list_runs(method="refseg/index") == []

    def test_an_index_that_fails_costs_no_prototypes(
        self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise IndexDamagedError("the tables are torn")

        monkeypatch.setattr("refseg.dataset.sources.find_index", fail)
        with caplog.at_level(logging.WARNING, "refseg"):
            learnt = drain(iter_learn(trays, "parts", sources=SourceSettings("demo", num_workers=0)))
        assert learnt.prototypes.surroundings is None
        assert load_prototypes(trays, "parts").classes == ("star", "tee")
        assert "the index cannot be used: the tables are torn" in caplog.text
        with pytest.raises(IndexDamagedError):
            calibrate(trays, "parts", **QUIET)
