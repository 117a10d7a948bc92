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
    place = 5 * (np.arange(len(digits)) - np.repeat(begins, stops - begins + 1))
    if place.max() > 55:
        raise ValueError("a run-length code holds a number that is too long")
    numbers = np.add.reduceat((digits & 31) << place, begins)
    numbers -= np.where(digits[stops] & 16, np.int64(1) << (place[stops] + 5), 0)
    starts = np.concatenate([[0], np.searchsorted(stops, ends - 1) + 1])
    within = np.arange(len(numbers)) - np.repeat(starts[:-1], np.diff(starts))
    for chain in (within % 2 == 1, (within % 2 == 0) & (within > 0)):
        members = np.flatnonzero(chain)
        if len(members):
            totals = np.cumsum(numbers[members])
            heads = np.flatnonzero(within[members] <= 2)  # the first of its chain in each code
            before = totals[heads] - numbers[members[heads]]
            numbers[members] = totals - np.repeat(before, np.diff(np.append(heads, len(members))))
    return numbers, starts
