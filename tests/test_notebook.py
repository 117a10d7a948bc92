"""What a notebook shows of reports: right numbers, everything escaped, as easy to read on white as on dark."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

import refseg
from refseg.calibration.mining import MINED_PREFIX
from refseg.coco.figures import AveragePrecision
from refseg.coco.job import CocoReport
from refseg.dataset.drawn_references import SampledReferences
from refseg.dataset.index import DatasetIndex
from refseg.dataset.indexing import IndexReport
from refseg.dataset.reports import IndexStatus, VerifyReport
from refseg.dataset.store import StoredPrototypes
from refseg.evaluation.counts_report import ClassCounts, CountsReport
from refseg.evaluation.report import EvaluationReport
from refseg.images.thumbnails import crop_picture
from refseg.index import SkippedImage
from refseg.insight.findings import ClassReport, Confusion, ReferenceReport, Suggestion
from refseg.insight.quality import ReferenceQuality
from refseg.insight.report import PrototypeReport
from refseg.masks.values import Refusal
from refseg.notebook import (
    BAR_WIDTH,
    BLUE,
    GREEN,
    ORANGE,
    PICTURES,
    ROWS,
    Html,
    Picture,
    bars,
    details,
    facts,
    gallery,
    histogram,
    matrix,
    page,
    stacked,
    table,
)
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.vectors import Reference
from refseg.published.running import BenchmarkReport
from refseg.review.deciding import Decision, Replaced
from refseg.review.merge_report import MergeConflict, MergedObject, MergeReport
from refseg.review.nearest import LikeReferences
from refseg.review.queue import QueueItem
from refseg.review.suggesting import SuggestedReference
from refseg.review.summary import ClassReview, ReviewSummary
from refseg.runs.changed_objects import ShownChanges
from refseg.runs.changes import Changes
from refseg.runs.heatmaps import HeatmapReport
from refseg.runs.inspection import InspectedReference, Inspection
from refseg.runs.prompting import PromptedMask
from refseg.runs.report_fields import WrittenReport
from refseg.runs.segment_report import SegmentReport
from refseg.runs.similar import SimilarReport
from refseg.runs.update_report import UpdateReport
from tests.index.test_candidate_index import make_index

EVIL = """<script>alert("1")</script> & 'co'"""
BOX = (0.25, 0.25, 0.5, 0.5)
VOID = {"img", "br"}
"""Tags that nothing ends."""
NOUNS = "images|objects|classes|references|candidates|samples|masks|labels|instances|predictions|negatives|decisions|looks"
GIVEN = {"BenchmarkJob", "MatchSettings", "Segmenter", "Models"}
"""Public classes that nobody looks at in a notebook: what users make, or hold."""


class Page(HTMLParser):
    """A page taken apart; refuses what is not well nested."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A red image with a blue square in the middle."""
    image = Image.new("RGB", (200, 160), (200, 30, 30))
    image.paste((40, 60, 210), (50, 40, 150, 120))
    image.save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def evil_prototypes() -> Prototypes:
    return Prototypes(
        (EVIL, "nut"),
        torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]),
        torch.tensor([0, 0, 1]),
        ("a", "b", "c"),
        "demo",
        "f",
        skipped=((EVIL, EVIL),),
        negatives=Negatives(torch.ones(1, 2), (EVIL,), (f"{MINED_PREFIX}1",), ("",)),
        image_names=("a.png", EVIL, "b.png"),
    )


def evil_prototype_report(path: str) -> PrototypeReport:
    hurting = ReferenceReport("a", EVIL, 0.5, 0.6, "nut", 0.25, True, EVIL, path, BOX)
    other = ReferenceReport("b", "nut", None, None, None, None, None, None, image_name=EVIL)
    suggestion = Suggestion("s", path, EVIL, 0.4, BOX, 0.2, EVIL, 0.9, np.ones((4, 4), bool))
    return PrototypeReport(
        (ClassReport(EVIL, 2, 0.9, 0.5, 0.75), ClassReport("nut", 1, None, None, None)),
        ((1.0, -0.25), (-0.25, 1.0)),
        (hurting, other),
        Confusion(EVIL, "nut", 1, 2, -0.1, 0.25),
        (suggestion,),
        (EVIL,),
    )


