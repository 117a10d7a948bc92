"""The report on a dataset: what is suggested and why, what is written and taken back, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch.nn.functional as F

import refseg
from refseg.dataset.fields import prediction_fields
from refseg.dataset.index_finding import open_index
from refseg.dataset.store import save_prototypes
from refseg.errors import DatasetError
from refseg.insight.findings import MIN_PREDICTED_IOU
from refseg.models.loaded import get_preset
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.report_fields import ATTRIBUTES, delete_fields, suggestion_patches, write_fields
from refseg.runs.segmenting import matcher_for
from refseg.runs.settings import SegmentSettings
from refseg.runs.suggestions import UNCERTAIN
from tests.kept import KeptDataset, kept_trays
from tests.trays import propose_truth, tray_samples, whole_mask

MakeDataset = Callable[..., fo.Dataset]
NUM_REFERENCES = 3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Six indexed trays whose objects are their candidates; those of the first three are labelled, and references."""

    def prepare(dataset: fo.Dataset) -> Prototypes:
        refseg.build_index(dataset, "demo", num_workers=0, progress=False)
        dataset.clone_sample_field("ground_truth", "truth")
        dataset[NUM_REFERENCES:].clear_sample_field("ground_truth")
        built = refseg.build_prototypes(refseg.collect_references(dataset, "ground_truth"), "demo", progress=False)
        return refseg.calibrate(dataset, built, num_workers=0, progress=False)

    with kept_trays(tmp_path_factory.mktemp("trays"), 6, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


@pytest.fixture
def prototypes(kept: KeptDataset) -> Prototypes:
    return kept.made


def report_of(prototypes: Prototypes | str, dataset: fo.Dataset, **options: object) -> refseg.PrototypeReport:
    return refseg.inspect(prototypes, dataset, label_fields=["ground_truth"], progress=False, **options)


class TestSuggestions:
    def test_objects_without_a_label_best_first(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = report_of(prototypes, trays)
        assert report.suggestions
        assert {item.sample_id for item in report.suggestions} <= set(trays[NUM_REFERENCES:].values("id"))
        assert len({(item.sample_id, item.label) for item in report.suggestions}) == len(report.suggestions)
        changes = [item.expected_change for item in report.suggestions]
        assert changes == sorted(changes, reverse=True)
        assert "What would help as the next reference:" in str(report)
        rows = report.as_rows("suggestions")
        assert [row["expected_change"] for row in rows] == changes
        assert "mask" not in rows[0]

    def test_box_and_mask_are_those_of_an_object(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for item in report_of(prototypes, trays).suggestions or ():
            sample = trays[item.sample_id]
            assert item.filepath == sample.filepath
            drawn = whole_mask(fo.Detection(bounding_box=list(item.box), mask=item.mask))
            objects = [whole_mask(label) for label in sample.truth.detections]
            assert max((drawn & known).sum() / (drawn | known).sum() for known in objects) > 0.8

    def test_expected_change_is_the_formula(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """The best one, recomputed from all candidates of the index with plain arithmetic."""
        report = report_of(prototypes, trays)
        assert report.suggestions
        thresholds = [item.threshold for item in report.classes]
        matcher = matcher_for(prototypes, get_preset("demo"), SegmentSettings())
        best = (0.0, "", "", 0.0)
        for chunk in open_index(trays).index.scan(trays[NUM_REFERENCES:].values("id")):
            for number, image in enumerate(chunk.images):
                candidates = chunk.candidates(number)
                scored = matcher.scored(matcher.classify(candidates.features))
                for row, quality in enumerate(candidates.predicted_iou.tolist()):
                    score, label = scored.scores[row], scored.labels[row]
                    own = F.normalize(prototypes.vectors[prototypes.labels == label], dim=1)
                    accepted = 1 / (1 + np.exp(-(float(score) - (thresholds[int(label)] or 0)) / UNCERTAIN))
                    novelty = 1 - max(0.0, float((own @ candidates.features[row]).max()))
                    change = 4 * accepted * (1 - accepted) * novelty * quality
                    assert quality >= MIN_PREDICTED_IOU
                    best = max(best, (change, image.sample_id, prototypes.classes[int(label)], float(score)))
        first = report.suggestions[0]
        assert (first.expected_change, first.score) == (pytest.approx(best[0], abs=1e-5), pytest.approx(best[3], abs=1e-5))
        assert (first.sample_id, first.label) == best[1:3]

    def test_what_is_labelled_is_left_out(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        sample = trays[report_of(prototypes, trays).suggestions[0].sample_id]
        polylines = [label.to_polyline() for label in sample.truth.detections]
        sample["outlined"] = fo.Polylines(polylines=polylines)
        sample.save()
        found = refseg.inspect(prototypes, trays, label_fields=["ground_truth", "outlined"], progress=False)
        assert sample.id not in {item.sample_id for item in found.suggestions}
        # By default every field of objects counts.
        assert refseg.inspect(prototypes, trays, progress=False).suggestions == ()

    def test_number_and_view(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        every = report_of(prototypes, trays).suggestions
        assert report_of(prototypes, trays, num_suggestions=1).suggestions == every[:1]
        assert report_of(prototypes, trays, num_suggestions=0).suggestions is None
        last = report_of(prototypes, trays[5:]).suggestions
        assert {item.sample_id for item in last} == {trays.last().id}

    def test_second_of_two_alike_is_worth_less(
        self, make_dataset: MakeDataset, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = trays[report_of(prototypes, trays).suggestions[0].sample_id]
        copies = make_dataset([fo.Sample(source.filepath, truth=source.truth.copy()) for _ in range(2)])
        propose_truth(monkeypatch, copies, "truth")
        refseg.build_index(copies, "demo", num_workers=0, progress=False)
        found = refseg.inspect(prototypes, copies, label_fields=[], progress=False).suggestions
        assert len({item.sample_id for item in found if item.expected_change > 1e-3}) == 1


class TestInspect:
    def test_by_name_with_places_of_references(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        save_prototypes(trays, prototypes, "parts")
        gone = trays.first().ground_truth.detections[0].id
        trays.delete_labels(ids=[gone])
        by_id = {item.id: item for item in report_of("parts", trays).references}
        assert (by_id[gone].filepath, by_id[gone].box) == ("", None)
        for sample in trays[:NUM_REFERENCES]:
            for label in sample.ground_truth.detections:
                assert (by_id[label.id].filepath, by_id[label.id].box) == (sample.filepath, tuple(label.bounding_box))

    def test_without_dataset(self, prototypes: Prototypes) -> None:
        report = refseg.inspect(prototypes)
        assert report.suggestions is None
        assert {item.filepath for item in report.references} == {""}

    def test_without_index(self, make_dataset: MakeDataset, trays: fo.Dataset, prototypes: Prototypes) -> None:
        bare = make_dataset([fo.Sample(path) for path in trays.values("filepath")])
        report = refseg.inspect(prototypes, bare, progress=False)
        assert report.suggestions is None
        assert report.notes == (
            "no image is indexed for these prototypes; build the index to see what would help: "
            "refseg.build_index(dataset, 'demo')",
        )

    def test_images_that_are_not_indexed(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        trays.add_samples(tray_samples(tmp_path / "more", 1, seed=5), progress=False)
        assert report_of(prototypes, trays).notes[-1].startswith("1 image is not indexed and was left out: build the index")

    def test_refused(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match="keeps no prototypes named 'none'"):
            refseg.inspect("none", trays, progress=False)
        with pytest.raises(DatasetError, match="give the dataset too"):
            refseg.inspect("parts")
        with pytest.raises(DatasetError, match="num_suggestions must be a whole number of at least 0, not -1"):
            report_of(prototypes, trays, num_suggestions=-1)
        with pytest.raises(DatasetError, match=r"'nowhere' of dataset .* does not exist"):
            refseg.inspect(prototypes, trays, label_fields=["nowhere"], progress=False)


class TestFields:
    def test_written_twice_and_taken_back(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        trays.delete_sample_field("truth")
        before = trays.first().ground_truth.detections[0].to_dict()
        report = report_of(prototypes, trays)
        for _ in range(2):
            written = write_fields(report, trays)
        num = len(report.suggestions or ())
        assert (written.num_suggestions, written.paths, written.num_references) == (num, ("ground_truth.detections",), 6)
        assert written.num_gone == 0
        for item in report.references:
            (label,) = trays.select_labels(ids=[item.id], fields="ground_truth").first().ground_truth.detections
            assert (label.loo_similarity, label.hurts) == (pytest.approx(item.similarity), item.hurts)
            assert label.loo_score == pytest.approx(item.score)
        assert trays.count("suggestions.detections") == num
        patches = suggestion_patches(trays)
        assert patches.values("suggestions.expected_change") == [item.expected_change for item in report.suggestions]
        first = trays[report.suggestions[0].sample_id].suggestions.detections[0]
        assert (first.label, first.confidence) == (report.suggestions[0].label, report.suggestions[0].score)
        assert np.array_equal(first.mask, report.suggestions[0].mask)
        assert "suggestions" in prediction_fields(trays)
        # What it wrote itself is no label that suggestions would have to keep away from.
        assert refseg.inspect(prototypes, trays, progress=False).suggestions == report.suggestions
        assert delete_fields(trays)
        assert not delete_fields(trays)
        assert not trays.has_field("suggestions")
        assert [trays.get_field(f"ground_truth.detections.{name}") for name in ATTRIBUTES] == [None] * 3
        assert trays.first().ground_truth.detections[0].to_dict() == before
        assert prediction_fields(trays) == set()

    def test_replaces_what_an_earlier_report_said(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        write_fields(report_of(prototypes, trays), trays)
        dropped = prototypes.reference_ids[0]
        write_fields(report_of(prototypes.remove([dropped]), trays, num_suggestions=1), trays)
        (label,) = trays.select_labels(ids=[dropped], fields="ground_truth").first().ground_truth.detections
        assert label.get_attribute_value("loo_similarity", None) is None
        assert trays.count("suggestions.detections") == 1
        assert len(trays.list_runs(method="refseg/inspect")) == 1

    def test_not_calibrated(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        plain = dataclasses.replace(prototypes, surroundings=None)
        written = write_fields(report_of(plain, trays), trays)
        assert written.num_references == 6
        label = trays.first().ground_truth.detections[0]
        assert label.loo_similarity is not None
        assert label.get_attribute_value("hurts", None) is None

    def test_what_is_the_users_stays(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = report_of(prototypes, trays)
        with pytest.raises(DatasetError, match=r"'ground_truth' of dataset .* was not written by a report"):
            write_fields(report, trays, "ground_truth")
        with pytest.raises(DatasetError, match="cannot name a field"):
            write_fields(report, trays, "a.b")
        ids = trays.first().ground_truth.detections[0].id
        trays.set_label_values("ground_truth.detections.hurts", {ids: True}, dynamic=True)
        with pytest.raises(DatasetError, match="have an attribute 'hurts' of their own"):
            write_fields(report, trays)
        assert not trays.has_field("suggestions")


def test_picture(trays: fo.Dataset, prototypes: Prototypes) -> None:
    """The page shows each suggestion, and is drawn all the same where the image is gone."""
    report = report_of(prototypes, trays)
    page = report.picture()
    Path(report.suggestions[0].filepath).unlink()
    without = report.picture()
    assert page.width == without.width
    assert page.tobytes() != without.tobytes()
    assert report_of(prototypes, trays, num_suggestions=0).picture().height < page.height
