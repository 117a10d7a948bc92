"""Where the candidates of a dataset's images come from: its index, else models that compute them and add them to it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..candidates import Candidates, PackedCandidates, PresenceGate
from ..errors import IndexMismatchError, PrototypeMismatchError
from ..images import PLAIN, PixelSettings, pixel_needs
from ..models import PRESETS, Models, Preset, get_preset, load_models, require_model
from ..prototypes import Prototypes
from .builder import Builder
from .index import DatasetIndex, index_for, index_with_range
from .index_finding import find_index
from .index_pixels import ids_and_paths, pixels_for
from .index_place import IndexPlace
from .index_settings import settings_of
from .indexing import ViewImages, images_of
from .source_settings import SourceSettings
from .views import id_of, name_of, whole_of

logger = logging.getLogger(__name__)

Found = tuple[str, Candidates | PackedCandidates | None]
"""Sample id of an image and its candidates; None where the image cannot be read."""


def models_for(prototypes: Prototypes, model: str | Models | None) -> Models:
    """The models that fit these prototypes; where names alone tell that there are none, nothing is downloaded.

    Raises:
        PrototypeMismatchError: the model's encoder is another than the one that built the prototypes.
        UnknownModelError: no preset has this name.
    """
    require_model(model, or_none=True)
    if isinstance(model, str):
        _require_encoder(prototypes, get_preset(model))
    models = model if isinstance(model, Models) else load_models(model or prototypes.model)
    if models.fingerprint != prototypes.fingerprint:
        raise PrototypeMismatchError(
            f"These prototypes were built by {prototypes.model!r} (encoder {prototypes.fingerprint}), not by "
            f"{models.preset.name!r} (encoder {models.fingerprint}): build them again with the model that is to use them."
        )
    return models


def _require_encoder(prototypes: Prototypes, preset: Preset) -> None:
    """Refuse a preset whose encoder is by name another than that of the preset which built the prototypes."""
    built_by = PRESETS.get(prototypes.model)
    if built_by is not None and built_by.encoder != preset.encoder:
        own, other = (f"{name} at {side} pixels" for name, _, side in (built_by.encoder, preset.encoder))
        raise PrototypeMismatchError(
            f"These prototypes were built by {prototypes.model!r} ({own}), not by {preset.name!r} ({other}): build them again "
            "with the model that is to use them."
        )


@dataclass
class Source:
    """Where candidates come from. Models are loaded when an image has to be computed, not before.

    Attributes:
        preset: of the prototypes, or of the index.
        index: that holds candidates, and gets those that are computed; None keeps none.
        models: that compute them; None until they are needed.
        asked: name of the preset whose models are to be loaded.
        wants_tiles: whether images are looked at in tiles where no index decides it.
        wanted_pixels: how images are read where no index decides it, as far as is known before they are seen.
        num_workers: threads that decode images, 0 for none; None as many as suit the machine.
        lent_by: the preset that the index is of, where it is another than was looked for; None otherwise.
    """

    preset: Preset
    index: DatasetIndex | None
    models: Models | None
    asked: str
    wants_tiles: bool = False
    wanted_pixels: PixelSettings = PLAIN
    num_workers: int | None = None
    lent_by: str | None = None

    def builder(self, gate: PresenceGate | None = None) -> Builder:
        """What computes the images that are not indexed, with the models that load_missing has loaded.

        Args:
            gate: spares the segmenter what shows none of its classes.
        """
        assert self.models is not None
        return Builder(self.index, self.models, self.num_workers, goes_on=True, tiles=self.tiles, gate=gate, pixels=self.pixels)

    @property
    def pixels(self) -> PixelSettings:
        """How images are read."""
        return self.wanted_pixels if self.index is None else self.index.index.settings.pixel_settings

    @property
    def tiles(self) -> bool:
        """Whether images are looked at in tiles."""
        return self.wants_tiles if self.index is None else self.index.index.settings.tiles

    def images(self, view: Any) -> ViewImages:
        """Part a view into images that the index holds and images that it does not."""
        return images_of(view, self.index)

    @property
    def revisions(self) -> dict[str, str]:
        """SHA-256 of both models' weights, by name."""
        if self.models is not None:
            return self.models.revisions
        assert self.index is not None
        return self.index.index.settings.revisions


