"""Whatever a mask looks like, its code gives it back; whatever a code looks like, it is read or refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from refseg.coco.annotations import read_annotations
from refseg.errors import CocoError
from refseg.masks.rle import annotation_rle, decode_mask, decode_masks, decode_parts, encode_crop, encode_mask
from refseg.masks.run_lengths import run_lengths
from refseg.masks.segmentations import fitting_codes, read_shape
from tests.masks.test_rle import runs_of

EACH = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SIDES = st.integers(1, 9)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.bool_, shape))
CODES = st.one_of(
    st.binary(max_size=12), st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmno").map(str.encode)
)


@st.composite
def placed(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, int]]:
    """An image's mask, the part of it that may hold something, and where that begins."""
    crop = draw(MASKS)
    left, top = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    whole = np.zeros((top + crop.shape[0] + draw(st.integers(0, 4)), left + crop.shape[1] + draw(st.integers(0, 4))), bool)
    whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return whole, crop, (left, top)


@EACH
@given(drawn=placed())
def test_a_crop_is_the_code_of_its_image(drawn: tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, int]]) -> None:
    whole, crop, (left, top) = drawn
    code = encode_crop(crop, (left, top), whole.shape)
    assert code == mask_utils.encode(np.asfortranarray(whole.astype(np.uint8)))
    box = left, top, left + crop.shape[1], top + crop.shape[0]
    assert encode_mask(crop, box, whole.shape) == code
    np.testing.assert_array_equal(decode_mask(code), whole)
    [part] = decode_parts([code], [box])
    np.testing.assert_array_equal(part, crop)


@EACH
@given(masks=st.tuples(SIDES, SIDES).flatmap(lambda shape: st.lists(arrays(np.bool_, shape), min_size=1, max_size=5)))
def test_many_at_once_are_those_alone(masks: list[NDArray[np.bool_]]) -> None:
    height, width = masks[0].shape
    codes = [encode_crop(mask, (0, 0), (height, width)) for mask in masks]
    runs, starts = run_lengths([code["counts"] for code in codes])
    assert [runs[start:stop].tolist() for start, stop in pairwise(starts)] == list(map(runs_of, masks))
    np.testing.assert_array_equal(decode_masks([code["counts"] for code in codes], (height, width)), masks)
    boxes = [(number % width, number % height, width, height) for number in range(len(masks))]
    for mask, (x0, y0, *_), part in zip(masks, boxes, decode_parts(codes, boxes), strict=True):
        np.testing.assert_array_equal(part, mask[y0:, x0:])
    texts = [code["counts"].decode() for code in codes]
    assert fitting_codes(texts, [(height, width)] * len(masks)) == [bool(mask.any()) for mask in masks]
    assert fitting_codes(texts, [(height, width + 1)] * len(masks)) == [False] * len(masks)


@EACH
@given(mask=MASKS)
def test_every_way_to_write_it_down_is_read(mask: NDArray[np.bool_]) -> None:
    height, width = mask.shape
    code = encode_crop(mask, (0, 0), (height, width))
    runs = runs_of(mask)
    for counts in (code["counts"].decode(), runs, [float(run) for run in runs], [str(run) for run in runs]):
        found = annotation_rle({"segmentation": {"size": [height, width], "counts": counts}}, (height, width), "a.json")
        assert found is not None
        np.testing.assert_array_equal(decode_mask(found), mask)


@EACH
@given(codes=st.lists(CODES, max_size=4), side=SIDES)
def test_any_code_is_read_or_refused(codes: list[bytes], side: int) -> None:
    fits = fitting_codes([code.decode("latin-1") for code in codes], [(side, side)] * len(codes))
    try:
        masks = decode_masks(codes, (side, side))
    except ValueError:
        assert not all(fits)
    else:
        assert masks.shape == (len(codes), side, side)
        assert fits == [bool(mask.any()) for mask in masks]


RUNS = st.one_of(
    st.integers(-9, 99), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.just(10**400), st.just(1 << 63)
)


@EACH
@given(counts=st.lists(RUNS, max_size=6), side=SIDES)
def test_any_list_of_runs_is_read_or_refused(counts: list[object], side: int) -> None:
    """Negative runs, fractions, flags and numbers beyond all floats are no runs; nothing is made up in their place."""
    try:
        found = annotation_rle({"id": 1, "segmentation": {"size": [side, side], "counts": counts}}, (side, side), "a.json")
    except CocoError:
        return
    assert found is not None
    numbers = [int(float(str(run))) for run in counts]
    assert not any(isinstance(run, bool) for run in counts)
    assert (sum(numbers), min(numbers) >= 0) == (side * side, True)
    assert int(decode_mask(found).sum()) == sum(numbers[1::2])


@pytest.mark.parametrize(
    "counts", [[1.5, 2.5], [-1, 5], [True, 3], [10**400, 4], [float("nan"), 4], [[4]], {"a": 4}, 4, [1 << 64, 4 - (1 << 64)]]
)
def test_runs_that_are_none(counts: object) -> None:
    with pytest.raises(CocoError, match="is a damaged run-length code"):
        annotation_rle({"id": 1, "segmentation": {"size": [2, 2], "counts": counts}}, (2, 2), "a.json")


def test_a_size_of_no_picture_is_refused() -> None:
    for side in (0, -1, 1 << 21, 10**400, True, 1.5, "x", None, [2]):
        with pytest.raises(CocoError, match="height and width in pixels are needed"):
            read_shape({"size": [2, side], "counts": "04"})


@pytest.mark.parametrize("segmentation", [[0, 1 << 32], [(1 << 32) - 1, 1], "code", "polygon"])
def test_masks_of_more_pixels_than_pycocotools_counts_are_refused(segmentation: object) -> None:
    """It raised errors of its own, or gave boxes that end at 65,535."""
    side = 1 << 16
    shape: object = {"size": [side, side], "counts": segmentation}
    if segmentation == "polygon":
        shape = [[0, 0, side, 0, side, side, 0, side]]
    elif segmentation == "code":
        shape = {"size": [side, side], "counts": "0PPPPP3"}
    with pytest.raises(CocoError, match=r"is of an image of 65536×65536 pixels, more than masks can count"):
        annotation_rle({"id": 1, "segmentation": shape}, (side, side), "a.json")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": shape}
    read = read_annotations([entry], "a.json", {1: (side, side)}, [1])
    assert (read.kept, len(read.left_out)) == ((), 1)
