"""Which index of a dataset is meant, and where it lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checks import require_flags, require_kind, require_paths
from ..errors import IndexNotFoundError
from ..images import PixelSettings
from ..index import CandidateIndex


@dataclass(frozen=True)
class IndexPlace:
    """Which index of a dataset is meant, and where it lies.

    Attributes:
        uri: a folder or an object store's address that Lance accepts; None for the place that the dataset's record says, or
            else one beside FiftyOne's data.
        exact: the one with near-duplicates, or the one without; None for what the preset makes, or for the one used last.
        tiles: the one with tiles, or the one without; None for the one used last, and for one without where none is yet.
        storage_options: for an object store, as Lance takes them.

    Raises:
        DatasetError: one of these cannot be; the message names it.
    """

    uri: str | os.PathLike[str] | None = None
    exact: bool | None = None
    tiles: bool | None = None
    storage_options: dict[str, str] | None = None

    def __post_init__(self) -> None:
        require_paths(or_none=True, uri=self.uri)
        require_flags(or_none=True, exact=self.exact, tiles=self.tiles)
        if self.storage_options is not None:
            require_kind(Mapping, "a mapping of texts or None", storage_options=self.storage_options)

    def read_pixels(self) -> PixelSettings | None:
        """How the index at a URI that was given reads images; None without one, and where none lies there."""
        try:
            return None if self.uri is None else self.open_at(self.uri).settings.pixel_settings
        except IndexNotFoundError:
            return None

    def open_at(self, uri: str | os.PathLike[str]) -> CandidateIndex:
        """Open the index at a URI.

        Raises:
            IndexNotFoundError: none lies there.
            IndexDamagedError: it cannot be read.
        """
        return CandidateIndex.open(whole_uri(uri), self.storage_options)


def whole_uri(uri: str | os.PathLike[str]) -> str:
    """A place as text, absolute where it is a folder of this machine."""
    place = os.fspath(uri)
    # The dataset's record keeps it: a relative path would be lost with the working directory.
    return place if "://" in place else str(Path(place).expanduser().absolute())
