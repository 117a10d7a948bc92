"""Looking at prototypes: from Python, from the App, delegated; forms and refusals."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from PIL import Image

import refseg
from operators.inspect_prototypes import NUM_PARTS as FORM_PARTS
from operators.inspect_prototypes import NUM_SUGGESTIONS as FORM_SUGGESTIONS
from operators.inspect_prototypes import SHOTS_SHOWN
from operators.inspect_prototypes import SUGGESTIONS_FIELD as FORM_FIELD
from refseg.dataset.references import collect_references
from refseg.dataset.store import dataset_folder, save_prototypes
from refseg.demo.world import NOVEL_PARTS
from refseg.insight.quality import reference_quality
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.inspecting import NUM_SUGGESTIONS
from refseg.runs.inspection import MAX_REFERENCES, NUM_PARTS
from refseg.runs.report_fields import SUGGESTIONS_FIELD
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri

CLASSES = sorted(NOVEL_PARTS[:2])


@pytest.fixture
def inspected(parts: fo.Dataset) -> fo.Dataset:
    """The dataset with prototypes `parts` of three references a class; the last image's objects are not among them."""
    references = collect_references(parts[:3], "ground_truth")
    save_prototypes(parts, build_prototypes(references, "demo", progress=False), "parts")
    return parts


@pytest.fixture
def mistaken(parts: fo.Dataset) -> tuple[fo.Dataset, str]:
    """The same with one object of the wrong class among the references, and its id."""
    sample = parts.first()
    label = next(label for label in sample.ground_truth.detections if label.label == CLASSES[0])
    label.label = CLASSES[1]
    sample.save()
    save_prototypes(parts, build_prototypes(collect_references(parts, "ground_truth"), "demo", progress=False), "parts")
    return parts, label.id


def test_defaults_are_the_librarys() -> None:
    assert (FORM_PARTS, SHOTS_SHOWN) == (NUM_PARTS, MAX_REFERENCES)
    assert (FORM_SUGGESTIONS, FORM_FIELD) == (NUM_SUGGESTIONS, SUGGESTIONS_FIELD)


