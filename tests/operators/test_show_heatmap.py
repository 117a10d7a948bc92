"""Heatmaps: from Python, from the App, delegated; forms and refusals."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.demo.world import NOVEL_PARTS
from tests.operators.helpers import broken, call, form_of, named, problems_of, run_delegated, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


class TestShowHeatmap:
    def test_from_python(self, with_prototypes: fo.Dataset) -> None:
        path = broken(with_prototypes, Path(with_prototypes.last().filepath).parent)
        result = call("show_heatmap", with_prototypes, CLASSES[1])
        assert (result["field"], result["label"]) == (f"heatmap_{CLASSES[1]}", CLASSES[1])
        assert (result["num_images"], result["num_skipped"]) == (3, 1)
        assert result["skipped"] == [[with_prototypes.last().id, path, "this is not an image that can be read"]]
        with_prototypes.reload()
        assert len(with_prototypes.exists(result["field"])) == 3

    def test_first_class_of_a_view(self, with_prototypes: fo.Dataset) -> None:
        result = call("show_heatmap", with_prototypes[:2], field="where")
        assert (result["field"], result["label"], result["num_images"]) == ("where", CLASSES[0], 2)

    def test_selected_images_in_the_app(self, with_prototypes: fo.Dataset) -> None:
        chosen = [with_prototypes.last().id]
        params = {"label": CLASSES[0], "view_target": "SELECTED_SAMPLES"}
        messages = run_in_app(with_prototypes, "show_heatmap", params, selected=chosen)
        text = f"Heatmaps of '{CLASSES[0]}' for 1 image in the field 'heatmap_{CLASSES[0]}'."
        assert named(messages, "notify") == [{"message": text, "variant": "success"}]
        assert "reload_dataset" in [message["operator_uri"] for message in messages]
        with_prototypes.reload()
        assert with_prototypes.exists(f"heatmap_{CLASSES[0]}").values("id") == chosen

    def test_delegated(self, with_prototypes: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("show_heatmap"))(with_prototypes, delegate=True))
        assert done.run_state == "completed"
        assert done.result.result["num_images"] == 4

    def test_form(self, with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        form = form_of(with_prototypes, "show_heatmap")
        assert problems_of(form) == {}
        assert [choice["value"] for choice in form["label"]["view"]["choices"]] == CLASSES
        assert form["label"]["default"] == CLASSES[0]
        assert form["amount"]["view"]["label"] == "4 images"
        module = type(foo.get_operator(uri("show_heatmap"))).resolve_input.__globals__
        monkeypatch.setitem(module, "MANY_IMAGES", 3)
        text = "4 images go through the encoder, and each keeps its map: select some images, or narrow the view."
        warned = form_of(with_prototypes, "show_heatmap")
        assert warned["amount"]["view"]["label"] == text
        assert problems_of(warned) == {}

    def test_refusals(self, with_prototypes: fo.Dataset) -> None:
        sentences = {
            "ground_truth": "The field 'ground_truth' holds something else than heatmaps: choose another, or a new name.",
            "a.b": "'a.b' cannot name a field: use letters, digits and underscores, and begin with a letter.",
        }
        for field, sentence in sentences.items():
            assert problems_of(form_of(with_prototypes, "show_heatmap", {"field": field})) == {"field": sentence}
        assert list(problems_of(form_of(with_prototypes, "show_heatmap", {"label": "gear"}))) == ["label"]
        with pytest.raises(ExecutionError, match="must be one of"):
            call("show_heatmap", with_prototypes, "gear")
        call("show_heatmap", with_prototypes, field="where")
        with_prototypes.reload()
        assert problems_of(form_of(with_prototypes, "show_heatmap", {"field": "where"})) == {}
