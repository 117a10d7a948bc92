"""How much disk candidates will take, and whether there is room for them: said before the work, without loading Lance."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import IndexSpaceError
from ..models import Preset
from ..printing import as_size, counted

LEFT_OF_A_PROMPT = 88 / 1024
"""Candidates that a prompt leaves once near-duplicates are dropped, see "Speed and size" in the README."""
LEFT_OF_A_PROMPT_EXACT = 0.5
"""The same where near-duplicates are kept: a guess."""
BYTES_A_MASK, BYTES_A_FINE_MASK = 1300, 5000
"""Of a candidate beside its feature: means over masks of two photographs on a grid of 256 cells a side."""

IMAGES_THAT_TELL = 20
"""So many images of an index tell how large others will be."""


def bytes_per_image(preset: Preset, *, exact: bool = False) -> int:
    """About how many bytes of an index one image takes; tiles, which are as many images, apart.

    Args:
        preset: whose candidates are kept.
        exact: near-duplicates are kept too; those of a preset as published always are, in full precision.

    Example:
        >>> from refseg.models import get_preset
        >>> as_size(1_000_000 * bytes_per_image(get_preset("large")))
        '294.6 GB'
    """
    if preset.as_published:
        return round(preset.points_per_side**2 * LEFT_OF_A_PROMPT_EXACT * (4 * preset.feature_width + BYTES_A_FINE_MASK))
    left, mask = (LEFT_OF_A_PROMPT_EXACT, BYTES_A_FINE_MASK) if exact else (LEFT_OF_A_PROMPT, BYTES_A_MASK)
    return round(preset.points_per_side**2 * left * (2 * preset.feature_width + mask))


@dataclass(frozen=True)
class Room:
    """What images will take at a place, and what is free there.

    Attributes:
        place: a folder, or an object store's address.
        num_images: whose candidates are to come.
        needed: bytes that they will take, about.
        free: bytes; None where nobody can tell, as of an object store.
        at_least: they may take many times more, as with tiles, which nobody has counted.
    """

    place: str
    num_images: int
    needed: int
    free: int | None
    at_least: bool = False

    @property
    def fits(self) -> bool:
        """Whether there is room, as far as can be told."""
        return self.free is None or self.needed <= self.free

    def __str__(self) -> str:
        free = "" if self.free is None else f", {as_size(self.free)} free"
        return f"{'at least' if self.at_least else 'about'} {as_size(self.needed)}{free}"

    def require(self) -> None:
        """Refuse to begin what cannot end.

        Raises:
            IndexSpaceError: there is not enough room.
        """
        if not self.fits:
            raise IndexSpaceError(
                f"The index of {counted(self.num_images, 'image')} will take {self}, at {self.place}: free some space, give "
                "another place as uri, index a smaller view, or begin anyway with insist=True, which the form of 'Build index' "
                "asks."
            )


def room_for(
    place: str,
    num_images: int,
    preset: Preset,
    *,
    exact: bool = False,
    tiles: bool = False,
    held: tuple[int, int] = (0, 0),
) -> Room:
    """How much room images need and have at a place.

    Args:
        place: a folder, which need not exist yet, or an object store's address.
        num_images: to come.
        preset: whose candidates are kept.
        exact: see bytes_per_image.
        tiles: images are looked at in tiles.
        held: images that the index holds already, and their bytes; where they are enough they tell how large others will be.
    """
    num_held, bytes_held = held
    is_told = num_held >= IMAGES_THAT_TELL
    each = bytes_held // num_held if is_told else bytes_per_image(preset, exact=exact)
    return Room(place, num_images, num_images * each, free_bytes(place), at_least=tiles and not is_told)


def free_bytes(place: str) -> int | None:
    """Bytes that are free where a folder is or would be; None for an object store, and where nobody may look."""
    folder = local_path(place)
    if folder is None:
        return None
    path = os.path.abspath(os.path.expanduser(folder))
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def local_path(uri: str) -> Path | None:
    """The folder on this machine that a URI means, or None for an object store."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)
