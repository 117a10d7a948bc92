"""The whole story by operators alone: tag, index, preview, segment, review, update, evaluate.

It is told twice, from Python and through FiftyOne's delegated service, and must come to the same end. Nothing is put in the
place of anything: demo models, nine trays of the demo's world, a service in a process of its own. Then what may go wrong in it:
someone cancels, or asks for what cannot be.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

import refseg.runs.segmenting
from operators.running.jobs import running_jobs
from refseg.dataset.contradictions import SAME_PLACE, box_iou
from refseg.dataset.index_finding import open_index
from refseg.dataset.store import load_prototypes
from refseg.demo.dataset import build_demo_dataset
from refseg.images.loading import IMAGES_A_BATCH
from refseg.models.loaded import load_models
from refseg.progress import Progress
from refseg.review.queue import QueueItem, review_queue, summarize
from refseg.review.summary import ReviewSummary
from tests.operators.helpers import app_request, call, form_of, named, problems_of, run_in_app, uri
from tests.operators.service import HeldImage, Service

NUM_IMAGES = 9
SEED = 3
"""Of the trays: among what is found in them there is enough that is right, wrong, and right under another name."""
REFERENCE_IMAGE = 4
"""It shows one object of each of four classes."""
CLASSES = ["arrow", "bowtie", "clover", "crescent"]
PROTOTYPES = "parts"
MIN_CONFIDENCE = 0.01

HELD = 4
"""The image at which a job waits, so that it can be cancelled in the middle."""
UNKNOWN = "0" * 24

Run = Callable[..., dict[str, Any]]
Found = tuple[str, float, tuple[float, ...]]


@dataclass(frozen=True)
class Story:
    """What happened.

    Attributes:
        tagged: result of tag_references.
        indexed: result of build_index.
        built: result of build_prototypes.
        previewed: result of the preview.
        segmented: result of segment.
        queue: predictions to review after it.
        rejected: of these, two that show no object of their class or of any other.
        accepted: three that are right.
        renamed: one that is an object of another class.
        written: what the three decisions wrote.
        updated: result of update.
        queue_afterwards: predictions to review after it.
        summary: of the review at the end.
        reference_ids: that the new prototypes know.
        negative_ids: that the new prototypes know.
        evaluated: result of evaluate.
        before: predictions of each image, by file name, before the update.
        after: the same after it.
        all_with: the same with every score, with negatives.
        all_without: the same after their tags were taken off.
        files: file names by sample id.
    """

    tagged: dict[str, Any]
    indexed: dict[str, Any]
    built: dict[str, Any]
    previewed: dict[str, Any]
    segmented: dict[str, Any]
    queue: list[QueueItem]
    rejected: list[QueueItem]
    accepted: list[QueueItem]
    renamed: QueueItem
    written: dict[str, dict[str, Any]]
    updated: dict[str, Any]
    queue_afterwards: list[QueueItem]
    summary: ReviewSummary
    reference_ids: set[str]
    negative_ids: set[str]
    evaluated: dict[str, Any]
    before: dict[str, list[Found]]
    after: dict[str, list[Found]]
    all_with: dict[str, list[Found]]
    all_without: dict[str, list[Found]]
    files: dict[str, str]


@contextmanager
def demo_dataset(folder: Path, name: str) -> Iterator[fo.Dataset]:
    """Nine trays of the demo; persistent, because another process would delete it otherwise."""
    dataset = build_demo_dataset(folder, name=f"refseg-test-story-{name}", seed=SEED, num_images=NUM_IMAGES)
    try:
        yield dataset
    finally:
        dataset.delete()


def predictions_of(dataset: fo.Dataset, field: str = "predictions") -> dict[str, list[Found]]:
    """Label, score and box of each prediction, by file name."""
    dataset.reload()
    return {
        Path(sample.filepath).name: [
            (label.label, label.confidence, tuple(label.bounding_box)) for label in sample[field].detections
        ]
        for sample in dataset.exists(field)
    }


def true_label(dataset: fo.Dataset, item: QueueItem) -> str | None:
    """What a person would call the object: the class of the labelled object it lies on."""
    objects = dataset[item.sample_id].ground_truth.detections
    return next((label.label for label in objects if box_iou(label.bounding_box, item.box) >= 0.5), None)


def tell(dataset: fo.Dataset, run: Run) -> Story:
    """The story; `run` executes an operator by name, as `call` does."""
    shown = dataset[REFERENCE_IMAGE : REFERENCE_IMAGE + 1]
    shown_id = shown.first().id
    tagged = run("tag_references", shown)
    indexed = run("build_index", dataset, model="demo")
    built = run("build_prototypes", dataset, model="demo", name=PROTOTYPES)
    previewed = run("segment", dataset, PROTOTYPES, min_confidence=MIN_CONFIDENCE, preview=True)
    segmented = run("segment", dataset, PROTOTYPES, min_confidence=MIN_CONFIDENCE)
    before = predictions_of(dataset)

    queue = review_queue(dataset)
    # A person decides on what is new, not on the references themselves.
    new = [(item, true_label(dataset, item)) for item in queue if item.sample_id != shown_id]
    rejected = [item for item, label in new if label is None][:2]
    accepted = [item for item, label in new if label == item.label][:3]
    renamed, name = next((item, label) for item, label in new if label not in (None, *CLASSES))
    written = {
        "reject": run("review", dataset, "reject", [item.label_id for item in rejected]),
        "accept": run("review", dataset, "accept", [item.label_id for item in accepted], as_references=True),
        "relabel": run("review", dataset, "relabel", [renamed.label_id], label=name, as_references=True),
    }
    updated = run("update", dataset, label_field="predictions")
    prototypes = load_prototypes(dataset, PROTOTYPES)
    after, queue_afterwards, summary = predictions_of(dataset), review_queue(dataset), summarize(dataset)
    evaluated = run("evaluate", dataset, "predictions", "ground_truth")

    everything = {"min_confidence": 0.0, "label_field": "everything"}
    run("segment", dataset, PROTOTYPES, **everything)
    all_with = predictions_of(dataset, "everything")
    run("tag_references", dataset, "rejected", negative=True, untag=True)
    run("update", dataset, label_field="everything")
    return Story(
        tagged=tagged,
        indexed=indexed,
        built=built,
        previewed=previewed,
        segmented=segmented,
        queue=queue,
        rejected=rejected,
        accepted=accepted,
        renamed=renamed,
        written={kind: result["written"] for kind, result in written.items()},
        updated=updated,
        queue_afterwards=queue_afterwards,
        summary=summary,
        reference_ids=set(prototypes.reference_ids),
        negative_ids=set() if prototypes.negatives is None else set(prototypes.negatives.ids),
        evaluated=evaluated,
        before=before,
        after=after,
        all_with=all_with,
        all_without=predictions_of(dataset, "everything"),
        files={sample_id: Path(path).name for sample_id, path in zip(*dataset.values(["id", "filepath"]), strict=True)},
    )


@pytest.fixture(scope="session")
def told_from_python(tmp_path_factory: pytest.TempPathFactory) -> Story:
    with demo_dataset(tmp_path_factory.mktemp("python"), "python") as dataset:
        return tell(dataset, call)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service") / "log.txt") as running:
        yield running


@pytest.fixture(scope="module")
def told_by_service(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Told by queueing what may be queued, one job at a time: the service takes the newest first."""

    def run(name: str, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if not foo.get_operator(uri(name)).config.allow_delegated_execution:
            return call(name, *args, **kwargs)
        result = completed(service, name, *args, **kwargs)
        # What another process made is not seen here before.
        dataset.reload()
        return result

    with demo_dataset(tmp_path_factory.mktemp("service-images"), "service") as dataset:
        return tell(dataset, run)


@pytest.fixture(params=["told_from_python", pytest.param("told_by_service", marks=[pytest.mark.slow, pytest.mark.thorough])])
def story(request: pytest.FixtureRequest) -> Story:
    told: Story = request.getfixturevalue(request.param)
    return told


def enqueue(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Queue a job; returns its id."""
    execution = foo.get_operator(uri(name))(*args, **kwargs, delegate=True)
    assert execution.delegated
    return execution.result["id"]


def completed(service: Service, name: str, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Let the service run a job to its end; returns its result."""
    done = service.finish(enqueue(name, *args, **kwargs))
    assert done.run_state == "completed", done.result.error
    assert done.status.progress == 1.0
    result: dict[str, Any] = done.result.result
    return result


def at_place(found: Sequence[Found], item: QueueItem) -> list[Found]:
    return [one for one in found if box_iou(one[2], item.box) >= SAME_PLACE]


def score_of(story: Story, predictions: dict[str, list[Found]], item: QueueItem) -> float:
    """The score of an object under its name of then; 0 where it is not found, or is found as something else."""
    there = at_place(predictions[story.files[item.sample_id]], item)
    return max((score for label, score, _ in there if label == item.label), default=0.0)


def scores_of(predictions: dict[str, list[Found]], names: set[str]) -> dict[Any, float]:
    """Scores of what is found as one of these, by image, name and box."""
    return {(file, name, *box): score for file, found in predictions.items() for name, score, box in found if name in names}


def labels_in(predictions: dict[str, list[Found]]) -> Counter[str]:
    return Counter(label for found in predictions.values() for label, _, _ in found)


def assert_same(predictions: dict[str, list[Found]], others: dict[str, list[Found]]) -> None:
    assert predictions.keys() == others.keys()
    for name, found in predictions.items():
        assert [(label, box) for label, _, box in found] == [(label, box) for label, _, box in others[name]]
        # Images went through the models in other company.
        assert [score for _, score, _ in found] == pytest.approx([score for _, score, _ in others[name]], abs=1e-4)


class TestStory:
    def test_first_round(self, story: Story) -> None:
        assert story.tagged == {"field": "ground_truth", "tag": "reference", "num_labels": 4, "untagged": False}
        assert (story.indexed["num_images"], story.indexed["num_added"]) == (NUM_IMAGES, NUM_IMAGES)
        assert story.built["shots"] == [[name, 1] for name in CLASSES]
        assert (story.previewed["num_from_index"], story.segmented["num_from_index"]) == (NUM_IMAGES, NUM_IMAGES)
        scores = [score for _, score in story.previewed["best"]]
        assert scores == sorted(scores, reverse=True)
        # The preview looks at nothing anew: the run, which does, may find others.
        assert story.segmented["num_instances"] > 0 < story.previewed["num_instances"]
        assert NUM_IMAGES - len(scores) <= story.segmented["num_written"] <= NUM_IMAGES
        assert story.segmented["changes"]["num_samples"] <= story.segmented["num_written"]

    def test_queue_asks_for_every_prediction(self, story: Story) -> None:
        assert Counter(item.label for item in story.queue) == labels_in(story.before)
        assert [item.margin for item in story.queue] == sorted(item.margin for item in story.queue)
        assert (len(story.rejected), len(story.accepted)) == (2, 3)

    def test_what_was_decided_is_not_asked_again(self, story: Story) -> None:
        asked: dict[str, list[Found]] = {}
        for item in story.queue_afterwards:
            asked.setdefault(item.sample_id, []).append((item.label, item.score, item.box))
        for item in (*story.accepted, story.renamed):
            assert at_place(asked.get(item.sample_id, []), item) == []
        for item in story.rejected:
            assert item.label not in [label for label, _, _ in at_place(asked.get(item.sample_id, []), item)]
        # They are there: accepted objects are found, and left out of the queue.
        for item in story.accepted:
            assert at_place(story.after[story.files[item.sample_id]], item)

    def test_prototypes_know_what_was_decided(self, story: Story) -> None:
        references = {*story.written["accept"]["accepted_ids"], *story.written["relabel"]["accepted_ids"]}
        negatives = {*story.written["reject"]["rejected_ids"], *story.written["relabel"]["rejected_ids"]}
        assert (len(references), len(negatives)) == (4, 3)
        assert set(story.updated["references_added"]) == references
        assert set(story.updated["negatives_added"]) == negatives == story.negative_ids
        assert references < story.reference_ids
        assert len(story.reference_ids) == len(references) + len(CLASSES)
        assert (story.updated["references_removed"], story.updated["negatives_removed"]) == ([], [])
        assert story.updated["reused"] == len(CLASSES)

    def test_renamed_object_makes_a_class(self, story: Story) -> None:
        (added,) = story.updated["classes_added"]
        assert story.updated["classes"] == sorted([*CLASSES, added])
        assert story.updated["classes_dropped"] == []
        assert labels_in(story.after)[added] > labels_in(story.before)[added] == 0

    def test_changes_are_what_changed(self, story: Story) -> None:
        changes = story.updated["segmentation"]["changes"]
        difference = Counter(dict(changes["gained"]))
        difference.subtract(dict(changes["lost"]))
        for old, new, number in changes["relabelled"]:
            difference.update({new: number, old: -number})
        before, after = labels_in(story.before), labels_in(story.after)
        assert {name: after[name] - before[name] for name in difference | before | after} == {
            name: difference[name] for name in difference | before | after
        }
        assert sum(after.values()) == story.updated["segmentation"]["num_instances"]
        changed = {story.files[sample_id] for sample_id in changes["sample_ids"]}
        assert {story.files[item.sample_id] for item in story.rejected} & changed
        for name in story.files.values():
            if name not in changed:
                assert Counter(found[0] for found in story.before[name]) == Counter(found[0] for found in story.after[name])

    def test_negatives_lower_scores(self, story: Story) -> None:
        for item in story.rejected:
            assert score_of(story, story.all_with, item) < item.score
        # What was accepted may be enough for these two to be taken for their class no more; negatives lower the class itself.
        names = {item.label for item in story.rejected}
        # Of what is found both ways: where the best give way, more of the others may be written.
        with_them, without = (scores_of(predictions, names) for predictions in (story.all_with, story.all_without))
        both = with_them.keys() & without.keys()
        assert 0 < sum(with_them[key] for key in both) < sum(without[key] for key in both)
        assert score_of(story, story.after, story.renamed) < story.renamed.score

    def test_summary(self, story: Story) -> None:
        summary = story.summary
        counts = (summary.num_accepted, summary.num_rejected, summary.num_relabelled, summary.num_fixed)
        assert counts == (3, 2, 1, 0)
        assert summary.num_open == len(story.queue_afterwards)
        assert summary.corrections_per_hundred == 50

    def test_evaluation(self, story: Story) -> None:
        evaluated = story.evaluated
        assert evaluated["num_images"] == NUM_IMAGES
        assert evaluated["num_predictions"] == sum(labels_in(story.after).values())
        assert evaluated["mask_ap50"] > evaluated["mask_ap"] > 0
        assert evaluated["fiftyone_mask_ap"] == pytest.approx(evaluated["mask_ap"], abs=1e-6)
        assert evaluated["num_skipped"] == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_both_ways_come_to_the_same_end(told_from_python: Story, told_by_service: Story) -> None:
    for name in ("before", "after", "all_with", "all_without"):
        assert_same(getattr(told_by_service, name), getattr(told_from_python, name))
    for kind in ("gained", "lost", "relabelled"):
        changes = [sorted(told.updated["segmentation"]["changes"][kind]) for told in (told_by_service, told_from_python)]
        assert changes[0] == changes[1]
    assert told_by_service.summary == told_from_python.summary
    assert told_by_service.evaluated["mask_ap"] == pytest.approx(told_from_python.evaluated["mask_ap"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.thorough
class TestCancel:
    """A job of the service waits for an image; from here it is cancelled, and the image let go."""

    @pytest.fixture
    def trays(self, tmp_path: Path) -> Iterator[fo.Dataset]:
        with demo_dataset(tmp_path, "cancelled") as dataset:
            call("tag_references", dataset[REFERENCE_IMAGE : REFERENCE_IMAGE + 1])
            call("build_prototypes", dataset, model="demo", name=PROTOTYPES)
            # It has put the images of references into the index.
            open_index(dataset).delete()
            yield dataset

    def test_index(self, service: Service, trays: fo.Dataset, told_from_python: Story) -> None:
        ended = cancel_in_the_middle(service, trays, "build_index", model="demo")
        sentence = "Build index was cancelled; the images done so far are kept, and the next build goes on from there."
        assert (ended.run_state, error_of(ended)) == ("failed", sentence)
        kept = usable(trays, open_index(trays).index.images)

        result = completed(service, "build_index", trays, model="demo")
        assert (result["num_images"], result["num_added"]) == (NUM_IMAGES, NUM_IMAGES - len(kept))
        result = call("segment", trays, PROTOTYPES, min_confidence=MIN_CONFIDENCE)
        assert result["num_from_index"] == NUM_IMAGES
        assert_same(predictions_of(trays), told_from_python.before)

    def test_segment(self, service: Service, trays: fo.Dataset, told_from_python: Story) -> None:
        options = {"prototypes": PROTOTYPES, "min_confidence": MIN_CONFIDENCE}
        ended = cancel_in_the_middle(service, trays, "segment", run_key="stopped", **options)
        sentence = "Segment was cancelled; the predictions written so far are kept."
        assert (ended.run_state, error_of(ended)) == ("failed", sentence)
        trays.reload()
        config = trays.get_run_info("stopped").config
        written = trays.exists("predictions").values("id")
        assert (config.state, config.num_images) == ("cancelled", len(written))
        # The candidates of what was segmented are kept too.
        assert set(written) == set(open_index(trays).index.images)
        kept = usable(trays, written)
        cut_short = predictions_of(trays)
        assert_same(cut_short, {name: told_from_python.before[name] for name in cut_short})

        result = completed(service, "segment", trays, **options)
        assert (result["num_images"], result["num_from_index"]) == (NUM_IMAGES, len(kept))
        assert result["changes"]["num_samples"] == 0
        assert_same(predictions_of(trays), told_from_python.before)


def cancel_in_the_middle(service: Service, dataset: fo.Dataset, name: str, /, **kwargs: Any) -> Any:
    """Queue a job, cancel it while it waits for the image HELD; returns its document once it has ended."""
    held = HeldImage(Path(dataset.skip(HELD).first().filepath))
    operation = enqueue(name, dataset, **kwargs)
    ctx = foo.ExecutionContext(app_request(dataset, "cancel"), executor=Executor())

    def is_stuck() -> bool:
        if not held.catch_reader():
            return False
        # So long that its next step will not be passed over, as steps that follow each other at once are.
        return any(job.id == str(operation) and job.total and time.time() - job.updated_at > 1.5 for job in running_jobs(ctx))

    try:
        service.wait_until(is_stuck, f"{name} had come to the image that is held")
        assert call("cancel", dataset, job=str(operation)) == {"cancelled": [str(operation)]}
    finally:
        held.let_go()
    return service.finish(operation)


def error_of(document: Any) -> str:
    """The last line of a failed job's error, without the name of the exception."""
    _, _, sentence = document.result.error.strip().splitlines()[-1].partition("JobCancelledError: ")
    return str(sentence)


def usable(dataset: fo.Dataset, done: Sequence[str]) -> set[str]:
    """The images done, which must end with the batch of the one held."""
    ids = dataset.values("id")
    batch_size = IMAGES_A_BATCH[load_models("demo").device.type]
    last = HELD // batch_size * batch_size + batch_size
    assert 0 < len(done) < NUM_IMAGES
    assert set(done) <= set(ids[:last])
    return set(done)


class TestBadInput:
    """One sentence each, from Python in the exception and in the App in a notification, or under the field of the form."""

    @pytest.fixture
    def predicted(self, parts: fo.Dataset) -> fo.Dataset:
        """Predictions as a run of segment writes them, in all images but the last."""
        values = {
            sample.id: fo.Detections(detections=[label.copy() for label in sample.ground_truth.detections])
            for sample in parts[:3]
        }
        for detections in values.values():
            for label in detections.detections:
                label.confidence, label.tags = 0.8, []
        parts.add_sample_field("predictions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        parts.set_values("predictions", values, key_field="id")
        config = {"label_field": "predictions", "classes": ["a"], "min_confidences": [["a", 0.5]], "max_detections": 100}
        run = parts.init_run(method="refseg/segment", model="demo", prototypes_path="gone", reference_ids=[], **config)
        parts.register_run("run", run)
        return parts

    def check(self, dataset: fo.Dataset, operator: str, params: dict[str, Any], sentence: str, **app: Any) -> None:
        with pytest.raises(ExecutionError) as caught:
            call(operator, app.get("view", dataset), **params)
        assert str(caught.value) == sentence
        messages = run_in_app(dataset, operator, params, **app)
        assert named(messages, "notify") == [{"message": sentence, "variant": "error"}]

    @pytest.mark.parametrize("decision", ["accept", "reject", "fix"])
    def test_decision_on_an_unknown_label(self, predicted: fo.Dataset, decision: str) -> None:
        sentence = (
            f"The prediction {UNKNOWN!r} is not in the field 'predictions' of dataset {predicted.name!r}: the predictions may "
            "have been updated meanwhile, so look at the present ones."
        )
        self.check(predicted, "review", {"decision": decision, "label_ids": [UNKNOWN]}, sentence)

    def test_update_without_references(self, predicted: fo.Dataset) -> None:
        predicted.untag_labels("reference")
        sentence = (
            f"No object of dataset {predicted.name!r} carries the tag 'reference' (looked in 'ground_truth'): tag some of each "
            "class, or accept predictions as references."
        )
        self.check(predicted, "update", {}, sentence)

    def test_reference_that_is_a_negative_too(self, predicted: fo.Dataset) -> None:
        label, name = predicted.first().ground_truth.detections[0], Path(predicted.first().filepath).name
        predicted.select_labels(ids=[label.id]).tag_labels("negative")
        sentence = (
            f"The object {label.label!r} in {name} ({label.id}) is both a reference and a negative: take one of the two tags "
            "off it."
        )
        self.check(predicted, "update", {}, sentence)
        self.check(predicted, "learn", {"model": "demo"}, sentence)
        self.check(predicted, "build_prototypes", {"model": "demo"}, sentence)

    @pytest.mark.parametrize("negative", [True, False])
    def test_tag_on_an_image_without_predictions(self, predicted: fo.Dataset, negative: bool) -> None:
        sentence = (
            f"The images chosen hold no object in the field 'predictions' of dataset {predicted.name!r}: choose other "
            "images or another field."
        )
        params = {"field": "predictions", "negative": negative}
        last = predicted.last().id
        self.check(predicted, "tag_references", params, sentence, view=predicted.select(last), selected=[last])
        assert not predicted.has_field("rejected")
        assert not predicted.has_field("accepted")

    @pytest.mark.parametrize("field", ["predictions", "ground_truth"])
    def test_tag_on_an_unknown_label(self, predicted: fo.Dataset, field: str) -> None:
        sentence = (
            f"None of the objects chosen is in the field {field!r} of dataset {predicted.name!r}: it may have changed "
            "meanwhile, so choose among the present ones."
        )
        self.check(predicted, "tag_references", {"field": field, "label_ids": [UNKNOWN]}, sentence)

    @pytest.mark.parametrize(
        ("operator", "params", "field"),
        [
            ("review", {"decision": "accept", "label_ids": [UNKNOWN]}, "field"),
            ("update", {}, "label_field"),
            ("update", {"label_field": "predictions"}, "label_field"),
        ],
    )
    def test_nothing_was_segmented_yet(self, parts: fo.Dataset, operator: str, params: dict[str, Any], field: str) -> None:
        sentence = f"The dataset {parts.name!r} holds no predictions yet: run 'Segment' first."
        with pytest.raises(ExecutionError) as caught:
            call(operator, parts, **params)
        assert str(caught.value) == f"Validation error. Path: {field}. Reason: {sentence}"
        assert problems_of(form_of(parts, operator, params)) == {field: sentence}

    @pytest.mark.usefixtures("every_step")
    def test_cancelled_call(self, with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        real = refseg.runs.segmenting.iter_segment

        def iter_segment(*args: Any, **kwargs: Any) -> Generator[Progress, None, Any]:
            with closing(real(*args, **kwargs)) as work:
                for step in work:
                    call("cancel", with_prototypes)
                    yield step

        monkeypatch.setattr(refseg.runs, "iter_segment", iter_segment)
        with pytest.raises(ExecutionError) as caught:
            call("segment", with_prototypes, "parts")
        assert str(caught.value) == "Segment was cancelled; the predictions written so far are kept."

    def test_what_nobody_foresaw_keeps_its_traceback(self, predicted: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("odd")

        monkeypatch.setattr("refseg.review.decisions.accept", fail)
        with pytest.raises(ExecutionError) as caught:
            call("review", predicted, "accept", [UNKNOWN])
        assert str(caught.value).startswith("Traceback")
        assert str(caught.value).strip().endswith("RuntimeError: odd")