def segment_report() -> SegmentReport:
    return SegmentReport(
        run_key="run",
        label_field="predictions",
        num_images=3,
        num_instances=6,
        num_written=2,
        num_from_index=3,
        num_left_out=0,
        skipped=(SkippedImage("s", EVIL, EVIL),),
        seconds=1.5,
        changes=Changes({"nut": 3}, {EVIL: 1}, {(EVIL, "nut"): 1}, ("s", "t")),
        protected=("s",),
        first_protected=EVIL,
        look_trouble=EVIL,
        scores={EVIL: (0, 0, 0, 0, 0, 0, 0, 0, 0, 2), "nut": (0, 0, 0, 0, 0, 1, 0, 0, 0, 3)},
    )


def evaluation_report() -> EvaluationReport:
    figures = (0.5, 0.75, 0.6, None, 0.4, 0.5)
    return EvaluationReport(
        *figures, *figures, {EVIL: {"mask_ap": 0.25, "box_ap": 0.5}}, 0.5, 3, 4, 5, "eval",
        skipped=((EVIL, EVIL),), left_out=((EVIL, EVIL, EVIL),), without_references=(EVIL,), notes=(EVIL,), hint=EVIL,
    )  # fmt: skip


PRECISION = AveragePrecision(0.5, 0.75, 0.6, None, 0.4, 0.5, {EVIL: 0.25, "nut": None})
REPLACED = Replaced("s", EVIL, "l", "p", EVIL, "reject", (), True, EVIL)
SHOWN = Image.new("RGB", (60, 40), (10, 200, 10))
INSPECTED = InspectedReference("a", EVIL, SHOWN, SHOWN, SHOWN, ReferenceQuality("a", EVIL, 0.5, EVIL, 0.4, EVIL), image=EVIL)

