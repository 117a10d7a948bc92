"""Calibrated thresholds: leave-one-out against a plain loop, and thresholds of scores that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from refseg.calibration import thresholds as calibration
from refseg.calibration.thresholds import LeftOut, calibrated_thresholds, expected_f1, leave_one_out
from refseg.matching.gallery import make_gallery
from refseg.matching.settings import MatchSettings
from refseg.matching.similarity import classify
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings
from tests.synthetic import WIDTH, make_full, without_image

DEFAULT = 0.5
SETTINGS = [
    MatchSettings(),
    MatchSettings(class_similarity="nearest", background=True),
    MatchSettings(class_similarity="clusters", negatives=False),
]


class TestLeaveOneOut:
    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_is_a_plain_loop(self, settings: MatchSettings) -> None:
        # Each class has references in two images at least; the negatives, one an image, are left out with theirs.
        full = make_full("aabbccddee", labels="0012201210")
        around = full.surroundings
        assert around is not None
        found = leave_one_out(full, settings)
        assert found.shown == around.shown
        for row, (feature, image, shown) in enumerate(zip(around.features, around.images, around.shown, strict=True)):
            left = without_image(full, image)
            assert left.classes == full.classes
            classified = classify(feature[None].float(), make_gallery(left, settings))
            assert float(found.scores[row]) == pytest.approx(float(classified.scores), abs=1e-5)
            if float(classified.margins) > 1e-5:
                assert int(found.labels[row]) == int(classified.labels)
            own = int(full.labels[full.reference_ids.index(shown)]) if shown else -1
            assert int(found.truth[row]) == own
        assert len(set(found.labels.tolist())) > 1

    def test_has_not_seen_the_image(self) -> None:
        """What shows a reference is more like it than like the others of its class."""
        full = make_full("abcdef", labels="000111", classes=("gear", "nut"))
        assert full.surroundings is not None
        settings = MatchSettings(scenes=False, negatives=False)
        seen = classify(full.surroundings.features[:6].float(), make_gallery(full, settings)).scores
        found = leave_one_out(full, settings)
        assert bool((found.scores[:6] < seen).all())

    def test_references_of_a_class_with_one_image_are_left_out(self) -> None:
        full = make_full("aabbc", labels="01012")
        found = leave_one_out(full)
        assert full.surroundings is not None
        assert set(found.shown) == {"", "label-0", "label-1", "label-2", "label-3"}
        assert len(found.shown) == len(full.surroundings) - 1
        assert len(found.scores) == len(found.labels) == len(found.truth) == len(found.shown)

    def test_images_that_are_known_to_be_empty_are_scored_by_all(self) -> None:
        full = make_full("aabb", labels="0101", classes=("gear", "nut"))
        assert full.surroundings is not None
        empty = Surroundings(full.surroundings.features[:1], ("blank",), ("",))
        found = leave_one_out(replace(full, surroundings=full.surroundings.add(empty)))
        assert (found.shown[-1], int(found.truth[-1])) == ("", -1)
        assert float(found.scores[-1]) == pytest.approx(
            float(classify(empty.features.float(), make_gallery(full)).scores), abs=1e-5
        )

    @pytest.mark.parametrize("around", [None, Surroundings(torch.zeros(0, WIDTH).half(), (), ())])
    def test_of_nothing(self, around: Surroundings | None) -> None:
        found = leave_one_out(replace(make_full("aab"), surroundings=around))
        assert (len(found.scores), len(found.labels), len(found.truth), found.shown) == (0, 0, 0, ())
        assert found.truth.dtype == found.labels.dtype == torch.int64


def make_scored(*classes: tuple[int, float, float]) -> Prototypes:
    """Prototypes whose candidates have known cosines with their own class, and 0 with every other.

    Args:
        classes: of each the number of references, the cosine of what shows one, and of two strangers in its image.
    """
    number = sum(shots for shots, _, _ in classes)
    width = len(classes) + 3 * number
    vectors, labels, features, images, shown = [], [], [], [], []
    axes = iter(torch.eye(width)[len(classes) :])
    for row, (shots, own, stranger) in enumerate(classes):
        axis = torch.eye(width)[row]
        for _ in range(shots):
            image = f"image {len(labels)}"
            vectors.append(axis)
            labels.append(row)
            for name, cosine in ((f"r{len(labels) - 1}", own), ("", stranger), ("", stranger)):
                features.append(cosine * axis + (1 - cosine**2) ** 0.5 * next(axes))
                images.append(image)
                shown.append(name)
    ids = tuple(f"r{row}" for row in range(number))
    return Prototypes(
        tuple(f"class {row}" for row in range(len(classes))),
        torch.stack(vectors),
        torch.tensor(labels),
        ids,
        "demo",
        "f00",
        images=tuple(f"image {row}" for row in range(number)),
        surroundings=Surroundings(torch.stack(features).half(), tuple(images), tuple(shown)),
    )


def thresholds(prototypes: Prototypes, default: float = DEFAULT) -> list[float]:
    found = calibrated_thresholds(prototypes, MatchSettings(scenes=False), default=default)
    assert tuple(found) == prototypes.classes
    assert all(0 <= value <= 1 for value in found.values())
    return list(found.values())


class TestCalibratedThresholds:
    def test_scores_are_as_made(self) -> None:
        """What the tests below stand on."""
        found = leave_one_out(make_scored((3, 0.9, 0.4), (2, 0.6, 0.1)), MatchSettings(scenes=False))
        assert found.scores.tolist() == pytest.approx([0.9, 0.4, 0.4] * 3 + [0.6, 0.1, 0.1] * 2, abs=2e-3)
        assert found.truth.tolist() == [0, -1, -1] * 3 + [1, -1, -1] * 2

    @pytest.mark.parametrize("default", [0.1, 0.5, 0.95])
    def test_of_classes_that_can_be_told_apart_lies_between(self, default: float) -> None:
        first, second = thresholds(make_scored((20, 0.9, 0.5), (20, 0.6, 0.1)), default)
        assert 0.5 < first < 0.9
        assert 0.1 < second < 0.6
        assert first > second

    def test_more_references_move_it_away_from_the_others(self) -> None:
        found = [thresholds(make_scored((shots, 0.95, 0.8), (12, 0.5, 0.1)), 0.3)[0] for shots in (2, 4, 8, 16, 32)]
        assert found == sorted(found)
        assert found[-1] > found[0] + 0.05
        assert 0.8 < found[-1] < 0.95

    def test_a_class_of_one_shot_takes_after_the_others(self) -> None:
        """Nothing can be left out of it; what is learnt of the others counts for it, or the default."""
        _, single = thresholds(make_scored((10, 0.9, 0.7), (1, 0.9, 0.7)), 0.3)
        assert 0.3 <= single < 0.9

    def test_nothing_in_common_with_strangers_that_are_taken_for_another_class(self) -> None:
        """A class whose strangers score higher gets a higher threshold than one whose references score the same."""
        strict, lax = thresholds(make_scored((15, 0.9, 0.75), (15, 0.9, 0.2)))
        assert strict > lax

    def test_order_of_the_references_does_not_matter(self) -> None:
        full = make_full("abcdef")
        order = torch.tensor([5, 0, 3, 1, 4, 2])
        turned = replace(
            full,
            vectors=full.vectors[order],
            labels=full.labels[order],
            reference_ids=tuple(full.reference_ids[row] for row in order),
            images=tuple(full.images[row] for row in order),
        )
        assert calibrated_thresholds(turned, default=DEFAULT) == pytest.approx(calibrated_thresholds(full, default=DEFAULT))

    @pytest.mark.parametrize(
        "prototypes",
        [
            replace(make_full("abcdef"), surroundings=None),
            replace(make_full("abcdef"), surroundings=Surroundings(torch.zeros(0, WIDTH).half(), (), ())),
            make_full("abc"),  # one shot of each class
            make_full("abcabc"),  # two shots of each class, both in one image
            make_full("aaaaaa"),  # all in one image
        ],
        ids=["unknown", "empty", "one shot", "one image a class", "one image"],
    )
    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_nothing_to_learn_from(self, prototypes: Prototypes, settings: MatchSettings) -> None:
        assert calibrated_thresholds(prototypes, settings, default=DEFAULT) == {}


class TestExpectedF1:
    def test_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of scores that are not spread it is the F1 of what is accepted."""
        monkeypatch.setattr(calibration, "SPREAD", 2e-3)
        found = LeftOut(
            torch.tensor([0.9, 0.7, 0.6, 0.4, 0.8, 0.95]),
            torch.tensor([0, 0, 0, 0, 1, 1]),
            torch.tensor([0, -1, 0, 1, 0, 1]),  # found, stranger, found, another class's, taken for another, of another
            ("a", "", "b", "c", "d", "e"),
        )
        f1 = expected_f1(found, 0, np.array([0.3, 0.5, 0.65, 0.85, 0.99]))
        # Three references: hits and misses at each threshold are 2 and 2, 2 and 1, 1 and 1, 1 and 0, 0 and 0.
        assert f1.tolist() == pytest.approx([4 / 7, 4 / 6, 2 / 5, 2 / 4, 0.0], abs=1e-6)

    def test_spread_is_a_logistic_function(self) -> None:
        found = LeftOut(torch.tensor([0.8]), torch.tensor([0]), torch.tensor([0]), ("a",))
        for threshold in (0.0, 0.75, 0.8, 0.9):
            accepted = 1 / (1 + math.exp((threshold - 0.8) / calibration.SPREAD))
            (f1,) = expected_f1(found, 0, np.array([threshold]))
            assert f1 == pytest.approx(2 * accepted / (accepted + 1))

    def test_of_a_class_that_is_not_there(self) -> None:
        found = LeftOut(torch.tensor([0.8]), torch.tensor([0]), torch.tensor([0]), ("a",))
        assert expected_f1(found, 1, np.array([0.2, 0.5])).tolist() == [0.0, 0.0]
