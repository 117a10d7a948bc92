"""The second look: which candidates are worth one, what counts of both looks, and when there is none."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.candidates.proposing import Candidates
from refseg.candidates.second_look import CutOut, look_again
from refseg.matching.cropping import crop_instances
from refseg.matching.gallery import make_gallery
from refseg.matching.matcher import make_matcher
from refseg.matching.second_look import LEAST, Looked, SecondLooks, look_at, look_at_file, pick, prepare_second_looks
from refseg.matching.settings import PUBLISHED, MatchSettings
from refseg.matching.similarity import Classified, classify, similarities
from refseg.matching.whitening import fit_whitening
from refseg.models.loaded import Models, get_preset
from refseg.prototypes.prototypes import Prototypes
from tests.synthetic import WIDTH, make_candidates, make_full, random_unit, rank_all, seen_twice
from tests.tolerance import assert_near

DEMO = get_preset("demo")
FULL = seen_twice(make_full("aabbccddee", labels="0012201210"))


def prepared(prototypes: Prototypes = FULL, settings: MatchSettings | None = None) -> SecondLooks:
    chosen = settings or MatchSettings()
    found = prepare_second_looks(prototypes, DEMO, chosen, make_gallery(prototypes, chosen))
    assert found is not None
    return found


def squares(*places: tuple[int, int], quality: tuple[float, ...]) -> Candidates:
    logits = torch.full((len(places), 32, 32), -5.0)
    for row, (x, y) in enumerate(places):
        logits[row, y : y + 8, x : x + 8] = 5.0
    features = random_unit(torch.Generator().manual_seed(0), len(places), WIDTH)
    return Candidates(logits, torch.tensor(quality), features, (64, 64))


def scored(*scores: float) -> Classified:
    rows = torch.zeros(len(scores), dtype=torch.int64)
    return Classified(torch.tensor(scores), rows, torch.tensor(scores), rows + 1)


class TestPick:
    def test_the_highest_scores_times_predicted_iou(self) -> None:
        found = squares((0, 0), (10, 0), (20, 0), (0, 10), quality=(0.52, 0.9, 0.8, 0.6))
        assert pick(found, scored(0.9, 0.5, 0.9, 0.8), 3).tolist() == [2, 3, 0]

    def test_one_in_each_place(self) -> None:
        """That of the highest predicted IoU, whatever its score."""
        found = squares((0, 0), (1, 0), (20, 20), quality=(0.7, 0.9, 0.5))
        assert pick(found, scored(0.9, 0.2, 0.9), 3).tolist() == [2, 1]

    def test_what_is_like_no_class_is_not_worth_it(self) -> None:
        found = squares((0, 0), (10, 0), quality=(0.7, 0.9))
        assert pick(found, scored(0.0, 0.2), 3).tolist() == [1]
        assert pick(found, scored(0.0, 0.0), 3).tolist() == []

    def test_of_nothing(self) -> None:
        assert pick(squares(quality=()), scored(), 3).tolist() == []


class TestCombine:
    def test_those_looked_at_are_scored_by_that_alone(self) -> None:
        second = prepared().make()
        features = random_unit(torch.Generator().manual_seed(4), 6, WIDTH)
        looks = random_unit(torch.Generator().manual_seed(5), 2, 2 * WIDTH)
        first = classify(features, make_gallery(FULL, MatchSettings()))
        both = second.combine(first, Looked(torch.tensor([4, 1]), looks))
        again = classify(second.whitening.apply(looks), second.gallery)
        for name in ("scores", "labels", "margins", "runners_up"):
            assert torch.equal(getattr(both, name)[[4, 1]], getattr(again, name))
        assert both.labels[[0, 2, 3, 5]].tolist() == first.labels[[0, 2, 3, 5]].tolist()

    def test_others_keep_their_order_behind(self) -> None:
        second = prepared().make()
        first = scored(0.9, 0.5, 0.7, 0.0, 0.2)
        alone = second.combine(first, None)
        assert alone.scores.argsort(descending=True).tolist() == [0, 2, 1, 4, 3]
        assert alone.scores[3] == 0, "what is like no class stays so"
        looked = Looked(torch.tensor([4]), random_unit(torch.Generator().manual_seed(5), 1, 2 * WIDTH))
        beside = second.combine(first, looked)
        assert bool((beside.scores[:3] < alone.scores[:3]).all()), "the better ones were looked at"

    def test_a_row_of_zeros_counts_as_not_looked_at(self) -> None:
        second, first = prepared().make(), scored(0.9, 0.5)
        blind = second.combine(first, Looked(torch.tensor([0]), torch.zeros(1, 2 * WIDTH)))
        assert torch.equal(blind.scores, second.combine(first, None).scores)

    def test_does_not_change_what_it_is_given(self) -> None:
        first = scored(0.9, 0.5)
        looked = Looked(torch.tensor([0]), random_unit(torch.Generator().manual_seed(5), 1, 2 * WIDTH))
        prepared().make().combine(first, looked)
        assert (first.scores.tolist(), first.labels.tolist()) == (pytest.approx([0.9, 0.5]), [0, 0])

    def test_expects_what_the_cohort_shows(self) -> None:
        """The line through candidates seen twice, by numpy."""
        second = prepared().make()
        assert FULL.cohort is not None
        first = classify(FULL.cohort.features.float(), make_gallery(FULL, MatchSettings()))
        white = second.whitening.apply(FULL.cohort.looks.float())
        values = similarities(white, second.gallery).gather(1, first.labels[:, None])[:, 0]
        slope, offset = np.polyfit(first.scores.numpy(), values.numpy(), 1)
        assert slope > 0
        assert (second.slope, second.offset) == pytest.approx((slope, offset), abs=1e-4)
        expected = second.combine(scored(0.5), None).scores
        assert float(expected) == pytest.approx(max(0.0, offset + 0.5 * slope) + LEAST * 0.5, abs=1e-4)


class TestPrepare:
    def test_none_where_candidates_are_looked_at_once(self) -> None:
        nothing = replace(FULL, looks=None)
        for prototypes, preset, settings in (
            (FULL, DEMO, MatchSettings(second_look=False)),
            (FULL, DEMO, PUBLISHED),
            (FULL, get_preset("paper"), MatchSettings()),
            (nothing, DEMO, MatchSettings()),
            (replace(FULL, cohort=None, surroundings=None), DEMO, MatchSettings()),
        ):
            assert prepare_second_looks(prototypes, preset, settings, make_gallery(prototypes, settings)) is None

    def test_a_class_without_any_look_takes_it_from_all(self) -> None:
        """Else nothing could ever be of that class."""
        assert FULL.looks is not None
        blind = replace(FULL, looks=FULL.looks * (FULL.labels != 1)[:, None])
        assert prepare_second_looks(blind, DEMO, MatchSettings(), make_gallery(blind)) is None

    def test_a_reference_without_look_is_left_out(self) -> None:
        assert FULL.looks is not None
        keep = torch.ones(len(FULL.labels))
        keep[3] = 0
        found = prepared(replace(FULL, looks=(FULL.looks * keep[:, None]).half())).make()
        assert bool(found.gallery.has_vectors.all())
        assert not torch.equal(found.gallery.vectors, prepared().make().gallery.vectors)

    def test_whitened_by_the_cohort_else_by_what_lies_around(self) -> None:
        around = seen_twice(make_full("abcdefghijkl"))
        assert around.cohort is not None
        assert around.surroundings is not None
        own = fit_whitening(around.cohort.looks.float())
        assert own is not None
        assert_near(prepared(around).make().whitening.matrix, own.matrix)
        other = fit_whitening(around.surroundings.looks.float() if around.surroundings.looks is not None else torch.zeros(0, 1))
        assert other is not None
        assert_near(prepared(replace(around, cohort=None)).make().whitening.matrix, other.matrix)

    def test_not_whitened(self) -> None:
        found = prepared(settings=MatchSettings(whiten=False, negatives=False)).make()
        assert torch.equal(found.whitening.matrix, torch.eye(2 * WIDTH))
        assert FULL.looks is not None
        own = FULL.looks[FULL.labels == 0].float()
        mean = (own / own.norm(dim=1, keepdim=True)).mean(0)
        assert_near(found.gallery.vectors[0], mean / mean.norm(), at_most=1e-5)

    def test_without_an_image(self) -> None:
        """As if its references had never been shown; what the dataset is full of stays."""
        seconds = prepared(settings=MatchSettings(negatives=False))
        left = seconds.make("a")
        rows = [row for row, image in enumerate(FULL.images) if image != "a" and int(FULL.labels[row]) == 0]
        assert FULL.looks is not None
        mean = left.whitening.apply(FULL.looks[rows].float()).mean(0)
        assert_near(left.gallery.vectors[0], mean / mean.norm(), at_most=1e-5)
        assert not torch.equal(left.gallery.vectors, seconds.make().gallery.vectors)

    def test_a_class_that_fills_the_dataset_is_found_all_the_same(self) -> None:
        """Its look is what everything has in common, and whitening takes a part of that away, never all."""
        assert FULL.cohort is not None
        assert FULL.looks is not None
        own = FULL.looks[FULL.labels == 0].float().mean(0)
        generator = torch.Generator().manual_seed(0)
        many = own + 0.25 * torch.randn(60, 2 * WIDTH, generator=generator)
        full = replace(FULL, cohort=replace(FULL.cohort, looks=(many / many.norm(dim=1, keepdim=True)).half()))
        second = prepared(full, MatchSettings(negatives=False)).make()
        found = classify(second.whitening.apply(own + 0.1 * torch.randn(20, 2 * WIDTH, generator=generator)), second.gallery)
        assert bool((found.labels == 0).all())
        assert float(found.scores.min()) > 0


class TestLookAt:
    @pytest.fixture
    def image(self) -> Image.Image:
        return Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))

    def test_cuts_masks_as_a_run_does(self, image: Image.Image, models: Models) -> None:
        found = replace(make_candidates(6), image_hw=(image.height, image.width))
        looks = look_at(image, found, [4, 0], models)
        cut = crop_instances(found, rank_all(found))
        for look, row in zip(looks, (4, 0), strict=True):
            place = cut.rows.tolist().index(row)
            x0, y0, x1, y1 = cut.boxes[place].tolist()
            alone = look_again(image, [CutOut(cut.masks[place], (x0, y0), (x0, y0, x1, y1))], models)[0]
            assert_near(look, alone, at_most=2e-3)

    def test_of_no_rows(self, image: Image.Image, models: Models) -> None:
        assert look_at(image, make_candidates(3, image_hw=(120, 160)), [], models).shape == (0, models.look_width)

    def test_of_a_file(self, image: Image.Image, models: Models, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        image.save(path)
        found = make_candidates(3, image_hw=(120, 160))
        looked = look_at_file(str(path), found, torch.tensor([1, 2]), models)
        assert looked is not None
        assert looked.rows.tolist() == [1, 2]
        assert torch.equal(looked.looks, look_at(image, found, [1, 2], models))

    def test_a_file_that_is_gone_or_another_is_said(
        self, image: Image.Image, models: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        found, rows = make_candidates(3, image_hw=(120, 160)), torch.tensor([1])
        with caplog.at_level(logging.WARNING):
            assert look_at_file(str(tmp_path / "gone.png"), found, rows, models) is None
            image.resize((80, 60)).save(tmp_path / "a.png")
            assert look_at_file(str(tmp_path / "a.png"), found, rows, models) is None
        assert "gone.png" in caplog.text
        assert "another size" in caplog.text

    def test_without_rows_the_file_is_not_opened(self, models: Models, tmp_path: Path) -> None:
        looked = look_at_file(str(tmp_path / "gone.png"), make_candidates(3), torch.zeros(0, dtype=torch.int64), models)
        assert looked is not None
        assert len(looked.rows) == 0


class TestInTheMatcher:
    def test_scores_are_those_of_second_looks(self) -> None:
        thresholds = dict.fromkeys(FULL.classes, 0.0)
        matcher = make_matcher(FULL, DEMO, MatchSettings(), thresholds)
        found = make_candidates(12)
        rows = matcher.pick(found)
        assert 0 < len(rows) <= DEMO.second_looks
        looked = Looked(rows, random_unit(torch.Generator().manual_seed(3), len(rows), 2 * WIDTH))
        ranking = matcher.rank(found, looked=looked)
        again = matcher.scored(matcher.classify(found.features), looked)
        best = int(ranking.rows[0])
        assert float(ranking.scores[0]) == pytest.approx(float(again.scores[best]), abs=1e-6)
        assert not torch.equal(ranking.rows, matcher.rank(found).rows)

    def test_none_is_picked_where_candidates_are_looked_at_once(self) -> None:
        matcher = make_matcher(FULL, DEMO, MatchSettings(second_look=False), dict.fromkeys(FULL.classes, 0.0))
        assert matcher.second is None
        assert len(matcher.pick(make_candidates(12))) == 0

    def test_known_looks_alone(self) -> None:
        thresholds = dict.fromkeys(FULL.classes, 0.0)
        assert make_matcher(FULL, DEMO, MatchSettings(), thresholds).looks_anew
        assert not make_matcher(FULL, DEMO, MatchSettings(second_look="known"), thresholds).looks_anew
