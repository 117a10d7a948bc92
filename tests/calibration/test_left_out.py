"""Leave-one-out: against a plain loop, by ranking as in a run, and with second looks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from refseg.calibration.left_out import leave_one_out
from refseg.matching.gallery import make_gallery
from refseg.matching.settings import MatchSettings
from refseg.matching.similarity import classify
from refseg.models.loaded import get_preset
from refseg.prototypes.surroundings import Surroundings
from tests.synthetic import WIDTH, make_full, without_image

DEMO = get_preset("demo")
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
        found = leave_one_out(full, DEMO, settings)
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
        found = leave_one_out(full, DEMO, settings)
        own = {name: float(score) for name, score in zip(found.shown, found.scores, strict=True) if name}
        assert all(own[name] < float(score) for name, score in zip(full.surroundings.shown, seen, strict=False))

    def test_references_of_a_class_with_one_image_are_left_out(self) -> None:
        full = make_full("aabbc", labels="01012")
        found = leave_one_out(full, DEMO)
        assert full.surroundings is not None
        assert set(found.shown) == {"", "label-0", "label-1", "label-2", "label-3"}
        assert len(found.shown) == len(full.surroundings) - 1
        assert len(found.scores) == len(found.labels) == len(found.truth) == len(found.shown)

    def test_images_that_are_known_to_be_empty_are_scored_by_all(self) -> None:
        full = make_full("aabb", labels="0101", classes=("gear", "nut"))
        assert full.surroundings is not None
        empty = Surroundings(full.surroundings.features[:1], ("blank",), ("",))
        found = leave_one_out(replace(full, surroundings=full.surroundings.add(empty)), DEMO)
        alone = leave_one_out(full, DEMO)
        assert len(found.scores) == len(alone.scores) + 1
        expected = float(classify(empty.features.float(), make_gallery(full)).scores)
        assert min(abs(float(score) - expected) for score in found.scores) < 1e-5

    @pytest.mark.parametrize("around", [None, Surroundings(torch.zeros(0, WIDTH).half(), (), ())])
    def test_of_nothing(self, around: Surroundings | None) -> None:
        found = leave_one_out(replace(make_full("aab"), surroundings=around), DEMO)
        assert (len(found.scores), len(found.labels), len(found.truth), found.shown) == (0, 0, 0, ())
        assert found.truth.dtype == found.labels.dtype == torch.int64
