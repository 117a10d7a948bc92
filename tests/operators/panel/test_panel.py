"""The panel's buttons: choices, references, decisions, looking around; what is wrong is told in a sentence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from PIL import Image

from refseg.errors import DatasetError
from refseg.models.loaded import PRESETS
from tests.operators.app_panel import NAME, SECTIONS, Answer, choose, label_of, press, section
from tests.operators.helpers import named, uri

MakeDataset = Callable[..., fo.Dataset]
DEFAULTS = {
    "model": "large",
    "field": "ground_truth",
    "shots": 3,
    "label_field": "predictions",
    "classes": None,
    "thresholds": [],
    "accepted_field": "accepted",
    "as_references": True,
    "order": "teaching",
    "matching": {},
}


def detections(prefix: str, labels: Sequence[str], **about: Any) -> fo.Detections:
    """Objects side by side."""
    boxes = [[0.1 + 0.3 * number, 0.2, 0.2, 0.5] for number in range(len(labels))]
    return fo.Detections(
        detections=[
            fo.Detection(label=prefix + name, bounding_box=box, **about) for name, box in zip(labels, boxes, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "grey.png"
    Image.fromarray(np.full((100, 200, 3), 127, np.uint8)).save(path)
    return str(path)


@pytest.fixture
def shelf(make_dataset: MakeDataset, image: str) -> fo.Dataset:
    """Two images with two objects each, and three predictions each as a run of segment writes them."""
    samples = []
    for number in range(2):
        path = image.replace("grey", f"grey_{number}")
        Image.open(image).save(path)
        found = detections("", ["a.b", "$c", "a.b"], confidence=0.9)
        samples.append(fo.Sample(path, ground_truth=detections("", ["a.b", "$c"]), predictions=found))
    dataset = make_dataset(samples)
    run = dataset.init_run(
        method="refseg/segment", label_field="predictions", classes=["$c", "a.b"], changed_ids=" ".join(dataset.values("id"))
    )
    dataset.register_run("run", run)
    return dataset


def settings(dataset: fo.Dataset) -> dict[str, Any]:
    shown: dict[str, Any] = press(dataset, "on_load").data["overview"]["settings"]
    return shown


def tags(dataset: fo.Dataset, field: str = "ground_truth") -> list[list[list[str]]]:
    dataset.reload()
    found: list[list[list[str]]] = dataset.values(f"{field}.detections.tags") if dataset.has_field(field) else []
    return found


def kept(dataset: fo.Dataset, field: str) -> list[fo.Detection]:
    dataset.reload()
    return list(dataset.values(f"{field}.detections", unwind=True)) if dataset.has_field(field) else []


def loaded(name: str) -> Any:
    """A module of the plugin as FiftyOne loads it, apart from the one that tests import."""
    package = type(foo.get_operator(uri(NAME))).__module__.rpartition(".")[0]
    return sys.modules[f"{package}.{name}"]


def test_opening_and_closing(shelf: fo.Dataset) -> None:
    answer = press(shelf, "on_load")
    assert answer.operators == ["set_sample_selection_style", "set_label_selection_style"]
    assert (answer.data["overview"]["problem"], answer.data["overview"]["settings"]) == (None, DEFAULTS)
    assert [name for name, _ in answer.data["overview"]["models"]] == list(PRESETS)
    assert answer.data["overview"]["fields"] == ["ground_truth", "predictions"]
    answer = press(shelf, "on_unload")
    assert answer.operators == ["clear_sample_selection_style", "clear_label_selection_style"]


def test_an_image_that_is_closed(shelf: fo.Dataset) -> None:
    assert press(shelf, "on_change_current_sample", current_sample=shelf.first().id).data == {}
    assert set(press(shelf, "on_change_current_sample").data) >= {"references", "review"}
    assert press(None, "on_change_current_sample").notes == []


def test_every_method_that_the_browser_may_call_exists(shelf: fo.Dataset) -> None:
    (drawn,) = named(press(shelf, "on_load").messages, "show_panel_output")
    view = drawn["output"]["view"]
    assert (view["component"], view["composite_view"]) == ("RefSegPanel", True)
    prefix = f"{uri(NAME)}#"
    calls = {name: value for name, value in view.items() if isinstance(value, str) and value.startswith(prefix)}
    panel = type(foo.get_operator(uri(NAME)))
    public = {name for name in vars(panel) if not name.startswith(("_", "on_"))} - {"config", "render"}
    assert calls == {name: prefix + name for name in public}


class TestChoose:
    def test_settings_outlive_the_request(self, shelf: fo.Dataset) -> None:
        changes = {
            "model": "demo",
            "field": "predictions",
            "shots": 7,
            "label_field": "mine",
            "classes": ["a.b", "$c"],
            "accepted_field": "good",
            "as_references": False,
            "order": "score",
        }
        answer = press(shelf, "choose", {"changes": changes, "sections": ["segment", "review"]})
        assert answer.result == {"problem": None}
        assert set(answer.data) >= {"overview", "segment", "review"}
        assert answer.data["overview"]["settings"] == settings(shelf) == DEFAULTS | changes
        choose(shelf, threshold=["a.b", 0.25])
        choose(shelf, threshold=["$c", 1])
        choose(shelf, threshold=["a.b", 0.5])
        assert settings(shelf) == DEFAULTS | changes | {"thresholds": [["a.b", 0.5], ["$c", 1.0]]}
        # And belong to this dataset alone.
        other = shelf.clone()
        try:
            assert settings(other) == DEFAULTS
        finally:
            other.delete()

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"label_field": "two words"},
                "Predictions need a field's name of letters, digits and underscores, not 'two words'.",
            ),
            ({"label_field": ""}, "Predictions need a field's name of letters, digits and underscores, not ''."),
            ({"label_field": "_a"}, "Predictions need a field's name of letters, digits and underscores, not '_a'."),
            ({"label_field": None}, "Predictions need a field's name of letters, digits and underscores, not None."),
            ({"accepted_field": "a.b"}, "Accepted objects need a field's name of letters, digits and underscores, not 'a.b'."),
            ({"label_field": "accepted"}, "Predictions and accepted objects cannot share the field 'accepted': name another."),
            ({"label_field": "rejected"}, "The field 'rejected' is for rejected objects: name another."),
            ({"accepted_field": "rejected"}, "The field 'rejected' is for rejected objects: name another."),
            (
                {"label_field": "filepath"},
                "The field 'filepath' holds something else than detections: choose another, or a new name.",
            ),
            (
                {"accepted_field": "tags"},
                "The field 'tags' holds something else than detections: choose another, or a new name.",
            ),
            (
                {"label_field": "new", "accepted_field": "predictions"},
                "The field 'predictions' holds predictions, which the next run replaces: name another.",
            ),
            ({"field": "nope"}, "No field 'nope' holds labelled objects: choose one that does."),
            ({"shots": 0}, "Shots must be a whole number of 1 or more, not 0."),
            ({"shots": 2.5}, "Shots must be a whole number of 1 or more, not 2.5."),
            ({"shots": None}, "Shots must be a whole number of 1 or more, not None."),
            ({"shots": True}, "Shots must be a whole number of 1 or more, not True."),
            ({"threshold": ["a.b", 1.5]}, "The minimum score of 'a.b' must lie between 0 and 1, not 1.5."),
            ({"threshold": ["a.b", "x"]}, "The minimum score of 'a.b' must lie between 0 and 1, not 'x'."),
            ({"model": "huge"}, f"Model must be one of {', '.join(map(repr, PRESETS))}, not 'huge'."),
            ({"order": "random"}, "Order must be one of 'teaching', 'score', not 'random'."),
            ({"matching": {"overlaps": "all"}}, "overlaps must be one of 'merge', 'diffusion', not 'all'."),
            ({"matching": {"background": "yes"}}, "background must be true or false, not 'yes'."),
            (
                {"matching": {"calibrated": False}},
                "There is no setting of matching 'calibrated': choose from 'negatives', 'background', 'class_similarity', "
                "'scenes', 'overlaps'.",
            ),
        ],
    )
    def test_wrong_values_change_nothing(self, shelf: fo.Dataset, changes: dict[str, Any], problem: str) -> None:
        choose(shelf, shots=5)
        answer = press(shelf, "choose", {"changes": {"model": "demo", **changes}, "sections": ["segment"]})
        assert (answer.result, answer.notes, answer.data) == ({"problem": problem}, [], {})
        assert settings(shelf) == DEFAULTS | {"shots": 5}

    def test_a_setting_that_does_not_exist(self, shelf: fo.Dataset) -> None:
        assert "colour" in press(shelf, "choose", {"changes": {"colour": "red"}}).result["problem"]
        assert settings(shelf) == DEFAULTS

    def test_an_earlier_choice_stands_in_nobodys_way(self, shelf: fo.Dataset) -> None:
        choose(shelf, accepted_field="other")
        shelf.add_sample_field("other", fo.StringField)
        choose(shelf, shots=9)
        assert settings(shelf)["shots"] == 9

    def test_what_is_gone_falls_back(self, shelf: fo.Dataset) -> None:
        choose(shelf, field="predictions")
        shelf.delete_sample_field("predictions")
        assert settings(shelf)["field"] == "ground_truth"


class TestAdd:
    def added(self, dataset: fo.Dataset, params: dict[str, Any] | None = None, **request: Any) -> str:
        answer = press(dataset, "add", params, **request)
        ((variant, text),) = answer.notes
        assert (answer.result, variant) == (True, "success")
        assert set(answer.data) >= {"references", "segment", "review"}
        assert answer.operators == ["notify", "clear_selected_labels", "clear_selected_samples", "reload_dataset"]
        return text

    def test_labels_in_an_image(self, shelf: fo.Dataset) -> None:
        sample = shelf.first()
        chosen = [label_of(sample, 0), label_of(sample, 1, kind="alt")]
        assert self.added(shelf, selected_labels=chosen) == "Added 1 reference and 1 negative."
        assert tags(shelf) == [[["reference"], ["negative"]], [[], []]]
        # The other way round: never both.
        swapped = [label_of(sample, 0, kind="alt"), label_of(sample, 1)]
        assert self.added(shelf, selected_labels=swapped) == "Added 1 reference and 1 negative."
        assert tags(shelf) == [[["negative"], ["reference"]], [[], []]]

    def test_labels_whose_kind_the_browser_tells(self, shelf: fo.Dataset) -> None:
        sample = shelf.first()
        chosen = [{name: label_of(sample, row)[name] for name in ("label_id", "sample_id", "field")} for row in (0, 1)]
        params = {"alt_label_ids": [chosen[1]["label_id"]]}
        assert self.added(shelf, params, selected_labels=chosen) == "Added 1 reference and 1 negative."
        assert tags(shelf)[0] == [["reference"], ["negative"]]
        assert self.added(shelf, params | {"only_negatives": True}, selected_labels=chosen) == "Added 2 negatives."
        assert tags(shelf)[0] == [["negative"], ["negative"]]

    def test_predictions_are_copied(self, shelf: fo.Dataset) -> None:
        sample = shelf.first()
        chosen = [label_of(sample, 0, "predictions"), label_of(sample, 1, "predictions", "alt"), label_of(sample, 1)]
        assert self.added(shelf, selected_labels=chosen) == "Added 2 references and 1 negative."
        assert {tag for sample_tags in tags(shelf, "predictions") for own in sample_tags for tag in own} == set()
        assert tags(shelf) == [[[], ["reference"]], [[], []]]
        (accepted,), (rejected,) = kept(shelf, "accepted"), kept(shelf, "rejected")
        assert (accepted.prediction_id, accepted.tags) == (chosen[0]["label_id"], ["reference"])
        assert (rejected.prediction_id, rejected.tags, rejected.label) == (chosen[1]["label_id"], ["negative"], "$c")
        # Both are decided with that.
        assert section(shelf, "review")["num_open"] == 4

    def test_patches(self, shelf: fo.Dataset) -> None:
        view = shelf.to_patches("ground_truth")
        ids = view.values("id")
        chosen = [{"id": ids[0], "type": "default"}, {"id": ids[3], "type": "alt"}]
        assert self.added(shelf, view=view, selected_samples=chosen) == "Added 1 reference and 1 negative."
        assert tags(shelf) == [[["reference"], []], [[], ["negative"]]]

    def test_images(self, shelf: fo.Dataset) -> None:
        first, second = shelf.values("id")
        chosen = [{"id": first, "type": "default"}, {"id": second, "type": "alt"}]
        assert self.added(shelf, selected_samples=chosen) == "Added 2 references and 3 negatives."
        assert tags(shelf) == [[["reference"], ["reference"]], [[], []]]
        predicted = [label.id for label in shelf.last().predictions.detections]
        assert [label.prediction_id for label in kept(shelf, "rejected")] == predicted

    def test_images_as_negatives_alone(self, shelf: fo.Dataset) -> None:
        chosen = [{"id": shelf.first().id, "type": "default"}]
        assert self.added(shelf, {"only_negatives": True}, selected_samples=chosen) == "Added 3 negatives."
        assert tags(shelf) == [[[], []], [[], []]]

    def test_nothing(self, shelf: fo.Dataset) -> None:
        text = "Nothing is selected: select labels in an image, or images or patches in the grid."
        assert press(shelf, "add").error == text
        shelf.delete_sample_field("predictions")
        chosen = [{"id": shelf.first().id, "type": "alt"}]
        text = "The selected images hold no object that could serve: label some, or segment first."
        assert press(shelf, "add", selected_samples=chosen).error == text
        assert tags(shelf) == [[[], []], [[], []]]

    def test_predictions_that_are_gone(self, shelf: fo.Dataset) -> None:
        chosen = [label_of(shelf.first(), 0, "predictions") | {"label_id": "0" * 24}]
        assert "the predictions may have been updated meanwhile" in press(shelf, "add", selected_labels=chosen).error
        assert kept(shelf, "accepted") == []

    def test_patches_of_an_evaluation(self, shelf: fo.Dataset) -> None:
        shelf.evaluate_detections("predictions", "ground_truth", eval_key="eval", progress=False)
        view = shelf.to_evaluation_patches("eval")
        chosen = [{"id": view.first().id, "type": "default"}]
        text = press(shelf, "add", view=view, selected_samples=chosen).error
        assert text == "Patches of an evaluation show two fields at once: select objects in images, or in other patches."


class TestRemove:
    def remove(self, dataset: fo.Dataset, label: fo.Label, field: str = "ground_truth") -> Answer:
        place = {"id": label.id, "field": field, "sample_id": dataset.first().id}
        return press(dataset, "remove", place)

    def test_a_tag(self, shelf: fo.Dataset) -> None:
        shelf.tag_labels(["reference", "mine"], label_fields="ground_truth")
        answer = self.remove(shelf, shelf.first().ground_truth.detections[0])
        assert set(answer.data) >= {"references", "segment", "review"}
        assert answer.data["references"]["num_references"] == 3
        assert tags(shelf)[0] == [["mine"], ["reference", "mine"]]

    def test_what_was_rejected_is_open_again(self, shelf: fo.Dataset) -> None:
        item = section(shelf, "review")["items"][0]
        press(shelf, "decide", {"kind": "reject", "item": item})
        (label,) = kept(shelf, "rejected")
        answer = press(shelf, "remove", {"id": label.id, "field": "rejected", "sample_id": item["sample_id"]})
        assert answer.data["review"]["num_open"] == 6
        assert kept(shelf, "rejected") == []

    def test_of_a_tagged_image(self, shelf: fo.Dataset) -> None:
        shelf[:1].tag_samples("reference")
        text = self.remove(shelf, shelf.first().ground_truth.detections[0]).error
        assert text.startswith("The whole image is tagged 'reference', so each of its objects is a reference: take the tag off")


class TestMarkEmpty:
    def test_selected_images_and_back(self, shelf: fo.Dataset) -> None:
        first, second = shelf.values("id")
        chosen = [{"id": first, "type": "default"}, {"id": second, "type": "alt"}]
        answer = press(shelf, "mark_empty", selected_samples=chosen)
        assert answer.notes == [("success", "Marked 2 images as empty. 2 images of the dataset are known to be empty.")]
        assert answer.data["references"]["num_empty"] == 2
        assert "clear_selected_samples" in answer.operators
        shelf.reload()
        assert shelf.values("tags") == [["known_empty"], ["known_empty"]]
        answer = press(shelf, "mark_empty", {"unmark": True}, selected_samples=chosen[:1])
        assert answer.notes == [("success", "Took the mark off 1 image. 1 image of the dataset is known to be empty.")]
        shelf.reload()
        assert shelf.values("tags") == [[], ["known_empty"]]

    def test_nothing_is_selected(self, shelf: fo.Dataset) -> None:
        text = "No image is selected: select some in the grid that hold no object of any class."
        assert press(shelf, "mark_empty").error == text
        patches = shelf.to_patches("ground_truth")
        chosen = [{"id": patches.first().id, "type": "default"}]
        assert press(shelf, "mark_empty", view=patches, selected_samples=chosen).error == text

    def test_an_image_with_references(self, shelf: fo.Dataset) -> None:
        shelf[:1].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        chosen = [{"id": sample_id, "type": "default"} for sample_id in shelf.values("id")]
        text = press(shelf, "mark_empty", selected_samples=chosen).error
        assert text.startswith("References lie in 1 image of these, so not all are empty: leave them out, or take")
        shelf.reload()
        assert shelf.values("tags") == [[], []]


class TestDraw:
    def test_some_of_each_class(self, shelf: fo.Dataset) -> None:
        answer = press(shelf, "draw", {"shots": 1})
        assert answer.notes == [("success", "Drew 2 references of 2 classes.")]
        assert answer.data["references"]["num_references"] == 2
        assert settings(shelf)["shots"] == 1

    def test_too_few(self, shelf: fo.Dataset) -> None:
        ((variant, text),) = press(shelf, "draw", {"shots": 3}).notes
        assert variant == "warning"
        assert text == ("Drew 4 references of 2 classes. Fewer suitable objects than asked for: '$c' has 2; 'a.b' has 2")

    def test_none_suits(self, shelf: fo.Dataset) -> None:
        shelf.set_values("ground_truth.detections.bounding_box", [[[0, 0, 0.01, 0.01]] * 2] * 2)
        ((variant, text),) = press(shelf, "draw", {"shots": 1}).notes
        assert (variant, text.partition(".")[0]) == ("warning", "Drew 0 references of 0 classes")

    def test_wrong_shots(self, shelf: fo.Dataset) -> None:
        for shots in (0, None, "three"):
            assert press(shelf, "draw", {"shots": shots}).error == f"Shots must be a whole number of 1 or more, not {shots!r}."
        assert tags(shelf) == [[[], []], [[], []]]

    def test_no_labels(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        assert press(dataset, "draw", {"shots": 1}).error == "No field holds labelled objects: label some first."

    def test_of_predictions(self, shelf: fo.Dataset) -> None:
        choose(shelf, field="predictions")
        text = "The objects in the field 'predictions' cannot be references as they are: draw from another."
        assert press(shelf, "draw", {"shots": 1}).error == text


class TestDecide:
    def test_each_kind_and_back(self, shelf: fo.Dataset) -> None:
        items = section(shelf, "review")["items"]
        ids = [item["label_id"] for item in items]
        shown = press(shelf, "decide", {"kind": "accept", "item": items[0]}).data["review"]
        assert [item["label_id"] for item in shown["items"]] == ids[1:]
        press(shelf, "decide", {"kind": "reject", "item": items[1]})
        press(shelf, "decide", {"kind": "relabel", "item": items[2], "label": "gear"})
        answer = press(shelf, "decide", {"kind": "fix", "item": items[3]})
        assert answer.result is True
        assert named(answer.messages, "open_sample") == [{"id": items[3]["sample_id"], "group_id": None}]
        shown = answer.data["review"]
        counts = [shown[f"num_{name}"] for name in ("open", "accepted", "rejected", "relabelled", "fixed")]
        assert counts == [2, 1, 1, 1, 1]
        assert sorted(label.label for label in kept(shelf, "accepted")).count("gear") == 1

        # The last first; the queue grows again.
        for number in (3, 4, 5, 6):
            answer = press(shelf, "undo")
            assert answer.notes == []
            assert set(answer.data) >= {"review", "references"}
            assert answer.data["review"]["num_open"] == number
        assert kept(shelf, "accepted") == kept(shelf, "rejected") == []
        assert press(shelf, "undo").error == "There is no decision to take back."

    def test_settings_count(self, shelf: fo.Dataset) -> None:
        choose(shelf, accepted_field="good", as_references=False)
        press(shelf, "decide", {"kind": "accept", "item": section(shelf, "review")["items"][0]})
        (label,) = kept(shelf, "good")
        assert label.tags == []

    def test_undo_of_what_is_gone(self, shelf: fo.Dataset) -> None:
        items = section(shelf, "review")["items"]
        for item in items[:2]:
            press(shelf, "decide", {"kind": "accept", "item": item})
        shelf.delete_labels(ids=[kept(shelf, "accepted")[-1].id], fields="accepted")
        assert press(shelf, "undo").notes == [("info", "The last decision had been taken back already.")]
        assert press(shelf, "undo").notes == []
        assert kept(shelf, "accepted") == []

    def test_a_slower_request_tells_what_was_decided_since_it_began(
        self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its dataset is older than the field of the first decision."""
        item = section(shelf, "review")["items"][0]
        background = loaded("acting").background
        real, decided = background.isolate, threading.Event()

        def isolate(ctx: Any) -> None:
            real(ctx)
            if not decided.is_set():
                decided.set()
                other = threading.Thread(target=press, args=(shelf, "decide", {"kind": "reject", "item": item}))
                other.start()
                other.join()

        monkeypatch.setattr(background, "isolate", isolate)
        shown = press(shelf, "on_change_current_sample").data["review"]
        assert (shown["num_open"], shown["num_rejected"]) == (5, 1)

    def test_only_so_many_can_be_undone(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("acting"), "DECISIONS_KEPT", 2)
        for item in section(shelf, "review")["items"][:3]:
            press(shelf, "decide", {"kind": "accept", "item": item})
        assert [press(shelf, "undo").notes for _ in range(2)] == [[], []]
        assert press(shelf, "undo").error == "There is no decision to take back."
        assert len(kept(shelf, "accepted")) == 1

    def test_a_prediction_that_is_gone_leaves_the_queue(self, shelf: fo.Dataset) -> None:
        item = section(shelf, "review")["items"][0]
        shelf.delete_labels(ids=[item["label_id"]], fields="predictions")
        answer = press(shelf, "decide", {"kind": "accept", "item": item})
        assert answer.result is None
        assert answer.error.endswith("the predictions may have been updated meanwhile, so look at the present ones.")
        assert item["label_id"] not in [other["label_id"] for other in answer.data["review"]["items"]]
        assert answer.data["review"]["num_open"] == 5
        assert kept(shelf, "accepted") == []

    @pytest.mark.parametrize(
        ("params", "text"),
        [
            ({"kind": "relabel"}, "Choose the class that it belongs to."),
            ({"kind": "relabel", "label": ""}, "Choose the class that it belongs to."),
            ({"kind": "relabel", "label": " "}, "' ' cannot name a class: give the name of what the object is."),
            ({"kind": "guess"}, "There is no decision 'guess'."),
        ],
    )
    def test_bad_input(self, shelf: fo.Dataset, params: dict[str, Any], text: str) -> None:
        item = section(shelf, "review")["items"][0]
        answer = press(shelf, "decide", {"item": item, **params})
        assert (answer.error, answer.result) == (text, None)
        assert section(shelf, "review")["num_open"] == 6
        assert press(shelf, "undo").error == "There is no decision to take back."

    def test_a_target_that_cannot_serve(self, shelf: fo.Dataset) -> None:
        shelf.add_sample_field("accepted", fo.StringField)
        answer = press(shelf, "decide", {"kind": "accept", "item": section(shelf, "review")["items"][0]})
        assert "'accepted'" in answer.error
        assert "choose another field" in answer.error


