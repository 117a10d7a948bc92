"""Points at which tests let a process die or fail: between two steps of which a crash must not see the first alone.

They are armed by the environment variable `REFSEG_FAILPOINTS`, which is read when this module is imported. Without it a point
costs a look at an empty dict.

Example:
    REFSEG_FAILPOINTS="prototypes.draft=kill, predictions.labels=nospace@2" kills the process when it has written the file of
    prototypes, and lets the disk be full when labels are written for the second time.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import NoReturn

POINTS = {
    "decision.read": "an image was read, its decision is not written",
    "decision.written": "the decisions on some images are written, those on others are not",
    "predictions.masks": "files of masks are written, the labels that name them are not",
    "predictions.labels": "new labels of some images are written, the files of those they replace are still there",
    "predictions.removed": "some images are done, others are not",
    "prototypes.draft": "the file of prototypes is written, their record still names the old one",
    "prototypes.record": "the record names the new file",
    "index.candidates": "candidates are in the index, the rows of their images are not",
    "index.images": "some images are in the index, others are not",
    "shards.written": "the files of a shard are written, its record is not",
    "shards.recorded": "a shard is recorded, the index does not name its files",
    "shards.candidates": "candidates of shards are in the index, the rows of their images are not",
    "shards.images": "shards are in the index, their records are still there",
    "run.record": "the record of a run is there, nothing is written yet",
}
"""Every point, and what is done and not done there."""

VARIABLE = "REFSEG_FAILPOINTS"


def reach(name: str) -> None:
    """Die or fail here where a test asked for it."""
    if _armed:
        _act(name)


def _act(name: str) -> None:
    if name not in _armed:
        return
    action, left = _armed[name]
    _armed[name] = action, left - 1
    if left == 1:
        _die() if action == "kill" else _fill_the_disk(name)


def _die() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _fill_the_disk(name: str) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, rest = part.partition("=")
        action, _, number = rest.partition("@")
        if name not in POINTS or action not in ("kill", "nospace") or not (number or "1").isdecimal():
            raise ValueError(f"{VARIABLE} holds {part!r}: write a point, =kill or =nospace, and @ with a number.")
        armed[name] = action, int(number or 1)
    return armed


_armed = _parse(os.environ.get(VARIABLE, ""))
