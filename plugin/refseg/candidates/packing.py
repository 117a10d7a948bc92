"""Candidates small enough to keep: masks as run-length codes, and the logits along their edges in a byte each.

A packed mask takes a few hundred bytes where its logits take M² × 4. What is left out cannot be seen: resizing a mask to an
image no smaller than its grid asks for logits only where neighbours differ in sign, and these are kept, within 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from ..errors import ShapeError
from ..masks import decode_masks, encode_crop
from ..printing import describe_candidates, one_line
from .borders import Borders, Squares, cells_of_codes
from .grids import grid_boxes, share_in_groups
from .proposing import Candidates

LOWEST_LOGIT = 0.02
LOGIT_STEP = 1.1
"""Code k stands for a logit of LOWEST_LOGIT × LOGIT_STEP^k. Finer steps take more bytes and move no pixel that can be seen."""
FAR_LOGIT = 20.0
"""Stands for every logit away from an edge."""
CELLS_A_CHUNK = 1 << 25
"""Cells decoded at once, a byte each: 512 masks of a grid of 256, three of the finest grid of a tiled image."""

CELLS_A_STEP = 1 << 20
"""Cells packed at once: what is made of them on the way takes a few megabytes, however many masks there are."""


@dataclass(frozen=True)
class PackedCandidates:
    """Candidates of one image as the index keeps them.

    Attributes:
        codes: N compressed run-length codes, column-major as in COCO, of masks on the segmenter grid; none is empty.
        edges: for each mask one byte for every cell along its edge, or four where packed finely; see edge_cells.
        boxes: (N, 4) float32 xyxy, the smallest and largest cell index of each mask.
        predicted_iou: (N,) float32.
        features: (N, C) float32, see Candidates.
        image_hw: height and width of the image in pixels.
        grid_side: M, or that of the image's fine grid where it was looked at in tiles.
        gated: a presence gate kept the segmenter from the image, or a part of it: these are not all the candidates it has.
    """

    codes: pa.BinaryArray
    edges: pa.BinaryArray
    boxes: Tensor
    predicted_iou: Tensor
    features: Tensor
    image_hw: tuple[int, int]
    grid_side: int
    gated: bool = False

    def __repr__(self) -> str:
        width, kind = self.features.shape[-1], type(self).__name__
        return describe_candidates(kind, len(self), self.grid_side, self.image_hw, width, self.gated)

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.codes, self.edges, self.boxes, self.predicted_iou, self.features)}
        if len(lengths) > 1:
            raise ShapeError(f"Packed candidates need one code, edge, box, predicted IoU and feature each, not {lengths}.")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def filled(self) -> Tensor:
        """(N,) bool: all True."""
        return torch.ones(len(self), dtype=torch.bool)

    def row(self, number: int) -> PackedCandidates:
        """One of them alone."""
        one = slice(number, number + 1)
        tensors = self.boxes[one], self.predicted_iou[one], self.features[one]
        return PackedCandidates(
            self.codes.slice(number, 1), self.edges.slice(number, 1), *tensors, self.image_hw, self.grid_side, self.gated
        )

    def boxes_of(self, rows: Tensor) -> Tensor:
        """(n, 4) float32 xyxy cells of some masks."""
        return self.boxes[rows]

    def logits_of(self, rows: Tensor) -> Tensor:
        """(n, M, M) float32 logits of some masks: right in sign everywhere and in value along the edges.

        Raises:
            ValueError: a code is damaged.
        """
        whole = (0, 0, self.grid_side, self.grid_side)
        return torch.stack([*self.crops(rows, [whole] * len(rows)), torch.empty(whole[2:])])[:-1]

    def crops(self, rows: Tensor, windows: Sequence[tuple[int, int, int, int]]) -> list[Tensor]:
        """The logits of some masks, each within a window: xyxy cells of the grid, far edge excluded.

        Raises:
            ValueError: a code is damaged.
        """
        codes, edges = _take(self.codes, rows), _take(self.edges, rows)
        boxes = self.boxes[rows].int().tolist()
        step = max(1, CELLS_A_CHUNK // self.grid_side**2)
        crops: list[Tensor] = []
        for some in (slice(start, start + step) for start in range(0, len(codes), step)):
            masks = decode_masks(codes[some], (self.grid_side, self.grid_side))
            parts = zip(masks, edges[some], boxes[some], windows[some], strict=True)
            crops += [_unpack(mask, edge, box, window) for mask, edge, box, window in parts]
        return crops

    def borders(self, rows: Tensor) -> Borders:
        """Where some masks end.

        Raises:
            ValueError: a code is damaged.
        """
        boxes = self.boxes[rows].numpy().astype(np.int64)
        squares = Squares(cells_of_codes(_take(self.codes, rows), self.grid_side, boxes))
        along = squares.edge_cells()
        counts = replace(squares.cells.crops, words=along).areas
        return squares.with_heights(along, _edge_heights(_take(self.edges, rows), counts))

    def shares(self, rows: Tensor, groups: Tensor, wanted: Tensor) -> NDArray[np.float32]:
        """How much of each mask lies inside each other of its group, straight from the codes; see share_in_groups."""
        size = [self.grid_side, self.grid_side]
        return shares_of_codes([{"size": size, "counts": code} for code in _take(self.codes, rows)], groups, wanted)


def shares_of_codes(codes: Sequence[Mapping[str, Any]], groups: Tensor, wanted: Tensor) -> NDArray[np.float32]:
    """How much of each mask, known by its run-length code, lies inside each other of its group; see share_in_groups."""

    def share(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        outer = [codes[position] for position in others]
        # With the others marked as crowds pycocotools divides the intersection by the area of the first mask alone.
        shares: NDArray[np.float64] = mask_utils.iou([codes[position] for position in some], outer, [1] * len(outer))
        return shares.astype(np.float32)

    return share_in_groups(share, groups, wanted)


def join(parts: Sequence[PackedCandidates]) -> PackedCandidates:
    """Candidates of one image that were packed apart, together; there must be at least one part."""
    return PackedCandidates(
        pa.concat_arrays([part.codes for part in parts]),
        pa.concat_arrays([part.edges for part in parts]),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.predicted_iou for part in parts]),
        torch.cat([part.features for part in parts]),
        parts[0].image_hw,
        parts[0].grid_side,
        any(part.gated for part in parts),
    )


def pack(candidates: Candidates, *, fine: bool = False) -> PackedCandidates:
    """Pack the candidates of one image; empty masks, which no class can claim, are left out.

    Args:
        candidates: of one image.
        fine: keep the logits along the edges in float32, four bytes each, instead of within 5 %.
    """
    all_logits: NDArray[np.float32] = candidates.logits.numpy()
    step = max(1, CELLS_A_STEP // candidates.grid_side**2)
    filled: list[int] = []
    boxes: list[list[int]] = []
    codes: list[bytes] = []
    edges: list[bytes] = []
    for start in range(0, len(candidates), step):
        logits = all_logits[start : start + step]
        masks: NDArray[np.bool_] = logits > 0
        rows, columns = _any(masks, 2), _any(masks, 1)
        if not (kept := rows.any(1)).all():
            logits, masks, rows, columns = logits[kept], masks[kept], rows[kept], columns[kept]
        filled += (start + np.flatnonzero(kept)).tolist()
        (y0, y1), (x0, x1) = _span(rows), _span(columns)
        boxes += np.stack([x0, y0, x1, y1], 1).tolist()
        codes += _encode(masks)
        edges += _edges(masks, logits, fine)
    return PackedCandidates(
        pa.array(codes, pa.binary()),
        pa.array(edges, pa.binary()),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        candidates.predicted_iou[filled],
        candidates.features[filled],
        candidates.image_hw,
        candidates.grid_side,
        candidates.gated,
    )


@dataclass(frozen=True)
class MaskCrop:
    """The part of a mask grid in which a mask lies: with a ring of a cell around the mask, where the grid has one.

    Attributes:
        logits: (h, w) float32.
        left: column of its first cell in the grid.
        top: row of its first cell in the grid.
    """

    logits: NDArray[np.float32]
    left: int
    top: int

    __repr__ = one_line


def pack_crops(
    crops: Sequence[MaskCrop],
    predicted_iou: Tensor,
    features: Tensor,
    *,
    image_hw: tuple[int, int],
    grid_side: int,
    fine: bool = False,
    gated: bool = False,
) -> PackedCandidates:
    """Pack masks of one image without ever making the whole grid: what pack gives, for the cost of the objects alone.

    Args:
        crops: N; empty masks are left out.
        predicted_iou: (N,) float32.
        features: (N, C) float32.
        image_hw: height and width of the image in pixels.
        grid_side: cells a side of the grid that the crops are parts of.
        fine: see pack.
        gated: see PackedCandidates.

    Raises:
        ShapeError: there is not one predicted IoU and feature for each crop.
    """
    if not len(crops) == len(predicted_iou) == len(features):
        raise ShapeError(
            f"Packing needs one predicted IoU and feature a crop, but there are {len(crops)}, {len(predicted_iou)} and "
            f"{len(features)}."
        )
    filled = [row for row, crop in enumerate(crops) if (crop.logits > 0).any()]
    kept = [crops[row] for row in filled]
    masks = [crop.logits > 0 for crop in kept]
    boxes = [
        grid_boxes(torch.from_numpy(mask)[None])[0] + torch.tensor([crop.left, crop.top] * 2)
        for mask, crop in zip(masks, kept, strict=True)
    ]
    grid_hw = grid_side, grid_side
    codes = [encode_crop(mask, (crop.left, crop.top), grid_hw)["counts"] for mask, crop in zip(masks, kept, strict=True)]
    edges = [_edges(mask[None], crop.logits[None], fine)[0] for mask, crop in zip(masks, kept, strict=True)]
    rows = torch.tensor(filled, dtype=torch.int64)
    return PackedCandidates(
        pa.array(codes, pa.binary()),
        pa.array(edges, pa.binary()),
        torch.stack(boxes) if boxes else torch.empty(0, 4),
        predicted_iou[rows],
        features[rows],
        image_hw,
        grid_side,
        gated,
    )


def edge_cells(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n, h, w) bool: the cells of each mask (n, h, w) with a neighbour, diagonal ones too, on the other side of its edge.

    Example:
        >>> edge_cells(np.array([[[True, True, False, False]]])).astype(int).tolist()
        [[[0, 1, 1, 0]]]
    """
    return _grow(masks) & _grow(~masks)


