"""Operators and the panel on frames of videos that lie on disk: what they write reaches the videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from tests.operators.app_panel import label_of, press, run_job, section
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.trays import propose_truth, tray_samples

MakeDataset = Callable[..., fo.Dataset]
QUICK = {"prototypes": "parts", "min_confidence": 0.0}
FORMS = [
    *("build_index", "build_prototypes", "learn", "sample_references", "segment_with_references", "evaluate", "write_counts"),
]


@pytest.fixture
def videos(make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Two videos of two frames each that lie on disk: trays, whose candidates are the ground truth."""
    samples = tray_samples(tmp_path)
    found = []
    for name, (first, second) in {"a": samples[:2], "b": samples[2:]}.items():
        video = fo.Sample(str(tmp_path / f"{name}.mp4"))
        for number, sample in enumerate((first, second), 1):
            video.frames[number] = fo.Frame(filepath=sample.filepath, ground_truth=sample.ground_truth)
        found.append(video)
    dataset = make_dataset(found)
    propose_truth(monkeypatch, dataset.to_frames())
    return dataset


@pytest.fixture
def learnt(videos: fo.Dataset) -> fo.Dataset:
    """The same with references in the first video, and prototypes."""
    frames = videos.limit(1).to_frames()
    ids = frames.values("ground_truth.detections.id", unwind=True)
    assert call("tag_references", frames, "ground_truth", ids)["num_labels"] == 4
    assert call("build_prototypes", frames, model="demo", name="parts")["shots"] == [["star", 2], ["tee", 2]]
    return videos


def count_of(videos: fo.Dataset, field: str, *, tag: str | None = None) -> int:
    """Labels of a field of frames, with a tag where it is given."""
    videos.reload()
    if f"{field}.detections" not in videos.get_frame_field_schema(flat=True):
        return 0
    if tag is not None:
        return int(videos.count_label_tags(f"frames.{field}").get(tag, 0))
    return int(videos.count(f"frames.{field}.detections"))


def states_of(videos: fo.Dataset) -> set[str]:
    configs = [videos.get_run_info(key).config for key in videos.list_runs(method="refseg/segment")]
    return {config.state for config in configs}


@pytest.mark.thorough
def test_from_python(learnt: fo.Dataset) -> None:
    def on(operator: str, *args: Any, **options: Any) -> dict:
        # Made anew, as in another session.
        return call(operator, learnt.to_frames(), *args, **options)

    assert count_of(learnt, "ground_truth", tag="reference") == 4
    assert on("build_index", model="demo")["num_images"] == 4
    assert on("index_status")["status"]["num_indexed"] == 4
    assert on("segment", **QUICK)["num_images"] == 4
    assert count_of(learnt, "predictions") == 8
    measured = on("evaluate", "predictions", "ground_truth")
    assert (measured["num_images"], measured["mask_ap"]) == (4, pytest.approx(1, abs=0.15))
    ids = learnt.to_frames().values("predictions.detections.id", unwind=True)
    assert on("review", "accept", ids[:1], as_references=True)["num_predictions"] == 1
    assert on("write_counts")["num_written"] == 4
    learnt.reload()
    assert learnt.values("frames.predictions_counts.star", unwind=True) == [1] * 4
    assert on("write_counts")["num_written"] == 0
    merged = on("merge_accepted", "reviewed")
    assert merged["num_added"] == count_of(learnt, "reviewed") == 1
    assert on("merge_accepted", "reviewed")["num_there"] == 1
    assert (on("merge_accepted", written=merged["written"])["num_removed"], count_of(learnt, "reviewed")) == (1, 0)
    written = on("review", "reject", ids[1:2])["written"]
    assert (count_of(learnt, "accepted", tag="reference"), count_of(learnt, "rejected", tag="negative")) == (1, 1)
    assert on("review", "undo", written=written)["undone"] is True
    assert count_of(learnt, "rejected") == 0
    frame = learnt.to_frames().first()
    x, y, w, h = frame.ground_truth.detections[0].bounding_box
    shown = on("show_object", frame.id, "star", [(x + w / 2, y + h / 2)], box=(x, y, w, h))
    assert (shown["sample_id"], shown["origin"], count_of(learnt, "references", tag="reference")) == (frame.id, "index", 1)
    assert on("tag_references", "predictions", ids[2:3], negative=True)["field"] == "rejected"
    assert on("find_similar", ids[:1], k=3)["num_found"] == count_of(learnt, "similar") == 3
    assert on("show_heatmap", "star", "parts")["num_images"] == learnt.count("frames.heatmap_star.map") == 4
    assert on("calibrate", "parts")["num_shown"] == 4
    assert on("mine_negatives", "parts", only_marked=False)["num_images"] == 4
    assert on("inspect_prototypes", "parts", num_suggestions=2, write_fields=True)["written"]["num_references"] == 4
    assert on("update")["segmentation"]["num_images"] == 4
    assert on("learn", model="demo", min_confidence=0.0)["segmentation"]["num_images"] == 4
    all_at_once = on("segment_with_references", model="demo", evaluate=False, name="others", label_field="more")
    assert all_at_once["segmentation"]["num_images"] == 4
    assert states_of(learnt) == {"completed"}


