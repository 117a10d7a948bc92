"""Similar objects in the panel: what it says of those that are open, and what becomes of those selected."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import pytest

import refseg
from operators.panel.alike import UNNAMED
from refseg.runs.similar import UNNAMED as LIBRARYS
from tests.operators.app_panel import press
from tests.operators.helpers import named
from tests.operators.panel.shelf import kept

pytestmark = pytest.mark.usefixtures("true_candidates")


def test_names_are_the_librarys() -> None:
    assert UNNAMED == LIBRARYS


def search(dataset: fo.Dataset, classes: int) -> fo.DatasetView:
    """Four objects like one of the first image, or like one of each of several classes."""
    every = {label.label: label.id for label in dataset.first().ground_truth.detections}
    refseg.find_similar(dataset, list(every.values())[:classes], 4, progress=False)
    dataset.reload()
    return dataset.to_patches("similar").sort_by("similar.confidence", reverse=True)


def selected(view: fo.DatasetView, *numbers: int) -> dict[str, Any]:
    ids = view.values("id")
    return {"view": view, "selected_samples": [{"id": ids[number], "type": "default"} for number in numbers]}


def test_what_is_open(indexed: fo.Dataset) -> None:
    view = search(indexed, 1)
    scores = view.values("similar.confidence")
    shown = press(indexed, "on_change_view", view=view).data["overview"]["similar"]
    label = indexed.first().ground_truth.detections[0].label
    assert shown == {"field": "similar", "label": label, "num_found": 4, "score_range": [scores[-1], scores[0]]}
    for other in (None, indexed[:2], indexed.to_patches("ground_truth")):
        assert (
            press(indexed, "on_change_view", **({} if other is None else {"view": other})).data["overview"]["similar"] is None
        )


def test_references_and_negatives_and_back(indexed: fo.Dataset) -> None:
    view = search(indexed, 1)
    ids = view.values("id")
    label = indexed.first().ground_truth.detections[0].label
    answer = press(indexed, "add_similar", {"label": label}, **selected(view, 1, 2))
    assert answer.notes == [("success", "Added 2 references.")]
    assert answer.operators == ["notify", "clear_selected_labels", "clear_selected_samples", "reload_dataset"]
    copies = kept(indexed, "accepted")
    assert {(one.prediction_id, one.label, tuple(one.tags)) for one in copies} == {
        (ids[1], label, ("reference",)),
        (ids[2], label, ("reference",)),
    }
    answer = press(indexed, "add_similar", {"label": label, "is_negative": True}, **selected(view, 3))
    assert answer.notes == [("success", "Added 1 negative.")]
    (negative,) = kept(indexed, "rejected")
    assert (negative.prediction_id, negative.label, negative.tags) == (ids[3], label, ["negative"])
    # The next search replaces what was found, and not what was taken of it.
    search(indexed, 2)
    assert len(kept(indexed, "accepted")) == 2
    press(indexed, "undo")
    press(indexed, "undo")
    assert kept(indexed, "accepted") == kept(indexed, "rejected") == []


def test_with_alt(indexed: fo.Dataset) -> None:
    view = search(indexed, 1)
    ids = view.values("id")
    chosen = [{"id": ids[0], "type": "default"}, {"id": ids[1], "type": "alt"}]
    answer = press(indexed, "add_similar", {"label": "gear"}, view=view, selected_samples=chosen)
    assert answer.notes == [("success", "Added 1 reference and 1 negative.")]
    assert [one.prediction_id for one in kept(indexed, "accepted")] == [ids[0]]
    assert [(one.prediction_id, one.label) for one in kept(indexed, "rejected")] == [(ids[1], "gear")]


def test_objects_like_several_classes_are_named_first(indexed: fo.Dataset) -> None:
    view = search(indexed, 2)
    assert press(indexed, "on_change_view", view=view).data["overview"]["similar"]["label"] is None
    text = "These objects are like several classes, so they have no name yet: name them under 'Similar objects' in the panel."
    for method in ("add", "add_similar"):
        assert press(indexed, method, **selected(view, 0)).error == text
    assert kept(indexed, "accepted") == []
    press(indexed, "add_similar", {"label": " gear "}, **selected(view, 0))
    (reference,) = kept(indexed, "accepted")
    assert (reference.label, reference.tags, reference.prediction_id) == ("gear", ["reference"], view.values("id")[0])
    # No negative of the name that it never had.
    assert kept(indexed, "rejected") == []
    # It has a name now, and the other button takes it too.
    assert press(indexed, "add", **selected(view, 0)).notes == [("success", "Added 1 reference.")]


def test_nothing_is_selected_or_open(indexed: fo.Dataset) -> None:
    view = search(indexed, 1)
    assert press(indexed, "add_similar", view=view).error == "No object is selected: select patches in the grid."
    text = "No similar objects are open: find some first, and select of them in the grid."
    assert press(indexed, "add_similar").error == text


def test_a_field_is_switched_off(indexed: fo.Dataset) -> None:
    answer = press(indexed, "hide", {"field": "heatmap_gear"})
    assert named(answer.messages, "@refseg/reference-segmentation/show_fields") == [{"hidden": ["heatmap_gear"]}]