EXAMPLES: dict[type, Callable[[str], Any]] = {
    AveragePrecision: lambda path: PRECISION,
    BenchmarkReport: lambda path: BenchmarkReport(
        {
            "benchmark": "custom", "title": EVIL, "model": "demo", "label": EVIL, "figures": ["box AP"], "runs": [],
            "summary": [], "hints": [EVIL], "datasets": [EVIL], "settings": {}, "notes": [EVIL],
        },
        Path(path).parent,
    ),
    Changes: lambda path: segment_report().changes,
    ClassReport: lambda path: ClassReport(EVIL, 2, 0.9, 0.5, 0.75),
    ClassReview: lambda path: ClassReview(EVIL, 1, 2, 3, 4, 5),
    CocoReport: lambda path: CocoReport(
        EVIL, "demo", {EVIL: 2}, 3, 4, 5.0, ((EVIL, EVIL),), ((EVIL, EVIL),), PRECISION, PRECISION, notes=(EVIL,),
        thresholds={EVIL: 0.5}, left_out=(Refusal(EVIL, "5", EVIL, EVIL, EVIL),),
    ),
    CountsReport: lambda path: CountsReport(
        "predictions", "c", "a", "s", 0.5, (ClassCounts(EVIL, EVIL, 3, 2, 400.0),), 3, 1, 2, 0, 0, ((EVIL, EVIL, EVIL),),
        ((EVIL, EVIL, EVIL),), ((EVIL, EVIL),),
    ),
    MergeReport: lambda path: MergeReport(
        "ground_truth", "accepted", [MergedObject("s", "l", "a", EVIL, "d")], 2, 3, 1,
        [MergeConflict("s", "a", EVIL, "o", EVIL, 0.75, False)], 0, [("s", "l", EVIL)],
    ),
    LikeReferences: lambda path: LikeReferences("features", ((EVIL, ((EVIL, 0.5),)),)),
    ShownChanges: lambda path: ShownChanges(EVIL, EVIL, {"gained": 2, "lost": 1, "relabelled": 0}, 2, (EVIL,)),
    PromptedMask: lambda path: PromptedMask(BOX, np.ones((8, 9), bool), 0.5, "index"),
    Decision: lambda path: Decision("relabel", "predictions", ("a",), ("b",), ("p",), replaced=(REPLACED,), label=EVIL),
    EvaluationReport: lambda path: evaluation_report(),
    HeatmapReport: lambda path: HeatmapReport("heatmap", EVIL, 3, (SkippedImage("s", EVIL, EVIL),)),
    IndexReport: lambda path: IndexReport(EVIL, 3, 2, 5, 600, 200, (SkippedImage("s", EVIL, EVIL),), 9.0, ("v",), (EVIL,)),
    IndexStatus: lambda path: IndexStatus(EVIL, "demo", True, 10, 6, 1, 2, 50, 7, 3_000_000, True, 4),
    InspectedReference: lambda path: INSPECTED,
    Inspection: lambda path: Inspection((INSPECTED,) * 6, ((EVIL, EVIL),), 3),
    PrototypeReport: evil_prototype_report,
    Prototypes: lambda path: evil_prototypes(),
    QueueItem: lambda path: QueueItem("l", "s", EVIL, 0.5, EVIL, 0.1, BOX),
    Reference: lambda path: Reference("a", EVIL, path, (50, 40, 150, 120), np.ones((80, 100), bool)),
    ReferenceQuality: lambda path: ReferenceQuality("a", EVIL, 0.5, EVIL, 0.4, EVIL),
    ReferenceReport: lambda path: evil_prototype_report(path).references[0],
    Replaced: lambda path: REPLACED,
    ReviewSummary: lambda path: ReviewSummary((ClassReview(EVIL, 1, 2, 3, 0, 4),)),
    SampledReferences: lambda path: SampledReferences({EVIL: ["a"]}, {EVIL: 1}, ((EVIL, EVIL),), {"a": (path, BOX)}),
    SegmentReport: lambda path: segment_report(),
    SimilarReport: lambda path: SimilarReport(EVIL, 2, ("a", "b"), (0.9, -0.2), 3),
    SkippedImage: lambda path: SkippedImage("s", EVIL, EVIL),
    StoredPrototypes: lambda path: StoredPrototypes(EVIL, EVIL, "f"),
    SuggestedReference: lambda path: SuggestedReference("s", "l", EVIL, 0.5, 0.4, "r", EVIL),
    Suggestion: lambda path: evil_prototype_report(path).suggestions[0],  # type: ignore[index]
    UpdateReport: lambda path: UpdateReport(
        EVIL, (EVIL,), (EVIL,), (EVIL,), ("a",), ("b",), (), (), 3, ((EVIL, EVIL),), segment_report(), interrupted_run=EVIL
    ),
    VerifyReport: lambda path: VerifyReport(10, 50, ((EVIL, EVIL),)),
    WrittenReport: lambda path: WrittenReport(EVIL, 3, (EVIL,), 2, 1),
}  # fmt: skip


def result_types() -> Iterator[type]:
    """Whatever a public function, or a method of what it returns, gives out, and all that calls itself a report."""
    public = [getattr(refseg, name) for name in refseg.__all__]
    functions = [value for value in public if inspect.isfunction(value)]
    functions += [method for name, method in vars(DatasetIndex).items() if inspect.isfunction(method) and name[:5] != "iter_"]
    for function in functions:
        # Annotations that only type checkers can resolve are those of private helpers.
        try:
            returned = typing.get_type_hints(function).get("return")
        except NameError:
            continue
        yield from (kind for kind in (returned, *typing.get_args(returned)) if isinstance(kind, type))
    yield from (value for value in public if isinstance(value, type))
    for found in pkgutil.walk_packages(refseg.__path__, "refseg."):
        if not found.name.startswith("refseg.demo") and not found.name.endswith("__main__"):
            for name, kind in vars(importlib.import_module(found.name)).items():
                if dataclasses.is_dataclass(kind) and name.endswith(("Report", "Summary", "Status", "References")):
                    yield typing.cast(type, kind)


def test_every_report_shows_itself() -> None:
    kinds = {kind.__name__: kind for kind in result_types() if kind.__module__.startswith("refseg.")}
    kinds = {name: kind for name, kind in kinds.items() if name not in GIVEN}
    assert {"SegmentReport", "Prototypes", "StoredPrototypes", "CocoReport", "DatasetIndex"} <= kinds.keys()
    assert [name for name, kind in kinds.items() if not callable(getattr(kind, "_repr_html_", None))] == []
    assert kinds.keys() - {kind.__name__ for kind in EXAMPLES} == {"DatasetIndex"}, "give an example"


