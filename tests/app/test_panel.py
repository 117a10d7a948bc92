"""The whole story in the App: references, index, preview, run, review, update, results; what survives; what goes wrong."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.app.datasets import predict
from tests.app.page import AppPage
from tests.app.server import Server
from tests.app.story import OpenApp, build_index, choose_demo, draw, number_before, open_panel, segment

if TYPE_CHECKING:
    import fiftyone as fo

    from tests.operators.service import HeldImage

pytestmark = pytest.mark.slow

SECTIONS = ("References", "Index", "Segment", "Suggested references", "Review", "Results")
FIND_CUT_OFF = """() => [...document.querySelectorAll('section[aria-label] *')].filter((element) => {
    const section = element.closest('section[aria-label]').getBoundingClientRect();
    const own = element.getBoundingClientRect();
    const isOut = own.right > section.right + 1 || own.left < section.left - 1;
    // A bar without an end runs through its frame and out of it, where nobody sees it.
    const isDrawn = element.closest('svg') !== null || element.parentElement.role === 'progressbar';
    return own.width && !isDrawn && isOut;
}).map((element) => `cut off: ${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`)"""
FIND_SMALL = """() => [...document.querySelectorAll('section[aria-label] *')].map((element) => {
    const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const { fontSize, visibility } = getComputedStyle(element);
    // The label of a field that is filled is drawn smaller than it is.
    const scale = element.offsetHeight ? element.getBoundingClientRect().height / element.offsetHeight : 1;
    return hasText && visibility === 'visible' ? [parseFloat(fontSize) * scale, element.textContent.slice(0, 40)] : [99, ''];
}).filter(([size]) => size && size < 11.7).map(([size, text]) => `small: ${size.toFixed(1)} pixels: ${text}`)"""


def pale(app: AppPage) -> list[str]:
    """What axe-core finds wrong with our sections: contrast, names, roles."""
    from axe_playwright_python.sync_playwright import Axe

    # What is scrolled out of sight is not judged.
    app.page.set_viewport_size({"width": 1000, "height": 3500})
    app.page.wait_for_timeout(500)
    axe = Axe()
    # The App draws behind its panels with pseudo elements, of the same colour.
    contrast = {
        "ignoreUnicode": True,
        "ignorePseudo": True,
        "boldValue": 700,
        "boldTextPt": 14,
        "largeTextPt": 18,
        "contrastRatio": {"normal": {"expected": 4.5}, "large": {"expected": 3}},
        "shadowOutlineEmMax": 0.1,
        "textStrokeEmMin": 0.03,
    }
    settings = {"checks": [{"id": "color-contrast", "options": contrast}]}
    axe.axe_script += f"; axe.configure({json.dumps(settings)}); undefined"
    rules = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = axe.run(app.page, "section[aria-label]", {"runOnly": rules}).response
    judged = sum(len(rule["nodes"]) for rule in found["passes"] if rule["id"] == "color-contrast")
    # Texts, of which nothing is known where something lies over them.
    assert judged > 50
    return [
        f"{violation['id']}: {node['target'][0]} {node['html'][:100]} {node['failureSummary'].splitlines()[-1]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def test_the_whole_story(open_app: OpenApp, trays: fo.Dataset) -> None:
    app = open_panel(open_app, trays)
    app.expect_text("References", "none yet")
    app.expect_text("Segment", "not run yet")
    draw(app)
    drawn = number_before(app, "References", "references")
    app.picture("references", "References")

    # One more from a label selected in an image, and one with Alt as a negative.
    trays.reload()
    sample = next(sample for sample in trays if len(sample.ground_truth.detections) > 1)
    wanted, unwanted = sample.ground_truth.detections[:2]
    app.open_image(list(trays.values("id")).index(sample.id))
    app.click_object(wanted)
    app.click_object(unwanted, alt=True)
    app.picture("selected_labels")
    app.open_panel_beside_image()
    with_both = app.button("References", "Add 1 object as references, 1 object as negatives")
    with_both.click()
    app.expect_notice("Added 1 reference and 1 negative.")
    app.close_image()
    app.expect_text("References", "1 negative")
    trays.reload()
    tags = {label.id: label.tags for label in trays[sample.id].ground_truth.detections}
    assert (tags[wanted.id], tags[unwanted.id]) == (["reference"], ["negative"])
    kept = trays.count_label_tags()
    assert kept["negative"] == 1
    assert number_before(app, "References", "references") == kept["reference"] <= drawn + 1

    # Two images without an object, from which to learn where to keep quiet.
    for number in (2, 5):
        app.select_thumbnail(number)
    app.picture("empty", "References")
    app.button("References", "These images are empty").click()
    app.expect_notice("Marked 2 images as empty. 2 images of the dataset are known to be empty.")
    app.expect_text("References", "2 images known to be empty")
    trays.reload()
    assert trays.match_tags("known_empty").values("id") == [trays.values("id")[number] for number in (2, 5)]

    choose_demo(app)
    app.button("References", "Build prototypes").click()
    # The images of references and the empty ones are computed, which building the index then need not do.
    expect(app.section("References").get_by_label("Quality of", exact=False).first).to_be_visible(timeout=240_000)
    app.picture("quality", "References")
    build_index(app)
    app.picture("index", "Index")

    # Sliders start where an instance is as likely right as wrong, and go back there.
    app.expect_text("References", re.compile("Scores are probabilities, learnt from [0-9]+ references and [0-9]+ surroundings"))
    slider = app.section("Segment").get_by_role("slider").first
    expect(app.section("Segment").get_by_text("calibrated", exact=True).first).to_be_visible()
    calibrated = slider.input_value()
    slider.press("ArrowRight")
    app.button("Segment", re.compile("^Use calibrated for")).click()
    expect(slider).to_have_value(calibrated)
    app.button("Segment", "Matching").click()
    background = app.section("Segment").get_by_label("Background", exact=True)
    background.click()
    app.expect_text("Segment", "changed: background")
    app.picture("matching", "Segment")
    app.button("Segment", "Use defaults").click()
    expect(background).not_to_be_checked()
    app.button("Segment", "Matching").click()

    app.button("Segment", "Preview the best 100").click()
    app.expect_text("Segment", re.compile(r"preview: \d+ objects? in \d+ images"), seconds=60)
    app.picture("preview", "Segment")
    segment(app)
    app.expect_text("Review", re.compile(r"\d+ to review"))
    to_review = number_before(app, "Review", "to review")
    assert to_review >= 6

    # What is sure enough to be a reference as it is: one press, and taken back.
    app.button("Suggested references", "Suggest references").click()
    use = app.button("Suggested references", "Use as reference")
    expect(use.first).to_be_visible()
    num_suggested = use.count()
    app.picture("suggested", "Suggested references")
    use.first.click()
    expect(use).to_have_count(num_suggested - 1)
    trays.reload()
    assert trays.values("accepted.detections.tags", unwind=True) == ["reference"]
    app.button("Suggested references", "Undo").click()
    expect(use).to_have_count(num_suggested)

    # By keyboard: two rejected, three accepted.
    app.picture("review", "Review")
    app.focus_review()
    for done, key in enumerate("rraaa", 1):
        app.page.keyboard.press(key)
        app.expect_text("Review", f"{to_review - done} to review, {done} decided")
    trays.reload()
    assert trays.count("rejected.detections") == 2
    assert trays.count("accepted.detections") == 3
    assert set(trays.values("rejected.detections.tags", unwind=True)) == {"negative"}
    app.expect_text("Results", "3 accepted, 2 rejected")

    app.expect_text("Review", "Not learnt yet: 3 new references, 2 new negatives")
    references = number_before(app, "References", "references")
    app.button("Review", "Update").click()
    expect(app.page.get_by_label("What changed")).to_be_visible(timeout=60_000)
    app.expect_text("Segment", re.compile("gained.*lost.*relabelled"))
    app.picture("update", "Review")
    assert references == kept["reference"] + 3
    expect(app.button("Review", "Update")).to_have_count(0)

    app.button("Results", "Evaluate").click()
    expect(app.page.get_by_label("Average precision")).to_be_visible(timeout=60_000)
    app.expect_text("Results", "all classes")
    expect(app.page.get_by_role("img", name="Histogram of scores")).to_be_visible()
    expect(app.page.locator("[data-cy='panel-content-model_evaluation_panel_builtin']")).to_be_visible()
    app.picture("results", "Results")
    assert trays.has_evaluation("eval_predictions") or (trays.reload() or trays.has_evaluation("eval_predictions"))
    assert app.errors == []


@pytest.fixture
def hold(few_trays: fo.Dataset) -> Iterator[Callable[[], HeldImage]]:
    """A function that lets nobody read the last tray; to be called once the grid has shown it."""
    from tests.operators.service import HeldImage

    held: list[HeldImage] = []

    def hold_last() -> HeldImage:
        held.append(HeldImage(Path(few_trays.last().filepath)))
        return held[0]

    yield hold_last
    for image in held:
        image.let_go()


def build_up_to(app: AppPage, held: HeldImage) -> None:
    """Start building the index, and wait until it comes to the image that is held."""
    choose_demo(app)
    app.button("Index", "Build index").click()
    expect(app.button("Index", "Cancel")).to_be_visible()
    deadline = time.monotonic() + 60
    while not held.catch_reader():
        assert time.monotonic() < deadline
        app.page.wait_for_timeout(50)


@pytest.mark.thorough
def test_a_closed_browser_and_a_second_one_lose_nothing(
    open_app: OpenApp, few_trays: fo.Dataset, hold: Callable[[], HeldImage]
) -> None:
    app = open_panel(open_app, few_trays)
    draw(app)
    app.fill("Review", "Accepted objects", "checked")
    held = hold()
    build_up_to(app, held)
    app.page.close()
    held.let_go()

    second = open_panel(open_app, few_trays)
    second.expect_text("Index", "4 of 4 images", seconds=240)
    expect(second.section("Review").get_by_label("Accepted objects", exact=True)).to_have_value("checked")
    expect(second.section("Index").get_by_label("Model", exact=True)).to_contain_text("demo")
    second.expect_text("References", re.compile(r"\d+ references of \d classes"))


def work_in_server(app: AppPage) -> None:
    app.page.get_by_label("Long work in the delegated service").uncheck()


@pytest.mark.thorough
def test_a_new_server_loses_nothing(open_app: OpenApp, few_trays: fo.Dataset, other_server: Server) -> None:
    app = open_panel(open_app, few_trays, at=other_server)
    draw(app)
    work_in_server(app)
    build_index(app, 4)
    app.button("Index", "Look for changes").click()
    other_server.stop()
    app.page.close()
    other_server.start()
    app = open_panel(open_app, few_trays, at=other_server)
    work_in_server(app)
    app.expect_text("Index", "4 of 4 images")
    # The job died with its server: nobody waits for it.
    expect(app.button("Index", "Cancel")).to_have_count(0)
    segment(app)
    app.expect_text("Review", re.compile(r"\d+ to review"))


@pytest.mark.thorough
def test_the_delegated_service(open_app: OpenApp, few_trays: fo.Dataset, other_server: Server, session_folder: Any) -> None:
    from tests.operators.service import Service

    app = open_panel(open_app, few_trays, at=other_server)
    choose_demo(app)
    expect(app.page.get_by_label("Long work in the delegated service")).to_be_checked()
    app.button("Index", "Build index").click()
    app.expect_text("Index", "waits for `fiftyone delegated launch`")
    app.button("Index", "Cancel").click()
    app.expect_notice("Taken out of the queue.")
    expect(app.button("Index", "Cancel")).to_have_count(0)
    app.button("Index", "Build index").click()
    app.expect_text("Index", "waits for `fiftyone delegated launch`")
    with Service(session_folder / "service.log"):
        app.expect_text("Index", "4 of 4 images", seconds=240)
    assert app.errors == []


@pytest.mark.thorough
def test_many_at_once_from_the_grid(open_app: OpenApp, trays: fo.Dataset) -> None:
    predict(trays)
    app = open_panel(open_app, trays)
    to_review = number_before(app, "Review", "to review")
    app.button("Review", "Show in grid").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text("patches")
    for number in range(3):
        app.select_thumbnail(number)
    app.expect_text("Review", "3 objects selected")
    app.picture("patches", "Review")
    app.button("Review", "Accept them").click()
    app.expect_notice("Accepted 3 objects.")
    app.expect_text("Review", f"{to_review - 3} to review")
    trays.reload()
    assert trays.count("accepted.detections") == 3

    # Another decision on one of them replaces the first, says so, and gives it back.
    app.select_thumbnail(0)
    app.button("Review", "Reject them").click()
    app.expect_notice("Rejected 1 object. This replaces 1 earlier decision: 1 accepted.")
    trays.reload()
    assert (trays.count("accepted.detections"), trays.count("rejected.detections")) == (2, 1)
    app.expect_text("Results", "Accepted as they were: 2 of 3 (67 %). Corrected: 1 of 3 (33 %).")
    app.button("Review", "Undo").first.click()
    app.expect_text("Results", "Accepted as they were: 3 of 3")
    trays.reload()
    assert (trays.count("accepted.detections"), trays.count("rejected.detections")) == (3, 0)

    app.select_thumbnail(4)
    app.select_thumbnail(5)
    app.expect_text("Review", "2 objects selected")
    # What they were taken for becomes a negative, so not what they are called already.
    called = trays.count_values("predictions.detections.label")
    rarest = min(("arrow", "clover", "crescent", "star"), key=lambda name: called.get(name, 0))
    app.choose("Review", "They are", rarest)
    app.expect_notice("Relabelled 2 objects.")
    app.expect_text("Review", f"{to_review - 5} to review")
    trays.reload()
    relabelled = [label for label in trays.values("accepted.detections", unwind=True) if label.decision == "relabel"]
    assert len(relabelled) == 2
    # One that had this name already shows nothing that it is not.
    num_negatives = sum(label.predicted_label != label.label for label in relabelled)
    assert trays.count("rejected.detections") == num_negatives > 0

    # Alt-selected patches of predictions become negatives, and the others references.
    app.button("Review", "Show in grid").click()
    expect(app.page.locator("[data-cy=entry-counts]")).to_contain_text(f"{to_review - 5} patches")
    app.select_thumbnail(0)
    app.select_thumbnail(1, alt=True)
    app.button("References", "Add 1 object as references, 1 object as negatives").click()
    app.expect_notice("Added 1 reference and 1 negative.")
    trays.reload()
    assert trays.count("accepted.detections") == 6
    assert trays.count("rejected.detections") == num_negatives + 1
    assert app.errors == []


@pytest.mark.thorough
def test_relabel_fix_and_undo(open_app: OpenApp, trays: fo.Dataset) -> None:
    predict(trays)
    app = open_panel(open_app, trays)
    to_review = number_before(app, "Review", "to review")
    app.focus_review()
    app.page.keyboard.press("l")
    name = app.button("Review", re.compile(r"\w+ \(1\)")).inner_text().removesuffix(" (1)")
    app.picture("relabel", "Review")
    app.page.keyboard.press("1")
    app.expect_text("Review", f"{to_review - 1} to review, 1 decided")
    trays.reload()
    (relabelled,) = trays.exists("accepted.detections").first().accepted.detections
    assert (relabelled.label, relabelled.decision) == (name, "relabel")
    assert relabelled.predicted_label != name
    app.focus_review()
    app.page.keyboard.press("u")
    app.expect_text("Review", f"{to_review} to review")
    app.focus_review()
    app.page.keyboard.press("f")
    expect(app.page.locator("[data-cy=modal]")).to_be_visible()
    # The App's own tools for correcting a label by hand.
    expect(app.page.locator("[data-cy=annotate]")).to_be_visible()
    app.picture("fix")
    trays.reload()
    assert trays.values("accepted.detections.decision", unwind=True).count("fix") == 1
    assert app.errors == []


def test_a_dataset_of_videos_says_so(open_app: OpenApp, make_dataset: Callable[..., fo.Dataset], tmp_path: Any) -> None:
    import fiftyone as fo

    (tmp_path / "a.mp4").write_bytes(b"")
    dataset = make_dataset([fo.Sample(str(tmp_path / "a.mp4"))])
    app = open_app(dataset)
    app.open_panel_anyway()
    expect(app.page.get_by_text("holds media of type 'video' here, but RefSeg needs images:")).to_be_visible()


@pytest.mark.thorough
def test_looks(open_app: OpenApp, predicted: fo.Dataset) -> None:
    """In both themes and down to a narrow window: nothing is cut off, nothing is small or pale, and no raw id is shown."""
    app = open_panel(open_app, predicted)
    app.button("Suggested references", re.compile("Suggest (references|again)")).click()
    expect(app.button("Suggested references", "Suggest again")).to_be_visible()
    app.button("References", "Look closer at").first.press("Enter")
    expect(app.section("References").get_by_role("group", name="Nearest candidates").first).to_be_visible(timeout=120_000)
    faults = []
    for scheme in ("dark", "light"):
        app.use_theme(scheme)
        for size in ((1400, 900), (1000, 700), (700, 900)):
            app.page.set_viewport_size({"width": size[0], "height": size[1]})
            app.page.wait_for_timeout(500)
            for title in SECTIONS:
                app.picture(f"{title.lower().replace(' ', '_')}_{size[0]}_{scheme}", title)
            found = app.page.evaluate(FIND_CUT_OFF) + app.page.evaluate(FIND_SMALL)
            faults += [f"{scheme}, {size[0]} pixels wide: {fault}" for fault in found]
        faults += [f"{scheme}: {fault}" for fault in pale(app)]
    assert not faults, "\n".join(faults)
    assert re.search(r"\b[0-9a-f]{24}\b", app.words()) is None
    assert app.errors == []


@pytest.mark.thorough
def test_least_scores_are_named(open_app: OpenApp, predicted: fo.Dataset) -> None:
    """At one line for classes that share it, and without a name over another, however long they are."""
    import fiftyone.operators as foo

    long, longer = "a part with a long name, of many words", "without_any_space_" * 4
    few = [("gear", 0.71), ("star", 0.71), (long, 0.05), ("arrow", 0.47), (longer, 0.97)]
    chosen = few + [(f"no {number}", number / 20) for number in range(12)]
    store = foo.ExecutionContext({"dataset_name": predicted.name}).store("refseg_panel")
    store.set("settings", {"model": "demo", "scores": "probabilities", "thresholds": [list(pair) for pair in chosen]})
    for run in predicted.list_runs(method="refseg/prototypes"):
        predicted.delete_run(run)
    app = open_panel(open_app, predicted, size=(1000, 700))
    app.picture("least_scores", "Results")
    plot = app.page.get_by_role("img", name="Histogram of scores").bounding_box()
    lines: dict[float, list[str]] = {}
    for name, value in chosen:
        lines.setdefault(value, []).append(name)
    boxes = []
    for value, names in lines.items():
        label = app.section("Results").get_by_text(f"{value:.2f} {', '.join(sorted(names))}", exact=True)
        box = label.bounding_box()
        edge = box["x"] if value < 0.5 else box["x"] + box["width"]
        assert edge == pytest.approx(plot["x"] + value * plot["width"], abs=3), names
        assert plot["x"] - 1 <= box["x"]
        assert box["x"] + box["width"] <= plot["x"] + plot["width"] + 1
        boxes.append(box)
    boxes.sort(key=lambda box: box["y"])
    assert all(above["y"] + above["height"] <= below["y"] + 1 for above, below in itertools.pairwise(boxes))
    assert app.errors == []


@pytest.mark.thorough
def test_many_images_are_read_beside_the_requests(open_app: OpenApp) -> None:
    """A first look takes longer than a request waits; the panel asks again by itself, and what is decided counts at once."""
    from benchmarks.panel_speed import make_dataset

    dataset = make_dataset(20_000, "refseg-test-many")
    try:
        app = open_panel(open_app, dataset)
        app.expect_text("References", "60 references of 4 classes")
        app.expect_text("Review", "39,000 to review, 1,000 decided")
        app.expect_text("Results", "Scores of 40,000 predictions")
        expect(app.page.get_by_text("Reading the labels of this dataset…")).to_have_count(0)
        # The images are not there.
        app.expect_text("Review", "This image cannot be read")
        app.button("Review", "Reject").click()
        app.expect_text("Review", "38,999 to review, 1,001 decided")
        assert app.errors == []
    finally:
        dataset.delete()
