"""From images to candidates: class-agnostic masks, their predicted IoU, and one pooled feature each (method.md, stage A).

Needs no reference, so it runs once an image. Nearly all of its time is the segmenter: its encoder once an image and its
decoder once a prompt. Memory grows with the kept masks, N × M² half-precision logits, not with the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ShapeError
from ..images import encoder_pixels, normalize, segmenter_pixels
from ..models import BatchKey, Models, in_batches, in_threads
from ..printing import describe_candidates, one_line
from .borders import Borders, Squares, boxes_of_bits, cells_of_bits, pack_bits
from .decoding import decode_grid
from .embedding import embed_images
from .grids import drop_near_duplicates, pool_features, share_in_groups, shares_of

Answer = TypeVar("Answer")

NEAR_DUPLICATE_IOU = 0.95
"""Masks that agree to this IoU count as one in an index that is not exact."""


@dataclass(frozen=True)
class Candidates:
    """Masks of one image that some class may claim. Their tensors may lie on any device, and are not changed in place.

    Attributes:
        logits: (N, M, M) float32, segmenter grid; the mask is where they are above 0.
        predicted_iou: (N,) float32, the segmenter's own estimate of each mask's quality.
        features: (N, C) float32, unit length; of most presets rounded to half precision, see Proposals.pool.
        image_hw: height and width of the image in pixels.
        gated: a presence gate kept the segmenter from the image: these are not all the candidates it has.
    """

    logits: Tensor
    predicted_iou: Tensor
    features: Tensor
    image_hw: tuple[int, int]
    gated: bool = False

    def __repr__(self) -> str:
        width, kind = self.features.shape[-1], type(self).__name__
        return describe_candidates(kind, len(self), self.grid_side, self.image_hw, width, self.gated)

    def __post_init__(self) -> None:
        if not len(self.logits) == len(self.predicted_iou) == len(self.features):
            raise ShapeError(
                f"Candidates need one logit map, predicted IoU and feature each, but there are {len(self.logits)}, "
                f"{len(self.predicted_iou)} and {len(self.features)}."
            )

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def masks(self) -> Tensor:
        """(N, M, M) bool, segmenter grid."""
        return self.logits > 0

    @property
    def grid_side(self) -> int:
        """M."""
        return self.logits.shape[-1]

    @property
    def filled(self) -> Tensor:
        """(N,) bool: masks that are not empty."""
        return torch.from_numpy(self._extents[0])

    def boxes_of(self, rows: Tensor) -> Tensor:
        """(n, 4) float32 xyxy cells of some masks that are not empty; see grid_boxes."""
        return torch.from_numpy(self._extents[1])[rows].float()

    def borders(self, rows: Tensor) -> Borders:
        """Where some masks end, which must not be empty."""
        chosen = rows.numpy()
        cells = cells_of_bits(self._bits, chosen, self._extents[1][chosen])
        return Squares(cells).with_logits(self.logits, rows)

    @cached_property
    def _bits(self) -> NDArray[np.uint64]:
        """See pack_bits: nothing else takes as long as reading all logits, and so it is done once."""
        return pack_bits(self.logits)

    @cached_property
    def _extents(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """See boxes_of_bits."""
        return boxes_of_bits(self._bits, self.grid_side)

    def logits_of(self, rows: Tensor) -> Tensor:
        """(n, M, M) float32 logits of some masks."""
        return self.logits[rows]

    def crops(self, rows: Tensor, windows: Sequence[tuple[int, int, int, int]]) -> list[Tensor]:
        """The logits of some masks on the CPU, each within a window: xyxy cells of the grid, far edge excluded."""
        return [
            self.logits[row, top:bottom, left:right].cpu()
            for row, (left, top, right, bottom) in zip(rows.tolist(), windows, strict=True)
        ]

    def shares(self, rows: Tensor, groups: Tensor, wanted: Tensor) -> NDArray[np.float32]:
        """How much of each mask lies inside each other of its group; see share_in_groups."""
        masks = self.logits[rows] > 0
        return share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).cpu().numpy(), groups, wanted)


@dataclass(frozen=True)
class PresenceGate:
    """Tells by the encoder alone whether an image may show any of some classes, so that the segmenter can be spared the others.

    Attributes:
        prototypes: (K, C) float32, unit length.
        min_similarity: an image passes where a patch has at least this cosine with a prototype.
    """

    prototypes: Tensor
    min_similarity: float

    __repr__ = one_line

    def __post_init__(self) -> None:
        if self.prototypes.ndim != 2:
            raise ShapeError(f"A presence gate needs prototypes of shape (K, C), not {tuple(self.prototypes.shape)}.")

    def passes(self, patch_features: Tensor) -> Tensor:
        """Which images pass: (B,) bool, on the CPU, of (B, G², C) patch features.

        Raises:
            ShapeError: the prototypes are of another width.

        Example:
            >>> gate = PresenceGate(torch.tensor([[1.0, 0.0]]), 0.7)
            >>> gate.passes(torch.tensor([[[3.0, 4.0], [8.0, 6.0]], [[0.0, 5.0], [4.0, 5.0]]]))
            tensor([ True, False])
        """
        best = patch_similarity(patch_features, self.prototypes).flatten(1).amax(1)
        return (best >= self.min_similarity).cpu()


def patch_similarity(patch_features: Tensor, prototypes: Tensor) -> Tensor:
    """The cosine of each patch and each prototype.

    Args:
        patch_features: (…, C) of any length, such as (B, G², C).
        prototypes: (K, C), unit length.

    Returns:
        (…, K) float32 in [-1, 1], on the device of the patches.

    Raises:
        ShapeError: patches and prototypes differ in width.
    """
    if prototypes.shape[-1] != patch_features.shape[-1]:
        raise ShapeError(
            f"Prototypes of shape {tuple(prototypes.shape)} do not fit patch features of width {patch_features.shape[-1]}: "
            "build them with the same model."
        )
    return F.normalize(patch_features.float(), dim=-1) @ prototypes.to(patch_features.device).T


@torch.inference_mode()
def propose(
    images: Sequence[Image.Image], models: Models, *, max_iou: float | None = None, gate: PresenceGate | None = None
) -> list[Candidates]:
    """Candidates of some RGB images, on the CPU, in the order of the prompts.

    Args:
        images: upright RGB; any size.
        models: a loaded preset.
        max_iou: see drop_near_duplicates; None keeps them.
        gate: images that do not pass get no candidates, for the price of the encoder; None lets every image pass.
    """
    if not images:
        return []
    pixels = torch.stack([segmenter_pixels(image, models.segmenter_side) for image in images])
    sizes = [(image.height, image.width) for image in images]
    return propose_from_pixels(pixels, sizes, models, max_iou=max_iou, gate=gate)


@torch.inference_mode()
def propose_from_pixels(
    pixels: Tensor,
    sizes: Sequence[tuple[int, int]],
    models: Models,
    *,
    max_iou: float | None = None,
    gate: PresenceGate | None = None,
) -> list[Candidates]:
    """Candidates of images already resized for the segmenter.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 1].
        sizes: height and width of each original image.
        models: a loaded preset.
        max_iou: see drop_near_duplicates; None keeps them.
        gate: see propose.

    Raises:
        ModelMemoryError: one image alone does not fit into memory.
    """

    def look(rows: Sequence[int]) -> list[Candidates]:
        return propose_each(
            pixels[rows[0] : rows[-1] + 1],
            models,
            gate,
            lambda number, found: _candidates(found, sizes[rows[number]], max_iou, models),
        )

    with models.lock:
        answers = in_batches(range(len(pixels)), BatchKey.of("images", models), len(pixels), look)
    return [candidates for some in answers for candidates in some]


def _candidates(found: Proposals, image_hw: tuple[int, int], max_iou: float | None, models: Models) -> Candidates:
    if max_iou is not None:
        found = found.take(drop_near_duplicates(found.logits > 0, found.predicted_iou, max_iou))
    logits, predicted = found.logits.cpu().float(), found.predicted_iou.cpu().float()
    return Candidates(logits, predicted, found.pool(models), image_hw, found.gated)


@dataclass(frozen=True)
class Proposals:
    """What the segmenter answers to the prompt grid on one square of pixels, on the models' device.

    Attributes:
        logits: (N, M, M).
        predicted_iou: (N,).
        patch_features: (G², C), of the same square.
        gated: a presence gate kept the segmenter from it.
    """

    logits: Tensor
    predicted_iou: Tensor
    patch_features: Tensor
    gated: bool = False

    __repr__ = one_line

    def take(self, rows: Tensor) -> Proposals:
        """Those of some rows, by number or as (N,) bool."""
        return Proposals(self.logits[rows], self.predicted_iou[rows], self.patch_features, self.gated)

    def pool(self, models: Models) -> Tensor:
        """(N, C) float32 pooled features on the CPU, rounded as the index of these models keeps them.

        So an image scores the same whether it comes from there or not.
        """
        return pool_features(self.logits > 0, self.patch_features).to(models.feature_dtype).float().cpu()


def propose_each(
    pixels: Tensor, models: Models, gate: PresenceGate | None, finish: Callable[[int, Proposals], Answer]
) -> list[Answer]:
    """Ask the segmenter about each square of pixels that passes the gate; the caller holds the models' lock.

    On a processor squares are looked at side by side, each by its own threads; an accelerator encodes them together.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 1].
        models: a loaded preset.
        gate: None lets every square pass.
        finish: gets the number of a square and what was found there.

    Returns:
        What finish answered for each square.
    """
    if not looks_side_by_side(models):
        return [finish(number, found) for number, found in enumerate(_iter_proposals(pixels, models, gate))]

    def look(number: int) -> Answer:
        (found,) = _iter_proposals(pixels[number : number + 1], models, gate)
        return finish(number, found)

    return in_threads(range(len(pixels)), models.device, look)


def looks_side_by_side(models: Models) -> bool:
    """Whether images are looked at one by one, several at once, or are encoded together."""
    return models.device.type == "cpu"


def _iter_proposals(pixels: Tensor, models: Models, gate: PresenceGate | None) -> Iterator[Proposals]:
    on_device = pixels.to(models.device, non_blocking=True)
    features = encode_patches(encoder_pixels(on_device, models.preset.encoder_side), models)
    passes = torch.ones(len(pixels), dtype=torch.bool) if gate is None else gate.passes(features)
    # Picked only where some are left out: a copy of all may lie in memory in another order, which moves the last digits.
    passed = on_device if passes.all() else on_device[passes.to(models.device)]
    embeddings = embed_images(passed, models) if len(passed) else None
    row = 0
    for own_features, is_let in zip(features, passes.tolist(), strict=True):
        if embeddings is None or not is_let:
            empty = own_features.new_empty
            yield Proposals(empty(0, models.grid_side, models.grid_side), empty(0), own_features, gated=True)
            continue
        yield Proposals(*decode_grid(embeddings, row, models), own_features)
        row += 1


@torch.inference_mode()
def encode_patches(pixels: Tensor, models: Models) -> Tensor:
    """Patch features of the encoder after its last norm; class and register tokens dropped.

    Args:
        pixels: (B, 3, E, E) in [0, 1], on the models' device; another side than the preset's is a multiple of the patch size.
        models: a loaded preset.

    Returns:
        (B, G², C) in the models' dtype, row-major.
    """
    tokens: Tensor = models.dinov2(normalize(pixels).to(models.dtype)).last_hidden_state
    return tokens[:, tokens.shape[1] - (pixels.shape[-1] // models.patch_size) ** 2 :]
