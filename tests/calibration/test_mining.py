"""Negatives from images known not to hold a class: which, how many, and that mining again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from refseg.calibration.mining import NOTHING, Mined, add_mined, best_mined, labelled_ids, mine, num_mined, without_mined
from refseg.candidates.proposing import Candidates
from refseg.errors import ShapeError
from refseg.matching.matcher import Matcher, make_matcher
from refseg.matching.settings import MatchSettings
from refseg.models.loaded import get_preset
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes

CLASSES = ("nut", "tee")


def unit(*values: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float32), dim=0)


def prototypes(negatives: Negatives | None = None) -> Prototypes:
    """The classes lie along the first two axes."""
    return Prototypes(CLASSES, torch.eye(4)[:2], torch.tensor([0, 1]), ("a", "b"), "demo", "print", negatives=negatives)


def matcher(least: float = 0.5, names: Sequence[str] = CLASSES, max_detections: int = 100) -> Matcher:
    thresholds = dict.fromkeys(names, least)
    return make_matcher(prototypes(), get_preset("demo"), MatchSettings(), thresholds, max_detections)


def candidates(*features: torch.Tensor) -> Candidates:
    """One square each, apart from the others."""
    logits = torch.full((len(features), 32, 32), -5.0)
    for row in range(len(features)):
        top, left = row // 4 * 8, row % 4 * 8
        logits[row, top : top + 6, left : left + 6] = 5.0
    return Candidates(logits, torch.linspace(0.9, 0.5, len(features)), torch.stack(features), (64, 64))


def mined(*rows: tuple[str, torch.Tensor, float], source: str = "s1", start: int = 0) -> Mined:
    """Mined negatives as (class, vector, score)."""
    if not rows:
        return NOTHING
    names, vectors, scores = zip(*rows, strict=True)
    ids = tuple(f"mined {source} {start + number}" for number in range(len(rows)))
    return Mined(Negatives(torch.stack(vectors), names, ids, ("",) * len(rows), (source,) * len(rows)), torch.tensor(scores))


class TestMine:
    def test_what_a_run_would_write(self) -> None:
        found = candidates(unit(0.6, 0, 0.8, 0), unit(0, 0.9, 0.1, 0), unit(0.3, 0, 0.9, 0))
        result = mine(found, matcher(), CLASSES, "key", "s1")
        assert result.negatives is not None
        assert result.negatives.names == ("tee", "nut")
        assert result.negatives.ids == ("mined s1 1", "mined s1 0")
        assert result.negatives.images == ("key", "key")
        assert result.negatives.digests == ("", "")
        assert torch.equal(result.negatives.vectors, found.features[[1, 0]])
        assert result.scores.tolist() == pytest.approx([0.9939, 0.6], abs=1e-4)

    def test_only_classes_that_are_written_count(self) -> None:
        found = candidates(unit(0.9, 0, 0.1, 0), unit(0, 0.9, 0.1, 0))
        result = mine(found, matcher(names=["nut"]), CLASSES, "key", "s1")
        assert result.negatives is not None
        assert result.negatives.names == ("nut",)

    def test_limits(self) -> None:
        found = candidates(unit(0.9, 0, 0.1, 0), unit(0, 0.8, 0.2, 0))
        assert len(mine(found, matcher(max_detections=1), CLASSES, "key", "s1")) == 1
        assert mine(found, matcher(1.0), CLASSES, "key", "s1") is NOTHING
        empty = Candidates(torch.zeros(0, 32, 32), torch.zeros(0), torch.zeros(0, 4), (64, 64))
        assert mine(empty, matcher(), CLASSES, "key", "s1") is NOTHING


class TestBest:
    def test_the_most_confident_of_each_class(self) -> None:
        some = mined(("nut", unit(1, 0, 1, 0), 0.6), ("tee", unit(0, 1, 1, 0), 0.5), ("nut", unit(1, 0, 0, 1), 0.7))
        more = mined(("nut", unit(1, 0, -1, 0), 0.8), source="s2")
        best = best_mined([some, more], 2)
        assert best.negatives is not None
        assert best.negatives.ids == ("mined s2 0", "mined s1 2", "mined s1 1")
        assert best.scores.tolist() == pytest.approx([0.8, 0.7, 0.5])

    def test_almost_equal_ones_are_passed_over_within_a_class(self) -> None:
        near = unit(1, 0, 0.1, 0)
        some = mined(("nut", unit(1, 0, 0, 0), 0.6), ("nut", near, 0.7), ("tee", near, 0.5))
        best = best_mined([some])
        assert best.negatives is not None
        assert best.negatives.ids == ("mined s1 1", "mined s1 2")
        beside = Negatives(near[None] * 3, ("nut",), ("labelled",), ("",))
        best = best_mined([some], beside=beside)
        assert best.negatives is not None
        assert best.negatives.names == ("tee",)

    def test_an_id_counts_once(self) -> None:
        best = best_mined([mined(("nut", unit(1, 0, 0, 0), 0.9)), mined(("nut", unit(0, 0, 1, 0), 0.6))])
        assert (len(best), best.scores.tolist()) == (1, pytest.approx([0.6]))

    def test_none(self) -> None:
        assert best_mined([]) is NOTHING
        assert best_mined([NOTHING, NOTHING]) is NOTHING


def test_thresholds_of_each_class() -> None:
    some = mined(("nut", unit(1, 0, 0, 0), 0.6), ("tee", unit(0, 1, 0, 0), 0.5), ("cog", unit(0, 0, 1, 0), 0.9))
    kept = some.above({"nut": 0.6, "tee": 0.51})
    assert kept.negatives is not None
    assert kept.negatives.names == ("nut",)
    assert NOTHING.above({}) is NOTHING


class TestAdd:
    def test_labelled_negatives_stay_and_come_first(self) -> None:
        own = Negatives(unit(0, 0, 0, 1)[None], ("shadow",), ("label",), ("digest",), ("image",))
        result = add_mined(prototypes(own), [mined(("nut", unit(1, 0, 1, 0), 0.7))], matcher())
        assert result.negatives is not None
        assert result.negatives.ids == ("label", "mined s1 0")
        assert result.negatives.images == ("image", "s1")
        assert (labelled_ids(result.negatives), num_mined(result.negatives)) == (("label",), 1)
        back = without_mined(result).negatives
        assert back is not None
        assert back.ids == ("label",)
        assert without_mined(prototypes()).negatives is None
        assert (labelled_ids(None), num_mined(None)) == ((), 0)

    def test_again_changes_nothing_and_less_is_less(self) -> None:
        found = [mined(("nut", unit(1, 0, 1, 0), 0.7), ("tee", unit(0, 1, 1, 0), 0.6))]
        once = add_mined(prototypes(), found, matcher(), sources=["s1"])
        twice = add_mined(once, found, matcher(), sources=["s1"])
        assert once.negatives is not None
        assert twice.negatives is not None
        assert (twice.negatives.ids, twice.negatives.names) == (once.negatives.ids, once.negatives.names)
        assert torch.equal(twice.negatives.vectors, once.negatives.vectors)
        # What was looked at and holds nothing any more loses what it had; of one class alone, where one alone was looked for.
        assert add_mined(once, [], matcher(), sources=["s1"]).negatives is None
        rest = add_mined(once, [], matcher(), sources=["s1"], classes=["nut"]).negatives
        assert rest is not None
        assert rest.names == ("tee",)
        other = add_mined(once, [], matcher(), sources=["s", "1", "s1 0"]).negatives
        assert other is not None
        assert len(other) == 2

    def test_earlier_ones_compete_by_their_similarity(self) -> None:
        once = add_mined(prototypes(), [mined(("nut", unit(0.9, 0, 0.1, 0), 0.3))], matcher())
        weak, strong = ("nut", unit(1, 0, 1, 0), 0.7), ("nut", unit(1, 0, -0.1, 0.1), 0.999)
        for new, kept in ((weak, "mined s1 0"), (strong, "mined s2 0")):
            result = add_mined(once, [mined(new, source="s2")], matcher(), max_negatives=1).negatives
            assert result is not None
            assert result.ids == (kept,)

    def test_a_name_with_spaces_is_one_source(self) -> None:
        once = add_mined(prototypes(), [mined(("nut", unit(1, 0, 1, 0), 0.7), source="my image 1.png")], matcher())
        assert add_mined(once, [], matcher(), sources=["my image 1.png"]).negatives is None


def test_scores_must_fit() -> None:
    with pytest.raises(ShapeError, match="one score each, but 0 have 2"):
        Mined(None, torch.zeros(2))
