"""Pages of best, worst and confused images, written from COCO entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refseg.coco.files import CocoDataset, CocoImage
from refseg.images.pixels import PixelSettings
from refseg.published import sheets
from refseg.published.judging import Judgement, Shown, judge
from refseg.published.sheets import Pictured, count, draw_confused, draw_sheet, write_sheets

CLASSES = ("cow", "horse", "cat")
LEFT, RIGHT = [5, 5, 30, 30], [50, 5, 30, 30]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in "abcd":
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def targets(*annotations: tuple[str, int, list[int]]) -> CocoDataset:
    """Four images a to d, and annotations by image, category and box."""
    images = {name: CocoImage(name, f"{name}.png", (60, 90)) for name in "abcd"}
    entries = tuple(
        {"id": number, "image_id": image, "category_id": category, "bbox": box}
        for number, (image, category, box) in enumerate(annotations)
    )
    return CocoDataset("targets.json", images, dict(enumerate(CLASSES, 1)), entries)


def result(image: str, category: int, box: list[int], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def pictured(name: str, truth: list[Shown], found: list[Shown]) -> Pictured:
    return Pictured(f"{name}.png", name, truth, found, judge(truth, found))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of what a page shows, in order; no file is needed."""
    paths: list[str] = []

    def open_nothing(each: Pictured) -> Image.Image:
        paths.append(each.path)
        return Image.new("RGB", (90, 60))

    monkeypatch.setattr(sheets, "_open", open_nothing)
    return paths


