"""The forms: defaults, choices, and a sentence for everything that is wrong."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator

import fiftyone as fo
import fiftyone.operators as foo
import lance
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

import refseg.dataset.indexing
from refseg.dataset.store import save_prototypes
from refseg.demo.world import NOVEL_PARTS
from refseg.index.candidate_index import CandidateIndex
from refseg.index.tables import FileState, IndexedImage, IndexSettings, images_table
from refseg.prototypes.prototypes import Prototypes
from tests.operators.helpers import app_request, form_of, problems_of, uri

PART = NOVEL_PARTS[0]
LONG = ["sample_references", "build_prototypes", "segment", "evaluate", "segment_with_references", "build_index", "learn"]
ALL = [
    *("mark_empty", "calibrate", "mine_negatives", "tag_references", "index_status", "delete_index", "find_similar"),
    *("write_counts", "merge_accepted", "show_object", *LONG),
]


@pytest.fixture
def bare(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """Images without a label."""
    return make_dataset([fo.Sample("a.png"), fo.Sample("b.png")])


def choices_of(field: dict) -> list[str]:
    return [choice["value"] for choice in field["view"]["choices"]]


@pytest.mark.parametrize("name", ALL)
def test_no_dataset(name: str) -> None:
    assert problems_of(form_of(None, name)) == {"dataset_problem": "No dataset is open: open one first."}


@pytest.mark.parametrize("name", ALL)
def test_empty_dataset(name: str, dataset: fo.Dataset) -> None:
    sentence = f"The dataset {dataset.name!r} is empty: add images first."
    assert problems_of(form_of(dataset, name)) == {"dataset_problem": sentence}


@pytest.mark.parametrize("name", ALL)
def test_videos_are_refused_by_name(name: str, make_dataset: Callable[..., fo.Dataset]) -> None:
    dataset = make_dataset([fo.Sample("a.mp4")])
    problem = problems_of(form_of(dataset, name))["dataset_problem"]
    assert problem.startswith(f"The dataset {dataset.name!r} holds media of type 'video' here, but RefSeg needs images: open")


@pytest.mark.parametrize("name", ["sample_references", "build_prototypes", "segment_with_references", "tag_references"])
def test_no_field_of_objects(name: str, bare: fo.Dataset) -> None:
    sentence = f"No field of dataset {bare.name!r} holds detections or polylines: label some objects first."
    assert problems_of(form_of(bare, name))["field"] == sentence


def test_segment_without_prototypes(bare: fo.Dataset) -> None:
    sentence = f"The dataset {bare.name!r} keeps no prototypes yet: run 'Build prototypes' first."
    assert problems_of(form_of(bare, "segment")) == {"prototypes": sentence}


def test_evaluate_without_predictions(bare: fo.Dataset) -> None:
    sentence = f"No field of dataset {bare.name!r} holds detections: run 'Segment' first."
    assert problems_of(form_of(bare, "evaluate"))["pred_field"] == sentence


def test_evaluate_with_one_field_alone(parts: fo.Dataset) -> None:
    problems = problems_of(form_of(parts, "evaluate", {"pred_field": "ground_truth"}))
    assert problems == {
        "gt_field": "No field but 'ground_truth' holds objects, so there is nothing to compare the predictions with."
    }


@pytest.mark.parametrize(("name", "field"), [("index_status", "index"), ("delete_index", "index"), ("find_similar", "model")])
def test_without_an_index(name: str, field: str, bare: fo.Dataset) -> None:
    sentence = f"The dataset {bare.name!r} keeps no candidate index yet: run 'Build index' first."
    assert problems_of(form_of(bare, name))[field] == sentence


@pytest.mark.parametrize("name", ["sample_references", "build_prototypes", "segment_with_references"])
def test_labelled_images_are_enough(name: str, parts: fo.Dataset) -> None:
    form = form_of(parts, name)
    assert problems_of(form) == {}
    assert form["field"]["default"] == "ground_truth"
    assert "view_target" in form
    unexplained = {field for field, entry in form.items() if not entry["view"].get("description")}
    assert unexplained <= {"view_target", "coverage"}


def test_ground_truth_is_not_taken_for_predictions(parts: fo.Dataset) -> None:
    assert problems_of(form_of(parts, "evaluate")) == {"pred_field": "Choose predictions: 'ground_truth'."}


def test_fields_offered_hold_objects(parts: fo.Dataset) -> None:
    parts.add_sample_field("weather", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    parts.add_sample_field("lanes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
    parts.add_sample_field("one", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detection)
    assert choices_of(form_of(parts, "build_prototypes")["field"]) == ["ground_truth", "lanes", "one"]
    assert choices_of(form_of(parts, "evaluate")["pred_field"]) == ["ground_truth"]


def test_prototypes_offered_are_those_kept(with_prototypes: fo.Dataset, prototypes: Prototypes) -> None:
    save_prototypes(with_prototypes, prototypes, "a_later_one")
    form = form_of(with_prototypes, "segment")
    assert problems_of(form) == {}
    assert choices_of(form["prototypes"]) == ["parts", "a_later_one"]
    assert form["prototypes"]["default"] == "a_later_one"
    # A dataset stays with the model its prototypes were built by.
    assert form_of(with_prototypes, "build_prototypes")["model"]["default"] == "demo"


@pytest.mark.parametrize(
    ("name", "params", "field", "words"),
    [
        ("sample_references", {"shots": 0}, "shots", "Shots must be a whole number of 1 or more, not 0."),
        ("sample_references", {"shots": 2.5}, "shots", "Shots must be a whole number of 1 or more, not 2.5."),
        ("sample_references", {"shots": True}, "shots", "Shots must be a whole number of 1 or more, not True."),
        ("sample_references", {"seed": -1}, "seed", "Seed must be a whole number of 0 or more, not -1."),
        ("sample_references", {"tag": "  "}, "tag", "The tag must not be blank."),
        ("sample_references", {"classes": "gear"}, "classes", "Classes must be a list of names, not 'gear'."),
        ("sample_references", {"field": "nope"}, "field", "Field must be one of 'ground_truth', not 'nope'."),
        ("build_prototypes", {"name": "my parts"}, "name", "'my parts' cannot name prototypes: use letters, digits"),
        ("build_prototypes", {"name": "parts"}, "name", "The dataset keeps prototypes named 'parts': choose another name"),
        ("build_prototypes", {"model": "huge"}, "model", "Model must be one of 'demo', 'tiny', 'small', 'base',"),
        ("build_prototypes", {"source": "selection"}, "source", "References must be one of 'tag', 'all', not 'selection'."),
        ("build_prototypes", {"negative_tag": " "}, "negative_tag", "The tag must not be blank."),
        ("segment", {"classes": ["no such"]}, "classes", "The prototypes know no class 'no such': choose from "),
        ("segment", {"classes": "star"}, "classes", "Classes must be a list of names, not 'star'."),
        (
            "segment",
            {"min_confidences": [["no such", 0.5]]},
            "min_confidences",
            "The prototypes know no class 'no such': choose",
        ),
        ("segment", {"min_confidences": [[PART, 1.5]]}, "min_confidences", f"The minimum confidence of {PART!r} must be a num"),
        ("segment", {"min_confidences": [[PART, "high"]]}, "min_confidences", f"The minimum confidence of {PART!r} must be"),
        ("segment", {"min_confidences": [PART, 0.5]}, "min_confidences", "Minimum confidences must be a list of pairs of a cl"),
        ("segment", {"min_confidences": 0.5}, "min_confidences", "Minimum confidences must be a list of pairs of a class and"),
        ("segment", {"prototypes": "nope"}, "prototypes", "Prototypes must be one of 'parts', not 'nope'."),
        ("segment", {"label_field": "filepath"}, "label_field", "The field 'filepath' holds something else than detec"),
        ("segment", {"label_field": "ground_truth"}, "label_field", "The labels in the field 'ground_truth' are not Ref"),
        ("segment", {"label_field": 3}, "label_field", "Predictions must be text, not 3."),
        ("segment", {"min_confidence": 1.5}, "min_confidence", "Minimum confidence must be a number from 0 to 1, not 1.5."),
        ("segment", {"min_confidence": "high"}, "min_confidence", "Minimum confidence must be a number from 0 to 1, not 'h"),
        ("segment", {"presence_gate": 1.5}, "presence_gate", "Presence gate must be a number from 0 to 1, not 1.5."),
        (
            "segment",
            {"class_similarity": "median"},
            "class_similarity",
            "Class similarity must be one of 'mean', 'nea",
        ),
        ("segment", {"overlaps": "all"}, "overlaps", "Overlaps must be one of 'merge', 'diffusion', not 'all'."),
        ("calibrate", {"prototypes": "nope"}, "prototypes", "Prototypes must be one of 'parts', not 'nope'."),
        ("calibrate", {"name": "a b"}, "name", "'a b' cannot name prototypes: use letters, digits and underscores"),
        ("mine_negatives", {"classes": ["no such"]}, "classes", "The prototypes know no class 'no such': choose from "),
        ("mine_negatives", {"only_marked": True}, "none_marked", "No image is marked as empty: run 'Mark as empty' first"),
        ("mine_negatives", {"max_negatives": 0}, "max_negatives", "Most must be a whole number of 1 or more, not 0."),
        ("segment", {"max_detections": 0}, "max_detections", "Maximum detections must be a whole number of 1 or more"),
        ("segment", {"run_key": "a b"}, "run_key", "'a b' cannot name a run: use letters, digits and underscores"),
        ("segment", {"run_key": "parts"}, "run_key", "The dataset has a run named 'parts' already: choose another name."),
        (
            "segment",
            {"preview": True, "index": False},
            "preview",
            "A preview looks at indexed images alone: tick 'Use",
        ),
        ("segment", {"preview": True}, "preview", "A preview looks at indexed images alone, and none of these is indexed yet"),
        ("build_index", {"model": "huge"}, "model", "Model must be one of 'demo', 'tiny', 'small', 'base',"),
        ("build_index", {"uri": "parts/index"}, "uri", "'parts/index' is not a whole path: begin with '/', or give an address"),
        ("build_index", {"uri": __file__}, "uri", f"{__file__!r} is a file: give a folder."),
        ("build_index", {"uri": 7}, "uri", "Location must be text, not 7."),
        ("find_similar", {"label_ids": ["7f"], "k": 0}, "k", "How many must be a whole number of 1 or more, not 0."),
        (
            "find_similar",
            {"label_ids": ["7f"], "label_field": "ground_truth"},
            "label_field",
            "The field 'ground_truth' was not",
        ),
        ("find_similar", {"label_ids": ["7f"], "label_field": 3}, "label_field", "Field must be text, not 3."),
        ("find_similar", {"label_ids": ["7f"], "label_field": "a.b"}, "label_field", "'a.b' cannot name a field: use letters"),
        ("find_similar", {"label_ids": ["7f"], "label_field": "_a"}, "label_field", "'_a' cannot name a field: use letters"),
        ("find_similar", {"label_ids": []}, "selection", "No object is selected: select one in an image, or patches"),
        ("evaluate", {"eval_key": "1st"}, "eval_key", "'1st' cannot name an evaluation: use letters, digits"),
    ],
)
@pytest.mark.sampled(2)
def test_bad_values(
    with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch, name: str, params: dict, field: str, words: str
) -> None:
    monkeypatch.setenv("REFSEG_ALLOWED_FOLDERS", os.path.dirname(__file__))
    if name == "evaluate":
        with_prototypes.add_sample_field("found", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    problems = problems_of(form_of(with_prototypes, name, params))
    assert problems[field].startswith(words)
    # Python gets the same sentence, and nothing is executed.
    with pytest.raises(ExecutionError) as caught:
        foo.execute_operator(uri(name), {"dataset": with_prototypes, "params": params})
    assert problems[field] in str(caught.value)


def test_a_run_of_another_method_is_never_replaced(parts: fo.Dataset) -> None:
    parts.register_run("mine", parts.init_run(method="other"))
    problems = problems_of(form_of(parts, "build_prototypes", {"name": "mine", "overwrite": True}))
    assert problems == {"name": "The dataset has another run named 'mine': choose another name."}


def test_numbers_may_be_emptied(with_prototypes: fo.Dataset) -> None:
    assert problems_of(form_of(with_prototypes, "segment", {"min_confidence": "", "max_detections": None})) == {}


def test_selection_becomes_the_source(parts: fo.Dataset) -> None:
    sample = parts.first()
    label = sample.ground_truth.detections[0]
    picked = [{"label_id": label.id, "sample_id": sample.id, "field": "ground_truth"}]
    assert form_of(parts, "build_prototypes")["source"]["default"] == "tag"
    assert form_of(parts, "build_prototypes", selected_labels=picked)["source"]["default"] == "selection"


def test_tagging_in_the_app_needs_a_selection(parts: fo.Dataset) -> None:
    problems = problems_of(form_of(parts, "tag_references"))
    assert problems["selection"].startswith("Nothing is selected in the field 'ground_truth'")
    assert problems_of(form_of(parts, "tag_references", selected=[parts.first().id])) == {}


def test_clips_are_refused(make_dataset: Callable[..., fo.Dataset]) -> None:
    dataset = make_dataset([fo.Sample("a.mp4")])
    dataset.first()["events"] = fo.TemporalDetections()
    view = dataset.to_frames()
    assert "dataset_problem" in problems_of(form_of(dataset, "segment", view=view))


@pytest.mark.parametrize("name", LONG)
def test_view_target_offers_the_selection(name: str, with_prototypes: fo.Dataset) -> None:
    form = form_of(with_prototypes, name, selected=[with_prototypes.first().id], view=with_prototypes.limit(3))
    assert choices_of(form["view_target"]) == ["DATASET", "CURRENT_VIEW", "SELECTED_SAMPLES"]
    assert form["view_target"]["default"] == "SELECTED_SAMPLES"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fo.Dataset]:
    """Ten thousand samples, half of them indexed, and fifty runs."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(f"{number}.png") for number in range(10_000)], progress=False)
    dataset.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for number in range(50):
        method = "refseg/prototypes" if number % 2 else "refseg/segment"
        config = dataset.init_run(method=method, label_field="predictions", model="demo", fingerprint="e", shots=[["star", 3]])
        dataset.register_run(f"run_{number}", config)
    settings = IndexSettings("demo", "f", "e", {}, False, 8, 8, str(dataset._doc.id), clean_masks=True)
    index = CandidateIndex.create(tmp_path_factory.mktemp("index") / "demo", settings)
    state = FileState("a.png", 1, 1)
    indexed = [
        IndexedImage(sample_id, number, state, (8, 8), 0, 1) for number, sample_id in enumerate(dataset.values("id")[::2])
    ]
    for start in range(0, len(indexed), 100):
        lance.write_dataset(images_table(indexed[start : start + 100], settings, 1), f"{index.uri}/images.lance", mode="append")
    index.refresh()
    refseg.dataset.index.record_index(refseg.dataset.index.DatasetIndex(dataset, index), 0.5)
    yield dataset
    dataset.delete()


@pytest.mark.parametrize("images", [10_000, 2_000])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.sampled(4)
def test_speed_on_ten_thousand_samples(name: str, images: int, large: fo.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    operator = foo.get_operator(uri(name))
    request = app_request(large, name, view=large.match_tags("nothing", bool=False).limit(images))
    seconds = []
    for _ in range(7):
        ctx = foo.ExecutionContext(copy.deepcopy(request), executor=Executor(), operator_uri=uri(name))
        started = time.perf_counter()
        form = operator.resolve_type(ctx, "inputs")
        seconds.append(time.perf_counter() - started)
    with capsys.disabled():
        median, largest = 1000 * statistics.median(seconds), 1000 * max(seconds)
        print(f"\n{name}, {images} images: {median:.0f} ms a form, at most {largest:.0f} ms")  # noqa: T201
    assert form.type.properties
    if "coverage" in form.type.properties:
        words = {10_000: "Up to 5,000 of the images chosen are not indexed yet", 2_000: "1,000 of 2,000 images are indexed"}
        assert form.type.properties["coverage"].view.label.startswith(words[images])
