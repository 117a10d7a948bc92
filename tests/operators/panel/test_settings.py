"""Choices in the panel."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import pytest

from refseg.models.loaded import PRESETS
from tests.operators.app_panel import choose, press
from tests.operators.panel.shelf import DEFAULTS, settings


class TestChoose:
    def test_settings_outlive_the_request(self, shelf: fo.Dataset) -> None:
        changes = {
            "model": "demo",
            "field": "predictions",
            "shots": 7,
            "label_field": "mine",
            "classes": ["a.b", "$c"],
            "accepted_field": "good",
            "as_references": False,
            "order": "score",
        }
        answer = press(shelf, "choose", {"changes": changes, "sections": ["segment", "review"]})
        assert answer.result == {"problem": None}
        assert set(answer.data) >= {"overview", "segment", "review"}
        assert answer.data["overview"]["settings"] == settings(shelf) == DEFAULTS | changes
        choose(shelf, threshold=["a.b", 0.25])
        choose(shelf, threshold=["$c", 1])
        choose(shelf, threshold=["a.b", 0.5])
        assert settings(shelf) == DEFAULTS | changes | {"thresholds": [["a.b", 0.5], ["$c", 1.0]]}
        # And belong to this dataset alone.
        other = shelf.clone()
        try:
            assert settings(other) == DEFAULTS
        finally:
            other.delete()

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"label_field": "two words"},
                "Predictions need a field's name of letters, digits and underscores, not 'two words'.",
            ),
            ({"label_field": ""}, "Predictions need a field's name of letters, digits and underscores, not ''."),
            ({"label_field": "_a"}, "Predictions need a field's name of letters, digits and underscores, not '_a'."),
            ({"label_field": None}, "Predictions need a field's name of letters, digits and underscores, not None."),
            ({"accepted_field": "a.b"}, "Accepted objects need a field's name of letters, digits and underscores, not 'a.b'."),
            ({"label_field": "accepted"}, "Predictions and accepted objects cannot share the field 'accepted': name another."),
            ({"label_field": "rejected"}, "The field 'rejected' is for rejected objects: name another."),
            ({"accepted_field": "rejected"}, "The field 'rejected' is for rejected objects: name another."),
            (
                {"label_field": "filepath"},
                "The field 'filepath' holds something else than detections: choose another, or a new name.",
            ),
            (
                {"accepted_field": "tags"},
                "The field 'tags' holds something else than detections: choose another, or a new name.",
            ),
            (
                {"label_field": "new", "accepted_field": "predictions"},
                "The field 'predictions' holds predictions, which the next run replaces: name another.",
            ),
            ({"field": "nope"}, "No field 'nope' holds labelled objects: choose one that does."),
            ({"shots": 0}, "Shots must be a whole number of 1 or more, not 0."),
            ({"shots": 2.5}, "Shots must be a whole number of 1 or more, not 2.5."),
            ({"shots": None}, "Shots must be a whole number of 1 or more, not None."),
            ({"shots": True}, "Shots must be a whole number of 1 or more, not True."),
            ({"threshold": ["a.b", 1.5]}, "The minimum score of 'a.b' must lie between 0 and 1, not 1.5."),
            ({"threshold": ["a.b", "x"]}, "The minimum score of 'a.b' must lie between 0 and 1, not 'x'."),
            ({"model": "huge"}, f"Model must be one of {', '.join(map(repr, PRESETS))}, not 'huge'."),
            ({"order": "random"}, "Order must be one of 'teaching', 'score', not 'random'."),
            ({"matching": {"overlaps": "all"}}, "overlaps must be one of 'merge', 'diffusion', not 'all'."),
            ({"matching": {"background": "yes"}}, "background must be true or false, not 'yes'."),
            (
                {"matching": {"calibrated": False}},
                "There is no setting of matching 'calibrated': choose from 'negatives', 'background', 'class_similarity', "
                "'scenes', 'overlaps', 'second_look', 'whiten'.",
            ),
        ],
    )
    @pytest.mark.sampled(2)
    def test_wrong_values_change_nothing(self, shelf: fo.Dataset, changes: dict[str, Any], problem: str) -> None:
        choose(shelf, shots=5)
        answer = press(shelf, "choose", {"changes": {"model": "demo", **changes}, "sections": ["segment"]})
        assert (answer.result, answer.notes, answer.data) == ({"problem": problem}, [], {})
        assert settings(shelf) == DEFAULTS | {"shots": 5}

    def test_a_setting_that_does_not_exist(self, shelf: fo.Dataset) -> None:
        assert "colour" in press(shelf, "choose", {"changes": {"colour": "red"}}).result["problem"]
        assert settings(shelf) == DEFAULTS

    def test_an_earlier_choice_stands_in_nobodys_way(self, shelf: fo.Dataset) -> None:
        choose(shelf, accepted_field="other")
        shelf.add_sample_field("other", fo.StringField)
        choose(shelf, shots=9)
        assert settings(shelf)["shots"] == 9

    def test_what_is_gone_falls_back(self, shelf: fo.Dataset) -> None:
        choose(shelf, field="predictions")
        shelf.delete_sample_field("predictions")
        assert settings(shelf)["field"] == "ground_truth"
