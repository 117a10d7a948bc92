"""Functions that a test does not allow to be called."""

from __future__ import annotations

from typing import Any

import pytest


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these functions fail."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("this was not to be called")

    for name in names:
        monkeypatch.setattr(name, fail)


def forbid_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed, and no model loaded."""
    forbid(
        monkeypatch,
        "refseg.dataset.sources.load_models",
        "refseg.dataset.indexing.load_models",
        "refseg.candidates.tiles.propose_from_pixels",
    )
