"""From a labelled object to its vector, and to those of what surrounds it (method.md, B1 and B2).

Costs one encoder pass over its crop, eight where it is turned; an object known by its box alone a pass of the segmenter
besides.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..candidates import (
    SNAP,
    CutOut,
    ImageEmbeddings,
    cleaning_of,
    crop_corners,
    crop_weights,
    decode_boxes,
    embed_images,
    encode_patches,
    instance_vector,
    look_again,
)
from ..checks import refused, require_kind, require_list_of_numbers
from ..errors import BadReferenceError, ImageError
from ..images import PLAIN, PixelSettings, crop_picture, encoder_pixels, read_header, read_image_hw, segmenter_pixels
from ..models import Models
from ..notebook import facts, gallery, page
from ..printing import object_name, one_line, shorten
from .clusters import find_clusters

VECTOR_VERSION = 2
"""To be raised by whoever changes what comes out for a reference, so that no older vector is reused."""

OUTSIDE = 0.05
"""Patches of less weight lie outside the object."""
BACKGROUND_VECTORS = 8
"""Kinds of surroundings that are kept of one reference."""
SEED, ROUNDS = 33, 20


@dataclass(frozen=True, eq=False)
class Reference:
    """One labelled object that shows what a class looks like.

    Attributes:
        id: of the label, unique.
        label: its class.
        image: path of the image.
        box: x0, y0, x1, y1 in pixels of the upright image, far edge excluded.
        mask: (h, w) bool, the object, stretched over mask_box; None for a box alone.
        mask_box: xyxy whole pixels that the mask covers, which may reach beyond the box; None for the box rounded to pixels.
        problem: why it cannot be used, where that is known already; `build_prototypes` lists it.
        pixels: how the images of its dataset are read, where an index of it says so; plain where nothing is known.
        beside: paths of all images of its dataset, where the range of their pixels has still to be found.
    """

    id: str
    label: str
    image: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None
    mask_box: tuple[int, int, int, int] | None = None
    problem: str = ""
    pixels: PixelSettings = PLAIN
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_kind(str, "a text", error=BadReferenceError, id=self.id, label=self.label, problem=self.problem)
        require_kind((str, os.PathLike), "a path", error=BadReferenceError, image=self.image)
        object.__setattr__(self, "image", os.fspath(self.image))
        require_kind(PixelSettings, "PixelSettings", error=BadReferenceError, pixels=self.pixels)
        require_list_of_numbers(4, error=BadReferenceError, box=self.box)
        # Its paths are not looked at: there may be a hundred thousand, for each of a thousand references.
        require_kind(tuple, "a tuple of paths", error=BadReferenceError, beside=self.beside)
        if self.mask_box is not None:
            require_list_of_numbers(4, error=BadReferenceError, mask_box=self.mask_box)
        if self.mask is not None and (not isinstance(self.mask, np.ndarray) or self.mask.ndim != 2):
            raise refused("mask", "an (h, w) array or None", self.mask, BadReferenceError)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Xyxy pixels that the mask covers, or the box where there is none."""
        return self.mask_box or self.box

    def whole_mask(self, image_hw: tuple[int, int]) -> Tensor | None:
        """(H, W) bool in the image of this height and width; None for a box alone."""
        return None if self.mask is None else paste_mask(self.mask, self.extent, image_hw)

    def _repr_html_(self) -> str:
        """The object in its image, outlined where its mask is known."""
        picture = crop_picture(self.image, self._share_of_image(), self.label, self.problem, self.mask)
        about = {"id": self.id, "image": self.image, "known by": "its box" if self.mask is None else "its mask"}
        return page(object_name(self.label, self.image), gallery([picture]), facts(about))

    def _share_of_image(self) -> tuple[float, float, float, float] | None:
        """X, y, width, height as shares of the upright image; None where that cannot be read."""
        try:
            height, width = read_image_hw(self.image)
        except ImageError:
            return None
        x0, y0, x1, y1 = self.extent
        return x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height

    def __repr__(self) -> str:
        box = ", ".join(f"{value:g}" for value in self.box)
        shape = "by its box" if self.mask is None else "with a mask"
        return f"Reference({shorten(self.label)!r}, {shorten(self.id)!r}, {shape} at {box} in {shorten(self.image)})"


