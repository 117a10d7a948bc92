"""Labelled objects as masks, from masks, from boxes and from nonsense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import refseg.calibration.known_objects
from refseg.calibration.known_objects import join_surroundings, known_object, spread
from refseg.candidates.packing import pack
from refseg.candidates.proposing import Candidates
from refseg.prototypes.surroundings import Surroundings, look_around

IMAGE_HW = (64, 128)


@pytest.fixture
def candidates() -> Candidates:
    """A triangle in the upper left quarter, and a square in the lower right one."""
    logits = torch.full((2, 32, 32), -5.0)
    logits[0, :16, :16] = torch.where(torch.ones(16, 16).tril() > 0, 5.0, -5.0)
    logits[1, 18:30, 18:30] = 5.0
    return Candidates(logits, torch.tensor([0.9, 0.8]), torch.eye(2), IMAGE_HW)


def test_a_mask_is_put_in_its_place(candidates: Candidates) -> None:
    known = known_object("a", (10, 20, 14, 23), np.ones((3, 4), bool), candidates)
    assert known is not None
    assert (known.id, known.mask.shape) == ("a", IMAGE_HW)
    assert known.mask.nonzero().amin(0).tolist() == [20, 10]
    assert int(known.mask.sum()) == 12


@pytest.mark.parametrize("packed", [False, True])
def test_a_box_takes_the_mask_of_the_candidate_that_fits(candidates: Candidates, packed: bool) -> None:
    known = known_object("a", (0, 1, 62, 32), None, pack(candidates) if packed else candidates)
    assert known is not None
    assert torch.equal(known.mask, candidates.masks[0])
    around = look_around(candidates, [known], "image")
    assert dict(zip(around.shown, around.features.argmax(1).tolist(), strict=True)) == {"a": 0, "": 1}


def test_a_box_that_none_fits_is_filled(candidates: Candidates) -> None:
    nobody = Candidates(torch.zeros(0, 32, 32), torch.zeros(0), torch.zeros(0, 2), IMAGE_HW)
    for found in (candidates, nobody):
        known = known_object("", (100, 10, 110, 20), None, found)
        assert known is not None
        assert int(known.mask.sum()) == 100
        assert bool(known.mask[10:20, 100:110].all())


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5, 9), (9, 5, 5, 9), (float("nan"), 0, 5, 5), (200, 0, 210, 5), (-9, 0, 0, 5), (0, 0, 1e5, 5), (0, -300, 5, 64)],
)
def test_no_object_is_none(candidates: Candidates, box: tuple[float, float, float, float]) -> None:
    assert known_object("a", box, np.ones((2, 2), bool), candidates) is None
    assert known_object("a", box, None, candidates) is None


def test_surroundings_join_in_order() -> None:
    parts = [Surroundings(torch.eye(2).half(), (name,) * 2, (name, "")) for name in ("x", "y")]
    joined = join_surroundings(parts)
    assert (joined.images, joined.shown) == (("x", "x", "y", "y"), ("x", "", "y", ""))
    assert torch.equal(joined.features, torch.eye(2).half().repeat(2, 1))


def test_spread() -> None:
    assert spread(0) == []
    assert spread(1, 1) == [0]
    assert spread(1000, 3) == [0, 500, 999]
    assert spread(201, 200)[-1] == 200
    assert len(set(spread(201, 200))) == 200


def test_join_keeps_what_shows_references_and_some_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refseg.calibration.known_objects, "MAX_STRANGERS", 3)
    features = torch.arange(8).half()[:, None]
    parts = [
        Surroundings(features[:4], ("a",) * 4, ("one", "", "", "")),
        Surroundings(features[4:], ("b",) * 4, ("", "", "two", "")),
    ]
    joined = join_surroundings(parts)
    assert joined.shown == ("one", "", "", "two", "")
    assert joined.features[:, 0].tolist() == [0, 1, 3, 6, 7]
    assert joined.images == ("a", "a", "a", "b", "b")
