"""The candidates nearest to references: the right ones, without the reference itself, and nothing where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import refseg
from refseg.dataset.contradictions import box_iou
from refseg.errors import DatasetError, NoReferencesError
from refseg.index.search import make_vector_index
from refseg.prototypes.prototypes import Prototypes
from refseg.runs import near_candidates, similar
from refseg.runs.near_candidates import nearest_candidates
from tests.kept import KeptDataset, kept_trays
from tests.trays import tray_samples, whole_mask

MakeDataset = Callable[..., fo.Dataset]


def build(dataset: fo.Dataset, **options: Any) -> Prototypes:
    """Prototypes of the objects of the first two trays."""
    references = refseg.collect_references(dataset[:2], "ground_truth")
    prototypes: Prototypes = refseg.build_prototypes(references, "demo", progress=False, **options)
    return prototypes


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Six indexed trays with a star and a tee each, which are their candidates, and prototypes of the first two."""

    def prepare(dataset: fo.Dataset) -> Prototypes:
        refseg.build_index(dataset, "demo", num_workers=0, progress=False)
        return build(dataset)

    with kept_trays(tmp_path_factory.mktemp("trays"), 6, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


def labels_of(dataset: fo.Dataset) -> dict[str, tuple[str, fo.Detection]]:
    """Sample id and label of each labelled object."""
    return {label.id: (sample.id, label) for sample in dataset for label in sample.ground_truth.detections}


class TestFound:
    def test_are_those_of_a_plain_loop(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        prototypes, labels = kept.made, labels_of(trays)
        found = nearest_candidates(trays, prototypes, prototypes.reference_ids, 4, progress=False)
        assert list(found) == list(prototypes.reference_ids)
        for row, name in enumerate(prototypes.reference_ids):
            sample_id, label = labels[name]
            expected = []
            for chunk in refseg.open_index(trays).index.scan():
                for number, image in enumerate(chunk.images):
                    candidates = chunk.candidates(number)
                    for box, feature in zip(candidates.boxes, candidates.features, strict=True):
                        x0, y0, x1, y1 = ((box + torch.tensor([0, 0, 1, 1])) / candidates.grid_side).tolist()
                        if image.sample_id != sample_id or box_iou((x0, y0, x1 - x0, y1 - y0), label.bounding_box) < 0.5:
                            cosine = F.cosine_similarity(feature.float(), prototypes.vectors[row], dim=0)
                            expected.append((float(cosine), image.sample_id))
            expected = sorted(expected, reverse=True)[:4]
            assert [item.similarity for item in found[name]] == pytest.approx([score for score, _ in expected], abs=1e-4)
            assert [item.sample_id for item in found[name]] == [sample_id for _, sample_id in expected]

    def test_lie_on_objects_and_name_their_image(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        name = kept.made.reference_ids[0]
        own, label = labels_of(trays)[name]
        found = nearest_candidates(trays, kept.made, [name], 11, progress=False)[name]
        # All but the reference: of its own image the other object is there.
        assert len(found) == 11
        assert [item.sample_id for item in found].count(own) == 1
        for item in found:
            sample = trays[item.sample_id]
            assert item.filepath == sample.filepath
            assert item.mask.dtype == bool
            mask = whole_mask(fo.Detection(bounding_box=item.bounding_box, mask=item.mask))
            truths = [whole_mask(one) for one in sample.ground_truth.detections if one.id != name]
            assert max((mask & truth).sum() / (mask | truth).sum() for truth in truths) > 0.7
        assert {one.label for one in trays[found[0].sample_id].ground_truth.detections} == {"star", "tee"}
        assert found[0].similarity > found[-1].similarity
        assert label.label in kept.made.classes

    def test_of_those_that_overlap_one_is_taken(self, overlapping: fo.Dataset) -> None:
        prototypes = build(overlapping)
        name = prototypes.reference_ids[0]
        found = nearest_candidates(overlapping, prototypes, [name], 8, progress=False)[name]
        assert len(found) == 3
        places = {(item.sample_id, tuple(np.round(item.bounding_box, 2))) for item in found}
        assert len(places) == 3

    def test_more_are_looked_up_where_too_few_are_left(
        self, trays: fo.Dataset, kept: KeptDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(similar, "TIMES_MORE", 1)
        found = nearest_candidates(trays, kept.made, kept.made.reference_ids, 5, progress=False)
        assert [len(near) for near in found.values()] == [5] * 4

    def test_of_negatives_too(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        negatives = [one for one in refseg.collect_references(trays[2:3], "ground_truth") if one.label == "tee"]
        prototypes = build(trays, negatives=negatives)
        (name,) = prototypes.negatives.ids  # type: ignore[union-attr]
        found = nearest_candidates(trays, prototypes, [name], 1, progress=False)
        ((near,),) = found.values()
        assert near.sample_id != labels_of(trays)[name][0]

    def test_by_the_prototypes_name(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        refseg.save_prototypes(trays, kept.made, "parts")
        name = kept.made.reference_ids[0]
        # One id is a list of one.
        by_name = nearest_candidates(trays, "parts", name, progress=False)
        given = nearest_candidates(trays.limit(1), kept.made, [name], progress=False)
        scores = [[item.similarity for item in answer[name]] for answer in (by_name, given)]
        assert scores[0] == scores[1]
        assert len(scores[0]) == 3


class TestNothing:
    def test_without_an_index(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 2))
        prototypes = build(dataset)
        assert nearest_candidates(dataset, prototypes, prototypes.reference_ids, progress=False) == {}

    def test_of_no_reference(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        assert nearest_candidates(trays, kept.made, [], progress=False) == {}

    def test_a_label_that_is_gone(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        gone, *others = kept.made.reference_ids
        trays.delete_labels(ids=[gone])
        assert list(nearest_candidates(trays, kept.made, kept.made.reference_ids, progress=False)) == others

    def test_an_image_that_is_gone(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        name = kept.made.reference_ids[0]
        before = nearest_candidates(trays, kept.made, [name], 2, progress=False)[name]
        missing = next(item.sample_id for item in before if item.sample_id not in trays[:2].values("id"))
        trays.delete_samples([missing])
        after = nearest_candidates(trays, kept.made, [name], 2, progress=False)[name]
        assert len(after) == 2
        assert missing not in {item.sample_id for item in after}

    def test_no_vector_index_is_made(self, trays: fo.Dataset, kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        name = kept.made.reference_ids[0]
        exact = nearest_candidates(trays, kept.made, [name], progress=False)[name]
        monkeypatch.setattr(similar, "EXACT_UP_TO", 11)
        assert nearest_candidates(trays, kept.made, [name], progress=False) == {}
        index = refseg.open_index(trays).index
        assert not index.has_vector_index
        # Where somebody has made one, it answers.
        make_vector_index(index)
        found = nearest_candidates(trays, kept.made, [name], progress=False)[name]
        assert [item.similarity for item in found] == pytest.approx([item.similarity for item in exact], abs=2e-3)


class TestRefused:
    def test_unknown_ids(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        with pytest.raises(NoReferencesError, match=r"know no reference or negative with the id '6{24}': choose one of theirs"):
            nearest_candidates(trays, kept.made, [kept.made.reference_ids[0], "6" * 24], progress=False)
        with pytest.raises(DatasetError, match="reference_ids must be a list of ids"):
            nearest_candidates(trays, kept.made, [5], progress=False)  # type: ignore[list-item]

    def test_number_below_one(self, trays: fo.Dataset, kept: KeptDataset) -> None:
        with pytest.raises(DatasetError, match="number must be a whole number of at least 1, not 0"):
            nearest_candidates(trays, kept.made, kept.made.reference_ids, 0, progress=False)

    def test_unknown_prototypes(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="keeps no prototypes named 'others'"):
            nearest_candidates(trays, "others", [], progress=False)


def test_prints_as_one_line(trays: fo.Dataset, kept: KeptDataset) -> None:
    name = kept.made.reference_ids[0]
    (item,) = nearest_candidates(trays, kept.made, [name], 1, progress=False)[name]
    assert repr(item).startswith("NearCandidate(sample_id=")
    assert "\n" not in repr(item)
    assert near_candidates.OWN_IOU == 0.5
