"""The run lengths that COCO's compressed codes stand for, of many codes at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def run_lengths(codes: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run lengths of compressed codes: five bits a character, from the fourth run on as differences to the last but one.

    Returns:
        All runs one after the other, and where each code's begin: (n + 1,), the last entry is their number.

    Raises:
        ValueError: a code is empty, breaks off, or holds other characters.

    Example:
        >>> from pycocotools import mask as mask_utils
        >>> diagonal, bar = mask_utils.encode(np.stack([np.eye(3), np.ones((3, 3))], 2).astype(np.uint8, order="F"))
        >>> run_lengths([diagonal["counts"], bar["counts"]])
        (array([0, 1, 3, 1, 3, 1, 0, 9]), array([0, 6, 8]))
    """
    digits = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
    if not len(codes):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    last = (digits & 32) == 0  # of its number
    if np.diff(ends, prepend=0).min() == 0 or digits.min() < 0 or digits.max() > 63 or not last[ends - 1].all():
        raise ValueError("a run-length code is empty, breaks off or holds characters of none")
    stops = np.flatnonzero(last)
    begins = np.concatenate([[0], stops[:-1] + 1])
    sizes = stops - begins + 1
    if sizes.max() > 12:
        raise ValueError("a run-length code holds a number that is too long")
    numbers = digits[begins] & 31
    for place in range(1, int(sizes.max())):
        longer = np.flatnonzero(sizes > place)
        numbers[longer] |= (digits[begins[longer] + place] & 31) << (5 * place)
    numbers -= ((digits[stops] >> 4) & 1) << (5 * sizes)
    starts = np.concatenate([[0], np.searchsorted(stops, ends - 1) + 1])
    # Each code in rows of two, so that both chains of sums are columns; the very first number is of none.
    rows = (np.diff(starts) + 1) // 2
    first_rows = np.concatenate([[0], np.cumsum(rows)])
    place = np.arange(len(numbers)) + np.repeat(2 * first_rows[:-1] - starts[:-1], np.diff(starts))
    pairs = np.zeros((first_rows[-1], 2), np.int64)
    pairs.reshape(-1)[place] = numbers
    pairs[first_rows[:-1], 0] = 0
    sums = np.cumsum(pairs, axis=0)
    sums -= np.repeat(sums[first_rows[:-1]] - pairs[first_rows[:-1]], rows, axis=0)
    sums[first_rows[:-1], 0] = numbers[starts[:-1]]
    return sums.reshape(-1)[place], starts


def filled_runs(codes: Sequence[bytes], area: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the runs of pixels inside masks of one size begin and end, counted through one mask after the other.

    Args:
        codes: compressed codes.
        area: pixels of each mask.

    Returns:
        (k,) the first pixel of each run, and (k,) the one after its last.

    Raises:
        ValueError: a code is damaged or made for another size.

    Example:
        >>> from pycocotools import mask as mask_utils
        >>> codes = mask_utils.encode(np.stack([np.eye(3), np.ones((3, 3))], 2).astype(np.uint8, order="F"))
        >>> begins, ends = filled_runs([code["counts"] for code in codes], 9)
        >>> begins.tolist(), ends.tolist()
        ([0, 4, 8, 9], [1, 5, 9, 18])
    """
    runs, starts = run_lengths(codes)
    require_whole_masks(runs, starts, area)
    # Runs alternate, from background on; each mask begins anew.
    is_inside = ((np.arange(len(runs)) - np.repeat(starts[:-1], np.diff(starts))) & 1) == 1
    chosen = np.flatnonzero(is_inside & (runs > 0))
    ends = np.cumsum(runs)[chosen]
    return ends - runs[chosen], ends


def require_whole_masks(runs: NDArray[np.int64], starts: NDArray[np.int64], area: int) -> None:
    """Refuse run lengths, as run_lengths gives them, that do not add up to masks of so many pixels.

    Raises:
        ValueError: a code is damaged or made for another size.
    """
    # Run by run first: sums of larger ones could overflow and come out right.
    fits = bool(((runs >= 0) & (runs <= area)).all())
    if not fits or (len(starts) > 1 and (np.add.reduceat(runs, starts[:-1]) != area).any()):
        raise ValueError("a run-length code does not add up to the size of its mask")
