"""Candidates of one image from overlapping tiles, so that small objects are seen at the segmenter's own scale.

An image larger than S pixels is shrunk to S by S, and what is small vanishes. With tiles the whole image is looked at as
before, and then windows of about S by S of its own pixels. Each window costs what an image costs.

Masks of all windows of an image lie on one square grid over the whole of it, the fine grid: stretched as the segmenter's is,
and so fine that a tile's M cells are M cells of it. No mask is ever made on the whole fine grid: memory grows with the objects.
The decoded image takes 4 bytes a pixel; one of 100 megapixels 400 MB, and about 170 windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..images import IMAGES_A_BATCH, segmenter_pixels
from ..models import BatchKey, Models, in_batches
from .grids import drop_near_duplicates, grid_boxes, interpolation_matrix
from .packing import MaskCrop, PackedCandidates, join, pack_crops
from .proposing import NEAR_DUPLICATE_IOU, Candidates, PresenceGate, Proposals, propose_each, propose_from_pixels

# An index with tiles keeps no grid side: it follows from the size of the image by these three, and by fine_grid_side. Whoever
# changes one must raise index_tables.FORMAT_WITH_TILES, and read what was written before by the old ones.
PIXELS_A_CELL = 4
"""Pixels of an image, at its own scale, a cell of the mask grid of a tile: S / M for SAM 2.

A tile of SAM 3, whose grid has 288 cells for 1008 pixels, is shrunk by an eighth.
"""
WHOLE_UP_TO = 1.25
"""A side up to so many times that of a tile is not divided: a window over all of it shrinks it by little."""
MAX_TIMES_FINER = 12
"""The fine grid has at most so many times M cells a side: beyond 12 tiles in a row they grow with the image."""

MIN_OVERLAP = 0.25
"""Share of a tile's side that it has in common with the next one: objects up to this size are whole in one of them."""
EDGE_CELLS = 1
"""A mask that comes this near to an inner edge of its tile is taken for cut off by it."""


