"""What goes from a mask and what stays, on masks small enough to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refseg.candidates import cleaning
from refseg.candidates.cleaning import LEAST_LOGIT, MAX_HOLE, MIN_ISLAND, clean_for, clean_masks, cleaning_of, count_pieces
from refseg.models.presets import PRESETS

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Cell = tuple[int, int]


def drawn(text: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, h, w) logits of a mask drawn with # for its cells; every height differs."""
    lines = [line.strip() for line in text.strip().splitlines()]
    inside = torch.tensor([[cell == "#" for cell in line] for line in lines])
    heights = 0.5 + torch.arange(inside.numel()).reshape(inside.shape) / 8
    return torch.where(inside, heights, -heights)[None].to(dtype)


def seen(logits: Tensor) -> str:
    """The first mask as it is drawn."""
    return "\n".join("".join("#" if cell else "." for cell in line) for line in (logits[0] > 0).tolist())


def assert_cleaned(before: str, after: str) -> None:
    expected = drawn(after)
    cleaned = clean_masks(drawn(before))
    assert seen(cleaned) == seen(expected)
    # Whatever turned has the same height on the other side.
    assert torch.equal(cleaned, expected)


def ring(side: int, hole: int) -> Tensor:
    """(1, side + 2, side + 2) logits of a square with so many cells of its middle row missing."""
    logits = torch.full((1, side + 2, side + 2), -1.0)
    logits[:, 1:-1, 1:-1] = 1.0
    logits[:, side // 2, 2 : 2 + hole] = -1.0
    return logits


class TestIslands:
    def test_a_small_island_goes(self) -> None:
        assert_cleaned(
            """
            .....#
            .##...
            .##..#
            ......""",
            """
            ......
            .##...
            .##...
            ......""",
        )

    def test_two_large_pieces_stay(self) -> None:
        logits = drawn(
            """
            ##..##
            ##..#.
            ......""",
        )
        assert clean_masks(logits) is logits

    def test_an_island_beside_two_large_pieces_goes(self) -> None:
        assert_cleaned(
            """
            ###..##
            ###..##
            .......
            ...#...""",
            """
            ###..##
            ###..##
            .......
            .......""",
        )

    @pytest.mark.parametrize(("island", "stays"), [(2, False), (3, True), (4, True)])
    def test_the_share_is_that_of_the_largest_piece(self, island: int, stays: bool) -> None:
        """Ten cells, and three tenths of them."""
        logits = torch.full((1, 4, 12), -1.0)
        logits[0, 0, :10] = 1.0
        logits[0, 3, :island] = 1.0
        assert MIN_ISLAND * 10 == 3
        assert bool((clean_masks(logits)[0, 3] > 0).any()) is stays
        assert count_pieces((logits[0] > 0).numpy()) == (2 if stays else 1)

    def test_small_pieces_do_not_add_up(self) -> None:
        """Nine single cells around a piece of four."""
        logits = torch.full((1, 9, 9), -1.0)
        logits[0, ::4, ::4] = 1.0
        logits[0, 4:6, 4:6] = 1.0
        cleaned = clean_masks(logits)
        assert (cleaned > 0).sum() == 4
        assert (cleaned[0, 4:6, 4:6] > 0).all()

    def test_corners_join(self) -> None:
        logits = drawn(
            """
            #....
            .#...
            ..##.
            ..##.""",
        )
        assert clean_masks(logits) is logits

    def test_pieces_of_one_cell_all_stay(self) -> None:
        logits = drawn("#.#.#")
        assert clean_masks(logits) is logits


class TestHoles:
    def test_a_small_hole_is_filled(self) -> None:
        before = ring(12, 1)
        cleaned = clean_masks(before)
        assert (cleaned[:, 1:-1, 1:-1] > 0).all()
        assert (cleaned > 0).sum() == 144

    @pytest.mark.parametrize(("side", "hole"), [(8, 1), (10, 1), (12, 2), (20, 4), (20, 12)])
    def test_the_hole_of_a_ring_stays(self, side: int, hole: int) -> None:
        """A hundredth of the mask and more."""
        logits = ring(side, hole)
        assert clean_masks(logits) is logits

    @pytest.mark.parametrize(("cells", "stays"), [(200, True), (201, False)])
    def test_a_hole_of_just_the_share_stays(self, cells: int, stays: bool) -> None:
        """Two cells."""
        logits = torch.full((1, 20, 20), -1.0)
        logits.view(-1)[: cells + 2] = 1.0
        logits[0, 5, 5:7] = -1.0
        assert 200 * MAX_HOLE == 2
        assert ((clean_masks(logits)[0, 5, 5:7] <= 0).all().item()) is stays

    def test_what_is_open_to_the_border_of_the_grid_is_no_hole(self) -> None:
        logits = torch.ones(4, 16, 16)
        for number, (y, x) in enumerate([(0, 5), (15, 5), (5, 0), (5, 15)]):
            logits[number, y, x] = -1.0
        assert clean_masks(logits) is logits

    def test_a_hole_beside_the_border_is_filled(self) -> None:
        logits = torch.ones(1, 16, 16)
        logits[0, 1, 5] = -1.0
        assert (clean_masks(logits) > 0).all()

    def test_corners_do_not_open_a_hole(self) -> None:
        """A hole that meets the outside, and another hole, at a corner alone."""
        logits = torch.ones(1, 20, 20)
        for y, x in ((0, 4), (1, 5), (2, 6)):
            logits[0, y, x] = -1.0
        cleaned = clean_masks(logits)
        assert (cleaned <= 0).nonzero().tolist() == [[0, 0, 4]]

    def test_an_island_in_a_hole_goes_before_the_hole_is_measured(self) -> None:
        logits = torch.ones(1, 14, 14)
        logits[0, 4:7, 4:7] = -1.0
        logits[0, 5, 5] = 1.0
        cleaned = clean_masks(logits)
        assert (cleaned[0, 4:7, 4:7] <= 0).all()
        assert (cleaned > 0).sum() == 14 * 14 - 9


class TestLogits:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_signs_are_right_whatever_the_height(self, dtype: torch.dtype) -> None:
        """An island as near to nothing as the dtype has, holes of 0, of -0 and of the same, in one mask."""
        tiny = torch.finfo(dtype).smallest_normal
        subnormal = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        logits = torch.ones(1, 24, 24, dtype=dtype)
        logits[0, :, 20:] = -1.0
        logits[0, 3, 22], logits[0, 9, 22] = tiny, subnormal
        holes = [(5, 5), (5, 9), (9, 5), (9, 9)]
        for (y, x), value in zip(holes, (0.0, -0.0, -tiny, -subnormal), strict=True):
            logits[0, y, x] = value
        cleaned = clean_masks(logits)
        assert cleaned.dtype == dtype
        for kind in (cleaned, cleaned.float()):
            assert (kind[0, :, :20] > 0).all()
            assert (kind[0, :, 20:] <= 0).all()

    def test_the_logits_given_stay_as_they_are(self) -> None:
        logits = drawn("##.#..#\n##.....")
        before = logits.clone()
        assert not torch.equal(clean_masks(logits), before)
        assert torch.equal(logits, before)

    def test_an_edge_at_an_island_keeps_its_place(self) -> None:
        """Resized, nothing of the island is left, and the object beside it is the same to the last digit."""
        logits = torch.full((1, 1, 12, 12), -3.0)
        logits[..., 2:6, 2:6] = 3.0
        with_island = logits.clone()
        with_island[..., 9, 9] = 0.5
        expected = torch.nn.functional.interpolate(logits, size=(60, 60), mode="bilinear")
        found = torch.nn.functional.interpolate(clean_masks(with_island[0])[None], size=(60, 60), mode="bilinear")
        assert torch.equal(found > 0, expected > 0)
        assert torch.equal(found[..., :35, :35], expected[..., :35, :35])

    def test_empty_masks_and_none(self) -> None:
        empty = torch.full((3, 5, 5), -1.0)
        assert clean_masks(empty) is empty
        none = torch.empty(0, 5, 5)
        assert clean_masks(none) is none

    def test_each_mask_by_itself(self) -> None:
        """Also among empty and clean ones, in any order."""
        dirty = drawn("##.#.\n##...\n.....")
        clean, empty = drawn("##...\n##...\n....."), drawn(".....\n.....\n.....")
        stack = torch.cat([empty, dirty, clean, dirty, empty])
        expected = torch.cat([empty, clean_masks(dirty), clean, clean_masks(dirty), empty])
        assert torch.equal(clean_masks(stack), expected)
        order = torch.tensor([3, 0, 4, 2, 1])
        assert torch.equal(clean_masks(stack[order]), expected[order])

    def test_twice_is_once(self) -> None:
        cleaned = clean_masks(make_noise(40, 20))
        assert clean_masks(cleaned) is cleaned


def make_noise(count: int, side: int) -> Tensor:
    """Masks of pieces and holes of every size, at the borders too."""
    generator = torch.Generator().manual_seed(count)
    noise = torch.randn(count, 1, side // 2, side // 2, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, size=(side, side), mode="bilinear")[:, 0]
    return smooth + torch.linspace(-0.5, 1.2, count)[:, None, None]


def parts_of(cells: set[Cell], corners: bool) -> Iterable[set[Cell]]:
    """Connected parts, one cell after the other."""
    left = set(cells)
    while left:
        part, waiting = set(), [left.pop()]
        while waiting:
            y, x = waiting.pop()
            part.add((y, x))
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), *(((1, 1), (1, -1), (-1, 1), (-1, -1)) if corners else ())):
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    waiting.append((y + dy, x + dx))
        yield part


