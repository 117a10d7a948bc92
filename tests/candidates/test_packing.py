"""Packed candidates against those they were made of: signs, logits along the edges, crops, shares and full-size masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from refseg.candidates.grids import grid_boxes
from refseg.candidates.packing import FAR_LOGIT, LOGIT_STEP, LOWEST_LOGIT, PackedCandidates, edge_cells, pack
from refseg.candidates.proposing import Candidates, propose
from refseg.errors import ShapeError
from tests.masks.test_rle import write_code
from tests.tolerance import assert_near
from tests.upsampling import upsample

WIDTH = 8
WITHIN = 1.05


def make_blobs(count: int = 12, side: int = 64, *, seed: int = 0, image_hw: tuple[int, int] = (96, 128)) -> Candidates:
    """Smooth masks of every shape, some in several pieces and some with holes, that touch the border of the grid."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, 7, 7, generator=generator)
    logits = 6 * F.interpolate(noise, size=(side, side), mode="bicubic", align_corners=False)[:, 0] - 2
    logits[:, side // 3, side // 4] = 0.5  # so that none is empty
    features = F.normalize(torch.randn(count, WIDTH, generator=generator), dim=1).half().float()
    return Candidates(logits, 0.4 + 0.6 * torch.rand(count, generator=generator), features, image_hw)


def make_masks(masks: Tensor) -> Candidates:
    """Candidates of these (N, M, M) bool masks."""
    count = len(masks)
    logits = torch.where(masks, 3.0, -5.0)
    return Candidates(logits, torch.linspace(0.9, 0.5, count), F.normalize(torch.ones(count, WIDTH), dim=1), (30, 40))


def every(packed: PackedCandidates) -> Tensor:
    return torch.arange(len(packed))


def edges_plainly(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cell by cell."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            around = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            found[y, x] = around.any() and not around.all()
    return found


class TestEdgeCells:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2), (9, 13)])
    def test_are_a_loop_over_cells(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        masks = rng.random((30, *shape)) < np.linspace(0.05, 0.95, 30)[:, None, None]
        before = masks.copy()
        np.testing.assert_array_equal(edge_cells(masks), [edges_plainly(mask) for mask in masks])
        np.testing.assert_array_equal(masks, before)

    def test_full_and_empty_masks_have_none(self) -> None:
        assert not edge_cells(np.stack([np.ones((5, 5), bool), np.zeros((5, 5), bool)])).any()


class TestPack:
    def test_signs_are_equal_everywhere(self) -> None:
        candidates = make_blobs(40)
        packed = pack(candidates)
        found = packed.logits_of(every(packed))
        assert found.dtype == torch.float32
        assert torch.equal(found > 0, candidates.logits > 0)

    def test_logits_along_the_edges_are_within_five_per_cent(self) -> None:
        candidates = make_blobs(40)
        packed = pack(candidates)
        found = packed.logits_of(every(packed))
        band = torch.from_numpy(edge_cells(candidates.masks.numpy()))
        ratio = found[band].abs() / candidates.logits[band].abs().clamp(min=LOWEST_LOGIT)
        assert 1 / WITHIN <= float(ratio.min()) < float(ratio.max()) <= WITHIN
        assert bool((found[~band].abs() == FAR_LOGIT).all())

    def test_every_height_of_an_edge(self) -> None:
        """Two columns of logits that grow from far below what a byte holds to far above."""
        heights = torch.logspace(-4, 4, 64)
        logits = torch.full((1, 64, 64), -1.0)
        logits[0, :, 0], logits[0, :, 1] = heights, -heights
        found = pack(replace(make_blobs(1), logits=logits)).logits_of(torch.tensor([0]))[0]
        highest = LOWEST_LOGIT * LOGIT_STEP**255
        ratio = found[:, 0] / heights.clamp(LOWEST_LOGIT, highest)
        assert 1 / WITHIN <= float(ratio.min()) <= float(ratio.max()) <= WITHIN
        assert torch.equal(found[:, 0], -found[:, 1])

    def test_zero_is_outside_and_stays_there(self) -> None:
        logits = torch.zeros(1, 8, 8)
        logits[0, 2:5, 3:6] = 2.0
        packed = pack(replace(make_blobs(1), logits=logits))
        assert torch.equal(packed.logits_of(torch.tensor([0])) > 0, logits > 0)

    def test_boxes_are_those_of_the_masks(self) -> None:
        candidates = make_blobs(40)
        packed = pack(candidates)
        assert torch.equal(packed.boxes, grid_boxes(candidates.masks))
        rows = torch.tensor([7, 3, 3])
        assert torch.equal(packed.boxes_of(rows), candidates.boxes_of(rows))

    def test_the_rest_is_handed_on(self) -> None:
        candidates = make_blobs(5)
        packed = pack(candidates)
        assert torch.equal(packed.predicted_iou, candidates.predicted_iou)
        assert torch.equal(packed.features, candidates.features)
        assert (packed.image_hw, packed.grid_side, len(packed)) == ((96, 128), 64, 5)
        assert packed.filled.tolist() == [True] * 5

    def test_features_stay_as_they_are(self) -> None:
        generator = torch.Generator().manual_seed(4)
        features = F.normalize(torch.randn(5, WIDTH, generator=generator), dim=1)
        packed = pack(replace(make_blobs(5), features=features))
        assert torch.equal(packed.features, features)

    def test_empty_masks_are_left_out(self) -> None:
        candidates = make_blobs(9)
        logits = candidates.logits.clone()
        logits[[0, 4, 8]] = -1.0
        rest = torch.tensor([1, 2, 3, 5, 6, 7])
        packed = pack(replace(candidates, logits=logits))
        assert len(packed) == 6
        assert torch.equal(packed.features, candidates.features[rest])
        assert torch.equal(packed.predicted_iou, candidates.predicted_iou[rest])
        assert torch.equal(packed.logits_of(every(packed)) > 0, candidates.masks[rest])

    def test_full_single_cell_and_corner_masks(self) -> None:
        masks = torch.zeros(7, 16, 16, dtype=torch.bool)
        masks[0] = True
        masks[1, 5, 6] = masks[2, 0, 0] = masks[3, 15, 15] = masks[4, 0, 15] = True
        masks[5, :, 0] = masks[6, 15] = True
        packed = pack(make_masks(masks))
        assert torch.equal(packed.logits_of(every(packed)) > 0, masks)
        assert packed.edges[0].as_py() == b""

    def test_changes_nothing_it_was_given(self) -> None:
        candidates = make_blobs(5)
        before = [tensor.clone() for tensor in (candidates.logits, candidates.predicted_iou, candidates.features)]
        pack(candidates)
        for tensor, copy in zip((candidates.logits, candidates.predicted_iou, candidates.features), before, strict=True):
            assert torch.equal(tensor, copy)

    def test_order_of_the_masks_permutes_the_rows(self) -> None:
        candidates = make_blobs(6)
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        shuffled = replace(
            candidates,
            logits=candidates.logits[order],
            predicted_iou=candidates.predicted_iou[order],
            features=candidates.features[order],
        )
        packed, permuted = pack(candidates), pack(shuffled)
        assert permuted.codes.equals(packed.codes.take(pa.array(order.numpy())))
        assert permuted.edges.equals(packed.edges.take(pa.array(order.numpy())))

    def test_takes_a_tenth_of_the_logits(self) -> None:
        packed = pack(make_blobs(40, 256))
        assert packed.codes.nbytes + packed.edges.nbytes < 40 * 256 * 256 * 4 / 10

    def test_of_nothing(self) -> None:
        packed = pack(make_masks(torch.zeros(0, 16, 16, dtype=torch.bool)))
        assert len(packed) == 0
        assert packed.features.shape == (0, WIDTH)
        assert packed.boxes.shape == (0, 4)
        assert packed.logits_of(every(packed)).shape == (0, 16, 16)
        assert packed.crops(every(packed), []) == []
        assert packed.shares(every(packed), every(packed), packed.filled).shape == (0, 0)
        assert len(pack(make_masks(torch.zeros(3, 16, 16, dtype=torch.bool)))) == 0

    @pytest.mark.parametrize("name", ["codes", "edges", "boxes", "predicted_iou", "features"])
    def test_disagreeing_parts_are_refused(self, name: str) -> None:
        packed = pack(make_blobs(3))
        with pytest.raises(ShapeError, match="one code, edge, box, predicted IoU and feature each"):
            replace(packed, **{name: getattr(packed, name)[:2]})


class TestCrops:
    def test_are_slices_of_the_logits(self, rng: np.random.Generator) -> None:
        packed = pack(make_blobs(30, 32))
        rows = torch.from_numpy(rng.integers(0, 30, 200))
        starts, sizes = rng.integers(0, 31, (200, 2)), rng.integers(1, 32, (200, 2))
        stops = np.minimum(starts + sizes, 32)
        windows = [tuple(map(int, window)) for window in np.concatenate([starts, stops], 1)]
        whole = packed.logits_of(rows)
        crops = packed.crops(rows, windows)
        assert len(crops) == 200
        for crop, logits, (x0, y0, x1, y1) in zip(crops, whole, windows, strict=True):
            assert torch.equal(crop, logits[y0:y1, x0:x1])

    def test_windows_beside_the_mask(self) -> None:
        mask = torch.zeros(1, 16, 16, dtype=torch.bool)
        mask[0, 6:9, 5:8] = True
        packed = pack(make_masks(mask))
        for window in [(0, 0, 3, 3), (10, 0, 16, 16), (0, 11, 16, 16), (0, 0, 16, 4)]:
            (crop,) = packed.crops(torch.tensor([0]), [window])
            assert crop.shape == (window[3] - window[1], window[2] - window[0])
            assert bool((crop == -FAR_LOGIT).all())
        # One cell further in lie the logits beside the edge.
        (crop,) = packed.crops(torch.tensor([0]), [(0, 0, 5, 6)])
        assert crop.nonzero().tolist() == [[y, x] for y in range(6) for x in range(5)]
        assert (crop > -FAR_LOGIT).nonzero().tolist() == [[5, 4]]

    def test_are_those_of_the_dense_candidates_up_to_the_far_cells(self) -> None:
        candidates = make_blobs(10)
        packed = pack(candidates)
        windows = [(5, 9, 40, 60)] * 10
        for own, other in zip(packed.crops(every(packed), windows), candidates.crops(every(packed), windows), strict=True):
            assert own.shape == other.shape
            assert torch.equal(own > 0, other > 0)

    @pytest.mark.parametrize("column", ["codes", "edges"])
    def test_damage_is_an_error(self, column: str) -> None:
        packed = pack(make_blobs(3))
        values = getattr(packed, column).to_pylist()
        values[1] = values[1][:-1]
        damaged = replace(packed, **{column: pa.array(values, pa.binary())})
        assert len(damaged.crops(torch.tensor([0, 2]), [(0, 0, 64, 64)] * 2)) == 2
        with pytest.raises(ValueError, match=r"run-length code|do not fit it"):
            damaged.crops(torch.tensor([0, 1]), [(0, 0, 64, 64)] * 2)
        with pytest.raises(ValueError, match=r"run-length code|do not fit it"):
            damaged.logits_of(torch.tensor([1]))

    def test_code_of_another_size_is_an_error(self) -> None:
        packed = replace(pack(make_blobs(1)), codes=pa.array([write_code([5, 7])], pa.binary()))
        with pytest.raises(ValueError, match="does not add up to the size of its mask"):
            packed.logits_of(torch.tensor([0]))


class TestShares:
    @pytest.mark.parametrize("seed", range(3))
    def test_are_those_of_the_dense_masks(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        candidates = make_blobs(40, seed=seed)
        packed = pack(candidates)
        rows = torch.randperm(40, generator=generator)[:25]
        groups = torch.randint(0, 4, (25,), generator=generator)
        wanted = torch.rand(25, generator=generator) > 0.3
        found = packed.shares(rows, groups, wanted)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, candidates.shares(rows, groups, wanted))
        assert (found > 0).any()
        assert (found[~wanted.numpy()] == 0).all()

    def test_by_hand(self) -> None:
        # The second of 4 × 4 cells lies half in the first; the third, in another group, covers both.
        masks = torch.zeros(3, 16, 16, dtype=torch.bool)
        masks[0, 0:8, 0:4], masks[1, 6:10, 0:4], masks[2] = True, True, True
        found = pack(make_masks(masks)).shares(torch.arange(3), torch.tensor([5, 5, 9]), torch.tensor([True, True, True]))
        assert found.tolist() == [[1, 0.25, 0], [0.5, 1, 0], [0, 0, 0]]


def overlap(masks: Tensor, others: Tensor) -> Tensor:
    """(N,) float32 IoU of each mask with its counterpart; 1 where both are empty."""
    both, either = (masks & others).flatten(1).sum(1), (masks | others).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


class TestFullSizeMasks:
    @pytest.mark.parametrize("image_hw", [(64, 64), (64, 65), (96, 128), (481, 640), (64, 1000), (1200, 70)])
    def test_are_those_of_the_dense_candidates(self, image_hw: tuple[int, int]) -> None:
        candidates = make_blobs(20)
        packed = pack(candidates)
        dense, own = (upsample(logits, image_hw) for logits in (candidates.logits, packed.logits_of(every(packed))))
        assert float(overlap(own, dense).min()) >= 0.99

    @pytest.mark.parametrize("image_hw", [(40, 40), (48, 30), (33, 200), (300, 33)])
    def test_differ_in_images_smaller_than_the_grid_by_a_pixel_at_most(self, image_hw: tuple[int, int]) -> None:
        """There a pixel looks at cells beyond the edge too, of which the sign alone is kept."""
        candidates = make_blobs(20)
        packed = pack(candidates)
        dense, own = (upsample(logits, image_hw) for logits in (candidates.logits, packed.logits_of(every(packed))))
        along = torch.from_numpy(edge_cells(dense.numpy()))
        assert not bool(((own != dense) & ~along).any())
        assert float(overlap(own, dense).min()) >= 0.9

    def test_of_the_real_segmenter(self) -> None:
        from PIL import Image

        from tests.trays import draw_trays, quick_models

        (candidates,) = propose([Image.fromarray(draw_trays(1)[0].image)], quick_models())
        packed = pack(candidates)
        assert len(packed) > 3
        for image_hw in ((160, 200), (480, 640)):
            dense, own = (upsample(logits, image_hw) for logits in (candidates.logits, packed.logits_of(every(packed))))
            assert float(overlap(own, dense).min()) >= 0.99
        assert_near(packed.features, candidates.features, at_most=0)


def test_packed_finely_the_logits_along_edges_are_theirs_in_half_precision() -> None:
    logits = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(3)) * 10
    logits[:, :4] = -1e-9
    logits[:, 5:7] = 1e-9
    candidates = Candidates(logits, torch.ones(5), torch.ones(5, 4) / 2, (32, 32))
    fine = pack(candidates, fine=True).logits_of(torch.arange(5))
    assert torch.equal(fine > 0, logits > 0)
    band = torch.from_numpy(edge_cells((logits > 0).numpy()))
    torch.testing.assert_close(fine[band], logits[band], rtol=1e-3, atol=1e-4)
    coarse = pack(candidates).logits_of(torch.arange(5))
    assert float((coarse - logits)[band].abs().max()) > float((fine - logits)[band].abs().max())
