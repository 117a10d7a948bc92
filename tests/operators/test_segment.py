"""Segmenting from the index and by preview: from Python and from the App."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import lance
import pytest

from tests.operators.app_panel import choose, context, press, run_job
from tests.operators.helpers import call, form_of, named, problems_of, run_in_app
from tests.operators.indexed import no_lance, notes, notice, records
from tests.operators.panel.shelf import loaded

pytestmark = pytest.mark.usefixtures("true_candidates")


class TestSegment:
    def test_index_is_read_and_filled(self, indexed: fo.Dataset) -> None:
        first = call("segment", indexed, "parts", min_confidence=0.0)
        assert (first["num_images"], first["num_from_index"], first["num_written"]) == (4, 3, 4)
        assert (first["preview"], first["best"], first["num_left_out"], first["index_trouble"]) == (False, [], 0, None)
        messages = run_in_app(indexed, "segment", {"min_confidence": 0.0, "run_key": "again"})
        text = (
            f"{first['num_instances']} instances in 4 images (4 from the index), in the field 'predictions' (run 'again'). "
            "Nothing has changed since the last run."
        )
        assert notes(messages) == [{"message": text, "variant": "success"}]
        again = indexed.get_run_info("again").config
        assert (again.num_from_index, again.num_written) == (4, 0)

    def test_without_the_index(self, with_prototypes: fo.Dataset) -> None:
        text = notice(with_prototypes, "segment", {"index": False})
        assert text == "Each of 4 images is computed, and nothing is kept."
        result = call("segment", with_prototypes, "parts", index=False)
        assert (result["num_images"], result["num_from_index"]) == (4, 0)
        assert records(with_prototypes) == []
        run_in_app(with_prototypes, "segment", {"index": False})
        assert records(with_prototypes) == []
        call("build_index", with_prototypes)
        text = notice(with_prototypes, "segment", {"index": False})
        assert text.startswith("Each of 4 images is computed, about ")
        assert text.endswith(" in all, and nothing is kept.")

    def test_from_the_index_of_the_same_models(self, with_prototypes: fo.Dataset) -> None:
        """As the form says it before, the message after, and the panel at any time."""
        call("build_index", with_prototypes, model="demo-fast")
        assert notice(with_prototypes, "segment") == "All 4 images are indexed: segmenting takes seconds."
        assert notice(with_prototypes, "segment_with_references", {"model": "demo"}).startswith("All 4 images are indexed")
        choose(with_prototypes, model="demo")
        shown = press(with_prototypes, "load", sections=["index"]).data["index"]
        assert (shown["num_indexed"], shown["lent"]) == (0, {"model": "demo-fast", "num_indexed": 4})
        messages = run_in_app(with_prototypes, "segment", {"min_confidence": 0.0})
        assert "(4 from the index of 'demo-fast', which has the same models)" in notes(messages)[0]["message"]
        assert [record["model"] for record in records(with_prototypes)] == ["demo-fast"]
        call("build_index", with_prototypes, model="demo")
        assert press(with_prototypes, "load", sections=["index"]).data["index"]["lent"] is None
        assert call("segment", with_prototypes, "parts")["lent_by"] is None

    def test_preview_from_python(self, indexed: fo.Dataset) -> None:
        result = call("segment", indexed, "parts", min_confidence=0.0, preview=True)
        assert (result["preview"], result["num_images"], result["num_left_out"]) == (True, 3, 1)
        assert [sample_id for sample_id, _ in result["best"]] != []
        scores = [score for _, score in result["best"]]
        assert scores == sorted(scores, reverse=True)
        indexed.reload()
        assert set(indexed.exists("predictions").values("id")) == {sample_id for sample_id, _ in result["best"]}

    def test_preview_in_the_app_shows_the_best_first(self, indexed: fo.Dataset) -> None:
        params = {"preview": True, "min_confidence": 0.0, "run_key": "best"}
        assert notice(indexed, "segment", params) == "3 of 4 images are indexed and ranked, which takes seconds."
        messages = run_in_app(indexed, "segment", params)
        order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
        assert order == ["reload_dataset", "set_view", "notify"]
        indexed.reload()
        scores = {
            sample.id: max(label.confidence for label in sample.predictions.detections)
            for sample in indexed.exists("predictions")
        }
        stages = named(messages, "set_view")[0]["view"]
        view = fo.DatasetView._build(indexed, stages)
        assert view.values("id") == sorted(scores, key=lambda name: -scores[name])
        (note,) = notes(messages)
        assert note["variant"] == "warning"
        assert note["message"].startswith("The best 3 of 3 images, best first: ")
        assert note["message"].endswith(" Left out 1 image not indexed: run 'Build index' to see them too.")

    def test_preview_that_finds_nothing(self, indexed: fo.Dataset) -> None:
        messages = run_in_app(indexed, "segment", {"preview": True, "min_confidence": 1.0}, view=indexed.limit(3))
        assert named(messages, "set_view") == []
        text = "None of 3 images has an instance above the minimum confidence."
        assert notes(messages) == [{"message": text, "variant": "success"}]

    def test_preview_of_images_that_are_not_indexed(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        view = indexed.skip(3)
        sentence = "A preview looks at indexed images alone, and none of these is indexed yet: run 'Build index' first."
        form = form_of(indexed, "segment", {"preview": True}, view=view)
        assert problems_of(form) == {"preview": sentence}
        assert "coverage" not in form
        # Where the form cannot know it, the library says so.
        no_lance(monkeypatch)
        assert problems_of(form_of(indexed, "segment", {"preview": True}, view=view)) == {}
        (note,) = notes(run_in_app(indexed, "segment", {"preview": True}, view=view))
        assert note["variant"] == "error"
        assert note["message"].startswith("A preview looks at indexed images alone, and none of these is indexed")

    def test_full_disk(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        real = lance.write_dataset

        def write_dataset(*arguments: Any, mode: str, **options: Any) -> Any:
            if mode == "append":
                raise OSError("No space left on device")
            return real(*arguments, mode=mode, **options)

        monkeypatch.setattr(lance, "write_dataset", write_dataset)
        (note,) = notes(run_in_app(indexed, "segment", {"min_confidence": 0.0}))
        assert note["variant"] == "warning"
        assert "instances in 4 images (3 from the index)" in note["message"]
        assert " Candidates are not kept: Nothing more can be written to the candidate index" in note["message"]


class TestPresence:
    @pytest.fixture
    def trays(self, trays: fo.Dataset) -> fo.Dataset:
        """The same, with the objects of the first two as references."""
        trays[:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        return trays

    def test_from_python_from_the_app_and_by_an_update(self, trays: fo.Dataset) -> None:
        call("learn", trays, "demo", only_prototypes=True)
        assert call("segment", trays, presence_field="presence")["num_written"] == 4
        trays.reload()
        assert trays.count("presence.classifications") == 8
        messages = run_in_app(trays, "segment", {"presence_field": "presence"})
        assert notes(messages)[0]["message"].endswith("Nothing has changed since the last run.")
        sample = trays.first()
        sample.presence.classifications[0].confidence = 0.0
        sample.save()
        assert call("update", trays)["segmentation"]["num_written"] == 1

    def test_with_references(self, trays: fo.Dataset) -> None:
        call("segment_with_references", trays, model="demo", evaluate=False, presence_field="presence")
        trays.reload()
        assert trays.count("presence.classifications") == 8

    @pytest.mark.thorough
    def test_the_panel_goes_on_with_it(self, trays: fo.Dataset) -> None:
        def asked() -> tuple[str, str | None]:
            press(trays, "on_load")
            operator, params = job_of(context(trays), "segment")
            return operator, params.get("presence_field")

        job_of = loaded("acting").job_of
        choose(trays, model="demo")
        assert asked() == ("learn", None)
        call("learn", trays, "demo", presence_field="presence")
        trays.reload()
        assert trays.count("presence.classifications") == 8
        sample = trays.first()
        sample.presence.classifications[0].confidence = 0.0
        sample.save()
        assert asked() == ("segment", "presence")
        run_job(trays, "segment")
        key = trays.list_runs(method="refseg/segment")[-1]
        config = trays.get_run_info(key).config
        assert (config.presence_field, config.num_written) == ("presence", 1)
        call("calibrate", trays)
        assert asked() == ("segment", "presence")
        choose(trays, model="paper")
        assert asked() == ("learn", None)
        choose(trays, model="demo")
        call("learn", trays, "demo", only_prototypes=True, calibrates=False)
        assert asked() == ("segment", None)

    def test_forms(self, trays: fo.Dataset) -> None:
        call("learn", trays, "demo", only_prototypes=True, calibrates=False)
        params = {"presence_field": "presence"}
        sentence = "Presence is a probability, and these prototypes are not calibrated: run 'Calibrate thresholds' first, or"
        assert problems_of(form_of(trays, "segment", params))["presence_field"].startswith(sentence)
        assert problems_of(form_of(trays, "segment")) == {}
        call("calibrate", trays)
        trays.reload()
        assert problems_of(form_of(trays, "segment", params)) == {}
        sentence = "Presence is a probability: tick 'Probabilities' below, or leave this empty."
        assert problems_of(form_of(trays, "segment", {**params, "calibrated": False})) == {"presence_field": sentence}
        params["model"] = "demo"
        assert problems_of(form_of(trays, "segment_with_references", {**params, "name": "new"})) == {}
        found = problems_of(form_of(trays, "segment_with_references", {**params, "name": "new", "calibrates": False}))
        assert found["presence_field"] == "Presence is a probability: tick 'Calibrate thresholds' above, or leave this empty."
        found = problems_of(form_of(trays, "segment_with_references", {**params, "name": "new", "model": "paper"}))
        assert found["presence_field"].startswith("Presence is a probability, and 'paper' gives similarities: choose another")
        assert problems_of(form_of(trays, "learn", params)) == {}
        assert problems_of(form_of(trays, "learn", {**params, "calibrated": False})) == {"presence_field": sentence}
        assert "presence_field" in problems_of(form_of(trays, "learn", {**params, "calibrates": False}))
        assert "presence_field" in problems_of(form_of(trays, "learn", {**params, "model": "paper"}))

    @pytest.mark.parametrize("operator", ["segment", "segment_with_references", "learn"])
    def test_fields_that_cannot_serve(self, trays: fo.Dataset, operator: str) -> None:
        for name in ("ground_truth", "filepath"):
            form = form_of(trays, operator, {"model": "demo", "presence_field": name})
            sentence = f"The field {name!r} holds something else than classifications: choose another, or a new name."
            assert problems_of(form)["presence_field"] == sentence
            assert "overwrite_labels" not in form
        params = [{"presence_field": "predictions"}, {"presence_field": "mine", "label_field": "mine"}]
        if operator == "segment":
            params.append({"presence_field": "map", "semantic_field": "map"})
        for given in params:
            problem = problems_of(form_of(trays, operator, {"model": "demo", **given}))["presence_field"]
            assert problem == f"Presence needs a field of its own, not {given['presence_field']!r} again."

    def test_labels_of_others(self, trays: fo.Dataset) -> None:
        call("learn", trays, "demo", only_prototypes=True)
        trays.set_values("mine", [fo.Classifications(classifications=[fo.Classification(label="sunny")])] * 4)
        form = form_of(trays, "segment", {"presence_field": "mine"})
        assert problems_of(form)["presence_field"].startswith("The labels in the field 'mine' are not RefSeg's")
        assert "overwrite_labels" in form
        params = {"presence_field": "mine", "overwrite_labels": True}
        assert problems_of(form_of(trays, "segment", params)) == {}
        run_in_app(trays, "segment", params)
        trays.reload()
        assert "sunny" not in trays.distinct("mine.classifications.label")
