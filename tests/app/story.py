"""Steps that several stories in the App have in common."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from tests.app.page import AppPage

if TYPE_CHECKING:
    import fiftyone as fo

OpenApp = Callable[..., AppPage]

LOOKS = [((1400, 900), "dark"), ((1000, 700), "light")][: 2 if os.environ.get("REFSEG_PICTURES") else 1]
"""Sizes and themes of a window: both where somebody wants to look at pictures."""
ANY_OBJECTS = re.compile(r"\d+ objects? in \d+ images")


def open_panel(open_app: OpenApp, dataset: fo.Dataset, **options: Any) -> AppPage:
    app = open_app(dataset, **options)
    app.open_panel()
    app.expect_loaded()
    return app


def draw(app: AppPage, shots: int = 2) -> None:
    app.fill("References", "Shots", str(shots))
    app.button("References", "Draw").click()
    app.expect_text("References", re.compile(r"\d+ references of \d classes"))
    expect(app.section("References").get_by_label("Shots", exact=True)).to_have_value(str(shots))


def choose_demo(app: AppPage) -> None:
    app.choose("Index", "Model", "demo")
    app.expect_text("Index", "ships with RefSeg")


def build_index(app: AppPage, num_images: int = 9) -> None:
    choose_demo(app)
    # Calibrating has computed the images of references, where prototypes were built before.
    button = app.button("Index", re.compile("Build index|Go on"))
    # And a few others, of so few images maybe all.
    complete = app.section("Index").get_by_text(re.compile(f"{num_images} of {num_images} images"))
    expect(button.or_(complete).first).to_be_visible()
    if button.is_visible():
        button.click()
    app.expect_text("Index", re.compile(rf"{num_images} of {num_images} images, [\d.]+ [KM]B"), seconds=240)


def segment(app: AppPage) -> None:
    app.button("Segment", re.compile("^Segment")).click()
    # What a preview found says nothing of this run, which replaces it.
    expect(app.section("Segment")).not_to_contain_text("preview: ")
    app.expect_text("Segment", ANY_OBJECTS, seconds=60)
    # A text of before may stand there until the run is at work.
    expect(app.section("Segment").get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def number_before(app: AppPage, section: str, word: str) -> int:
    found = re.search(rf"([\d,]+) {word}", app.section(section).inner_text())
    assert found is not None, app.section(section).inner_text()
    return int(found[1].replace(",", ""))
