"""Where masks end: every square of four cells that a mask covers in part, against a walk over all squares of the grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from refseg.candidates import borders as module
from refseg.candidates.borders import OUTSIDE, Borders, boxes_of_bits, cells_of_bits, cells_of_codes, pack_bits
from refseg.candidates.grids import grid_boxes
from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from tests.candidates.test_packing import make_blobs, make_masks
from tests.masks.test_rle import write_code

SIDES = [2, 3, 7, 8, 61, 62, 63, 64, 65, 130]
EACH = settings(max_examples=100, deadline=None, derandomize=True, database=None)
STACKS = st.tuples(st.integers(1, 4), st.integers(2, 7)).flatmap(
    lambda sizes: arrays(np.float32, (sizes[0], sizes[1], sizes[1]), elements=st.floats(-40, 40, width=32))
)


def walk(logits: NDArray[np.float32]) -> list[tuple[int, int, int, list[float]]]:
    """(mask, row, column, corners) of the squares of (n, M, M) logits that are covered in part."""
    found = []
    side = logits.shape[-1]
    for mask, own in enumerate(np.pad(logits, ((0, 0), (0, 0), (1, 1)), constant_values=OUTSIDE)):
        for row in range(side - 1):
            for column in range(-1, side):
                corners = own[row : row + 2, column + 1 : column + 3].ravel().tolist()
                if len({corner > 0 for corner in corners}) == 2:
                    found.append((mask, row, column, corners))
    return found


def listed(borders: Borders) -> list[tuple[int, int, int, list[float]]]:
    columns = borders.masks.tolist(), borders.rows.tolist(), borders.columns.tolist(), borders.corners.T.tolist()
    return list(zip(*columns, strict=True))


def assert_walked(borders: Borders, logits: NDArray[np.float32]) -> None:
    """Squares are those of the walk, with the logits of within the grid, and with signs alone at its left and right rim."""
    expected, side = walk(logits), logits.shape[-1]
    found = listed(borders)
    assert [square[:3] for square in found] == [square[:3] for square in expected]
    for (_, _, column, own), (*_, corners) in zip(found, expected, strict=True):
        assert [value > 0 for value in own] == [value > 0 for value in corners]
        beyond = {-1: (0, 2), side - 1: (1, 3)}.get(column, ())
        assert all(own[place] == OUTSIDE for place in beyond)
        within = [place for place in range(4) if place not in beyond]
        if not beyond or len({corners[place] > 0 for place in within}) == 2:
            assert [own[place] for place in within] == [corners[place] for place in within]


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    """Masks that are different in every cell, in which each has at least one."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, side, side, generator=generator)
    logits[:, side // 2, side // 3] = 1.0
    return logits


def full_and_single(side: int) -> Tensor:
    """A mask of all cells, one of each corner, of each side, and one of two columns beside each other."""
    logits = torch.full((10, side, side), -2.0)
    logits[0] = 3.0
    for number, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        logits[1 + number, row, column] = 3.0
    logits[5, 0], logits[6, -1], logits[7, :, 0], logits[8, :, -1], logits[9, :, :2] = (3.0,) * 5
    return logits


def candidates_of(logits: Tensor) -> Candidates:
    count = len(logits)
    return Candidates(logits, torch.linspace(0.9, 0.5, count), torch.ones(count, 4) / 2, (300, 400))


def every_kind(side: int) -> Tensor:
    blobs = make_blobs(6, side).logits if side > 6 else noise(6, side, 1)
    return torch.cat([blobs, noise(5, side), full_and_single(side)])


def some_rows(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(3))[:9]


@pytest.mark.parametrize("side", SIDES)
class TestOfEverySide:
    def test_bits_are_the_masks(self, side: int) -> None:
        logits = every_kind(side)
        packed = pack_bits(logits)
        unpacked = np.unpackbits(packed.view(np.uint8), axis=-1, count=side, bitorder="little")
        np.testing.assert_array_equal(unpacked.view(np.bool_), logits.numpy() > 0)
        np.testing.assert_array_equal(module._pack_there(logits), module._pack_here(logits))

    def test_boxes(self, side: int) -> None:
        logits = every_kind(side)
        logits[3] = -1.0
        filled, boxes = boxes_of_bits(pack_bits(logits), side)
        assert filled.tolist() == (logits > 0).flatten(1).any(1).tolist()
        assert [row for row, is_filled in enumerate(filled) if not is_filled] == [3]
        np.testing.assert_array_equal(boxes[filled], grid_boxes(logits[torch.from_numpy(filled)] > 0).numpy())

    def test_cells_around_boxes(self, side: int) -> None:
        logits = every_kind(side)
        rows = np.random.default_rng(0).permutation(len(logits))
        masks = np.pad(logits.numpy()[rows] > 0, ((0, 0), (0, 0), (1, 1)))
        boxes = grid_boxes(logits[torch.from_numpy(rows)] > 0).numpy().astype(np.int64)
        packed = pack(candidates_of(logits[torch.from_numpy(rows)]))
        for cells in (
            cells_of_bits(pack_bits(logits), rows, boxes),
            cells_of_codes(packed.codes.to_pylist(), side, boxes),
        ):
            for mask, part, top, left in zip(masks, cells.crops.parts(), cells.tops, cells.lefts, strict=True):
                own = np.unpackbits(np.ascontiguousarray(part).view(np.uint8), axis=1, bitorder="little")
                expected = np.zeros_like(own)
                there = mask[top : top + len(own), left + 1 : left + 1 + own.shape[1]]
                expected[:, : there.shape[1]] = there
                np.testing.assert_array_equal(own, expected)
                assert own.sum() == mask.sum()

    @pytest.mark.sampled(2)
    def test_of_dense_candidates(self, side: int) -> None:
        logits = every_kind(side)
        candidates, rows = candidates_of(logits), some_rows(len(logits))
        assert_walked(candidates.borders(rows), logits[rows].numpy())
        # These are right in value at the rim too.
        assert listed(candidates.borders(rows)) == walk(logits[rows].numpy())

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("fine", [False, True])
    def test_of_packed_candidates(self, side: int, fine: bool) -> None:
        packed = pack(candidates_of(every_kind(side)), fine=fine)
        rows = some_rows(len(packed))
        assert_walked(packed.borders(rows), packed.logits_of(rows).numpy())


@EACH
@given(logits=STACKS, fine=st.booleans())
def test_whatever_the_logits_are(logits: NDArray[np.float32], fine: bool) -> None:
    candidates = candidates_of(torch.from_numpy(logits))
    rows = candidates.filled.nonzero()[:, 0]
    assert listed(candidates.borders(rows)) == walk(logits[rows.numpy()])
    packed = pack(candidates, fine=fine)
    every = torch.arange(len(packed))
    assert_walked(packed.borders(every), packed.logits_of(every).numpy())


def test_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done where numpy cannot read the logits, done here."""
    logits = every_kind(65)
    here = candidates_of(logits)
    monkeypatch.setattr(module, "_is_here", lambda logits: False)
    there, rows = candidates_of(logits), torch.arange(len(logits))
    assert torch.equal(there.filled, here.filled)
    assert torch.equal(there.boxes_of(rows), here.boxes_of(rows))
    assert listed(there.borders(rows)) == walk(logits.numpy())


def test_of_a_grid_of_one_cell_there_are_no_squares() -> None:
    candidates = candidates_of(torch.ones(1, 1, 1))
    assert len(candidates.borders(torch.arange(1))) == len(pack(candidates).borders(torch.arange(1))) == 0


def test_of_no_masks() -> None:
    candidates, none = make_blobs(3), torch.zeros(0, dtype=torch.int64)
    assert len(candidates.borders(none)) == len(pack(candidates).borders(none)) == 0


def test_edges_of_different_kinds_in_one_index() -> None:
    """Each mask says by its bytes how its logits are kept."""
    candidates = make_blobs(4, 32)
    coarse, fine = pack(candidates), pack(candidates, fine=True)
    mixed = replace(coarse, edges=pa.array([*coarse.edges.to_pylist()[:2], *fine.edges.to_pylist()[2:]], pa.binary()))
    assert_walked(mixed.borders(torch.arange(4)), mixed.logits_of(torch.arange(4)).numpy())


def damaged(packed: PackedCandidates, column: str, value: bytes) -> PackedCandidates:
    values = getattr(packed, column).to_pylist()
    values[1] = value
    return replace(packed, **{column: pa.array(values, pa.binary())})


@pytest.mark.parametrize("column", ["codes", "edges"])
def test_damage_is_an_error(column: str) -> None:
    packed = pack(make_blobs(3))
    broken = damaged(packed, column, getattr(packed, column)[1].as_py()[:-1])
    assert len(broken.borders(torch.tensor([0, 2]))) > 0
    with pytest.raises(ValueError, match=r"run-length code|do not fit it"):
        broken.borders(torch.tensor([0, 1]))


def test_a_code_of_another_grid_or_box_is_an_error() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1, 1] = True
    packed = pack(make_masks(masks))
    with pytest.raises(ValueError, match="does not add up to the size of its mask"):
        damaged(packed, "codes", write_code([5, 7])).borders(torch.arange(2))
    with pytest.raises(ValueError, match="does not fit the box of its mask"):
        damaged(packed, "codes", write_code([9, 1, 6])).borders(torch.arange(2))
