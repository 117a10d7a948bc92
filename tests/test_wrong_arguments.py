"""Whatever is passed to a public function in place of what it wants is refused by the name of the argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import pytest
import torch
from PIL import Image

import refseg
from refseg.errors import RefSegError
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.inspecting import inspect as inspect_prototypes
from tests.trays import tray_samples

GIVEN_OUT = {
    "BenchmarkReport",
    "CountsReport",
    "DatasetIndex",
    "EvaluationReport",
    "HeatmapReport",
    "IndexReport",
    "IndexStatus",
    "InspectedReference",
    "MergeReport",
    "PRESETS",
    "PromptedMask",
    "PrototypeReport",
    "QueueItem",
    "ReferenceQuality",
    "SampledReferences",
    "SegmentReport",
    "ShownChanges",
    "SimilarReport",
    "SkippedImage",
    "SuggestedReference",
    "Suggestion",
    "UpdateReport",
    "VerifyReport",
}
"""What the library makes, and nobody else."""

METHODS: dict[str, Callable[..., Any]] = {
    "Prototypes.add": Prototypes.add,
    "Prototypes.load": Prototypes.load,
    "Prototypes.num_shared": Prototypes.num_shared,
    "Prototypes.remove": Prototypes.remove,
    "Prototypes.save": Prototypes.save,
    "PrototypeReport.as_rows": refseg.PrototypeReport.as_rows,
    "Segmenter.predict": refseg.Segmenter.predict,
}

ODD: dict[str, Any] = {
    "none": None,
    "whole": 5,
    "negative": -1,
    "fraction": 2.5,
    "nan": float("nan"),
    "flag": True,
    "text": "text",
    "texts": ["text"],
    "mixed": [5, "text"],
    "mapping": {"star": None},
    "object": object(),
    "empty list": [],
}
FITS: dict[str, set[str]] = {
    "collection": {"text"},
    "prototypes": {"text"},
    "model": {"text"},
    "index": {"flag"},
    "name": {"text"},
    "any text": {"text"},
    "names": {"text", "texts", "empty list"},
    "flag": {"flag"},
    "progress": {"flag"},
    "whole": {"whole"},
    "integer": {"whole", "negative"},
    "number": {"whole", "fraction"},
    "path": {"text"},
    "mapping": {"mapping"},
    "rows": {"empty list"},
    "nothing of these": set(),
}
"""Which of them are right, or of the right kind, for what an argument wants; None is where its annotation says so."""

WANTED = {
    "collection": ("view", "dataset", "empty"),
    "prototypes": ("prototypes",),
    "model": ("model",),
    "index": ("index",),
    "name": (
        *("label_field", "pred_field", "gt_field", "field", "accepted_field", "rejected_field"),
        *("semantic_field", "presence_field", "changes_field", "into", "prefix"),
        *("name", "label", "label_id", "sample_id", "tag", "negative_tag", "run_key", "eval_key", "device"),
    ),
    "names": (
        *("classes", "label_fields", "tags", "label_ids", "sample_ids", "reference_ids", "only"),
        *("accepted_ids", "rejected_ids", "prediction_ids", "query"),
    ),
    "flag": (
        *("preview", "tiles", "exact", "content_hash", "calibrates", "overwrite", "as_references", "keep_classes", "strict"),
        *("insist", "turned", "areas", "add_conflicting", "is_negative", "smooth"),
        *("background", "scenes", "calibrated", "whiten"),
    ),
    "progress": ("progress",),
    "whole": (
        *("max_detections", "num_workers", "max_negatives", "k", "num_suggestions", "num_parts", "max_references"),
        *("shots", "seed", "num_processes", "per_class", "cores"),
    ),
    "integer": ("num_seeds", "limit"),
    "number": ("min_side", "border"),
    "path": ("uri", "mask_dir", "sam2_path", "dinov2_path", "path", "data", "out", "targets", "image"),
    "mapping": ("storage_options",),
    "rows": ("replaced", "pairs"),
    "nothing of these": (
        *(
            "min_confidence",
            "iou",
            "presence_gate",
            "min_score",
            "pixel_range",
            "channels",
            "matching",
            "references",
            "reuse",
            "dtype",
        ),
        *("decision", "merged", "kind", "report", "inspected", "job", "order", "part", "other", "class_similarity", "overlaps"),
        *("vectors", "labels", "skipped", "digests", "images", "surroundings", "pixels", "box", "mask", "mask_box"),
        *("beside", "looks", "cohort", "image_names", "points", "bounding_box", "engine"),
    ),
}
OTHERWISE = {
    ("MatchSettings", "negatives"): "flag",
    ("MatchSettings", "second_look"): "flag",
    ("build_prototypes", "negatives"): "nothing of these",
    ("Prototypes", "negatives"): "nothing of these",
    ("Prototypes", "background"): "nothing of these",
    ("Prototypes", "classes"): "nothing of these",
    ("Prototypes", "reference_ids"): "nothing of these",
    ("Prototypes", "model"): "any text",
    ("Prototypes", "fingerprint"): "any text",
    ("Reference", "id"): "any text",
    ("Reference", "problem"): "any text",
    ("BenchmarkJob", "shots"): "nothing of these",
    ("BenchmarkJob", "references"): "any text",
    ("Segmenter.predict", "image"): "nothing of these",
    ("reference_quality", "prototypes"): "nothing of these",
    ("save_prototypes", "prototypes"): "nothing of these",
    ("Segmenter", "prototypes"): "nothing of these",
    ("inspect", "dataset"): "collection",
}


MAY_BE_EMPTY = {("inspection_sheet", "inspected"), ("build_prototypes", "negatives"), ("BenchmarkJob", "shots")}
MAY_BE_EMPTY |= {("segment_prompt", "beside"), ("segment_prompt", "points")}


def targets() -> dict[str, Callable[..., Any]]:
    public = {name: getattr(refseg, name) for name in refseg.__all__ if name not in GIVEN_OUT}
    # The package's own function hides the standard module of this name here.
    return {**public, "inspect": inspect_prototypes, **METHODS}


def arguments() -> Iterator[tuple[str, str]]:
    for target, function in targets().items():
        for name in inspect.signature(function).parameters:
            if name != "self":
                yield target, name


def wanted(target: str, name: str) -> str:
    kind = OTHERWISE.get((target, name)) or next((kind for kind, names in WANTED.items() if name in names), None)
    assert kind is not None, f"say in this file what {name} of {target} wants"
    return kind


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, prototypes: Prototypes) -> Iterator[dict[str, Any]]:
    """A right value for each argument that has no default."""
    folder = tmp_path_factory.mktemp("trays")
    dataset = fo.Dataset()
    dataset.add_samples(tray_samples(folder), progress=False)
    dataset.clone_sample_field("ground_truth", "predictions")
    dataset.register_run("earlier", dataset.init_run(method="refseg/similar", label_field="predictions"))
    for sample in dataset:
        for label in sample.predictions.detections:
            label.confidence = 0.5
        sample.save()
    label_id = dataset.first().predictions.detections[0].id
    yield {
        "view": dataset,
        "dataset": dataset,
        "prototypes": prototypes,
        "references": refseg.collect_references(dataset, "ground_truth"),
        "field": "ground_truth",
        "pred_field": "predictions",
        "gt_field": "ground_truth",
        "label_field": "predictions",
        "label_ids": [label_id],
        "label_id": label_id,
        "sample_id": dataset.first().id,
        "bounding_box": (0.1, 0.1, 0.2, 0.2),
        "query": label_id,
        "label": "star",
        "shots": 1,
        "name": "parts",
        "merged": refseg.MergeReport("ground_truth", "accepted"),
        "decision": refseg.Decision("accept", "predictions", (), (), ()),
        "kind": "accept",
        "accepted_ids": (),
        "rejected_ids": (),
        "prediction_ids": (),
        "report": refseg.PrototypeReport((), (), (), None),
        "inspected": [],
        "job": refseg.BenchmarkJob("toy", folder, folder / "out"),
        "data": folder,
        "out": folder / "out",
        "other": prototypes,
        "reference_ids": (),
        "path": folder / "a.safetensors",
        "id": "a",
        "image": str(folder / "tray_0.png"),
        "box": (0, 0, 9, 9),
    }
    dataset.delete()


def call(target: str, given: dict[str, Any], wrong: dict[str, Any]) -> Any:
    function, prototypes = targets()[target], given["prototypes"]
    needed = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in wrong and name != "self"
    ]
    if target == "Prototypes":
        own = {name: getattr(prototypes, name) for name in needed}
    else:
        own = {name: given[name] for name in needed}
    if target in METHODS and target != "Prototypes.load":
        holders: dict[str, Any] = {
            "Prototypes": prototypes,
            "PrototypeReport": given["report"],
            "Segmenter": refseg.Segmenter(prototypes),
        }
        return function(holders[target.split(".")[0]], **own, **wrong)
    return function(**own, **wrong)


@pytest.mark.parametrize(("target", "name"), list(arguments()))
def test_wrong_kinds_are_refused_by_name(target: str, name: str, given: dict[str, Any]) -> None:
    kind = wanted(target, name)
    parameter = inspect.signature(targets()[target]).parameters[name]
    fits = FITS[kind] | ({"none"} if "None" in str(parameter.annotation) or parameter.default is None else set())
    fits |= {"empty list"} if (target, name) in MAY_BE_EMPTY else set()
    wrong = {what: value for what, value in ODD.items() if what not in fits}
    outcomes = {what: outcome(target, name, value, given) for what, value in wrong.items()}
    assert {what: said for what, said in outcomes.items() if not re.search(rf"^refused: .*\b{name}\b.*\.$", said)} == {}


def outcome(target: str, name: str, value: Any, given: dict[str, Any]) -> str:
    try:
        call(target, given, {name: value})
    except RefSegError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


def test_nothing_was_written(given: dict[str, Any]) -> None:
    for target, name in arguments():
        if wanted(target, name) == "name" and name in ("run_key", "label_field"):
            with pytest.raises(RefSegError, match=name):
                call(target, given, {name: 5})
    assert given["dataset"].list_runs() == ["earlier"]
    assert set(given["dataset"].get_field_schema(embedded_doc_type=fo.Detections)) == {"ground_truth", "predictions"}


def test_a_text_is_one_name(given: dict[str, Any], prototypes: Prototypes) -> None:
    dataset = given["dataset"]
    references = refseg.collect_references(dataset, "ground_truth", classes="star")
    assert {reference.label for reference in references} == {"star"}
    one = references[0].id
    assert [reference.id for reference in refseg.collect_references(dataset, "ground_truth", label_ids=one)] == [one]
    assert refseg.sample_references(dataset, "ground_truth", 1, classes="tee").label_ids.keys() == {"tee"}
    assert refseg.tag_references(dataset, one, "ground_truth", "chosen") == 1
    assert refseg.evaluate(dataset, "predictions", "ground_truth", classes="star", progress=False).per_class.keys() == {"star"}
    assert refseg.Segmenter(prototypes, classes="star").settings.classes == ("star",)
    assert len(prototypes.remove(prototypes.reference_ids[0]).reference_ids) == len(prototypes.reference_ids) - 1


def test_numbers_of_numpy_are_numbers(prototypes: Prototypes) -> None:
    import numpy as np

    segmenter = refseg.Segmenter(prototypes, min_confidence={"star": np.float32(0.5)}, max_detections=np.int64(3))
    assert (segmenter.settings.min_confidence, segmenter.settings.max_detections) == ({"star": 0.5}, 3)
    assert [type(value) for value in segmenter.settings.min_confidence.values()] == [float]  # type: ignore[union-attr]
    assert type(segmenter.settings.max_detections) is int


def test_unknown_arguments_are_pythons_own_error(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'lables'"):
        refseg.segment(given["dataset"], given["prototypes"], lables=1)  # type: ignore[call-arg]


def test_an_image_of_another_kind(prototypes: Prototypes) -> None:
    found = refseg.Segmenter(prototypes).predict(Image.new("RGB", (40, 30)))
    assert isinstance(found, fo.Detections)
    assert torch.is_tensor(prototypes.vectors)
