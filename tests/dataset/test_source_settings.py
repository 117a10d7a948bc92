"""Where candidates are to come from is one value, wrong in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from refseg.dataset.source_settings import SourceSettings
from refseg.errors import DatasetError, RefSegError
from refseg.images.pixels import PLAIN
from refseg.models.loaded import load_models


def test_defaults_are_what_a_call_without_arguments_means() -> None:
    settings = SourceSettings()
    assert (settings.model, settings.index, settings.tiles, settings.num_workers, settings.pixels) == (
        None,
        True,
        None,
        None,
        PLAIN,
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"index": "yes"}, "index"), ({"tiles": 1.5}, "tiles"), ({"num_workers": -1}, "num_workers"), ({"model": 3}, "model")],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(RefSegError, match=named):
        SourceSettings(**wrong)


def test_preset_is_that_asked_for_or_that_of_the_prototypes() -> None:
    assert SourceSettings().preset_for("large") == "large"
    assert SourceSettings("tiny").preset_for("large") == "tiny"
    assert SourceSettings(load_models("demo")).preset_for("large") == "demo"


def test_it_is_a_value() -> None:
    assert SourceSettings("demo", tiles=True) == SourceSettings("demo", tiles=True)
    with pytest.raises(DatasetError):
        SourceSettings(num_workers=0.5)  # type: ignore[arg-type]