class TestDecideSelected:
    @pytest.mark.parametrize(
        ("kind", "field", "text"),
        [
            ("accept", "accepted", "Accepted 2 objects."),
            ("reject", "rejected", "Rejected 2 objects."),
            ("relabel", "accepted", "Relabelled 2 objects."),
        ],
    )
    def test_labels_of_several_fields(self, shelf: fo.Dataset, kind: str, field: str, text: str) -> None:
        sample = shelf.first()
        chosen = [label_of(sample, 0, "predictions"), label_of(sample, 1, "predictions", "alt"), label_of(sample, 0)]
        answer = press(shelf, "decide_selected", {"kind": kind, "label": "gear"}, selected_labels=chosen)
        assert answer.notes == [("success", text)]
        assert set(answer.data) >= {"review", "references"}
        assert answer.data["review"]["num_open"] == 4
        assert [label.prediction_id for label in kept(shelf, field)] == [item["label_id"] for item in chosen[:2]]
        # Taken back together.
        assert press(shelf, "undo").data["review"]["num_open"] == 6

    def test_patches(self, shelf: fo.Dataset) -> None:
        view = shelf.to_patches("predictions")
        chosen = [{"id": label_id, "type": "default"} for label_id in view.values("id")[2:5]]
        assert press(shelf, "decide_selected", {"kind": "accept"}, view=view, selected_samples=chosen).notes == [
            ("success", "Accepted 3 objects.")
        ]
        assert len(kept(shelf, "accepted")) == 3

    @pytest.mark.parametrize("field", [None, "ground_truth"])
    def test_nothing_of_the_predictions_is_selected(self, shelf: fo.Dataset, field: str | None) -> None:
        chosen = [] if field is None else [label_of(shelf.first(), 0, field)]
        text = press(shelf, "decide_selected", {"kind": "accept"}, selected_labels=chosen).error
        assert text.startswith("No object of the field 'predictions' is selected: select some in an image, or press 'Show in")

    @pytest.mark.parametrize("kind", ["fix", "guess"])
    def test_what_cannot_be_decided_of_several(self, shelf: fo.Dataset, kind: str) -> None:
        chosen = [label_of(shelf.first(), row, "predictions") for row in (0, 1)]
        text = press(shelf, "decide_selected", {"kind": kind}, selected_labels=chosen).error
        assert text == f"Of several objects one can decide 'accept', 'reject', 'relabel', not {kind!r}."
        assert kept(shelf, "accepted") == []

    def test_one_is_gone(self, shelf: fo.Dataset) -> None:
        chosen = [label_of(shelf.first(), 0, "predictions"), label_of(shelf.first(), 1, "predictions") | {"label_id": "0" * 24}]
        answer = press(shelf, "decide_selected", {"kind": "accept"}, selected_labels=chosen)
        assert "is not in the field 'predictions'" in answer.error
        assert kept(shelf, "accepted") == []


