"""The object that somebody points at: among the masks of an index, and from the segmenter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from numpy.typing import NDArray

import refseg
from refseg.dataset.index_finding import open_index
from refseg.errors import DatasetError, ImageError, ModelUnavailableError
from refseg.models.local_files import local_weights
from refseg.runs import prompting
from refseg.runs.prompting import Prompt, PromptedMask, prepare_prompts, segment_prompt
from tests.dataset.building import build
from tests.trays import IMAGE_HW, whole_mask


@pytest.fixture(autouse=True)
def _nothing_open() -> None:
    prompting._kept.clear()


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("refseg.runs.prompting.load_models", refuse)


def middle(label: fo.Detection) -> tuple[float, float]:
    """A point of its mask, as shares of the image."""
    rows, columns = np.nonzero(whole_mask(label))
    pick = len(rows) // 2
    return (columns[pick] + 0.5) / IMAGE_HW[1], (rows[pick] + 0.5) / IMAGE_HW[0]


def at_its_place(found: PromptedMask) -> NDArray[np.bool_]:
    return whole_mask(fo.Detection(bounding_box=list(found.bounding_box), mask=found.mask))


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.usefixtures("no_model")
class TestFromTheIndex:
    def test_a_click_finds_the_mask_it_hits(self, trays: fo.Dataset) -> None:
        build(trays)
        for sample in trays:
            for label in sample.ground_truth.detections:
                found = segment_prompt(trays, sample.id, [middle(label)])
                assert len(found) == 1
                assert found[0].origin == "index"
                assert iou(at_its_place(found[0]), whole_mask(label)) > 0.85
                assert found[0].pieces == 1

    def test_an_index_of_the_same_models_serves(self, trays: fo.Dataset) -> None:
        build(trays)
        sample = trays.first()
        found = segment_prompt(trays, sample.id, [middle(sample.ground_truth.detections[0])], model="demo-fast")
        assert [mask.origin for mask in found] == ["index"]

    def test_a_box_finds_the_mask_whose_box_it_is(self, trays: fo.Dataset) -> None:
        build(trays)
        sample = trays.first()
        for label in sample.ground_truth.detections:
            (found,) = segment_prompt(trays, sample.id, box=label.bounding_box)
            assert iou(at_its_place(found), whole_mask(label)) > 0.85

    def test_there_is_nothing_to_prepare(self, trays: fo.Dataset) -> None:
        build(trays)
        prepare_prompts(trays, trays.first().id)

    def test_names_and_views_serve(self, trays: fo.Dataset) -> None:
        build(trays)
        sample = trays.first()
        point = middle(sample.ground_truth.detections[0])
        by_name, by_view = segment_prompt(trays.name, sample.id, [point]), segment_prompt(trays[:1], sample.id, [point])
        assert by_name[0].bounding_box == by_view[0].bounding_box

    def test_the_index_is_opened_once_an_image(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays)
        opened = []
        monkeypatch.setattr("refseg.runs.prompting.open_index", lambda *a: opened.append(1) or open_index(*a))
        for sample in trays[:2]:
            for label in sample.ground_truth.detections:
                segment_prompt(trays, sample.id, [middle(label)])
        assert len(opened) == 2
        assert len(prompting._kept) == prompting.OPEN_IMAGES == 2

    def test_an_image_that_was_indexed_anew(self, trays: fo.Dataset) -> None:
        build(trays)
        sample = trays.first()
        point = middle(sample.ground_truth.detections[0])
        segment_prompt(trays, sample.id, [point])
        open_index(trays).index.forget([sample.id])
        build(trays)
        assert segment_prompt(trays, sample.id, [point])[0].origin == "index"


class TestByTheModel:
    """The demo's models on an image that is not indexed."""

    def test_a_click_gives_three_masks_best_first(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        label = sample.ground_truth.detections[0]
        found = segment_prompt(trays, sample.id, [middle(label)], model="demo")
        assert 1 <= len(found) <= 3
        assert {one.origin for one in found} == {"model"}
        scores = [one.predicted_iou for one in found]
        assert scores == sorted(scores, reverse=True)
        assert iou(at_its_place(found[0]), whole_mask(label)) > 0.7

    def test_more_than_a_click_gives_one(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        label, other = sample.ground_truth.detections
        shown = {"beside": [middle(other)], "box": label.bounding_box}
        (found,) = segment_prompt(trays, sample.id, [middle(label)], **shown, model="demo")
        assert iou(at_its_place(found), whole_mask(label)) > 0.7

    def test_where_no_mask_of_the_index_fits(self, trays: fo.Dataset) -> None:
        """Two objects at once are no candidate of the trays."""
        build(trays)
        sample = trays.first()
        points = [middle(label) for label in sample.ground_truth.detections]
        assert {one.origin for one in segment_prompt(trays, sample.id, points)} == {"model"}

    def test_a_changed_file_is_looked_at_anew(self, trays: fo.Dataset) -> None:
        build(trays)
        sample, other = trays.first(), trays.last()
        point = middle(sample.ground_truth.detections[0])
        segment_prompt(trays, sample.id, [point])
        Path(sample.filepath).write_bytes(Path(other.filepath).read_bytes())
        assert segment_prompt(trays, sample.id, [middle(other.ground_truth.detections[0])])[0].origin == "model"

    def test_the_image_is_looked_at_once(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[int] = []
        real = prompting.embed_images
        monkeypatch.setattr("refseg.runs.prompting.embed_images", lambda *a: looked.append(1) or real(*a))
        sample = trays.first()
        for label in sample.ground_truth.detections:
            segment_prompt(trays, sample.id, [middle(label)], model="demo")
        assert len(looked) == 1

    def test_what_is_prepared_is_not_done_again(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = trays.first()
        prepare_prompts(trays, sample.id, "demo")
        monkeypatch.setattr("refseg.runs.prompting.load_image", lambda *a, **k: pytest.fail("the image was read again"))
        assert segment_prompt(trays, sample.id, [middle(sample.ground_truth.detections[0])], model="demo")

    def test_other_weights_look_again(self, trays: fo.Dataset, tmp_path: Path) -> None:
        sample = trays.first()
        point = middle(sample.ground_truth.detections[0])
        segment_prompt(trays, sample.id, [point], model="demo")
        with (
            local_weights({"demo": (tmp_path / "gone.safetensors", None)}),
            pytest.raises(ModelUnavailableError, match="There is no SAM 2 checkpoint"),
        ):
            segment_prompt(trays, sample.id, [point], model="demo")

    def test_without_weights(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: Any, **__: Any) -> None:
            raise ModelUnavailableError("The weights are not here.")

        monkeypatch.setattr("refseg.runs.prompting.load_models", missing)
        with pytest.raises(ModelUnavailableError, match="not here"):
            segment_prompt(trays, trays.first().id, [(0.5, 0.5)])


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({}, "A prompt needs a point on the object, or a box around it"),
            ({"beside": [(0.1, 0.1)]}, "A prompt needs a point on the object"),
            ({"points": [(1.5, 0.5)]}, "points must be x and y between 0 and 1"),
            ({"points": [(float("nan"), 0.5)]}, "points must be x and y between 0 and 1"),
            ({"points": [0.5, 0.5]}, "points must be pairs of x and y"),
            ({"points": [("a", "b")]}, "points must be pairs of x and y"),
            ({"points": [(0.5, 0.5)], "beside": [(0.5,)]}, "beside must be pairs of x and y"),
            ({"box": (0.5, 0.5, 0.2)}, "box must be 4 numbers"),
            ({"box": (0.9, 0.5, 0.2, 0.2)}, "box must be x, y, width and height within the image"),
            ({"box": (0.5, 0.5, 0.0, 0.2)}, "box must be x, y, width and height within the image"),
        ],
    )
    def test_prompts(self, given: dict[str, Any], words: str) -> None:
        with pytest.raises(DatasetError, match=words):
            Prompt(**given)

    def test_an_image_that_is_not_there(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="holds no image 'nothing'"):
            segment_prompt(trays, "nothing", [(0.5, 0.5)])

    def test_an_image_that_cannot_be_read(self, trays: fo.Dataset) -> None:
        sample = trays.first()
        Path(sample.filepath).write_bytes(b"no image")
        with pytest.raises(ImageError, match="tray_0"):
            segment_prompt(trays, sample.id, [(0.5, 0.5)], model="demo")


def test_what_is_found_becomes_a_reference(trays: fo.Dataset) -> None:
    build(trays)
    sample = trays.first()
    label = sample.ground_truth.detections[0]
    found = refseg.segment_prompt(trays, sample.id, [middle(label)])[0]
    refseg.add_reference(trays, sample.id, "part", found.bounding_box, found.mask)
    (reference,) = refseg.collect_references(trays, "references", tags="reference")
    assert reference.label == "part"
    assert reference.mask is not None
    assert np.array_equal(reference.mask, found.mask)


def test_no_model_is_imported_for_a_mask_of_the_index() -> None:
    """Each takes seconds, for which a first click would wait."""
    code = (
        "import sys, refseg.runs.prompting\n"
        "assert not {'transformers', 'torchvision', 'sam2', 'torch._dynamo'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
