"""Learning from everything that is tagged: from Python, from the App, delegated; what its form refuses."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.dataset.indexing import build_index
from refseg.dataset.store import list_prototypes, load_prototypes
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.operators.panel.tagging import STAR, TEE


@pytest.fixture
def tagged(trays: fo.Dataset) -> fo.Dataset:
    """The objects of the first are references."""
    tag(trays[:1], "reference")
    return trays


def tag(view: Any, name: str, field: str = "ground_truth") -> None:
    view.select_labels(fields=field).tag_labels(name, label_fields=field)


def sentence(dataset: fo.Dataset) -> str:
    return (
        f"No object of dataset {dataset.name!r} carries the tag 'reference' (looked in 'ground_truth'): tag some of each class"
    )


class TestFromPython:
    def test_several_fields_and_negatives(self, tagged: fo.Dataset) -> None:
        second, third, fourth = list(tagged[1:])
        extra = second.ground_truth.detections[0].copy()
        extra.tags = ["reference"]
        second["one"] = extra
        objects = [label.copy() for label in third.ground_truth.detections]
        objects[0].tags, objects[1].tags = ["reference"], ["negative"]
        third["accepted"] = fo.Detections(detections=objects)
        wrong = fourth.ground_truth.detections[0].copy()
        wrong.tags = ["negative"]
        fourth["rejected"] = fo.Detections(detections=[wrong])
        for sample in (second, third, fourth):
            sample.save()
        result = call("learn", tagged, "demo", min_confidence=0.0)
        learnt, found = result["prototypes"], result["segmentation"]
        expected = {label: sum(other == label for other in (extra.label, objects[0].label)) + 1 for label in (STAR, TEE)}
        assert dict(learnt["shots"]) == expected
        assert (learnt["name"], learnt["model"], learnt["num_negatives"]) == ("prototypes", "demo", 2)
        assert (learnt["reused"], learnt["skipped"]) == (0, [])
        assert (found["label_field"], found["num_images"], found["preview"]) == ("predictions", 4, False)
        tagged.reload()
        assert tagged.count("predictions.detections") == found["num_instances"] > 0

        # In place of the newest, and only what is new is computed; predictions teach nothing.
        tag(tagged, "reference", "predictions")
        result = call("learn", tagged)
        assert (result["prototypes"]["name"], result["prototypes"]["model"]) == ("prototypes", "demo")
        assert result["prototypes"]["reused"] == 6
        assert list_prototypes(tagged) == ["prototypes"]
        negatives = load_prototypes(tagged, "prototypes").negatives
        assert negatives is not None
        assert set(negatives.ids) == {objects[1].id, wrong.id}

    def test_only_prototypes(self, tagged: fo.Dataset) -> None:
        result = call("learn", tagged, "demo", only_prototypes=True)
        assert result["segmentation"] is None
        assert result["prototypes"]["shots"] == [[TEE, 1], [STAR, 1]]
        tagged.reload()
        assert not tagged.has_field("predictions")

    def test_limits(self, tagged: fo.Dataset) -> None:
        pairs = ((STAR, 0.05), (TEE, 0.9))
        result = call(
            "learn", tagged, "demo", "mine", classes=[STAR], min_confidences=pairs, max_detections=1, overwrite_labels=True
        )
        tagged.reload()
        assert tagged.distinct("mine.detections.label") == [STAR]
        assert max(len(sample.mine.detections) for sample in tagged) == 1
        config = tagged.get_run_info(result["segmentation"]["run_key"]).config
        assert (config.max_detections, config.min_confidences) == (1, [[STAR, 0.05]])

    def test_some_images_learn_from_all(self, tagged: fo.Dataset) -> None:
        result = call("learn", tagged[2:], "demo")
        assert result["segmentation"]["num_images"] == 2
        assert len(result["prototypes"]["shots"]) == 2

    def test_preview(self, tagged: fo.Dataset) -> None:
        build_index(tagged[:3], "demo", num_workers=0, progress=False)
        found = call("learn", tagged, "demo", preview=True, calibrates=False)["segmentation"]
        assert (found["preview"], found["num_images"], found["num_left_out"]) == (True, 3, 1)
        assert len(found["best"]) > 0

    def test_nothing_is_tagged(self, trays: fo.Dataset) -> None:
        with pytest.raises(ExecutionError) as caught:
            foo.get_operator(uri("learn"))(trays, "demo")
        assert sentence(trays) in str(caught.value)
        assert list_prototypes(trays) == []


class TestInTheApp:
    def test_two_steps(self, tagged: fo.Dataset) -> None:
        messages = run_in_app(tagged, "learn", {"model": "demo"})
        labels = [step["label"] for step in named(messages, "set_progress")]
        assert labels[0] == "1 of 2, references: 0 of 2"
        assert labels[-1] == "2 of 2, images: 4 of 4"
        assert [message["operator_uri"] for message in messages][-2:] == ["reload_dataset", "notify"]
        (note,) = named(messages, "notify")
        assert note["variant"] == "success"
        tagged.reload()
        number = tagged.count("predictions.detections")
        # Those of references and a few others were computed to calibrate, and these are all.
        text = (
            f"Prototypes 'prototypes': 2 classes from 2 references. {number} instances in 4 images (4 from the index), in the "
            "field 'predictions'"
        )
        assert note["message"].startswith(text)

    def test_the_choice_of_images(self, tagged: fo.Dataset) -> None:
        params = {"model": "demo", "view_target": "SELECTED_SAMPLES"}
        run_in_app(tagged, "learn", params, selected=[tagged.last().id])
        tagged.reload()
        assert tagged.exists("predictions").values("id") == [tagged.last().id]

    def test_only_prototypes(self, tagged: fo.Dataset) -> None:
        messages = run_in_app(tagged, "learn", {"model": "demo", "only_prototypes": True})
        assert [step["label"] for step in named(messages, "set_progress")][-1] == "images of the dataset: 3 of 3"
        text = "Prototypes 'prototypes': 2 classes from 2 references."
        assert named(messages, "notify") == [{"message": text, "variant": "success"}]
        assert "reload_dataset" not in [message["operator_uri"] for message in messages]

    def test_a_reference_that_cannot_be_read(self, tagged: fo.Dataset, tmp_path: Any) -> None:
        tag(tagged[1:2], "reference")
        sample = tagged[1:2].first()
        (tmp_path / "broken.png").write_bytes(b"no image")
        sample.filepath = str(tmp_path / "broken.png")
        sample.save()
        (note,) = named(run_in_app(tagged, "learn", {"model": "demo", "only_prototypes": True}), "notify")
        assert note["variant"] == "warning"
        assert "Left out 2 objects: " in note["message"]

    def test_nothing_is_tagged(self, trays: fo.Dataset) -> None:
        (note,) = named(run_in_app(trays, "learn", {"model": "demo"}), "notify")
        assert note["variant"] == "error"
        assert note["message"].startswith(sentence(trays))

    def test_both_tags(self, tagged: fo.Dataset) -> None:
        tag(tagged[:1], "negative")
        (note,) = named(run_in_app(tagged, "learn", {"model": "demo"}), "notify")
        assert note["variant"] == "error"
        assert "both a reference and a negative" in note["message"]


def test_delegated(tagged: fo.Dataset) -> None:
    done = run_delegated(foo.get_operator(uri("learn"))(tagged[:2], "demo", delegate=True))
    assert done.run_state == "completed"
    assert done.status.label == "2 of 2, images: 2 of 2"
    assert done.result.result["segmentation"]["num_images"] == 2
    assert dict(done.result.result["prototypes"]["shots"]) == {STAR: 1, TEE: 1}


@pytest.mark.parametrize(
    ("params", "field", "words"),
    [
        ({"model": "huge"}, "model", "Model must be one of 'demo', 'tiny', 'small', 'base',"),
        ({"label_field": "ground_truth"}, "label_field", "The labels in the field 'ground_truth' are not RefSeg's"),
        ({"label_field": "filepath"}, "label_field", "The field 'filepath' holds something else than detec"),
        ({"min_confidence": 2}, "min_confidence", "Minimum confidence must be a number from 0 to 1, not 2."),
        ({"max_detections": 0}, "max_detections", "Maximum detections must be a whole number of 1 or more"),
        ({"classes": "star"}, "classes", "Classes must be a list of names, not 'star'."),
    ],
)
def test_bad_values(tagged: fo.Dataset, params: dict[str, Any], field: str, words: str) -> None:
    problems = problems_of(form_of(tagged, "learn", params))
    assert problems[field].startswith(words)
    with pytest.raises(ExecutionError) as caught:
        foo.execute_operator(uri("learn"), {"dataset": tagged, "params": params})
    assert problems[field] in str(caught.value)


def test_only_prototypes_asks_for_no_field(tagged: fo.Dataset) -> None:
    form = form_of(tagged, "learn", {"only_prototypes": True, "label_field": "ground_truth"})
    assert problems_of(form) == {}
    assert set(form) == {"view_target", "model", "without_download", "calibrates", "turned", "only_prototypes"}
