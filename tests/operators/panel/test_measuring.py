"""What figures and changes are made of, in the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

import refseg
from tests.operators.app_panel import Answer, press, section
from tests.operators.helpers import named

BOXES = {"here": [0.1, 0.2, 0.2, 0.5], "there": [0.4, 0.2, 0.2, 0.5], "beside": [0.7, 0.2, 0.2, 0.5]}


def box(place: str, label: str, **about: Any) -> fo.Detection:
    return fo.Detection(label=label, bounding_box=BOXES[place], **about)


@pytest.fixture
def judged(shelf: fo.Dataset) -> fo.Dataset:
    """Two images alike: a nut that is found, one that is taken for a gear, a pin that is missed."""
    for sample in shelf:
        sample.ground_truth.detections = [box("here", "nut"), box("there", "nut"), box("beside", "pin")]
        sample.predictions.detections = [box("here", "nut", confidence=0.9), box("there", "gear", confidence=0.8)]
        sample.save()
    refseg.evaluate(shelf, "predictions", "ground_truth", progress=False)
    shelf.reload()
    return shelf


def view_of(dataset: fo.Dataset, answer: Answer) -> Any:
    (sent,) = named(answer.messages, "set_view")
    return fo.DatasetView._build(dataset, sent["view"])


class TestFigures:
    def test_rows_and_table(self, judged: fo.Dataset) -> None:
        shown = section(judged, "results")["evaluation"]
        rows = {row["name"]: row for row in shown["classes"]}
        assert {name: (row["precision"], row["recall"]) for name, row in rows.items()} == {
            "gear": (0.0, None),
            "nut": (1.0, 0.5),
            "pin": (None, 0.0),
        }
        assert rows["nut"]["taken_for"] == ["gear", 2]
        assert 0 < rows["nut"]["ap50"] <= 1
        assert shown["confusion"] == {
            "names": ["gear", "nut", "pin"],
            "num_hidden": 0,
            "cells": [[0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]],
            "most": {"number": 2, "truth": "nut", "predicted": "gear"},
            "rest": 0,
        }
        assert (shown["num_outside"], shown["not_compared"]) == (0, [])

    def test_those_with_most_mistakes(self) -> None:
        from tests.operators.panel.shelf import loaded

        pairs = [[f"c{number}", f"c{number + 1}", number + 1] for number in range(9)]
        table = loaded("figures").confusion_table([["c0", "c0", 99], *pairs])
        assert table["names"] == ["c4", "c5", "c6", "c7", "c8", "c9"]
        assert (table["num_hidden"], table["rest"]) == (4, sum(range(1, 5)))
        assert table["most"] == {"number": 9, "truth": "c8", "predicted": "c9"}
        assert loaded("figures").confusion_table([]) is None

    def test_an_evaluation_of_an_earlier_version(self) -> None:
        from tests.operators.panel.shelf import loaded

        (row,) = loaded("figures").class_rows({"per_class": [["nut", 0.25, 0.5]], "mask_ap": 0.25})
        assert (row["ap"], row["ap50"], row["precision"], row["num_truth"]) == (0.25, None, None, None)


class TestShowClass:
    def test_as_patches_of_the_evaluation(self, judged: fo.Dataset) -> None:
        view = view_of(judged, press(judged, "show_class", {"name": "nut"}))
        assert view._is_patches
        assert sorted(view.values("type")) == ["fn", "fn", "tp", "tp"]

    def test_without_an_evaluation_of_fiftyone(self, judged: fo.Dataset) -> None:
        judged.delete_evaluation("eval_predictions")
        view = view_of(judged, press(judged, "show_class", {"name": "nut"}))
        assert view.values("ground_truth.label") == ["nut"] * 4
        assert view_of(judged, press(judged, "show_class", {"name": "gear"})).values("predictions.label") == ["gear"] * 2

    def test_none_any_more(self, judged: fo.Dataset) -> None:
        text = "There is no object of the class 'star' any more: evaluate again."
        assert press(judged, "show_class", {"name": "star"}).error == text

    def test_so_many_images(self, judged: fo.Dataset) -> None:
        from tests.operators.panel.shelf import loaded

        module = loaded("measuring")
        before, module.MOST_IMAGES = module.MOST_IMAGES, 1
        try:
            answer = press(judged, "show_class", {"name": "nut"})
        finally:
            module.MOST_IMAGES = before
        assert answer.notes == [("info", "These are the objects in the first 1 images that hold any of 'nut'.")]
        assert len(view_of(judged, answer)) == 2


class TestShowCell:
    @pytest.mark.parametrize(
        ("truth", "predicted", "field"),
        [("nut", "gear", "predictions"), ("nut", "nut", "predictions"), ("pin", None, "ground_truth")],
    )
    def test_its_objects(self, judged: fo.Dataset, truth: str, predicted: str | None, field: str) -> None:
        answer = press(judged, "show_cell", {"truth": truth, "predicted": predicted})
        assert answer.notes == []
        view = view_of(judged, answer)
        assert view._is_patches
        assert view.values(f"{field}.label") == [predicted or truth] * 2

    def test_another_run_since(self, judged: fo.Dataset) -> None:
        for sample in judged:
            sample.predictions = fo.Detections()
            sample.save()
        text = "These objects are not there any more, since predictions were written again: evaluate again."
        assert press(judged, "show_cell", {"truth": "nut", "predicted": "gear"}).error == text

    def test_what_is_not_named(self, judged: fo.Dataset, shelf: fo.Dataset) -> None:
        assert press(judged, "show_cell", {"truth": "nut", "predicted": "pin"}).error == (
            "The evaluation does not name these objects: evaluate again."
        )


def test_images_that_were_left_out(judged: fo.Dataset) -> None:
    assert press(judged, "show_left_out").error == "The evaluation left out no image."
    sample = judged.last()
    Path(sample.filepath).unlink()
    sample.metadata = None
    sample.save()
    refseg.evaluate(judged, "predictions", "ground_truth", progress=False)
    judged.reload()
    assert section(judged, "results")["evaluation"]["num_skipped"] == 1
    assert view_of(judged, press(judged, "show_left_out")).values("id") == [sample.id]


def test_nothing_measured(shelf: fo.Dataset) -> None:
    for method in ("show_class", "show_cell", "show_left_out"):
        assert press(shelf, method, {"name": "nut"}).error == "Nothing was measured yet: press 'Evaluate' first."


class TestShowChanges:
    @pytest.fixture
    def changed(self, shelf: fo.Dataset) -> fo.Dataset:
        """A run that gained one object in the first image and lost one in the second."""
        from refseg.dataset import update_run
        from refseg.runs.changes import ChangedObject
        from refseg.runs.records import objects_as_text

        first, second = shelf.values("id")
        objects = [
            ChangedObject(first, "gained", "$c", None, (0.1, 0.1, 0.2, 0.2)),
            ChangedObject(second, "lost", "a.b", None, (0.1, 0.1, 0.2, 0.2)),
        ]
        update_run(shelf, "run", {"changed_objects": objects_as_text(objects)})
        return shelf

    def test_all_and_one_kind(self, changed: fo.Dataset) -> None:
        answer = press(changed, "show_changes", {"kind": None})
        assert answer.result == {"field": "changes"}
        assert named(answer.messages, "set_active_fields") == [{"fields": ["changes"]}]
        changed.reload()
        assert view_of(changed, answer).values("changes.detections.change") == [["gained"], ["lost"]]
        answer = press(changed, "show_changes", {"kind": "lost"})
        assert view_of(changed, answer).values("changes.detections.label") == [["a.b"]]
        assert press(changed, "show_changes", {"kind": "relabelled"}).error == "The last run relabelled no object."

    def test_another_field_where_the_name_is_taken(self, changed: fo.Dataset) -> None:
        changed.add_sample_field("changes", fo.IntField)
        answer = press(changed, "show_changes", {"kind": None})
        assert answer.result["field"] == "changes_of_predictions"
        assert press(changed, "show_changes", {"kind": None}).result["field"] == "changes_of_predictions"

    def test_a_run_of_an_earlier_version(self, shelf: fo.Dataset) -> None:
        """It names the images alone."""
        answer = press(shelf, "show_changes", {"kind": None})
        shelf.reload()
        assert view_of(shelf, answer).values("id") == shelf.values("id")

    def test_its_objects_are_no_references(self, changed: fo.Dataset) -> None:
        press(changed, "show_changes", {"kind": None})
        changed.reload()
        sample = changed.first()
        label = {"label_id": sample.changes.detections[0].id, "sample_id": sample.id, "field": "changes", "type": "default"}
        text = "The objects of the field 'changes' only show what a run has changed: select predictions instead."
        assert press(changed, "add", selected_labels=[label]).error == text
        assert "changes" not in section(changed, "results")["truth_fields"]
