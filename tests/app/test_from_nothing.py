"""From a folder of images without a single label to accepted objects, by mouse and keyboard."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.app.datasets import draw_dataset
from tests.app.page import IMAGE_HW, AppPage
from tests.app.story import ANY_OBJECTS, OpenApp, choose_demo, open_panel, segment

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = [pytest.mark.app, pytest.mark.slow]

NUM_IMAGES = 11
STORY_IMAGES = int(os.environ.get("REFSEG_STORY_IMAGES", "5"))
"""With 100 the time that is printed is the one in docs/speed.md."""
MOST_ACTIONS = 8


@pytest.fixture
def unlabelled(tmp_path: Path) -> Iterator[tuple[fo.Dataset, dict[str, Any]]]:
    """Images without a label, and what is in them, by sample id."""
    dataset = draw_dataset(tmp_path, NUM_IMAGES)
    truth = dict(zip(*dataset.values(["id", "ground_truth"]), strict=True))
    dataset.delete_sample_field("ground_truth")
    yield dataset, truth
    dataset.delete()


def spot_of(label: Any) -> tuple[float, float]:
    """A point of an object, as shares of the image."""
    rows, columns = np.nonzero(label.mask)
    middle = len(rows) // 2
    x, y, _, _ = label.bounding_box
    return x + (columns[middle] + 0.5) / IMAGE_HW[1], y + (rows[middle] + 0.5) / IMAGE_HW[0]


def objects_of(truth: Any) -> list[Any]:
    return [] if truth is None else truth.detections


def show(app: AppPage, label: Any, *, first: bool = False) -> None:
    """Click on an object, say what it is, and keep it."""
    app.click_picture(spot_of(label))
    section = app.section("References")
    another = section.get_by_role("button", name="Another mask")
    # A click may mean a part or the whole; where no mask is the object, a box around it says so.
    for turn in range(4):
        expect(section.get_by_alt_text("Mask of the object")).to_be_visible()
        if _overlap(app.mask_box(), label.bounding_box) > 0.7:
            break
        if another.count() and turn < 2:
            another.click()
        else:
            app.page.keyboard.press("Escape")
            app.drag_picture(label.bounding_box)
            app.expect_text("References", "Click to add what is missing")
    name = section.get_by_label("It is", exact=True)
    name.fill(label.label)
    if first:
        app.picture("shown", "References")
    name.press("Enter")
    app.expect_text("References", f"Kept as a reference of {label.label}.")


def test_from_an_unlabelled_folder_to_accepted_objects(
    open_app: OpenApp, unlabelled: tuple[fo.Dataset, dict[str, Any]]
) -> None:
    import refseg

    dataset, truth = unlabelled
    app = open_panel(open_app, dataset)
    app.expect_text("References", "none yet")
    choose_demo(app)
    app.button("References", "Show an object").click()
    ids = list(truth)
    expect(app.section("References").get_by_alt_text(Path(dataset.first().filepath).name)).to_be_visible()

    # An object of each class that the first images hold, in image after image.
    shown: dict[str, str] = {}
    for number, sample_id in enumerate(ids[:4]):
        for label in objects_of(truth[sample_id]):
            if label.label not in shown:
                show(app, label, first=not shown)
                shown[label.label] = sample_id
        if number < 3:
            app.button("References", "Next").click()
            name = Path(dataset[ids[number + 1]].filepath).name
            expect(app.section("References").get_by_alt_text(name)).to_be_visible()
    dataset.reload()
    kept = {label.label: label for labels in dataset.values("references.detections", unwind=False) for label in labels or ()}
    assert kept.keys() == shown.keys()
    for name, label in kept.items():
        overlaps = {one.label: _overlap(one.bounding_box, label.bounding_box) for one in objects_of(truth[shown[name]])}
        assert max(overlaps, key=lambda other: overlaps[other]) == name, (name, overlaps)
        assert label.tags == ["reference"]
    app.button("References", re.compile("^Close$")).click()
    app.expect_text("References", f"{len(shown)} references of {len(shown)} classes")
    app.picture("shown_references", "References")

    segment(app)
    app.focus_review()
    to_review = int(re.search(r"([\d,]+) to review", app.section("Review").inner_text())[1])
    for done in range(1, 4):
        app.page.keyboard.press("a")
        app.expect_text("Review", f"{to_review - done} to review, {done} decided")
    dataset.reload()
    assert dataset.count("accepted.detections") == 3

    # What the story never opened tells how good the predictions are.
    rest = dataset.select(ids[4:])
    rest.set_values("ground_truth", truth, key_field="id")
    report = refseg.evaluate(rest, "predictions", "ground_truth", classes=sorted(shown), progress=False)
    # From one reference of each class.
    assert report.mask_ap > 0.2
    assert app.errors == []


@pytest.mark.thorough
def test_clicks_boxes_and_other_masks(open_app: OpenApp, unlabelled: tuple[fo.Dataset, dict[str, Any]]) -> None:
    dataset, truth = unlabelled
    sample_id, objects = next((name, objects_of(found)) for name, found in truth.items() if len(objects_of(found)) > 1)
    app = open_panel(open_app, dataset)
    choose_demo(app)
    app.select_thumbnail(list(truth).index(sample_id))
    app.button("References", "Show an object").click()
    section = app.section("References")
    mask = section.get_by_alt_text("Mask of the object")
    one, other = objects[:2]

    app.drag_picture(one.bounding_box)
    expect(mask).to_be_visible()
    app.expect_text("References", "The model's answer.")
    by_box = mask.bounding_box()
    app.click_picture(spot_of(other))
    expect(section.get_by_label("Looking for the object")).to_have_count(0)
    assert mask.bounding_box()["width"] * mask.bounding_box()["height"] > by_box["width"] * by_box["height"]
    app.click_picture(spot_of(other), alt=True)
    expect(section.get_by_label("Looking for the object")).to_have_count(0)
    app.page.keyboard.press("Escape")
    expect(mask).to_have_count(0)

    # One click alone may mean a part or the whole.
    app.click_picture(spot_of(one))
    expect(mask).to_be_visible()
    another = section.get_by_role("button", name="Another mask")
    if another.count():
        before = mask.get_attribute("src")
        section.get_by_role("application").press("Tab")
        expect(mask).not_to_have_attribute("src", before)

    # Enter without a name asks for one; a negative is kept as such.
    section.get_by_role("application").press("Enter")
    name = section.get_by_label("It is", exact=True)
    expect(name).to_be_focused()
    name.fill("gear")
    section.get_by_role("button", name="It is not gear").click()
    app.expect_text("References", "Kept: it is not gear.")
    dataset.reload()
    (label,) = dataset[sample_id].references.detections
    assert (label.label, label.tags) == ("gear", ["negative"])
    app.click_picture(spot_of(other))
    app.picture("shown_again", "References")
    assert app.errors == []


@pytest.mark.thorough
def test_first_predictions(
    open_app: OpenApp, tmp_path: Path, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Few actions lead from the panel on an unlabelled, indexed dataset to predictions; how long they take is printed."""
    import refseg

    dataset = draw_dataset(tmp_path, STORY_IMAGES)
    try:
        truth = dict(zip(*dataset.values(["id", "ground_truth"]), strict=True))
        dataset.delete_sample_field("ground_truth")
        refseg.build_index(dataset, "demo", progress=False)
        app = open_app(dataset)
        began = time.monotonic()
        app.open_panel()
        sample_id, label = next((name, objects_of(found)[0]) for name, found in truth.items() if objects_of(found))
        actions = [
            lambda: app.button("References", "Show an object").click(),
            *[lambda: app.button("References", "Next").click()] * list(truth).index(sample_id),
            lambda: app.click_picture(spot_of(label)),
            lambda: app.section("References").get_by_label("It is", exact=True).fill(label.label),
            lambda: app.section("References").get_by_label("It is", exact=True).press("Enter"),
            lambda: app.button("Segment", re.compile("^Segment")).click(),
        ]
        assert len(actions) <= MOST_ACTIONS
        ends = [time.monotonic()]
        for action in actions:
            action()
            ends.append(time.monotonic())
        # One is maybe the object that was shown. Where the field is switched on, the grid draws what is written so far.
        app.expect_text("Segment", re.compile(rf"([2-9]|\d\d+) objects so far|{ANY_OBJECTS.pattern}"), seconds=240)
        expect(app.page.locator("[data-cy=checkbox-predictions] input").first).to_be_checked(timeout=240_000)
        first = time.monotonic() - began
        app.picture("first_predictions")
        app.expect_text("Segment", ANY_OBJECTS, seconds=240)
        last = time.monotonic() - began
        record_property("seconds", first)
        with capsys.disabled():
            told = f"{len(actions)} actions, {first:.1f} s to the first predictions, {last:.1f} s to all"
            each = ", ".join(f"{end - began:.1f}" for end in ends)
            print(f"\n{STORY_IMAGES} images: {told}; the panel open and each action done after {each} s")  # noqa: T201
        assert app.errors == []
        dataset.reload()
        assert dataset.count("predictions.detections")
    finally:
        dataset.delete()


def _overlap(box: Sequence[float], other: Sequence[float]) -> float:
    from refseg.dataset import box_iou

    return box_iou(box, other)
