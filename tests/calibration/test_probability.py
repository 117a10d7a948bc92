"""Probabilities learnt from what leave-one-out finds: where it says much, little, and nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refseg.calibration.left_out import LeftOut
from refseg.calibration.probability import CENTER, SLOPE, calibrator_for, default_thresholds, fit_calibrator
from refseg.matching.settings import HALF, MatchSettings
from refseg.models.loaded import get_preset
from tests.synthetic import make_full, seen_twice

DEMO = get_preset("demo")


def drawn(slope: float, centers: list[float], number: int, seed: int = 0) -> LeftOut:
    """Instances that are right as often as a logistic function says."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.01, 1, number * len(centers)).astype(np.float32)
    labels = np.repeat(np.arange(len(centers)), number)
    right = rng.uniform(size=len(scores)) < 1 / (1 + np.exp(-slope * (scores - np.array(centers)[labels])))
    truth = np.where(right, labels, -1)
    return LeftOut(torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(truth), ("",) * len(scores))


class TestFit:
    @pytest.mark.parametrize(("slope", "centers"), [(9.0, [0.4, 0.55]), (25.0, [0.6, 0.5, 0.7])])
    def test_finds_what_the_instances_were_drawn_by(self, slope: float, centers: list[float]) -> None:
        found = fit_calibrator(drawn(slope, centers, 2000), len(centers), CENTER)
        assert found.slope == pytest.approx(slope, rel=0.15)
        assert found.centers.tolist() == pytest.approx(centers, abs=0.03)

    def test_says_as_often_right_as_it_is(self) -> None:
        learnt, other = drawn(12.0, [0.45, 0.6], 500), drawn(12.0, [0.45, 0.6], 4000, seed=1)
        said = fit_calibrator(learnt, 2, CENTER).probability(other.scores, other.labels)
        for part in said.argsort().chunk(10):
            assert float(said[part].mean()) == pytest.approx(float(other.right[part].float().mean()), abs=0.06)

    def test_nothing_right_teaches_nothing(self) -> None:
        """As with one reference a class: strangers alone would let nothing be found."""
        wrong = LeftOut(torch.rand(50), torch.zeros(50, dtype=torch.int64), torch.full((50,), -1), ("",) * 50)
        for found in (wrong, LeftOut(torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long(), ())):
            calibrator = fit_calibrator(found, 2, 0.4)
            assert (calibrator.slope, calibrator.centers.tolist()) == (SLOPE, pytest.approx([0.4, 0.4]))

    def test_little_moves_it_a_little(self) -> None:
        few = LeftOut(torch.tensor([0.9]), torch.tensor([0]), torch.tensor([0]), ("a",))
        found = fit_calibrator(few, 2, 0.5)
        assert 0.3 < float(found.centers[0]) <= 0.5
        assert SLOPE / 2 < found.slope < SLOPE * 2

    def test_a_class_that_is_hard_to_tell_gets_a_higher_centre(self) -> None:
        found = fit_calibrator(drawn(12.0, [0.3, 0.8], 60), 2, CENTER)
        assert float(found.centers[0]) + 0.2 < float(found.centers[1])

    def test_what_was_not_found_does_not_count(self) -> None:
        """A reference without any instance says nothing of how scores are to be read."""
        some = drawn(12.0, [0.5], 100)
        lost = replace(
            some,
            scores=torch.cat([some.scores, torch.zeros(30)]),
            labels=torch.cat([some.labels, torch.zeros(30, dtype=torch.int64)]),
            truth=torch.cat([some.truth, torch.zeros(30, dtype=torch.int64)]),
            shown=("",) * 130,
        )
        assert fit_calibrator(lost, 1, 0.5).centers.tolist() == fit_calibrator(some, 1, 0.5).centers.tolist()

    def test_order_does_not_matter(self) -> None:
        some = drawn(12.0, [0.5, 0.4], 100)
        turned = replace(some, scores=some.scores.flip(0), labels=some.labels.flip(0), truth=some.truth.flip(0))
        first, second = fit_calibrator(some, 2, 0.5), fit_calibrator(turned, 2, 0.5)
        assert first.centers.tolist() == pytest.approx(second.centers.tolist(), abs=1e-4)

    def test_within_inference_mode(self) -> None:
        """Models run in it; learning needs gradients all the same."""
        with torch.inference_mode():
            found = fit_calibrator(drawn(12.0, [0.5], 100), 1, 0.5)
        assert found.centers.tolist() == fit_calibrator(drawn(12.0, [0.5], 100), 1, 0.5).centers.tolist()


class TestForPrototypes:
    def test_only_where_something_is_known_of_surroundings(self) -> None:
        full = make_full("aabbcc", labels="010101", classes=("gear", "nut"))
        assert calibrator_for(full, DEMO, MatchSettings()) is not None
        assert calibrator_for(replace(full, surroundings=None), DEMO, MatchSettings()) is None
        assert calibrator_for(full, DEMO, MatchSettings(calibrated=False)) is None

    def test_one_shot_takes_the_preset_s_threshold_for_half(self) -> None:
        single = make_full("ab", labels="01", classes=("gear", "nut"))
        found = calibrator_for(single, DEMO, MatchSettings())
        assert found is not None
        assert found.centers.tolist() == pytest.approx([DEMO.typical_threshold] * 2)

    def test_thresholds(self) -> None:
        full = make_full("aabbcc", labels="010101", classes=("gear", "nut"))
        calibrator = calibrator_for(full, DEMO, MatchSettings())
        assert default_thresholds(full, DEMO, MatchSettings(), calibrator) == {"gear": HALF, "nut": HALF}
        assert default_thresholds(full, DEMO, MatchSettings(), None) == dict.fromkeys(("gear", "nut"), DEMO.min_confidence)
        twice = seen_twice(full)
        assert default_thresholds(twice, DEMO, MatchSettings(calibrated=False), None) == {"gear": CENTER, "nut": CENTER}
        assert default_thresholds(full, get_preset("paper"), MatchSettings(), None) == {"gear": 0.0, "nut": 0.0}