class TestLookingAround:
    def test_an_image_and_one_of_its_objects(self, shelf: fo.Dataset) -> None:
        place = label_of(shelf.first())
        answer = press(shelf, "open_image", {"sample_id": place["sample_id"], "id": place["label_id"], "field": place["field"]})
        assert answer.operators == ["open_sample", "set_selected_labels"]
        (chosen,) = named(answer.messages, "set_selected_labels")
        assert chosen["labels"] == [{name: place[name] for name in ("label_id", "sample_id", "field")}]

    def test_the_queue_as_patches(self, shelf: fo.Dataset) -> None:
        queue = [item["label_id"] for item in section(shelf, "review")["items"]]
        (sent,) = named(press(shelf, "show", {"what": "queue"}).messages, "set_view")
        view = fo.DatasetView._build(shelf, sent["view"])
        assert view._is_patches
        assert view.values("id") == queue

    def test_what_a_run_changed_and_everything_again(self, shelf: fo.Dataset) -> None:
        (sent,) = named(press(shelf, "show", {"what": "changed"}).messages, "set_view")
        assert fo.DatasetView._build(shelf, sent["view"]).values("id") == shelf.values("id")
        assert named(press(shelf, "show", {"what": "all"}).messages, "set_view") == [{}]

    def test_nothing_to_show(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        assert press(dataset, "show", {"what": "queue"}).error == "There is nothing to review."
        assert press(dataset, "show", {"what": "changed"}).error == "The last run changed no object."

    def test_forms_and_panels(self, shelf: fo.Dataset) -> None:
        (opened,) = named(press(shelf, "prompt", {"operator": "inspect_prototypes"}).messages, "prompt_user_for_operation")
        assert opened["operator_uri"] == uri("inspect_prototypes")
        (opened,) = named(press(shelf, "evaluation").messages, "open_panel")
        assert opened["name"] == "model_evaluation_panel_builtin"
        assert press(shelf, "forget_selection").operators == ["clear_selected_labels", "clear_selected_samples"]


class TestPictures:
    @pytest.mark.parametrize("large", [False, True])
    def test_of_labels(self, shelf: fo.Dataset, large: bool) -> None:
        sample = shelf.first()
        places = [label_of(sample, 1), label_of(sample, 2, "predictions")]
        wanted = [{"id": place["label_id"], "field": place["field"], "sample_id": place["sample_id"]} for place in places]
        found = press(shelf, "pictures", {"wanted": wanted, "large": large}).result
        assert set(found) == {place["label_id"] for place in places}
        assert all(picture.startswith("data:image/") for picture in found.values())

    def test_what_is_gone_or_cannot_be_read_is_left_out(self, shelf: fo.Dataset, make_dataset: MakeDataset) -> None:
        place = label_of(shelf.first())
        here = {"id": place["label_id"], "field": "ground_truth", "sample_id": place["sample_id"]}
        wanted = [
            here,
            here | {"id": "0" * 24},
            here | {"id": "1" * 24, "sample_id": "0" * 24},
            here | {"id": "2", "field": "no"},
        ]
        assert list(press(shelf, "pictures", {"wanted": wanted}).result) == [here["id"]]
        sample = shelf.first()
        sample.filepath = "/nowhere/gone.png"
        sample.save()
        answer = press(shelf, "pictures", {"wanted": [here]})
        assert (answer.result, answer.notes) == ({}, [])
        assert press(shelf, "pictures").result == {}

    def test_only_so_many_at_once(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("pictures"), "MOST", 1)
        sample = shelf.first()
        wanted = [{"id": label.id, "field": "ground_truth", "sample_id": sample.id} for label in sample.ground_truth.detections]
        assert list(press(shelf, "pictures", {"wanted": wanted}).result) == [wanted[0]["id"]]


PRESSES = {
    "on_load": {},
    "on_change_dataset": {},
    "on_change_view": {},
    "on_change_group_slice": {},
    "on_change_selected": {},
    "on_change_selected_labels": {},
    "on_change_current_sample": {},
    "load": {},
    "pictures": {"wanted": [{"id": "0" * 24, "field": "ground_truth", "sample_id": "0" * 24}]},
    "watch": {"known": ["7f"]},
    "choose": {"changes": {}},
    "add": {},
    "remove": {"id": "0" * 24, "field": "rejected", "sample_id": "0" * 24},
    "draw": {"shots": 1},
    "mark_empty": {},
    "start": {"job": "index"},
    "cancel": {"id": "7f"},
    "decide": {"kind": "accept", "item": {"label_id": "0" * 24, "sample_id": "0" * 24}},
    "decide_selected": {"kind": "accept"},
    "undo": {},
    "open_image": {"sample_id": "0" * 24},
    "show": {"what": "queue"},
}


class TestErrors:
    @pytest.mark.parametrize("method", PRESSES)
    @pytest.mark.parametrize("error", [DatasetError("This is wrong: do that."), RuntimeError("broken")])
    def test_become_notifications(
        self,
        shelf: fo.Dataset,
        method: str,
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Whatever fails: here the first thing that each method asks for."""

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(foo.ExecutionContext, "dataset", property(fail))
        if method == "open_image":
            monkeypatch.setattr(loaded("panel"), "open_sample", fail)
        answer = press(shelf, method, PRESSES[method])
        assert answer.result is None
        if isinstance(error, DatasetError):
            assert answer.error == "This is wrong: do that."
            assert caplog.text == ""
        else:
            assert answer.error == "This failed (RuntimeError: broken). The server's log has the details."
            assert "Traceback" in caplog.text

    def test_are_all_tried(self) -> None:
        panel = type(foo.get_operator(uri(NAME)))
        methods = {name for name in vars(panel) if not name.startswith("_")} - {"config", "render", "on_unload"}
        # These only send messages.
        assert methods - PRESSES.keys() == {"evaluation", "prompt", "forget_selection"}

    @pytest.mark.parametrize("method", ["remove", "start", "cancel", "decide", "open_image", "show", "prompt"])
    def test_missing_parameters(self, shelf: fo.Dataset, method: str) -> None:
        assert press(shelf, method).error.startswith("This failed (KeyError: ")

    def test_unknown_section_and_job(self, shelf: fo.Dataset) -> None:
        assert press(shelf, "load", {"sections": ["nope"]}).error.startswith("This failed (KeyError: 'nope').")
        assert press(shelf, "start", {"job": "nope"}).error == "There is no job 'nope'."

    def test_nothing_to_cancel(self, shelf: fo.Dataset) -> None:
        for job in ("7f", "0" * 24):
            answer = press(shelf, "cancel", {"id": job})
            assert answer.notes == [("info", "There is nothing to cancel: the job has ended.")]
            assert answer.data == {"overview.jobs": []}


def test_sections_are_all_there(shelf: fo.Dataset) -> None:
    assert tuple(loaded("sections").SECTIONS) == SECTIONS
