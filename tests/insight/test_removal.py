"""Leaving out references: the same numbers as by scoring everything anew for each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import refseg.insight.removal as removal
from refseg.calibration.left_out import LeftOut, leave_one_out
from refseg.insight.removal import THRESHOLDS, class_f1, expected_f1, f1_changes, score_surroundings
from refseg.matching.settings import MatchSettings
from refseg.models.loaded import get_preset
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings

DEMO = get_preset("demo")
CLASSES = ("gear", "nut", "star")
WIDTH = 12
SETTINGS = [
    MatchSettings(),
    MatchSettings(negatives=False),
    MatchSettings(scenes=False),
    MatchSettings(class_similarity="nearest"),
    MatchSettings(class_similarity="clusters"),
    MatchSettings(background=True),
]


def make_prototypes(*, num_references: int = 5, with_negatives: bool = True) -> Prototypes:
    """Classes in clouds that overlap, two references of the first in one image, and strangers around them."""
    generator = torch.Generator().manual_seed(4)
    centers = torch.randn(len(CLASSES), WIDTH, generator=generator)

    def near(row: int, noise: float = 0.9) -> Tensor:
        return F.normalize(centers[row] + noise * torch.randn(WIDTH, generator=generator), dim=0)

    rows = [0] * num_references + [1] * 4 + [2]
    ids = [f"r{number}" for number in range(len(rows))]
    images = ["i1" if number == 0 else f"i{number}" for number in range(len(rows))]
    features, owners, shown = [], [], []
    for name, image, row in zip(ids, images, rows, strict=True):
        features += [near(row), near((row + 1) % 3, 1.5), near(row, 1.5)]
        owners += [image] * 3
        shown += [name, "", ""]
    negatives = Negatives(
        torch.stack([near(0), near(1), near(2)]), ("gear", "shadow", "nut"), ("a", "b", "c"), ("",) * 3, ("i1", "", "i6")
    )
    return Prototypes(
        CLASSES,
        torch.stack([2 * near(row) for row in rows]),
        torch.tensor(rows),
        tuple(ids),
        "demo",
        "encoder",
        negatives=negatives if with_negatives else None,
        images=tuple(images),
        background=torch.stack([torch.stack([near(row, 3.0) for _ in range(2)]) for row in rows]).half(),
        surroundings=Surroundings(torch.stack(features).half(), tuple(owners), tuple(shown)),
    )


def best(found: LeftOut, row: int, kept: list[int]) -> float:
    part = LeftOut(found.scores[kept], found.labels[kept], found.truth[kept], ("",) * len(kept))
    return float(expected_f1(part, row, THRESHOLDS).max())


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_scores_are_those_of_leave_one_out(settings: MatchSettings) -> None:
    prototypes = make_prototypes()
    assert prototypes.surroundings is not None
    scored = score_surroundings(prototypes, prototypes.surroundings, settings)
    found, expected = scored.left_out(), leave_one_out(prototypes, DEMO, settings)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.truth, expected.truth)
    assert found.shown == expected.shown
    # The only star has nothing to be compared with.
    assert "r9" not in found.shown
    assert bool((scored.similar != scored.plain).any()) == settings.negatives


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=repr)
def test_changes_are_those_of_scoring_anew(settings: MatchSettings) -> None:
    prototypes = make_prototypes()
    assert prototypes.surroundings is not None
    around = prototypes.surroundings
    changes = f1_changes(prototypes, around, settings, score_surroundings(prototypes, around, settings))
    whole = leave_one_out(prototypes, DEMO, settings)
    for number, name in enumerate(prototypes.reference_ids[:-1]):
        row = int(prototypes.labels[number])
        after = leave_one_out(prototypes.remove([name]), DEMO, settings)
        every = range(len(after.shown))
        kept = [n for n, shown in enumerate(whole.shown) if shown != name and (not shown or shown in after.shown)]
        expected = best(after, row, list(every)) - best(whole, row, kept)
        assert changes[number] == pytest.approx(expected, abs=1e-5), name
    assert changes[-1] is None
    assert any(change > 0.01 for change in changes[:-1] if change is not None)
    assert any(change < -0.01 for change in changes[:-1] if change is not None)


def test_background_competes_before_and_after() -> None:
    prototypes = make_prototypes(with_negatives=False)
    assert prototypes.surroundings is not None
    around = prototypes.surroundings
    answers = []
    for background in (False, True):
        settings = MatchSettings(background=background)
        answers.append(f1_changes(prototypes, around, settings, score_surroundings(prototypes, around, settings)))
    assert answers[0] != answers[1]


def test_too_few_references_to_tell() -> None:
    """Of two references one is left, which has nothing to be compared with."""
    prototypes = make_prototypes(num_references=2).remove(["r2", "r3"])
    assert prototypes.shots == {"gear": 2, "nut": 2, "star": 1}
    assert prototypes.surroundings is not None
    settings = MatchSettings()
    scored = score_surroundings(prototypes, prototypes.surroundings, settings)
    assert f1_changes(prototypes, prototypes.surroundings, settings, scored) == [None] * 5


def test_f1_of_a_class() -> None:
    labels, truth = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([0, -1, 0, 0, 1])
    found = LeftOut(torch.tensor([0.9, 0.8, 0.7, 0.2, 0.6]), labels, truth, ("a", "", "b", "c", "d"))
    assert class_f1(found, 0, 0.1) == pytest.approx(2 * 2 / (3 + 3))
    assert class_f1(found, 0, 0.85) == pytest.approx(2 * 1 / (1 + 3))
    assert class_f1(found, 0, 1.0) == 0
    assert class_f1(found, 2, 0.5) is None
    # What resembles no class is taken for none, at any threshold.
    assert class_f1(LeftOut(torch.zeros(1), torch.zeros(1).long(), torch.zeros(1).long(), ("a",)), 0, 0.0) == 0


def test_candidates_are_not_scored_anew_for_each_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each image, and then once for each class and image that shows one of its references or negatives."""
    prototypes = make_prototypes()
    assert prototypes.surroundings is not None
    around, calls = prototypes.surroundings, []
    scored = score_surroundings(prototypes, around, MatchSettings())
    similar = removal.similarities
    monkeypatch.setattr(removal, "similarities", lambda *given: calls.append(1) or similar(*given))
    f1_changes(prototypes, around, MatchSettings(), scored)
    # Of nine images four show a gear, four a nut, and the images of two negatives are among the first and the second of these.
    assert len(calls) == (4 + 1 + 1) + (4 + 1 + 1)


class TestExpectedF1:
    def test_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of scores that are not spread it is the F1 of what is accepted."""
        monkeypatch.setattr(removal, "SPREAD", 2e-3)
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
            accepted = 1 / (1 + math.exp((threshold - 0.8) / removal.SPREAD))
            (f1,) = expected_f1(found, 0, np.array([threshold]))
            assert f1 == pytest.approx(2 * accepted / (accepted + 1))

    def test_of_a_class_that_is_not_there(self) -> None:
        found = LeftOut(torch.tensor([0.8]), torch.tensor([0]), torch.tensor([0]), ("a",))
        assert expected_f1(found, 1, np.array([0.2, 0.5])).tolist() == [0.0, 0.0]
