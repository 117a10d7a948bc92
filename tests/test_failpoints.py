"""Points at which tests let a process die: each is reached somewhere, and known by its name alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from refseg import failpoints

LIBRARY = Path(failpoints.__file__).parent


def test_every_point_is_reached_and_known() -> None:
    found = [name for path in LIBRARY.rglob("*.py") for name in re.findall(r'\breach\("([^"]+)"\)', path.read_text())]
    assert set(found) == failpoints.POINTS.keys()


def test_nothing_happens_where_nothing_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", {})
    for name in failpoints.POINTS:
        failpoints.reach(name)


def test_the_disk_is_full_at_the_second_time_and_free_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints._parse("index.images=nospace@2, run.record=kill"))
    failpoints.reach("index.images")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("index.images")
    failpoints.reach("index.images")
    failpoints.reach("index.candidates")


@pytest.mark.parametrize("text", ["nowhere=kill", "index.images", "index.images=explode", "index.images=kill@x"])
def test_what_cannot_be_armed(text: str) -> None:
    with pytest.raises(ValueError, match="write a point, =kill or =nospace"):
        failpoints._parse(text)
