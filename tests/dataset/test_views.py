"""The one door: every public function with a name, frames, groups, patches, clips and videos, and what each says or does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from bson import ObjectId

import refseg
from refseg.dataset.fields import SEGMENTING, every_image, past_runs
from refseg.dataset.views import (
    count_samples,
    image_dataset,
    image_view,
    kept_with,
    open_collection,
    read_detections,
    require_samples,
    sample_or_none,
    whole_of,
    write_detections,
    write_values,
)
from refseg.errors import DatasetError
from refseg.prototypes.prototypes import Prototypes
from tests.at_once import other_process
from tests.trays import propose_truth, tray_samples

MakeDataset = Callable[..., fo.Dataset]

NAMED_PARAMETERS = ("view", "dataset")
NUM_IMAGES = 4
QUIET = {"num_workers": 0, "progress": False}


@dataclass
class World:
    """One kind of dataset or view, and what calls need.

    Attributes:
        given: what a caller passes.
        dataset: that keeps the runs.
        prototypes: of its classes.
        images: the images among it, as a view that can be read; None where it has none.
        merged: what was merged.
        decision: the last one made.
    """

    given: Any
    dataset: fo.Dataset | None
    prototypes: Prototypes
    images: Any = None
    merged: Any = field(default_factory=lambda: refseg.MergeReport("ground_truth", "accepted"))
    decision: Any = field(default_factory=lambda: refseg.Decision("accept", "predictions", ["0" * 24], [], []))

    def label_ids(self, name: str = "predictions") -> list[str]:
        """Ids of the labels of a field."""
        found = [] if self.images is None else self.images.values(f"{name}.detections.id", unwind=True)
        return list(found) or ["0" * 24] * 8

    @property
    def first_id(self) -> str:
        """Of an image, or one that none has."""
        return "0" * 24 if self.images is None else str(self.images.first().id)

    def report(self) -> Any:
        """A report on the prototypes, with no suggestions."""
        return refseg.inspect(self.prototypes, progress=False)

    def decide(self, name: str, place: int, *more: Any) -> None:
        """Decide on a prediction."""
        self.decision = getattr(refseg, name)(self.given, [self.label_ids()[place]], *more)

    def merge(self, given: Any) -> Any:
        """Merge what is accepted into a field of its own."""
        self.merged = refseg.merge_accepted(given, "merged", progress=False)
        return self.merged

    def fix(self) -> None:
        """Decide on the last prediction."""
        refseg.fix(self.given, self.label_ids()[3])


CALLS: dict[str, Callable[[Any, World], Any]] = {
    "tag_references": lambda given, world: refseg.tag_references(given, world.label_ids("ground_truth"), "ground_truth"),
    "collect_references": lambda given, world: refseg.collect_references(given, "ground_truth", tags="reference"),
    "sample_references": lambda given, world: refseg.sample_references(given, "ground_truth", 2, min_side=1, border=0),
    "save_prototypes": lambda given, world: refseg.save_prototypes(given, world.prototypes, "parts"),
    "list_prototypes": lambda given, world: refseg.list_prototypes(given),
    "load_prototypes": lambda given, world: refseg.load_prototypes(given, "parts"),
    "build_index": lambda given, world: refseg.build_index(given, "demo", **QUIET),
    "open_index": lambda given, world: refseg.open_index(given).status(),
    "segment": lambda given, world: refseg.segment(given, "parts", min_confidence=0.0, **QUIET),
    "suggest_references": lambda given, world: refseg.suggest_references(given, progress=False),
    "evaluate": lambda given, world: refseg.evaluate(given, "predictions", "ground_truth", progress=False),
    "review_queue": lambda given, world: refseg.review_queue(given),
    "accept": lambda given, world: world.decide("accept", 0),
    "undo": lambda given, world: refseg.undo(given, world.decision),
    "reject": lambda given, world: world.decide("reject", 1),
    "relabel": lambda given, world: world.decide("relabel", 2, "gear"),
    "fix": lambda given, world: world.fix(),
    "write_counts": lambda given, world: refseg.write_counts(given, progress=False),
    "merge_accepted": lambda given, world: world.merge(given),
    "undo_merge": lambda given, world: refseg.undo_merge(given, world.merged),
    "calibrate": lambda given, world: refseg.calibrate(given, "parts", **QUIET),
    "mine_negatives": lambda given, world: refseg.mine_negatives(given, "parts", **QUIET),
    "inspect": lambda given, world: refseg.inspect("parts", given, progress=False),
    "inspect_references": lambda given, world: refseg.inspect_references(given, "parts", progress=False),
    "write_fields": lambda given, world: refseg.write_fields(world.report(), given),
    "delete_fields": lambda given, world: refseg.delete_fields(given),
    "similarity_heatmap": lambda given, world: refseg.similarity_heatmap(given, "parts", "star", **QUIET),
    "find_similar": lambda given, world: refseg.find_similar(given, world.label_ids("ground_truth")[0], 2, progress=False),
    "update": lambda given, world: refseg.update(given, calibrates=False, **QUIET),
    "show_changes": lambda given, world: refseg.show_changes(given),
    "segment_prompt": lambda given, world: refseg.segment_prompt(given, world.first_id, [(0.5, 0.5)], model="demo"),
    "add_reference": lambda given, world: refseg.add_reference(given, world.first_id, "star", (0.4, 0.4, 0.2, 0.2)),
}
"""Every public function that takes a dataset or a view, in an order in which each finds what it needs."""

WITHOUT_A_DATASET = {
    *("build_prototypes", "inspection_sheet", "load_models", "reference_quality", "run_benchmark", "unload_models"),
}

OF_ANY_DATASET = {"save_prototypes", "list_prototypes", "load_prototypes"}
"""What is kept with a dataset, whatever it holds."""

BY_LABEL_IDS = {
    *("tag_references", "accept", "reject", "relabel", "fix", "undo", "undo_merge", "calibrate", "write_fields"),
    *("delete_fields", "segment_prompt", "add_reference"),
}
"""Functions for which a dataset counts as a whole, so that its patches or groups can stand for it."""

OF_A_WHOLE = {"open_index", "show_changes"}
"""The same, of what must have been built or run before."""


def test_every_function_is_walked() -> None:
    functions = {name for name in refseg.__all__ if inspect.isfunction(getattr(refseg, name))}
    assert functions == CALLS.keys() | WITHOUT_A_DATASET
    for name in functions:
        takes = set(NAMED_PARAMETERS) & inspect.signature(getattr(refseg, name)).parameters.keys()
        assert bool(takes) == (name in CALLS), name


def video_dataset(make_dataset: MakeDataset, folder: Path, *, add_predictions: bool = False) -> fo.Dataset:
    """Two videos, each of two frames that lie on disk: the trays."""
    videos = []
    samples = tray_samples(folder, NUM_IMAGES)
    for number in range(2):
        path = folder / f"{number}.mp4"
        path.write_bytes(b"no video is read where its frames lie on disk")
        video = fo.Sample(str(path))
        for place, sample in enumerate(samples[2 * number : 2 * number + 2], 1):
            frame = fo.Frame(filepath=sample.filepath, ground_truth=sample.ground_truth)
            if add_predictions:
                frame["predictions"] = predictions_from(sample)
            video.frames[place] = frame
        videos.append(video)
    return make_dataset(videos)


def predictions_from(sample: fo.Sample) -> fo.Detections:
    """The objects of a sample as predictions."""
    labels = [label.copy() for label in sample.ground_truth.detections]
    for label in labels:
        label.confidence = 0.5
    return fo.Detections(detections=labels)


def image_samples(folder: Path, *, add_predictions: bool = False) -> list[fo.Sample]:
    """The trays, of two scenes."""
    samples = tray_samples(folder, NUM_IMAGES)
    for number, sample in enumerate(samples):
        sample["scene"], sample["place"] = str(number % 2), number
        if add_predictions:
            sample["predictions"] = predictions_from(sample)
    return samples


def grouped_dataset(make_dataset: MakeDataset, folder: Path, **options: Any) -> fo.Dataset:
    """Groups of a left and a right tray."""
    dataset = make_dataset()
    dataset.add_group_field("pair", default="left")
    samples = image_samples(folder, **options)
    for left, right in zip(samples[::2], samples[1::2], strict=True):
        group = fo.Group()
        left["pair"], right["pair"] = group.element("left"), group.element("right")
    dataset.add_samples(samples, progress=False)
    return dataset


WORKING = [
    *("frames", "ordered groups", "group slices"),
    *[pytest.param(kind, marks=pytest.mark.thorough) for kind in ("name", "dynamic groups", "flat groups")],
]


@pytest.fixture
def working(
    request: pytest.FixtureRequest,
    make_dataset: MakeDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Four images of a kind, whose candidates are the ground truth."""
    kind = request.param
    if kind == "frames":
        dataset = video_dataset(make_dataset, tmp_path)
        given = images = dataset.to_frames()
    elif kind == "group slices":
        dataset = grouped_dataset(make_dataset, tmp_path)
        given = images = dataset.select_group_slices(media_type="image")
    else:
        images = dataset = make_dataset(image_samples(tmp_path))
        given = {
            "name": dataset.name,
            "dynamic groups": dataset.group_by("scene"),
            "ordered groups": dataset.group_by("scene", order_by="place"),
            "flat groups": dataset.group_by("scene", flat=True),
        }[kind]
    propose_truth(monkeypatch, images)
    references = refseg.collect_references(every_image(images).limit(2), "ground_truth")
    return World(given, dataset, refseg.build_prototypes(references, "demo", progress=False), images)


