"""What a model takes here is said before it is asked for; whatever goes wrong is told in its section until it is dealt with."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, expect

from tests.app.page import AppPage
from tests.app.story import LOOKS, OpenApp, draw, open_panel

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = [pytest.mark.app, pytest.mark.slow]


@pytest.fixture
def weights() -> Iterator[Path]:
    """A folder that the App may use, with the demo's weights."""
    import fiftyone as fo

    from refseg.models.presets import DEMO_WEIGHTS

    folder = Path(fo.config.default_dataset_dir) / "own_weights"
    shutil.copytree(DEMO_WEIGHTS, folder)
    yield folder
    shutil.rmtree(folder)


def toasts(app: AppPage) -> Locator:
    return app.page.get_by_role("alert").locator("visible=true").filter(has=app.page.get_by_label("close"))


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
@pytest.mark.thorough
def test_what_models_take_here(open_app: OpenApp, few_trays: fo.Dataset, size: tuple[int, int], scheme: str) -> None:
    app = open_panel(open_app, few_trays, size=size, scheme=scheme)
    app.use_theme(scheme)
    model = app.section("Index").get_by_label("Model", exact=True)
    # The demo's images want the demo's model.
    expect(model).to_contain_text(re.compile(r"^demo · no download · (about \d+ m?s on this|time on this GPU unknown)"))
    app.expect_text("Index", re.compile(r"Disk: about [\d.]+ [KM]B to come · [\d.,]+ [GT]B free"))
    model.click()
    options = app.page.get_by_role("option").all_inner_texts()
    assert len(options) == 11
    large = next(option for option in options if option.startswith("large · "))
    assert re.fullmatch(r"large · 2\.1 GB · (about [\d.]+ (s|min|h) on this CPU|time on this GPU unknown)", large)
    app.picture(f"models_{size[0]}_{scheme}")
    app.page.keyboard.press("Escape")
    app.button("Index", "Weights from files").click()
    app.fill("Index", "SAM 2 checkpoint", "/etc/hostname")
    app.expect_text("Index", "'/etc/hostname' does not lie in a folder that the App may use")
    app.picture(f"files_{size[0]}_{scheme}", "Index")
    assert app.errors == []


@pytest.mark.thorough
def test_one_number_while_a_build_counts_and_is_cancelled(open_app: OpenApp, few_trays: fo.Dataset) -> None:
    from tests.operators.service import HeldImage

    app = open_panel(open_app, few_trays)
    held = HeldImage(Path(few_trays.last().filepath))
    try:
        app.button("Index", "Build index").click()
        deadline = time.monotonic() + 120
        while not held.catch_reader():
            assert time.monotonic() < deadline
            app.page.wait_for_timeout(50)
        app.expect_text("Index", re.compile(r"Build index: images [0-3] of 4"))
        said = app.section("Index").inner_text()
        (number,) = {*re.findall(r"images (\d) of 4", said)}
        assert f"{number} of 4 images" in said
        bar = app.section("Index").get_by_role("progressbar")
        expect(bar).to_have_count(1)
        assert float(bar.get_attribute("aria-valuenow")) == 25 * int(number)
        app.picture("counting", "Index")
        app.button("Index", "Cancel").click()
        app.expect_text("Index", "ending after this batch")
    finally:
        held.let_go()
    app.expect_notice("Build index was cancelled; the images done so far are kept, and the next build goes on from there.")
    expect(app.button("Index", "Cancel")).to_have_count(0)
    app.button("Index", re.compile("Go on|Build index|Look for changes")).click()
    app.expect_text("Index", re.compile(r"4 of 4 images, [\d.]+ [KM]B"), seconds=240)
    expect(app.section("Index").get_by_label("Model", exact=True)).to_contain_text("demo · no download · all indexed")
    app.expect_text("Index", re.compile(r"Disk: [\d.]+ [KM]B taken · [\d.,]+ [GT]B free"))
    assert app.errors == []


@pytest.mark.thorough
def test_a_failed_job_leaves_its_reason(open_app: OpenApp, few_trays: fo.Dataset, weights: Path) -> None:
    """In its section, for every browser and after a reload, until it is done again; here weights from a file are to blame."""
    app = open_panel(open_app, few_trays)
    broken = weights / "mine.safetensors"
    broken.write_bytes(b"no weights")
    app.button("Index", "Weights from files").click()
    app.fill("Index", "SAM 2 checkpoint", str(broken))
    app.expect_text("Index", "demo is loaded from files")
    app.button("Index", "Build index").click()
    reason = app.trouble("Index", f"{broken} is not a complete safetensors file")
    expect(reason).to_be_visible()
    expect(reason).to_contain_text(re.compile("Build index, just now"))
    expect(toasts(app)).to_have_count(0)
    app.picture("failed_job", "Index")
    # Errors of other sections come and go meanwhile.
    app.page.close()

    second = open_app(few_trays)
    second.page.clock.install()
    second.open_panel()
    second.expect_loaded()
    reason = second.trouble("Index", "is not a complete safetensors file")
    expect(reason).to_be_visible()
    second.page.clock.fast_forward(300_000)
    expect(reason).to_contain_text(re.compile("[56] min ago"))
    shutil.copyfile(weights / "sam2.safetensors", broken)
    reason.get_by_role("button", name="Again").click()
    second.expect_text("Index", "4 of 4 images", seconds=240)
    expect(reason).to_have_count(0)
    assert second.errors == []


@pytest.mark.thorough
def test_errors_stand_where_the_button_is(open_app: OpenApp, few_trays: fo.Dataset) -> None:
    app = open_panel(open_app, few_trays)
    app.fill("Segment", "Predictions", "two words")
    app.expect_text("Segment", "Predictions need a field's name of letters, digits and underscores, not 'two words'.")
    app.fill("Segment", "Predictions", "accepted")
    app.expect_text("Segment", "cannot share the field 'accepted': name another.")
    app.fill("References", "Shots", "0")
    app.expect_text("References", "Shots must be a whole number of 1 or more, not 0.")
    draw(app)
    app.fill("Segment", "Predictions", "ground_truth")
    app.button("Segment", "Segment").click()
    error = app.trouble("Segment", "The labels in the field 'ground_truth' are not RefSeg's")
    expect(error).to_be_visible()
    expect(error).to_contain_text("just now")
    app.picture("error", "Segment")
    # Another section has its own.
    app.page.wait_for_timeout(500)
    assert app.page.get_by_role("alert").filter(has_text="are not RefSeg's").count() == 1
    assert "Traceback" not in app.page.inner_text("body")
    error.get_by_role("button", name="Dismiss").click()
    expect(error).to_have_count(0)
    app.button("Segment", "Segment").click()
    expect(error).to_be_visible()
    # What is to blame is changed, and the same is asked for again.
    app.fill("Segment", "Predictions", "predictions")
    expect(error).to_have_count(0)
    app.button("Segment", "Segment").click()
    app.expect_text("Segment", re.compile(r"\d+ objects? in \d+ images, just now"), seconds=240)
    assert app.errors == []
