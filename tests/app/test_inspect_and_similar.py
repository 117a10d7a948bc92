"""Inspecting prototypes as a view of the panel, and heatmaps and similar objects that end where the user looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.app.datasets import predict
from tests.app.page import AppPage
from tests.app.story import OpenApp, open_panel

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = pytest.mark.slow


def inspect(app: AppPage) -> None:
    """Open the view, and wait for what it shows."""
    app.button("References", "Inspect").click()
    expect(app.section("Inspect").get_by_label("Quality of classes")).to_be_visible(timeout=120_000)


def test_inspection_as_a_view_of_the_panel(open_app: OpenApp, trays: fo.Dataset, tmp_path: Path) -> None:
    import refseg

    predict(trays)
    # One reference that hurts: an object of one class that is called another.
    wrong = next(label for sample in trays for label in sample.ground_truth.detections if not label.tags)
    mistaken = next(name for name in trays.distinct("ground_truth.detections.label") if name != wrong.label)
    view = trays.select_labels(ids=[wrong.id])
    view.set_values("ground_truth.detections.label", [[mistaken]])
    view.tag_labels("reference")
    references = refseg.collect_references(trays, "ground_truth", tags="reference")
    prototypes = refseg.calibrate(trays, refseg.build_prototypes(references, "demo", progress=False), progress=False)
    refseg.save_prototypes(trays, prototypes, "prototypes", overwrite=True)
    trays.save()

    app = open_panel(open_app, trays)
    inspect(app)
    shown = app.section("Inspect")
    expect(app.section("References")).to_have_count(0)
    expect(shown.get_by_role("progressbar", name="F1 of", exact=False)).to_have_count(6)
    matrix = shown.get_by_role("table", name="Similarity of classes")
    expect(matrix.get_by_role("cell", name=re.compile(r"\w+ and \w+: -?\d\.\d\d"))).to_have_count(30)
    app.picture("inspect")
    # No picture in a dialog.
    expect(app.page.get_by_role("dialog")).to_have_count(0)

    # It is there again, without another job.
    app.page.reload()
    app.open_panel_anyway() if not app.section("References").count() else None
    inspect(app)
    hurting = shown.get_by_role("list", name="References that hurt").get_by_role("listitem")
    expect(hurting.first).to_be_visible()
    number = hurting.count()
    hurting.filter(has_text=mistaken).get_by_role("button", name="Remove").first.click()
    expect(hurting).to_have_count(number - 1)
    expect(shown.get_by_role("status")).to_contain_text("1 reference removed")
    trays.reload()
    assert trays.select_labels(ids=[wrong.id]).values("ground_truth.detections.tags", unwind=True) in ([], ["reference"])
    app.button("Inspect", "Undo").click()
    expect(hurting).to_have_count(number)

    # One suggestion is taken, one is not this, one waits.
    card = shown.get_by_role("group", name="Suggestion")
    app.picture("inspect_suggestion")
    total = int(re.search(r"1 of (\d+)", card.inner_text())[1])
    assert total >= 2
    first = card.get_by_role("img").get_attribute("alt")
    card.get_by_role("button", name="Next").click()
    expect(card).to_contain_text(f"2 of {total}")
    assert card.get_by_role("img").get_attribute("alt") != first or total > 1
    card.get_by_role("button", name="Accept as reference").click()
    expect(shown.get_by_role("status")).to_contain_text("1 reference added")
    card.get_by_role("button", name="Not this").click()
    expect(shown.get_by_role("status")).to_contain_text("1 reference added, 1 negative added")
    trays.reload()
    assert sorted(tag for tags in trays.values("references.detections.tags", unwind=True) for tag in [tags]) == [
        "negative",
        "reference",
    ]
    app.picture("inspect_done")
    app.button("Inspect", "Undo").click()
    expect(shown.get_by_role("status")).not_to_contain_text("negative")
    trays.reload()
    assert trays.count("references.detections") == 1
    with app.page.expect_download() as saved:
        app.button("Inspect", "Save all references as a picture").click()
    assert saved.value.suggested_filename.endswith(".jpg")
    app.button("Inspect", "Back").click()
    app.expect_text("References", "Not learnt yet: 1 new reference")
    assert app.errors == []


def test_heatmaps_and_similar_objects_end_where_the_user_looks(open_app: OpenApp, trays: fo.Dataset) -> None:
    import refseg

    predict(trays)
    app = open_panel(open_app, trays)
    app.button("References", "Heatmap").click()
    form = app.page.locator("[data-cy=operators-prompt-modal]")
    expect(form).to_be_visible()
    app.picture("heatmap_form")
    form.get_by_text("Execute", exact=True).click()
    app.expect_notice(re.compile(r"Heatmaps of .* for 9 images in the field 'heatmap_\w+', from \d.\d\d to \d.\d\d on a scale"))
    legend = app.section("References").get_by_role("img", name=re.compile(r"Colours of heatmap_\w+, from 0 to 1"))
    expect(legend).to_be_visible()
    app.picture("heatmap")
    app.button("References", re.compile("Switch heatmap_")).click()
    expect(legend).to_have_count(0)
    app.picture("heatmap_off")
    assert app.errors == []
    assert refseg is not None
