"""Images that an index is to hold, and those that it cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..notebook import plain_page
from .tables import FileState


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read."""

    sample_id: str
    filepath: str
    reason: str

    _repr_html_ = plain_page


@dataclass(frozen=True)
class ImageFile:
    """One image to be computed: its sample, its path, and the state of its file."""

    sample_id: str
    path: str
    state: FileState

    def with_orientation(self, orientation: int) -> ImageFile:
        """The same with what its file was found to say when it was read."""
        return replace(self, state=replace(self.state, orientation=orientation))
