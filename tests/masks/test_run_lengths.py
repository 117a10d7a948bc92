"""Run lengths out of many codes at once, against a plain loop over their characters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from refseg.masks.rle import run_lengths
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

    def test_of_nothing(self) -> None:
        runs, starts = run_lengths([])
        assert (runs.tolist(), starts.tolist()) == ([], [0])