@pytest.mark.parametrize("working", WORKING, indirect=True)
def test_works(working: World) -> None:
    answers = {}
    for name, call in CALLS.items():
        try:
            answers[name] = call(working.given, working)
        except Exception as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
    # Every image counted, not the first of each group.
    assert answers["build_index"].num_images == answers["open_index"].num_indexed == NUM_IMAGES
    assert answers["open_index"].num_deleted == 0
    assert answers["segment"].num_images == answers["evaluate"].num_images == NUM_IMAGES
    assert answers["evaluate"].num_predictions == len(answers["review_queue"]) == 2 * NUM_IMAGES
    assert answers["update"].segmentation.num_images == answers["similarity_heatmap"].num_images == NUM_IMAGES
    assert answers["list_prototypes"] == ["parts"]
    assert answers["undo"] is True
    assert (answers["write_counts"].num_written, answers["write_counts"].num_objects) == (NUM_IMAGES, 2 * NUM_IMAGES)
    assert (answers["merge_accepted"].num_added, answers["undo_merge"]) == (2, 2)
    assert answers["calibrate"].surroundings is not None
    assert len(answers["inspect_references"]) == answers["write_fields"].num_references == 4
    assert answers["delete_fields"] is True
    assert len(answers["find_similar"]) == 2
    assert working.dataset is not None
    assert states_of(working.dataset) == ["completed", "completed"]
    decided = every_image(working.images).count("accepted.detections"), every_image(working.images).count("rejected.detections")
    assert decided == (2, 2)


