"""Two images to review.

FiftyOne is imported inside the fixture: pytest may read this file before the tests' settings of FiftyOne are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import fiftyone as fo


@pytest.fixture
def dataset(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """Two images with two predictions each."""
    from tests.review.predictions import two_images

    return two_images(make_dataset)
