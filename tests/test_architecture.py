"""The figure and the words of docs/architecture.md are of the packages that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.draw_architecture import OUT, PATHS, PURPOSES, draw, layers

ROOT = Path(__file__).resolve().parent.parent
NAMES = {name for floor in layers() for name in floor}


def test_every_package_has_a_purpose() -> None:
    assert set(PURPOSES) == NAMES
    assert {name for _, names in PATHS.values() for name in names} <= NAMES


@pytest.mark.parametrize("drawn", ["kept", "anew"])
def test_figure_shows_every_package(drawn: str) -> None:
    shown = set(re.findall(r">([^<>]+)</text>", OUT.read_text() if drawn == "kept" else draw()))
    assert shown >= NAMES | {"operators"} | set(PURPOSES.values()), "run scripts/draw_architecture.py"


def test_modules_named_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("\n## ")[2]
    folder, missing = "", []
    for name in re.findall(r"`([\w/]+\.(?:py|js))`", text):
        # A row names the package once, before its first module.
        folder = name.rpartition("/")[0] or folder
        places = [base / path for base in (ROOT, ROOT / "plugin" / "refseg") for path in (name, f"{folder}/{name}")]
        if not any(place.is_file() for place in places):
            missing.append(name)
    assert not missing
