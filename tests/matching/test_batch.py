"""Images matched together are each as if it were alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pyarrow as pa
import pytest
import torch

from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from refseg.matching import batch as batches
from refseg.matching.batch import Batch
from refseg.matching.calibrator import Calibrator
from refseg.matching.matcher import Matcher, make_matcher
from refseg.matching.ranking import rank, rank_batch
from refseg.matching.second_look import Looked
from refseg.matching.settings import MatchSettings, Overlaps
from refseg.matching.similarity import Classified, Gallery, classify
from refseg.models.loaded import get_preset
from tests.synthetic import WIDTH, make_full, make_matrix, make_spots, random_unit, seen_twice, take
from tests.tolerance import assert_near

SIZES = (40, 0, 7, 60, 1)
FULL = seen_twice(make_full("aabbccddee", labels="0012201210"))


def images(*, packed: bool) -> list[Candidates | PackedCandidates]:
    """Of SIZES candidates, many of which overlap."""
    spots = [take(make_spots(60, seed), torch.arange(count)) for seed, count in enumerate(SIZES)]
    return [pack(own) if packed else own for own in spots]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("overlaps", get_args(Overlaps))
@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("max_detections", [2, 100])
def test_ranked_as_if_alone(packed: bool, overlaps: Overlaps, as_published: bool, max_detections: int) -> None:
    every = images(packed=packed)
    classified = classify(torch.cat([own.features for own in every]), Gallery(make_matrix()))
    batch = Batch.of(every)
    options: dict[str, Any] = {"max_detections": max_detections, "overlaps": overlaps, "as_published": as_published}
    for least in (0.2, torch.tensor([0.3, float("inf"), 0.1])):
        found = rank_batch(batch, classified, min_score=least, **options)
        assert [len(ranking) > 0 for ranking in found[:4]] == [True, False, True, True]
        for number, (own, ranking) in enumerate(zip(every, found, strict=True)):
            first = classified.take(slice(int(batch.starts[number]), int(batch.starts[number + 1])))
            alone = rank(own, first, min_score=least, **options)
            for name in ("rows", "labels", "scores", "margins", "runners_up"):
                assert torch.equal(getattr(ranking, name), getattr(alone, name)), name


@pytest.mark.parametrize("boxes_at_once", [1, 50, 10_000])
def test_however_many_boxes_are_compared_at_once(monkeypatch: pytest.MonkeyPatch, boxes_at_once: int) -> None:
    every = images(packed=True)
    classified = classify(torch.cat([own.features for own in every]), Gallery(make_matrix()))
    before = rank_batch(Batch.of(every), classified)
    monkeypatch.setattr(batches, "BOXES_AT_ONCE", boxes_at_once)
    for one, other in zip(before, rank_batch(Batch.of(every), classified), strict=True):
        assert torch.equal(one.rows, other.rows)


def test_of_equal_predicted_iou_the_first_wins_in_each_image() -> None:
    """Wherever an image lies among the others."""
    spots = make_spots(20, 3)
    one = pack(replace(spots, predicted_iou=torch.full((20,), 0.5)))
    classified = classify(torch.cat([one.features] * 3), Gallery(make_matrix()))
    first, *others = rank_batch(Batch.of([one] * 3), classified)
    for other in others:
        assert torch.equal(other.rows, first.rows)


def test_boxes_of_many_classes_on_a_large_grid_are_compared_to_the_cell() -> None:
    """Two of 3 × 3 cells, one cell apart, have an IoU of a half, however many classes come before theirs."""
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [4000.0, 0.0, 4003.0, 3.0], [4001.0, 0.0, 4004.0, 3.0]])
    text = pa.array([b""] * 3, pa.binary())
    quality = torch.tensor([0.5, 0.9, 0.8])
    one = PackedCandidates(text, text, boxes, quality, torch.zeros(3, WIDTH), (4096, 4096), 4096)
    rows = torch.arange(3)
    labels = torch.tensor([0, 9999, 9999])
    assert Batch.of([one]).thinned(rows, quality, labels, 0.5).tolist() == [1, 2, 0]
    assert Batch.of([one]).thinned(rows, quality, labels, 0.49).tolist() == [1, 0]


def test_probabilities_put_each_image_in_another_order() -> None:
    """A class that is hard to be sure of falls behind one that is easy, and takes everything of its own along."""
    text = pa.array([b""] * 3, pa.binary())
    apart = torch.tensor([[0.0, 0.0, 3.0, 3.0], [10.0, 0.0, 13.0, 3.0], [20.0, 0.0, 23.0, 3.0]])
    one = PackedCandidates(text, text, apart, torch.tensor([0.7, 0.8, 0.9]), torch.zeros(3, WIDTH), (64, 64), 64)
    own = Classified(torch.tensor([0.7, 0.6, 0.5]), torch.tensor([1, 1, 0]), torch.tensor([0.1, 0.2, 0.3]), torch.arange(3))
    both = Classified(*(torch.cat([column, column.flip(0)]) for column in vars(own).values()))
    calibrator = Calibrator(8.0, torch.tensor([0.4, 0.6]))
    expected = calibrator.probability(own.scores, own.labels)
    first, second = rank_batch(Batch.of([one, one]), both, calibrator=calibrator)
    assert first.rows.tolist() == [0, 2, 1]
    assert second.rows.tolist() == [2, 0, 1]
    for ranking in (first, second):
        assert torch.equal(ranking.scores, expected[[0, 2, 1]])
        assert torch.equal(ranking.labels, own.labels[[0, 2, 1]])
        assert torch.equal(ranking.margins, own.margins[[0, 2, 1]])


class TestMatcher:
    @pytest.fixture
    def matcher(self) -> Matcher:
        return replace(
            make_matcher(FULL, get_preset("demo"), MatchSettings(), dict.fromkeys(FULL.classes, 0.1)), tells_presence=True
        )

    def test_with_second_looks_at_some(self, matcher: Matcher) -> None:
        """One image was looked at again, one in part, the others not at all."""
        every = images(packed=True)
        batch = Batch.of(every)
        classified = matcher.classify(torch.cat([own.features for own in every]))
        picked = matcher.pick_batch(batch, classified)
        for number, own in enumerate(every):
            first = classified.take(slice(int(batch.starts[number]), int(batch.starts[number + 1])))
            assert torch.equal(picked[number], matcher.pick(own, first))
        assert [0 < len(rows) <= get_preset("demo").second_looks for rows in picked] == [True, False, True, True, True]
        generator = torch.Generator().manual_seed(2)
        looked = [Looked(rows, random_unit(generator, len(rows), 2 * WIDTH)) for rows in picked[:3]]
        looked[2] = Looked(picked[2][:1], looked[2].looks[:1])
        known = [*looked, None, None]
        together = matcher.rank_batch(batch, classified, known)
        for number, own in enumerate(every):
            first = classified.take(slice(int(batch.starts[number]), int(batch.starts[number + 1])))
            alone = matcher.rank(own, first, known[number])
            assert torch.equal(together[number].rows, alone.rows)
            assert_near(together[number].scores, alone.scores)
            assert together[number].presence is not None
            assert alone.presence is not None
            assert_near(together[number].presence, alone.presence)
        assert not torch.equal(together[0].rows, matcher.rank_batch(batch, classified, [None] * 5)[0].rows)
