"""The nuclei that are shown: the recipe gives the same three everywhere."""

from __future__ import annotations

import numpy as np
from skimage import data

from benchmarks.cells import shown_nuclei, true_nuclei


def test_three_round_nuclei_near_the_middle_are_shown() -> None:
    labels = true_nuclei(data.immunohistochemistry())
    shown = shown_nuclei(labels)
    middles = [np.argwhere(mask).mean(0) for mask in shown]
    distances = [np.hypot(*(middle - 256)) for middle in middles]
    assert len(shown) == 3
    assert distances == sorted(distances)
    assert distances[-1] < 64
    assert all(150 < mask.sum() < 500 for mask in shown)
    assert not (np.sum(shown, 0) > 1).any()


def test_of_round_and_large_ones_the_nearest() -> None:
    labels = np.zeros((90, 90), np.int32)
    rows, columns = np.mgrid[:90, :90]
    for number, (y, x, radius) in enumerate([(10, 10, 8), (45, 40, 8), (60, 70, 8), (75, 45, 8), (43, 56, 2)], 1):
        labels[np.hypot(rows - y, columns - x) <= radius] = number
    labels[20:23, 20:80] = 6  # drawn out
    assert [int(labels[mask][0]) for mask in shown_nuclei(labels)] == [2, 3, 4]
