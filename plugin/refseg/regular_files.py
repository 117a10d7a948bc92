"""Files that are read: plain ones alone. Whoever opens a pipe may wait for ever, and a device may never end. No FiftyOne."""

from __future__ import annotations

import os
import stat
from errno import EAGAIN, EINVAL, EISDIR
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to besides a file."""
NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
BINARY = getattr(os, "O_BINARY", 0)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a plain file to read its bytes; of links what they lead to counts.

    Raises:
        OSError: it cannot be opened, or is something else, which `strerror` says.
    """
    return open(path, "rb", opener=_open_regular)


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a plain file.

    Raises:
        OSError: see open_regular.
    """
    with open_regular(path) as stream:
        return stream.read()


def read_regular_text(path: str | os.PathLike[str]) -> str:
    """A plain file in UTF-8.

    Raises:
        OSError: see open_regular.
        ValueError: it is no UTF-8.
    """
    return read_regular(path).decode()


def _open_regular(path: str, flags: int) -> int:
    """What is open is asked, not its path: that may lead elsewhere by now."""
    try:
        descriptor = os.open(path, flags | NO_WAITING | BINARY)
    except OSError as error:
        mode = _mode_of(path)
        if error.errno == EAGAIN and stat.S_ISREG(mode):  # a file server lets go of it in a moment
            return os.open(path, flags | BINARY)
        _require_regular(mode, path)
        raise
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(mode: int, path: str) -> None:
    kind = KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise OSError(EISDIR if stat.S_ISDIR(mode) else EINVAL, f"it is {kind}, not a file", path)


def _mode_of(path: str) -> int:
    """What kind of thing a path leads to; 0 where nothing can be said."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0
