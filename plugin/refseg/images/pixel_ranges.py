"""The range of pixels that holds for all files of a run: found once, said once, and kept with what is made of the files.

Opens the header of each file whose format may hold more than eight bits, and decodes at most LOOKED_AT of those that do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ImageError
from ..printing import counted
from .files import own_range
from .headers import needs_range, read_header
from .pixels import PLAIN, PixelSettings

logger = logging.getLogger(__name__)

LOOKED_AT = 24
"""Files that are decoded to find a range, evenly spread."""
EIGHT_BITS = {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".tga", ".webp"}
"""Suffixes of formats that hold no more, or that Pillow scales to them."""


def find_pixels(paths: Iterable[str], given: PixelSettings = PLAIN) -> PixelSettings:
    """How the files of a run are read: as was given, else with one range for all that need one.

    Args:
        paths: of all files; those that cannot be read do not count.
        given: what is known already. Its range, where it has one, is taken as it is, and no file is opened.

    Returns:
        The settings with a range, which is logged; without one where every file says itself what its values mean.
    """
    if given.pixel_range is not None:
        return given
    deep = files_without_range(paths)
    if not deep:
        return given
    ranges = []
    for row in np.linspace(0, len(deep) - 1, min(len(deep), LOOKED_AT)).round().astype(int):
        try:
            found = own_range(deep[row], given.channels)
        except ImageError:
            continue
        if found is not None:
            ranges.append(found)
    if not ranges:
        return given
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    deep_images = counted(len(deep), "image has", "images have")
    logger.warning(
        "%s pixels of more than 8 bits without a word on what is white: they are assumed to run from %g to %g, as "
        "those of %d do; pixel_range= says otherwise",
        *(deep_images, low, high, len(ranges)),
    )
    return replace(given, pixel_range=(low, high))


def files_without_range(paths: Iterable[str], *, first: bool = False) -> Sequence[str]:
    """Those of some files, sorted, that do not say themselves what their values mean.

    Args:
        paths: of the files; those that cannot be read are none of these.
        first: stop at the first.
    """
    deep = []
    for path in sorted(set(paths)):
        if Path(path).suffix.lower() not in EIGHT_BITS and needs_range(path):
            deep.append(path)
            if first:
                break
    return deep


def pixel_needs(paths: Iterable[str]) -> tuple[bool, bool]:
    """Whether some files do not say what their values mean, and whether some have more than three bands to choose from.

    Opens the header of each file whose format may hold such images; those that cannot be read do not count.
    """
    headers = []
    for path in paths:
        if Path(path).suffix.lower() not in EIGHT_BITS:
            try:
                headers.append(read_header(path))
            except ImageError:
                continue
    return any(header.needs_range for header in headers), any(header.num_bands > 3 for header in headers)
