"""Suggested references from Python, from the App and delegated; what its form refuses."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import refseg
from operators.forms.constants import NUM_SUGGESTED, SUGGESTED_STORE
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.operators.panel.tagging import tag


@pytest.fixture
def segmented(trays: fo.Dataset) -> fo.Dataset:
    """Four trays with predictions and an index; the objects of the first are references."""
    tag(trays[:1], "reference")
    call("learn", trays, "demo", calibrates=False)
    trays.reload()
    return trays


def kept(dataset: fo.Dataset) -> dict:
    return foo.ExecutionContext({"dataset_name": dataset.name}).store(SUGGESTED_STORE).get("predictions")


def test_default_is_the_librarys() -> None:
    assert inspect.signature(refseg.suggest_references).parameters["per_class"].default == NUM_SUGGESTED


class TestSuggestReferences:
    def test_from_python(self, segmented: fo.Dataset) -> None:
        expected = [asdict(item) for item in refseg.suggest_references(segmented, progress=False)]
        assert expected
        result = call("suggest_references", segmented)
        assert result == {"field": "predictions", "num_found": len(expected), "suggestions": expected}
        (run,) = segmented.list_runs(method="refseg/segment")
        assert kept(segmented) == {"run": run, "rows": expected}
        image = segmented.select(expected[0]["sample_id"])
        found = call("suggest_references", image, "predictions", per_class=1)["suggestions"]
        assert {row["sample_id"] for row in found} == {expected[0]["sample_id"]}

    def test_from_the_app(self, segmented: fo.Dataset) -> None:
        found = [item.label_id for item in refseg.suggest_references(segmented, progress=False)]
        messages = run_in_app(segmented, "suggest_references")
        view = fo.DatasetView._build(segmented, named(messages, "set_view")[0]["view"])
        assert view.values("id") == found
        names = "1 class" if len(found) == 1 else "2 classes"
        text = f"{len(found)} suggested reference{'s' * (len(found) > 1)} of {names}: use those that are right."
        assert named(messages, "notify") == [{"message": text, "variant": "success"}]
        refseg.accept(segmented, found)
        messages = run_in_app(segmented, "suggest_references")
        assert named(messages, "set_view") == []
        text = "No prediction is sure enough to be suggested as a reference."
        assert named(messages, "notify") == [{"message": text, "variant": "info"}]

    def test_delegated(self, segmented: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("suggest_references"))(segmented, delegate=True))
        assert done.run_state == "completed"
        assert done.result.result["suggestions"] == kept(segmented)["rows"]


class TestRefused:
    def test_no_predictions(self, parts: fo.Dataset) -> None:
        sentence = f"The dataset {parts.name!r} holds no predictions yet: run 'Segment' first."
        assert problems_of(form_of(parts, "suggest_references")) == {"field": sentence}
        with pytest.raises(ExecutionError, match="holds no predictions yet"):
            foo.get_operator(uri("suggest_references"))(parts)

    def test_no_index(self, segmented: fo.Dataset) -> None:
        assert problems_of(form_of(segmented, "suggest_references")) == {}
        refseg.open_index(segmented).delete()
        sentence = "Predictions are compared by the index, and there is none for 'demo': run 'Build index' first."
        assert problems_of(form_of(segmented, "suggest_references")) == {"index": sentence}

    def test_numbers(self, segmented: fo.Dataset) -> None:
        problems = problems_of(form_of(segmented, "suggest_references", {"per_class": 0}))
        assert problems == {"per_class": "How many must be a whole number of 1 or more, not 0."}
