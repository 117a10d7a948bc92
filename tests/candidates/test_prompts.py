"""Which prompts their neighbours answer for, against plain loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refseg.candidates.prompts import PROMISING_IOU, SAME_MASK_IOU, coarse_prompts, open_prompts, prompt_grid

N, M = 5, 20
CELL = [round(number * (M - 1) / (N - 1)) for number in range(N)]


def disc(y: int, x: int, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(M), torch.arange(M), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def by_loops(per_side: int, predicted: Tensor, kept: Tensor, masks: Tensor) -> list[int]:
    """The rule once more, prompt by prompt."""
    coarse = coarse_prompts(per_side).tolist()
    mask_of = {coarse[number]: mask for number, mask in zip(kept.tolist(), masks, strict=True)}
    cells = [round(number * (masks.shape[-1] - 1) / (per_side - 1)) for number in range(per_side)]
    left = []
    for y in range(per_side):
        for x in range(per_side):
            if y % 2 == 0 and x % 2 == 0:
                continue
            near = [row for row in coarse if abs(row // per_side - y) <= 1 and abs(row % per_side - x) <= 1]
            covering = [mask_of[row] for row in near if row in mask_of and mask_of[row][cells[y], cells[x]]]
            agreed = any(
                (one & other).sum() >= SAME_MASK_IOU * (one | other).sum()
                for number, one in enumerate(covering)
                for other in covering[:number]
            )
            if any(predicted[coarse.index(row)] >= PROMISING_IOU for row in near) and not agreed:
                left.append(y * per_side + x)
    return left


def found_open(predicted: dict[int, float], masks: dict[int, Tensor]) -> list[int]:
    """Of the 5 × 5 grid: what coarse prompts, by their row in the grid, are predicted and got; 0 and nothing for the others."""
    coarse = coarse_prompts(N).tolist()
    kept = [coarse.index(row) for row in masks]
    own = torch.stack(list(masks.values())) if masks else torch.zeros(0, M, M, dtype=torch.bool)
    values = torch.tensor([predicted.get(row, 0.0) for row in coarse])
    return open_prompts(N, values, torch.tensor(kept, dtype=torch.int64), own).tolist()


def test_coarse_prompts_are_a_quarter() -> None:
    assert coarse_prompts(5).tolist() == [0, 2, 4, 10, 12, 14, 20, 22, 24]
    assert len(coarse_prompts(32)) == 256


def test_nothing_is_left_where_no_prompt_is_promising() -> None:
    assert found_open({}, {}) == []
    assert found_open({12: PROMISING_IOU - 0.01}, {}) == []


def test_a_promising_prompt_leaves_its_neighbours_open() -> None:
    around = [6, 7, 8, 11, 13, 16, 17, 18]  # of the middle one of 5 × 5
    assert found_open({12: PROMISING_IOU}, {}) == around
    assert found_open({12: 0.9}, {12: disc(CELL[2], CELL[2], 1)}) == around


def test_two_that_agree_answer_for_what_they_cover() -> None:
    same = disc(CELL[2], CELL[1], 7)
    # Prompt 11 lies between 10 and 12, 6 and 16 above and below it; the disc covers all three.
    assert not {6, 11, 16} & set(found_open({10: 0.9, 12: 0.9}, {10: same, 12: same}))
    assert 11 in found_open({10: 0.9, 12: 0.9}, {10: same, 12: disc(CELL[2], CELL[1], 3)})


def test_one_mask_alone_answers_for_nothing() -> None:
    assert 11 in found_open({10: 0.9}, {10: torch.ones(M, M, dtype=torch.bool)})


@pytest.mark.parametrize("per_side", [2, 5, 6, 9])
def test_against_loops(per_side: int) -> None:
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        predicted = torch.rand(len(coarse_prompts(per_side)), generator=generator)
        kept = (predicted > 0.4).nonzero()[:, 0]
        centres = torch.randint(0, M, (2, 2), generator=generator).tolist()
        choices = torch.stack([disc(y, x, radius) for y, x in centres for radius in (5, 5.2, 9)])
        masks = choices[torch.randint(0, len(choices), (len(kept),), generator=generator)]
        assert open_prompts(per_side, predicted, kept, masks).tolist() == by_loops(per_side, predicted, kept, masks)


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
