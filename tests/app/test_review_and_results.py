"""Reviewing beside references and many at once, and what figures and changes are made of, in the App."""

from __future__ import annotations

import re
import time
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.app.datasets import predict
from tests.app.page import AppPage
from tests.app.story import LOOKS, OpenApp, number_before, open_panel

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = pytest.mark.slow

MANY_COLOURS = 1000


def colours_of(screenshot: bytes) -> int:
    """How many different colours there are."""
    with Image.open(BytesIO(screenshot)) as picture:
        return len(picture.convert("RGB").getcolors(picture.width * picture.height) or ())


def look_at_review(app: AppPage, trays: fo.Dataset, name: str) -> None:
    """The references beside an object, the keys, and many objects accepted at once; which is taken back."""
    review = app.section("Review")
    to_review = number_before(app, "Review", "to review")

    # The object stands beside references of its class and of the runner-up.
    nearest = review.get_by_role("group", name="Nearest references")
    expect(nearest.get_by_role("button", name="Open the reference of").first).to_be_visible()
    expect(nearest).to_contain_text("Most like")
    crops = nearest.get_by_role("button").locator("img")
    assert 2 <= crops.count() <= 6
    expect(crops.first).to_have_attribute("src", re.compile("^data:image/jpeg"))

    # By keyboard: the keys, the outline, closer and back.
    app.focus_review()
    app.page.keyboard.press("?")
    expect(review.get_by_role("note", name="Keys")).to_be_visible()
    app.picture(f"keys_{name}", "Review")
    app.page.keyboard.press("?")
    picture = review.get_by_role("img", name=re.compile("score"))
    outlined = picture.get_attribute("src")
    app.page.keyboard.press("o")
    expect(picture).not_to_have_attribute("src", outlined or "")
    app.picture(f"without_outline_{name}", "Review")
    app.page.keyboard.press("o")
    expect(picture).to_have_attribute("src", outlined or "")
    picture.hover()
    app.page.mouse.wheel(0, -200)
    expect(review.get_by_text(re.compile(r"^1\.3 ×$"))).to_be_visible()
    app.page.keyboard.press("+")
    expect(review.get_by_text(re.compile(r"^[12]\.\d ×$"))).to_be_visible()
    # There it is sharp: a larger picture of the same part of the image.
    expect(picture).not_to_have_attribute("src", outlined or "")
    app.picture(f"closer_{name}", "Review")
    app.page.keyboard.press("0")
    expect(review.get_by_text(re.compile(r"^[12]\.\d ×$"))).to_have_count(0)

    # Many at once, from a score on, as one decision.
    app.page.keyboard.press("b")
    above = review.get_by_role("group", name="Accept all above a score")
    slider = above.get_by_role("slider", name="Least score")
    expect(above.get_by_role("button", name=re.compile(r"Accept \d+ objects? of 0.80 or more"))).to_be_visible()
    slider.focus()
    app.page.keyboard.press("ArrowLeft")
    # The number comes a moment after the score.
    accept = above.get_by_role("button", name=re.compile(r"Accept [1-9]\d* objects of 0.79 or more"))
    expect(accept).to_be_visible()
    number = int((accept.inner_text()).split()[1])
    open_scores = [score for score in trays.values("predictions.detections.confidence", unwind=True) if score >= 0.79]
    assert number == len(open_scores) > 1
    app.picture(f"above_{name}", "Review")
    accept.click()
    app.expect_notice(f"Accepted {number} objects.")
    app.expect_text("Review", f"{to_review - number} to review, {number} decided")
    trays.reload()
    assert trays.count("accepted.detections") == number
    app.button("Review", "Undo").first.click()
    app.expect_text("Review", f"{to_review} to review")
    trays.reload()
    assert trays.count("accepted.detections") == 0


