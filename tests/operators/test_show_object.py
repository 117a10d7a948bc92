"""An object that has no label yet becomes a reference by points or a box, from Python and from the App."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.dataset import box_iou
from tests.dataset.building import build
from tests.operators.helpers import call, form_of, named, problems_of, run_in_app
from tests.runs.test_prompting import middle

FIELD = "references"


@pytest.fixture
def indexed(trays: fo.Dataset) -> fo.Dataset:
    build(trays)
    return trays


def shown_in(dataset: fo.Dataset) -> list[Any]:
    dataset.reload()
    return [label for shown in dataset.values(f"{FIELD}.detections") for label in shown or ()]


class TestFromPython:
    def test_by_a_point(self, indexed: fo.Dataset) -> None:
        sample = indexed.skip(1).first()
        wanted = sample.ground_truth.detections[0]
        result = call("show_object", indexed, sample.id, " star ", [middle(wanted)])
        (label,) = shown_in(indexed)
        assert (label.id, label.label, label.tags) == (result["label_id"], "star", ["reference"])
        assert (result["sample_id"], result["field"], result["origin"], result["pieces"]) == (sample.id, FIELD, "index", 1)
        assert result["bounding_box"] == pytest.approx(label.bounding_box)
        assert box_iou(label.bounding_box, wanted.bounding_box) > 0.8
        assert indexed[sample.id][FIELD].detections[0].id == label.id

    def test_by_a_box_as_a_negative(self, indexed: fo.Dataset) -> None:
        sample = indexed.first()
        wanted, other = sample.ground_truth.detections
        call("show_object", indexed, sample.id, "tee", box=wanted.bounding_box, beside=[middle(other)], negative=True)
        (label,) = shown_in(indexed)
        assert (label.label, label.tags) == ("tee", ["negative"])
        assert box_iou(label.bounding_box, wanted.bounding_box) > 0.8

    def test_another_mask(self, indexed: fo.Dataset) -> None:
        sample = indexed.first()
        point = middle(sample.ground_truth.detections[0])
        number = call("show_object", indexed, sample.id, "star", [point])["num_masks"]
        with pytest.raises(ExecutionError, match=rf"Mask {number} was asked for, but {number} fit"):
            call("show_object", indexed, sample.id, "star", [point], choice=number)
        assert len(shown_in(indexed)) == 1

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"label": "star"}, "Say where the object is"),
            ({"label": " ", "points": [(0.5, 0.5)]}, "Name the object"),
            ({"label": 5, "points": [(0.5, 0.5)]}, "Class must be text, not 5."),
            ({"label": "star", "points": [(0.5, 1.5)]}, "Points on it must be 2 numbers from 0 to 1 for each"),
            ({"label": "star", "points": [(0.5, 0.5, 0.5)]}, "Points on it must be 2 numbers"),
            ({"label": "star", "points": "all"}, "Points on it must be 2 numbers from 0 to 1 for each, not 'all'."),
            ({"label": "star", "points": [(0.5, 0.5)], "beside": [(True, 0.5)]}, "Points beside it must be"),
            ({"label": "star", "box": [0.1, 0.1, 0.5]}, "Box around it must be 4 numbers from 0 to 1, not"),
            ({"label": "star", "box": [0.1] * 8}, "Box around it must be 4 numbers from 0 to 1, not"),
            ({"label": "star", "box": [0.8, 0.1, 0.5, 0.5]}, "box must be x, y, width and height within the image"),
            ({"label": "star", "points": [(0.5, 0.5)], "choice": -1}, "Mask must be a whole number of 0 or more"),
        ],
    )
    def test_what_cannot_be(self, trays: fo.Dataset, given: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ExecutionError) as caught:
            call("show_object", trays, trays.first().id, **given)
        assert sentence in str(caught.value)
        assert not trays.has_field(FIELD)

    def test_an_image_that_is_not_there(self, trays: fo.Dataset) -> None:
        with pytest.raises(ExecutionError, match="0" * 24):
            call("show_object", trays, "0" * 24, "star", [(0.5, 0.5)])


class TestInTheApp:
    def test_the_open_image_or_the_one_selected(self, indexed: fo.Dataset) -> None:
        ids = indexed.values("id")
        where = {name: middle(indexed[name].ground_truth.detections[0]) for name in ids}
        assert "No image is open" in problems_of(form_of(indexed, "show_object"))["image"]
        assert "No image is open" in problems_of(form_of(indexed, "show_object", selected=ids[:2]))["image"]
        for chosen, name in (({"selected": [ids[2]]}, ids[2]), ({"selected": [ids[2]], "current_sample": ids[1]}, ids[1])):
            params = {"label": "star", "points": [float(number) for number in where[name]]}
            assert problems_of(form_of(indexed, "show_object", params, **chosen)) == {}
            told = run_in_app(indexed, "show_object", params, **chosen)
            assert [note["variant"] for note in named(told, "notify")] == ["success"]
            assert named(told, "notify")[0]["message"] == "Added a reference of 'star': a mask of the index."
            assert len(indexed[name][FIELD].detections) == 1
        assert len(shown_in(indexed)) == 2

    def test_empty_rows_of_the_form_count_as_none(self, indexed: fo.Dataset) -> None:
        chosen = {"selected": indexed.values("id")[:1]}
        assert problems_of(form_of(indexed, "show_object", {"label": "star", "points": [], "box": []}, **chosen)).keys() == {
            "prompt"
        }
