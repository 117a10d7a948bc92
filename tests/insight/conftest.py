"""Prototypes with a mistake among their references.

PyTorch is imported inside the fixture: pytest may read this file before the tests' share of the cores is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from refseg.prototypes.prototypes import Prototypes


@pytest.fixture
def mistaken() -> Prototypes:
    """Four stars about 0 degrees, of which one is a tee; three tees about 90; and what lies between, nearer to stars."""
    from tests.insight.angles import make_prototypes

    angles = [0.0, 5.0, 88.0, -5.0, 90.0, 85.0, 95.0]
    return make_prototypes(angles, [0, 0, 0, 0, 1, 1, 1], angles, {"i4": 40.0, "i5": 38.0})