@pytest.mark.thorough
def test_labels_of_others_are_not_decided_on_and_fix_shows_the_image(open_app: OpenApp, trays: fo.Dataset) -> None:
    from refseg.dataset import box_iou

    predict(trays)
    app = open_panel(open_app, trays)
    trays.reload()
    # An object on which no prediction lies.
    sample, label = next(
        (sample, label)
        for sample in trays
        for label in sample.ground_truth.detections
        if all(box_iou(label.bounding_box, one.bounding_box) == 0 for one in sample.predictions.detections)
    )
    app.open_image(list(trays.values("id")).index(sample.id))
    app.click_object(label)
    app.open_panel_beside_image()
    app.expect_text("Review", "Accepting and rejecting is for predictions alone, and the selection holds 1 object of the field")
    expect(app.button("Review", "Reject them")).to_have_count(0)
    app.picture("other_labels", "Review")
    app.focus_review()
    app.page.keyboard.press("f")
    expect(app.page.locator("[data-cy=annotate]")).to_be_visible()
    expect(app.page.locator("[data-cy=modal] [data-cy=modal-looker-container]")).to_be_visible()
    # The image itself is drawn, not the frame alone, which is of one colour.
    middle = {"x": 200, "y": 200, "width": 600, "height": 500}
    deadline = time.monotonic() + 60
    while colours_of(app.page.screenshot(clip=middle)) < MANY_COLOURS:
        assert time.monotonic() < deadline
        app.page.wait_for_timeout(1000)
    app.picture("fix_beside")
    assert app.errors == []


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_changes_review_and_results(open_app: OpenApp, trays: fo.Dataset, size: tuple[int, int], scheme: str) -> None:
    import fiftyone as fo

    import refseg

    predict(trays)
    held = [sample for sample in trays if len(sample.predictions.detections) > 1]
    gains, renames, loses = held[0], held[1], held[2]
    gains.predictions.detections.pop()
    renames.predictions.detections[0].label = "gear"
    lost = fo.Detection(label="gear", bounding_box=[0.01, 0.01, 0.08, 0.08], run=trays.list_runs()[-1])
    loses.predictions.detections.append(lost)
    for sample in (gains, renames, loses):
        sample.save()
    report = refseg.segment(trays, "prototypes", progress=False)
    kinds = {"gained": report.changes.num_gained, "lost": report.changes.num_lost, "relabelled": report.changes.num_relabelled}
    assert kinds == {"gained": 1, "lost": 1, "relabelled": 1}

    app = open_panel(open_app, trays, size=size, scheme=scheme)
    app.use_theme(scheme)
    name = f"{size[0]}_{scheme}"
    changed = app.page.get_by_label("What changed")
    changed.get_by_role("button", name="Show them").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text("3 samples")
    expect(app.page.locator("[data-cy=looker]")).to_have_count(3)
    app.page.wait_for_timeout(1500)
    app.picture(f"changes_{name}", "Segment")
    trays.reload()
    assert sorted(trays.values("changes.detections.change", unwind=True)) == ["gained", "lost", "relabelled"]
    assert len(trays.list_saved_views()) == 3
    changed.get_by_role("button", name="Only lost").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text("1 sample")
    app.button("Review", "Show all images").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text("9 samples")

    look_at_review(app, trays, name)
    look_at_results(app, trays, name)
    assert app.errors == []


def look_at_results(app: AppPage, trays: fo.Dataset, name: str) -> None:
    """Figures of each class and the table of what is taken for what, and the objects behind them."""
    app.button("Results", "Evaluate").click()
    table = app.page.get_by_label("Average precision")
    expect(table).to_be_visible(timeout=60_000)
    trays.reload()
    (key,) = trays.list_runs(method="refseg/evaluation")
    config = trays.get_run_info(key).config
    expect(table).to_contain_text("precision")
    for row in config.classes:
        expect(table.get_by_role("button", name=row[0], exact=True).first).to_be_visible()
    app.picture(f"figures_{name}", "Results")
    confusion = app.section("Results").get_by_role("table", name="Confusion")
    confusion.scroll_into_view_if_needed()
    if app._pictures:
        app.page.screenshot(path=app._pictures / f"confusion_{name}.png")

    # However narrow the panel is, no table runs out of it.
    section = app.section("Results").bounding_box()
    for shown in (table, confusion):
        area = shown.bounding_box()
        assert section["x"] <= area["x"]
        assert area["x"] + area["width"] <= section["x"] + section["width"]

    # A class, and a cell of the table, as patches.
    first = config.classes[0]
    table.get_by_role("button", name=first[0], exact=True).first.click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text(re.compile("patch"))
    truth, predicted, number = next(row for row in config.numbers if row[0] and row[0] == row[1])
    app.section("Results").get_by_role("button", name=f"Show {number} {truth} found").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text(re.compile(rf"\b{number} patch"))
    app.picture(f"cell_{name}", "Results")
    assert predicted == truth
