"""Inspecting prototypes as a view of the panel, and heatmaps and similar objects that end where the user looks."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.app.datasets import predict
from tests.app.page import AppPage
from tests.app.story import OpenApp, open_panel

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = pytest.mark.slow


def learn_with_a_mistake(dataset: fo.Dataset) -> tuple[str, str]:
    """Prototypes of the objects of five trays, one of which has a wrong name; returns that, and the object's id."""
    import refseg

    some = dataset[:7]
    names = some.count_values("ground_truth.detections.label")
    most, other = sorted(sorted(names), key=names.get, reverse=True)[:2]
    sample = next(sample for sample in some if any(label.label == other for label in sample.ground_truth.detections))
    wrong = next(label for label in sample.ground_truth.detections if label.label == other)
    wrong.label = most
    sample.save()
    some.tag_labels("reference", label_fields="ground_truth")
    references = refseg.collect_references(dataset, "ground_truth", tags="reference")
    refseg.build_index(dataset, "demo", num_workers=0, progress=False)
    prototypes = refseg.calibrate(dataset, refseg.build_prototypes(references, "demo", progress=False), progress=False)
    refseg.save_prototypes(dataset, prototypes, "prototypes")
    return most, str(wrong.id)


def tagged(dataset: fo.Dataset) -> set[str]:
    """Ids of the references among the labelled objects."""
    dataset.reload()
    return set(dataset.select_labels(tags="reference", fields="ground_truth").values("ground_truth.detections.id", unwind=True))


def inspect(app: AppPage) -> None:
    """Open the view, and wait for what it shows."""
    app.button("References", "Inspect").click()
    expect(app.section("Inspect").get_by_label("Quality of classes")).to_be_visible(timeout=240_000)


def look_closer(app: AppPage, dataset: fo.Dataset, name: str) -> None:
    """Open a class's row: features beside the crops, and the nearest candidates, of which one opens its image."""
    from refseg.runs import nearest_candidates

    references = app.section("References")
    app.button("References", f"Look closer at {name}").click()
    expect(references.get_by_alt_text(f"Features of this reference of {name}").first).to_be_visible(timeout=120_000)
    near = references.get_by_role("group", name=f"Nearest candidates of this reference of {name}").first
    candidates = near.get_by_role(
        "button", name=re.compile(rf"^Open candidate \d, -?[01]\.\d\d like this reference of {name}$")
    )
    expect(candidates).to_have_count(3)
    expect(candidates.first.locator("img")).to_be_visible()
    expect(references.get_by_role("progressbar", name=f"Looking closer at {name}")).to_have_count(0)
    near.scroll_into_view_if_needed()
    app.picture("closer")
    shown = candidates.first.inner_text()
    found = nearest_candidates(dataset, "prototypes", ids_of(dataset, name), progress=False).values()
    expected = {near[0].sample_id for near in found if f"{near[0].similarity:.2f}" == shown}
    # The App keeps Enter to itself, on every button.
    candidates.first.press("Space")
    expect(app.page.locator("[data-cy=modal-looker-container]")).to_be_visible()
    assert re.search(r"[?&]id=([0-9a-f]{24})", app.page.url)[1] in expected
    app.close_image()
    app.button("References", f"Look closer at {name}").click()
    expect(near).to_have_count(0)


def ids_of(dataset: fo.Dataset, name: str) -> list[str]:
    """Ids of the references of a class that the prototypes hold."""
    import refseg

    prototypes = refseg.load_prototypes(dataset, "prototypes")
    rows = zip(prototypes.reference_ids, prototypes.labels.tolist(), strict=True)
    return [one for one, row in rows if prototypes.classes[row] == name]