def check(content: str) -> Page:
    """What holds of every page."""
    found = Page(content)
    assert found.of("script") == []
    assert "<script" not in content
    assert all(attributes["alt"] and attributes["src"].startswith("data:image/") for attributes in found.of("img"))
    assert len(found.of("img")) <= PICTURES
    for attributes in found.of("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for rule in attributes.get("style", "").split(";"):
            name, _, value = rule.partition(":")
            # Text has the notebook's colour, and nothing lies behind it but a share of a colour.
            assert name != "color", tag
            assert not name.startswith("background") or value == "none" or value.startswith("rgba("), (tag, rule)
    assert len(content) < 200_000
    return found


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_what_comes_from_outside_is_escaped(kind: type, picture: str) -> None:
    value = EXAMPLES[kind](picture)
    assert type(value) is kind
    found = check(value._repr_html_())
    if kind not in (ReviewSummary, PromptedMask):
        assert "<script>" in "".join([found.text, *(str(attributes) for _, attributes in found.tags)])


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_one_is_not_many(kind: type, picture: str) -> None:
    """No "1 images", in print or in a notebook."""
    example = EXAMPLES[kind](picture)
    if dataclasses.is_dataclass(example):
        numbers = [field.name for field in dataclasses.fields(example) if type(getattr(example, field.name)) is int]
        with contextlib.suppress(TypeError, ValueError):
            example = dataclasses.replace(example, **dict.fromkeys(numbers, 1))
    for text in (str(example), re.sub("<[^>]*>", "|", example._repr_html_())):
        assert re.search(rf"(?<![\d.,])1 ({NOUNS})\b", text) is None, text


@pytest.mark.parametrize("kind", [PrototypeReport, Reference, ReferenceReport, SampledReferences, Suggestion])
def test_a_picture_that_is_gone_is_words(kind: type, picture: str) -> None:
    value = EXAMPLES[kind](picture)
    before = check(value._repr_html_())
    assert before.of("img")
    Path(picture).unlink()
    after = check(value._repr_html_())
    assert after.of("img") == []
    assert after.text.count("no picture") == len(before.of("img"))
    Path(picture).write_bytes(b"no image")
    assert check(value._repr_html_()).of("img") == []


def test_index_of_a_dataset(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
    dataset = make_dataset([])
    found = check(DatasetIndex(dataset, make_index(tmp_path / "index", range(4)))._repr_html_())
    assert found.text.startswith(f"Index of the dataset {dataset.name!r}")
    assert found.rows[:2] == [["images", "4"], ["candidates", "6"]]
    assert found.rows[-1] == ["place", str(tmp_path / "index")]


class TestParts:
    def test_bars(self) -> None:
        found = Page(bars({"nut": 4.0, "gear": 1.0, "pin": None}, digits=1))
        assert found.rows == [["nut", "", "4.0"], ["gear", "", "1.0"], ["pin", "", "not known"]]
        filled = [float(one["width"]) for one in found.of("rect") if one["fill"] == BLUE]
        assert filled == [BAR_WIDTH, BAR_WIDTH / 4]
        assert [one["aria-label"] for one in found.of("svg")] == ["nut: 4.0", "gear: 1.0", "pin: not known"]

    def test_marks_and_a_full_bar(self) -> None:
        found = Page(bars({"nut": 0.5}, most=1, digits=2, marks={"nut": 0.25}))
        assert [float(one["width"]) for one in found.of("rect") if one["fill"] == BLUE] == [BAR_WIDTH / 2]
        assert [float(one["x1"]) for one in found.of("line")] == [BAR_WIDTH / 4]
        assert found.of("svg")[0]["aria-label"] == "nut: 0.50, line at 0.25"

    @pytest.mark.parametrize("values", [{}, {"nut": 0.0}, {"nut": None}])
    def test_bars_of_nothing(self, values: dict[str, float | None]) -> None:
        assert len(Page(bars(values)).rows) == len(values)

    def test_only_so_many_rows(self) -> None:
        names = {f"class {number}": float(number) for number in range(ROWS + 12)}
        found = Page(page("Many", bars(names), table(("a", "b"), list(names.items()))))
        assert len(found.rows) == ROWS + 1 + ROWS
        assert found.text.count("and 12 more") == 2
        assert matrix(list(names), [[0.0] * len(names)] * len(names)) == ""

    def test_stacked(self) -> None:
        found = Page(stacked({"right": GREEN, "wrong": ORANGE, "never": BLUE}, {"nut": (3, 1, 0), "gear": (0, 2, 0)}))
        assert found.rows == [["nut", "", "3 right, 1 wrong"], ["gear", "", "2 wrong"]]
        drawn = [one for one in found.of("rect") if "x" in one and one["fill"] != "none"]
        quarter = BAR_WIDTH / 4
        assert [(one["fill"], float(one["x"]), float(one["width"])) for one in drawn] == [
            (GREEN, 0, 3 * quarter),
            (ORANGE, 3 * quarter, quarter),
            (ORANGE, 0, 2 * quarter),
        ]
        assert "never" not in found.text

    def test_histogram(self) -> None:
        found = Page(histogram([0, 4, 1, 0], 0, 1, "score"))
        heights = [float(one["height"]) for one in found.of("rect")]
        assert heights == [64, 16]
        assert [float(one["x"]) for one in found.of("rect")] == [60.5, 120.5]
        assert found.of("svg")[0]["aria-label"] == "score: 4 from 0.2, 1 from 0.5"
        assert histogram([0, 0], 0, 1, "score") == ""

    def test_matrix(self) -> None:
        found = Page(matrix(["nut", "gear"], [[1.0, -0.5], [0.5, 2.0]]))
        assert found.rows == [["", "nut", "gear"], ["nut", "1.00", "-0.50"], ["gear", "0.50", "2.00"]]
        shades = re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", str(found.tags))
        assert shades == ["0.60", "0.00", "0.30", "0.60"]

    def test_table(self) -> None:
        found = Page(table(("class", "AP"), [("nut", 0.5), ("gear", None)]))
        assert found.rows == [["class", "AP"], ["nut", "0.500"], ["gear", "–"]]
        assert table(("class",), []) == ""

    def test_facts_leave_out_what_is_not_known(self) -> None:
        found = Page(facts({"a": None, "b": "", "c": 0, "d": 1200, "e": True, "f": ()}))
        assert found.rows == [["c", "0"], ["d", "1,200"], ["e", "yes"]]

    def test_gallery(self) -> None:
        shown = [Picture("data:image/png;base64,x", f"nut {number}", "why") for number in range(20)]
        found = Page(gallery(shown))
        assert [one["alt"] for one in found.of("img")] == [f"nut {number}: why" for number in range(PICTURES)]
        assert "and 8 more" in found.text
        assert "and 28 more" in Page(gallery(shown, 40)).text
        assert gallery([]) == ""

    def test_details(self) -> None:
        assert Page(details("2 skipped", ["a", "b"])).text == "2 skippedab"
        assert details("none", []) == ""

    def test_page_takes_texts_and_parts(self) -> None:
        found = Page(page("<i>", "one\n<two>", None, "", Html("<b>bold</b>")))
        assert found.text == "<i>one<two>bold"
        assert [tag for tag, _ in found.tags] == ["div", "div", "p", "br", "b"]


class TestPages:
    def test_segment_report(self) -> None:
        found = check(segment_report()._repr_html_())
        assert found.text.startswith("6 instances in 3 images")
        # By falling number, then what was gained and lost.
        assert [row[0] for row in found.rows[:2]] == ["nut", EVIL]
        assert [row[2] for row in found.rows[:2]] == ["4", "2"]
        assert [one["aria-label"] for one in found.of("svg") if "aria-label" in one][2] == "score: 1 from 0.5, 5 from 0.9"
        assert ["nut", "", "3 gained, 1 relabelled"] in found.rows
        assert [EVIL, "", "1 lost"] in found.rows
        assert f"{EVIL} → nut: 1" in found.text
        assert f"such as {EVIL}: no run wrote" in found.text
        assert "1 image skipped" in found.text

    def test_prototype_report(self, picture: str) -> None:
        found = check(evil_prototype_report(picture)._repr_html_())
        assert [EVIL, "", "0.75"] in found.rows
        assert ["nut", "", "not known"] in found.rows
        assert [EVIL, "1.00", "-0.25"] in found.rows
        titles = ["References that hurt", "References that look like a mistake", "What would help as the next reference"]
        assert all(title in found.text for title in titles)
        assert [one["alt"].partition(": ")[0] for one in found.of("img")] == [f"{EVIL} in a.png"] * 3
        bare = PrototypeReport((ClassReport("nut", 1, None, None, None),), ((1.0,),), (), None)
        assert check(bare._repr_html_()).rows == [["nut", "", "not known"]]

    def test_a_report_reads_no_more_than_a_dozen_crops(self, picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        report = evil_prototype_report(picture)
        assert report.suggestions is not None
        many = dataclasses.replace(report, references=report.references * 9, suggestions=report.suggestions * 9)
        drawn = check(many._repr_html_())
        assert len(drawn.of("img")) == PICTURES
        assert drawn.text.count("no picture") == 9 + 9 + 9 - PICTURES

    def test_sampled_references_show_each_class_first(self, picture: str) -> None:
        ids = {name: [f"{name}{number}" for number in range(10)] for name in "abc"}
        places = {one: (picture, BOX) for members in ids.values() for one in members}
        found = check(SampledReferences(ids, {}, (), places)._repr_html_())
        assert [one["alt"] for one in found.of("img")] == [f"{name}: a.png" for name in "abc"] * 4
        assert found.text.startswith("30 references of 3 classes drawn and tagged")
        assert "and 18 more" in found.text
        assert found.rows == [[name, "", "10"] for name in "abc"]

    def test_index_status(self) -> None:
        found = check(IndexStatus("place", "demo", False, 10, 6, 1, 2, 50, 7, 3_000_000)._repr_html_())
        assert found.rows[0] == ["10 images", "", "6 indexed, 1 changed or gone, 3 not indexed"]
        widths = [float(one["width"]) for one in found.of("rect") if "x" in one and one["fill"] != "none"]
        assert widths == [0.6 * BAR_WIDTH, 0.1 * BAR_WIDTH, 0.3 * BAR_WIDTH]
        assert ["to be freed by compact", "2 images, 7 candidates"] in found.rows

    def test_evaluation_report(self) -> None:
        found = check(evaluation_report()._repr_html_())
        assert found.rows[0] == ["", "AP", "AP50", "AP75", "small", "medium", "large"]
        assert found.rows[1] == ["masks", "0.500", "0.750", "0.600", "–", "0.400", "0.500"]
        assert [EVIL, "", "0.250"] in found.rows
        boxes = dataclasses.replace(evaluation_report(), mask_ap=None)
        assert [EVIL, "", "0.500"] in check(boxes._repr_html_()).rows

    def test_review_summary(self) -> None:
        found = check(ReviewSummary((ClassReview("nut", 4, 1, 2, 1, 0),))._repr_html_())
        assert found.rows[0] == ["nut", "", "1 accepted, 2 rejected, 1 relabelled, 4 open"]
        assert ["corrections in a hundred objects", "75"] in found.rows

    def test_benchmark_report(self, tmp_path: Path) -> None:
        Image.new("RGB", (1000, 500)).save(tmp_path / "shots.png")
        text = "### Toy, box AP (%)\n\n| method | 1 shot |\n| ------ | -----: |\n| ours | 9.5 |\n\n- a note\nSee it"
        from refseg.published.pages import benchmark_page

        found = check(benchmark_page(text, tmp_path / "shots.png"))
        assert found.rows == [["method", "1 shot"], ["ours", "9.5"]]
        assert "Toy, box AP (%)" in found.text
        assert (found.of("img")[0]["width"], found.of("img")[0]["height"]) == ("640", "320")
        assert check(benchmark_page(text, tmp_path / "none.png")).of("img") == []


def test_crop_picture(picture: str) -> None:
    found = crop_picture(picture, BOX, "nut", "why")
    assert (found.title, found.text) == ("nut", "why")
    assert found.source.startswith("data:image/jpeg;base64,")
    gone = crop_picture(f"{picture}.gone", BOX, "nut", "why")
    assert (gone.source, gone.text) == ("", "why: the file does not exist")
    assert crop_picture("", None, "nut").source == ""
    assert crop_picture(picture, (float("nan"), 0, 1, 1), "nut").source == ""
