"""Parts of a sheet: what is drawn where, and that no text is cut or hidden."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from refseg.images.drawing import COLORS, INK, PAPER
from refseg.published import panels
from refseg.published.judging import Shown
from refseg.published.panels import CROP, PANEL, draw_crop, draw_panel, line

GREY = (128, 128, 128)


def grey(width: int = 200, height: int = 150) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def test_panel_is_as_wide_as_the_page_allows() -> None:
    assert draw_panel(grey(), [], [], ["cow"]).size == PANEL
    assert draw_panel(grey(1000, 100), [], [], ["cow"]).size == (PANEL[0], 59)
    tall = draw_panel(grey(100, 1000), [], [], ["cow"])
    assert tall.size == PANEL
    assert tall.getpixel((PANEL[0] - 1, 0)) == PAPER


def test_a_small_image_is_not_blown_up() -> None:
    picture = np.asarray(draw_panel(grey(10, 10), [], [], ["cow"]))
    assert (picture == GREY).all(2).sum() == 40 * 40


def test_a_mask_is_drawn_where_it_lies_in_the_colour_of_its_class() -> None:
    item = Shown("horse", (50.0, 50.0, 100.0, 100.0), np.ones((50, 50), bool))
    picture = np.asarray(draw_panel(grey(), [item], [""], ["cow", "horse"]))
    scale = PANEL[0] / 200
    assert tuple(picture[int(50 * scale) + 1, int(75 * scale)]) == COLORS[1]
    assert tuple(picture[int(75 * scale), int(75 * scale)]) not in (COLORS[1], GREY)  # tinted
    assert tuple(picture[int(110 * scale), int(75 * scale)]) == GREY


def test_a_box_alone_is_a_frame() -> None:
    picture = np.asarray(draw_panel(grey(), [Shown("cow", (50.0, 50.0, 100.0, 100.0))], [""], ["cow"]))
    scale = PANEL[0] / 200
    assert tuple(picture[int(50 * scale) + 1, int(75 * scale)]) == COLORS[0]
    assert tuple(picture[int(75 * scale), int(75 * scale)]) == GREY


@pytest.mark.parametrize("box", [(-40.0, -40.0, 20.0, 20.0), (190.0, 140.0, 260.0, 200.0)])
def test_what_reaches_beyond_the_image_is_cut(box: tuple[float, float, float, float]) -> None:
    picture = draw_panel(grey(), [Shown("cow", box)], ["cow"], ["cow"])
    assert picture.size == PANEL
    assert (np.asarray(picture) == COLORS[0]).all(2).any()


@pytest.mark.parametrize("box", [(300.0, 10.0, 600.0, 60.0), (10.0, 300.0, 60.0, 600.0)])
def test_what_lies_beyond_the_image_has_no_caption(box: tuple[float, float, float, float]) -> None:
    picture = draw_panel(grey(), [Shown("cow", box)], ["cow"], ["cow"])
    assert (np.asarray(picture) == GREY).all()


def test_captions_never_hide_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int, int, int]] = []

    class Pen(panels.ImageDraw.ImageDraw):
        def rectangle(self, xy: tuple[int, int, int, int], fill: tuple[int, int, int] | None = None) -> None:
            assert fill == INK
            drawn.append(xy)
            super().rectangle(xy, fill)

    monkeypatch.setattr(panels.ImageDraw, "Draw", Pen)
    items = [Shown("cow", (50.0, 50.0, 90.0, 90.0), score=0.9)] * 60
    draw_panel(grey(), items, ["cow 0.90"] * 60, ["cow"])
    assert 10 < len(drawn) < 60  # the page is full
    for number, a in enumerate(drawn):
        assert a[0] >= 0 <= a[1]
        assert a[2] <= PANEL[0]
        assert a[3] <= PANEL[1]
        for b in drawn[:number]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_a_crop_shows_the_object_and_its_surroundings() -> None:
    item = Shown("cow", (90.0, 60.0, 110.0, 80.0), np.ones((20, 20), bool))
    crop = draw_crop(grey(), item, Shown("horse", item.box, score=0.5), "a.jpg")
    assert crop.width == CROP[0]
    assert crop.height > CROP[1]
    assert (np.asarray(crop) == panels.INK).all(2).any()  # the outline's edge
    # Up to four times as large, with 12 pixels around the 20 of the object.
    assert (np.asarray(crop) == GREY).all(2).any(0).sum() == pytest.approx(4 * 45, abs=4)


def test_a_long_line_is_shortened_in_its_middle() -> None:
    font = ImageFont.load_default(16)
    assert panels._shortened("short", 500, font) == "short"
    text = panels._shortened("beginning " * 20 + "end", 300, font)
    assert text.startswith("beginning")
    assert text.endswith("end")
    assert "…" in text
    assert font.getlength(text) <= 300
    assert panels._shortened("anything", 1, font) == "…"
    assert line("a very long title " * 30, 20).width == panels.WIDTH