def test_frames_reach_their_videos(
    make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = video_dataset(make_dataset, tmp_path)
    frames = dataset.to_frames()
    propose_truth(monkeypatch, frames)
    refseg.build_index(frames.limit(3), "demo", **QUIET)
    report = refseg.segment(frames, prototypes, min_confidence=0.0, semantic_field="maps", **QUIET)
    assert (report.num_images, report.num_from_index) == (NUM_IMAGES, 3)
    assert dataset.count("frames.predictions.detections") == report.num_instances == 2 * NUM_IMAGES
    assert dataset.count("frames.maps.mask") == NUM_IMAGES
    # Another view of the frames is another dataset of FiftyOne's, with the same ids.
    again = dataset.to_frames()
    assert again._dataset.name != frames._dataset.name
    assert again.values("predictions.detections.id") == frames.values("predictions.detections.id")
    assert refseg.open_index(again).status().num_indexed == NUM_IMAGES
    assert len(dataset.load_run_view(report.run_key)) == NUM_IMAGES
    second = refseg.segment(again, prototypes, min_confidence=0.0, **QUIET)
    assert (second.num_from_index, second.num_written) == (NUM_IMAGES, 0)
    assert [run.is_whole for run in past_runs(dataset, [SEGMENTING])] == [True, True]
    # Numbers of frames too.
    refseg.write_counts(again, progress=False)
    assert refseg.write_counts(dataset.to_frames(), progress=False).num_written == 0
    for counted in (dataset.values("frames.predictions_counts.star", unwind=True), again.values("predictions_counts.star")):
        assert counted == [1] * NUM_IMAGES
    # What is decided and taken back, too.
    first, other, *_ = again.values("predictions.detections.id", unwind=True)
    accepted = refseg.accept(again, [first])
    refseg.reject(again, [other])
    merged = refseg.merge_accepted(again, "merged", progress=False)
    assert dataset.count("frames.merged.detections") == again.count("merged.detections") == merged.num_added == 1
    assert refseg.undo_merge(dataset.to_frames(), merged) == 1
    assert dataset.count("frames.merged.detections") == 0
    counted = [dataset.count(f"frames.{name}.detections") for name in ("accepted", "rejected")]
    assert counted == [1, 1]
    assert len(refseg.review_queue(dataset.to_frames())) == 2 * NUM_IMAGES - 2
    assert refseg.undo(again, accepted)
    assert dataset.count("frames.accepted.detections") == again.count("accepted.detections") == 0
    found = refseg.find_similar(again, first, 3, progress=False)
    assert len(found) == dataset.count("frames.similar.detections") == 3
    assert len(refseg.find_similar(again, first, 1, progress=False)) == dataset.count("frames.similar.detections") == 1
    # An index knows the frames of all videos, whichever are looked at.
    part = refseg.open_index(dataset.limit(1).to_frames())
    assert (part.status().num_samples, part.status().num_deleted) == (2, 0)
    part.compact()
    assert refseg.open_index(again).status().num_indexed == NUM_IMAGES


def states_of(dataset: fo.Dataset) -> list[str]:
    """States of the runs that have one."""
    configs = [dataset.get_run_info(key).config for key in dataset.list_runs()]
    return [config.state for config in configs if hasattr(config, "state")]


def fields_of(dataset: fo.Dataset) -> set[str]:
    """Names of every field."""
    frames = dataset.get_frame_field_schema(flat=True) or {}
    return {*dataset.get_field_schema(flat=True), *(f"frames.{name}" for name in frames)}


REFUSED: dict[str, tuple[str, set[str]]] = {
    "unknown name": (r"^There is no dataset named 'prts'", set()),
    "samples": (r"^A FiftyOne dataset, a view of one, or a dataset's name is needed, not list", set()),
    "patches": (
        r"holds patches, .* dataset\.select\(view\.distinct\('sample_id'\)\)",
        OF_ANY_DATASET | BY_LABEL_IDS | OF_A_WHOLE,
    ),
    "evaluation patches": (r"holds patches, ", OF_ANY_DATASET | BY_LABEL_IDS | OF_A_WHOLE),
    "patches of frames": (
        r"holds patches, .*to_frames\(sample_frames=True\)\.select\(view\.distinct\('frame_id'\)\)",
        OF_ANY_DATASET | BY_LABEL_IDS | OF_A_WHOLE,
    ),
    "clips": (r"holds clips of videos, .*view\.to_frames\(sample_frames=True\)", OF_ANY_DATASET),
    "videos": (r"holds videos, .*view\.to_frames\(sample_frames=True\)", OF_ANY_DATASET),
    "points": (r"holds media of type 'point-cloud'", OF_ANY_DATASET),
    "groups": (
        r"is grouped: .*view\.select_group_slices\(media_type='image'\)",
        OF_ANY_DATASET | BY_LABEL_IDS | OF_A_WHOLE,
    ),
    "groups of videos": (r"is grouped and holds media of type 'video' alone", OF_ANY_DATASET),
}
"""For each kind the words of the refusal, and the functions that take it all the same."""


@pytest.fixture
def refused(
    request: pytest.FixtureRequest, make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes
) -> tuple[str, World]:
    """Something that holds no images, or not as such."""
    kind = request.param
    dataset: fo.Dataset | None = None
    images = None
    if kind == "unknown name":
        given = "prts"
    elif kind == "samples":
        given = [fo.Sample(str(tmp_path / "a.png"))]
    elif kind in ("patches", "evaluation patches"):
        images = dataset = make_dataset(image_samples(tmp_path, add_predictions=True))
        if kind == "patches":
            given = dataset.to_patches("ground_truth")
        else:
            dataset.evaluate_detections("predictions", "ground_truth", "eval", progress=False)
            given = dataset.to_evaluation_patches("eval")
    elif kind in ("patches of frames", "clips", "videos"):
        dataset = video_dataset(make_dataset, tmp_path, add_predictions=True)
        images = dataset.to_frames()
        given = {"videos": dataset, "clips": dataset.to_clips([[[1, 2]], [[1, 1]]])}.get(
            kind, images.to_patches("ground_truth")
        )
    elif kind == "points":
        given = dataset = make_dataset([fo.Sample(str(tmp_path / "a.pcd"))])
    elif kind == "groups":
        given = dataset = grouped_dataset(make_dataset, tmp_path, add_predictions=True)
        images = dataset.select_group_slices(media_type="image")
    else:
        given = dataset = make_dataset()
        dataset.add_group_field("pair", default="left")
        dataset.add_sample(fo.Sample(str(tmp_path / "a.mp4"), pair=fo.Group().element("left")))
    return kind, World(given, dataset, prototypes, images)


@pytest.mark.parametrize("refused", REFUSED, indirect=True)
def test_refused(refused: tuple[str, World], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_models(*_: Any) -> None:
        raise AssertionError("models are loaded before the view is looked at")

    monkeypatch.setattr("refseg.models.loaded._load", no_models)
    kind, world = refused
    words, taken = REFUSED[kind]
    for name in CALLS.keys() - taken:
        before = set() if world.dataset is None else fields_of(world.dataset)
        with pytest.raises(DatasetError, match=words) as caught:
            CALLS[name](world.given, world)
        assert str(caught.value).endswith("."), name
        assert "\n" not in str(caught.value), name
        if world.dataset is not None:
            assert world.dataset.list_runs() == [], name
            assert fields_of(world.dataset) == before, name


@pytest.mark.parametrize("refused", ["patches", "evaluation patches", "patches of frames", "groups"], indirect=True)
def test_labels_named_by_their_ids(refused: tuple[str, World], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, world = refused
    propose_truth(monkeypatch, world.images)
    refseg.build_index(world.images, "demo", **QUIET)
    for name, call in CALLS.items():
        if name in (OF_ANY_DATASET | BY_LABEL_IDS | OF_A_WHOLE) - {"show_changes"}:
            call(world.given, world)
    # It takes them too, and asks for a run.
    with pytest.raises(DatasetError, match="No run of RefSeg has written to the field 'predictions'"):
        CALLS["show_changes"](world.given, world)
    assert world.dataset is not None
    assert world.dataset.list_runs(method="refseg/prototypes") == ["parts"]
    path = "frames.{}.detections" if kind == "patches of frames" else "{}.detections"
    decided = [every_image(world.dataset).count(path.format(name)) for name in ("accepted", "rejected")]
    assert decided == [2, 2]


class TestAdvice:
    """What a refusal says, carried out."""

    def collected(self, view: Any) -> int:
        return len(refseg.collect_references(view, "ground_truth"))

    def test_patches(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(image_samples(tmp_path))
        view = dataset.limit(3).to_patches("ground_truth")
        assert self.collected(dataset.select(view.distinct("sample_id"))) == 6

    def test_patches_of_frames(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = video_dataset(make_dataset, tmp_path)
        view = dataset.to_frames().limit(3).to_patches("ground_truth")
        assert self.collected(dataset.to_frames(sample_frames=True).select(view.distinct("frame_id"))) == 6

    def test_videos_and_clips(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = video_dataset(make_dataset, tmp_path)
        clips = dataset.to_clips([[[1, 2]], [[1, 1]]])
        assert self.collected(dataset.to_frames(sample_frames=True)) == 8
        assert self.collected(clips.to_frames(sample_frames=True)) == 6

    def test_groups(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = grouped_dataset(make_dataset, tmp_path)
        assert self.collected(dataset.select_group_slices(media_type="image")) == 8

    def test_dynamic_groups_of_groups(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        view = grouped_dataset(make_dataset, tmp_path).group_by("scene")
        with pytest.raises(DatasetError, match=r"view\.flatten\(\)\.select_group_slices\(media_type='image'\)\.$"):
            self.collected(view)
        assert self.collected(view.flatten().select_group_slices(media_type="image")) == 8

    def test_near_names(self, make_dataset: MakeDataset) -> None:
        make_dataset(name="refseg-door-parts")
        with pytest.raises(DatasetError, match=r"named 'refseg-dor-parts': pass .*'refseg-door-parts'"):
            image_view("refseg-dor-parts")


EMPTY_IS_FINE = {*OF_ANY_DATASET, *BY_LABEL_IDS, *OF_A_WHOLE, "review_queue"}


def test_empty_view(make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes) -> None:
    dataset = make_dataset(image_samples(tmp_path, add_predictions=True))
    refseg.save_prototypes(dataset, prototypes, "parts")
    runs, fields = dataset.list_runs(), fields_of(dataset)
    world = World(dataset.limit(0), dataset, prototypes, dataset)
    for name in CALLS.keys() - EMPTY_IS_FINE - {"inspect", "inspect_references", "tag_references"}:
        with pytest.raises(refseg.errors.RefSegError) as caught:
            CALLS[name](world.given, world)
        assert str(caught.value).endswith("."), name
    assert (dataset.list_runs(), fields_of(dataset)) == (runs, fields)
    assert refseg.review_queue(world.given) == []


def test_images_known_to_be_empty_pass_the_door_too(make_dataset: MakeDataset, tmp_path: Path, prototypes: Prototypes) -> None:
    dataset = make_dataset(image_samples(tmp_path))
    refseg.save_prototypes(dataset, prototypes, "parts")
    with pytest.raises(DatasetError, match="holds patches"):
        refseg.calibrate(dataset, "parts", empty=dataset.to_patches("ground_truth"), **QUIET)
    with pytest.raises(DatasetError, match="no dataset named 'prts'"):
        refseg.calibrate(dataset, "parts", empty="prts", **QUIET)


class TestDoor:
    def test_images_pass_as_they_are(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        view = dataset.limit(0)
        assert image_view(dataset) is dataset
        assert image_view(view) is view
        assert image_view(dataset.name) is dataset
        empty = make_dataset()
        assert image_view(empty) is empty

    @pytest.mark.parametrize(("path", "kind"), [("a.pcd", "point-cloud"), ("a.fo3d", "3d")])
    def test_other_media(self, make_dataset: MakeDataset, path: str, kind: str) -> None:
        dataset = make_dataset([fo.Sample(path)])
        with pytest.raises(DatasetError, match=f"^The dataset {dataset.name!r} holds media of type '{kind}'"):
            image_view(dataset)

    def test_deleted(self) -> None:
        dataset = fo.Dataset()
        dataset.delete()
        with pytest.raises(DatasetError, match=r"was deleted: pass another one\.$"):
            image_view(dataset)

    @pytest.mark.parametrize("sampled", [False, "dynamic"])
    def test_frames_that_do_not_lie_on_disk(self, make_dataset: MakeDataset, tmp_path: Path, sampled: bool | str) -> None:
        video = fo.Sample(str(tmp_path / "a.mp4"))
        video.frames[1] = fo.Frame(ground_truth=fo.Detections())
        dataset = make_dataset([video])
        with pytest.raises(DatasetError, match=r"do not lie on disk: write them with dataset\.to_frames\(sample_frames=True\)"):
            image_view(dataset.to_frames(sample_frames=sampled))

    def test_groups_of_frames(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        frames = video_dataset(make_dataset, tmp_path).to_frames()
        assert len(image_view(frames.group_by("sample_id"))) == NUM_IMAGES
        assert len(image_view(frames.group_by("sample_id", flat=True))) == NUM_IMAGES

    def test_groups_keep_what_was_hidden(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(image_samples(tmp_path))
        groups = dataset.group_by("scene", order_by="place")
        assert image_view(groups).values("place") == [0, 2, 1, 3]
        assert image_view(groups.limit(1)).values("place") == [0, 2]
        assert image_view(dataset.limit(3).group_by("scene")).count() == 3

    def test_whole(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(image_samples(tmp_path))
        for view in (dataset.limit(1), dataset.group_by("scene"), dataset.to_patches("ground_truth"), dataset.name):
            assert image_dataset(view) is dataset
            assert kept_with(view) is dataset
        videos = video_dataset(make_dataset, tmp_path)
        frames = videos.to_frames()
        assert len(whole_of(frames.limit(1))) == len(image_dataset(frames.skip(2))) == NUM_IMAGES
        patches = frames.limit(1).to_patches("ground_truth").limit(1)
        assert whole_of(patches).values("id") == image_dataset(patches).values("id") == frames.values("id")
        assert kept_with(frames) is videos
        assert open_collection(frames) is frames

    def test_writing_beside_the_view(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        dataset = make_dataset(image_samples(tmp_path))
        first = dataset.first().id
        write_values(dataset.limit(0), "note", {first: "seen"})
        assert dataset.values("note") == ["seen", None, None, None]


class TestOthersAtWork:
    """Another process has changed the dataset since this one loaded it."""

    def test_its_fields_are_known(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        dataset.info["noted"] = "and not saved"
        sample = dataset.first()
        sample.tags.append("not saved")
        other = other_process(dataset)
        other.add_sample_field("mine", fo.StringField)
        assert not dataset.has_field("mine")
        assert open_collection(dataset.limit(1)).has_field("mine")
        assert (dataset.info, sample.tags) == ({"noted": "and not saved"}, ["not saved"])
        sample.save()
        assert dataset.match_tags("not saved").count() == 1

    def test_its_labels_are_not_replaced(
        self, make_dataset: MakeDataset, prototypes: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path))
        propose_truth(monkeypatch, dataset)
        other = other_process(dataset)
        other.clone_sample_field("ground_truth", "predictions")
        with pytest.raises(DatasetError, match="holds labels that no run of RefSeg wrote, and they would be replaced"):
            refseg.segment(dataset, prototypes, **QUIET)
        assert dataset.values("predictions.detections.id") == dataset.values("ground_truth.detections.id")

    def test_it_has_deleted_it(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        other_process(dataset).delete()
        with pytest.raises(DatasetError, match=rf"The dataset {dataset.name!r} was deleted: pass another one\.$"):
            open_collection(dataset)


class TestSamples:
    def test_empty(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        for view in (make_dataset(), dataset.limit(0), dataset.match_tags("none")):
            with pytest.raises(DatasetError, match=r"The view of dataset '.*' is empty"):
                require_samples(view)

    def test_counted_after_a_crash(self, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """MongoDB estimates 0 for a collection that it had not saved in whole when it crashed, and FiftyOne asks no further."""
        dataset = make_dataset([fo.Sample("a.png"), fo.Sample("b.png")])
        monkeypatch.setattr(fo.Dataset, "_estimated_count", lambda *_, **__: 0)
        assert (len(dataset), len(dataset.view())) == (0, 0)
        require_samples(dataset)
        assert (count_samples(dataset), count_samples(dataset.view()), count_samples(dataset.limit(1))) == (2, 2, 1)

    def test_deleted_meanwhile(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        sample_id = dataset.first().id
        assert sample_or_none(dataset, sample_id).id == sample_id
        dataset.delete_samples([sample_id])
        assert sample_or_none(dataset, sample_id) is None


class TestDetections:
    """Written and read as MongoDB holds them."""

    def test_written(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample(f"{number}.png") for number in range(3)])
        dataset.add_sample_field("found", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        first, other, _ = dataset
        before = dataset.values("last_modified_at")
        label = fo.Detection(label="a", bounding_box=[0.0, 0.0, 0.5, 0.5], pieces=2, runner_up=None)
        gone = str(ObjectId())
        documents = {name: fo.Detections(detections=[label.copy()]).to_dict() for name in (first.id, gone)}
        write_detections(dataset.select(other.id), "found", {**documents, other.id: fo.Detections().to_dict()})
        assert dataset.values("found.detections.label") == [["a"], [], None]
        assert [now > then for now, then in zip(dataset.values("last_modified_at"), before, strict=True)] == [True, True, False]
        assert first.found.detections[0].pieces == 2
        assert "found.detections.pieces" in dataset.get_field_schema(flat=True)
        assert gone not in dataset.values("id")

    @pytest.mark.parametrize("path", ["found", "inner.found"])
    def test_read(self, make_dataset: MakeDataset, path: str) -> None:
        """Of a field of its own, or within another document; other attributes, and images without labels, are left out."""
        dataset = make_dataset([fo.Sample(f"{number}.png") for number in range(4)])
        two = fo.Detections(detections=[fo.Detection(label="a", run="r", index=7), fo.Detection(label="b")])
        for sample, value in zip(dataset, [two, fo.Detections(), None, two], strict=True):
            if path == "found":
                sample["found"] = value
            else:
                sample["inner"] = fo.DynamicEmbeddedDocument(found=value)
            sample.save()
        ids = dataset.values("id")
        held = dict(read_detections(dataset.limit(1), path, ids[:3], ["label", "run"]))
        assert held == {ids[0]: [{"label": "a", "run": "r"}, {"label": "b"}], ids[1]: []}

    def test_refused_by_the_database(self, make_dataset: MakeDataset) -> None:
        """Such as one that takes no more than 16 MB an image."""
        dataset = make_dataset([fo.Sample("a.png", found=fo.Detections())])
        large = {"_cls": "Detections", "detections": [{"_id": ObjectId(), "_cls": "Detection", "mask": bytes(17 << 20)}]}
        with pytest.raises(DatasetError, match=r"'found' of dataset .*: what was written before is kept, run again to write"):
            write_detections(dataset, "found", {dataset.first().id: large})
