"""Finding similar objects: from Python and from the App."""

from __future__ import annotations

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionError

from operators.running.in_app import SHOW_FIELDS
from tests.operators.helpers import call, form_of, named, problems_of, run_in_app
from tests.operators.indexed import notes, picked, records

pytestmark = pytest.mark.usefixtures("true_candidates")


class TestFindSimilar:
    def test_from_python(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        result = call("find_similar", indexed, [label.id], k=2)
        assert (result["label_field"], result["num_found"], result["num_left_out"]) == ("similar", 2, 1)
        assert result["scores"] == sorted(result["scores"], reverse=True)
        assert result["label"] == label.label
        indexed.reload()
        # The object itself is its own best likeness.
        assert indexed.first().similar.detections[0].id == result["label_ids"][0]
        assert indexed.first().similar.detections[0].label == label.label

    def test_from_python_in_a_view(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        result = call("find_similar", indexed[1:3], [label.id], label_field="alike")
        assert (result["num_found"], result["num_left_out"]) == (4, 0)
        indexed.reload()
        assert indexed.exists("alike").values("id") == indexed[1:3].values("id")

    def test_labels_selected_in_the_app(self, indexed: fo.Dataset) -> None:
        chosen = [picked(indexed.first())]
        assert form_of(indexed, "find_similar", selected_labels=chosen)["selection"]["view"]["label"] == "Selected: 1 object"
        messages = run_in_app(indexed, "find_similar", {"k": 3}, selected_labels=chosen)
        order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
        assert order == ["reload_dataset", "close_sample", "set_view", SHOW_FIELDS, "notify"]
        # The grid shows how alike each is.
        assert named(messages, SHOW_FIELDS) == [{"fields": ["similar", "similar.confidence"], "scale": None}]
        indexed.reload()
        view = fo.DatasetView._build(indexed, named(messages, "set_view")[0]["view"])
        scores = view.values("similar.confidence")
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        (note,) = notes(messages)
        assert note == {
            "message": f"3 candidates, the most similar first: similarity {scores[0]:.2f} to {scores[-1]:.2f}. "
            "Left out 1 image not indexed: run 'Build index' to see them too.",
            "variant": "warning",
        }

    def test_patches_selected_in_the_app(self, indexed: fo.Dataset) -> None:
        patches = indexed.to_patches("ground_truth")
        chosen = patches.values("id")[:2]
        form = form_of(indexed, "find_similar", view=patches, selected=chosen)
        assert form["selection"]["view"]["label"] == "Selected: 2 objects"
        assert "in_view" not in form
        call("build_index", indexed)
        messages = run_in_app(indexed, "find_similar", {"k": 8}, view=patches.limit(2), selected=chosen)
        (note,) = notes(messages)
        # All images are searched, not those of the patches alone.
        assert note["message"].startswith("8 candidates, ")
        # What was found is searched for in turn.
        indexed.reload()
        view = fo.DatasetView._build(indexed, named(messages, "set_view")[0]["view"])
        messages = run_in_app(indexed, "find_similar", {"k": 8}, view=view, selected=view.values("id")[:1])
        assert notes(messages)[0]["message"].startswith("8 candidates, ")

    def test_view_open_in_the_app(self, indexed: fo.Dataset) -> None:
        chosen = [picked(indexed.first())]
        view = indexed[1:3]
        assert form_of(indexed, "find_similar", view=view, selected_labels=chosen)["in_view"]["default"] is False
        assert "in_view" not in form_of(indexed, "find_similar", selected_labels=chosen)
        for in_view, images in ((False, 3), (True, 2)):
            run_in_app(indexed, "find_similar", {"in_view": in_view}, view=view, selected_labels=chosen)
            indexed.reload()
            assert len(indexed.exists("similar.detections.id").match(fo.ViewField("similar.detections").length() > 0)) == images

    def test_labels_of_several_fields(self, indexed: fo.Dataset) -> None:
        call("segment", indexed, min_confidence=0.0)
        indexed.reload()
        sample = indexed.first()
        chosen = [picked(sample), picked(sample, field="predictions"), {**picked(sample), "field": "weather"}]
        form = form_of(indexed, "find_similar", selected_labels=chosen)
        assert form["selection"]["view"]["label"] == "Selected: 2 objects"

    def test_nothing_selected(self, indexed: fo.Dataset) -> None:
        sentence = "No object is selected: select one in an image, or patches in the grid."
        assert problems_of(form_of(indexed, "find_similar")) == {"selection": sentence}
        # Selected images say nothing of which object is meant.
        assert problems_of(form_of(indexed, "find_similar", selected=[indexed.first().id])) == {"selection": sentence}
        with pytest.raises(ExecutionError, match="No object is selected"):
            call("find_similar", indexed, [])

    def test_unknown_label_is_a_sentence(self, indexed: fo.Dataset) -> None:
        (note,) = notes(run_in_app(indexed, "find_similar", {"label_ids": ["0" * 24]}))
        assert note["variant"] == "error"
        assert "has no labelled object with the id" in note["message"]

    def test_field_of_an_earlier_search_is_offered(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        call("find_similar", indexed, [label.id], label_field="alike")
        params = {"label_ids": [label.id], "label_field": "alike"}
        form = form_of(indexed, "find_similar", params)
        assert problems_of(form) == {}
        assert [choice["value"] for choice in form["label_field"]["view"]["choices"]] == ["alike"]

    def test_model_is_asked_for_where_there_are_several(self, indexed: fo.Dataset) -> None:
        params = {"label_ids": [indexed.first().ground_truth.detections[0].id]}
        assert "model" not in form_of(indexed, "find_similar", params)
        config = indexed.get_run_info(records(indexed)[0]["key"]).config
        shared = ("dataset_id", "uri", "exact", "fingerprint", "encoder", "clean_masks")
        facts = {name: getattr(config, name) for name in shared}
        counts = {"num_images": 1, "num_candidates": 1, "num_bytes": 1, "seconds_per_image": None, "updated_at": "2020-01-01"}
        indexed.register_run("older", indexed.init_run(method="refseg/index", model="tiny", **facts, **counts))
        form = form_of(indexed, "find_similar", params)
        assert [choice["value"] for choice in form["model"]["view"]["choices"]] == ["demo", "tiny"]
        assert form["model"]["default"] == "demo"
        problems = problems_of(form_of(indexed, "find_similar", {**params, "model": "large"}))
        assert problems == {"model": "Model must be one of 'demo', 'tiny', not 'large'."}