def find_source(
    dataset: Any,
    prototypes: Prototypes,
    settings: SourceSettings,
    *,
    creates: bool = True,
) -> Source:
    """The index, or the models, that candidates for these prototypes come from.

    Args:
        dataset: whose images are asked about.
        prototypes: that candidates are to be compared with.
        settings: what is asked for.
        creates: whether to make an index where there is none.

    Raises:
        PrototypeMismatchError: model or index are of another encoder than the prototypes, or read pixels otherwise.
        IndexMismatchError: the index is of another dataset or model, or has tiles where none are wanted, or the other way
            round, or its pixels were read otherwise than is asked for.
        IndexNotFoundError: the index was deleted.
        UnknownModelError: no preset has this name.
    """
    model, index, tiles, pixels = settings.model, settings.index, settings.tiles, settings.pixels
    require_pixels(prototypes, pixels, "the images are to be read with")
    # What was found for the references holds for all other images too.
    wanted = PixelSettings(pixels.pixel_range or prototypes.pixels.pixel_range, pixels.channels or prototypes.pixels.channels)
    name = settings.preset_for(prototypes.model)
    if isinstance(index, DatasetIndex):
        return _source_of(index, dataset, prototypes, settings, wanted)
    if index and not isinstance(model, Models):
        # Who names a model means its own masks.
        find = partial(find_index, dataset, name, prototypes.fingerprint, tiles, borrows=model is None)
        found = find(replace(pixels, channels=wanted.channels))
        if found is None and wanted.channels != pixels.channels and not _has_bands(dataset):
            found = find(pixels)
        if found is not None:
            require_pixels(prototypes, found.index.settings.pixel_settings, f"the index at {found.uri} was built with")
            holder = found.index.settings.model
            source = Source(get_preset(holder), found, None, holder, wanted_pixels=wanted, num_workers=settings.num_workers)
            return replace(source, lent_by=None if holder == name else holder)
    models = models_for(prototypes, model)
    own = index_for(dataset, models, IndexPlace(tiles=tiles), wanted) if index and creates else None
    return Source(models.preset, own, models, name, bool(tiles), wanted, settings.num_workers)


def _source_of(
    index: DatasetIndex, dataset: Any, prototypes: Prototypes, asked: SourceSettings, wanted: PixelSettings
) -> Source:
    """An index that was given, where it fits all else; errors are those of find_source."""
    settings, model = index.index.settings, asked.model
    if isinstance(model, str):
        _require_encoder(prototypes, get_preset(model))
    if settings.encoder != prototypes.fingerprint:
        raise PrototypeMismatchError(
            f"These prototypes were built by {prototypes.model!r} (encoder {prototypes.fingerprint}), but the index at "
            f"{index.uri} holds candidates of {settings.model!r} (encoder {settings.encoder}): use those of one model."
        )
    if isinstance(model, str) and get_preset(model).name != settings.model:
        raise IndexMismatchError(
            f"The index at {index.uri} holds candidates of {settings.model!r}, not of {model!r}: leave the model out, or "
            f"open another index with refseg.open_index(dataset, {model!r})."
        )
    if settings.dataset_id != id_of(dataset):
        raise IndexMismatchError(f"The index at {index.uri} is not one of the dataset {name_of(dataset)!r}.")
    if asked.tiles not in (None, settings.tiles):
        raise IndexMismatchError(
            f"The index at {index.uri} was built {'with' if settings.tiles else 'without'} tiles: open another one with "
            f"refseg.open_index(dataset, tiles={asked.tiles}), or leave the choice of tiles out."
        )
    if not settings.pixel_settings.fits(asked.pixels):
        raise IndexMismatchError(
            f"The index at {index.uri} was built with {settings.pixel_settings}, not with {asked.pixels}: open another one, or "
            "leave pixel_range and channels out."
        )
    require_pixels(prototypes, settings.pixel_settings, f"the index at {index.uri} was built with")
    if settings.pixel_settings.channels is None and wanted.channels is not None and _has_bands(dataset):
        raise PrototypeMismatchError(
            f"These prototypes were built with channels={wanted.channels}, but the index at {index.uri} shows the first "
            "three bands: leave the index out, so that another one is made, or build the prototypes again."
        )
    index.index.refresh()
    preset = model.preset if isinstance(model, Models) else get_preset(settings.model)
    models = model if isinstance(model, Models) else None
    return Source(preset, index, models, settings.model, wanted_pixels=wanted, num_workers=asked.num_workers)


