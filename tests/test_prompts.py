"""Which prompts their neighbours answer for, against plain loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refseg.prompts import SAME_MASK_IOU, coarse_prompts, open_prompts

N, M = 5, 20
CELL = [round(number * (M - 1) / (N - 1)) for number in range(N)]


def disc(y: int, x: int, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(M), torch.arange(M), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def by_loops(per_side: int, answered: Tensor, masks: Tensor) -> list[int]:
    """The rule once more, prompt by prompt."""
    mask_of = dict(zip(answered.tolist(), masks, strict=True))
    left = []
    for y in range(per_side):
        for x in range(per_side):
            if y % 2 == 0 and x % 2 == 0:
                continue
            near = [
                mask_of[row * per_side + column]
                for row in range(0, per_side, 2)
                for column in range(0, per_side, 2)
                if abs(row - y) <= 1 and abs(column - x) <= 1 and row * per_side + column in mask_of
            ]
            cells = [round(number * (masks.shape[-1] - 1) / (per_side - 1)) for number in range(per_side)]
            covering = [mask for mask in near if mask[cells[y], cells[x]]]
            agreed = any(
                (one & other).sum() >= SAME_MASK_IOU * (one | other).sum()
                for number, one in enumerate(covering)
                for other in covering[:number]
            )
            if near and not agreed:
                left.append(y * per_side + x)
    return left


def test_coarse_prompts_are_a_quarter() -> None:
    assert coarse_prompts(5).tolist() == [0, 2, 4, 10, 12, 14, 20, 22, 24]
    assert len(coarse_prompts(32)) == 256


def test_nothing_is_left_where_no_prompt_got_a_mask() -> None:
    assert open_prompts(N, torch.tensor([], dtype=torch.int64), torch.zeros(0, M, M, dtype=torch.bool)).tolist() == []


def test_a_prompt_without_an_answer_leaves_its_neighbours_open() -> None:
    # The middle prompt of 5 × 5 got a mask that covers none of its eight neighbours.
    found = open_prompts(N, torch.tensor([12]), disc(CELL[2], CELL[2], 1)[None])
    assert found.tolist() == [6, 7, 8, 11, 13, 16, 17, 18]


def test_two_that_agree_answer_for_what_they_cover() -> None:
    left, right = torch.tensor([10, 12]), torch.stack([disc(CELL[2], CELL[1], 7)] * 2)
    # Prompt 11 lies between them, 6 and 16 above and below it; the disc covers all three.
    assert not {6, 11, 16} & set(open_prompts(N, left, right).tolist())
    apart = torch.stack([disc(CELL[2], CELL[1], 7), disc(CELL[2], CELL[1], 3)])
    assert 11 in open_prompts(N, left, apart).tolist()


def test_one_mask_alone_answers_for_nothing() -> None:
    assert 11 in open_prompts(N, torch.tensor([10]), torch.ones(1, M, M, dtype=torch.bool)).tolist()


@pytest.mark.parametrize("per_side", [2, 5, 6, 9])
def test_against_loops(per_side: int) -> None:
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        coarse = coarse_prompts(per_side)
        answered = coarse[torch.rand(len(coarse), generator=generator) < 0.6]
        centres = torch.randint(0, M, (2, 2), generator=generator).tolist()
        choices = torch.stack([disc(y, x, radius) for y, x in centres for radius in (5, 5.2, 9)])
        masks = choices[torch.randint(0, len(choices), (len(answered),), generator=generator)]
        assert open_prompts(per_side, answered, masks).tolist() == by_loops(per_side, answered, masks)