def test_drawn_references(videos: fo.Dataset) -> None:
    call("sample_references", videos.to_frames(), shots=1, min_side=5, border=0)
    assert count_of(videos, "ground_truth", tag="reference") == 2


@pytest.mark.parametrize("as_patches", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_in_the_app(learnt: fo.Dataset, as_patches: bool) -> None:
    frames = learnt.to_frames()
    view = frames.limit(3).to_patches("ground_truth") if as_patches else frames.limit(3)
    for name in FORMS:
        form = form_of(learnt, name, view=view)
        assert "dataset_problem" not in form, name
        assert "label_field" not in problems_of(form), name
    assert form_of(learnt, "build_prototypes", view=view)["field"]["default"] == "ground_truth"
    told = run_in_app(learnt, "segment", QUICK, view=view)
    assert [note["variant"] for note in named(told, "notify")] == ["success"]
    assert count_of(learnt, "predictions") == 6
    # FiftyOne's target "the whole dataset" is that of the videos.
    run_in_app(learnt, "segment", {**QUICK, "view_target": "DATASET"}, view=view)
    assert count_of(learnt, "predictions") == 8
    runs = [learnt.get_run_info(key).config.num_images for key in learnt.list_runs(method="refseg/segment")]
    assert runs == [3, 4]
    if not as_patches:
        last = [frames.last().id]
        selection = {"selected": last, "view_target": "SELECTED_SAMPLES"}
        run_in_app(learnt, "segment", {**QUICK, "label_field": "one"}, view=frames, **selection)
        assert count_of(learnt, "one") == 2


def test_what_an_index_holds(learnt: fo.Dataset) -> None:
    frames = learnt.to_frames()
    call("build_index", frames.limit(3), model="demo")
    texts = {}
    for name, view in {"all": frames, "one": frames.skip(3), "patches": frames.limit(1).to_patches("ground_truth")}.items():
        form = form_of(learnt, "segment", QUICK, view=view)
        texts[name] = " ".join(str(field["view"].get("label")) for field in form.values())
    assert "3 of 4 images are indexed" in texts["all"]
    assert "The image is not indexed yet" in texts["one"]
    assert "The image is indexed" in texts["patches"]


def test_similar_ones_are_shown_as_patches(learnt: fo.Dataset) -> None:
    frames = learnt.to_frames()
    call("build_index", frames, model="demo")
    picked = [label_of(frames.first())]
    assert "in_view" not in form_of(learnt, "find_similar", view=frames, selected_labels=picked)
    assert "in_view" in form_of(learnt, "find_similar", view=frames.limit(2), selected_labels=picked)
    told = run_in_app(learnt, "find_similar", {"k": 3}, view=frames, selected_labels=picked)
    (shown,) = named(told, "set_view")
    view = fo.DatasetView._build(learnt, shown["view"])
    assert len(view) == 3
    assert view._is_patches
    assert view._is_frames
    # What is selected there can be kept.
    selected = {"view": view, "selected": [view.first().id]}
    assert problems_of(form_of(learnt, "tag_references", {"field": "similar"}, **selected)) == {}
    run_in_app(learnt, "tag_references", {"field": "similar"}, **selected)
    assert count_of(learnt, "accepted", tag="reference") == 1


def test_delegated(learnt: fo.Dataset) -> None:
    for view, number in ((learnt.to_frames(), 4), (learnt.to_frames().limit(1), 1)):
        done: Any = run_delegated(foo.get_operator(uri("segment"))(view, **QUICK, delegate=True))
        assert done.run_state == "completed"
        assert done.result.result["num_images"] == number
    assert count_of(learnt, "predictions") == 8
    assert states_of(learnt) == {"completed"}


@pytest.mark.thorough
def test_the_panel(videos: fo.Dataset) -> None:
    frames = videos.to_frames()
    open_view = {"view": frames}
    first = press(videos, "on_load", **open_view).data["overview"]
    assert (first["problem"], first["fields"], first["selection"]["view"]) == (None, ["ground_truth"], None)
    assert press(videos, "choose", {"changes": {"model": "demo"}}, **open_view).result == {"problem": None}
    # References by hand, with one taken back.
    labels = [label_of(sample, number) for sample in frames for number in range(2)]
    told = press(videos, "add", selected_labels=labels[:5], **open_view).notes
    assert told == [("success", "Added 5 references.")]
    taken = {"field": "ground_truth", "id": labels[4]["label_id"], "sample_id": labels[4]["sample_id"]}
    assert press(videos, "remove", taken, **open_view).result is True
    assert count_of(videos, "ground_truth", tag="reference") == 4
    assert section(videos, "references", **open_view)["num_references"] == 4
    wanted = {"wanted": [{"id": labels[0]["label_id"], "field": "ground_truth", "sample_id": labels[0]["sample_id"]}]}
    assert list(press(videos, "pictures", wanted, **open_view).result) == [labels[0]["label_id"]]
    # Jobs.
    run_job(videos, "index", **open_view)
    assert (section(videos, "index", **open_view)["num_images"], section(videos, "index", **open_view)["num_indexed"]) == (4, 4)
    run_job(videos, "segment", **open_view)
    assert section(videos, "segment", **open_view)["run"]["images"] == "4 images"
    num_found = count_of(videos, "predictions")
    assert num_found > 0
    run_job(videos, "evaluate", **open_view)
    assert section(videos, "results", **open_view)["evaluation"]["num_images"] == 4
    assert section(videos, "results", **open_view)["histogram"]["num"] == num_found
    # Review, with one decision taken back.
    shown = section(videos, "review", **open_view)
    assert shown["num_open"] == num_found
    for kind, item in zip(("accept", "reject"), shown["items"], strict=False):
        assert press(videos, "decide", {"kind": kind, "item": item}, **open_view).notes == []
    assert (count_of(videos, "accepted"), count_of(videos, "rejected")) == (1, 1)
    assert press(videos, "undo", **open_view).notes == []
    assert (count_of(videos, "accepted"), count_of(videos, "rejected")) == (1, 0)
    (grid,) = named(press(videos, "show", {"what": "queue"}, **open_view).messages, "set_view")
    patches = fo.DatasetView._build(videos, grid["view"])
    assert len(patches) == num_found - 1
    # In the patches the panel serves too.
    in_patches = {"view": patches, "selected_samples": [{"id": patches.first().id}], "selected": [patches.first().id]}
    assert section(videos, "review", **in_patches)["num_open"] == num_found - 1
    assert press(videos, "decide_selected", {"kind": "reject"}, **in_patches).notes == [("success", "Rejected 1 object.")]
    rejected = videos.values("frames.rejected.detections.id", unwind=True)
    frame = videos.to_frames().match_labels(ids=rejected, fields="rejected").first()
    press(videos, "remove", {"field": "rejected", "id": rejected[0], "sample_id": frame.id}, **open_view)
    assert count_of(videos, "rejected") == 0
    # Everything again are the frames, not the videos.
    (back,) = named(press(videos, "show", {"what": "all"}, **in_patches).messages, "set_view")
    assert len(fo.DatasetView._build(videos, back["view"])) == 4
    run_job(videos, "update", **open_view)
    assert states_of(videos) == {"completed"}


def test_frames_cannot_be_marked_as_empty(videos: fo.Dataset) -> None:
    frames = videos.to_frames()
    words = "FiftyOne keeps no tags of frames of videos: make a dataset of them, "
    for view in (frames, frames.to_patches("ground_truth")):
        assert problems_of(form_of(videos, "mark_empty", view=view))["frames"].startswith(words)
    with pytest.raises(ExecutionError, match="FiftyOne keeps no tags of frames"):
        call("mark_empty", frames)
    chosen = [{"id": frames.first().id}]
    assert press(videos, "mark_empty", view=frames, selected_samples=chosen).error.startswith(words)
    sentence = problems_of(form_of(videos, "mark_empty", view=frames))["frames"]
    advice = sentence.removeprefix(words).partition(", and ")[0]
    images = eval(advice, {"dataset": videos})
    try:
        assert call("mark_empty", images.limit(1))["num_empty"] == 1
    finally:
        images.delete()


def test_videos_and_clips_are_refused(videos: fo.Dataset) -> None:
    for view in (None, videos.to_clips([[[1, 2]], [[1, 1]]])):
        problem = problems_of(form_of(videos, "segment", view=view))["dataset_problem"]
        assert problem.startswith(f"The dataset {videos.name!r} holds media of type 'video' here, but RefSeg needs images: ")
        assert problem.endswith("open a view of its frames, dataset.to_frames(sample_frames=True).")
    with pytest.raises(ExecutionError, match="holds media of type 'video'"):
        call("build_index", videos, model="demo")


@pytest.mark.parametrize("sampled", [False, "dynamic"])
def test_frames_that_do_not_lie_on_disk_are_refused(make_dataset: MakeDataset, tmp_path: Path, sampled: bool | str) -> None:
    video = fo.Sample(str(tmp_path / "a.mp4"))
    video.frames[1] = fo.Frame(ground_truth=fo.Detections())
    dataset = make_dataset([video])
    view = dataset.to_frames(sample_frames=sampled)
    problem = problems_of(form_of(dataset, "segment", view=view))["dataset_problem"]
    assert problem.endswith("write them with dataset.to_frames(sample_frames=True), or set their filepath, and pass that view.")
    assert press(dataset, "on_load", view=view).data["overview"] == {"problem": problem, "way_out": "frames"}


def test_an_object_is_shown_in_a_frame(videos: fo.Dataset) -> None:
    """The button opens the frames, and what is shown there reaches the video."""
    (opened,) = named(press(videos, "open_frames").messages, "set_view")
    frames = fo.DatasetView._build(videos, opened["view"])
    assert frames._is_frames
    frame = frames.first()
    label = frame.ground_truth.detections[0]
    press(videos, "choose", {"changes": {"model": "demo"}}, view=frames)
    assert press(videos, "scene", view=frames).result["sample_id"] == frame.id
    x, y, w, h = label.bounding_box
    shown = {"sample_id": frame.id, "box": [x, y, w, h], "label": "part"}
    assert press(videos, "keep", shown, view=frames).result["id"]
    assert count_of(videos, "references", tag="reference") == 1


def test_frames_that_are_no_images_yet_need_ffmpeg(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    dataset = make_dataset([fo.Sample("a.mp4")])
    assert press(dataset, "open_frames").error == (
        "FiftyOne makes images of frames with ffmpeg, which is not installed here: install it first."
    )
