"""Run-length codes decoded many at once, against a plain loop over their characters and against pycocotools."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from refseg.masks.rle import annotation_rle, decode_mask, decode_masks, encode_mask

Masks = NDArray[np.bool_]

SHAPES = [(1, 1), (1, 7), (7, 1), (16, 16), (5, 31), (256, 256)]


def encode(masks: Masks) -> list[bytes]:
    """pycocotools' codes of (n, h, w) masks."""
    return [code["counts"] for code in mask_utils.encode(np.asfortranarray(masks.transpose(1, 2, 0)).astype(np.uint8))]


def write_number(number: int) -> bytes:
    """One number as COCO writes it: five bits a character, the lowest first, 32 where more follow."""
    characters = b""
    while True:
        bits, number = number & 31, number >> 5
        if number == (-1 if bits & 16 else 0):
            return characters + bytes([bits + 48])
        characters += bytes([bits + 32 + 48])


def write_code(runs: list[int]) -> bytes:
    """Runs as COCO writes them: from the fourth on the difference to the last but one."""
    return b"".join(write_number(run - runs[i - 2] if i > 2 else run) for i, run in enumerate(runs))


def draw_masks(rng: np.random.Generator, count: int, mask_hw: tuple[int, int]) -> Masks:
    """From almost empty to almost full, half of them smooth and half of them noise."""
    height, width = mask_hw
    masks = rng.random((count, height, width)) < np.linspace(0.02, 0.98, count)[:, None, None]
    y, x = np.mgrid[:height, :width]
    for row in range(0, count, 2):
        center, radius = rng.random(2) * mask_hw, rng.random() * max(mask_hw)
        masks[row] = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    return masks