@dataclass(frozen=True, eq=False)
class ReferenceVector:
    """What is kept of a reference.

    Attributes:
        vector: (C,) float32 instance vector, not normalised.
        background: (BACKGROUND_VECTORS, C) float32, see background_vectors; None where it is not known.
        look: (D,) float32, see `refseg.candidates.second_look.look_again`; None where it is not known.
    """

    vector: Tensor
    background: Tensor | None
    look: Tensor | None = None

    __repr__ = one_line


def reference_digest(
    reference: Reference, models: Models, pixels: PixelSettings = PLAIN, *, turned: bool = False
) -> str | None:
    """Sixteen hexadecimal digits that change with whatever a reference's vector depends on, apart from the encoder.

    The image counts by its path, size, time of change and orientation, one of more than 8 bits also by how it is read; its
    header is read. The label does not count, so a reference keeps its vector when it is relabelled.

    Args:
        reference: one labelled object.
        models: whose number format computes the vector, and whose segmenter finds the mask of a box.
        pixels: how its image is read.
        turned: see reference_vector.

    Returns:
        The digest, or None where there is no such file.
    """
    try:
        file = os.stat(reference.image)
    except (OSError, ValueError):
        return None
    if reference.mask is None:
        region = ["the segmenter's", models.revisions["sam2"], *cleaning_of(models.preset)]
    else:
        mask = np.asarray(reference.mask, bool)
        region = [*map(str, (*mask.shape, *(reference.mask_box or ()))), hashlib.sha256(mask.tobytes()).hexdigest()]
    box = [float(side) for side in reference.box]
    path = os.path.abspath(reference.image)
    about = [VECTOR_VERSION, path, file.st_size, file.st_mtime_ns, box, region, str(models.dtype)]
    about += ["turned"] if turned else []
    try:
        header = read_header(reference.image)
        # Nothing of what earlier versions left out where it is as they took it to be: their vectors are as good.
        about += [header.orientation] if header.orientation != 1 else []
        about += [["deep", pixels.pixel_range, pixels.channels]] if header.is_deep or header.num_bands > 3 else []
    except ImageError:
        pass  # building says so
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


@torch.inference_mode()
def reference_vector(
    image: Image.Image,
    reference: Reference,
    models: Models,
    embeddings: ImageEmbeddings | None = None,
    *,
    turned: bool = False,
) -> ReferenceVector | str:
    """The vector of a reference in its image, on the CPU; or the reason why the reference cannot be used.

    Args:
        image: that it is in.
        reference: the object.
        models: that look at it.
        embeddings: of the image, from segmenter_embeddings; made where a box needs them and they are not given.
        turned: average over the crop as it is, turned by quarters and mirrored, eight views in all; what surrounds the object
            is taken from the first.
    """
    if reference.problem:
        return reference.problem
    x0, y0, x1, y1 = reference.box
    if not all(map(math.isfinite, reference.box)):
        return "its box is not finite"
    if not (x1 > x0 and y1 > y0) or x1 <= 0 or y1 <= 0 or x0 >= image.width or y0 >= image.height:
        return "its box is empty or lies outside the image"
    if min(x1 - x0, y1 - y0) < 1 - SNAP:
        return "its box is smaller than a pixel"
    mask = reference.whole_mask((image.height, image.width))
    if mask is None:
        mask = mask_of_box(image, reference.box, models, embeddings)
    if not mask.any():
        return "its mask is empty"
    corners = crop_corners(reference.box, (image.height, image.width))
    left, top, right, bottom = corners
    view = _View(image.crop(corners), mask[top:bottom, left:right], (x0 - left, y0 - top, x1 - left, y1 - top))
    features, weights = view.encode(models)
    vector = instance_vector(features, weights)
    if vector is None:
        return "it is too small or too thin to cover a single patch"
    look = look_again(image, [CutOut(mask, (0, 0), reference.box)], models)[0] if models.preset.second_looks else None
    if turned:
        others = [other for mirrored in (view, view.mirror()) for other in mirrored.turns()][1:]
        vectors = [vector, *(instance_vector(*other.encode(models)) for other in others)]
        vector = torch.stack([one for one in vectors if one is not None]).mean(0)
        looks = [] if look is None else [look, *(other.look(models) for other in others)]
        look = _mean_look(torch.stack(looks)) if looks else None
    return ReferenceVector(vector, background_vectors(features[weights < OUTSIDE]), look)


