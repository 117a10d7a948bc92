"""Segmenters whose every mask counts."""

from __future__ import annotations

import pytest


@pytest.fixture
def keep_every_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on how sure of its masks a segmenter is."""
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