@pytest.mark.thorough
def test_inspection_as_a_view_of_the_panel(open_app: OpenApp, trays: fo.Dataset, tmp_path: Path) -> None:
    mistaken, wrong_id = learn_with_a_mistake(trays)
    app = open_panel(open_app, trays)
    look_closer(app, trays, mistaken)
    inspect(app)
    shown = app.section("Inspect")
    expect(app.section("References")).to_have_count(0)
    number = len(trays.get_run_info("prototypes").config.shots)
    expect(shown.get_by_role("meter", name=re.compile("^F1 of"))).to_have_count(number)
    matrix = shown.get_by_role("table", name="Similarity of classes")
    pairs = matrix.get_by_role("cell", name=re.compile(r"\w+ and \w+: -?\d\.\d\d"))
    expect(pairs).to_have_count(number * (number - 1))
    pairs.first.scroll_into_view_if_needed()
    pairs.first.hover()
    expect(app.page.get_by_role("tooltip", name=re.compile(r"\w+ and \w+: -?\d\.\d\d"))).to_be_visible()
    app.picture("inspect_matrix")
    shown.get_by_role("button", name="Back to the panel").scroll_into_view_if_needed()
    app.picture("inspect")
    # No picture in a dialog.
    expect(app.page.get_by_role("dialog")).to_have_count(0)

    # It is there again, without another job.
    app.page.reload()
    app.open_panel()
    inspect(app)
    hurting = shown.get_by_role("list", name="References that hurt").get_by_role("listitem")
    expect(hurting.first).to_be_visible()
    number = hurting.count()
    expect(hurting.first.locator("img")).to_be_visible()
    hurting.first.scroll_into_view_if_needed()
    app.picture("inspect_hurting")
    before = tagged(trays)
    hurting.filter(has_text=mistaken).get_by_role("button", name="Remove").first.click()
    expect(hurting).to_have_count(number - 1)
    expect(shown.get_by_role("status")).to_contain_text("1 reference removed")
    assert len(before - tagged(trays)) == 1
    app.button("Inspect", "Undo").click()
    expect(hurting).to_have_count(number)
    assert wrong_id in tagged(trays) == before

    # One suggestion is taken, one is not this, one waits.
    card = shown.get_by_role("group", name="Suggestion")
    app.picture("inspect_suggestion")
    total = int(re.search(r"1 of (\d+)", card.inner_text())[1])
    assert total >= 2
    card.get_by_role("button", name="Next").click()
    expect(card).to_contain_text(f"2 of {total}")
    card.get_by_role("button", name="Accept as reference").click()
    expect(shown.get_by_role("status")).to_contain_text("1 reference added")
    card.get_by_role("button", name="Not this").click()
    expect(shown.get_by_role("status")).to_contain_text("1 reference added, 1 negative added")
    trays.reload()
    assert sorted(trays.values("references.detections.tags", unwind=True)) == ["negative", "reference"]
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


def execute(app: AppPage, last_step: str) -> None:
    """Send the form that is open, and wait for the end of what it started."""
    form = app.page.locator("[data-cy=operators-prompt-modal]")
    form.get_by_text("Execute", exact=True).click()
    # Pressed before the end, the dialog comes up again with the next step.
    expect(app.page.get_by_role("dialog")).to_contain_text(last_step, timeout=120_000)
    app.page.get_by_role("button", name="Done", exact=True).click()


def switched_on(app: AppPage, field: str) -> Locator:
    """The box of a field in the sidebar."""
    return app.page.locator(f"[data-cy=checkbox-{field}] input").first


SIDE = (48, 36)
"""Pixels in which thumbnails are compared."""
UNLIKE = 10
"""Mean difference of thumbnails in other colours; of the second image with all its labels and without any it is 17."""


