"""The inspection in the panel: what is kept of it and shown, what is done with it, and taken back."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import refseg
from refseg.dataset.store import save_prototypes
from tests.kept import KeptDataset, kept_trays
from tests.operators.app_panel import Answer, choose, press, run_job, section
from tests.operators.helpers import named, run_in_app
from tests.operators.panel.shelf import kept as labels_of

NUM_LABELLED = 3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Six indexed trays, the first three labelled and references, one star of which is called a tee."""

    def prepare(dataset: fo.Dataset) -> str:
        refseg.build_index(dataset, "demo", num_workers=0, progress=False)
        dataset[NUM_LABELLED:].clear_sample_field("ground_truth")
        sample = dataset.first()
        wrong = next(label for label in sample.ground_truth.detections if label.label == "star")
        wrong.label = "tee"
        sample.save()
        dataset.tag_labels("reference", label_fields="ground_truth")
        references = refseg.collect_references(dataset, "ground_truth")
        prototypes = refseg.build_prototypes(references, "demo", progress=False)
        save_prototypes(dataset, refseg.calibrate(dataset, prototypes, num_workers=0, progress=False), "parts")
        return str(wrong.id)

    with kept_trays(tmp_path_factory.mktemp("trays"), 6, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    dataset = kept.put_back(monkeypatch)
    choose(dataset, model="demo")
    return dataset


@pytest.fixture
def inspected(trays: fo.Dataset) -> tuple[fo.Dataset, dict[str, Any]]:
    """The dataset, and what the panel shows of its inspection."""
    answer = run_job(trays, "inspect")
    assert "show_output" not in answer.operators, "the panel has a view of its own"
    shown = answer.data["inspection"]
    ((variant, text),) = answer.notes
    number, suggested = len(shown["references"]), shown["num_suggested"]
    hurt = "1 reference hurts or looks" if number == 1 else f"{number} references hurt or look"
    assert text == f"Inspected the prototypes 'parts': {hurt} like a mistake, {suggested} suggestions."
    assert variant == "warning"
    return trays, shown


def place(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("id", "sample_id", "field")}


def shown_after(answer: Answer) -> dict[str, Any]:
    assert answer.notes == []
    assert answer.result is True
    assert set(answer.data) >= {"inspection", "references", "segment"}
    shown: dict[str, Any] = answer.data["inspection"]
    return shown


class TestWhatIsShown:
    def test_nothing_yet(self, shelf: fo.Dataset) -> None:
        assert section(shelf, "inspection") == {"is_there": False}
        assert press(shelf, "undo_inspected").error == "There is no inspection of this dataset yet: press 'Inspect'."

    def test_as_the_report_says(self, inspected: tuple[fo.Dataset, dict[str, Any]], kept: KeptDataset) -> None:
        trays, shown = inspected
        report = refseg.inspect("parts", trays, progress=False)
        assert (shown["prototypes"], shown["is_current"], shown["num_classes"]) == ("parts", True, 2)
        for row, item in zip(shown["classes"], report.classes, strict=True):
            assert (row["name"], row["num_references"]) == (item.label, item.num_references)
            for name in ("similarity", "threshold", "f1"):
                expected = getattr(item, name)
                assert row[name] == (None if expected is None else pytest.approx(expected, abs=6e-4))
        np.testing.assert_allclose(shown["between"], report.between, atol=6e-4)
        assert shown["confused"] == str(report.confusion)
        assert kept.made in [row["id"] for row in shown["references"]]
        assert report.suggestions
        rows = [(item.sample_id, item.label, item.reason) for item in report.suggestions]
        assert [(row["sample_id"], row["label"], row["reason"]) for row in shown["suggestions"]] == rows
        # Without the masks, which nobody needs there.
        assert "mask" not in shown["suggestions"][0]
        # Another browser, or another day.
        again = section(trays, "inspection")
        assert again | {"at": None} == shown | {"at": None}

    def test_of_the_operator_too(self, trays: fo.Dataset) -> None:
        messages = run_in_app(trays, "inspect_prototypes", {"num_suggestions": 1})
        assert len(named(messages, "show_output")) == 1
        shown = section(trays, "inspection")
        assert (shown["num_suggested"], len(shown["suggestions"])) == (1, 1)

    def test_without_suggestions(self, trays: fo.Dataset) -> None:
        refseg.open_index(trays).delete()
        shown = run_job(trays, "inspect").data["inspection"]
        assert (shown["suggestions"], shown["num_suggested"]) == (None, 0)
        assert any("build the index" in note for note in shown["notes"])

    def test_prototypes_built_since(self, inspected: tuple[fo.Dataset, dict[str, Any]]) -> None:
        trays, _ = inspected
        references = refseg.collect_references(trays[:2], "ground_truth")
        save_prototypes(trays, refseg.build_prototypes(references, "demo", progress=False), "parts", overwrite=True)
        assert section(trays, "inspection")["is_current"] is False

    def test_pictures_and_files(self, inspected: tuple[fo.Dataset, dict[str, Any]]) -> None:
        trays, shown = inspected
        ids = [row["id"] for row in shown["suggestions"]][:2]
        found = press(trays, "suggestion_pictures", {"ids": [*ids, "gone"]}).result
        assert list(found) == [*ids, "gone"]
        assert found["gone"] is None
        with Image.open(BytesIO(base64.b64decode(found[ids[0]].partition(",")[2]))) as picture:
            assert picture.size == (640, 400)
        assert shown["files"] == ["references", "report"]
        for which in shown["files"]:
            saved = press(trays, "inspection_file", {"which": which}).result
            assert saved["name"].startswith("parts")
            with Image.open(BytesIO(base64.b64decode(saved["content"].partition(",")[2]))) as picture:
                assert picture.format == "JPEG"
        assert press(trays, "inspection_file", {"which": "other"}).error.endswith("any more: inspect again.")

    def test_a_picture_whose_image_is_gone(self, inspected: tuple[fo.Dataset, dict[str, Any]], tmp_path: Path) -> None:
        trays, shown = inspected
        row = shown["suggestions"][0]
        sample = trays[row["sample_id"]]
        sample.filepath = str(tmp_path / "gone.png")
        sample.save()
        assert press(trays, "suggestion_pictures", {"ids": [row["id"]]}).result == {row["id"]: None}


class TestSuggestions:
    @pytest.mark.parametrize(("is_negative", "tag"), [(False, "reference"), (True, "negative")])
    def test_taken_and_back(self, inspected: tuple[fo.Dataset, dict[str, Any]], is_negative: bool, tag: str) -> None:
        trays, shown = inspected
        row = shown["suggestions"][0]
        report = refseg.inspect("parts", trays, progress=False)
        answer = press(trays, "take_suggestion", {"id": row["id"], "is_negative": is_negative})
        after = shown_after(answer)
        assert row["id"] not in [one["id"] for one in after["suggestions"]]
        assert (after["num_references"], after["num_negatives"]) == ((0, 1) if is_negative else (1, 0))
        assert answer.data["references"][f"num_{tag}s"] == (1 if is_negative else 7)
        (label,) = labels_of(trays, "references")
        assert (label.label, label.tags) == (row["label"], [tag])
        assert report.suggestions is not None
        np.testing.assert_array_equal(label.mask, report.suggestions[0].mask)
        assert label.bounding_box == pytest.approx(report.suggestions[0].box)
        # Once is enough.
        assert press(trays, "take_suggestion", {"id": row["id"]}).error.startswith("This suggestion was decided on already")

        after = shown_after(press(trays, "undo_inspected"))
        assert labels_of(trays, "references") == []
        assert [one["id"] for one in after["suggestions"]] == [one["id"] for one in shown["suggestions"]]
        assert after["can_undo"] is False
        assert press(trays, "undo_inspected").error == "There is nothing to take back since this inspection."

    @pytest.mark.thorough
    def test_of_an_inspection_before(self, inspected: tuple[fo.Dataset, dict[str, Any]]) -> None:
        trays, shown = inspected
        press(trays, "take_suggestion", {"id": shown["suggestions"][0]["id"]})
        again = run_job(trays, "inspect").data["inspection"]
        # What was done belongs to the inspection before, and its object is labelled now.
        assert (again["num_references"], again["can_undo"]) == (0, False)
        place_of = {(row["sample_id"], row["label"]) for row in again["suggestions"]}
        assert (shown["suggestions"][0]["sample_id"], shown["suggestions"][0]["label"]) not in place_of
        answer = press(trays, "take_suggestion", {"id": shown["suggestions"][1]["id"]})
        assert "replaced by a newer inspection" in answer.error
        assert len(labels_of(trays, "references")) == 1

    def test_of_an_image_that_is_gone(self, inspected: tuple[fo.Dataset, dict[str, Any]]) -> None:
        trays, shown = inspected
        row = shown["suggestions"][0]
        trays.delete_samples([row["sample_id"]])
        answer = press(trays, "take_suggestion", {"id": row["id"]})
        assert answer.error.startswith(f"The dataset {trays.name!r} holds no image {row['sample_id']!r}")


class TestReferencesThatHurt:
    def test_removed_and_back(self, inspected: tuple[fo.Dataset, dict[str, Any]], kept: KeptDataset) -> None:
        trays, shown = inspected
        row = next(row for row in shown["references"] if row["id"] == kept.made)
        assert (row["label"], row["field"]) == ("tee", "ground_truth")
        assert "star" in row["why"]
        answer = press(trays, "drop_reference", place(row))
        after = shown_after(answer)
        assert row["id"] not in [one["id"] for one in after["references"]]
        assert (after["num_removed"], answer.data["references"]["num_references"]) == (1, 5)
        assert answer.data["references"]["pending"] == "1 reference taken away"
        after = shown_after(press(trays, "undo_inspected"))
        assert row["id"] in [one["id"] for one in after["references"]]
        trays.reload()
        assert trays.count_label_tags()["reference"] == 6

    def test_of_a_tagged_image(self, inspected: tuple[fo.Dataset, dict[str, Any]], kept: KeptDataset) -> None:
        trays, shown = inspected
        row = next(row for row in shown["references"] if row["id"] == kept.made)
        trays[:1].tag_samples("reference")
        assert press(trays, "drop_reference", place(row)).error.startswith("The whole image is tagged 'reference'")
        assert section(trays, "inspection")["can_undo"] is False
