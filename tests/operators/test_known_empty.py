"""Images known to be empty, calibrated thresholds and mined negatives: from Python and from the App."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.dataset.store import list_prototypes, load_prototypes
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.operators.panel.tagging import STAR, TEE

EMPTY = "known_empty"


@pytest.fixture
def trays(trays: fo.Dataset) -> fo.Dataset:
    """The same, with the objects of the first two as references."""
    trays[:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    return trays


@pytest.fixture
def learnt(trays: fo.Dataset) -> fo.Dataset:
    """The same with prototypes that are not calibrated."""
    call("learn", trays, "demo", only_prototypes=True, calibrates=False)
    return trays


def record(dataset: fo.Dataset, name: str = "prototypes") -> Any:
    dataset.reload()
    return dataset.get_run_info(name).config


class TestMarkEmpty:
    def test_a_view_and_back(self, trays: fo.Dataset) -> None:
        assert call("mark_empty", trays[2:]) == {"num_samples": 2, "unmarked": False, "num_empty": 2}
        trays.reload()
        assert trays.match_tags(EMPTY).values("id") == trays[2:].values("id")
        marked = trays.match_tags(EMPTY).limit(1)
        assert call("mark_empty", marked, unmark=True) == {"num_samples": 1, "unmarked": True, "num_empty": 1}
        trays.reload()
        assert trays.match_tags(EMPTY).values("id") == [trays.last().id]

    def test_images_with_references_are_not_empty(self, trays: fo.Dataset) -> None:
        with pytest.raises(ExecutionError) as caught:
            foo.get_operator(uri("mark_empty"))(trays)
        assert str(caught.value).startswith("References lie in 2 images of these, so not all are empty: leave them out")
        trays[3:].tag_samples("reference")
        with pytest.raises(ExecutionError, match="References lie in 1 image of these"):
            foo.get_operator(uri("mark_empty"))(trays[2:])
        assert trays.count_sample_tags() == {"reference": 1}

    def test_in_the_app_not_all_by_one_press(self, trays: fo.Dataset) -> None:
        sentence = "These are all images of the dataset: select the empty ones, or filter the view."
        assert problems_of(form_of(trays, "mark_empty")) == {"whole": sentence}
        assert problems_of(form_of(trays, "mark_empty", {"unmark": True})) == {}
        chosen = [trays.last().id]
        assert problems_of(form_of(trays, "mark_empty", selected=chosen)) == {}
        params = {"view_target": "DATASET"}
        assert problems_of(form_of(trays, "mark_empty", params, selected=chosen)) == {"whole": sentence}
        messages = run_in_app(trays, "mark_empty", {"view_target": "SELECTED_SAMPLES"}, selected=chosen)
        text = "Marked 1 image as empty. 1 image of the dataset is known to be empty."
        assert named(messages, "notify") == [{"message": text, "variant": "success"}]
        trays.reload()
        assert trays.match_tags(EMPTY).values("id") == chosen
        run_in_app(trays, "mark_empty", {"unmark": True}, selected=chosen)
        trays.reload()
        assert trays.count_sample_tags() == {}


class TestCalibrate:
    def test_in_place(self, learnt: fo.Dataset) -> None:
        assert record(learnt).thresholds == []
        result = call("calibrate", learnt)
        config = record(learnt)
        assert (result["name"], result["thresholds"]) == ("prototypes", config.thresholds)
        assert [name for name, _ in result["thresholds"]] == [TEE, STAR]
        assert (result["num_shown"], result["num_surroundings"], result["num_empty"]) == (4, 0, 0)
        assert list_prototypes(learnt) == ["prototypes"]
        # The next run takes them.
        key = call("segment", learnt)["run_key"]
        assert record(learnt, key).min_confidences == config.thresholds
        key = call("segment", learnt, calibrated=False)["run_key"]
        assert record(learnt, key).min_confidences == [[TEE, 0.7], [STAR, 0.7]]

    def test_beside_the_others_with_empty_images(self, learnt: fo.Dataset) -> None:
        learnt[2:].tag_samples(EMPTY)
        assert form_of(learnt, "calibrate")["empty"]["view"]["label"] == "2 images marked as empty will be looked at too"
        result = call("calibrate", learnt, name="calibrated")
        assert (result["num_shown"], result["num_surroundings"], result["num_empty"]) == (4, 4, 2)
        assert record(learnt).thresholds == []
        assert load_prototypes(learnt, "prototypes").surroundings is None
        sentence = "The dataset keeps prototypes named 'prototypes': choose another name or tick 'Replace'."
        params = {"prototypes": "calibrated", "name": "prototypes"}
        assert problems_of(form_of(learnt, "calibrate", params)) == {"name": sentence}
        assert problems_of(form_of(learnt, "calibrate", {**params, "overwrite": True})) == {}

    def test_in_the_app(self, learnt: fo.Dataset) -> None:
        (note,) = named(run_in_app(learnt, "calibrate"), "notify")
        text = "Prototypes 'prototypes': scores are probabilities, learnt from 4 references and 0 masks around them."
        assert note == {"message": text, "variant": "success"}

    def test_references_in_one_image(self, trays: fo.Dataset) -> None:
        trays[1:2].untag_labels("reference", label_fields="ground_truth")
        call("learn", trays, "demo", only_prototypes=True)
        (note,) = named(run_in_app(trays, "calibrate"), "notify")
        assert note["variant"] == "warning"
        assert note["message"].startswith(
            "Nothing was learnt for the prototypes 'prototypes': this needs a class with references in"
        )

    def test_delegated(self, learnt: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("calibrate"))(learnt, delegate=True))
        assert (done.run_state, done.status.label) == ("completed", "images of the dataset: 2 of 2")
        assert done.result.result["thresholds"] == record(learnt).thresholds


class TestMineNegatives:
    def test_from_images_marked_as_empty(self, learnt: fo.Dataset) -> None:
        learnt[3:].tag_samples(EMPTY)
        result = call("mine_negatives", learnt, min_confidence=0.0)
        assert (result["name"], result["num_images"]) == ("prototypes", 1)
        mined = dict(result["mined"])
        assert list(mined) == [TEE, STAR]
        assert sum(mined.values()) == record(learnt).num_mined == 2
        # What nobody tagged is none of the negatives that are tagged.
        assert record(learnt).negative_ids == []
        # Again, it is the same.
        assert call("mine_negatives", learnt, min_confidence=0.0) == result

    def test_one_class_of_a_view(self, learnt: fo.Dataset) -> None:
        result = call("mine_negatives", learnt[2:], classes=[STAR], min_confidence=0.0, max_negatives=1, name="mined")
        assert (result["num_images"], result["mined"]) == (2, [[TEE, 0], [STAR, 1]])
        assert (record(learnt, "mined").num_mined, record(learnt).num_mined) == (1, 0)

    def test_in_the_app(self, learnt: fo.Dataset) -> None:
        assert form_of(learnt, "mine_negatives")["only_marked"]["default"] is False
        learnt[3:].tag_samples(EMPTY)
        assert form_of(learnt, "mine_negatives")["only_marked"]["default"] is True
        (note,) = named(run_in_app(learnt, "mine_negatives", {"min_confidence": 1.0}), "notify")
        assert note == {"message": "Prototypes 'prototypes': Nothing in 1 image is taken for a class.", "variant": "info"}
        (note,) = named(run_in_app(learnt, "mine_negatives", {"min_confidence": 0.0}), "notify")
        assert note["variant"] == "success"
        assert note["message"].startswith("Prototypes 'prototypes': Mined from 1 image: ")

    def test_none_of_the_view_is_marked(self, learnt: fo.Dataset) -> None:
        learnt[3:].tag_samples(EMPTY)
        with pytest.raises(ExecutionError, match="None of the images chosen is marked as empty: mark some first"):
            foo.get_operator(uri("mine_negatives"))(learnt[2:3])


@pytest.mark.parametrize("operator", ["build_prototypes", "learn"])
def test_building_uses_what_is_known(trays: fo.Dataset, operator: str) -> None:
    trays[3:].tag_samples(EMPTY)
    only = {"only_prototypes": True} if operator == "learn" else {"overwrite": True}

    def built(**params: Any) -> dict[str, Any]:
        result = call(operator, trays, model="demo", **only, **params)
        return result["prototypes"] if operator == "learn" else result

    result = built()
    assert (result["num_negatives"], result["thresholds"]) == (0, record(trays, result["name"]).thresholds)
    assert len(result["thresholds"]) == 2
    assert result["num_mined"] == record(trays, result["name"]).num_mined
    assert record(trays, result["name"]).num_empty == 1
    result = built(calibrates=False)
    assert (result["num_mined"], result["thresholds"]) == (0, [])


def test_matching_and_gate_reach_the_run(learnt: fo.Dataset) -> None:
    chosen = {"negatives": False, "background": True, "class_similarity": "nearest", "overlaps": "diffusion"}
    result = call("segment", learnt, **chosen, presence_gate=1.0, min_confidence=0.0)
    config = record(learnt, result["run_key"])
    assert {name: config.matching[name] for name in chosen} == chosen
    assert (config.presence_gate, config.matching["calibrated"]) == (1.0, True)
    # Left out, it is as suits the preset.
    result = call("segment", learnt)
    assert record(learnt, result["run_key"]).matching == {**config.matching, **defaults()}


def defaults() -> dict[str, Any]:
    from refseg.matching.settings import MatchSettings

    return MatchSettings().as_dict()
