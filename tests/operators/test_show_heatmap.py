"""Heatmaps: from Python, from the App, delegated; forms and refusals."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from operators.running.in_app import COLOURS, SHOW_FIELDS
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
        maps = [heatmap.map for heatmap in with_prototypes.exists(result["field"]).values(result["field"])]
        assert len(maps) == 3
        assert result["value_range"] == pytest.approx([min(one.min() for one in maps), max(one.max() for one in maps)])

    def test_on_the_patch_grid(self, with_prototypes: fo.Dataset) -> None:
        sides = []
        for detail in ("smooth", "patches"):
            call("show_heatmap", with_prototypes[:1], CLASSES[0], detail=detail)
            with_prototypes.reload()
            sides.append(with_prototypes.first()[f"heatmap_{CLASSES[0]}"].map.shape[0])
        assert sides[0] == 4 * sides[1] > 0
        problem = {"detail": "Drawn must be one of 'smooth', 'patches', not 'blocks'."}
        assert problems_of(form_of(with_prototypes, "show_heatmap", {"detail": "blocks"})) == problem

    def test_first_class_of_a_view(self, with_prototypes: fo.Dataset) -> None:
        result = call("show_heatmap", with_prototypes[:2], field="where")
        assert (result["field"], result["label"], result["num_images"]) == ("where", CLASSES[0], 2)

    def test_selected_images_in_the_app(self, with_prototypes: fo.Dataset) -> None:
        chosen = [with_prototypes.last().id]
        params = {"label": CLASSES[0], "view_target": "SELECTED_SAMPLES"}
        messages = run_in_app(with_prototypes, "show_heatmap", params, selected=chosen)
        field = f"heatmap_{CLASSES[0]}"
        with_prototypes.reload()
        shown = with_prototypes.last()[field].map
        text = f"Heatmaps of '{CLASSES[0]}' for 1 image in the field '{field}', from {shown.min():.2f} to {shown.max():.2f} on "
        assert named(messages, "notify") == [{"message": f"{text}a scale from 0 to 1.", "variant": "success"}]
        # Switched on in colours, once the App knows the field.
        order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
        assert order == ["reload_dataset", SHOW_FIELDS, "notify"]
        scale = {"path": field, "colours": list(COLOURS)}
        assert named(messages, SHOW_FIELDS) == [{"fields": [field], "scale": scale}]
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
