"""Each operator from Python, from the App and as a delegated job, on a real dataset with the demo preset."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

from refseg.demo.world import NOVEL_PARTS
from tests.operators.helpers import broken, call, form_of, named, run_delegated, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


def tagged(dataset: fo.Dataset, tag: str = "reference") -> int:
    dataset.reload()
    return dataset.count_label_tags(label_fields="ground_truth").get(tag, 0)


def labels_of(sample: fo.Sample) -> list[fo.Detection]:
    return sample.ground_truth.detections


# tag_references


def test_tag_from_python(parts: fo.Dataset) -> None:
    ids = [label.id for label in labels_of(parts.last())]
    assert call("tag_references", parts, "ground_truth", label_ids=ids, tag="mine") == {
        "field": "ground_truth",
        "tag": "mine",
        "num_labels": len(ids),
        "untagged": False,
    }
    assert tagged(parts, "mine") == len(ids)


def test_tag_and_untag_a_view_from_python(parts: fo.Dataset) -> None:
    number = parts.count("ground_truth.detections")
    assert call("tag_references", parts, tag="all")["num_labels"] == number
    assert tagged(parts, "all") == number
    view = parts.filter_labels("ground_truth", fo.ViewField("label") == CLASSES[0])
    assert call("tag_references", view, tag="all", untag=True)["untagged"] is True
    assert tagged(parts, "all") == number - view.count("ground_truth.detections")


def test_tag_labels_selected_in_the_app(parts: fo.Dataset) -> None:
    sample = parts.last()
    label = labels_of(sample)[0]
    picked = [{"label_id": label.id, "sample_id": sample.id, "field": "ground_truth"}]
    messages = run_in_app(parts, "tag_references", {"tag": " new "}, selected_labels=picked)
    assert tagged(parts, "new") == 1
    assert named(messages, "notify") == [{"message": "Tagged as 'new': 1 object.", "variant": "success"}]
    assert "reload_samples" in [message["operator_uri"] for message in messages]


def test_tag_samples_selected_in_the_app(parts: fo.Dataset) -> None:
    sample = parts.last()
    run_in_app(parts, "tag_references", {"tag": "new"}, selected=[sample.id])
    assert tagged(parts, "new") == len(labels_of(sample))


def test_tag_patches_selected_in_the_app(parts: fo.Dataset) -> None:
    view = parts.to_patches("ground_truth")
    chosen = view.limit(2).values("id")
    run_in_app(parts, "tag_references", {"tag": "new"}, view=view, selected=chosen)
    assert tagged(parts, "new") == 2
    assert set(parts.select_labels(tags="new").values("ground_truth.detections.id", unwind=True)) == set(chosen)


# sample_references


def test_sample_from_python(parts: fo.Dataset) -> None:
    result = call("sample_references", parts, "ground_truth", shots=2, tag="drawn", min_side=8, border=0)
    assert [name for name, _ in result["label_ids"]] == CLASSES
    assert [len(ids) for _, ids in result["label_ids"]] == [2, 2]
    assert result["short"] == []
    assert tagged(parts, "drawn") == 4


def test_sample_respects_the_target_and_says_what_fell_short(parts: fo.Dataset) -> None:
    params = {"shots": 2, "tag": "drawn", "min_side": 8, "border": 0, "view_target": "SELECTED_SAMPLES"}
    messages = run_in_app(parts, "sample_references", params, selected=[parts.first().id])
    assert tagged(parts, "drawn") == 2
    note = named(messages, "notify")[0]
    assert note["variant"] == "warning"
    assert note["message"] == (
        "Tagged 2 references of 2 classes as 'drawn'. Fewer suitable objects than asked for: "
        + "; ".join(f"{name!r} has 1 reference: there are no other objects of it" for name in CLASSES)
    )


def test_sample_one_class_delegated(parts: fo.Dataset) -> None:
    execution = foo.get_operator(uri("sample_references"))(
        parts, shots=1, tag="drawn", classes=[CLASSES[0], ""], min_side=8, border=0, delegate=True
    )
    assert tagged(parts, "drawn") == 0
    done = run_delegated(execution)
    assert done.run_state == "completed"
    assert [name for name, _ in done.result.result["label_ids"]] == [CLASSES[0]]
    assert tagged(parts, "drawn") == 1


# build_prototypes


def test_build_from_python(parts: fo.Dataset) -> None:
    result = call("build_prototypes", parts, tag="reference", model="demo", name="mine")
    assert result["name"] == "mine"
    assert result["model"] == "demo"
    assert result["shots"] == [[name, 2] for name in CLASSES]
    assert result["skipped"] == []
    assert Path(result["path"]).is_file()
    parts.reload()
    assert parts.list_runs(method="refseg/prototypes") == ["mine"]


def test_build_turned(parts: fo.Dataset) -> None:
    ids = [labels_of(parts.last())[0].id]
    options = {"label_ids": ids, "model": "demo", "calibrates": False}
    call("build_prototypes", parts, name="turned", turned=True, **options)
    assert parts.get_run_info("turned").config.turned
    assert form_of(parts, "build_prototypes")["turned"]["default"] is True, "as those before"
    call("build_prototypes", parts, name="again", **options)
    assert parts.get_run_info("again").config.turned
    call("build_prototypes", parts, name="plain", turned=False, **options)
    assert not parts.get_run_info("plain").config.turned


@pytest.mark.parametrize(("choice", "shots"), [("all", 4), ("ids", 1)])
def test_build_from_every_object_or_some(parts: fo.Dataset, choice: str, shots: int) -> None:
    ids = [label.id for label in labels_of(parts.last())] if choice == "ids" else None
    result = call("build_prototypes", parts, tag=None, label_ids=ids, model="demo")
    assert result["name"] == "prototypes"
    assert result["shots"] == [[name, shots] for name in CLASSES]


def test_build_from_the_apps_selection(parts: fo.Dataset) -> None:
    sample = parts.last()
    label = labels_of(sample)[0]
    picked = [{"label_id": label.id, "sample_id": sample.id, "field": "ground_truth"}]
    messages = run_in_app(parts, "build_prototypes", {"model": "demo", "name": "one"}, selected_labels=picked)
    assert named(messages, "notify") == [{"message": "Prototypes 'one': 1 class from 1 reference.", "variant": "success"}]
    steps = named(messages, "set_progress")
    assert steps[0] == {"label": "references: 0 of 1", "progress": 0.0}
    # Where thresholds are calibrated.
    assert steps[-1] == {"label": "images of the dataset: 3 of 3", "progress": 1.0}


def test_build_delegated_shows_progress(parts: fo.Dataset) -> None:
    execution = foo.get_operator(uri("build_prototypes"))(parts, model="demo", name="later", delegate=True)
    done = run_delegated(execution)
    assert done.run_state == "completed"
    assert done.status.progress == 1.0
    assert done.status.label == "images of the dataset: 2 of 2"
    assert done.result.result["shots"] == [[name, 2] for name in CLASSES]


def test_build_with_negatives(parts: fo.Dataset) -> None:
    first, second = labels_of(parts.last())
    other = parts.skip(2).first()
    for label, name in zip((first, second), (first.label, "shadow"), strict=True):
        label.tags, label.label = ["negative"], name
    sample = parts.last()
    sample.ground_truth.detections = [first, second]
    sample.save()
    result = call("build_prototypes", parts, model="demo", name="mine")
    assert (result["shots"], result["num_negatives"]) == ([[name, 2] for name in CLASSES], 2)
    parts.reload()
    assert set(parts.get_run_info("mine").config.negative_ids) == {first.id, second.id}
    # Every object that is no negative is a reference; with another tag there is no negative.
    every = call("build_prototypes", parts, tag=None, model="demo", name="every")
    assert (every["shots"], every["num_negatives"], every["reused"]) == ([[name, 3] for name in CLASSES], 2, 6)
    assert call("build_prototypes", parts, model="demo", name="none", negative_tag="wrong")["num_negatives"] == 0
    # Negatives of a class that was not chosen would count for those that were.
    (wanted,) = {label.label for label in labels_of(other)} - {first.label}
    one = call("build_prototypes", parts, classes=[wanted], model="demo", name="one")
    assert (one["shots"], one["num_negatives"]) == ([[wanted, 2]], 1)
    messages = run_in_app(parts, "build_prototypes", {"model": "demo", "name": "told", "calibrates": False})
    assert named(messages, "notify")[0]["message"] == (
        "Prototypes 'told': 2 classes from 4 references and 2 negatives (3 reused)."
    )


# segment


def test_segment_from_python(with_prototypes: fo.Dataset) -> None:
    result = call("segment", with_prototypes, "parts", "found", min_confidence=0.0, max_detections=3, run_key="first")
    assert (result["run_key"], result["label_field"]) == ("first", "found")
    assert (result["num_images"], result["num_skipped"], result["skipped"]) == (4, 0, [])
    with_prototypes.reload()
    labels = with_prototypes.values("found.detections", unwind=True)
    assert len(labels) == result["num_instances"] <= 12
    assert {label.label for label in labels} <= set(CLASSES)
    assert all(label.mask is not None and label["run"] == "first" for label in labels)
    # RefSeg's own labels may be replaced without being asked. Nothing is computed again.
    again = call("segment", with_prototypes, label_field="found", min_confidence=0.0, max_detections=1)
    assert again["num_instances"] <= 4
    assert again["num_from_index"] == 4


def test_segment_some_classes_by_their_own_thresholds(with_prototypes: fo.Dataset) -> None:
    call("segment", with_prototypes, min_confidence=0.0, run_key="all")
    with_prototypes.reload()
    scores = sorted(
        label.confidence for label in with_prototypes.values("predictions.detections", unwind=True) if label.label == CLASSES[0]
    )
    other = with_prototypes.count("predictions.detections") - len(scores)
    least = (scores[0] + scores[1]) / 2
    pairs = [(CLASSES[0], least), (CLASSES[1], 1.0)]
    result = call("segment", with_prototypes, min_confidence=0.0, min_confidences=pairs[:1], run_key="mixed")
    assert result["changes"]["lost"] == [[CLASSES[0], 1]]
    assert (result["changes"]["gained"], result["changes"]["relabelled"]) == ([], [])
    assert len(result["changes"]["sample_ids"]) == result["changes"]["num_samples"] == 1
    result = call("segment", with_prototypes, min_confidences=pairs, classes=CLASSES[:1], run_key="one")
    assert (result["num_instances"], result["changes"]["lost"]) == (len(scores) - 1, [[CLASSES[1], other]])
    with_prototypes.reload()
    config = with_prototypes.get_run_info("one").config
    assert (config.min_confidence, config.min_confidences) == (None, [[CLASSES[0], least]])
    mixed = with_prototypes.get_run_info("mixed").config
    assert mixed.min_confidences == [[CLASSES[0], least], [CLASSES[1], 0.0]]


def test_segment_again_tells_what_has_changed(with_prototypes: fo.Dataset) -> None:
    params = {"prototypes": "parts", "min_confidence": 0.0, "max_detections": 2}
    first = named(run_in_app(with_prototypes, "segment", params), "notify")[0]["message"]
    assert "last run" not in first
    same = named(run_in_app(with_prototypes, "segment", params), "notify")[0]["message"]
    assert same.endswith("Nothing has changed since the last run.")
    params["max_detections"] = 1
    fewer = named(run_in_app(with_prototypes, "segment", params), "notify")[0]["message"]
    assert " Since the last run: 4 objects lost (" in fewer
    assert fewer.endswith(", in 4 images.")


def test_segment_a_view_from_python(with_prototypes: fo.Dataset) -> None:
    assert call("segment", with_prototypes.limit(2), "parts", semantic_field="map")["num_images"] == 2
    with_prototypes.reload()
    assert len(with_prototypes.exists("predictions")) == 2
    assert len(with_prototypes.exists("map")) == 2


def test_segment_in_the_app(with_prototypes: fo.Dataset, tmp_path: Path) -> None:
    path = broken(with_prototypes, tmp_path)
    params = {"prototypes": "parts", "run_key": "seen", "min_confidence": 0.2}
    messages = run_in_app(with_prototypes, "segment", params)
    order = [message["operator_uri"] for message in messages]
    assert order[0] == "set_progress"
    assert order[-2:] == ["reload_dataset", "notify"]
    assert named(messages, "set_progress")[-1] == {"label": "images: 4 of 4", "progress": 1.0}
    note = named(messages, "notify")[0]
    assert note["variant"] == "warning"
    assert "in 3 images, in the field 'predictions' (run 'seen')." in note["message"]
    assert f"Skipped 1 image: {path}: " in note["message"]
    json.dumps(messages)


def test_segment_the_images_of_patches(with_prototypes: fo.Dataset) -> None:
    view = with_prototypes.limit(2).to_patches("ground_truth")
    run_in_app(with_prototypes, "segment", {"view_target": "CURRENT_VIEW"}, view=view)
    with_prototypes.reload()
    assert with_prototypes.exists("predictions").values("id") == with_prototypes.limit(2).values("id")


@pytest.mark.usefixtures("every_step")
def test_leaving_the_app_cancels_and_keeps_what_is_done(with_prototypes: fo.Dataset) -> None:
    request = {
        "dataset_name": with_prototypes.name,
        "operator_uri": uri("segment"),
        "params": {"run_key": "left", "min_confidence": 0.0},
    }
    operator = foo.get_operator(uri("segment"))
    stream = operator.execute(foo.ExecutionContext(request, executor=Executor(), operator_uri=operator.uri))
    next(message for message in stream if message.body.params.get("progress", 0) > 0)
    stream.close()
    with_prototypes.reload()
    assert with_prototypes.get_run_info("left").config.state == "cancelled"
    assert 0 < len(with_prototypes.exists("predictions")) < 4


def test_segment_delegated(with_prototypes: fo.Dataset, tmp_path: Path) -> None:
    path = broken(with_prototypes, tmp_path)
    execution = foo.get_operator(uri("segment"))(with_prototypes, "parts", run_key="job", delegate=True)
    done = run_delegated(execution)
    assert done.run_state == "completed"
    assert done.status.label == "images: 4 of 4"
    assert done.result.result["num_images"] == 3
    assert [skipped[1] for skipped in done.result.result["skipped"]] == [path]


# evaluate


@pytest.fixture
def predicted(parts: fo.Dataset) -> fo.Dataset:
    """Predictions that are the ground truth, with a confidence."""
    for sample in parts.iter_samples(autosave=True):
        copies = [label.copy() for label in labels_of(sample)]
        for label in copies:
            label.confidence = 0.9
        sample["predictions"] = fo.Detections(detections=copies)
    return parts


def test_evaluate_from_python(predicted: fo.Dataset) -> None:
    result = call("evaluate", predicted, "predictions", "ground_truth", eval_key="mine")
    assert result["mask_ap"] == pytest.approx(1)
    assert result["box_ap"] == pytest.approx(1)
    assert result["per_class"] == [[name, pytest.approx(1), pytest.approx(1)] for name in CLASSES]
    assert result["num_images"] == 4
    predicted.reload()
    assert predicted.list_evaluations() == ["mine"]


def test_evaluate_in_the_app_opens_the_panel(predicted: fo.Dataset) -> None:
    messages = run_in_app(predicted, "evaluate", {"classes": [CLASSES[0], ""]})
    order = [message["operator_uri"] for message in messages]
    assert order[-3:] == ["reload_dataset", "open_panel", "notify"]
    assert named(messages, "open_panel")[0]["name"] == "model_evaluation_panel_builtin"
    assert named(messages, "notify")[0] == {
        "message": "mask AP 1.000 (AP50 1.000), box AP 1.000 on 4 images. Evaluation 'eval_predictions'.",
        "variant": "success",
    }


def test_evaluate_says_what_was_assumed_and_left_out(predicted: fo.Dataset, tmp_path: Path) -> None:
    first, second, *_ = predicted
    first["metadata"] = fo.ImageMetadata(width=5, height=3)
    first.save()
    nameless = second.predictions.detections[0]
    nameless.label = None
    second.save()
    path = broken(predicted, tmp_path)
    (note,) = named(run_in_app(predicted, "evaluate"), "notify")
    assert note["variant"] == "warning"
    words = note["message"].partition(" Left out 1 image: ")[2]
    assert words == (
        f"{path}: this is not an image that can be read. Left out 1 label: in {second.filepath} an object without a class: it "
        f"has no class: name it or remove it ({nameless.id}). The metadata of 1 sample lists another size than the image "
        f"has, such as that of {first.filepath}: the image's own was used; dataset.compute_metadata(overwrite=True) renews it."
    )


def test_evaluate_counts_every_label_left_out(predicted: fo.Dataset) -> None:
    sample = predicted.first()
    nameless = [fo.Detection(bounding_box=[0, 0, 0.1, 0.1], confidence=0.5) for _ in range(104)]
    sample.predictions.detections += nameless
    sample.save()
    (note,) = named(run_in_app(predicted, "evaluate"), "notify")
    assert "Left out 104 labels: " in note["message"]
    assert note["message"].endswith("; and 101 more.")


def test_evaluate_delegated(predicted: fo.Dataset) -> None:
    done = run_delegated(foo.get_operator(uri("evaluate"))(predicted.limit(3), delegate=True))
    assert done.run_state == "completed"
    assert done.result.result["num_images"] == 3


# segment_with_references


@pytest.mark.slow
def test_whole_loop_from_python(parts: fo.Dataset) -> None:
    result = call("segment_with_references", parts.skip(2), model="demo", name="loop", min_confidence=0.0, eval_key="loop_eval")
    assert result["prototypes"]["shots"] == [[name, 2] for name in CLASSES]
    assert result["segmentation"]["num_images"] == 2
    assert result["evaluation"]["num_images"] == 2
    assert result["evaluation"]["eval_key"] == "loop_eval"
    parts.reload()
    # References lie outside of the view, and stay unsegmented.
    assert len(parts.exists("predictions")) == 2


@pytest.mark.slow
def test_whole_loop_in_the_app(parts: fo.Dataset) -> None:
    messages = run_in_app(parts, "segment_with_references", {"model": "demo", "min_confidence": 0.0})
    labels = [step["label"] for step in named(messages, "set_progress")]
    assert labels[0] == "1 of 3, references: 0 of 4"
    assert "2 of 3, images: 4 of 4" in labels
    assert labels[-1].startswith("3 of 3, evaluation steps: ")
    order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
    assert order == ["reload_dataset", "open_panel", "notify"]
    text = named(messages, "notify")[0]["message"]
    assert text.startswith("Prototypes 'prototypes': 2 classes from 4 references. ")
    assert "Evaluation 'eval_predictions'." in text


@pytest.mark.slow
def test_whole_loop_delegated_without_evaluation(parts: fo.Dataset) -> None:
    execution = foo.get_operator(uri("segment_with_references"))(parts, model="demo", evaluate=False, delegate=True)
    done = run_delegated(execution)
    assert done.run_state == "completed"
    assert done.status.label == "2 of 2, second looks: 2 of 2"
    assert done.result.result["evaluation"] is None


# errors


def test_error_in_the_app_is_a_sentence(parts: fo.Dataset) -> None:
    messages = run_in_app(parts, "build_prototypes", {"model": "demo", "tag": "nobody"})
    assert messages == [
        {
            "operator_uri": "notify",
            "params": {
                "message": f"No object in the field 'ground_truth' of dataset {parts.name!r} with the tag 'nobody' can serve "
                "as a reference: tag or select at least one labelled object of each class.",
                "variant": "error",
            },
        }
    ]


def test_error_in_python_is_raised_with_the_sentence(parts: fo.Dataset) -> None:
    with pytest.raises(ExecutionError, match="with the tag 'nobody' can serve as a reference"):
        call("build_prototypes", parts, model="demo", tag="nobody")


def test_error_in_a_job_marks_it_failed(parts: fo.Dataset) -> None:
    execution = foo.get_operator(uri("build_prototypes"))(parts, model="demo", tag="nobody", delegate=True)
    done = run_delegated(execution)
    assert done.run_state == "failed"
    assert "with the tag 'nobody' can serve as a reference" in done.result.error


def test_accident_in_the_app_is_a_sentence(
    with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import refseg.candidates.tiles

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(refseg.candidates.tiles, "propose_from_pixels", fail)
    messages = run_in_app(with_prototypes, "segment", {"run_key": "accident"})
    assert named(messages, "notify") == [
        {
            "message": "Segment failed (MemoryError: out of memory). The server's log has the details.",
            "variant": "error",
        }
    ]
    assert "in fail" in caplog.text
    with_prototypes.reload()
    assert with_prototypes.get_run_info("accident").config.state == "failed"


def test_prototypes_whose_file_is_gone(with_prototypes: fo.Dataset) -> None:
    Path(with_prototypes.get_run_info("parts").config.path).unlink()
    messages = run_in_app(with_prototypes, "segment", {"prototypes": "parts"})
    note = named(messages, "notify")[0]
    assert note["variant"] == "error"
    assert note["message"].startswith("The file of the prototypes 'parts' is gone")
