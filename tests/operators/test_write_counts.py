"""Counting from Python, in the App and by the delegated service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.operators.panel.tagging import STAR, TEE

FIELDS = ["predictions_counts", "predictions_areas", "predictions_area_shares"]


@pytest.fixture
def counted(trays: fo.Dataset) -> fo.Dataset:
    """Four trays; in the first three, and not in the last one, their objects are predictions."""
    values = [[label.copy() for label in sample.ground_truth.detections] for sample in trays[:3]]
    for label in values[2]:
        label.confidence = 0.4
    trays.add_sample_field("predictions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    trays[:3].set_values("predictions", [fo.Detections(detections=labels) for labels in values])
    trays.register_run("run", trays.init_run(method="refseg/segment", label_field="predictions", classes=[STAR, TEE, "gear"]))
    return trays


def counts(dataset: fo.Dataset, key: str, kind: str = "counts") -> list[Any]:
    dataset.reload()
    return dataset.values(f"predictions_{kind}.{key}")


def test_from_python(counted: fo.Dataset) -> None:
    pixels = {
        name: [
            int(label.mask.sum()) for sample in counted[:3] for label in sample.predictions.detections if label.label == name
        ]
        for name in (STAR, TEE)
    }
    result = call("write_counts", counted)
    rows = result.pop("classes")
    assert result == {
        "field": "predictions",
        "fields": FIELDS,
        "num_images": 4,
        "num_without_labels": 1,
        "num_written": 3,
        "num_objects": 6,
        "notes": ["1 image without labels in 'predictions': no numbers there"],
        "is_doubtful": False,
    }
    assert rows == [
        ["$tee", "%24tee", 3, 3, sum(pixels[TEE])],
        ["gear", "gear", 0, 0, 0],
        [STAR, "star%2Ev1", 3, 3, sum(pixels[STAR])],
    ]
    assert counts(counted, "star%2Ev1") == counts(counted, "%24tee") == [1, 1, 1, None]
    assert counts(counted, "gear") == [0, 0, 0, None]
    assert counts(counted, "star%2Ev1", "areas") == [*pixels[STAR], None]
    chosen = call("write_counts", counted, min_confidence=0.5, classes=[STAR], areas=False, prefix="sure")
    assert (chosen["fields"], chosen["classes"]) == (["sure_counts"], [[STAR, "star%2Ev1", 2, 2, None]])
    assert call("write_counts", counted.limit(1), "ground_truth")["num_images"] == 1


def test_in_the_app(counted: fo.Dataset) -> None:
    form = form_of(counted, "write_counts")
    assert (problems_of(form), form["field"]["default"]) == ({}, "predictions")
    params = {"min_confidence": 0.5, "view_target": "CURRENT_VIEW"}
    messages = run_in_app(counted, "write_counts", params, view=counted.limit(3))
    (note,) = named(messages, "notify")
    assert note == {
        "message": "Counted 4 objects in 3 images, now in predictions_counts, predictions_areas, predictions_area_shares. "
        "$tee: 2, star.v1: 2, gear: 0.",
        "variant": "success",
    }
    assert len(named(messages, "reload_dataset")) == 1


def test_what_could_not_be_measured_is_told(counted: fo.Dataset) -> None:
    sample = counted.first()
    sample.predictions.detections[0].mask = None
    sample.predictions.detections[0].mask_path = "/gone.png"
    sample.save()
    (note,) = named(run_in_app(counted, "write_counts"), "notify")
    assert note["variant"] == "warning"
    assert "measured by its box: the label" in note["message"]


def test_bad_input(counted: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
    for params, name, words in (
        ({"field": "filepath"}, "field", "Objects must be one of"),
        ({"min_confidence": 2}, "min_confidence", "Least confidence must be a number from 0 to 1, not 2."),
        ({"prefix": "no name"}, "prefix", "'no name' cannot begin the names of fields"),
        ({"classes": [5]}, "classes", "Classes must be a list of names"),
    ):
        assert problems_of(form_of(counted, "write_counts", params))[name].startswith(words)
    counted.add_sample_field("predictions_counts", fo.IntField)
    with pytest.raises(ExecutionError) as caught:
        foo.get_operator(uri("write_counts"))(counted)
    assert str(caught.value).startswith("The field 'predictions_counts' of dataset ")
    bare = make_dataset([fo.Sample("a.png")])
    assert problems_of(form_of(bare, "write_counts"))["field"].startswith("No field of dataset")


def test_delegated(counted: fo.Dataset) -> None:
    done: Any = run_delegated(foo.get_operator(uri("write_counts"))(counted, delegate=True))
    assert (done.run_state, done.result.result["num_written"]) == ("completed", 3)
    assert counts(counted, "gear") == [0, 0, 0, None]
