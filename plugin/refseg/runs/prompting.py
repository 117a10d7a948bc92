"""The object that somebody points at in one image: among the masks that the index holds, or by asking the segmenter.

An index answers at once, without a model: the masks of the image that a click hits are computed already. Where none of them
fits, or the image is not indexed, the segmenter looks at the image once and then answers each prompt in a hundredth of a
second; the images looked at last stay in memory for that.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..candidates import Candidates, ImageEmbeddings, PackedCandidates, count_pieces, decode_prompt, embed_images
from ..checks import refused, require_list_of_numbers, require_names
from ..dataset import (
    IndexPlace,
    box_iou,
    file_state,
    id_of,
    image_dataset,
    index_records,
    open_index,
    pixels_before,
    pixels_for,
    require_image,
)
from ..errors import CandidateIndexError, DatasetError, ImageError
from ..images import PLAIN, as_data_uri, load_image, mask_picture
from ..index import FileState
from ..matching import Ranking, crop_instances
from ..models import Models, files_for, load_models, require_model, same_models
from ..notebook import Picture, facts, gallery, page
from ..printing import one_line

logger = logging.getLogger(__name__)

OPEN_IMAGES = 2
"""Images that stay in memory, each with its candidates or some megabytes of the segmenter's features."""
BOX_IOU = 0.75
"""A mask of the index is what a box shows where their boxes overlap by so much."""
INDEX, MODEL = "index", "model"
DEFAULT_MODEL = "large"
MASK_COLOUR = (46, 158, 91)

PAIRS = "pairs of x and y, as shares of the image"

Point = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """Where an object is, as shares of the upright image's width and height.

    Attributes:
        points: xy on the object.
        beside: xy on what does not belong to it.
        box: xywh around it; None for none.

    Raises:
        DatasetError: it shows no object, or a number does not lie between 0 and 1.

    Example:
        >>> Prompt(points=[[0.5, 0.25]])
        Prompt(points=((0.5, 0.25),), beside=(), box=None)
    """

    points: Sequence[Point] = ()
    beside: Sequence[Point] = ()
    box: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("points", "beside"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple):
                raise refused(name, PAIRS, given)
            object.__setattr__(self, name, tuple(_point(name, point) for point in given))
        if self.box is not None:
            require_list_of_numbers(4, box=self.box)
            x, y, w, h = (float(number) for number in self.box)
            if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 1 + 1e-6 and y + h <= 1 + 1e-6):
                raise DatasetError(f"box must be x, y, width and height within the image, as shares of it, not {self.box!r}.")
            object.__setattr__(self, "box", (x, y, w, h))
        if not self.points and self.box is None:
            raise DatasetError("A prompt needs a point on the object, or a box around it: give points or box.")


@dataclass(frozen=True)
class PromptedMask:
    """An object that somebody pointed at.

    Attributes:
        bounding_box: x, y, width and height, as shares of the upright image.
        mask: (h, w) bool over the box.
        predicted_iou: the segmenter's own estimate of the mask's quality.
        origin: "index" or "model".
    """

    bounding_box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    predicted_iou: float
    origin: str

    __repr__ = one_line

    def _repr_html_(self) -> str:
        """The mask as a picture."""
        height, width = self.mask.shape
        picture = Picture(as_data_uri(mask_picture(self.mask, MASK_COLOUR)), f"{width} × {height} pixels")
        of = "the index" if self.origin == INDEX else "the model"
        return page(f"A mask of {of}", facts({"predicted IoU": self.predicted_iou, "pieces": self.pieces}), gallery([picture]))

    @property
    def pieces(self) -> int:
        """How many large pieces the mask has: of two it may show two objects."""
        return count_pieces(self.mask)


