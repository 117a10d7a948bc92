"""Whatever the logits of candidates are, they come out of packing right in sign everywhere and in value along their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from refseg.candidates.packing import FAR_LOGIT, LOWEST_LOGIT, MaskCrop, edge_cells, join, pack, pack_crops
from refseg.candidates.proposing import Candidates

EACH = settings(max_examples=150, deadline=None, derandomize=True, database=None)
LOGITS = st.floats(-40, 40, width=32)
STACKS = st.tuples(st.integers(0, 4), st.integers(1, 7)).flatmap(
    lambda sizes: arrays(np.float32, (sizes[0], sizes[1], sizes[1]), elements=LOGITS)
)


def candidates_of(logits: NDArray[np.float32]) -> Candidates:
    number = torch.arange(len(logits), dtype=torch.float32)
    return Candidates(torch.from_numpy(logits), number, number[:, None].repeat(1, 3), (30, 40))


@EACH
@given(logits=STACKS, fine=st.booleans())
def test_logits_come_back(logits: NDArray[np.float32], fine: bool) -> None:
    packed = pack(candidates_of(logits), fine=fine)
    kept = np.flatnonzero((logits > 0).any((1, 2)))
    assert packed.predicted_iou.tolist() == kept.tolist()
    assert packed.features[:, 0].tolist() == kept.tolist()
    found, given_in = packed.logits_of(torch.arange(len(packed))).numpy(), logits[kept]
    masks = given_in > 0
    np.testing.assert_array_equal(found > 0, masks)
    band = edge_cells(masks)
    np.testing.assert_array_equal(np.abs(found[~band]), FAR_LOGIT)
    heights = np.abs(given_in[band]).clip(np.finfo(np.float32).smallest_normal if fine else LOWEST_LOGIT)
    np.testing.assert_allclose(np.abs(found[band]), heights, rtol=0 if fine else 0.05)
    for mask, (x0, y0, x1, y1) in zip(masks, packed.boxes.int().tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max(), rows.max())


@EACH
@given(logits=STACKS, corner=st.tuples(st.integers(-3, 6), st.integers(-3, 6)), side=st.integers(1, 9))
def test_a_window_is_a_part_of_the_grid(logits: NDArray[np.float32], corner: tuple[int, int], side: int) -> None:
    packed = pack(candidates_of(logits))
    rows = torch.arange(len(packed))
    x0, y0 = corner
    margin = side + 6
    whole = np.pad(packed.logits_of(rows).numpy(), ((0, 0), (margin, margin), (margin, margin)), constant_values=-FAR_LOGIT)
    expected = whole[:, y0 + margin : y0 + margin + side, x0 + margin : x0 + margin + side]
    for crop, part in zip(packed.crops(rows, [(x0, y0, x0 + side, y0 + side)] * len(packed)), expected, strict=True):
        np.testing.assert_array_equal(crop.numpy(), part)


@EACH
@given(logits=STACKS, fine=st.booleans())
def test_crops_are_packed_as_the_grid_they_are_parts_of(logits: NDArray[np.float32], fine: bool) -> None:
    whole = candidates_of(logits)
    crops = []
    for grid in logits:
        rows, columns = np.nonzero(grid > 0)
        top, left = max(0, min(rows, default=0) - 1), max(0, min(columns, default=0) - 1)
        crops.append(MaskCrop(grid[top : max(rows, default=0) + 2, left : max(columns, default=0) + 2], left, top))
    options = {"image_hw": (30, 40), "grid_side": whole.grid_side, "fine": fine}
    found, expected = pack_crops(crops, whole.predicted_iou, whole.features, **options), pack(whole, fine=fine)
    assert found.codes.to_pylist() == expected.codes.to_pylist()
    assert found.edges.to_pylist() == expected.edges.to_pylist()
    for name in ("boxes", "predicted_iou", "features"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@EACH
@given(logits=STACKS.filter(len), damage=st.binary(min_size=1, max_size=3), place=st.integers(0, 30))
def test_a_damaged_code_is_refused_or_another_mask(logits: NDArray[np.float32], damage: bytes, place: int) -> None:
    packed = pack(candidates_of(logits))
    if not len(packed):
        return
    import pyarrow as pa

    codes = packed.codes.to_pylist()
    at = place % len(codes[0])
    codes[0] = codes[0][:at] + damage + codes[0][at + len(damage) :]
    broken = join([packed])
    object.__setattr__(broken, "codes", pa.array(codes, pa.binary()))
    try:
        found = broken.logits_of(torch.tensor([0]))
    except ValueError:
        return
    assert found.shape == (1, packed.grid_side, packed.grid_side)
    assert bool(torch.isfinite(found).all())


def test_nothing_is_packed_of_nothing() -> None:
    packed = pack(candidates_of(np.full((3, 4, 4), -1.0, np.float32)))
    assert (len(packed), packed.logits_of(torch.arange(0)).shape) == (0, (0, 4, 4))
    with pytest.raises(IndexError):
        packed.logits_of(torch.tensor([0]))
