"""Pictures: paint stays inside masks, pages have the size they must, captions stay on the page."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from refseg.errors import ShapeError
from refseg.images.drawing import (
    BRIGHT,
    COLORS,
    INK,
    MISSED,
    PAPER,
    RIGHT,
    DrawnObject,
    draw_objects,
    draw_outlines,
    fit,
    line_of_text,
    outline_object,
    paragraph,
    sheet,
)

HEIGHT, WIDTH = 80, 120


@pytest.fixture
def image(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def disc(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(x, y) < side / 2


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return (np.asarray(before) != np.asarray(after)).any(-1)


class TestDrawObjects:
    def test_paint_stays_inside_the_mask(self, image: Image.Image) -> None:
        mask = disc(40)
        drawn = draw_objects(image, [DrawnObject((30, 20, 70, 60), mask, 1)])
        whole = np.zeros((HEIGHT, WIDTH), bool)
        whole[20:60, 30:70] = mask
        touched = changed(image, drawn)
        assert not (touched & ~whole).any()
        assert touched[whole].mean() > 0.9  # a pixel may have had the colour already

    def test_outline_and_tint(self, image: Image.Image) -> None:
        color = np.array(COLORS[2])
        drawn = np.asarray(draw_objects(image, [DrawnObject((10, 10, 30, 30), np.ones((20, 20), bool), 2)]))
        square, before = drawn[10:30, 10:30], np.asarray(image)[10:30, 10:30]
        rim = np.ones((20, 20), bool)
        rim[2:-2, 2:-2] = False
        assert (square[rim] == color).all()
        np.testing.assert_allclose(square[~rim], before[~rim] * 0.55 + color * 0.45, atol=1)

    def test_image_itself_is_not_changed(self, image: Image.Image) -> None:
        before = np.asarray(image).copy()
        draw_objects(image, [DrawnObject((0, 0, 40, 40), disc(40), 0, "a")])
        np.testing.assert_array_equal(np.asarray(image), before)

    def test_nothing_to_draw(self, image: Image.Image) -> None:
        np.testing.assert_array_equal(np.asarray(draw_objects(image, [])), np.asarray(image))
        empty = DrawnObject((10, 10, 20, 20), np.zeros((10, 10), bool), 0)
        np.testing.assert_array_equal(np.asarray(draw_objects(image, [empty])), np.asarray(image))

    def test_grey_image(self) -> None:
        drawn = draw_objects(Image.new("L", (50, 50), 100), [DrawnObject((10, 10, 40, 40), np.ones((30, 30), bool), 0)])
        assert drawn.mode == "RGB"
        assert drawn.getpixel((5, 5)) == (100, 100, 100)
        assert drawn.getpixel((10, 10)) == COLORS[0]

    def test_colors_repeat(self, image: Image.Image) -> None:
        pictures = [
            np.asarray(draw_objects(image, [DrawnObject((10, 10, 50, 50), disc(40), color)]))
            for color in (3, 3 + len(COLORS), 4)
        ]
        np.testing.assert_array_equal(pictures[0], pictures[1])
        assert (pictures[0] != pictures[2]).any()

    def test_mask_that_leaves_the_image_is_cut(self, image: Image.Image) -> None:
        drawn = draw_objects(image, [DrawnObject((100, 60, 140, 100), np.ones((40, 40), bool), 0)])
        assert drawn.size == image.size
        touched = changed(image, drawn)
        assert touched[60:, 100:].mean() > 0.9
        assert not touched[:60].any()
        assert not touched[:, :100].any()

    @pytest.mark.parametrize("place", [(0, 0), (110, 0), (0, 70), (110, 70), (50, 40)])
    def test_caption_is_whole_at_every_border(self, place: tuple[int, int]) -> None:
        """Wherever the object lies, its caption shows as many pixels of text as in the middle of a large image."""
        x, y = place

        def letters(size: tuple[int, int], corner: tuple[int, int]) -> int:
            box = (*corner, corner[0] + 10, corner[1] + 10)
            item = DrawnObject(box, np.zeros((10, 10), bool), 5, "gear 0.87")
            drawn = np.asarray(draw_objects(Image.new("RGB", size, PAPER), [item]))
            assert (drawn == INK).all(-1).any()
            return int((drawn == COLORS[5]).all(-1).sum())

        assert letters((WIDTH, HEIGHT), (x, y)) == letters((600, 400), (300, 200)) > 0

    def test_caption_wider_than_the_image(self) -> None:
        item = DrawnObject((10, 10, 20, 20), np.ones((10, 10), bool), 0, "a name that is much longer than the image is wide")
        drawn = draw_objects(Image.new("RGB", (40, 40), PAPER), [item])
        assert drawn.size == (40, 40)
        assert (np.asarray(drawn)[:, 0] == INK).all(-1).any()  # it starts at the left edge

    def test_caption_of_any_letters(self, image: Image.Image) -> None:
        item = DrawnObject((30, 30, 50, 50), disc(20), 0, "é.$ 🦋 部品")
        assert changed(image, draw_objects(image, [item]))[:30].any()


class TestDrawOutlines:
    @pytest.mark.parametrize("scale", [1, 2])
    def test_line_along_the_inside_alone(self, scale: int) -> None:
        image = Image.new("RGB", (60, 40), (10, 20, 30))
        drawn = np.asarray(draw_outlines(image, [DrawnObject((5, 8, 25, 24), np.ones((16, 20), bool), RIGHT)], scale))
        assert drawn.shape == (40 * scale, 60 * scale, 3)
        green = (drawn == COLORS[RIGHT]).all(2)
        inner = (16 * scale - 4) * (20 * scale - 4)
        assert green[8 * scale : 24 * scale, 5 * scale : 25 * scale].sum() == green.sum() == 16 * 20 * scale**2 - inner
        assert (drawn[~green] == (10, 20, 30)).all()

    def test_a_broken_line_leaves_gaps(self, image: Image.Image) -> None:
        whole, broken = (
            changed(image, draw_outlines(image, [DrawnObject((10, 10, 60, 60), disc(50), MISSED, dashed=dashed)]))
            for dashed in (False, True)
        )
        assert not (broken & ~whole).any()
        assert 0.3 < broken.sum() / whole.sum() < 0.7

    def test_captions_cover_no_object_where_there_is_room(self) -> None:
        image = Image.new("RGB", (300, 200), PAPER)
        boxes = [(20, 30, 80, 90), (20, 110, 80, 170), (120, 0, 180, 60), (230, 70, 299, 139)]
        items = [DrawnObject(box, np.ones((box[3] - box[1], box[2] - box[0]), bool), 2, "star 0.87") for box in boxes]
        drawn = np.asarray(draw_outlines(image, items))
        dark = (drawn == INK).all(-1)
        for x0, y0, x1, y1 in boxes:
            assert not dark[y0:y1, x0:x1].any()
        text = (drawn == COLORS[2]).all(-1) & ~np.any([_within(box, dark.shape) for box in boxes], 0)
        lone = np.asarray(draw_outlines(image, items[:1]))
        own = (lone == COLORS[2]).all(-1) & ~_within(boxes[0], dark.shape)
        assert text.sum() == 4 * own.sum() > 0, "each caption is whole, and none lies on another"

    def test_image_itself_is_not_changed(self, image: Image.Image) -> None:
        before = np.asarray(image).copy()
        draw_outlines(image, [DrawnObject((0, 0, 40, 40), disc(40), 0, "a")])
        np.testing.assert_array_equal(np.asarray(image), before)

    def test_objects_and_captions_at_the_border(self, image: Image.Image) -> None:
        items = [
            DrawnObject((WIDTH - 10, HEIGHT - 10, WIDTH + 10, HEIGHT + 10), np.ones((20, 20), bool), 1, "cut off"),
            DrawnObject(
                (0, 0, WIDTH, HEIGHT), np.ones((HEIGHT, WIDTH), bool), 2, "all of it, and a caption that is wider than that"
            ),
            DrawnObject((5, 5, 9, 9), np.zeros((4, 4), bool), 3),
        ]
        assert draw_outlines(image, items).size == image.size


def _within(box: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    inside = np.zeros(image_hw, bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return inside


class TestOutlineObject:
    def test_line_between_dark_edges_around_the_mask(self, image: Image.Image) -> None:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20:40, 30:60] = True
        drawn = np.asarray(outline_object(image, mask, width=2))
        # Outwards from the left side of the mask: dark, two bright, dark, untouched.
        assert [tuple(pixel) for pixel in drawn[30, 26:30]] == [INK, BRIGHT, BRIGHT, INK]
        untouched = np.ones((HEIGHT, WIDTH), bool)
        untouched[16:44, 26:64] = False
        untouched |= mask
        np.testing.assert_array_equal(drawn[untouched], np.asarray(image)[untouched])

    def test_empty_mask_and_mask_of_everything(self, image: Image.Image) -> None:
        for mask in (np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)):
            np.testing.assert_array_equal(np.asarray(outline_object(image, mask)), np.asarray(image))

    def test_mask_of_another_size(self, image: Image.Image) -> None:
        with pytest.raises(ShapeError, match=r"A mask of \(3, 4\) pixels does not fit an image of \(80, 120\)"):
            outline_object(image, np.ones((3, 4), bool))


class TestFit:
    def test_ground(self) -> None:
        page = fit(Image.new("RGB", (40, 20), (200, 0, 0)), 80, 80, INK)
        assert page.getpixel((40, 5)) == INK
        assert page.getpixel((40, 40)) == (200, 0, 0)

    @pytest.mark.parametrize("size", [(120, 80), (10, 300), (300, 10), (1, 5000), (5000, 1), (60, 60)])
    def test_size_of_the_page(self, size: tuple[int, int]) -> None:
        assert fit(Image.new("RGB", size), 60, 60).size == (60, 60)

    def test_centred_on_paper_without_stretching(self) -> None:
        page = np.asarray(fit(Image.new("RGB", (40, 20), (200, 0, 0)), 80, 80))
        inside = (page == (200, 0, 0)).all(-1)
        assert inside[20:60].all()
        assert not inside[:20].any()
        assert not inside[60:].any()
        assert (page[:20] == PAPER).all()


class TestSheet:
    def test_size_and_places(self) -> None:
        red, green, blue = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
        rows = [[Image.new("RGB", (30, 20), red), Image.new("RGB", (10, 40), green)], [Image.new("RGB", (25, 15), blue)]]
        page = sheet(rows, gap=5)
        assert page.size == (5 + 30 + 5 + 10 + 5, 5 + 40 + 5 + 15 + 5)
        assert page.getpixel((5, 5)) == red
        assert page.getpixel((34, 24)) == red
        assert page.getpixel((34, 25)) == PAPER
        assert page.getpixel((40, 5)) == green
        assert page.getpixel((49, 44)) == green
        assert page.getpixel((5, 50)) == blue
        assert page.getpixel((29, 64)) == blue
        counts = {color: count for count, color in page.getcolors()}
        assert counts == {red: 600, green: 400, blue: 375, PAPER: page.width * page.height - 1375}


def test_line_of_text() -> None:
    strip = line_of_text("references", 200, 20)
    assert strip.size == (200, 32)
    columns = np.nonzero((np.asarray(strip) != PAPER).any((0, 2)))[0]
    text_width = ImageDraw.Draw(strip).textlength("references", ImageFont.load_default(20))
    assert columns.max() - columns.min() == pytest.approx(text_width, abs=4)
    assert (np.asarray(line_of_text("", 50)) == PAPER).all()


class TestParagraph:
    def test_as_many_lines_as_it_takes(self) -> None:
        one, three = paragraph("a word", 300, 14), paragraph("some words " * 9, 200, 14)
        assert (one.size, three.width) == ((300, 19), 200)
        assert three.height == 19 * round(three.height / 19) > 19
        # Nothing is written on the last pixels of a line, so nothing was cut.
        assert (np.asarray(three)[:, -2:] == PAPER).all()

    def test_color_and_no_text(self) -> None:
        written = np.asarray(paragraph("red", 100, 14, (255, 0, 0)))
        assert (written == (255, 0, 0)).all(-1).any()
        assert (np.asarray(paragraph("", 100)) == PAPER).all()
