"""What each section of the panel shows, from an empty dataset to figures against ground truth."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset import kept_rows
from refseg.dataset.run_records import update_run
from refseg.evaluation.evaluating import evaluate
from refseg.processes import Process
from tests.operators.app_panel import SECTIONS, choose, context, press, run_job, section
from tests.operators.panel.shelf import loaded
from tests.operators.panel.tagging import STAR, TEE, learn, tag

MakeDataset = Callable[..., fo.Dataset]
NOTHING_DECIDED = {
    "num_accepted": 0,
    "num_rejected": 0,
    "num_relabelled": 0,
    "num_fixed": 0,
    "acceptance_rate": None,
    "corrections_per_hundred": None,
}


def predict(dataset: fo.Dataset, field: str = "predictions", classes: Sequence[str] = ("a", "b"), **about: Any) -> list[str]:
    """Predictions in the first image as a run of segment writes them; `about` holds a list of each attribute."""
    sample = dataset.first()
    rows = [dict(zip(about, values, strict=True)) for values in zip(*about.values(), strict=True)]
    boxes = [[number / 10, 0, 0.05, 0.05] for number in range(len(rows))]
    labels = [fo.Detection(bounding_box=box, **row) for box, row in zip(boxes, rows, strict=True)]
    dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.set_values(field, {sample.id: fo.Detections(detections=labels)}, key_field="id", dynamic=True)
    run = dataset.init_run(method="refseg/segment", label_field=field, classes=list(classes), min_confidence=0.5)
    dataset.register_run(f"run_{field}", run)
    return [label.id for label in labels]


def test_an_interrupted_run_tells_what_there_is(make_dataset: MakeDataset) -> None:
    """Its process ended before it could say what it found."""
    dataset = make_dataset([fo.Sample("a.png"), fo.Sample("b.png")])
    predict(dataset, label=["a", "b", "b"], confidence=[0.5, 0.75, 0.75])
    began = {"state": "running", "started_at": datetime.now(timezone.utc).isoformat()}
    for started_at, state in ((Process.current().started_at, "running"), (1.0, "interrupted")):
        process = replace(Process.current(), started_at=started_at)
        update_run(dataset, "run_predictions", {**began, "process": process.as_dict()})
        run = section(dataset, "segment")["run"]
        assert (run["state"], run["found"], run["images"]) == (state, "3 objects", "1 image")


@pytest.mark.parametrize("method", ["on_load", "load", "on_change_dataset", "on_change_view", "on_change_selected"])
class TestNothingCanBeDone:
    def problem(self, dataset: fo.Dataset | None, method: str, **request: Any) -> str:
        answer = press(dataset, method, **request)
        assert (answer.notes, answer.result) == ([], None)
        assert list(answer.data) == ["overview"]
        assert answer.data["overview"].keys() == {"problem", "way_out"}
        is_video = dataset is not None and dataset.media_type == "video"
        assert answer.data["overview"]["way_out"] == ("frames" if is_video else None)
        return str(answer.data["overview"]["problem"])

    def test_no_dataset(self, method: str) -> None:
        assert self.problem(None, method) == "No dataset is open: open one first."

    def test_empty_dataset(self, method: str, dataset: fo.Dataset) -> None:
        assert self.problem(dataset, method) == f"The dataset {dataset.name!r} is empty: add images first."

    def test_videos(self, method: str, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.mp4")])
        expected = f"The dataset {dataset.name!r} holds media of type 'video' here, but RefSeg needs images: open"
        assert self.problem(dataset, method).startswith(expected)

    def test_frames_that_lie_in_their_videos(self, method: str, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.mp4")])
        sample = dataset.first()
        sample.frames[1] = fo.Frame(ground_truth=fo.Detections())
        sample.save()
        # FiftyOne calls the media of frames images.
        assert "do not lie on disk" in self.problem(dataset, method, view=dataset.to_frames(sample_frames="dynamic"))


def test_a_view_that_can_be_used_again_is_shown_whole(labelled: Callable[..., fo.Dataset]) -> None:
    dataset = labelled([("a", [])])
    shown = press(dataset, "on_change_view", view=dataset.match_tags("nothing", bool=False)).data["overview"]
    assert shown["problem"] is None
    assert shown["settings"]["label_field"] == "predictions"


@pytest.mark.thorough
def test_the_story(trays: fo.Dataset) -> None:
    # Nothing is tagged.
    answer = press(trays, "load")
    assert answer.result is True
    assert tuple(answer.data) == SECTIONS
    assert answer.data["references"] == {
        "rows": [],
        "removed": None,
        "other_negatives": [],
        "num_other_negatives": 0,
        "num_references": 0,
        "num_negatives": 0,
        "num_empty": 0,
        "pending": None,
        "calibration": None,
        "prototypes": None,
    }
    shown = answer.data["index"]
    assert (shown["num_images"], shown["num_indexed"], shown["size"]) == (4, 0, None)
    assert (shown["room"]["fits"], shown["files"]) == (True, {"sam2_path": None, "dinov2_path": None})
    assert re.fullmatch(r"[\d.]+ [KM]B", shown["room"]["needed"])
    assert answer.data["segment"] == {"classes": [], "run": None}
    assert answer.data["review"] == {"num_open": 0, "items": [], "classes": [], **NOTHING_DECIDED}
    assert answer.data["results"] == {
        "evaluation": None,
        "num_reference_images": 0,
        "truth_fields": ["ground_truth"],
        "histogram": None,
        "thresholds": [{"value": 0.5, "names": []}],
    }

    # References of two classes.
    choose(trays, model="demo")
    tag(trays[:2], "reference")
    shown = section(trays, "references")
    assert [(row["name"], row["shots"], row["quality"]) for row in shown["rows"]] == [(TEE, 2, None), (STAR, 2, None)]
    assert (shown["num_references"], shown["pending"], shown["prototypes"]) == (4, "4 new references", None)
    assert [entry["name"] for entry in section(trays, "segment")["classes"]] == [TEE, STAR]
    assert section(trays, "results")["num_reference_images"] == 2

    # Prototypes.
    answer = run_job(trays, "learn")
    calibrated = dict(trays.get_run_info("prototypes").config.thresholds)
    assert list(calibrated) == [TEE, STAR]
    assert answer.notes == [("success", "Prototypes 'prototypes': 2 classes from 4 references. Scores are probabilities.")]
    shown = answer.data["references"]
    assert (shown["pending"], shown["prototypes"]) == (None, {"name": "prototypes", "model": "demo"})
    text = "Scores are probabilities, learnt from 4 references and 0 surroundings"
    assert shown["calibration"] == {"text": text, "is_calibrated": True}
    for entry in section(trays, "segment")["classes"]:
        assert (entry["threshold"], entry["origin"]) == (round(calibrated[entry["name"]], 4), "calibrated")
    for row in shown["rows"]:
        similarities = [example["similarity"] for example in row["examples"]]
        assert row["quality"] == pytest.approx(sum(similarities) / 2)
        assert 0 < row["quality"] <= 1

    # The index.
    shown = run_job(trays, "index").data["index"]
    assert (shown["num_images"], shown["num_indexed"], shown["room"]["needed"]) == (4, 4, None)
    assert next(choice["label"] for choice in shown["models"] if choice["name"] == "demo") == "demo · no download · all indexed"
    assert shown["size"].endswith(("KB", "MB"))

    # A preview, then the run.
    shown = run_job(trays, "preview").data["segment"]["run"]
    assert (shown["preview"], shown["state"]) == (True, "completed")
    answer = run_job(trays, "segment")
    number = trays.count("predictions.detections")
    assert number > 0
    run = answer.data["segment"]["run"]
    assert (run["found"], run["images"], run["preview"]) == (f"{number} objects", "4 images", False)
    assert 0 <= time.time() - run["at"] < 60
    assert answer.data["results"]["histogram"]["num"] == sum(answer.data["results"]["histogram"]["counts"]) == number
    lines = {name: line["value"] for line in answer.data["results"]["thresholds"] for name in line["names"]}
    assert lines == {name: round(least, 2) for name, least in calibrated.items()}
    (key,) = [key for key in trays.list_runs(method="refseg/segment") if not trays.get_run_info(key).config.preview]
    assert trays.get_run_info(key).config.min_confidences == [list(pair) for pair in calibrated.items()]
    shown = answer.data["review"]
    assert (shown["num_open"], shown["classes"]) == (number, [TEE, STAR])
    assert {item["label"] for item in shown["items"]} <= {TEE, STAR}

    # A review.
    first = shown["items"][0]
    shown = press(trays, "decide", {"kind": "accept", "item": first}).data["review"]
    assert (shown["num_open"], shown["num_accepted"], shown["acceptance_rate"]) == (number - 1, 1, 1.0)
    trays.reload()
    assert trays.values("accepted.detections.label", unwind=True) == [first["label"]]
    shown = section(trays, "references")
    assert (shown["num_references"], shown["pending"]) == (5, "1 new reference")

    # What was accepted is learnt with the next run, by itself.
    answer = run_job(trays, "segment")
    assert "from 5 references" in answer.notes[0][1]
    assert answer.data["references"]["pending"] is None

    # Figures.
    shown = run_job(trays, "evaluate").data["results"]
    measured = shown["evaluation"]
    assert (measured["gt_field"], measured["num_images"], measured["eval_key"]) == ("ground_truth", 4, "eval_predictions")
    assert 0 < measured["mask_ap"] <= 1
    assert [row[0] for row in measured["per_class"]] == [TEE, STAR]
    assert 0 <= time.time() - measured["at"] < 60
    assert (measured["without_references"], measured["num_left_out"], measured["hint"]) == ([], 0, "")
    assert shown["truth_fields"] == ["ground_truth", "accepted"]

    # Every class of ground truth counts, as it does from Python, and one that nobody showed is said.
    sample = trays.first()
    sample.ground_truth.detections[0].label = "gear"
    sample.save()
    measured = run_job(trays, "evaluate").data["results"]["evaluation"]
    report = evaluate(trays, "predictions", "ground_truth", progress=False)
    assert measured["mask_ap"] == report.mask_ap
    assert [row[0] for row in measured["per_class"]] == [TEE, "gear", STAR]
    assert measured["without_references"] == list(report.without_references) == ["gear"]
    # Of another field nothing was measured.
    choose(trays, label_field="others")
    assert section(trays, "results")["evaluation"] is None


class TestReferences:
    def test_mistakes_come_first(self, trays: fo.Dataset) -> None:
        sample = trays.last()
        wrong = next(label for label in sample.ground_truth.detections if label.label == STAR)
        wrong.label = TEE
        sample.save()
        tag(trays, "reference")
        learn(trays)
        row = section(trays, "references")["rows"][0]
        assert (row["name"], row["shots"]) == (TEE, 5)
        problems = {example["id"]: example["problem"] for example in row["examples"]}
        assert problems[wrong.id].startswith(f"more like {STAR!r} (")
        assert row["problems"] == [problem for problem in problems.values() if problem]
        assert 1 <= len(row["problems"]) < 5
        assert list(problems).index(wrong.id) < len(row["problems"])

    def test_what_is_not_learnt_yet(self, trays: fo.Dataset, tmp_path: Path) -> None:
        tag(trays[:3], "reference")
        broken = trays.skip(2).first()
        (tmp_path / "broken.png").write_bytes(b"no image")
        broken.filepath = str(tmp_path / "broken.png")
        broken.save()
        learn(trays)
        # What could not be used is no news.
        assert section(trays, "references")["pending"] is None
        first, second = trays.first().ground_truth.detections
        trays.select_labels(ids=[first.id]).untag_labels("reference")
        assert section(trays, "references")["pending"] == "1 reference taken away"
        trays.select_labels(ids=[first.id]).tag_labels("negative")
        tag(trays[3:], "reference")
        assert section(trays, "references")["pending"] == "2 new references, 1 reference taken away, 1 new negative"
        learn(trays)
        trays.select_labels(ids=[first.id, second.id]).untag_labels(["reference", "negative"])
        assert section(trays, "references")["pending"] == "1 reference taken away, 1 negative taken away"

    def test_negatives_of_a_class_and_of_all(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled(
            [("a.b", ["reference"])] * 15,
            [("a.b", ["negative"])] * 14,
            [("other", ["negative"])] * 13,
            [(None, ["negative"]), (None, ["reference"]), ("a.b", []), ("a.b", ["mine"])],
        )
        shown = section(dataset, "references")
        (row,) = shown["rows"]
        assert (row["name"], row["shots"], row["num_negatives"]) == ("a.b", 15, 14)
        assert (len(row["examples"]), len(row["negatives"])) == (12, 12)
        assert {example["kind"] for example in row["negatives"]} == {"negative"}
        # What has no class is passed over by learning too.
        assert (shown["num_other_negatives"], len(shown["other_negatives"])) == (13, 12)
        assert (shown["num_references"], shown["num_negatives"]) == (15, 27)
        assert shown["pending"] == "15 new references, 27 new negatives"

    def test_crowds_are_passed_over_as_learning_does(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", ["reference"]), ("a", ["reference"])])
        sample = dataset.first()
        sample.ground_truth.detections[0]["iscrowd"] = True
        sample.save()
        dataset.add_dynamic_sample_fields()
        assert section(dataset, "references")["pending"] == "1 new reference"

    def test_a_label_with_both_tags_is_a_negative(self, labelled: Callable[..., fo.Dataset]) -> None:
        shown = section(labelled([("a", ["reference", "negative"])]), "references")
        assert (shown["num_references"], shown["num_other_negatives"]) == (0, 1)

    def test_every_field_but_those_of_runs(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", ["reference"])], [])
        sample = dataset.last()
        sample["one"] = fo.Detection(label="b", bounding_box=[0, 0, 1, 1], tags=["reference"])
        sample["lanes"] = fo.Polylines(polylines=[fo.Polyline(label="c", points=[[(0, 0), (1, 1)]], tags=["negative"])])
        objects = [fo.Detection(label="d", bounding_box=[0, 0, 1, 1], tags=[name]) for name in ("reference", "negative")]
        sample["rejected"] = fo.Detections(detections=objects)
        sample.save()
        predict(dataset, label=["e"], confidence=[0.9], tags=[["reference"]])
        shown = section(dataset, "references")
        assert [row["name"] for row in shown["rows"]] == ["a", "b"]
        assert [(item["field"], item["label"]) for item in shown["other_negatives"]] == [("lanes", "c"), ("rejected", "d")]
        found = [example for row in shown["rows"] for example in row["examples"]]
        assert [(item["field"], item["sample_id"]) for item in found] == [
            ("ground_truth", dataset.first().id),
            ("one", sample.id),
        ]

    def test_objects_of_a_tagged_image(self, trays: fo.Dataset) -> None:
        trays[:1].tag_samples("reference")
        tag(trays[1:2], "reference")
        shown = section(trays, "references")
        assert (shown["num_references"], shown["pending"]) == (4, "4 new references")
        choose(trays, model="demo")
        assert run_job(trays, "learn").data["references"]["pending"] is None

    def test_two_slices_of_a_grouped_dataset(self, dataset: fo.Dataset, trays: fo.Dataset) -> None:
        dataset.add_group_field("group", default="left")
        samples = list(trays)
        for left, right in (samples[:2], samples[2:]):
            group = fo.Group()
            pair = [
                fo.Sample(sample.filepath, group=group.element(side), ground_truth=sample.ground_truth.copy())
                for sample, side in ((left, "left"), (right, "right"))
            ]
            dataset.add_samples(pair, progress=False)
        tag(dataset.select_group_slices("right"), "reference")
        choose(dataset, model="demo")
        for side in ("left", "right"):
            assert section(dataset, "references", group_slice=side)["pending"] == "4 new references"
            assert section(dataset, "index", group_slice=side)["num_images"] == 2
        answer = run_job(dataset, "segment", group_slice="left")
        assert answer.data["references"]["pending"] is None
        # Only the slice that was open.
        assert answer.data["segment"]["run"]["images"] == "2 images"
        number = answer.data["review"]["num_open"]
        assert number == dataset.count("predictions.detections") > 0
        assert section(dataset, "review", group_slice="right")["num_open"] == 0
        answer = press(dataset, "on_change_group_slice", group_slice="right")
        assert set(answer.data) == {"overview", *SECTIONS}
        example = section(dataset, "references")["rows"][0]["examples"][0]
        wanted = [{name: example[name] for name in ("id", "field", "sample_id")}]
        assert list(press(dataset, "pictures", {"wanted": wanted}).result) == [example["id"]]
        press(dataset, "remove", wanted[0])
        assert section(dataset, "references")["num_references"] == 3


class TestCalibration:
    def shown(self, dataset: fo.Dataset) -> tuple[Any, ...]:
        found = section(dataset, "references")
        return found["calibration"], found["num_empty"], found["pending"]

    def test_prototypes_that_are_not_calibrated_can_be(self, trays: fo.Dataset) -> None:
        tag(trays[:2], "reference")
        learn(trays)
        assert self.shown(trays) == ({"text": "", "is_calibrated": False}, 0, None)
        choose(trays, model="demo")
        assert {entry["origin"] for entry in section(trays, "segment")["classes"]} == {"default"}
        answer = run_job(trays, "calibrate")
        assert answer.notes[0][0] == "success"
        shown, _, _ = self.shown(trays)
        assert shown["is_calibrated"]
        assert {entry["origin"] for entry in section(trays, "segment")["classes"]} == {"calibrated"}

    def test_references_in_one_image_are_too_few(self, trays: fo.Dataset) -> None:
        tag(trays[:1], "reference")
        choose(trays, model="demo")
        run_job(trays, "learn")
        text = "Scores are probabilities as on other datasets: no class has references in two images"
        assert self.shown(trays)[0] == {"text": text, "is_calibrated": False}

    def test_images_known_to_be_empty_are_news(self, trays: fo.Dataset) -> None:
        tag(trays[:2], "reference")
        choose(trays, model="demo")
        run_job(trays, "learn")
        trays[2:].tag_samples("known_empty")
        assert self.shown(trays)[1:] == (2, "2 new empty images")
        run_job(trays, "learn")
        # Whatever is taken for a class there is known to be none: their objects, which are not labelled for all we know.
        shown, _, pending = self.shown(trays)
        config = trays.get_run_info("prototypes").config
        assert (pending, config.num_empty, config.num_surroundings) == (None, 2, 4)
        assert config.num_mined > 0
        assert shown["text"] == (
            f"Scores are probabilities, learnt from 4 references and 4 surroundings; {config.num_mined} negative"
            f"{'s' if config.num_mined > 1 else ''} mined"
        )
        trays[3:].untag_samples("known_empty")
        assert self.shown(trays)[1:] == (1, "1 empty image taken away")


class TestReview:
    def test_why_each_object_is_asked_for(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", [])])
        ids = predict(
            dataset,
            label=["a", "a", "b"],
            confidence=[0.55, 0.95, 0.9],
            margin=[0.4, 0.03, 0.5],
            runner_up=["b", "b", None],
        )
        choose(dataset, threshold=["a", 0.5])
        choose(dataset, threshold=["b", 0.5])
        shown = section(dataset, "review")
        assert [item["label_id"] for item in shown["items"]] == [ids[1], ids[0], ids[2]]
        assert [item["why"] for item in shown["items"]] == [
            "Nearly as much like 'b': 0.03 apart",
            "Just above the minimum score, 0.50",
            "The least sure of the rest",
        ]
        choose(dataset, order="score")
        shown = section(dataset, "review")
        assert [item["label_id"] for item in shown["items"]] == [ids[1], ids[2], ids[0]]
        assert {item["why"] for item in shown["items"]} == {"By score, best first"}
        assert shown["classes"] == ["a", "b"]

    def test_only_the_head_of_the_queue_is_sent(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", [])])
        predict(dataset, label=["a"] * 14, confidence=[0.9] * 14)
        shown = section(dataset, "review")
        assert (shown["num_open"], len(shown["items"])) == (14, 12)

    def test_what_is_written_elsewhere_is_seen_at_the_next_look(self, labelled: Callable[..., fo.Dataset]) -> None:
        import refseg

        dataset = labelled([("a", [])], [("b", [])])
        first, second, third = predict(dataset, label=["a", "b", "a"], confidence=[0.9, 0.8, 0.7])
        assert section(dataset, "review")["num_open"] == 3
        assert section(dataset, "references")["num_references"] == 0
        refseg.accept(dataset, [first], as_references=True)
        shown = section(dataset, "review")
        assert (shown["num_open"], shown["num_accepted"]) == (2, 1)
        assert [row["name"] for row in section(dataset, "references")["rows"]] == ["a"]
        assert [entry["name"] for entry in section(dataset, "segment")["classes"]] == ["a"]
        assert section(dataset, "results")["num_reference_images"] == 1
        dataset.delete_labels(ids=[second], fields="predictions")
        assert [item["label_id"] for item in section(dataset, "review")["items"]] == [third]
        assert section(dataset, "results")["histogram"]["num"] == 2
        sample = dataset.first()
        sample.predictions.detections[1].label = "c"
        sample.save()
        assert [item["label"] for item in section(dataset, "review")["items"]] == ["c"]
        dataset.delete_samples([sample])
        shown = section(dataset, "review")
        assert (shown["num_open"], shown["num_accepted"]) == (0, 0)
        assert section(dataset, "references")["rows"] == []
        assert section(dataset, "results")["histogram"] is None

    def test_loading_anew_reads_everything(self, labelled: Callable[..., fo.Dataset]) -> None:
        """Even what was written past FiftyOne, which notes no time of it."""
        dataset = labelled([("a", [])])
        predict(dataset, label=["a"] * 2, confidence=[0.9] * 2)
        assert section(dataset, "review")["num_open"] == 2
        dataset._sample_collection.update_one({}, {"$pop": {"predictions.detections": 1}})
        answer = press(dataset, "load", {"anew": True})
        assert answer.data["review"]["num_open"] == 1
        assert answer.data["overview"]["problem"] is None


class TestReading:
    """Of labels that take longer to read than a request waits."""

    @pytest.fixture
    def may_read(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Nothing is read before it is set."""
        real, event = kept_rows.KeptRows._compare, threading.Event()
        monkeypatch.setattr(kept_rows, "PATIENCE", 0.0)
        monkeypatch.setattr(kept_rows.KeptRows, "_compare", lambda self: (event.wait(60), real(self)))
        return event

    def test_is_said_and_ends(self, labelled: Callable[..., fo.Dataset], may_read: threading.Event) -> None:
        dataset = labelled([("a", ["reference"])])
        predict(dataset, label=["a"], confidence=[0.9])
        reading = {"is_reading": True}
        answer = press(dataset, "load")
        assert (answer.result, answer.notes) == (True, [])
        assert {name for name, shown in answer.data.items() if shown == reading} == {
            *("references", "segment", "review", "results"),
        }
        assert answer.data["index"]["num_images"] == 1
        may_read.set()
        deadline = time.monotonic() + 60
        while section(dataset, "review") == reading or section(dataset, "references") == reading:
            assert time.monotonic() < deadline
        assert section(dataset, "review")["num_open"] == 1
        assert section(dataset, "references")["num_references"] == 1

    def test_jobs_and_views_wait_for_it(self, labelled: Callable[..., fo.Dataset], may_read: threading.Event) -> None:
        dataset = labelled([("a", [])])
        predict(dataset, label=["a"], confidence=[0.9])
        assert section(dataset, "review") == {"is_reading": True}
        threading.Timer(0.05, may_read.set).start()
        assert "set_view" in press(dataset, "show", {"what": "queue"}).operators
        may_read.clear()
        assert section(dataset, "references") == {"is_reading": True}
        threading.Timer(0.05, may_read.set).start()
        assert loaded("acting").job_of(context(dataset), "learn")[0] == "learn"

    def test_an_error_is_told_and_the_next_look_tries_again(
        self, labelled: Callable[..., fo.Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = labelled([("a", ["reference"])])
        with monkeypatch.context() as patch:
            patch.setattr(kept_rows.KeptRows, "_read_all", lambda *_: 1 / 0)
            answer = press(dataset, "load", {"sections": ["references"]})
            assert answer.result is None
            assert answer.error.startswith("This failed (ZeroDivisionError: ")
        assert section(dataset, "references")["num_references"] == 1


class TestResults:
    def test_what_was_assumed_and_left_out(self, trays: fo.Dataset, tmp_path: Path) -> None:
        for number, sample in enumerate(trays.iter_samples(autosave=True)):
            found = [label.copy() for label in sample.ground_truth.detections]
            for label in found:
                label.confidence = 0.9
            sample["predictions"] = fo.Detections(detections=found)
            if number < 2:
                sample["metadata"] = fo.ImageMetadata(width=5, height=3)
            else:
                found[0].label = None
            if number == 3:
                sample.filepath = str(tmp_path / "gone.png")
        measured = run_job(trays, "evaluate").data["results"]["evaluation"]
        assert (measured["num_skipped"], measured["num_left_out"]) == (1, 1)
        # One line, without a path.
        assert measured["notes"] == [
            "The metadata of 2 samples lists another size than the image has: the image's own was used; "
            "dataset.compute_metadata(overwrite=True) renews it."
        ]

    def test_classes_of_one_least_score_share_a_line(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", [])])
        choose(dataset, thresholds=[("c", 0.714), ("$b", 0.2), ("a", 0.706), ("d", 0.5)])
        assert section(dataset, "results")["thresholds"] == [
            {"value": 0.2, "names": ["$b"]},
            {"value": 0.5, "names": ["d"]},
            {"value": 0.71, "names": ["a", "c"]},
        ]

    def test_an_evaluation_of_an_earlier_version(self, trays: fo.Dataset) -> None:
        config = trays.init_run(method="refseg/evaluation", pred_field="predictions", num_skipped=2, num_left_out=3)
        trays.register_run("evaluation_of_predictions", config)
        measured = section(trays, "results")["evaluation"]
        assert (measured["num_skipped"], measured["num_left_out"], measured["notes"]) == (2, 3, [])


class TestFieldsThatChanged:
    @pytest.mark.parametrize("held", [fo.Classification(label="x"), fo.Polylines(polylines=[])])
    def test_the_predictions_field_holds_something_else(self, labelled: Callable[..., fo.Dataset], held: fo.Label) -> None:
        """As a field of this name may, before the panel was ever opened."""
        dataset = labelled([("a", ["reference"])])
        sample = dataset.first()
        sample["predictions"] = held
        sample.save()
        answer = press(dataset, "load")
        assert answer.notes == []
        assert (answer.data["review"]["num_open"], answer.data["results"]["histogram"]) == (0, None)

    def test_fields_that_are_gone(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", [])], field="mine")
        predict(dataset, label=["a"], confidence=[0.9])
        choose(dataset, field="mine")
        dataset.delete_sample_field("predictions")
        dataset.delete_sample_field("mine")
        answer = press(dataset, "load")
        assert answer.notes == []
        assert answer.data["review"]["num_open"] == 0
        assert press(dataset, "on_load").data["overview"]["settings"]["field"] is None


class TestSelection:
    def shown(self, dataset: fo.Dataset, **request: Any) -> dict[str, Any]:
        found: dict[str, Any] = press(dataset, "on_change_selected", **request).data["overview.selection"]
        return found

    def test_images_and_labels(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", []), ("b", [])], [("a", [])])
        none = {"num_marked": 0, "num_references": 0, "num_negatives": 0, "what": "image", "view": None, "refusal": None}
        assert self.shown(dataset) == none
        kinds = [
            {"id": sample_id, "type": kind} for sample_id, kind in zip(dataset.values("id"), ("default", "alt"), strict=True)
        ]
        assert self.shown(dataset, selected_samples=kinds) == none | {"num_references": 1, "num_negatives": 1}
        dataset[:1].tag_samples("known_empty")
        assert self.shown(dataset, selected_samples=kinds)["num_marked"] == 1
        sample = dataset.first()
        picked = [
            {"label_id": label.id, "sample_id": sample.id, "field": "ground_truth"} for label in sample.ground_truth.detections
        ]
        sentence = (
            "Accepting and rejecting is for predictions alone, and the selection holds 2 objects of the field 'ground_truth': "
            "select objects of the field 'predictions' alone."
        )
        expected = none | {"num_references": 2, "what": "object", "refusal": sentence}
        assert self.shown(dataset, selected_labels=picked) == expected
        both = [*picked, {"label_id": "0" * 24, "sample_id": sample.id, "field": "predictions"}]
        assert self.shown(dataset, selected_labels=both)["refusal"] == sentence
        assert self.shown(dataset, selected_labels=both[2:])["refusal"] is None

    def test_views(self, labelled: Callable[..., fo.Dataset]) -> None:
        dataset = labelled([("a", []), ("b", [])], [("a", [])])
        assert self.shown(dataset, view=dataset.limit(1))["view"] == "1 image"
        patches = dataset.to_patches("ground_truth")
        chosen = [{"id": patches.first().id, "type": "alt"}]
        shown = self.shown(dataset, view=patches, selected_samples=chosen)
        assert shown.pop("refusal").startswith("Accepting and rejecting is for predictions alone")
        assert shown == {"num_marked": 0, "num_references": 0, "num_negatives": 1, "what": "object", "view": "3 objects"}
        # Patches are of images, so everything can be done.
        answer = press(dataset, "load", view=patches)
        assert answer.notes == []
        assert answer.data["index"]["num_images"] == 2