def _grow(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    tall = masks.copy()
    tall[:, 1:] |= masks[:, :-1]
    tall[:, :-1] |= masks[:, 1:]
    wide = tall.copy()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide


def _any(masks: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Torch's any takes twenty times as long as numpy's."""
    found: NDArray[np.bool_] = np.logical_or.reduce(masks, axis)
    return found


def _span(used: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last True of each row, which must have one."""
    return used.argmax(1), used.shape[1] - 1 - used[:, ::-1].argmax(1)


def _encode(masks: NDArray[np.bool_]) -> list[bytes]:
    if not len(masks):
        return []
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8)
    return [code["counts"] for code in mask_utils.encode(columns.T)]


def _edges(masks: NDArray[np.bool_], logits: NDArray[np.float32], fine: bool) -> list[bytes]:
    band = edge_cells(masks)
    ends = np.cumsum(band.reshape(len(band), masks[0].size if len(masks) else 0).sum(1))
    if fine:
        # Never 0: the sign of a logit is its side of the edge.
        floats = np.abs(logits[band]).clip(np.finfo(np.float32).smallest_normal).astype(np.float32)
        return [part.tobytes() for part in np.split(floats, ends[:-1])] if len(masks) else []
    heights = np.abs(logits[band]).clip(LOWEST_LOGIT)
    codes = np.rint(np.log(heights / LOWEST_LOGIT) / np.log(LOGIT_STEP)).clip(0, 255).astype(np.uint8)
    return [part.tobytes() for part in np.split(codes, ends[:-1])] if len(masks) else []


def _unpack(mask: NDArray[np.bool_], edge: bytes, box: Sequence[int], window: tuple[int, int, int, int]) -> Tensor:
    side = len(mask)
    x0, y0, x1, y1 = box
    # Every cell along the edge lies in the box or right beside it.
    ring = (max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 2, side), min(y1 + 2, side))
    inside = mask[ring[1] : ring[3], ring[0] : ring[2]]
    band = edge_cells(inside[None])[0]
    heights = _edge_heights([edge], np.array([np.count_nonzero(band)]))
    logits = np.where(inside, FAR_LOGIT, -FAR_LOGIT).astype(np.float32)
    logits[band] = np.where(inside[band], heights, -heights)
    left, top, right, bottom = window
    crop = np.full((bottom - top, right - left), -FAR_LOGIT, np.float32)
    x0, y0, x1, y1 = max(left, ring[0]), max(top, ring[1]), min(right, ring[2]), min(bottom, ring[3])
    if x0 < x1 and y0 < y1:
        crop[y0 - top : y1 - top, x0 - left : x1 - left] = logits[y0 - ring[1] : y1 - ring[1], x0 - ring[0] : x1 - ring[0]]
    return torch.from_numpy(crop)


