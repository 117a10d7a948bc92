"""Trays that tests of runs share, where they need no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.kept import KeptDataset, kept_trays

if TYPE_CHECKING:
    import fiftyone as fo


@pytest.fixture(scope="package")
def kept_five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Five trays with a star and a tee each."""
    with kept_trays(tmp_path_factory.mktemp("trays"), 5) as trays:
        yield trays


@pytest.fixture
def five_trays(kept_five: KeptDataset) -> fo.Dataset:
    return kept_five.put_back()
