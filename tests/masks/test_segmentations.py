from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from refseg.errors import CocoError
from refseg.masks.rle import annotation_rle, decode_mask
from refseg.masks.segmentations import are_plain_polygons, check_fits, fitting_codes, read_shape

HW = (30, 40)
OUTLINE = [5, 4, 25, 4, 25, 20, 5, 20]
POINTS = [[5, 4], [25, 4], [25, 20], [5, 20]]


def code_of(*corners: int) -> dict[str, Any]:
    x0, y0, x1, y1 = corners
    mask = np.zeros(HW, np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    code = mask_utils.encode(mask)
    return {"size": list(HW), "counts": code["counts"].decode()}


def pixels(shape: Any) -> np.ndarray:
    code = annotation_rle({"segmentation": shape}, HW, "file.json")
    assert code is not None
    return decode_mask(code)


def expected(*corners: int) -> np.ndarray:
    mask = np.zeros(HW, bool)
    x0, y0, x1, y1 = corners
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    "shape",
    [
        [OUTLINE],
        OUTLINE,
        POINTS,
        [POINTS],
        [[str(value) for value in OUTLINE]],
        [[[str(x), float(y)] for x, y in POINTS]],
        [OUTLINE, [], [1, 2], [1, 2, 3, 4]],
        code_of(5, 4, 25, 20),
        [code_of(5, 4, 25, 20)],
        [code_of(5, 4, 15, 20), code_of(12, 4, 25, 20)],
        {"size": ["30", 40.0], "counts": code_of(5, 4, 25, 20)["counts"]},
        {"size": [30, 40], "counts": [154.0, *["16", 14] * 19, 16, 460]},
    ],
)
def test_one_mask_in_every_shape_it_comes_in(shape: Any) -> None:
    np.testing.assert_array_equal(pixels(shape), expected(5, 4, 25, 20))


def test_what_was_read_reads_as_itself() -> None:
    for shape in ([OUTLINE], OUTLINE, POINTS, [POINTS], code_of(1, 2, 3, 4), [code_of(1, 2, 3, 4)] * 2):
        once = read_shape(shape)
        assert read_shape(once) == once
    assert read_shape([POINTS, [[1, 1], [9, 1], [9, 9]]]) == [OUTLINE, [1, 1, 9, 1, 9, 9]]


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_nothing_is_no_mask(nothing: Any) -> None:
    assert read_shape(nothing) is None


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([[]], "no polygon of three points"),
        ([[1, 2, 3, 4]], "no polygon of three points"),
        ([1, 2, 3, 4], "no polygon of three points"),
        ([[1, 2], [3, 4]], "no polygon of three points"),
        ([[[1, 2], [3, 4]]], "no polygon of three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "not a list of x, y, x, y"),
        ([1, 2, 3, 4, 5, 6, 7], "not a list of x, y, x, y"),
        ([[1, 2, 3, 4, 5, None]], "not a list of x, y, x, y"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a list of x, y, x, y"),
        ([[[1, 2], [3, 4], [5]]], "not a list of x, y, x, y"),
        ([OUTLINE, {"size": [30, 40], "counts": [1200]}], "not a list of x, y, x, y"),
        ("[[1, 1, 9, 1, 9, 9]]", "neither polygons nor"),
        (7, "neither polygons nor"),
        (float("nan"), "neither polygons nor"),
        ({"counts": [1200]}, "of the size None"),
        ({"size": [30], "counts": [1200]}, r"of the size \[30\]"),
        ({"size": [30, 40]}, "neither a text nor whole numbers"),
        ({"size": [30, 40], "counts": [1.5]}, "neither a text nor whole numbers"),
        ([code_of(1, 1, 2, 2), {"size": [40, 30], "counts": [1200]}], r"made for the size \[40, 30\]"),
        ([code_of(1, 1, 2, 2), {"size": [30, 40], "counts": [12]}], "damaged run-length code"),
    ],
)
def test_what_has_no_meaning_is_refused(shape: Any, words: str) -> None:
    with pytest.raises(CocoError, match=words):
        read_shape(shape)
    with pytest.raises(CocoError, match=f"annotation 5 in file.json .*{words}"):
        annotation_rle({"id": 5, "segmentation": shape}, HW, "file.json")


@pytest.mark.parametrize(
    "shape",
    [
        [[50, 4, 60, 4, 60, 20]],
        [[-10, 4, -5, 4, -5, 20]],
        [[5, 4, 20, 4, 9, 4]],
        {"size": list(HW), "counts": [1200]},
        {"size": list(HW), "counts": mask_utils.encode(np.zeros(HW, np.uint8, order="F"))["counts"].decode()},
    ],
)
def test_a_mask_of_no_pixel_fits_but_shows_nothing(shape: Any) -> None:
    read = read_shape(shape)
    assert read is not None
    check_fits(read, HW)
    with pytest.raises(CocoError, match=r"shows no pixel|without a pixel"):
        check_fits(read, HW, shows=True)
    assert not are_plain_polygons(shape, HW)
    assert not pixels(shape).any()


def test_plain_polygons_are_those_that_stay_as_they_are(rng: np.random.Generator) -> None:
    """The fast answer never says yes where the careful one changes or refuses anything, and says yes to what is common."""
    yes = 0
    for _ in range(400):
        polygon: list[Any] = np.round(rng.normal(20, rng.choice([5, 15, 60]), 2 * rng.integers(1, 8)), 1).tolist()
        if rng.random() < 0.3:
            polygon[int(rng.integers(len(polygon)))] = rng.choice([float("nan"), float("inf"), 9e9])
        if rng.random() < 0.1:
            polygon = polygon[:-1]
        if rng.random() < 0.1:
            polygon = [str(value) for value in polygon]
        shape = [polygon]
        if are_plain_polygons(shape, HW):
            yes += 1
            assert read_shape(shape) == shape
            check_fits(shape, HW, shows=True)
    assert yes > 50
    assert are_plain_polygons([OUTLINE], HW)
    assert not are_plain_polygons([OUTLINE, OUTLINE[:4]], HW)
    assert not any(are_plain_polygons(shape, HW) for shape in (None, [], {}, "sky", [[]], OUTLINE, POINTS, code_of(1, 1, 2, 2)))


def test_codes_are_checked_many_at_once() -> None:
    good, empty = code_of(1, 2, 3, 4)["counts"], mask_utils.encode(np.zeros(HW, np.uint8, order="F"))["counts"].decode()
    codes = [good, empty, good, good]
    assert fitting_codes(codes, [HW, HW, (30, 41), HW]) == [True, False, False, True]
    assert fitting_codes([good, "zz\n", "ü", "", good], [HW] * 5) == [True, False, False, False, True]
    assert fitting_codes([], []) == []
    assert fitting_codes([good] * 1100 + [empty], [HW] * 1101) == [True] * 1100 + [False]
