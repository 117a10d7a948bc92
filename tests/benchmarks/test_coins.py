"""The coins: what is one, which one is shown, and what counts as found, as wrong and as cut at a seam, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skimage import data

from benchmarks.coins import count_cut, count_found, nearest_to_middle, true_coins
from benchmarks.one_photograph import as_coco
from benchmarks.quality_scores import judge
from refseg.candidates.tiles import Window
from refseg.coco import parse_coco
from tests.benchmarks.test_one_photograph import code, square

HW = (128, 128)


def test_there_are_24_coins() -> None:
    coins = true_coins(data.coins())
    assert len(coins) == 24
    assert not (np.sum(coins, 0) > 1).any()
    assert 1000 < min(coin.sum() for coin in coins) < max(coin.sum() for coin in coins) < 3500


def test_the_coin_in_the_middle_is_shown() -> None:
    coins = true_coins(data.coins())
    rows, columns = np.nonzero(coins[nearest_to_middle(coins)])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (186, 105, 226, 144)
    assert nearest_to_middle([square(0, 0, 9, 9), square(20, 9, 3, 3), square(13, 8, 4, 4)]) == 2


def entry(score: float, x: int) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "score": score, "segmentation": code(square(x, 0, 10, 10, HW))}


def test_what_is_found_and_what_is_no_coin() -> None:
    truth = parse_coco(as_coco([square(x, 0, 10, 10, HW) for x in (0, 20, 40)], HW, "coin"), "by hand")
    again, nothing = entry(0.7, 21), entry(0.6, 80)
    # The one at 37 has 7 of its 10 columns in common with the third coin: an IoU of 7/13.
    found = [entry(0.9, 20), entry(0.8, 0), again, nothing, entry(0.5, 37)]
    assert count_found(judge(truth, found), shown=0) == (2, 2)
    assert count_found(judge(truth, found), shown=2) == (2, 2)
    assert count_found(judge(truth, [*found, entry(0.4, 1)]), shown=0) == (2, 3)  # a second instance of the shown one
    assert count_found(judge(truth, []), shown=0) == (0, 0)


@pytest.mark.parametrize(
    ("x", "width", "cut"),
    [
        (10, 54, 1),  # ends where the tile does
        (10, 49, 1),  # and a little before it
        (10, 40, 0),  # far from the seam: a part of the object, but not cut by it
        (10, 100, 0),  # the whole object, which lies in no tile
        (44, 20, 0),  # less than half of what the tile shows of it
    ],
)
def test_a_mask_that_ends_at_a_seam_within_an_object(x: int, width: int, cut: int) -> None:
    tile = Window((0, 0, 16, 32), 32)
    assert tile.pixels(HW) == (0, 0, 64, 128)
    masks = [code(square(x, 20, width, 20, HW)), code(square(90, 90, 9, 9, HW))]
    assert count_cut(masks, [square(10, 20, 100, 20, HW)], [tile]) == cut
    assert count_cut(masks, [square(10, 20, 54, 20, HW)], [tile]) == 0  # the edge does not cut this one
    assert count_cut([], [square(10, 20, 100, 20, HW)], [tile]) == 0


def test_the_edge_of_the_image_is_no_seam() -> None:
    tile = Window((0, 0, 16, 32), 32)
    assert count_cut([code(square(0, 20, 40, 20, HW))], [square(0, 20, 100, 20, HW)], [tile]) == 0
    assert count_cut([code(square(0, 20, 60, 20, HW))], [square(0, 20, 100, 20, HW)], [tile]) == 1
