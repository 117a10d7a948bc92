"""Learning from decisions: from Python, from the App, and as a delegated job."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from operators.update import describe
from refseg.demo.world import NOVEL_PARTS
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


class TestUpdate:
    def test_from_python(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes, "parts", min_confidence=0.0, max_detections=2)
        with_prototypes.reload()
        wrong = with_prototypes.last().predictions.detections[0].id
        call("review", with_prototypes, "reject", [wrong])
        result = call("update", with_prototypes, tag="reference")
        assert result["prototypes"] == "parts"
        assert result["classes"] == CLASSES
        # The fixture's prototypes were built without labels of the dataset.
        assert (len(result["references_added"]), len(result["references_removed"])) == (4, 2)
        assert len(result["negatives_added"]) == 1
        assert (result["reused"], result["skipped"]) == (0, [])
        assert (result["dropped_confidences"], result["growth"]) == ([], None)
        told = describe(result | {"dropped_confidences": [["star", 0.7]], "growth": [20, 30]})
        assert "count no more, because scores mean something else now: star 0.7." in told
        assert "The index has grown from 20 other images to 30, and scores may have moved." in told
        assert result["segmentation"]["num_from_index"] == 4
        assert result["segmentation"]["changes"].keys() >= {"gained", "lost", "relabelled", "num_samples", "sample_ids"}

    def test_in_the_app(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes, "parts", "found", min_confidence=0.0)
        texts = []
        for _ in range(2):
            messages = run_in_app(with_prototypes, "update", {"label_field": "found"})
            order = [message["operator_uri"] for message in messages]
            assert order[-2:] == ["reload_dataset", "notify"]
            assert {"label": "images: 4 of 4", "progress": 1.0} in named(messages, "set_progress")
            texts.append(named(messages, "notify")[0]["message"])
        assert texts[0].startswith("Prototypes 'parts': 4 references added, 2 references removed. ")
        assert texts[1].startswith("Prototypes 'parts': the same references and negatives. ")
        assert "Nothing has changed since the last run." in texts[1]

    def test_delegated(self, with_prototypes: fo.Dataset) -> None:
        call("segment", with_prototypes[:2], "parts")
        with_prototypes.reload()
        execution = foo.get_operator(uri("update"))(with_prototypes, delegate=True)
        done = run_delegated(execution)
        assert done.run_state == "completed"
        assert done.status.label == "second looks: 2 of 2"
        assert done.result.result["segmentation"]["num_images"] == 2

    def test_error_is_a_sentence(self, predicted: fo.Dataset) -> None:
        messages = run_in_app(predicted, "update", {"tag": "nobody"})
        (note,) = named(messages, "notify")
        assert note["variant"] == "error"
        assert note["message"].startswith(f"No object of dataset {predicted.name!r} carries the tag 'nobody' (looked in ")

    @pytest.mark.parametrize(
        ("params", "field", "words"),
        [
            ({"label_field": "ground_truth"}, "label_field", "Predictions must be one of 'predictions', not 'ground_truth'."),
            ({"tag": " "}, "tag", "The tag must not be blank."),
            ({"negative_tag": " "}, "negative_tag", "The tag must not be blank."),
            ({"negative_tag": "reference"}, "same_tag", "References and negatives need different tags."),
        ],
    )
    def test_bad_values(self, predicted: fo.Dataset, params: dict[str, Any], field: str, words: str) -> None:
        problems = problems_of(form_of(predicted, "update", params))
        assert problems[field].startswith(words)

    def test_no_predictions(self, parts: fo.Dataset) -> None:
        sentence = f"The dataset {parts.name!r} holds no predictions yet: run 'Segment' first."
        assert problems_of(form_of(parts, "update"))["label_field"] == sentence
