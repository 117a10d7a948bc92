"""Where in an image the encoder sees a class, as heatmaps in the App: to understand what prototypes find, and what they miss.

Costs one pass of the encoder an image, without the segmenter; a map takes 5 to 20 kilobytes of the sample's document.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import encode_patches, patch_similarity
from ..checks import require_flags, require_names, require_whole
from ..dataset import (
    check_name,
    image_view,
    name_of,
    named_prototypes,
    pixels_for,
    pixels_of_index,
    require_samples,
    whole_of,
    write_values,
)
from ..dataset.sources import models_for
from ..errors import DatasetError
from ..images import IMAGES_A_BATCH, LoadedImage, encoder_pixels, load_batches, stack_pixels
from ..index import SkippedImage
from ..models import BatchKey, Models, in_batches
from ..names import run_key_from
from ..notebook import facts, page, skips
from ..printing import counted
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes
from .inspection import check_classes
from .writing import create_fields

logger = logging.getLogger(__name__)

TIMES_FINER = 4
"""A smooth heatmap's side as a multiple of the patch grid's: the App draws its values as hard-edged squares."""
LEVELS = 255
"""Steps of a heatmap's values in [0, 1]: a map takes a quarter of the space in the database that all digits would."""
IMAGES_A_WRITE = 64


@dataclass(frozen=True)
class HeatmapReport:
    """What similarity_heatmap wrote.

    Attributes:
        field: where the heatmaps are.
        label: the class they show.
        num_images: images that have one now.
        skipped: images that could not be read.
        lowest: value of all these maps, of their scale from 0 to 1; None where there is no map.
        highest: value of them, likewise.
    """

    field: str
    label: str
    num_images: int
    skipped: tuple[SkippedImage, ...]
    lowest: float | None = None
    highest: float | None = None

    def _repr_html_(self) -> str:
        """What was written where."""
        title = f"{counted(self.num_images, 'heatmap')} of {self.label!r}"
        return page(title, facts({"field": self.field}), skips(self.skipped))

    def __str__(self) -> str:
        lines = [f"{self.num_images} heatmaps of {self.label!r} in the field {self.field!r}"]
        return "\n".join([*lines, *(f"skipped {image.filepath}: {image.reason}" for image in self.skipped)])


def similarity_heatmap(
    view: Any,
    prototypes: Prototypes | str,
    label: str,
    *,
    field: str | None = None,
    smooth: bool = True,
    model: str | Models | None = None,
    num_workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> HeatmapReport:
    """Show where in each image the encoder sees a class: the cosine of each patch of the image and the class's prototype.

    Values lie in [0, 1], those below 0 are 0. Negatives do not count. An image that cannot be read is skipped and reported.

    Args:
        view: a dataset or view of images.
        prototypes: or the name under which the dataset keeps them.
        label: the class.
        field: where to write `Heatmap` labels: a new field, or one of heatmaps, whose maps of these images are replaced; by
            default `heatmap_` and the class's name.
        smooth: maps have four times as many rows and columns as the image has patches, with values between those of the
            patches; False for one value a patch, as the encoder sees it.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        num_workers: threads that decode images; 0 for none.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, unknown prototypes, a class they do not have, or a field of another type.
        PrototypeMismatchError: the model is of another encoder than the one that built the prototypes.
    """
    work = iter_similarity_heatmap(view, prototypes, label, field=field, smooth=smooth, model=model, num_workers=num_workers)
    return drain(work, progress, "drawing heatmaps")


def iter_similarity_heatmap(
    view: Any,
    prototypes: Prototypes | str,
    label: str,
    *,
    field: str | None = None,
    smooth: bool = True,
    model: str | Models | None = None,
    num_workers: int | None = None,
) -> Generator[Progress, None, HeatmapReport]:
    """The generator behind similarity_heatmap: yields after each batch; what is written when it is closed stays."""
    require_names(label=label)
    require_names(or_none=True, field=field)
    require_flags(smooth=smooth)
    require_whole(0, or_none=True, num_workers=num_workers)
    view = image_view(view)
    require_samples(view)
    dataset = whole_of(view)
    _, prototypes = named_prototypes(dataset, prototypes)
    check_classes(prototypes, [label])
    name = run_key_from(f"heatmap_{label}") if field is None else field
    _check_field(dataset, name)
    models = models_for(prototypes, model)
    prototype = prototypes.matrix[prototypes.classes.index(label)]
    create_fields(dataset, {name: fo.Heatmap}, ())
    ids, paths = view.values(["id", "filepath"])
    maps: dict[str, fo.Heatmap] = {}
    skipped: list[SkippedImage] = []
    values: list[float] = []
    done = 0
    yield Progress(0, len(ids), "images")
    device = models.device.type
    size = IMAGES_A_BATCH[device]
    pixels = pixels_for(dataset, paths, pixels_of_index(dataset) if prototypes.pixels.is_plain else prototypes.pixels)
    for batch in load_batches(
        paths, models.segmenter_side, batch_size=size, num_workers=num_workers, device=device, reading=pixels
    ):
        fresh = _similarities(batch, prototype, models, smooth)
        values += [value for one in fresh for value in (float(one.min()), float(one.max()))]
        found = iter(fresh)
        for image in batch:
            if image.error is None:
                maps[ids[image.index]] = fo.Heatmap(map=next(found), range=[0, 1])
            else:
                skipped.append(SkippedImage(ids[image.index], paths[image.index], image.error))
                logger.warning("Skipped %s: %s", paths[image.index], image.error)
        done += len(batch)
        if len(maps) >= IMAGES_A_WRITE or done == len(ids):
            write_values(view, name, maps)
            maps = {}
        yield Progress(done, len(ids), "images")
    return HeatmapReport(
        name, label, len(ids) - len(skipped), tuple(skipped), min(values, default=None), max(values, default=None)
    )


def _check_field(dataset: Any, name: str) -> None:
    if not dataset.has_field(name):
        check_name(dataset, name)
    elif getattr(dataset.get_field(name), "document_type", None) is not fo.Heatmap:
        raise DatasetError(
            f"The field {name!r} of dataset {name_of(dataset)!r} holds no heatmaps: choose another name, or a field that does."
        )


@torch.inference_mode()
def _similarities(batch: Sequence[LoadedImage], prototype: Tensor, models: Models, smooth: bool) -> list[NDArray[np.float32]]:
    """A heatmap for each good image of a batch."""
    if all(image.pixels is None for image in batch):
        return []
    pixels = stack_pixels(batch)

    def encode(some: Tensor) -> Tensor:
        return encode_patches(encoder_pixels(some.to(models.device), models.preset.encoder_side), models).cpu()

    with models.lock:
        features = torch.cat(in_batches(pixels, BatchKey.of("images", models), len(pixels), encode))
    side = models.patches_side
    grid = patch_similarity(features, prototype[None]).view(-1, 1, side, side).clamp(0, 1)  # (B, 1, G, G)
    if smooth:
        grid = F.interpolate(grid, scale_factor=TIMES_FINER, mode="bilinear", align_corners=False)
    return list(((grid[:, 0] * LEVELS).round() / LEVELS).numpy())