@dataclass(frozen=True)
class Window:
    """A part of an image that the segmenter looks at by itself.

    Attributes:
        cells: xyxy cells of the image's fine grid, far edge excluded.
        grid_side: cells a side of the fine grid.
    """

    cells: tuple[int, int, int, int]
    grid_side: int

    @property
    def inner_edges(self) -> tuple[bool, bool, bool, bool]:
        """Which of its edges, left, top, right and bottom, are not the image's."""
        left, top, right, bottom = self.cells
        return left > 0, top > 0, right < self.grid_side, bottom < self.grid_side

    def pixels(self, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """Xyxy pixels of the image, far edge excluded; not always whole ones."""
        height, width = image_hw
        left, top, right, bottom = (cell / self.grid_side for cell in self.cells)
        return left * width, top * height, right * width, bottom * height


def fine_grid_side(image_hw: tuple[int, int], side: int) -> int:
    """Cells a side of the grid over a whole image on which the masks of all its windows lie.

    Args:
        image_hw: height and width of the image in pixels.
        side: pixels of the image a side of a tile, PIXELS_A_CELL·M: S for SAM 2.

    Returns:
        max(H, W)/PIXELS_A_CELL rounded up, M for an image that is not divided, and at most MAX_TIMES_FINER·M.

    Example:
        >>> [fine_grid_side(image_hw, 256) for image_hw in ((200, 320), (360, 480), (90, 9000))]
        [64, 120, 768]
    """
    cells, longer = side // PIXELS_A_CELL, max(image_hw)
    if longer <= WHOLE_UP_TO * side:
        return cells
    return min(-(-cells * longer // side), MAX_TIMES_FINER * cells)


def tile_windows(image_hw: tuple[int, int], side: int) -> list[Window]:
    """The whole image, and then overlapping tiles of it, row by row.

    Tiles are spread evenly, share at least a quarter of their side with the next one, and have about side pixels of the image
    a side. An image that is not much larger than a tile, in both directions, has the whole alone; one that is in one
    direction alone has tiles over all of its shorter side. There are never more than 256 tiles: those of an image of more than
    12·side pixels in a direction are larger.

    Args:
        image_hw: height and width of the image in pixels.
        side: see fine_grid_side.

    Example:
        >>> [window.cells for window in tile_windows((200, 400), 256)]
        [(0, 0, 100, 100), (0, 0, 64, 100), (36, 0, 100, 100)]
    """
    grid_side, cells = fine_grid_side(image_hw, side), side // PIXELS_A_CELL
    rows, columns = (_spread(grid_side, -(-cells * max(image_hw) // length)) for length in image_hw)
    whole = Window((0, 0, grid_side, grid_side), grid_side)
    tiles = [Window((left, top, right, bottom), grid_side) for top, bottom in rows for left, right in columns]
    return [whole] if len(tiles) == 1 else [whole, *tiles]


def propose_read(
    pixels: Tensor | None,
    sizes: Sequence[tuple[int, int]],
    pictures: Sequence[Image.Image],
    models: Models,
    *,
    exact: bool,
    gate: PresenceGate | None = None,
) -> Sequence[Candidates | PackedCandidates]:
    """Candidates of images that were read, as an index keeps them: in tiles, or whole where they are stacked.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 1]; None in tiles, or without any image.
        sizes: height and width of each image.
        pictures: images at their own size, in tiles; empty else.
        models: a loaded preset.
        exact: keep near-duplicates.
        gate: see propose_tiles.
    """
    max_iou = None if exact else NEAR_DUPLICATE_IOU
    if pixels is not None:
        return propose_from_pixels(pixels, sizes, models, max_iou=max_iou, gate=gate)
    return [propose_tiles(picture, models, max_iou=max_iou, gate=gate, fine=exact) for picture in pictures]


@torch.inference_mode()
def propose_tiles(
    image: Image.Image,
    models: Models,
    *,
    max_iou: float | None = None,
    gate: PresenceGate | None = None,
    fine: bool = False,
) -> PackedCandidates:
    """Candidates of one RGB image from all of its windows, on its fine grid; features are pooled within the window.

    A mask that comes within a cell of an inner edge of its window is left out: a neighbour or the whole image has all of it.
    Masks that two windows have in common are left to the NMS of matching. An image that has one window alone gets what propose
    gives, packed.

    Args:
        image: upright RGB; any size.
        models: a loaded preset.
        max_iou: see drop_near_duplicates, within each window; None keeps them.
        gate: windows that do not pass get no candidates, for the price of the encoder; None lets every window pass.
        fine: see pack.
    """
    image_hw = image.height, image.width
    windows = tile_windows(image_hw, PIXELS_A_CELL * models.grid_side)

    def look(some: Sequence[Window]) -> list[PackedCandidates]:
        pixels = torch.stack([_window_pixels(image, window, models.segmenter_side) for window in some])
        with models.lock:
            return propose_each(
                pixels,
                models,
                gate,
                lambda number, found: _pack_window(found, some[number], image_hw, max_iou, fine, models),
            )

    batches = in_batches(windows, BatchKey.of("images", models), IMAGES_A_BATCH[models.device.type], look)
    return join([part for parts in batches for part in parts])


def cut_off(masks: Tensor, window: Window) -> Tensor:
    """(N,) bool: masks (N, M, M) of a window that come within EDGE_CELLS cells of an edge of it that is not the image's."""
    sides = masks[:, :, :EDGE_CELLS], masks[:, :EDGE_CELLS], masks[:, :, -EDGE_CELLS:], masks[:, -EDGE_CELLS:]
    touched = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    for cells, is_inner in zip(sides, window.inner_edges, strict=True):
        if is_inner:
            touched |= cells.flatten(1).any(1)
    return touched


def _spread(grid_side: int, length: int) -> list[tuple[int, int]]:
    """First cell and end of each tile along an axis; length is that of a tile."""
    if grid_side <= WHOLE_UP_TO * length:
        return [(0, grid_side)]
    # In whole cells, so that rounding does not take from the overlap.
    longest_step = max(1, math.floor((1 - MIN_OVERLAP) * length))
    steps = -(-(grid_side - length) // longest_step)
    starts = [round(number * (grid_side - length) / steps) for number in range(steps + 1)]
    return [(start, start + length) for start in starts]


def _window_pixels(image: Image.Image, window: Window, side: int) -> Tensor:
    """(3, S, S) float32 in [0, 1]; of the whole image what the segmenter gets without tiles."""
    cut = image.resize((side, side), Image.Resampling.BICUBIC, box=window.pixels((image.height, image.width)))
    return segmenter_pixels(cut, side)


def _pack_window(
    found: Proposals, window: Window, image_hw: tuple[int, int], max_iou: float | None, fine: bool, models: Models
) -> PackedCandidates:
    masks = found.logits > 0
    found = found.take(masks.flatten(1).any(1) & ~cut_off(masks, window))
    if max_iou is not None:
        found = found.take(drop_near_duplicates(found.logits > 0, found.predicted_iou, max_iou))
    logits = found.logits.cpu().float()
    boxes = grid_boxes(logits > 0).int() if len(logits) else torch.empty(0, 4)
    left, top, right, bottom = window.cells
    rows, columns = (interpolation_matrix(logits.shape[-1], cells) for cells in (bottom - top, right - left))
    crops = [_refine(own, box, window, rows, columns) for own, box in zip(logits, boxes.tolist(), strict=True)]
    predicted = found.predicted_iou.cpu().float()
    return pack_crops(
        crops, predicted, found.pool(models), image_hw=image_hw, grid_side=window.grid_side, fine=fine, gated=found.gated
    )


def _refine(logits: Tensor, box: tuple[int, int, int, int], window: Window, rows: Tensor, columns: Tensor) -> MaskCrop:
    """Resize the part of (M, M) logits around a mask to the cells of the fine grid: bilinear, by one matrix an axis."""
    x0, y0, x1, y1 = box
    top, bottom = _reach(y0, y1, rows)
    left, right = _reach(x0, x1, columns)
    crop = rows[top:bottom] @ logits @ columns[left:right].T
    return MaskCrop(crop.numpy(), window.cells[0] + left, window.cells[1] + top)


def _reach(first: int, last: int, axis: Tensor) -> tuple[int, int]:
    """The fine cells, from and to, that old cells first to last can fill, and a ring of one more."""
    cells, old_cells = axis.shape
    scale = cells / old_cells
    return max(0, math.floor((first - 1) * scale) - 1), min(cells, math.ceil((last + 2) * scale) + 1)
