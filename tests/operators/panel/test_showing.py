"""Showing an object in the panel: the picture, clicks, and the reference that is kept."""

from __future__ import annotations

import shutil
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset import box_iou
from refseg.models.presets import DEMO_WEIGHTS
from tests.dataset.building import build
from tests.operators.app_panel import choose, press, section
from tests.runs.test_prompting import middle
from tests.trays import IMAGE_HW

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def indexed(trays: fo.Dataset) -> fo.Dataset:
    build(trays)
    choose(trays, model="demo")
    return trays


def picture_of(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.partition(",")[2])))


class TestScene:
    def test_the_first_image_of_the_view(self, indexed: fo.Dataset) -> None:
        shown = press(indexed, "scene").result
        sample = indexed.first()
        assert (shown["sample_id"], shown["name"]) == (sample.id, Path(sample.filepath).name)
        assert picture_of(shown["picture"]).size == (IMAGE_HW[1], IMAGE_HW[0])
        assert press(indexed, "scene", view=indexed[2:]).result["sample_id"] == indexed.skip(2).first().id

    def test_what_is_open_or_selected_comes_first(self, indexed: fo.Dataset) -> None:
        ids = indexed.values("id")
        chosen = [{"id": ids[2], "type": "default"}]
        assert press(indexed, "scene", selected_samples=chosen).result["sample_id"] == ids[2]
        assert press(indexed, "scene", selected_samples=chosen, current_sample=ids[1]).result["sample_id"] == ids[1]
        assert press(indexed, "scene", {"sample_id": ids[3]}, current_sample=ids[1]).result["sample_id"] == ids[3]
        # One that was deleted meanwhile is passed over.
        assert press(indexed, "scene", {"sample_id": "0" * 24}).result["sample_id"] == ids[0]

    def test_neighbours(self, indexed: fo.Dataset) -> None:
        ids = indexed.values("id")
        step = lambda number, by: press(indexed, "scene", {"sample_id": ids[number], "step": by}).result["sample_id"]  # noqa: E731
        assert [step(0, 1), step(1, 1), step(3, 1)] == [ids[1], ids[2], ids[3]]
        assert [step(3, -1), step(0, -1)] == [ids[2], ids[0]]

    def test_what_is_known_already(self, indexed: fo.Dataset) -> None:
        sample = indexed.first()
        one, other = sample.ground_truth.detections
        indexed.select_labels(ids=[one.id], fields="ground_truth").tag_labels("reference")
        indexed.select_labels(ids=[other.id], fields="ground_truth").tag_labels("negative")
        shown = press(indexed, "scene").result
        assert {item["label"]: item["is_negative"] for item in shown["known"]} == {one.label: False, other.label: True}
        assert shown["known"][0]["box"] == pytest.approx(one.bounding_box)
        assert shown["classes"] == sorted([one.label, other.label])

    def test_an_image_that_cannot_be_read(self, indexed: fo.Dataset) -> None:
        Path(indexed.first().filepath).write_bytes(b"no image")
        assert "tray_0" in press(indexed, "scene").error


class TestPoint:
    def test_a_click(self, indexed: fo.Dataset) -> None:
        sample = indexed.first()
        label = sample.ground_truth.detections[0]
        answer = press(indexed, "point", {"sample_id": sample.id, "points": [middle(label)]})
        (mask,) = answer.result["masks"]
        assert (mask["origin"], mask["pieces"]) == ("index", 1)
        assert box_iou(mask["box"], label.bounding_box) > 0.8
        picture = np.asarray(picture_of(mask["picture"]))
        assert picture.shape[2] == 4
        assert (picture[..., 3] > 0).mean() == pytest.approx(label.mask.mean(), abs=0.1)

    def test_bad_clicks(self, indexed: fo.Dataset) -> None:
        where = {"sample_id": indexed.first().id}
        assert press(indexed, "point", where).error.startswith("A prompt needs a point on the object")
        assert "between 0 and 1" in press(indexed, "point", {**where, "points": [[2, 0.5]]}).error
        assert "holds no image" in press(indexed, "point", {"sample_id": "0" * 24, "points": [[0.5, 0.5]]}).error


class TestKeep:
    def keep(self, dataset: fo.Dataset, known: fo.Detection, **params: Any) -> Any:
        shown = {"sample_id": dataset.first().id, "points": [middle(known)], "label": known.label, **params}
        return press(dataset, "keep", shown)

    def test_a_reference(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        answer = self.keep(indexed, label)
        indexed.reload()
        (kept,) = indexed.first().references.detections
        assert (kept.id, kept.label, kept.tags) == (answer.result["id"], label.label, ["reference"])
        assert box_iou(kept.bounding_box, label.bounding_box) > 0.8
        assert [item["id"] for item in answer.result["known"]] == [kept.id]
        assert answer.data["references"]["num_references"] == 1
        assert "reload_dataset" in answer.operators
        # The grid knows the field from then on.
        again = self.keep(indexed, indexed.first().ground_truth.detections[1])
        assert "reload_samples" in again.operators
        assert "reload_dataset" not in again.operators
        # What was shown by hand is not drawn from.
        assert press(indexed, "on_load").data["overview"]["fields"] == ["ground_truth"]

    def test_a_negative(self, indexed: fo.Dataset) -> None:
        answer = self.keep(indexed, indexed.first().ground_truth.detections[0], is_negative=True)
        assert answer.data["references"]["num_negatives"] == 1
        indexed.reload()
        assert indexed.first().references.detections[0].tags == ["negative"]

    def test_without_a_name(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        assert self.keep(indexed, label, label=" ").error == "Name the object first: type what it is, or choose a class."
        assert section(indexed, "references")["num_references"] == 0


def test_preparing_tells_nothing(trays: fo.Dataset) -> None:
    choose(trays, model="demo")
    assert press(trays, "prepare", {"sample_id": "0" * 24}).notes == []
    assert press(trays, "prepare", {"sample_id": trays.first().id}).result is True


def test_preparing_loads_the_files_that_the_first_click_wants(
    trays: fo.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(trays, model="demo")
    own = shutil.copyfile(DEMO_WEIGHTS / "sam2.safetensors", tmp_path / "own.safetensors")
    ctx = foo.ExecutionContext(request_params={"dataset_name": trays.name})
    ctx.store("refseg_weights").set("demo", {"sam2_path": str(own), "dinov2_path": None, "since": 0.0})
    sample = trays.first()
    press(trays, "prepare", {"sample_id": sample.id})
    monkeypatch.setattr("refseg.runs.prompting.load_image", lambda *a, **k: pytest.fail("the image was looked at again"))
    label = sample.ground_truth.detections[0]
    assert press(trays, "point", {"sample_id": sample.id, "points": [middle(label)]}).result["masks"]