class TestInspectPrototypes:
    def test_from_python(self, inspected: fo.Dataset) -> None:
        result = call("inspect_prototypes", inspected, "parts")
        assert (result["prototypes"], result["num_shown"], result["num_left_out"], result["skipped"]) == ("parts", 6, 0, [])
        path = Path(result["path"])
        assert path.parent == dataset_folder(inspected) / "inspection"
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        with Image.open(path) as sheet:
            assert sheet.format == "PNG"
            assert sheet.height > 6 * 144
        assert len(result["quality"]) == 6
        assert {row[1] for row in result["quality"]} == set(CLASSES)
        inspected.reload()
        assert inspected.get_run_info("parts").config.quality == result["quality"]

    def test_some_classes_have_a_sheet_of_their_own(self, inspected: fo.Dataset) -> None:
        every, one = (call("inspect_prototypes", inspected, classes=classes) for classes in (None, [CLASSES[0], ""]))
        assert (one["num_shown"], {row[1] for row in one["quality"]}) == (3, {CLASSES[0]})
        assert every["path"] != one["path"]
        assert call("inspect_prototypes", inspected, classes=[CLASSES[0]])["path"] == one["path"]

    def test_in_the_app(self, mistaken: tuple[fo.Dataset, str]) -> None:
        dataset, wrong = mistaken
        messages = run_in_app(dataset, "inspect_prototypes")
        (shown,) = named(messages, "show_output")
        kind, data = shown["results"]["sheet"].split(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(shown["results"]["path"]) as written, Image.open(BytesIO(base64.b64decode(data))) as seen:
            assert seen.size == written.size
            assert np.abs(np.asarray(seen).astype(int) - np.asarray(written)).mean() < 4
        assert shown["outputs"]["type"]["properties"]["sheet"]["view"]["name"] == "ImageView"
        (note,) = named(messages, "notify")
        assert note["variant"] == "warning"
        assert re.search(r"looks? like a mistake: '\w+' in \w+\.png is ", note["message"])
        assert wrong not in note["message"]
        steps = named(messages, "set_progress")
        assert steps[0] == {"label": "references: 0 of 8", "progress": 0.0}
        assert steps[-1] == {"label": "sheet: 1 of 1", "progress": 1.0}

    def test_deleted_label_is_told(self, inspected: fo.Dataset) -> None:
        sample = inspected.first()
        gone, label = sample.ground_truth.detections[0].id, sample.ground_truth.detections[0].label
        name = Path(sample.filepath).name
        inspected.delete_labels(ids=[gone])
        messages = run_in_app(inspected, "inspect_prototypes")
        text = named(messages, "notify")[0]["message"]
        assert "5 references shown" in text
        assert f"Left out 1 reference: {label!r} in {name}: its label is not in the dataset any more ({gone})." in text

    def test_delegated(self, inspected: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("inspect_prototypes"))(inspected, delegate=True))
        assert done.run_state == "completed"
        assert Path(done.result.result["path"]).is_file()

    def test_form_says_what_is_known(self, mistaken: tuple[fo.Dataset, str]) -> None:
        dataset, wrong = mistaken
        form = form_of(dataset, "inspect_prototypes")
        assert problems_of(form) == {}
        label = form["problems"]["view"]["label"]
        assert "again: one of '" in label
        assert wrong not in label

    def test_form_of_prototypes_without_a_mistake_or_record(self, with_prototypes: fo.Dataset) -> None:
        label = form_of(with_prototypes, "inspect_prototypes")["problems"]["view"]["label"]
        assert label == "None of 2 references looks like a mistake."
        config = with_prototypes.get_run_info("parts").config
        del config.quality
        with_prototypes.update_run_config("parts", config)
        label = form_of(with_prototypes, "inspect_prototypes")["problems"]["view"]["label"]
        assert label == "These prototypes were kept before references were judged: build them again to have that."
        # They are judged all the same when they are inspected.
        assert len(call("inspect_prototypes", with_prototypes)["quality"]) == 2

    def test_report_and_fields(self, inspected: fo.Dataset) -> None:
        """A mistaken reference is told, and the suggestions are written and shown; a second run replaces them."""
        refseg.build_index(inspected, "demo", num_workers=0, progress=False)
        refseg.calibrate(inspected, "parts", num_workers=0, progress=False)
        first = call("inspect_prototypes", inspected, num_suggestions=2)
        report = refseg.inspect("parts", inspected, num_suggestions=2, progress=False)
        assert (first["report"], first["written"], first["notes"]) == (str(report), None, list(report.notes))
        assert first["confused"] == str(report.confusion)
        assert [row[0] for row in first["hurting"]] == [item.id for item in report.hurting]
        assert [row[0] for row in first["suggestions"]] == [item.sample_id for item in report.suggestions]
        with Image.open(first["picture"]) as picture:
            assert picture.width >= 1000
        for _ in range(2):
            messages = run_in_app(inspected, "inspect_prototypes", {"write_fields": True, "num_suggestions": 2})
        (shown,) = named(messages, "show_output")
        assert shown["results"]["confused"] == first["confused"]
        assert shown["outputs"]["type"]["properties"]["picture"]["view"]["name"] == "ImageView"
        assert first["confused"] in named(messages, "notify")[0]["message"]
        assert "reload_dataset" in [message["operator_uri"] for message in messages]
        inspected.reload()
        num_compared = sum(item.similarity is not None for item in report.references)
        assert inspected.count("ground_truth.detections.loo_similarity") == num_compared > 0
        if report.suggestions:
            assert len(named(messages, "set_view")) == 1
        assert inspected.count("suggestions.detections") == len(report.suggestions)

    def test_field_of_suggestions_must_be_its_own(self, with_prototypes: fo.Dataset) -> None:
        with_prototypes.clone_sample_field("ground_truth", "suggestions")
        assert problems_of(form_of(with_prototypes, "inspect_prototypes")) == {}
        (problem,) = problems_of(form_of(with_prototypes, "inspect_prototypes", {"write_fields": True})).items()
        assert problem == (
            "write_fields",
            "The field 'suggestions' was not written by this operator, and would be cleared: rename it first.",
        )
        with pytest.raises(ExecutionError, match="was not written by this operator"):
            call("inspect_prototypes", with_prototypes, write_fields=True)

    def test_refusals(self, with_prototypes: fo.Dataset, parts: fo.Dataset) -> None:
        sentence = f"The prototypes have no class 'gear': choose of {', '.join(map(repr, CLASSES))}."
        assert problems_of(form_of(parts, "inspect_prototypes", {"classes": ["gear"]})) == {"unknown_class": sentence}
        with pytest.raises(ExecutionError, match="no class 'gear'"):
            call("inspect_prototypes", parts, classes=["gear"])
        assert list(problems_of(form_of(parts, "inspect_prototypes", {"num_parts": 9}))) == ["num_parts"]
        with_prototypes.delete_run("parts")
        sentence = f"The dataset {parts.name!r} keeps no prototypes yet: run 'Build prototypes' first."
        for name in ("inspect_prototypes", "show_heatmap"):
            assert problems_of(form_of(parts, name)) == {"prototypes": sentence}


def test_kept_prototypes_record_the_quality_of_names_that_mongodb_refuses_as_keys(
    parts: fo.Dataset, prototypes: Prototypes
) -> None:
    names = ("a.b", "$c")
    renamed = Prototypes(
        names, *(prototypes.vectors, prototypes.labels, prototypes.reference_ids, "demo", prototypes.fingerprint)
    )
    save_prototypes(parts, renamed, "odd")
    rows = parts.get_run_info("odd").config.quality
    assert json.loads(json.dumps(rows)) == rows
    assert [row[0] for row in rows] == list(prototypes.reference_ids)
    for row, item in zip(rows, reference_quality(renamed), strict=True):
        assert row == [item.id, item.label, None, item.nearest_class, item.nearest_similarity, None]