def segment_prompt(
    dataset: Any,
    sample_id: str,
    points: Sequence[Point] = (),
    *,
    beside: Sequence[Point] = (),
    box: Sequence[float] | None = None,
    model: str | Models | None = None,
) -> tuple[PromptedMask, ...]:
    """Find the object that points or a box show in one image, best mask first.

    Args:
        dataset: a dataset of images, a view of it, or its name.
        sample_id: of the image.
        points: xy on the object, as shares of the upright image.
        beside: xy on what does not belong to it.
        box: x, y, width and height around it, likewise.
        model: preset's name or loaded models; by default that of the index used last, else "large". Nothing is loaded where
            the index holds a mask that fits.

    Returns:
        One mask or several that fit the prompt; never none.

    Raises:
        DatasetError: no images, no such image, or a prompt that shows nothing.
        ImageError: the image cannot be read.
        ModelUnavailableError: the index holds no mask that fits, and the model's weights are not here.

    Example:
        found = refseg.segment_prompt(dataset, dataset.first().id, [(0.4, 0.6)])
        refseg.add_reference(dataset, dataset.first().id, "bolt", found[0].bounding_box, found[0].mask)
    """
    require_names(sample_id=sample_id)
    require_model(model, or_none=True)
    whole = image_dataset(dataset)
    prompt = Prompt(points, beside, box)
    image = _open(whole, sample_id, model)
    with image.lock:
        return image.among_candidates(prompt) or image.by_model(prompt)


def prepare_prompts(dataset: Any, sample_id: str, model: str | Models | None = None) -> None:
    """Do ahead what the first prompt in an image would wait for; arguments and errors are those of segment_prompt."""
    image = _open(image_dataset(dataset), sample_id, model)
    with image.lock:
        image.prepare()


class _OpenImage:
    """One image that somebody points at, with what is known of it."""

    def __init__(self, dataset: Any, path: str, candidates: PackedCandidates | None, model: str | Models) -> None:
        self.lock = threading.Lock()
        self._dataset, self._path, self._candidates, self._model = dataset, path, candidates, model
        self._embedded: tuple[Models, ImageEmbeddings, tuple[int, int]] | None = None

    def prepare(self) -> None:
        """Let the segmenter look at the image, where the index does not hold its masks."""
        if self._candidates is None:
            self._embedded = self._embedded or self._embed()

    def among_candidates(self, prompt: Prompt) -> tuple[PromptedMask, ...]:
        """Masks of the index that the prompt fits, best first."""
        if self._candidates is None or not len(self._candidates):
            return ()
        # Cells of the grid, as the boxes of the candidates are: xyxy, far edge included.
        side = self._candidates.grid_side
        near = torch.ones(len(self._candidates), dtype=torch.bool)
        for x, y in prompt.points:
            cell = torch.tensor([x, y]) * side
            near &= ((self._candidates.boxes[:, :2] - 1 <= cell) & (cell <= self._candidates.boxes[:, 2:] + 2)).all(1)
        rows = near.nonzero()[:, 0]
        order = self._candidates.predicted_iou[rows].argsort(descending=True, stable=True)
        fitting = [
            found for found in _at_image_size(self._candidates, rows[order], INDEX) if _fits(found, prompt, self._candidates)
        ]
        box = prompt.box
        if box is not None:
            fitting.sort(key=lambda found: -box_iou(found.bounding_box, box))
        return tuple(fitting)

    def by_model(self, prompt: Prompt) -> tuple[PromptedMask, ...]:
        """What the segmenter answers."""
        models, embeddings, image_hw = self._embedded = self._embedded or self._embed()
        side = models.segmenter_side

        def scaled(numbers: Sequence[Any], width: int) -> torch.Tensor:
            return torch.tensor(numbers, dtype=torch.float32).reshape(-1, width) * side

        corners = None
        if prompt.box is not None:
            x, y, w, h = prompt.box
            corners = scaled([x, y, x + w, y + h], 4)[0]
        with models.lock:
            on, beside = scaled(prompt.points, 2), scaled(prompt.beside, 2)
            logits, predicted = decode_prompt(on, beside, corners, embeddings, 0, models)
        logits, predicted = logits.cpu().float(), predicted.cpu().float()
        candidates = Candidates(logits, predicted, torch.zeros(len(logits), 1), image_hw)
        found = _at_image_size(candidates, torch.arange(len(candidates)), MODEL)
        if not found:
            raise DatasetError(f"The model finds no object there in {self._path}: point at another spot, or draw a box.")
        return found

    def _embed(self) -> tuple[Models, ImageEmbeddings, tuple[int, int]]:
        models = self._model if isinstance(self._model, Models) else load_models(self._model)
        pixels = pixels_for(self._dataset, [self._path], pixels_before(self._dataset, PLAIN, IndexPlace()))
        loaded = load_image(self._path, models.segmenter_side, reading=pixels)
        if loaded.pixels is None:
            raise ImageError(self._path, loaded.error or "it cannot be read")
        with models.lock:
            return models, embed_images(loaded.pixels[None].to(models.device), models), loaded.image_hw


