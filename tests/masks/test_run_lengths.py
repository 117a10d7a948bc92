"""Run lengths out of many codes at once, against a plain loop over their characters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from refseg.masks.run_lengths import filled_runs, run_lengths
from tests.masks.test_rle import SHAPES, draw_masks, encode, write_code


def read_code_plainly(code: bytes) -> list[int]:
    """One character after the other."""
    runs: list[int] = []
    number = shift = 0
    for character in code:
        number |= ((character - 48) & 31) << shift
        shift += 5
        if not (character - 48) & 32:
            if (character - 48) & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs


class TestRunLengths:
    def test_are_a_plain_loop_over_the_characters(self, rng: np.random.Generator) -> None:
        codes = [code for shape in SHAPES for code in encode(draw_masks(rng, 10, shape))]
        runs, starts = run_lengths(codes)
        assert runs.dtype == starts.dtype == np.int64
        assert len(starts) == len(codes) + 1
        assert starts[-1] == len(runs)
        for code, start, stop in zip(codes, starts[:-1], starts[1:], strict=True):
            assert runs[start:stop].tolist() == read_code_plainly(code)

    def test_are_those_that_were_written(self, rng: np.random.Generator) -> None:
        written = [rng.integers(0, 10 ** rng.integers(1, 12), count).tolist() for count in range(1, 30)]
        runs, starts = run_lengths([write_code(part) for part in written])
        assert [runs[a:b].tolist() for a, b in pairwise(starts)] == written

    def test_of_numbers_that_are_too_long(self) -> None:
        with pytest.raises(ValueError, match="a number that is too long"):
            run_lengths([b"1", b"o" * 12 + b"0"])

    def test_of_nothing(self) -> None:
        runs, starts = run_lengths([])
        assert (runs.tolist(), starts.tolist()) == ([], [0])


class TestFilledRuns:
    def test_fill_the_masks(self, rng: np.random.Generator) -> None:
        for shape in SHAPES:
            masks = draw_masks(rng, 10, shape)
            area = shape[0] * shape[1]
            found = np.zeros(10 * area, bool)
            for begin, end in zip(*filled_runs(encode(masks), area), strict=True):
                assert begin < end
                found[begin:end] = True
            np.testing.assert_array_equal(found.reshape(10, shape[1], shape[0]).transpose(0, 2, 1), masks)

    def test_of_another_size(self) -> None:
        with pytest.raises(ValueError, match="does not add up to the size of its mask"):
            filled_runs([write_code([5, 7])], 13)

    def test_of_nothing(self) -> None:
        begins, ends = filled_runs([], 9)
        assert (begins.tolist(), ends.tolist()) == ([], [])
