"""The panel's events and buttons: what it answers; what is wrong is told in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from refseg.errors import DatasetError
from refseg.models.loaded import PRESETS
from tests.operators.app_panel import NAME, SECTIONS, label_of, press, section
from tests.operators.helpers import named, uri
from tests.operators.panel.shelf import DEFAULTS, loaded
from tests.operators.panel.test_modules import MODULES

MakeDataset = Callable[..., fo.Dataset]


def test_opening_and_closing(shelf: fo.Dataset) -> None:
    answer = press(shelf, "on_load")
    assert answer.operators == ["set_sample_selection_style", "set_label_selection_style"]
    assert (answer.data["overview"]["problem"], answer.data["overview"]["settings"]) == (None, DEFAULTS)
    assert [choice["name"] for choice in section(shelf, "index")["models"]] == list(PRESETS)
    assert answer.data["overview"]["fields"] == ["ground_truth"]
    answer = press(shelf, "on_unload")
    assert answer.operators == ["clear_sample_selection_style", "clear_label_selection_style"]


def test_an_image_that_is_closed(shelf: fo.Dataset) -> None:
    opened = shelf.first().id
    assert press(shelf, "on_change_current_sample", current_sample=opened).data == {"overview.current_sample": opened}
    assert set(press(shelf, "on_change_current_sample").data) >= {"references", "review"}
    assert press(None, "on_change_current_sample").notes == []


def test_every_method_that_the_browser_may_call_exists(shelf: fo.Dataset) -> None:
    (drawn,) = named(press(shelf, "on_load").messages, "show_panel_output")
    view = drawn["output"]["view"]
    assert (view["component"], view["composite_view"]) == ("RefSegPanel", True)
    prefix = f"{uri(NAME)}#"
    calls = {name: value for name, value in view.items() if isinstance(value, str) and value.startswith(prefix)}
    code = "".join(module.read_text(encoding="utf-8") for module in MODULES)
    assert calls == {name: prefix + name for name in set(re.findall(r'\bcall\("([a-z_]+)"', code))}


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

    def test_everything_again(self, shelf: fo.Dataset) -> None:
        assert press(shelf, "show", {"what": "all"}).operators[-1] == "clear_view"

    def test_nothing_to_show(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        assert press(dataset, "show", {"what": "queue"}).error == "There is nothing to review."
        assert press(dataset, "show_changes").error == "The last run changed no object."

    def test_forms_and_panels(self, shelf: fo.Dataset) -> None:
        (opened,) = named(press(shelf, "prompt", {"operator": "inspect_prototypes"}).messages, "prompt_user_for_operation")
        assert opened["operator_uri"] == uri("inspect_prototypes")
        (opened,) = named(press(shelf, "evaluation").messages, "open_panel")
        assert opened["name"] == "model_evaluation_panel_builtin"
        assert press(shelf, "forget_selection").operators == ["clear_selected_labels", "clear_selected_samples"]


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
    "restore": {},
    "scene": {},
    "prepare": {"sample_id": "0" * 24},
    "point": {"sample_id": "0" * 24, "points": [[0.5, 0.5]]},
    "keep": {"sample_id": "0" * 24, "points": [[0.5, 0.5]], "label": "a"},
    "draw": {"shots": 1},
    "mark_empty": {},
    "start": {"job": "index"},
    "cancel": {"id": "7f"},
    "dismiss": {"section": "index"},
    "use_files": {"sam2_path": ""},
    "decide": {"kind": "accept", "item": {"label_id": "0" * 24, "sample_id": "0" * 24}},
    "decide_selected": {"kind": "accept"},
    "scores": {},
    "accept_above": {"least": 50},
    "nearest": {"wanted": []},
    "look_closer": {"name": "a.b", "ids": ["0" * 24]},
    "show_class": {"name": "a.b"},
    "show_cell": {},
    "show_left_out": {},
    "show_changes": {},
    "undo": {},
    "open_frames": {},
    "open_image": {"sample_id": "0" * 24},
    "show": {"what": "queue"},
    "suggestion_pictures": {"ids": ["7f"]},
    "take_suggestion": {"id": "7f"},
    "drop_reference": {"id": "0" * 24, "field": "ground_truth", "sample_id": "0" * 24},
    "undo_inspected": {},
    "inspection_file": {"which": "report"},
    "add_similar": {},
}


class TestErrors:
    @pytest.mark.parametrize("method", PRESSES)
    @pytest.mark.parametrize("error", [DatasetError("This is wrong: do that."), RuntimeError("broken")])
    @pytest.mark.sampled(3)
    def test_are_told_where_the_button_is(
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
        # Nobody pressed anything for an event of the App.
        assert ("trouble" in answer.data) == method.startswith("on_")

    def test_are_all_tried(self) -> None:
        panel = type(foo.get_operator(uri(NAME)))
        methods = {name for name in dir(panel) if getattr(getattr(panel, name), "is_called", False)}
        # These only send messages.
        assert methods - PRESSES.keys() == {"evaluation", "prompt", "forget_selection", "hide"}

    @pytest.mark.parametrize("method", ["remove", "start", "cancel", "dismiss", "decide", "open_image", "show", "prompt"])
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