def thumbnail(app: AppPage, fits: Callable[[NDArray[np.float64]], bool]) -> NDArray[np.float64]:
    """What the grid shows of the second image, once it is as expected and does not change any more."""
    app.page.mouse.move(2, 2)
    # The element itself is made anew while the grid is drawn again; its place stays.
    place = app.page.locator("[data-cy=looker]").nth(1).bounding_box()
    before = np.zeros((*SIDE[::-1], 3))
    for _ in range(120):
        app.page.wait_for_timeout(500)
        with Image.open(BytesIO(app.page.screenshot(clip=place))) as picture:
            seen = pixels(picture)
        if difference(seen, before) < 0.5 and fits(seen):
            return seen
        before = seen
    raise AssertionError("The thumbnail does not become what is expected.")


def pixels(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.convert("RGB").resize(SIDE), float)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.thorough
def test_heatmaps_are_switched_on_in_colours(open_app: OpenApp, trays: fo.Dataset) -> None:
    predict(trays)
    app = open_panel(open_app, trays)
    with Image.open(trays.values("filepath")[1]) as image:
        plain = pixels(image)
    before = thumbnail(app, lambda seen: difference(seen, plain) > UNLIKE)
    app.button("References", "Heatmap").click()
    app.page.locator("[data-cy=operators-prompt-modal]").wait_for()
    app.picture("heatmap_form")
    execute(app, "images: 9 of 9")
    legend = app.section("References").get_by_role("img", name=re.compile(r"Colours of heatmap_\w+, from 0 to 1"))
    expect(legend).to_be_visible()
    field = re.search(r"heatmap_\w+", legend.get_attribute("aria-label"))[0]
    expect(switched_on(app, field)).to_be_checked()
    expect(switched_on(app, "ground_truth")).to_be_checked()
    thumbnail(app, lambda seen: difference(seen, before) > UNLIKE)
    app.picture("heatmap")
    app.button("References", f"Switch {field} off").click()
    expect(legend).to_have_count(0)
    expect(switched_on(app, field)).not_to_be_checked()
    expect(switched_on(app, "ground_truth")).to_be_checked()
    app.picture("heatmap_off")
    # The labels have their own colours again.
    thumbnail(app, lambda seen: difference(seen, before) < 3)
    assert app.errors == []


@pytest.mark.thorough
def test_similar_objects_become_references_where_they_are_shown(open_app: OpenApp, trays: fo.Dataset) -> None:
    predict(trays)
    app = open_panel(open_app, trays)
    app.button("Review", "Show in grid").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text("patches")
    app.select_thumbnail(0)
    app.button("References", "Find similar").click()
    app.page.locator("[data-cy=operators-prompt-modal]").wait_for()
    execute(app, "writing: 1 of 1")
    app.expect_text("Similar objects", re.compile(r"\d+ in the grid, similarity [01]\.\d\d to -?[01]\.\d\d"))
    trays.reload()
    scores = trays.to_patches("similar").sort_by("similar.confidence", reverse=True).values("similar.confidence")
    label = trays.distinct("similar.detections.label")
    assert len(label) == 1
    expect(app.section("Similar objects").get_by_label("Class", exact=True)).to_have_value(label[0])
    # Each patch shows how alike it is.
    shown = app.page.locator("[data-cy=looker]").first
    app.picture("similar", "Similar objects")
    expect(shown).to_contain_text(re.compile(rf"{scores[0]:.2f}|{scores[0]:.3f}"))
    for number in (1, 2):
        app.select_thumbnail(number)
    app.picture("similar_selected", "Similar objects")
    app.button("Similar objects", "Add 2 references").click()
    app.expect_notice("Added 2 references.")
    app.select_thumbnail(3)
    app.button("Similar objects", "Add as negatives").click()
    app.expect_notice("Added 1 negative.")
    trays.reload()
    assert trays.values("accepted.detections.label", unwind=True) == label * 2
    assert set(trays.values("accepted.detections.tags", unwind=True)) == {"reference"}
    assert trays.values("rejected.detections.tags", unwind=True) == ["negative"]
    app.button("Similar objects", "Undo").click()
    app.expect_text("References", "2 new references")
    expect(app.section("References")).not_to_contain_text("new negative")
    assert app.errors == []