def _has_bands(dataset: Any) -> bool:
    """Whether a choice of channels counts for some image of a dataset."""
    return pixel_needs(ids_and_paths(dataset)[1])[1]


def require_pixels(prototypes: Prototypes, pixels: PixelSettings, whose: str) -> None:
    """Refuse to compare what was read with different ranges or channels.

    Raises:
        PrototypeMismatchError: they do not fit; the message says what to do.
    """
    if not prototypes.pixels.fits(pixels):
        raise PrototypeMismatchError(
            f"These prototypes were built with {prototypes.pixels}, but {whose} {pixels}: build them again with "
            f"refseg.build_prototypes(references, {prototypes.model!r}, {pixels})."
        )


def load_missing(source: Source, images: ViewImages, view: Any, prototypes: Prototypes) -> ViewImages:
    """Load the models that missing images need; where they are not those of the index any more, change to their own index."""
    if source.models is None:
        source.models = models_for(prototypes, source.asked)
    whole, paths = whole_of(view), [image.path for image in images.missing]
    if source.index is None:
        source.wanted_pixels = pixels_for(whole, paths, source.wanted_pixels)
        return images
    settings = source.index.index.settings
    own = settings_of(whole, source.models, settings.exact, settings.tiles, settings.pixel_settings)
    index = source.index
    if own.fingerprint != settings.fingerprint:
        pixels = settings.pixel_settings if settings.pixels is not None else source.wanted_pixels
        index = index_for(whole, source.models, IndexPlace(tiles=settings.tiles), pixels)
    index = index_with_range(index, source.models, paths, wanted=source.wanted_pixels)
    if index is source.index:
        return images
    require_pixels(prototypes, index.index.settings.pixel_settings, f"the index at {index.uri} was built with")
    source.index = index
    return source.images(view)


def iter_candidates(source: Source, view: Any, prototypes: Prototypes) -> Generator[Found, None, None]:
    """Candidates of every image of a view, those of the index first; the others are computed, and added to it.

    An image that cannot be read comes without any and is logged. Closing it keeps what is done.

    Args:
        source: from find_source.
        view: a view of images of its dataset.
        prototypes: whose models compute candidates where none are loaded yet.

    Raises:
        IndexDamagedError: the index cannot be read.
        PrototypeMismatchError: the models that are to be had are others than those that built the prototypes.
    """
    images = source.images(view)
    if images.missing:
        images = load_missing(source, images, view, prototypes)
    for gone in images.gone:
        logger.warning("Skipped %s: %s", gone.filepath, gone.reason)
        yield gone.sample_id, None
    yield from _indexed(source, images.held)
    if not images.missing:
        return
    builder = source.builder()
    elsewhere: set[str] = set()
    try:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                elsewhere.update(builder.done_elsewhere)
                for computed in batch:
                    if computed.image.sample_id not in elsewhere:
                        yield computed.image.sample_id, computed.candidates
    finally:
        builder.close()
    for skipped in builder.skipped:
        logger.warning("Skipped %s: %s", skipped.filepath, skipped.reason)
    yield from _indexed(source, builder.done_elsewhere)


def _indexed(source: Source, sample_ids: Sequence[str]) -> Iterator[Found]:
    if source.index is not None:
        for chunk in source.index.index.scan(sample_ids):
            for number, image in enumerate(chunk.images):
                yield image.sample_id, chunk.candidates(number)