@dataclass(frozen=True, eq=False)
class _View:
    """A crop around an object: the image, (h, w) bool, and xyxy pixels."""

    image: Image.Image
    mask: Tensor
    box: tuple[float, float, float, float]

    def encode(self, models: Models) -> tuple[Tensor, Tensor]:
        """(G², C) patch features and (G²,) weights."""
        pixels = torch.from_numpy(np.array(self.image)).permute(2, 0, 1)[None].float() / 255
        encoded = encode_patches(encoder_pixels(pixels.to(models.device), models.preset.encoder_side), models)[0]
        return encoded.float().cpu(), crop_weights(self.mask, models.preset.encoder_side, models.patches_side)

    def look(self, models: Models) -> Tensor:
        """(D,) second look."""
        return look_again(self.image, [CutOut(self.mask, (0, 0), self.box)], models)[0]

    def mirror(self) -> _View:
        """Left and right exchanged."""
        x0, y0, x1, y1 = self.box
        box = (self.image.width - x1, y0, self.image.width - x0, y1)
        return _View(self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), self.mask.flip(1), box)

    def turns(self) -> list[_View]:
        """This, and turned to the left by one, two and three quarters."""
        views = [self]
        for _ in range(3):
            last = views[-1]
            x0, y0, x1, y1 = last.box
            box = (y0, last.image.width - x1, y1, last.image.width - x0)
            views.append(_View(last.image.transpose(Image.Transpose.ROTATE_90), last.mask.rot90(1, (0, 1)), box))
        return views


def _mean_look(looks: Tensor) -> Tensor:
    """(D,) of (n, D) second looks: the mean of each half, each of unit length, and the two together too."""
    halves = F.normalize(looks[looks.any(1)].unflatten(1, (2, -1)).mean(0), dim=-1)
    return F.normalize(halves.flatten(), dim=0) if bool(looks.any()) else looks[0]


def background_vectors(features: Tensor) -> Tensor:
    """What surrounds an object: the centres of k-means over the directions of the patches outside it.

    Args:
        features: (n, C) float32, patches of one crop outside the object.

    Returns:
        (BACKGROUND_VECTORS, C) float32, unit length; rows of zeros where there are fewer different patches.
    """
    centers = torch.zeros(BACKGROUND_VECTORS, features.shape[1])
    if len(features):
        found = find_clusters(F.normalize(features, dim=-1), BACKGROUND_VECTORS, torch.Generator().manual_seed(SEED), ROUNDS)
        centers[: len(found)] = F.normalize(found, dim=-1)
    return centers


def paste_mask(mask: NDArray[np.bool_], box: Sequence[float], image_hw: tuple[int, int]) -> Tensor:
    """(H, W) bool: the mask stretched over its box, rounded to whole pixels."""
    height, width = image_hw
    x0, y0 = round(box[0]), round(box[1])
    w, h = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    if mask.shape != (h, w):
        if not mask.size:
            return torch.zeros(height, width, dtype=torch.bool)
        stretched = Image.fromarray(mask.astype(np.uint8) * 255).resize((w, h), Image.Resampling.NEAREST)
        mask = np.asarray(stretched) > 0
    whole = torch.zeros(height, width, dtype=torch.bool)
    top, left, bottom, right = max(0, y0), max(0, x0), min(height, y0 + h), min(width, x0 + w)
    if bottom > top and right > left:
        whole[top:bottom, left:right] = torch.from_numpy(mask[top - y0 : bottom - y0, left - x0 : right - x0].copy())
    return whole


@torch.inference_mode()
def segmenter_embeddings(image: Image.Image, models: Models) -> ImageEmbeddings:
    """What the segmenter sees of an image, for any number of boxes in it."""
    return embed_images(segmenter_pixels(image, models.segmenter_side)[None].to(models.device), models)


def mask_of_box(image: Image.Image, box: Sequence[float], models: Models, embeddings: ImageEmbeddings | None = None) -> Tensor:
    """(H, W) bool: the segmenter's single answer to the box as a prompt; see decode_boxes."""
    side = models.segmenter_side
    scale = torch.tensor([side / image.width, side / image.height] * 2)
    prompt = (torch.tensor(box, dtype=torch.float32) * scale)[None].to(models.device)
    logits = decode_boxes(prompt, embeddings or segmenter_embeddings(image, models), 0, models)
    full = F.interpolate(logits[None].float().cpu(), size=(image.height, image.width), mode="bilinear", align_corners=False)
    return full[0, 0] > 0
