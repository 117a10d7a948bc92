"""How candidates are matched with prototypes: the choices there are, and their way through records and forms."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from refseg.errors import DatasetError
from refseg.matching.settings import PUBLISHED, MatchSettings, settings_for


class TestMatchSettings:
    def test_published_is_the_paper(self) -> None:
        """Whatever becomes the default, and with whatever is added: nothing past the paper."""
        published = PUBLISHED.as_dict()
        assert (published.pop("class_similarity"), published.pop("overlaps")) == ("mean", "merge")
        assert published.pop("negatives")  # without any they change nothing, and who gives some means them
        assert not any(published.values())

    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            ({"class_similarity": "median"}, r"class_similarity must be one of 'mean', 'nearest', 'clusters', not 'median'\."),
            ({"second_look": "sometimes"}, r"second_look must be True, False or 'known', not 'sometimes'\."),
            ({"second_look": 1}, r"second_look must be True, False or 'known', not 1\."),
            ({"overlaps": None}, r"overlaps must be one of 'merge', 'diffusion', not None\."),
            ({"overlaps": "nearest"}, r"overlaps must be one of 'merge', 'diffusion', not 'nearest'\."),
        ],
    )
    def test_bad_choice(self, choice: dict[str, Any], words: str) -> None:
        with pytest.raises(DatasetError, match=words):
            MatchSettings(**choice)
        if None not in choice.values():
            with pytest.raises(DatasetError, match=words):
                MatchSettings.from_mapping(choice)

    @pytest.mark.parametrize(
        "settings",
        [MatchSettings(), PUBLISHED, MatchSettings(negatives=False, class_similarity="clusters", overlaps="diffusion")],
    )
    def test_round_trip_through_json(self, settings: MatchSettings) -> None:
        assert MatchSettings.from_mapping(json.loads(json.dumps(settings.as_dict()))) == settings

    @pytest.mark.parametrize(("word", "value"), [("always", True), ("known", "known"), ("never", False)])
    def test_words_of_forms(self, word: str, value: bool | str) -> None:
        assert MatchSettings.from_mapping({"second_look": word}).second_look == value

    def test_from_mapping_keeps_to_what_it_knows(self) -> None:
        values = {"overlaps": "diffusion", "background": None, "calibrated": False, "temperature": 3}
        assert MatchSettings.from_mapping(values) == MatchSettings(overlaps="diffusion", calibrated=False)
        assert MatchSettings.from_mapping({}) == MatchSettings()


def test_settings_for() -> None:
    chosen = MatchSettings(background=True)
    assert settings_for(True) == PUBLISHED
    assert settings_for(False) == MatchSettings()
    assert settings_for(True, chosen) is settings_for(False, chosen) is chosen


def test_costs_no_torch() -> None:
    code = (
        "import sys, refseg.matching.settings; print([name for name in ('torch', 'numpy', 'fiftyone') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
