"""How the images of a dataset are read, by what is given, by its indexes and its prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..images import PixelSettings, files_without_range, find_pixels
from .fields import PROTOTYPES_METHOD, past_runs
from .index_place import IndexPlace
from .known_indexes import pixels_of_index


def pixels_for(dataset: Any, paths: Sequence[str], known: PixelSettings) -> PixelSettings:
    """How some images of a dataset are read: a range that they need and that is not known is found from all of its images."""
    if known.pixel_range is not None or not files_without_range(paths, first=True):
        return known
    return find_pixels(ids_and_paths(dataset)[1], known)


def pixels_before(dataset: Any, given: PixelSettings, place: IndexPlace) -> PixelSettings:
    """What is given, and where it says nothing how the images of a dataset were read before.

    Before is by the index at a place where there is one, else by that used last, else for the newest prototypes kept.
    """
    before = place.read_pixels() or pixels_of_index(dataset)
    if before.is_plain:
        kept = [run.config.get("pixels") for run in past_runs(dataset, [PROTOTYPES_METHOD])]
        before = PixelSettings.from_lists(kept[-1] if kept else None)
    return given.after(before)


def ids_and_paths(view: Any) -> tuple[list[str], list[str]]:
    """Sample id and file path of each image of a view; of a grouped one, of every slice of images."""
    if view.media_type == "group":
        view = view.select_group_slices(media_type="image")
    sample_ids, paths = view.values(["id", "filepath"])
    return sample_ids, paths
