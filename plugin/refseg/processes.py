"""Whether the process that began something is still there: of this machine by its id, of another by how long it was silent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SECONDS_UNTIL_GONE = 30 * 60
"""One silent for so long counts as killed. Generous, because work is heard of between batches alone: a batch of the largest
model takes minutes on a CPU, and a first use downloads gigabytes. One that is only slow counts again once it is heard of."""
SAME_START = 2.0
"""Seconds by which two readings of when a process started may differ: the system counts from a boot whose time drifts."""


def this_machine() -> str:
    """The host's name, on Linux with the space of its process ids: containers may share a name, and each counts its own."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


@dataclass(frozen=True)
class Process:
    """A process, as it is written down for others.

    Attributes:
        host: see this_machine.
        pid: its id there.
        started_at: seconds since the epoch, because ids are used again; 0 where it is not known.
    """

    host: str
    pid: int
    started_at: float = 0.0

    @classmethod
    def current(cls) -> Process:
        """This one."""
        import psutil

        return cls(this_machine(), os.getpid(), psutil.Process().create_time())

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any] | None) -> Process | None:
        """From as_dict; None where nothing was written down."""
        return None if given is None else cls(str(given["host"]), int(given["pid"]), float(given["started_at"]))

    def as_dict(self) -> dict[str, Any]:
        """For a document of MongoDB."""
        return asdict(self)

    @property
    def is_known_to_be_gone(self) -> bool:
        """Whether it ran on this machine and does not any more."""
        import psutil

        if self.host != this_machine():
            return False
        try:
            found = psutil.Process(self.pid)
            # A killed process stays on the system's list until its parent asks for it.
            is_same = not self.started_at or abs(found.create_time() - self.started_at) < SAME_START
            return not is_same or found.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def is_gone(process: Process | None, seconds_silent: float) -> bool:
    """Whether what a process began goes on no more.

    Args:
        process: that began it; None where it is not known.
        seconds_silent: since it was last heard of; negative where a clock was set back since, or is ahead elsewhere.
    """
    return abs(seconds_silent) >= SECONDS_UNTIL_GONE or (process is not None and process.is_known_to_be_gone)
