"""Where the segmenter is asked, and where again, by hand and against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refseg.candidates.prompts import MOST_OF_A_MASK, SAME_MASK_IOU, prompt_grid, prompts_worth_asking

M = 20


def disc(y: int, x: int, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(M), torch.arange(M), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def by_loops(masks: Tensor, predicted: Tensor) -> list[int]:
    """The rule once more, mask by mask."""
    chosen: list[int] = []
    for row in sorted(range(len(masks)), key=lambda row: -float(predicted[row])):
        same = [(masks[row] & masks[other]).sum() >= SAME_MASK_IOU * (masks[row] | masks[other]).sum() for other in chosen]
        if sum(map(bool, same)) < MOST_OF_A_MASK:
            chosen.append(row)
    return sorted(chosen)


class TestPromptsWorthAsking:
    def test_the_best_of_those_that_got_the_same(self) -> None:
        masks = torch.stack([disc(5, 5, 4)] * 5 + [disc(14, 14, 4)])
        assert prompts_worth_asking(masks, torch.tensor([0.5, 0.9, 0.6, 0.8, 0.7, 0.4])).tolist() == [1, 3, 4, 5]

    def test_a_part_is_not_the_whole(self) -> None:
        masks = torch.stack([disc(9, 9, 8)] * 4 + [disc(9, 9, 5)] * 2)
        assert prompts_worth_asking(masks, torch.linspace(0.9, 0.4, 6)).tolist() == [0, 1, 2, 4, 5]

    def test_none(self) -> None:
        assert prompts_worth_asking(torch.zeros(0, M, M, dtype=torch.bool), torch.zeros(0)).tolist() == []

    @pytest.mark.parametrize("seed", range(6))
    def test_against_loops(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randint(4, M - 4, (3, 2), generator=generator).tolist()
        choices = torch.stack([disc(y, x, radius) for y, x in centres for radius in (5, 5.2, 7)])
        masks = choices[torch.randint(0, len(choices), (40,), generator=generator)]
        predicted = torch.rand(40, generator=generator)
        expected = by_loops(masks, predicted)
        assert 3 < len(expected) < 40
        assert prompts_worth_asking(masks, predicted).tolist() == expected


class TestPromptGrid:
    def test_row_major_from_corner_to_corner(self) -> None:
        points = prompt_grid(3, 101)
        assert points.tolist() == [[x, y] for y in (0.5, 50.5, 100.5) for x in (0.5, 50.5, 100.5)]
        assert points.dtype == torch.float32

    @pytest.mark.parametrize(("per_side", "side"), [(16, 256), (32, 1024)])
    def test_shape(self, per_side: int, side: int) -> None:
        points = prompt_grid(per_side, side)
        assert points.shape == (per_side**2, 2)
        assert points.max() == side - 0.5
