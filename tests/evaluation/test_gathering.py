"""What the labels of a view count for: what is assumed, what counts by its box, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.errors import DatasetError
from refseg.evaluation.evaluating import evaluate, false_positives_per_empty_image
from refseg.images.reading import read_image_hw
from tests.evaluation.labels import SIDE, detection, sample

MakeDataset = Callable[..., Any]


def test_objects_without_a_usable_mask_count_by_their_boxes(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """Neither they nor what is found there count where masks are compared."""
    lost = detection(30, 0, 50, 20, mask=None, mask_path=str(tmp_path / "gone.png"))
    empty = detection(60, 0, 80, 20, mask=np.zeros((20, 20), bool))
    bare = detection(0, 40, 20, 60, mask=None)
    by_box = {lost.id: "gone.png does not exist", empty.id: "its mask holds no pixel", bare.id: "it has no mask, as others of"}
    truth = [detection(0, 0, 20, 20), lost, empty, bare]
    found = [detection(x, y, x + 20, y + 20, confidence=0.9) for x, y in ((0, 0), (30, 0), (60, 0), (0, 40))]
    dataset = make_dataset([sample(tmp_path, "1.png", truth, found)])
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.mask_ap, report.box_ap, report.num_ground_truth, report.left_out) == (1, 1, 4, ())
    reasons = {label_id: reason for _, label_id, reason in report.by_box}
    assert reasons.keys() == by_box.keys()
    assert all(words in reasons[label_id] for label_id, words in by_box.items())
    assert any(note.startswith("3 labels count by their boxes alone, such as, in ") for note in report.notes)
    assert dataset.first()[report.eval_key + "_fn"] == 0


def test_lines_thinner_than_a_pixel_count_by_their_boxes(make_dataset: MakeDataset, tmp_path: Path) -> None:
    thin = fo.Polyline(label="star", points=[[(0.401, 0.401), (0.403, 0.401), (0.403, 0.403)]], closed=True, filled=True)
    right = detection(0, 0, 20, 20)
    dataset = make_dataset([sample(tmp_path, "1.png", [right], [detection(0, 0, 20, 20, confidence=0.9)])])
    dataset.set_values("lines", [fo.Polylines(polylines=[thin, right.to_polyline()])])
    report = evaluate(dataset, "predictions", "lines", progress=False)
    assert report.by_box == ((dataset.first().filepath, thin.id, "'star': it is smaller than a pixel of its image of 100×100"),)
    assert (report.num_ground_truth, report.box_ap50) == (2, pytest.approx(51 / 101))


def test_a_prediction_without_a_mask_among_others_counts_by_its_box(make_dataset: MakeDataset, tmp_path: Path) -> None:
    truth = [detection(0, 0, 20, 20), detection(40, 40, 60, 60)]
    bare = detection(40, 40, 60, 60, mask=None, confidence=0.5)
    dataset = make_dataset([sample(tmp_path, "1.png", truth, [detection(0, 0, 20, 20, confidence=0.9), bare])])
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.box_ap, report.mask_ap) == (1, pytest.approx(51 / 101))
    assert [label_id for _, label_id, _ in report.by_box] == [bare.id]


def test_predictions_whose_masks_are_lost_count_by_their_boxes(make_dataset: MakeDataset, tmp_path: Path) -> None:
    truth = [detection(0, 0, 20, 20), detection(40, 40, 60, 60)]
    gone = detection(0, 0, 20, 20, mask=None, mask_path=str(tmp_path / "gone.png"), confidence=0.9)
    dataset = make_dataset([sample(tmp_path, "1.png", truth, [gone, detection(40, 40, 60, 60, confidence=0.5)])])
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.box_ap, report.mask_ap) == (1, pytest.approx(51 / 101))
    assert [label_id for _, label_id, _ in report.by_box] == [gone.id]
    dataset.set_values("predictions", [fo.Detections(detections=[gone])])
    none = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (none.mask_ap, none.box_ap) == (None, pytest.approx(51 / 101))


def test_masks_in_files_count_like_masks_in_the_document(make_dataset: MakeDataset, tmp_path: Path) -> None:
    disc = np.hypot(*np.mgrid[-20:20, -20:20]) < 18
    reports = []
    for in_files in (False, True):
        truth = detection(10, 20, 50, 60, mask=disc)
        found = detection(13, 20, 53, 60, mask=disc, confidence=0.5)
        if in_files:
            for number, label in enumerate((truth, found)):
                label.export_mask(str(tmp_path / f"mask{number}.png"), update=True)
                assert label.mask is None
        dataset = make_dataset([sample(tmp_path, "1.png", [truth], [found])])
        report = evaluate(dataset, "predictions", "ground_truth", progress=False)
        # Of another dataset the ids are others.
        reports.append(replace(report, cells=tuple(replace(cell, places=()) for cell in report.cells)))
    assert reports[0] == reports[1]
    assert reports[0].mask_ap == pytest.approx(0.7, abs=0.15)


def test_labels_that_cannot_be_used_are_left_out_and_listed(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """Whatever is wrong with one label, the figures are those of all others, by both judges."""
    right, found = detection(0, 0, 20, 20), detection(0, 0, 20, 20, confidence=0.5)
    nameless = detection(30, 30, 50, 50)
    nameless.label = None
    bad = {
        "no class": nameless,
        "not four numbers": detection(30, 0, 50, 20, bounding_box=[0.1, 0.1, 0.2, 0.2, 0.3]),
        "not finite": detection(30, 0, 50, 20, bounding_box=[float("nan")] * 4),
        "neither yes nor no": detection(60, 0, 80, 20, iscrowd="perhaps"),
    }
    unsure = detection(30, 60, 50, 80, confidence=float("nan"))
    dataset = make_dataset([sample(tmp_path, "1.png", [right, *bad.values()], [found, unsure])])
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.mask_ap, report.fiftyone_mask_ap, report.box_ap) == (1, pytest.approx(1), 1)
    assert (report.num_ground_truth, report.num_predictions) == (1, 1)
    reasons = {label_id: reason for _, label_id, reason in report.left_out}
    assert reasons.keys() == {label.id for label in (*bad.values(), unsure)}
    assert all(words in reasons[label.id] for words, label in bad.items())
    assert reasons[unsure.id] == f"{unsure.label!r}: its confidence is nan"
    assert reasons[nameless.id].startswith("an object without a class: it has no class")
    path = dataset.first().filepath
    assert f"left out of {path} {unsure.label!r}: its confidence is nan ({unsure.id})" in str(report)
    # What was left out is not judged in the App either.
    assert dataset.first()[report.eval_key + "_fn"] == 0


def test_masks_without_boxes_count_by_their_own_and_that_is_said(make_dataset: MakeDataset, tmp_path: Path) -> None:
    whole = np.zeros((SIDE, SIDE), np.uint8)
    whole[40:60, 10:40] = 255
    truth = detection(10, 40, 40, 60, mask=whole, bounding_box=[0, 0, 0, 0])
    dataset = make_dataset([sample(tmp_path, "1.png", [truth], [detection(10, 40, 40, 60, confidence=0.5)])])
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.mask_ap, report.box_ap, report.left_out) == (1, 1, ())
    (note,) = report.notes
    example = f"{truth.label!r} in {dataset.first().filepath} ({truth.id})"
    assert note.startswith(f"1 label has a mask of the whole image and no box, such as {example}: ")
    assert note in str(report)
    assert dataset.get_run_info("evaluation_of_predictions").config.notes == [
        "1 label has a mask of the whole image and no box: its own box was used; FiftyOne's evaluation, which cannot do "
        "without, was left out."
    ]
    # FiftyOne would place the mask in the box that is none.
    assert (report.eval_key, report.fiftyone_mask_ap, dataset.list_evaluations()) == (None, None, [])


def test_metadata_that_is_wrong_changes_nothing_and_is_said_once(make_dataset: MakeDataset, tmp_path: Path) -> None:
    found = [detection(0, 0, 20, 30, confidence=0.9), detection(42, 0, 60, 20, confidence=0.5)]
    truth = [detection(0, 0, 20, 34), detection(40, 0, 60, 20)]
    datasets, reports = [], []
    for is_right in (True, False):
        samples = [sample(tmp_path, f"{number}.png", truth, found) for number in range(2)]
        for one in samples:
            height, width = read_image_hw(one.filepath)
            one["metadata"] = fo.ImageMetadata(width=width if is_right else 5 * height, height=height if is_right else width)
        datasets.append(make_dataset(samples))
        reports.append(evaluate(datasets[-1], "predictions", "ground_truth", progress=False))
    assert reports[0].mask_ap == reports[1].mask_ap
    assert reports[0].box_ap == reports[1].box_ap
    assert reports[0].notes == ()
    (note,) = reports[1].notes
    assert "metadata of 2 samples lists another size" in note
    assert note in str(reports[1])
    assert str(tmp_path) in note
    (kept,) = datasets[1].get_run_info("evaluation_of_predictions").config.notes
    assert kept == (
        "The metadata of 2 samples lists another size than the image has: the image's own was used; "
        "dataset.compute_metadata(overwrite=True) renews it."
    )


def test_annotations_of_the_stored_frame_are_suspected(make_dataset: MakeDataset, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    boxes = [(0, 0, 20, 20), (30, 5, 50, 25), (5, 60, 25, 80)]
    dataset = make_dataset()
    for is_turned in (True, False):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"{is_turned}.jpg", exif=exif)
        truth = [detection(*box) for box in boxes]
        found = [
            detection(*(SIDE - side for side in (x1, y1, x0, y0)), confidence=0.5)
            if is_turned
            else detection(x0, y0, x1, y1, confidence=0.5)
            for x0, y0, x1, y1 in boxes
        ]
        one = fo.Sample(str(tmp_path / f"{is_turned}.jpg"))
        one["ground_truth"], one["predictions"] = fo.Detections(detections=truth), fo.Detections(detections=found)
        dataset.add_sample(one)
    turned, upright = (
        evaluate(dataset[rows], "predictions", "ground_truth", progress=False) for rows in (slice(0, 1), slice(1, 2))
    )
    assert (turned.mask_ap, upright.mask_ap, upright.hint) == (0, 1, "")
    assert "of 3 objects 0 are met as they are annotated, and 3 if they are turned" in turned.hint
    assert turned.hint in str(turned)


def test_what_cannot_be_ranked_is_refused(make_dataset: MakeDataset, tmp_path: Path) -> None:
    bare = make_dataset([sample(tmp_path, "1.png", [], [detection(0, 0, 20, 20)])])
    with pytest.raises(DatasetError, match=r"The prediction 'star' in the field 'predictions' of .*1\.png .*has no confidence"):
        evaluate(bare, "predictions", "ground_truth", progress=False)
    with pytest.raises(DatasetError, match="has no confidence"):
        false_positives_per_empty_image(bare, "predictions", "ground_truth", 0.5)


def test_a_missing_image_needs_metadata(make_dataset: MakeDataset, tmp_path: Path) -> None:
    found = [detection(0, 0, 20, 20, confidence=0.5)]
    samples = [sample(tmp_path, "1.png", [detection(0, 0, 20, 20)], found)]
    samples.append(sample(tmp_path, "gone.png", [detection(0, 0, 20, 20)], None, save=False))
    dataset = make_dataset(samples)
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert report.skipped == ((str(tmp_path / "gone.png"), "the file does not exist"),)
    assert (report.mask_ap, report.fiftyone_mask_ap, report.num_images) == (pytest.approx(1), pytest.approx(1), 1)
    assert "left out" in str(report)
    samples[1]["metadata"] = fo.ImageMetadata(width=SIDE, height=SIDE)
    samples[1].save()
    report = evaluate(dataset, "predictions", "ground_truth", progress=False)
    assert (report.skipped, report.num_images, report.mask_ap50) == ((), 2, pytest.approx(51 / 101))
    samples[1]["metadata"] = None
    samples[1].save()
    with pytest.raises(DatasetError, match=r"No image of 1 can be evaluated; the first is .*gone\.png"):
        evaluate(dataset.skip(1), "predictions", "ground_truth", progress=False)