class TestWriteSheets:
    def test_files_and_counts(self, folder: Path) -> None:
        coco = targets(("a", 1, LEFT), ("a", 2, RIGHT), ("b", 1, LEFT))
        results = [result("a", 1, LEFT), result("a", 3, RIGHT), result("b", 2, LEFT), result("c", 1, LEFT)]
        out = folder / "out"
        paths = write_sheets(coco, [1, 2, 3], results, folder, 0.5, out, "Title")
        assert [path.name for path in paths] == ["best_and_worst.png", "confused.png", "confused.json"]
        for path in paths[:2]:
            with Image.open(path) as page:
                assert page.width == 1200
        content = json.loads(paths[2].read_text())
        assert content["images"] == 4
        assert content["thresholds"] == dict.fromkeys(CLASSES, 0.5)
        assert content["classes"]["cow"] == {"objects": 2, "right": 1, "missed": 1, "wrong": 1, "confused": 0}
        assert content["classes"]["cat"] == {"objects": 0, "right": 0, "missed": 0, "wrong": 0, "confused": 1}
        assert content["pairs"] == [
            {"truth": "horse", "found": "cat", "times": 1},
            {"truth": "cow", "found": "horse", "times": 1},
        ]

    def test_thresholds_by_class_and_other_classes_left_out(self, folder: Path) -> None:
        results = [result("a", 1, LEFT, 0.4), result("a", 2, RIGHT, 0.4), result("a", 3, LEFT, 0.9)]
        coco = targets(("a", 3, LEFT))
        write_sheets(coco, [1, 2], results, folder, {"cow": 0.5}, folder / "out", "Title")
        classes = json.loads((folder / "out" / "confused.json").read_text())["classes"]
        assert {name: counts["wrong"] for name, counts in classes.items()} == {"cow": 0, "horse": 1}

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        empty = CocoDataset("targets.json", {}, {1: "cow"}, ())
        for path in write_sheets(empty, [1], [], tmp_path, 0.5, tmp_path / "out", "Title"):
            assert path.is_file()

    def test_unreadable_images_are_passed_over(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        (folder / "a.png").write_bytes(b"no image")
        (folder / "b.png").unlink()
        coco = targets(("a", 1, LEFT), ("b", 1, LEFT), ("c", 1, LEFT))
        results = [result(name, 1 + (name == "b"), LEFT) for name in "abc"]
        paths = write_sheets(coco, [1, 2], results, folder, 0.5, folder / "out", "Title")
        assert all(path.is_file() for path in paths)
        assert "a.png" in caplog.text
        assert "b.png" in caplog.text


class TestDrawSheet:
    BOX = (5.0, 5.0, 35.0, 35.0)
    OTHER = (50.0, 5.0, 80.0, 35.0)

    def test_order_of_best_and_worst(self, tmp_path: Path, opened: list[str]) -> None:
        cow, hit = Shown("cow", self.BOX), Shown("cow", self.BOX, score=0.9)
        second, miss = Shown("cow", self.OTHER), Shown("horse", self.OTHER, score=0.8)
        images = [
            pictured("empty", [], []),
            pictured("right", [cow], [hit]),
            pictured("two right", [cow, second], [hit, Shown("cow", self.OTHER, score=0.9)]),
            pictured("half", [cow], [hit, miss]),
            pictured("wrong", [], [miss]),
            pictured("two wrong", [], [hit, miss]),
        ]
        draw_sheet("Title", images, CLASSES, tmp_path / "page.png", num_best=2, num_worst=3)
        assert opened == [f"{name}.png" for name in ("two right", "right", "two wrong", "wrong", "half")]

    def test_no_image_is_shown_twice(self, tmp_path: Path, opened: list[str]) -> None:
        both = [Shown("cow", self.BOX, score=0.9), Shown("horse", self.OTHER, score=0.9)]
        draw_sheet("Title", [pictured("half", [Shown("cow", self.BOX)], both)], CLASSES, tmp_path / "page.png")
        assert opened == ["half.png"]

    def test_captions_say_what_is_wrong(self) -> None:
        truth = [Shown("cow", self.BOX), Shown("cat", self.OTHER, crowd=True)]
        found = [Shown("a class with a name that is long", self.BOX, score=0.75)]
        each = Pictured("", "", truth, found, Judgement(missed=(0,), confused=((0, 0),)))
        assert sheets._truth_captions(each) == ["cow, missed", "cat, not counted"]
        assert sheets._found_captions(each) == ["a class with…hat is long 0.75, is cow"]


class TestDrawConfused:
    def test_most_frequent_pair_first_and_best_scores(self, tmp_path: Path, opened: list[str]) -> None:
        box = (5.0, 5.0, 35.0, 35.0)
        images = [
            pictured(f"{truth} {score}", [Shown(truth, box)], [Shown(found, box, score=score)])
            for truth, found, score in [("cow", "cat", 0.9), *(("cow", "horse", score) for score in (0.5, 0.7, 0.6))]
        ]
        draw_confused("Title", images, tmp_path / "page.png", num_crops=2)
        assert opened == ["cow 0.7.png", "cow 0.6.png", "cow 0.9.png"]
        assert count(images, CLASSES)["pairs"][0] == {"truth": "cow", "found": "horse", "times": 3}

    def test_no_confusion_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        original = sheets.line

        def keep(text: str, size: int, *width: int) -> Image.Image:
            said.append(text)
            return original(text, size, *width)

        monkeypatch.setattr(sheets, "line", keep)
        draw_confused("Title", [], tmp_path / "page.png")
        assert said[-1] == "No object was taken for another class in 0 images."


def test_deep_images_are_shown_as_they_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((60, 90), 1000, np.uint16)).save(tmp_path / "a.png")
    missed = {"id": 1, "image_id": 1, "category_id": 1, "bbox": LEFT}
    shown = CocoDataset("t.json", {1: CocoImage(1, "a.png", (60, 90))}, {1: "cow"}, (missed,))
    seen = []
    monkeypatch.setattr(sheets, "draw_panel", lambda image, *_: seen.append(image.getpixel((5, 5))) or image)
    for pixel_range in ((0, 1000), (0, 2000)):
        write_sheets(shown, [1], [], tmp_path, 0.5, tmp_path / "out", "title", PixelSettings(pixel_range))
    assert [seen[0], seen[-1]] == [(255, 255, 255), (128, 128, 128)]
