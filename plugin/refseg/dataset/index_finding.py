"""The index that a dataset has for a model, opened."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

from ..errors import IndexNotFoundError
from ..images import PLAIN, PixelSettings
from ..index import CandidateIndex
from ..models import Models, get_preset, require_model, same_models
from .index import DatasetIndex
from .index_place import IndexPlace
from .known_indexes import index_records
from .views import id_of, image_dataset, name_of

logger = logging.getLogger(__name__)


def open_index(
    dataset: Any,
    model: str | Models | None = None,
    *,
    uri: str | os.PathLike[str] | None = None,
    exact: bool | None = None,
    tiles: bool | None = None,
    storage_options: dict[str, str] | None = None,
) -> DatasetIndex:
    """Open an index that was built before, without loading models.

    Args:
        dataset: a dataset, or a view of it.
        model: the preset's name; by default that of the index used last.
        uri: where it lies; by default where it was built last.
        exact: the one with near-duplicates, or the one without; by default the one used last.
        tiles: the one with tiles, or the one without; by default the one used last.
        storage_options: for an object store, as Lance takes them.

    Raises:
        IndexNotFoundError: there is none; the message lists those there are.
        IndexMismatchError: the index at this URI is of another model or dataset.
        IndexDamagedError: it cannot be read.
    """
    require_model(model, or_none=True)
    place = IndexPlace(uri, exact, tiles, storage_options)
    whole = image_dataset(dataset)
    name = model.preset.name if isinstance(model, Models) else model
    if uri is None:
        records = [
            record
            for record in index_records(whole)
            if name in (None, record["model"]) and exact in (None, record["exact"]) and tiles in (None, record["tiles"])
        ]
        if not records:
            known = ", ".join(sorted({repr(record["model"]) for record in index_records(whole)}))
            others = f" (it has one of {known})" if known else ""
            wanted = (f" for the model {name!r}" if name else "") + (" with tiles" if tiles else "")
            raise IndexNotFoundError(
                f"The dataset {name_of(whole)!r} has no candidate index{wanted}{others}: build one with refseg.build_index."
            )
        uri = records[-1]["uri"]
    index = place.open_at(uri)
    wanted_settings = replace(
        index.settings,
        dataset_id=id_of(whole),
        model=name or index.settings.model,
        exact=index.settings.exact if exact is None else exact,
        tiles=index.settings.tiles if tiles is None else tiles,
    )
    index.require(wanted_settings)
    return DatasetIndex(whole, index)


def find_index(
    dataset: Any,
    model: str,
    encoder: str,
    tiles: bool | None = None,
    pixels: PixelSettings = PLAIN,
    *,
    borrows: bool = True,
) -> DatasetIndex | None:
    """The index for a preset and an encoder, opened without loading models; None where there is none.

    Of two, the one that keeps near-duplicates and the one that does not, that which the preset makes by default; of several
    such one that serves images of more than 8 bits too, and the one used last. Where the preset has none, that of the preset
    of the same models serves as well: `large` and `large-fast` differ in how many masks they find, not in their features.

    Args:
        dataset: a FiftyOne dataset.
        model: the preset's name.
        encoder: its fingerprint.
        tiles: the one with tiles, or the one without; None for either.
        pixels: the one with these channels, where they are given, and with no other range.
        borrows: False for the preset's own alone.

    Raises:
        IndexDamagedError: it cannot be read.
    """
    own = _find_own(dataset, model, encoder, tiles, pixels)
    if own is not None or not borrows:
        return own
    other = same_models(model)
    borrowed = None if other is None else _find_own(dataset, other, encoder, tiles, pixels)
    if borrowed is not None:
        logger.info("There is no index of %r, and that of %r serves as well: %s", model, other, borrowed.uri)
    return borrowed


def _find_own(dataset: Any, model: str, encoder: str, tiles: bool | None, pixels: PixelSettings) -> DatasetIndex | None:
    found = [
        record
        for record in index_records(dataset)
        if (record["model"], record["encoder"]) == (model, encoder)
        and tiles in (None, record["tiles"])
        and PixelSettings.from_lists(record["pixels"]).fits(pixels)
        and (pixels.channels is None or PixelSettings.from_lists(record["pixels"]).channels == pixels.channels)
    ]
    preset = get_preset(model)
    if any(record["clean_masks"] != preset.clean_masks for record in found):
        logger.warning("An index of %r of masks that were %scleaned is not used", model, "not " if preset.clean_masks else "")
        found = [record for record in found if record["clean_masks"] == preset.clean_masks]
    published = preset.as_published
    if any(not record["float_features"] for record in found) and published:
        logger.warning("An index of %r by an earlier version, which was not to the letter of the paper, is not used", model)
        found = [record for record in found if record["float_features"]]
    found.sort(key=lambda record: record["pixels"] is not None)
    found.sort(key=lambda record: record["exact"] == published)
    for record in reversed(found):
        try:
            index = CandidateIndex.open(record["uri"])
        except IndexNotFoundError as error:
            logger.warning("The dataset's record names an index that is gone: %s", error)
            continue
        held = index.settings
        if (held.model, held.encoder, held.dataset_id, held.tiles) == (model, encoder, id_of(dataset), record["tiles"]):
            return DatasetIndex(dataset, index)
        logger.warning("At %s lies another index than the dataset's record says", index.uri)
    return None
