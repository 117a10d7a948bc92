"""What the encoder sees in references: to understand prototypes before trusting them.

Each reference costs one pass of the encoder; the segmenter is asked only for masks of references that are boxes. The patch
features of one class at a time are in memory, 5.6 MB a reference for the largest encoder.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..calibration import MINED_PREFIX
from ..candidates import crop_corners, crop_weights, encode_patches
from ..checks import names_or_none, require_items, require_whole
from ..dataset import image_view, named_prototypes, references_by_id
from ..dataset.sources import models_for
from ..errors import DatasetError, ImageError
from ..images import (
    COLORS,
    INK,
    PAPER,
    PixelSettings,
    as_data_uri,
    as_jpeg,
    encoder_pixels,
    fit,
    line_of_text,
    paragraph,
    read_image,
    sheet,
)
from ..insight import ReferenceQuality, principal_colors, reference_quality
from ..models import Models
from ..notebook import CROP_SIDE, PICTURES, Html, Picture, details, gallery, page
from ..printing import counted, object_name, one_line
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, Reference, find_clusters, mask_of_box, nearest

logger = logging.getLogger(__name__)

MAX_REFERENCES = 40
"""Of one class, shown unless more are asked for."""
NUM_PARTS = 4
SEED = 33
INSIDE = 0.5
"""A patch belongs to the object when at least so much of its weight says so."""
PICTURE_SIDE = 224
CELL_SIDE, CAPTION_WIDTH = 144, 250
WARNING = (178, 34, 34)


@dataclass(frozen=True, eq=False)
class InspectedReference:
    """One reference or negative, seen as its encoder sees it.

    Attributes:
        id: of the label.
        label: its class; of a negative, its name.
        crop: what the encoder was shown.
        pca: the patches of the crop, coloured by the three principal components of the patch features inside all objects of
            its class that are shown: like colours are like features, in each of them. Patches outside the object are dim.
        parts: the crop with each patch of the object tinted by its part: the same colour is the same part in each object of
            the class.
        quality: how it fits its class; None for a negative.
        is_negative: whether it is a negative.
        image: path of the image it was cut from; "" where that does not matter.
    """

    id: str
    label: str
    crop: Image.Image
    pca: Image.Image
    parts: Image.Image
    quality: ReferenceQuality | None
    is_negative: bool = False
    image: str = ""

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """The crop, its features and its parts beside each other."""
        return page(object_name(self.label, self.image, self.id), gallery(self._pictures()))

    def _pictures(self) -> list[Picture]:
        problem = "" if self.quality is None else self.quality.problem or ""
        said = "a negative" if self.is_negative else f"it is {problem}" if problem else ""
        shown = (("what is shown", self.crop, said), ("features", self.pca, ""), ("parts", self.parts, ""))
        return [_picture(title, picture, text) for title, picture, text in shown]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What iter_inspect_references found.

    Attributes:
        references: class by class, those least like their class first; negatives last.
        skipped: id of each reference that cannot be shown any more, and in words what it is and why.
        num_left_out: references beyond the most that were asked for.
    """

    references: tuple[InspectedReference, ...]
    skipped: tuple[tuple[str, str], ...]
    num_left_out: int

    def _repr_html_(self) -> str:
        """The first references, each as crop, features and parts."""
        shown = self.references[: PICTURES // 3]
        rest = len(self.references) + self.num_left_out - len(shown)
        return page(
            f"{counted(len(self.references), 'reference')} as the encoder sees them",
            *(Html(item._repr_html_()) for item in shown),
            f"and {rest:,} more, see refseg.inspection_sheet" if rest else None,
            details(f"{counted(len(self.skipped), 'reference')} not shown", [f"{why} ({one})" for one, why in self.skipped]),
        )


def inspect_references(
    dataset: Any,
    prototypes: Prototypes | str,
    *,
    classes: Sequence[str] | None = None,
    num_parts: int = NUM_PARTS,
    max_references: int = MAX_REFERENCES,
    model: str | Models | None = None,
    progress: bool | Watcher | None = None,
) -> list[InspectedReference]:
    """Show what the encoder sees in the references of prototypes, the negatives after them.

    The published tool (arXiv 2507.02798) draws its references in the same two ways: by principal components and by k-means.

    Args:
        dataset: that holds the labels; a dataset or view of images.
        prototypes: or the name under which the dataset keeps them.
        classes: only these, with the negatives that count for them; by default all.
        num_parts: parts that the objects of a class are divided into, fewer where they have fewer different patches.
        max_references: of a class; where it has more, those least like their class are shown.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        progress: see `refseg.progress.drain`.

    Returns:
        Class by class, those least like their class first. A reference whose label or image is gone is left out and logged;
        `iter_inspect_references` returns these too.

    Raises:
        DatasetError: no images, unknown prototypes, a class they do not have, or a number below one.
        PrototypeMismatchError: the model is of another encoder than the one that built the prototypes.
    """
    work = iter_inspect_references(
        dataset, prototypes, classes=classes, num_parts=num_parts, max_references=max_references, model=model
    )
    return list(drain(work, progress, "inspecting").references)


def iter_inspect_references(
    dataset: Any,
    prototypes: Prototypes | str,
    *,
    classes: Sequence[str] | None = None,
    num_parts: int = NUM_PARTS,
    max_references: int = MAX_REFERENCES,
    model: str | Models | None = None,
) -> Generator[Progress, None, Inspection]:
    """The generator behind inspect_references: yields after each reference."""
    dataset = image_view(dataset)
    require_whole(1, num_parts=num_parts, max_references=max_references)
    _, prototypes = named_prototypes(dataset, prototypes)
    groups = _groups(prototypes, names_or_none("classes", classes))
    num_left_out = sum(max(0, len(group.ids) - max_references) for group in groups)
    groups = [replace(group, ids=group.ids[:max_references]) for group in groups]
    labels = references_by_id(dataset, [name for group in groups for name in group.ids])
    models = models_for(prototypes, model)
    quality = {item.id: item for item in reference_quality(prototypes)}
    image_names = dict(zip(prototypes.reference_ids, prototypes.image_names, strict=False))
    total, done = sum(len(group.ids) for group in groups), 0
    inspected: list[InspectedReference] = []
    skipped: list[tuple[str, str]] = []
    yield Progress(0, total, "references")
    for group in groups:
        looks: list[_Look] = []
        for name in group.ids:
            look = (
                _look(labels[name], models, prototypes.pixels) if name in labels else "its label is not in the dataset any more"
            )
            if isinstance(look, str):
                what = object_name(group.name, labels[name].image if name in labels else image_names.get(name, ""))
                skipped.append((name, f"{what}: {look}"))
                logger.warning("A reference is not shown: %s: %s (%s)", what, look, name)
            else:
                looks.append(look)
            done += 1
            yield Progress(done, total, "references")
        for look, (crop, pca, parts) in zip(looks, _draw(looks, num_parts), strict=True):
            found = None if group.is_negative else quality[look.id]
            shown = InspectedReference(look.id, group.name, crop, pca, parts, found, group.is_negative, look.image)
            inspected.append(shown)
    return Inspection(tuple(inspected), tuple(skipped), num_left_out)


def inspection_sheet(inspected: Sequence[InspectedReference]) -> Image.Image:
    """One page: a row for each reference with its crop, features, parts, and in words how it fits; a heading for each class.

    Args:
        inspected: in the order to be shown; none give an empty page that says so.
    """
    require_items(InspectedReference, "a list of what refseg.inspect_references gives", inspected=inspected)
    if not inspected:
        return paragraph("No reference can be shown.", 3 * CELL_SIDE)
    width = 3 * (CELL_SIDE + 8) + CAPTION_WIDTH
    rows: list[list[Image.Image]] = [[line_of_text(text, CELL_SIDE, 15) for text in ("what is shown", "features", "parts")]]
    previous: tuple[str, bool] | None = None
    for item in inspected:
        if (item.label, item.is_negative) != previous:
            previous = item.label, item.is_negative
            rows.append([line_of_text(f"{item.label} (negatives)" if item.is_negative else item.label, width, 20)])
        cells = [fit(picture, CELL_SIDE, CELL_SIDE) for picture in (item.crop, item.pca, item.parts)]
        rows.append([*cells, _caption(item)])
    return sheet(rows)


def check_classes(prototypes: Prototypes, names: Iterable[str]) -> None:
    """Refuse a class that the prototypes do not have.

    Raises:
        DatasetError: there is one; the message lists those they do.
    """
    unknown = [name for name in names if name not in prototypes.classes]
    if unknown:
        known = ", ".join(map(repr, prototypes.classes))
        raise DatasetError(f"The prototypes have no class {unknown[0]!r}: choose one of {known}.")


@dataclass(frozen=True)
class _Group:
    """References of one class, or negatives of one name, in the order to be shown."""

    name: str
    ids: tuple[str, ...]
    is_negative: bool


@dataclass(frozen=True, eq=False)
class _Look:
    """A reference's crop as the encoder sees it.

    Attributes:
        id: of the label.
        image: path of its image.
        crop: RGB.
        mask: (h, w) bool, the crop's pixels.
        features: (G², C) float32, row-major.
        weights: (G²,) float32 in [0, 1].
    """

    id: str
    image: str
    crop: Image.Image
    mask: NDArray[np.bool_]
    features: Tensor
    weights: Tensor

    @property
    def inside(self) -> Tensor:
        """(G²,) bool: patches of the object; of a thin one, those that it touches."""
        inside = self.weights >= INSIDE
        return inside if bool(inside.any()) else self.weights > 0


def _groups(prototypes: Prototypes, classes: Sequence[str] | None) -> list[_Group]:
    chosen = list(prototypes.classes if classes is None else dict.fromkeys(classes))
    check_classes(prototypes, chosen)
    members: dict[str, list[ReferenceQuality]] = {name: [] for name in chosen}
    for item in reference_quality(prototypes):
        if item.label in members:
            members[item.label].append(item)
    groups = []
    for name, items in members.items():
        ordered = sorted(items, key=lambda item: (item.problem is None, item.similarity or 0.0))
        groups.append(_Group(name, tuple(item.id for item in ordered), False))
    negatives: dict[str, list[str]] = {}
    if prototypes.negatives is not None:
        for name, label_id in zip(prototypes.negatives.names, prototypes.negatives.ids, strict=True):
            # A negative that is named like no class counts for every class; one that was mined is no label to be shown.
            if (name in chosen or name not in prototypes.classes) and not label_id.startswith(MINED_PREFIX):
                negatives.setdefault(name, []).append(label_id)
    return groups + [_Group(name, tuple(ids), True) for name, ids in negatives.items()]


@torch.inference_mode()
def _look(reference: Reference, models: Models, reading: PixelSettings) -> _Look | str:
    """The crop of a reference and its patches, as `refseg.prototypes.prototypes` makes them; or why it cannot be shown."""
    try:
        image = read_image(reference.image, pixels=reading)
    except ImageError as error:
        return error.reason
    image_hw = image.height, image.width
    with models.lock:
        mask = reference.whole_mask(image_hw)
        if mask is None:
            mask = mask_of_box(image, reference.box, models)
        left, top, right, bottom = crop_corners(reference.box, image_hw)
        crop = image.crop((left, top, right, bottom))
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 255
        features = encode_patches(encoder_pixels(pixels.to(models.device), models.preset.encoder_side), models)[0]
    part = mask[top:bottom, left:right]
    weights = crop_weights(part, models.preset.encoder_side, models.patches_side)
    if not weights.sum() > 0:
        return "its mask covers no patch any more"
    return _Look(reference.id, reference.image, crop, part.numpy(), features.float().cpu(), weights)


def _draw(looks: Sequence[_Look], num_parts: int) -> list[tuple[Image.Image, Image.Image, Image.Image]]:
    """Crop, features and parts of the references of one class, drawn alike."""
    if not looks:
        return []
    features = torch.cat([look.features for look in looks])
    inside = torch.cat([look.inside for look in looks])
    colors = principal_colors(features, inside)
    centers = find_clusters(features[inside], num_parts, torch.Generator().manual_seed(SEED))
    parts = nearest(features, centers)
    pictures, start = [], 0
    for look in looks:
        rows = slice(start, start + len(look.features))
        start = rows.stop
        scale = PICTURE_SIDE / max(look.crop.size)
        size = max(1, round(look.crop.width * scale)), max(1, round(look.crop.height * scale))
        crop = look.crop.resize(size, Image.Resampling.BICUBIC)
        pictures.append((crop, _draw_colors(colors[rows], look.weights, size), _draw_parts(crop, look.mask, parts[rows])))
    return pictures


def _draw_colors(colors: Tensor, weights: Tensor, size: tuple[int, int]) -> Image.Image:
    # The darkest colour of the object is lighter than whatever lies around it.
    light = 0.25 + 0.75 * colors
    dim = 0.12 * light + 0.88 * torch.tensor(INK) / 255
    mixed = dim + weights[:, None] * (light - dim)
    side = round(len(colors) ** 0.5)
    pixels = (mixed.view(side, side, 3) * 255).round().byte().numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _draw_parts(crop: Image.Image, mask: NDArray[np.bool_], parts: Tensor) -> Image.Image:
    side = round(len(parts) ** 0.5)
    grid = Image.fromarray(parts.view(side, side).byte().numpy())
    rows = np.asarray(grid.resize(crop.size, Image.Resampling.NEAREST)) % len(COLORS)
    shape = np.asarray(Image.fromarray(mask).resize(crop.size, Image.Resampling.NEAREST))
    pixels = np.asarray(crop).astype(np.float32)
    tinted = 0.35 * pixels + 0.65 * np.array(COLORS, np.float32)[rows]
    faded = 0.35 * pixels + 0.65 * np.array(PAPER, np.float32)
    return Image.fromarray(np.where(shape[..., None], tinted, faded).astype(np.uint8))


def _picture(title: str, picture: Image.Image, text: str) -> Picture:
    small = fit(picture, CROP_SIDE, CROP_SIDE)
    return Picture(as_data_uri(as_jpeg(small)), title, text)


def _caption(item: InspectedReference) -> Image.Image:
    lines = []
    if item.quality is not None and item.quality.similarity is not None:
        lines.append(paragraph(f"{item.quality.similarity:.2f} like the others of its class", CAPTION_WIDTH))
    elif item.quality is not None:
        lines.append(paragraph("the only reference of its class", CAPTION_WIDTH))
    if item.quality is not None and item.quality.nearest_class is not None:
        text = f"{item.quality.nearest_similarity:.2f} like {item.quality.nearest_class!r}, the nearest other class"
        lines.append(paragraph(text, CAPTION_WIDTH))
    if item.quality is not None and item.quality.problem is not None:
        lines.append(paragraph(f"Look at it again: it is {item.quality.problem}", CAPTION_WIDTH, color=WARNING))
    if item.is_negative:
        lines.append(paragraph("a negative: what the class is not", CAPTION_WIDTH))
    if item.image or not lines:
        lines.append(paragraph(Path(item.image).name or item.label, CAPTION_WIDTH, 12, (120, 120, 126)))
    return sheet([[line] for line in lines], gap=4)
