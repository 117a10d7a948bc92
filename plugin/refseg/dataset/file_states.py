"""What tells that an image file is still the one that was indexed."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from ..errors import ImageError
from ..images import file_sha256, read_header
from ..index import FileState, IndexedImage


def file_state(path: str, *, content_hash: bool = False) -> FileState | None:
    """The state of an image file now, or None where it cannot be read; it is not opened, so its orientation is left unknown."""
    try:
        found = os.stat(path)
        # Of what is no plain file whoever reads the image says so.
        sha256 = file_sha256(path) if content_hash and stat.S_ISREG(found.st_mode) else ""
        return FileState(os.path.basename(path), found.st_size, found.st_mtime_ns, sha256, found.st_ctime_ns)
    except OSError:
        return None


def still_held(known: IndexedImage, path: str, now: FileState) -> IndexedImage | None:
    """What is known of an indexed image, where its candidates are those of its file as it is now; None where they are not.

    A file is the same by its bytes where both states know them, else by name, size and date. Where the system has noted any
    change since, chmod and copying among them, its header says whether it has been turned.

    Args:
        known: the image as it was indexed.
        path: of its file.
        now: the state of the file.

    Returns:
        The very same, or with the new state of the file, which is worth noting.
    """
    before = known.file
    if before.sha256 and now.sha256:
        if before.sha256 != now.sha256:
            return None
    elif (before.name, before.size, before.mtime_ns) != (now.name, now.size, now.mtime_ns):
        return None
    if before.ctime_ns == now.ctime_ns and before.orientation and (before.sha256 or not now.sha256):
        return known
    try:
        header = read_header(path)
    except ImageError:
        return None
    if header.image_hw != known.image_hw:
        return None
    # Earlier versions, which knew no orientations, read deep images otherwise.
    if header.orientation != before.orientation if before.orientation else header.is_deep:
        return None
    return replace(known, file=replace(now, sha256=now.sha256 or before.sha256, orientation=header.orientation))