def _edge_heights(edges: Sequence[bytes], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The logits along the edges of masks, but for their signs: so many of each, one mask after the other.

    Raises:
        ValueError: there are not so many.
    """
    lengths = np.array([len(edge) for edge in edges], np.int64)
    sizes = lengths // counts.clip(1)
    sizes[counts == 0] = 1
    if not np.isin(sizes, list(_EDGE_KINDS)).all() or (sizes * counts != lengths).any():
        raise ValueError("the logits along the edge of a mask do not fit it")
    if (sizes == 1).all():
        coarse: NDArray[np.float32] = _HEIGHTS.take(np.frombuffer(b"".join(edges), np.uint8))
        return coarse
    parts = [np.frombuffer(edge, _EDGE_KINDS[size]) for edge, size in zip(edges, sizes.tolist(), strict=True)]
    return np.concatenate([_HEIGHTS[part] if part.dtype == np.uint8 else part for part in parts]).astype(np.float32)


_HEIGHTS = (LOWEST_LOGIT * LOGIT_STEP ** np.arange(256)).astype(np.float32)
_EDGE_KINDS: dict[int, type[np.number[Any]]] = {1: np.uint8, 2: np.float16, 4: np.float32}
"""How logits along an edge are kept, by bytes a cell; two were what earlier versions kept where four are now."""


def _take(column: pa.BinaryArray, rows: Tensor) -> list[bytes]:
    # Of so few rows Arrow's own take is slower.
    return [column[row].as_py() for row in rows.tolist()]
