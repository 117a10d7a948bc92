"""Prototypes as a FiftyOne model, for those who prefer `dataset.apply_model`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
import numpy as np
from PIL import Image

from ..candidates import Candidates, PackedCandidates, propose_from_pixels, propose_tiles
from ..checks import names_or_none, require_flags, require_kind
from ..dataset import require_pixels, to_detections
from ..dataset.sources import models_for
from ..images import (
    PLAIN,
    LoadedImage,
    PixelSettings,
    as_list,
    load_image,
    pixel_settings,
    segmenter_pixels,
    stack_pixels,
    to_rgb,
)
from ..matching import Looked, MatchSettings, look_at
from ..models import Models
from ..prototypes import Prototypes, require_prototypes
from .segmenting import gate_of, matcher_for
from .settings import SegmentSettings

logger = logging.getLogger(__name__)


class ReadImage(fout.GetItem):  # type: ignore[misc]
    """Reads one sample's image in a loader's process."""

    def __init__(
        self,
        side: int,
        field_mapping: dict[str, str] | None = None,
        tiles: bool = False,
        pixels: PixelSettings = PLAIN,
        keeps: bool = False,
    ) -> None:
        self.side = side
        self.tiles = tiles
        self.keeps = keeps
        self.pixels = pixels
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        """The fields of the sample that are needed."""
        return ["filepath"]

    def __call__(self, fields: dict[str, Any]) -> LoadedImage:
        """Load the image; one that cannot be read carries its error."""
        return load_image(fields["filepath"], self.side, tiles=self.tiles, keeps=self.keeps, reading=self.pixels)


class Segmenter(fom.Model, fom.SupportsGetItem, fom.TorchModelMixin):  # type: ignore[misc]
    """A FiftyOne model: `dataset.apply_model(refseg.Segmenter(prototypes), "predictions")`.

    An image that cannot be read gets an empty answer and one warning, without costing its batch. `refseg.segment` also records
    bad images and provenance; prefer it where those matter.

    Args:
        prototypes: what to look for.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        min_confidence: lower scores are left out; by default 0.5 where scores are probabilities, else the preset's threshold. A
            mapping gives the classes that it names their own.
        max_detections: the best so many of each image.
        classes: answer only with these; all others still compete for candidates. By default every class.
        tiles: see `refseg.segment`; images of a batch are then in memory at their own size.
        presence_gate: see `refseg.segment`.
        matching: see `refseg.segment`.
        pixel_range: see `refseg.build_index`; by default that of the prototypes. Where neither says it, each image is taken to
            run through a range of its own: say it, or use `refseg.segment`.
        channels: see `refseg.build_index`; by default those of the prototypes.

    Raises:
        DatasetError: a limit is out of range, or a class none of the prototypes'.
        PrototypeMismatchError: the model is another than the one that built the prototypes, or the range of pixels is.
    """

    def __init__(
        self,
        prototypes: Prototypes,
        *,
        model: str | Models | None = None,
        min_confidence: float | Mapping[str, float] | None = None,
        max_detections: int = 100,
        classes: Sequence[str] | None = None,
        tiles: bool = False,
        presence_gate: float | None = None,
        matching: MatchSettings | None = None,
        pixel_range: tuple[float, float] | None = None,
        channels: Sequence[int] | None = None,
    ) -> None:
        require_prototypes(prototypes=prototypes)
        require_flags(tiles=tiles)
        given = pixel_settings(pixel_range, channels)
        require_pixels(prototypes, given, "the images are to be read with")
        self.pixels = PixelSettings(
            given.pixel_range or prototypes.pixels.pixel_range, given.channels or prototypes.pixels.channels
        )
        self.tiles = tiles
        self.config = None
        self.prototypes = prototypes
        chosen = names_or_none("classes", classes)
        self.settings = SegmentSettings(
            min_confidence,
            max_detections,
            classes=chosen,
            presence_gate=presence_gate,
            matching=matching,
        )
        self.settings.require_classes(prototypes.classes)
        self.models = models_for(prototypes, model)
        self.matcher = matcher_for(prototypes, self.models.preset, self.settings)
        self._preprocess = True

    @property
    def media_type(self) -> str:
        """Images."""
        return "image"

    @property
    def has_logits(self) -> bool:
        """No logits are kept."""
        return False

    @property
    def has_embeddings(self) -> bool:
        """No image embedding is offered."""
        return False

    @property
    def ragged_batches(self) -> bool:
        """False: batches are welcome."""
        return False

    @property
    def has_collate_fn(self) -> bool:
        """A batch stays a list."""
        return True

    @staticmethod
    def collate_fn(batch: list[LoadedImage]) -> list[LoadedImage]:
        """A batch stays a list."""
        return as_list(batch)

    @property
    def transforms(self) -> None:
        """Resizing happens where the image is read."""
        return None

    @property
    def preprocess(self) -> bool:
        """Whether predict gets arrays rather than loaded images."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> ReadImage:
        """How loader processes read a sample."""
        return ReadImage(self.models.segmenter_side, field_mapping, self.tiles, self.pixels, self._looks_twice)

    @property
    def _looks_twice(self) -> bool:
        return self.matcher.second is not None

    def predict(self, image: Any) -> fo.Detections:
        """Instances in one image: an (H, W, 3) uint8 array, a Pillow image, or one loaded by ReadImage."""
        return self.predict_all([image])[0]

    def predict_all(self, images: Sequence[Any]) -> list[fo.Detections]:
        """Instances in each image; see predict."""
        loaded = [image if isinstance(image, LoadedImage) else self._loaded(image) for image in images]
        good = [image for image in loaded if image.error is None]
        answers: list[fo.Detections] = []
        proposed = self._propose(good)
        for image in loaded:
            if image.error is not None:
                logger.warning("An image was left empty: %s", image.error)
                answers.append(fo.Detections())
                continue
            candidates = next(proposed)
            found = self.matcher.match(candidates, self._look(image, candidates))
            quality = candidates.predicted_iou[found.rows].tolist()
            answers.append(to_detections(found, self.prototypes.classes, quality, image.image_hw, run_key=""))
        return answers

    def _look(self, image: LoadedImage, candidates: Candidates | PackedCandidates) -> Looked | None:
        """Second looks, where there are any and the image is at hand at its own size."""
        if image.image is None:
            return None
        rows = self.matcher.to_look_at(candidates)
        return Looked(rows, look_at(image.image, candidates, rows.tolist(), self.models))

    def _propose(self, good: Sequence[LoadedImage]) -> Iterator[Candidates | PackedCandidates]:
        gate = gate_of(self.prototypes, self.settings)
        if self.tiles:
            pictures = (image.image for image in good)
            return (propose_tiles(one, self.models, gate=gate, fine=True) for one in pictures if one is not None)
        sizes = [image.image_hw for image in good]
        return iter(propose_from_pixels(stack_pixels(good), sizes, self.models, gate=gate) if good else [])

    def _loaded(self, image: Any) -> LoadedImage:
        require_kind((Image.Image, np.ndarray), "an (H, W, 3) uint8 array or a Pillow image", image=image)
        picture = to_rgb(image if isinstance(image, Image.Image) else Image.fromarray(image), self.pixels.pixel_range)
        image_hw = picture.height, picture.width
        if self.tiles:
            return LoadedImage(0, None, image_hw, image=picture)
        pixels = segmenter_pixels(picture, self.models.segmenter_side)
        return LoadedImage(0, pixels, image_hw, image=picture if self._looks_twice else None)
