"""Similar objects: what is found, how it is written, what the vector index changes, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
from fiftyone import ViewField

import refseg
import refseg.runs.similar as similar
from refseg.dataset import past_runs
from refseg.errors import BadReferenceError, DatasetError, IndexMismatchError, IndexNotFoundError, NoReferencesError
from refseg.models.loaded import load_models
from refseg.progress import drain
from tests.kept import KeptDataset, kept_trays
from tests.trays import IMAGE_HW, tray_samples, whole_mask

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Six indexed trays with a star and a tee each, which are their candidates."""

    def prepare(dataset: fo.Dataset) -> None:
        refseg.build_index(dataset, "demo", num_workers=0, progress=False)

    with kept_trays(tmp_path_factory.mktemp("trays"), 6, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


def star_of(dataset: fo.Dataset) -> fo.Detection:
    """The star of the first tray."""
    return next(label for label in dataset.first().ground_truth.detections if label.label == "star")


def classes_found(dataset: fo.Dataset, label_field: str = "similar") -> list[tuple[float, str]]:
    """Score of each detection and class of the labelled object it overlaps most, best first."""
    found = []
    for sample in dataset:
        for label in sample[label_field].detections if sample[label_field] else []:
            mask = whole_mask(label)
            shares = [(mask & whole_mask(truth)).sum() for truth in sample.ground_truth.detections]
            found.append((label.confidence, sample.ground_truth.detections[int(np.argmax(shares))].label))
    return sorted(found, reverse=True)


class TestFindSimilar:
    def test_the_object_itself_and_its_kind_come_first(self, trays: fo.Dataset) -> None:
        view = refseg.find_similar(trays, star_of(trays), k=6, progress=False)
        assert len(view) == 6
        assert view.values("sample_id")[0] == trays.first().id
        scores = view.values("similar.confidence")
        assert scores == sorted(scores, reverse=True)
        assert [name for _, name in classes_found(trays)] == ["star"] * 6
        assert set(view.values("similar.label")) == {"star"}

    def test_scores_are_the_cosine_to_the_reference(self, trays: fo.Dataset) -> None:
        label = star_of(trays)
        view = refseg.find_similar(trays, label, k=12, progress=False)
        references = refseg.collect_references(trays, "ground_truth", label_ids=[label.id])
        vector = refseg.build_prototypes(references, "demo", progress=False).matrix[0]
        index = refseg.open_index(trays).index
        expected = torch.cat([chunk.features @ vector for chunk in index.scan()]).sort(descending=True).values
        assert view.values("similar.confidence") == pytest.approx(expected.tolist(), abs=1e-5)

    def test_masks_are_cut_out_whole(self, trays: fo.Dataset) -> None:
        refseg.find_similar(trays, star_of(trays), k=1, progress=False)
        sample = trays.first()
        (found,) = sample.similar.detections
        truth = whole_mask(star_of(trays))
        mask = whole_mask(found, IMAGE_HW)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7

    def test_ids_lists_and_labels_are_the_same(self, trays: fo.Dataset) -> None:
        label = star_of(trays)
        answers = [
            refseg.find_similar(trays, query, k=3, progress=False).values("similar.confidence")
            for query in (label, label.id, [label], [label.id])
        ]
        assert answers[0] == answers[1] == answers[2] == answers[3]

    def test_several_objects_of_two_classes_are_one_mean(self, trays: fo.Dataset) -> None:
        both = trays.first().ground_truth.detections
        view = refseg.find_similar(trays, both, k=12, progress=False)
        assert set(view.values("similar.label")) == {"similar"}
        assert len(view) == 12

    def test_fewer_candidates_than_asked_for(self, trays: fo.Dataset) -> None:
        assert len(refseg.find_similar(trays, star_of(trays), k=1000, progress=False)) == 12

    def test_of_overlapping_candidates_one_is_taken(self, overlapping: fo.Dataset) -> None:
        assert len(refseg.find_similar(overlapping, star_of(overlapping), k=8, progress=False)) == 4

    def test_more_are_looked_up_where_too_few_are_left(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(similar, "TIMES_MORE", 1)
        monkeypatch.setattr(similar, "MAX_SHARE", -1.0)  # one candidate an image
        view = refseg.find_similar(trays, star_of(trays), k=6, progress=False)
        assert len(set(view.values("sample_id"))) == 6

    def test_second_search_replaces_the_first(self, trays: fo.Dataset) -> None:
        refseg.find_similar(trays, star_of(trays), k=6, progress=False)
        tee = next(label for label in trays.first().ground_truth.detections if label.label == "tee")
        view = refseg.find_similar(trays, tee, k=2, progress=False)
        assert len(view) == trays.count("similar.detections") == 2

    def test_what_is_known_of_a_search(self, trays: fo.Dataset) -> None:
        star, tee = star_of(trays), next(one for one in trays.first().ground_truth.detections if one.label == "tee")
        for query, label in ((star, "star"), ([star, tee], None)):
            report = drain(similar.iter_find_similar(trays, query, 3), False)
            assert report.label == label
            (run,) = past_runs(trays, [similar.SIMILAR_METHOD])
            known = {name: run.config[name] for name in ("label", "num_found", "score_range")}
            assert known == {"label": label, "num_found": 3, "score_range": [report.scores[-1], report.scores[0]]}

    def test_what_was_found_is_named(self, trays: fo.Dataset) -> None:
        tee = next(one for one in trays.first().ground_truth.detections if one.label == "tee")
        view = refseg.find_similar(trays, [star_of(trays), tee], k=4, progress=False)
        ids = view.values("id")
        similar.name_found(trays, "similar", [*ids[:2], "6" * 24], " gear ")
        named = dict(zip(*trays.values(["similar.detections.id", "similar.detections.label"], unwind=True), strict=True))
        assert [named[one] for one in ids] == ["gear", "gear", "similar", "similar"]
        with pytest.raises(DatasetError, match="cannot name a class"):
            similar.name_found(trays, "similar", ids, " ")
        with pytest.raises(DatasetError, match=r"'ground_truth' of dataset .* was not written by find_similar"):
            similar.name_found(trays, "ground_truth", ids, "gear")

    def test_a_view_is_searched_alone(self, trays: fo.Dataset) -> None:
        view = refseg.find_similar(trays[2:4], star_of(trays), k=12, progress=False)
        assert set(view.values("sample_id")) == set(trays[2:4].values("id"))

    def test_images_not_indexed_are_left_out(self, trays: fo.Dataset, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        trays.add_samples(tray_samples(tmp_path / "more", 1, seed=5), progress=False)
        report = drain(similar.iter_find_similar(trays, star_of(trays), 3), False)
        assert report.num_left_out == 1
        assert "1 image is not indexed" in str(report)
        assert len(report.label_ids) == len(report.scores) == report.num_found == 3

    def test_view_of_patches_can_be_sorted_and_exported(self, trays: fo.Dataset) -> None:
        view = refseg.find_similar(trays, star_of(trays), k=4, progress=False)
        assert len(view.match(ViewField("similar.confidence") > view.values("similar.confidence")[2])) == 2


class TestRefused:
    def test_unknown_ids(self, trays: fo.Dataset) -> None:
        with pytest.raises(NoReferencesError, match="no labelled object with the id 'nonsense'"):
            refseg.find_similar(trays, "nonsense", progress=False)
        with pytest.raises(NoReferencesError, match=r"no labelled object with the id '6{24}'"):
            refseg.find_similar(trays, ["6" * 24, star_of(trays)], progress=False)

    def test_no_index(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 1))
        with pytest.raises(IndexNotFoundError, match="no candidate index: build one"):
            refseg.find_similar(dataset, star_of(dataset), progress=False)

    def test_nothing_of_the_view_is_indexed(self, trays: fo.Dataset, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        (sample,) = tray_samples(tmp_path / "more", 1, seed=5)
        trays.add_sample(sample)
        with pytest.raises(DatasetError, match="None of these images is indexed for 'demo'"):
            refseg.find_similar(trays.select(sample.id), star_of(trays), progress=False)

    def test_foreign_field(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"'ground_truth' of dataset .* was not written by find_similar"):
            refseg.find_similar(trays, star_of(trays), label_field="ground_truth", progress=False)
        assert trays.count("ground_truth.detections") == 12

    def test_k_below_one(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="k must be a whole number of at least 1, not 0"):
            refseg.find_similar(trays, star_of(trays), 0, progress=False)

    def test_object_too_thin(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        thin = fo.Detection(label="star", bounding_box=[0.2, 0.2, 0.3, 0.3], mask=np.zeros((48, 60), bool))
        sample.ground_truth.detections.append(thin)
        sample.save()
        with pytest.raises(BadReferenceError, match=r"cannot be compared with others .*mask is empty"):
            refseg.find_similar(trays, thin.id, progress=False)

    def test_index_of_another_encoder(self, trays: fo.Dataset) -> None:
        models = load_models("demo")
        other = dataclasses.replace(models, revisions={**models.revisions, "dinov2": "0" * 64})
        with pytest.raises(IndexMismatchError, match="built by another encoder"):
            refseg.find_similar(trays, star_of(trays), model=other, progress=False)


class TestVectorIndex:
    def test_used_beyond_the_limit(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        exact = refseg.find_similar(trays, star_of(trays), k=6, progress=False).values("similar.confidence")
        monkeypatch.setattr(similar, "EXACT_UP_TO", 3)
        steps: list[str] = []
        view = refseg.find_similar(trays, star_of(trays), k=6, progress=lambda step: steps.append(step.label))
        assert "vector index, once" in steps
        assert refseg.open_index(trays).index.has_vector_index
        assert view.values("similar.confidence") == pytest.approx(exact, abs=2e-3)
