"""The merge at the image's size looks at few pairs of masks, and gives what looking at all of them does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refseg.candidates import borders
from refseg.candidates.packing import PackedCandidates, pack, shares_of_codes
from refseg.candidates.proposing import Candidates
from refseg.masks.rle import encode_crop
from refseg.matching import cropping, full_size, merging, ranking
from refseg.matching.full_size import FullSize
from refseg.matching.merging import merge_full_size
from refseg.matching.overlaps import merge_shares
from refseg.matching.ranking import match, rank
from refseg.matching.similarity import Gallery, classify
from tests.synthetic import make_matrix, make_spots, random_unit
from tests.tolerance import assert_near

IMAGE_HW = (150, 220)


def merge_plainly(candidates: Candidates | PackedCandidates, rows: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """Every mask resized by itself and compared with every other of its label."""
    codes = []
    for cut in cropping._one_by_one(candidates, rows):
        mask, corner = (torch.zeros(0, 0, dtype=torch.bool), (0, 0)) if cut is None else (cut[0], cut[1][:2])
        codes.append(encode_crop(mask.numpy(), corner, candidates.image_hw))
    shares = shares_of_codes(codes, labels, torch.ones(len(rows), dtype=torch.bool))
    return merge_shares(shares, candidates.features[rows], scores)


def spots(seed: int, count: int = 80) -> Candidates:
    """Masks that lie over and within each other; features of all cosines."""
    return replace(make_spots(count, seed, IMAGE_HW), features=random_unit(torch.Generator().manual_seed(seed), count, 3))


def of_labels(number: int, count: int = 80, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in the order of a rank, the labels of these and their scores."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(count, generator=generator)
    return rows, torch.randint(number, (count,), generator=generator), torch.rand(count, generator=generator)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("num_labels", [1, 3, 40])
@pytest.mark.parametrize("seed", range(3))
def test_is_what_all_pairs_give(packed: bool, num_labels: int, seed: int) -> None:
    candidates = pack(spots(seed)) if packed else spots(seed)
    rows, labels, scores = of_labels(num_labels, len(candidates), seed)
    expected = merge_plainly(candidates, rows, labels, scores)
    found = merge_full_size(candidates, rows, labels, scores, torch.ones(len(rows), dtype=torch.bool))
    assert torch.equal(found, expected)
    assert bool((expected < scores - 0.05).any())


def test_scores_that_are_not_wanted_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = spots(4)
    rows, labels, scores = of_labels(2)
    wanted = torch.arange(80) % 3 == 0
    found = merge_full_size(candidates, rows, labels, scores, wanted)
    every = merge_full_size(candidates, rows, labels, scores, torch.ones(80, dtype=torch.bool))
    assert torch.equal(found, every.where(wanted, scores))
    assert not torch.equal(found, every)


@pytest.mark.parametrize("words", [1, 300])
def test_labels_that_are_not_held_together(monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    candidates = spots(1)
    rows, labels, scores = of_labels(5)
    wanted = torch.ones(80, dtype=torch.bool)
    together = merge_full_size(candidates, rows, labels, scores, wanted)
    sizes = []
    resize = full_size.resize
    monkeypatch.setattr(full_size, "resize", lambda given, some: sizes.append(len(some)) or resize(given, some))
    monkeypatch.setattr(merging, "WORDS_AT_ONCE", words)
    assert torch.equal(merge_full_size(candidates, rows, labels, scores, wanted), together)
    assert (sum(sizes), len(sizes) > 1) == (80, True)


def test_few_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask within a better one of the same kind cannot lose more to any other."""
    logits = torch.full((30, 32, 32), -3.0)
    logits[:, 4:28, 4:28] = 3.0
    candidates = Candidates(logits, torch.ones(30), torch.tensor([[1.0, 0.0]]).repeat(30, 1), (64, 64))
    asked = []
    num_shared = FullSize.num_shared
    monkeypatch.setattr(FullSize, "num_shared", lambda self, *pair: asked.append(pair) or num_shared(self, *pair))
    wanted, scores = torch.ones(30, dtype=torch.bool), torch.ones(30)
    found = merge_full_size(candidates, torch.arange(30), torch.zeros(30, dtype=torch.int64), scores, wanted)
    assert found.tolist() == [1.0, *[0.0] * 29]
    # All other bounds are as good, and no better.
    assert len(asked) == 30 * 29 / 2
    asked.clear()
    turned = torch.stack([torch.linspace(0, 1.4, 30).cos(), torch.linspace(0, 1.4, 30).sin()], 1)
    others = merge_full_size(
        replace(candidates, features=turned), torch.arange(30), torch.zeros(30, dtype=torch.int64), scores, wanted
    )
    assert len(asked) == 29
    step = 1.4 / 29
    assert_near(others[1:], torch.full((29,), (1 - torch.tensor(step).cos()).sqrt().item()), at_most=1e-3)


@pytest.mark.parametrize("packed", [False, True])
def test_ranks_as_published_alike_in_either_way(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    candidates = pack(make_spots(60, 2, IMAGE_HW)) if packed else make_spots(60, 2, IMAGE_HW)
    gallery = Gallery(make_matrix(2, 0))
    found = match(candidates, gallery, as_published=True)
    monkeypatch.setattr(ranking.full_size, "fits", lambda candidates: False)
    expected = match(candidates, gallery, as_published=True)
    assert len(found) > 10
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.boxes, expected.boxes)
    assert all(torch.equal(own, other) for own, other in zip(found.masks, expected.masks, strict=True))


def test_candidates_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done where numpy cannot read the logits, done here."""
    candidates, gallery = make_spots(60, 2, IMAGE_HW), Gallery(make_matrix(2, 0))
    expected = match(candidates, gallery, as_published=True)
    monkeypatch.setattr(borders, "_is_here", lambda logits: False)
    found = match(replace(candidates), gallery, as_published=True)
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.scores, expected.scores)
    assert all(torch.equal(own, other) for own, other in zip(found.masks, expected.masks, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_candidates_on_a_gpu() -> None:
    candidates, gallery = make_spots(60, 2, IMAGE_HW), Gallery(make_matrix(2, 0))
    there = replace(
        candidates,
        logits=candidates.logits.cuda(),
        predicted_iou=candidates.predicted_iou.cuda(),
        features=candidates.features.cuda(),
    )
    for as_published in (False, True):
        found, expected = (match(given, gallery, as_published=as_published) for given in (there, candidates))
        assert torch.equal(found.rows, expected.rows)
        assert torch.equal(found.boxes, expected.boxes)
        assert_near(found.scores, expected.scores)


def test_masks_that_touch_at_full_size_alone() -> None:
    """On the grid they lie beside each other; a pixel half way between them may be of both."""
    logits = torch.full((2, 16, 16), -1.0)
    logits[0, 4:12, 4:8], logits[1, 4:12, 8:12] = 8.0, 8.0
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    candidates = Candidates(logits, torch.tensor([0.9, 0.8]), features, (64, 64))
    classified = classify(features, Gallery(torch.tensor([[1.0, 0.0]])))
    assert rank(candidates, classified).scores.tolist() == [1.0, 1.0]
    published = rank(candidates, classified, as_published=True).scores
    expected = merge_plainly(candidates, torch.arange(2), torch.zeros(2, dtype=torch.int64), torch.ones(2))
    assert float(expected[1]) < 0.95
    assert_near(published, expected, at_most=1e-6)
