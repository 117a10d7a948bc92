"""The objects of the two photographs, and the table of those that are held, by made-up candidates."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from PIL import Image

from benchmarks import photographs
from benchmarks.one_photograph import Held
from benchmarks.photographs import Objects, load_objects, measure
from refseg.models import Models
from tests.benchmarks.test_one_photograph import HW, code, square


def test_objects_of_the_photographs() -> None:
    (seen, complete), (people,) = load_objects()
    assert [objects.name for objects in (seen, complete, people)] == ["arc2017", "arc2017, hidden parts too", "voc"]
    assert [len(objects.masks) for objects in (seen, complete, people)] == [8, 8, 19]
    for objects in (seen, complete, people):
        assert len(objects.classes) == len(objects.masks)
        assert objects.masks.shape[1:] == (objects.photograph.height, objects.photograph.width)
        assert objects.masks.any((1, 2)).all()
    assert not (complete.masks < seen.masks).any()
    assert complete.masks.sum() > seen.masks.sum()
    # What can be seen is never of two objects.
    assert seen.masks.sum(0).max() == 1
    assert people.classes.count("chair") == 8


def test_table_of_held_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def made_up(photograph: Image.Image, models: Models, *, tiles: bool) -> Held:
        asked.append(tiles)
        candidates = [code(square(0, 0, 8, 5)), *([code(square(4, 0, 4, 4))] if tiles else [])]
        return Held(candidates, np.array([0]))

    monkeypatch.setattr(photographs, "hold", made_up)
    masks = np.stack([square(0, 0, 4, 5), square(4, 0, 4, 5), square(20, 10, 5, 5)])
    objects = Objects("by hand", Image.new("RGB", HW[::-1]), ("left", "right", "far"), masks)
    counts, single = measure([[objects, objects]], cast(Models, None))
    assert asked == [False, True]  # once for both lists of objects
    assert counts.splitlines()[2:4] == ["| by hand | whole | 3 | 2 | 0 | 2 | 1 |", "| by hand | tiles | 3 | 2 | 1 | 2 | 2 |"]
    assert single.splitlines()[2:5] == [
        "| by hand: left | 0.50 | 0.50 |",
        "| by hand: right | 0.50 | 0.80 |",
        "| by hand: far | 0.00 | 0.00 |",
    ]
