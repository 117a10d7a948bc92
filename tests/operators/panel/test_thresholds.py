"""Least scores in the panel: chosen, calibrated or the model's own, and what of them reaches a run."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import fiftyone.operators as foo

from tests.operators.app_panel import choose, press, run_job, section
from tests.operators.panel.tagging import STAR, TEE, tag


class TestSegment:
    def test_thresholds_and_ticks(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a.b", ["reference"]), ("$c", ["reference"])])
        choose(dataset, model="demo", classes=["a.b"])
        choose(dataset, threshold=["a.b", 0.4])
        choose(dataset, threshold=["gone", 0.1])
        assert section(dataset, "segment")["classes"] == [
            {"name": "$c", "threshold": 0.5, "origin": "later", "can_be_calibrated": True, "chosen": False},
            {"name": "a.b", "threshold": 0.4, "origin": "own", "can_be_calibrated": True, "chosen": True},
        ]
        assert section(dataset, "results")["thresholds"] == [
            {"value": 0.1, "names": ["gone"]},
            {"value": 0.4, "names": ["a.b"]},
        ]
        choose(dataset, threshold=["gone", None])
        assert section(dataset, "results")["thresholds"] == [{"value": 0.4, "names": ["a.b"]}]
        choose(dataset, thresholds=[])
        assert {entry["origin"] for entry in section(dataset, "segment")["classes"]} == {"later"}
        assert section(dataset, "results")["thresholds"] == [{"value": 0.5, "names": []}]
        choose(dataset, classes=None)
        assert all(entry["chosen"] for entry in section(dataset, "segment")["classes"])

    def test_numbers_of_another_scale_count_no_more(self, labelled: Callable[..., fo.Dataset]) -> None:
        """Sliders moved, and prototypes kept, before scores were probabilities; and a model whose scores are not."""
        dataset = labelled([("a.b", ["reference"]), ("$c", ["reference"])])
        choose(dataset, model="demo", threshold=["a.b", 0.4])
        store = foo.ExecutionStore.create("refseg_panel", dataset_id=dataset._doc.id)
        kept = store.get("settings")
        store.set("settings", {name: value for name, value in kept.items() if name != "scores"})
        config = dataset.init_run(method="refseg/prototypes", model="demo", shots=[["a.b", 1]], thresholds=[["a.b", 0.68]])
        dataset.register_run("prototypes", config)
        (shown,) = [one for one in section(dataset, "segment")["classes"] if one["name"] == "a.b"]
        assert (shown["threshold"], shown["origin"]) == (0.5, "later")
        choose(dataset, threshold=["a.b", 0.4])
        choose(dataset, model="paper")
        (shown,) = [one for one in section(dataset, "segment")["classes"] if one["name"] == "a.b"]
        assert shown["origin"] == "default"

    def test_ticks_and_thresholds_reach_the_run(self, trays: fo.Dataset) -> None:
        tag(trays[:2], "reference")
        choose(trays, model="demo", classes=[STAR, "gone"])
        choose(trays, threshold=[STAR, 0.05])
        run_job(trays, "segment")
        assert set(trays.distinct("predictions.detections.label")) == {STAR}
        (key,) = trays.list_runs(method="refseg/segment")
        config = trays.get_run_info(key).config
        assert (config.min_confidences, config.own_confidences) == ([[STAR, 0.05]], [[STAR, 0.05]])

    def test_only_moved_sliders_reach_the_run(self, trays: fo.Dataset) -> None:
        tag(trays[:2], "reference")
        choose(trays, model="demo")
        choose(trays, threshold=[STAR, 0.05])
        run_job(trays, "learn")
        run_job(trays, "segment")
        calibrated = dict(trays.get_run_info("prototypes").config.thresholds)
        (key,) = trays.list_runs(method="refseg/segment")
        config = trays.get_run_info(key).config
        assert config.own_confidences == [[STAR, 0.05]]
        assert dict(config.min_confidences) == {STAR: 0.05, TEE: calibrated[TEE]}
        shown = {entry["name"]: (entry["threshold"], entry["origin"]) for entry in section(trays, "segment")["classes"]}
        assert shown == {STAR: (0.05, "own"), TEE: (round(calibrated[TEE], 4), "calibrated")}
        choose(trays, threshold=[STAR, None])
        shown = {entry["name"]: entry["origin"] for entry in section(trays, "segment")["classes"]}
        assert shown == {STAR: "calibrated", TEE: "calibrated"}

    def test_matching_reaches_the_run_and_its_thresholds_the_panel(self, trays: fo.Dataset) -> None:
        tag(trays[:2], "reference")
        choose(trays, model="demo")
        run_job(trays, "learn")
        choose(trays, matching={"class_similarity": "nearest"})
        choose(trays, matching={"overlaps": "diffusion"})
        shown = section(trays, "segment")["classes"]
        # What it was for the mean says little about the nearest.
        assert {entry["origin"] for entry in shown} == {"later"}
        run_job(trays, "segment")
        (key,) = trays.list_runs(method="refseg/segment")
        config = trays.get_run_info(key).config
        assert (config.matching["class_similarity"], config.matching["overlaps"]) == ("nearest", "diffusion")
        shown = {entry["name"]: (entry["threshold"], entry["origin"]) for entry in section(trays, "segment")["classes"]}
        assert shown == {name: (round(least, 4), "calibrated") for name, least in config.min_confidences}
        choose(trays, matching={})
        matching = press(trays, "on_load").data["overview"]["matching"]
        assert matching["chosen"] == matching["defaults"]
        assert [value for value, _ in matching["choices"]["class_similarity"]] == ["mean", "nearest", "clusters"]

    def test_the_published_model_has_no_threshold(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", ["reference"])])
        choose(dataset, model="paper")
        assert [(entry["threshold"], entry["origin"]) for entry in section(dataset, "segment")["classes"]] == [(0.0, "default")]

    def test_no_class_is_ticked(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", ["reference"])])
        for classes in ([], ["gone"]):
            choose(dataset, classes=classes)
            for job in ("segment", "preview"):
                assert press(dataset, "start", {"job": job}).error == "No class is ticked: tick at least one."