_kept: OrderedDict[tuple[Any, ...], _OpenImage] = OrderedDict()
_keeping = threading.Lock()


def _open(dataset: Any, sample_id: str, model: str | Models | None) -> _OpenImage:
    """The image, from memory where it and the index are as they were."""
    sample = require_image(dataset, sample_id)
    name = model.preset.name if isinstance(model, Models) else model
    known = index_records(dataset)
    records = [record for record in known if name in (None, record["model"])]
    if name is not None and not records:
        records = [record for record in known if record["model"] == same_models(name)]
    newest = records[-1] if records else {"model": DEFAULT_MODEL, "uri": None, "updated_at": None}
    state = file_state(sample.filepath)
    whose = (id_of(dataset), sample.id, sample.filepath, state)
    preset = name or str(newest["model"])
    # What was looked at with other weights is looked at again.
    weights = tuple(model.revisions.items()) if isinstance(model, Models) else files_for(preset)
    key = (*whose, preset, weights, newest["uri"], newest["updated_at"])
    with _keeping:
        if key not in _kept:
            candidates = None
            if newest["uri"] is not None and state is not None:
                candidates = _candidates(dataset, str(newest["model"]), sample, state)
            _kept[key] = _OpenImage(dataset, sample.filepath, candidates, model or preset)
        _kept.move_to_end(key)
        while len(_kept) > OPEN_IMAGES:
            _kept.popitem(last=False)
        return _kept[key]


def _candidates(dataset: Any, model: str, sample: Any, state: FileState) -> PackedCandidates | None:
    """The masks that the index used last holds of the image as it is now; None where it holds none, or cannot be read."""
    try:
        index = open_index(dataset, model)
        if not index.holds(sample.id, state, sample.filepath):
            return None
        (chunk,) = index.index.scan([sample.id])
        return chunk.candidates(0)
    except CandidateIndexError as error:
        logger.info("The index is not used: %s", error)
        return None


def _at_image_size(candidates: Candidates | PackedCandidates, rows: torch.Tensor, origin: str) -> tuple[PromptedMask, ...]:
    height, width = candidates.image_hw
    none = torch.zeros(len(rows))
    whole = Ranking(rows, none.long(), candidates.predicted_iou[rows], none, none.long() - 1)
    instances = crop_instances(candidates, whole, len(rows))
    return tuple(
        PromptedMask((x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height), mask.numpy(), float(score), origin)
        for (x0, y0, x1, y1), mask, score in zip(instances.boxes.tolist(), instances.masks, instances.scores, strict=True)
    )


def _fits(found: PromptedMask, prompt: Prompt, candidates: PackedCandidates) -> bool:
    if prompt.box is not None and box_iou(found.bounding_box, prompt.box) < BOX_IOU:
        return False
    is_in = [_holds(found, point, candidates.image_hw) for point in prompt.points]
    return all(is_in) and not any(_holds(found, point, candidates.image_hw) for point in prompt.beside)


def _holds(found: PromptedMask, point: Point, image_hw: tuple[int, int]) -> bool:
    height, width = image_hw
    column = min(int(point[0] * width), width - 1) - round(found.bounding_box[0] * width)
    row = min(int(point[1] * height), height - 1) - round(found.bounding_box[1] * height)
    rows, columns = found.mask.shape
    return 0 <= row < rows and 0 <= column < columns and bool(found.mask[row, column])


def _point(name: str, point: Any) -> Point:
    try:
        x, y = (float(number) for number in point)
    except (TypeError, ValueError):
        raise refused(name, PAIRS, point) from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise DatasetError(f"{name} must be x and y between 0 and 1, as shares of the image, not {point!r}.")
    return x, y
