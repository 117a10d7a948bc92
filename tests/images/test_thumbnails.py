"""Thumbnails: what is shown of an image, upright and undistorted; outlines; the cache; what cannot be read."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refseg.errors import ImageError
from refseg.images.drawing import BRIGHT, INK
from refseg.images.reading import read_image
from refseg.images.thumbnails import as_data_uri, crop_thumbnail, object_picture

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 60), (40, 60, 210)


def opened(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture)).convert("RGB")


def near(image: Image.Image, place: tuple[int, int], color: tuple[int, int, int], tolerance: int = 14) -> bool:
    """Whether a pixel has a colour, but for what JPEG does to it."""
    return max(abs(a - b) for a, b in zip(image.getpixel(place), color, strict=True)) <= tolerance


def colored(image: Image.Image, color: tuple[int, int, int], tolerance: int = 60) -> np.ndarray:
    return np.abs(np.asarray(image).astype(int) - color).max(-1) <= tolerance


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """400 by 200 pixels, the left half red and the right green, with a blue square at x 100 to 140 and y 80 to 120."""
    image = Image.new("RGB", (400, 200), RED)
    image.paste(GREEN, (200, 0, 400, 200))
    image.paste(BLUE, (100, 80, 140, 120))
    path = tmp_path / "halves.jpg"
    image.save(path, quality=95)
    return path


SQUARE = [100 / 400, 80 / 200, 40 / 400, 40 / 200]


class TestCropThumbnail:
    def test_object_fills_it_but_for_the_margin(self, halves: Path) -> None:
        picture = opened(crop_thumbnail(halves, SQUARE, side=96, margin=1.2))
        assert picture.size == (96, 96)
        assert colored(picture, BLUE)[48].sum() == pytest.approx(80, abs=4)
        assert colored(picture, BLUE)[:, 48].sum() == pytest.approx(80, abs=4)
        assert near(picture, (48, 48), BLUE)
        assert near(picture, (2, 2), RED)

    def test_longer_side_counts(self, halves: Path) -> None:
        picture = opened(crop_thumbnail(halves, [150 / 400, 90 / 200, 100 / 400, 20 / 200], side=80, margin=1.0))
        # 100 by 100 pixels around (200, 100): half red, half green.
        assert near(picture, (10, 10), RED)
        assert near(picture, (70, 70), GREEN)

    def test_square_is_moved_into_the_image(self, halves: Path) -> None:
        picture = opened(crop_thumbnail(halves, [0.0, 0.0, 0.1, 0.2], side=60, margin=2.0))
        assert all(near(picture, place, RED) for place in ((1, 1), (58, 1), (1, 58)))

    def test_image_smaller_than_the_square(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.png"
        Image.new("RGB", (100, 20), GREEN).save(path)
        picture = opened(crop_thumbnail(path, [0, 0, 1, 1], side=50))
        assert near(picture, (25, 25), GREEN)
        assert near(picture, (25, 3), INK)
        assert colored(picture, GREEN)[:, 25].sum() == pytest.approx(10, abs=2)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_upright_like_the_librarys_own_reading(self, tmp_path: Path, orientation: int) -> None:
        image = Image.new("RGB", (300, 180), RED)
        image.paste(GREEN, (0, 0, 60, 50))
        image.paste(BLUE, (240, 0, 300, 50))
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "turned.jpg"
        image.save(path, quality=95, exif=exif)
        whole = opened(crop_thumbnail(path, [0, 0, 1, 1], side=90))
        expected = read_image(path)
        expected.thumbnail((90, 90))
        frame = Image.new("RGB", (90, 90), INK)
        frame.paste(expected, ((90 - expected.width) // 2, (90 - expected.height) // 2))
        for color in (GREEN, BLUE):
            ours, theirs = colored(whole, color, 30), colored(frame, color, 30)
            assert (ours & theirs).sum() > 0.8 * theirs.sum() > 50

    def test_draft_of_a_large_photograph_changes_little(self, tmp_path: Path, rng: np.random.Generator) -> None:
        coarse = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        large = coarse.resize((2400, 1600), Image.Resampling.BICUBIC)
        large.save(tmp_path / "large.jpg", quality=95)
        large.save(tmp_path / "large.png", compress_level=1)
        box = [0.2, 0.3, 0.4, 0.5]
        pictures = [np.asarray(opened(crop_thumbnail(tmp_path / f"large.{kind}", box))).astype(int) for kind in ("jpg", "png")]
        assert np.abs(pictures[0] - pictures[1]).mean() < 4

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1", "I;16"])
    def test_any_mode(self, tmp_path: Path, mode: str) -> None:
        light = 255 if mode == "1" else 200
        values = np.full((40, 40), light, np.uint8)
        image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values).convert(mode)
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        image.save(path)
        assert near(opened(crop_thumbnail(path, [0.2, 0.2, 0.5, 0.5])), (40, 40), (light,) * 3)

    @pytest.mark.parametrize(
        "box", [(0.5, 0.5, 0, 0), (0, 0, 1, 1), (-0.5, -0.5, 0.2, 0.2), (1.2, 0.3, 0.5, 0.5), (0, 0, 3, 3)]
    )
    def test_any_box(self, halves: Path, box: tuple[float, ...]) -> None:
        assert opened(crop_thumbnail(halves, box, mask=np.ones((3, 3), bool))).size == (96, 96)


class TestObjectPicture:
    def test_proportions_are_kept(self, halves: Path) -> None:
        picture = opened(object_picture(halves, SQUARE, None, width=420, height=300, context=2.0))
        assert picture.size == (420, 300)
        blue = colored(picture, BLUE)
        # Twice the box's height fills the picture's, so that the square is half as high; and as wide as it is high.
        assert blue[:, 210].sum() == pytest.approx(150, abs=12)
        assert blue[150].sum() == pytest.approx(150, abs=12)

    def test_small_object_shows_more_around_it(self, halves: Path) -> None:
        picture = opened(object_picture(halves, [0.3, 0.5, 4 / 400, 4 / 200], None, width=400, height=200))
        # Four times as large as in the image, not fifty times: 100 of 400 pixels are seen, 40 of them blue.
        assert colored(picture, BLUE)[40].sum() == pytest.approx(110, abs=60)

    def test_outline_follows_the_mask_and_leaves_it_free(self, halves: Path) -> None:
        mask = np.zeros((40, 40), bool)
        mask[:, :20] = True
        picture = opened(object_picture(halves, SQUARE, mask, width=320, height=320, context=2.0))
        bright = colored(picture, BRIGHT, 90)
        columns = np.flatnonzero(bright[160])
        # The left half of the square: pixels 80 to 160 of the picture; the line stands just outside.
        assert columns.min() == pytest.approx(76, abs=4)
        assert columns.max() == pytest.approx(164, abs=4)
        assert not bright[90:230, 85:155].any()
        assert colored(picture, INK, 60)[160, columns.min() - 3 : columns.max() + 4].any()

    def test_without_a_mask_the_box_is_outlined(self, halves: Path) -> None:
        picture = object_picture(halves, SQUARE, None)
        assert picture == object_picture(halves, SQUARE, np.ones((40, 40), bool))
        assert colored(opened(picture), BRIGHT, 90).any()

    def test_mask_larger_than_the_picture(self, halves: Path) -> None:
        fine = np.zeros((2000, 2000), bool)
        fine[:, :1000] = True
        coarse = np.zeros((40, 40), bool)
        coarse[:, :20] = True
        pictures = [np.asarray(opened(object_picture(halves, SQUARE, mask))).astype(int) for mask in (fine, coarse)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 3


class TestCache:
    def test_changed_file_is_read_again(self, halves: Path) -> None:
        before = crop_thumbnail(halves, SQUARE)
        assert crop_thumbnail(halves, SQUARE) is before
        Image.new("RGB", (400, 200), GREEN).save(halves)
        os.utime(halves, ns=(1, 1))
        assert near(opened(crop_thumbnail(halves, SQUARE)), (48, 48), GREEN)

    def test_masks_and_sizes_are_told_apart(self, halves: Path) -> None:
        mask = np.ones((4, 4), bool)
        other = mask.copy()
        other[:2] = False
        pictures = [crop_thumbnail(halves, SQUARE, mask=m, side=s) for m in (None, mask, other) for s in (64, 96)]
        assert len(set(pictures)) == 6
        assert crop_thumbnail(halves, SQUARE, mask=mask.copy(), side=64) is pictures[2]


class TestUnreadable:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="the file does not exist"):
            crop_thumbnail(tmp_path / "gone.jpg", SQUARE)

    @pytest.mark.parametrize("content", [b"", b"no image"])
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        with pytest.raises(ImageError, match="this is not an image that can be read"):
            object_picture(path, SQUARE, None)

    def test_truncated(self, halves: Path) -> None:
        halves.write_bytes(halves.read_bytes()[:900])
        with pytest.raises(ImageError, match="cannot be read"):
            crop_thumbnail(halves, SQUARE)

    def test_box_that_is_not_finite(self, halves: Path) -> None:
        with pytest.raises(ImageError, match="is not finite"):
            crop_thumbnail(halves, [0.1, float("nan"), 0.1, 0.1])


def test_data_uri(halves: Path, tmp_path: Path) -> None:
    picture = crop_thumbnail(halves, SQUARE)
    kind, text = as_data_uri(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(text) == picture
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert as_data_uri((tmp_path / "a.png").read_bytes()).startswith("data:image/png;base64,iVBOR")


def test_no_torch_and_no_fiftyone(halves: Path) -> None:
    code = f"""
import sys, numpy as np
from refseg.images.thumbnails import crop_thumbnail, object_picture
crop_thumbnail({str(halves)!r}, {SQUARE!r}), object_picture({str(halves)!r}, {SQUARE!r}, np.ones((2, 2), bool))
print([name for name in ("torch", "fiftyone", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