class TestDecodeMasks:
    @pytest.mark.parametrize("mask_hw", SHAPES)
    def test_are_the_masks_that_were_encoded(self, rng: np.random.Generator, mask_hw: tuple[int, int]) -> None:
        masks = draw_masks(rng, 24, mask_hw)
        found = decode_masks(encode(masks), mask_hw)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, masks)

    @pytest.mark.parametrize("mask_hw", SHAPES)
    def test_empty_full_and_single_pixels(self, mask_hw: tuple[int, int]) -> None:
        masks = np.zeros((6, *mask_hw), bool)
        masks[1] = True
        masks[2, 0, 0] = masks[3, -1, -1] = masks[4, -1, 0] = masks[5, 0, -1] = True
        np.testing.assert_array_equal(decode_masks(encode(masks), mask_hw), masks)

    def test_large_mask(self, rng: np.random.Generator) -> None:
        masks = np.repeat(np.repeat(draw_masks(rng, 2, (30, 40)), 60, 1), 70, 2)
        np.testing.assert_array_equal(decode_masks(encode(masks), (1800, 2800)), masks)

    def test_are_pycocotools_own(self, rng: np.random.Generator) -> None:
        codes = encode(draw_masks(rng, 12, (40, 33)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its decoder under NumPy 2
            theirs = mask_utils.decode([{"size": [40, 33], "counts": code} for code in codes])
        np.testing.assert_array_equal(decode_masks(codes, (40, 33)), theirs.transpose(2, 0, 1) > 0)

    def test_order_of_the_codes_is_that_of_the_masks(self, rng: np.random.Generator) -> None:
        masks = draw_masks(rng, 9, (16, 16))
        order = rng.permutation(9)
        codes = encode(masks)
        np.testing.assert_array_equal(decode_masks([codes[row] for row in order], (16, 16)), masks[order])

    def test_one_code_alone_is_that_code_among_others(self, rng: np.random.Generator) -> None:
        codes = encode(draw_masks(rng, 9, (16, 16)))
        together = decode_masks(codes, (16, 16))
        for code, mask in zip(codes, together, strict=True):
            np.testing.assert_array_equal(decode_mask({"size": [16, 16], "counts": code}), mask)

    def test_by_hand(self) -> None:
        # Columns first: two cells out, three in, one out.
        assert decode_masks([write_code([2, 3, 1])], (2, 3)).astype(int).tolist() == [[[0, 1, 1], [0, 1, 0]]]

    def test_of_nothing(self) -> None:
        assert decode_masks([], (4, 5)).shape == (0, 4, 5)
        assert decode_masks([], (4, 5)).dtype == bool

    def test_runs_of_length_zero(self) -> None:
        assert decode_masks([write_code([0, 2, 0, 2])], (2, 2)).all()


DAMAGED = {
    "empty": (b"", "is empty, breaks off"),
    "breaks off within a number": (write_code([100, 156])[:1], "is empty, breaks off"),
    "character below": (b"/", "holds characters of none"),
    "character above": (b"0p", "holds characters of none"),
    "not ASCII": (b"\xff\x30", "holds characters of none"),
    "number without end": (bytes([32 + 48]) * 30 + b"0", "too long"),
    "too short": (write_code([100, 100]), "does not add up"),
    "too long": (write_code([100, 157]), "does not add up"),
    "for another size": (write_code([1024]), "does not add up"),
    "negative run": (write_code([200, -100, 156]), "does not add up"),
}


class TestDamagedCodes:
    @pytest.mark.parametrize("name", DAMAGED)
    def test_alone(self, name: str) -> None:
        code, reason = DAMAGED[name]
        with pytest.raises(ValueError, match=reason):
            decode_masks([code], (16, 16))

    @pytest.mark.parametrize("name", DAMAGED)
    def test_among_good_ones(self, name: str, rng: np.random.Generator) -> None:
        good = encode(draw_masks(rng, 3, (16, 16)))
        for place in range(4):
            with pytest.raises(ValueError, match=DAMAGED[name][1]):
                decode_masks([*good[:place], DAMAGED[name][0], *good[place:]], (16, 16))

    def test_what_one_lacks_another_does_not_make_up_for(self) -> None:
        with pytest.raises(ValueError, match="does not add up"):
            decode_masks([write_code([100, 100]), write_code([100, 212])], (16, 16))

    def test_runs_so_long_that_their_sum_overflows(self) -> None:
        """32 runs of 2^59 − 1 cells, and 32 cells more, are 2^64: none in 64 bits."""
        code = write_code([2**59 - 1] * 32 + [32 + 256])
        with pytest.raises(ValueError, match="does not add up"):
            decode_masks([code], (16, 16))

    def test_any_flipped_bit_gives_a_mask_or_an_error(self, rng: np.random.Generator) -> None:
        (code,) = encode(draw_masks(rng, 1, (16, 16)))
        outcomes = set()
        for position in range(len(code)):
            for bit in range(8):
                flipped = bytearray(code)
                flipped[position] ^= 1 << bit
                try:
                    outcomes.add(decode_masks([bytes(flipped)], (16, 16)).shape)
                except ValueError:
                    outcomes.add(None)
        assert None in outcomes
        assert outcomes <= {None, (1, 16, 16)}


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, column by column, background first: the plain loop."""
    runs, last = [0], False
    for value in mask.T.flatten().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def test_run_lengths_agree_with_pycocotools_and_come_back(rng: np.random.Generator) -> None:
    for share in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((31, 47)) < share
        code = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(decode_mask(code), mask)
        text = {"segmentation": {"size": [31, 47], "counts": code["counts"].decode()}}
        plain = {"segmentation": {"size": [31, 47], "counts": runs_of(mask)}}
        for annotation in (text, plain):
            checked = annotation_rle(annotation, (31, 47), "refs.json")
            assert checked is not None
            assert checked["counts"] == code["counts"]


def test_encode_mask_places_cuts_and_stretches() -> None:
    mask = np.array([[True, False], [True, True]])
    whole = decode_mask(encode_mask(mask, (2.4, 0.6, 4.4, 2.6), (4, 5)))
    assert np.argwhere(whole).tolist() == [[1, 2], [2, 2], [2, 3]]
    # One pixel of difference is rounding: pixels stay as they are. Beyond the border they are cut.
    whole = decode_mask(encode_mask(mask, (4, 3, 7, 6), (4, 5)))
    assert np.argwhere(whole).tolist() == [[3, 4]]
    whole = decode_mask(encode_mask(mask, (0, 0, 4, 4), (4, 5)))
    assert whole.sum() == 12
    assert not whole[:2, 2:].any()
    assert decode_mask(encode_mask(np.zeros((0, 0), bool), (1, 1, 2, 2), (4, 5))).sum() == 0
