"""References and negatives in the panel: added, removed and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo

from tests.operators.app_panel import Answer, choose, label_of, press, section
from tests.operators.panel.shelf import kept, settings, tags

MakeDataset = Callable[..., fo.Dataset]


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
        answer = press(shelf, "restore")
        assert answer.data["references"]["num_references"] == 4
        assert {frozenset(own) for own in tags(shelf)[0]} == {frozenset({"reference", "mine"})}

    def test_a_label_that_is_gone(self, shelf: fo.Dataset) -> None:
        label = shelf.first().ground_truth.detections[0]
        shelf.delete_labels(ids=[label.id])
        assert self.remove(shelf, label).error == "This label is gone: somebody has deleted it meanwhile."

    def test_what_was_rejected_is_open_again(self, shelf: fo.Dataset) -> None:
        item = section(shelf, "review")["items"][0]
        press(shelf, "decide", {"kind": "reject", "item": item})
        (label,) = kept(shelf, "rejected")
        answer = press(shelf, "remove", {"id": label.id, "field": "rejected", "sample_id": item["sample_id"]})
        assert answer.data["review"]["num_open"] == 6
        assert kept(shelf, "rejected") == []
        assert answer.data["references"]["removed"] == f"negative of {label.label}"
        before = label.to_dict()
        answer = press(shelf, "restore")
        (label,) = kept(shelf, "rejected")
        assert label.to_dict() == before
        assert answer.data["references"]["removed"] is None
        assert press(shelf, "restore").error == "There is no removal to take back."

    def test_of_a_tagged_image(self, shelf: fo.Dataset) -> None:
        shelf[:1].tag_samples("reference")
        text = self.remove(shelf, shelf.first().ground_truth.detections[0]).error
        assert text.startswith("The whole image is tagged 'reference', so each of its objects is a reference: take the tag off")


class TestDraw:
    def test_some_of_each_class(self, shelf: fo.Dataset) -> None:
        answer = press(shelf, "draw", {"shots": 1})
        assert answer.notes == [("success", "Drew 2 references of 2 classes.")]
        assert answer.data["references"]["num_references"] == 2
        assert settings(shelf)["shots"] == 1

    def test_too_few(self, shelf: fo.Dataset) -> None:
        ((variant, text),) = press(shelf, "draw", {"shots": 3}).notes
        assert variant == "warning"
        assert text == "Drew 4 references of 2 classes. Of 2 classes there were fewer than 3: the section says why."
        rows = {row["name"]: row["short"] for row in section(shelf, "references")["rows"]}
        assert rows == {name: f"{name!r} has 2 references: there are no other objects of it." for name in ("$c", "a.b")}
        press(shelf, "draw", {"shots": 2})
        assert {row["short"] for row in section(shelf, "references")["rows"]} == {None}

    def test_none_suits(self, shelf: fo.Dataset) -> None:
        shelf.set_values("ground_truth.detections.bounding_box", [[[0, 0, 0.01, 0.01]] * 2] * 2)
        ((variant, text),) = press(shelf, "draw", {"shots": 1}).notes
        assert (variant, text.partition(".")[0]) == ("warning", "Drew 0 references of 0 classes")
        # Each keeps its row, which says why.
        rows = section(shelf, "references")["rows"]
        assert [(row["name"], row["shots"]) for row in rows] == [("$c", 0), ("a.b", 0)]
        assert rows[0]["short"] == "'$c' has 0 references: 2 other objects are too small."

    def test_wrong_shots(self, shelf: fo.Dataset) -> None:
        for shots in (0, None, "three"):
            assert press(shelf, "draw", {"shots": shots}).error == f"Shots must be a whole number of 1 or more, not {shots!r}."
        assert tags(shelf) == [[[], []], [[], []]]

    def test_no_labels(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        assert press(dataset, "draw", {"shots": 1}).error == (
            "No field holds labelled objects: label some first, or press 'Show an object'."
        )

    def test_of_predictions(self, shelf: fo.Dataset) -> None:
        choose(shelf, field="predictions")
        text = "The objects in the field 'predictions' cannot be references as they are: draw from another."
        assert press(shelf, "draw", {"shots": 1}).error == text
