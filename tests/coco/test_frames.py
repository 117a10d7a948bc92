from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from refseg.coco.frames import FramedImage, frame_hint, turned_boxes
from refseg.images.reading import read_orientation

STORED = [(2, 1, 7, 4), (11, 6, 16, 10), (0, 5, 2, 12)]
"""x0, y0, x1, y1 of a stored image of 20 by 12."""


def upright(orientation: int, path: Path) -> tuple[list[list[int]], tuple[int, int]]:
    """The boxes as Pillow turns an image that shows them, and its height and width."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((12, 20), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(STORED, 1):
        pixels[y0:y1, x0:x1] = number
    Image.fromarray(pixels).save(path, exif=exif)
    assert read_orientation(path) == orientation
    turned = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    places = [np.nonzero(turned == number) for number in range(1, 4)]
    return [[int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1] for ys, xs in places], turned.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pixels_do(orientation: int, tmp_path: Path) -> None:
    expected, image_hw = upright(orientation, tmp_path / "a.png")
    assert turned_boxes(STORED, orientation, image_hw).tolist() == expected
    found = FramedImage(orientation, image_hw, STORED, expected)
    hint = frame_hint([found])
    if orientation == 1:
        assert hint is None
    else:
        assert hint is not None
        assert hint.startswith("1 image is turned upright")
        assert "of 3 objects 0 are met as they are annotated, and 3 if they are turned" in hint


def test_without_reason_nothing_is_said() -> None:
    right = turned_boxes(STORED, 3, (12, 20))
    # Annotated upright; nothing found; too few objects; in the middle, where a turn changes nothing.
    assert frame_hint([FramedImage(3, (12, 20), right, right)]) is None
    assert frame_hint([FramedImage(3, (12, 20), STORED, [])]) is None
    assert frame_hint([FramedImage(3, (12, 20), STORED[:2], right)]) is None
    middle = [(5, 3, 15, 9)] * 3
    assert frame_hint([FramedImage(3, (12, 20), middle, middle)]) is None
    assert frame_hint([]) is None


def test_candidates_tell_where_predictions_are_of_anything() -> None:
    right, elsewhere = turned_boxes(STORED, 3, (12, 20)), [(8, 0, 10, 2)]
    assert frame_hint([FramedImage(3, (12, 20), STORED, elsewhere)]) is None
    hint = frame_hint([FramedImage(3, (12, 20), STORED, elsewhere, right)])
    assert hint is not None
    assert "of 3 objects 0 are met as they are annotated, and 3 if they are turned" in hint
    # Where candidates lie on the objects as they are annotated too, they tell nothing; nor where predictions do.
    assert frame_hint([FramedImage(3, (12, 20), STORED, elsewhere, [*right, *STORED])]) is None
    assert frame_hint([FramedImage(3, (12, 20), STORED, STORED, right)]) is None


def test_all_images_that_are_turned_count_together() -> None:
    right = turned_boxes(STORED, 3, (12, 20))
    turned = FramedImage(3, (12, 20), STORED, right)
    missed = FramedImage(3, (12, 20), STORED, [])
    plain = FramedImage(1, (12, 20), STORED, STORED)
    hint = frame_hint([turned, missed, plain, plain, FramedImage(6, (20, 12), [], [])])
    assert hint is not None
    assert hint.startswith("2 images are turned upright")
    assert "of 6 objects 0 are met as they are annotated, and 3 if" in hint
    assert frame_hint([turned, missed, missed]) is None
