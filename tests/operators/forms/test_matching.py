"""Forms on how candidates become predictions: thresholds and matching."""

from __future__ import annotations

import fiftyone as fo

from refseg.demo.world import NOVEL_PARTS
from refseg.matching.settings import PUBLISHED, SECOND_LOOK_WORDS, MatchSettings
from tests.operators.helpers import form_of, problems_of

PART = NOVEL_PARTS[0]


def test_thresholds_of_some_classes_are_told(with_prototypes: fo.Dataset) -> None:
    assert "min_confidences" not in form_of(with_prototypes, "segment")
    form = form_of(with_prototypes, "segment", {"min_confidences": [[PART, 0.25]], "classes": [PART, ""]})
    assert problems_of(form) == {}
    assert form["min_confidences"]["view"]["label"] == f"Classes with a minimum confidence of their own: {PART} 0.25"


def test_calibrated_thresholds_are_told(with_prototypes: fo.Dataset) -> None:
    def told(**params: object) -> str | None:
        field = form_of(with_prototypes, "segment", params).get("calibrated_thresholds")
        return None if field is None else field["view"]["label"]

    assert told() == "The prototypes are not calibrated: scores are similarities, and the model's own threshold counts"
    info = with_prototypes.get_run_info("parts")
    info.config.thresholds = [["a.b", 0.5], ["$c", 0.5]]
    with_prototypes.update_run_config("parts", info.config)
    assert told() == "Scores are probabilities as on other datasets: no class has references in two images"
    info.config.num_learnt = 4
    with_prototypes.update_run_config("parts", info.config)
    assert told() == "Scores are probabilities: an instance of 0.5 or more is more likely right than wrong"
    # Where they do not count there is nothing to tell.
    assert told(min_confidence=0.5) is None
    assert told(calibrated=False) is None


def test_matching_starts_as_suits_the_model(with_prototypes: fo.Dataset) -> None:
    for model, settings in (("demo", MatchSettings()), ("paper", PUBLISHED)):
        form = form_of(with_prototypes, "learn", {"model": model})
        # Every one of them is asked for.
        expected = settings.as_dict()
        expected["second_look"] = SECOND_LOOK_WORDS[expected["second_look"]]
        assert {name: form[name]["default"] for name in expected} == expected