def clean_slowly(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same cell by cell, on the whole grid."""
    cells = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    pieces = list(parts_of(cells, corners=True))
    largest = max(map(len, pieces), default=0)
    kept = set().union(*(piece for piece in pieces if len(piece) >= MIN_ISLAND * largest))
    height, width = mask.shape
    outside = {(y, x) for y in range(height) for x in range(width)} - kept
    filled = set(kept)
    for part in parts_of(outside, corners=False):
        is_open = any(y in (0, height - 1) or x in (0, width - 1) for y, x in part)
        if not is_open and len(part) < MAX_HOLE * len(kept):
            filled |= part
    answer = np.zeros_like(mask)
    for y, x in filled:
        answer[y, x] = True
    return answer


def test_the_same_as_cell_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """With holes of up to a twentieth, so that many are filled on grids this small."""
    for share in (MAX_HOLE, 0.05):
        monkeypatch.setattr(cleaning, "MAX_HOLE", share)
        monkeypatch.setitem(clean_slowly.__globals__, "MAX_HOLE", share)
        logits = make_noise(60, 24)
        cleaned = clean_masks(logits)
        changed = 0
        for own, mask in zip(cleaned, (logits > 0).numpy(), strict=True):
            expected = clean_slowly(mask)
            np.testing.assert_array_equal((own > 0).numpy(), expected)
            changed += int((expected != mask).any())
        assert changed >= 20
        assert (cleaned.abs() - logits.abs()).abs().max() <= LEAST_LOGIT


class TestCountPieces:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("...", 0),
            ("#", 1),
            ("##.##", 2),
            ("###.##.##", 3),
            ("####.#", 1),
            ("#..\n.#.\n..#", 1),
            ("###\n#.#\n###", 1),
            ("#####\n#...#\n#.#.#\n#...#\n#####", 1),
            ("#####.\n#...#.\n#.#.##\n#...#.\n#####.\n......\n######", 2),
        ],
    )
    def test_by_hand(self, text: str, number: int) -> None:
        assert count_pieces((drawn(text)[0] > 0).numpy()) == number

    def test_a_cut_out_of_a_larger_mask(self) -> None:
        mask = np.zeros((9, 9), bool)
        mask[2:4, 2:7:2] = True
        assert count_pieces(mask[2:4, 2:7]) == 3
        assert count_pieces(mask[::-1, ::-1]) == 3

    def test_nothing_at_all(self) -> None:
        assert count_pieces(np.zeros((0, 0), bool)) == 0


class TestPresets:
    def test_every_preset_but_paper_cleans(self) -> None:
        assert [name for name, preset in PRESETS.items() if not preset.clean_masks] == ["paper"]

    def test_a_preset_decides(self) -> None:
        logits = drawn("##.#\n##..")
        preset = PRESETS["demo"]
        assert seen(clean_for(preset, logits)) == "##..\n##.."
        assert clean_for(replace(preset, clean_masks=False), logits) is logits

    def test_what_tells_masks_apart(self) -> None:
        assert cleaning_of(PRESETS["demo"]) == ("clean masks", MIN_ISLAND, MAX_HOLE)
        assert cleaning_of(PRESETS["paper"]) == ()
