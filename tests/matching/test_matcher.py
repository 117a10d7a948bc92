"""Prototypes made ready to be matched: thresholds by class, bounds, and the settings that reach each part."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from refseg.candidates.proposing import Candidates
from refseg.matching.calibrator import Calibrator
from refseg.matching.gallery import make_gallery
from refseg.matching.matcher import Matcher, make_matcher
from refseg.matching.ranking import match
from refseg.matching.settings import MatchSettings, Overlaps
from refseg.matching.similarity import classify
from refseg.models.loaded import get_preset
from refseg.prototypes.prototypes import Prototypes
from tests.synthetic import GRID, WIDTH, assert_consistent, make_full, make_spots

PRESET = get_preset("demo")


def matcher_of(
    prototypes: Prototypes, thresholds: dict[str, float], settings: MatchSettings | None = None, **options: Any
) -> Matcher:
    return make_matcher(prototypes, PRESET, settings or MatchSettings(), thresholds, **options)


class TestMatcher:
    def test_is_match_with_its_parts(self) -> None:
        full, spots = make_full("abcdef"), make_spots(40)
        for settings in (MatchSettings(), MatchSettings(class_similarity="nearest", overlaps="diffusion", background=True)):
            matcher = matcher_of(full, {"gear": 0.3, "nut": 0.1, "ring": 0.2}, settings, max_detections=7)
            found = matcher.match(spots)
            least = torch.tensor([0.3, 0.1, 0.2])
            expected = match(spots, make_gallery(full, settings), max_detections=7, min_score=least, overlaps=settings.overlaps)
            assert 0 < len(found) <= 7
            assert torch.equal(found.rows, expected.rows)
            assert torch.equal(found.scores, expected.scores)
            assert_consistent(found, spots)

    def test_diffusion_and_merging_differ(self) -> None:
        full, spots = make_full("abcdef"), make_spots(40)
        every = dict.fromkeys(full.classes, 0.0)
        merged, diffused = (matcher_of(full, every, MatchSettings(overlaps=kind)).rank(spots) for kind in get_args(Overlaps))
        assert sorted(merged.rows.tolist()) == sorted(diffused.rows.tolist())
        assert merged.scores.tolist() != diffused.scores.tolist()
        before = classify(spots.features, make_gallery(full)).scores
        for ranking in (merged, diffused):
            assert bool((ranking.scores <= before[ranking.rows] + 1e-6).all())

    def test_classes_without_a_threshold_are_left_out_but_compete(self) -> None:
        full, spots = make_full("abcdef"), make_spots(40)
        matcher = matcher_of(full, {"nut": 0.1})
        assert matcher.thresholds == {"nut": 0.1}
        assert matcher.least.tolist() == [math.inf, pytest.approx(0.1), math.inf]
        found = matcher.match(spots)
        assert set(found.labels.tolist()) == {1}
        assert set(found.rows.tolist()) <= set((matcher.classify(spots.features).labels == 1).nonzero()[:, 0].tolist())

    def test_as_the_preset_says(self) -> None:
        """Published, a mask that is like no class pushes out one of the first class in its place."""
        logits = torch.full((2, GRID, GRID), -1.0)
        logits[:, 4:12, 4:12] = 1
        candidates = Candidates(logits, torch.tensor([0.9, 0.8]), torch.eye(2, WIDTH).flip(0), (16, 16))
        one = Prototypes(("gear",), torch.eye(1, WIDTH), torch.tensor([0]), ("r",), "demo", "f00")
        for as_published, rows in ((False, [1]), (True, [])):
            preset = replace(PRESET, as_published=as_published)
            matcher = make_matcher(one, preset, MatchSettings(), {"gear": 0.0})
            assert matcher.as_published == as_published
            assert matcher.match(candidates).rows.tolist() == rows

    def test_what_was_classified_together_is_ranked_alike(self) -> None:
        full, images = make_full("abcdef"), [make_spots(10, seed) for seed in range(3)]
        matcher = matcher_of(full, dict.fromkeys(full.classes, 0.1))
        together = matcher.classify(torch.cat([spots.features for spots in images]))
        for number, spots in enumerate(images):
            ranking = matcher.rank(spots, together.take(slice(10 * number, 10 * number + 10)))
            assert ranking.rows.tolist() == matcher.rank(spots).rows.tolist()

    @pytest.mark.parametrize("overlaps", get_args(Overlaps))
    def test_no_score_is_above_its_bound(self, overlaps: Overlaps) -> None:
        full, spots = make_full("abcdef"), make_spots(40)
        matcher = matcher_of(full, {"gear": 0.3, "ring": 0.2}, MatchSettings(overlaps=overlaps))
        classified = matcher.classify(spots.features)
        bounds, ranking = matcher.bounds(classified), matcher.rank(spots)
        assert len(ranking) > 0
        assert bool((ranking.scores <= bounds[ranking.rows] + 1e-6).all())
        # What falls short of its class's threshold, or is of a class that is not written, has none to speak of.
        for bound, score, label in zip(bounds.tolist(), classified.scores.tolist(), classified.labels.tolist(), strict=True):
            written = label != 1 and score >= float(matcher.least[label])
            assert bound == (score if written else 0.0)
        assert 0 < int((bounds > 0).sum()) < 40

    @pytest.mark.parametrize("overlaps", get_args(Overlaps))
    @pytest.mark.parametrize("max_detections", [1, 100])
    def test_presence_is_the_chance_of_any_and_changes_nothing(self, overlaps: Overlaps, max_detections: int) -> None:
        full, spots, settings = make_full("abcdef"), make_spots(60), MatchSettings(overlaps=overlaps)
        calibrator = Calibrator(10.0, torch.tensor([0.5, 0.4, 0.3]))
        options = {"max_detections": max_detections, "calibrator": calibrator}
        for thresholds in ({"gear": 0.3, "ring": 1.0}, {"gear": 0.6, "nut": 0.02, "ring": 0.3}):
            plain = matcher_of(full, thresholds, settings, **options)
            expected, found = plain.rank(spots), replace(plain, tells_presence=True).rank(spots)
            for name in ("rows", "labels", "scores", "margins", "runners_up"):
                assert torch.equal(getattr(found, name), getattr(expected, name))
            assert expected.presence is None
            assert found.presence is not None
            every = matcher_of(full, dict.fromkeys(thresholds, 0.0), settings, **options).rank(spots)
            by_hand = []
            for row, name in enumerate(full.classes):
                scores = [
                    score for score, label in zip(every.scores.tolist(), every.labels.tolist(), strict=True) if label == row
                ]
                by_hand.append(1 - math.prod(1 - score for score in scores) if name in thresholds else 0.0)
            assert found.presence.tolist() == pytest.approx(by_hand, abs=1e-6)
            for score, label in zip(found.scores.tolist(), found.labels.tolist(), strict=True):
                assert found.presence[label] >= score

    def test_of_nothing(self) -> None:
        matcher = matcher_of(make_full("abcdef"), {"gear": 0.1})
        nothing = make_spots(0)
        assert len(matcher.match(nothing)) == len(matcher.bounds(matcher.classify(nothing.features))) == 0
        presence = replace(matcher, tells_presence=True).rank(nothing).presence
        assert presence is not None
        assert presence.tolist() == [0.0, 0.0, 0.0]
