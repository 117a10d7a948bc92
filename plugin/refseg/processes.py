"""Whether the process that began something is still there: of this machine by its id, of another by how long it was silent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

SECONDS_UNTIL_GONE = 30 * 60
"""One silent for so long counts as killed. Generous, because work is heard of between batches alone: a batch of the largest
model takes minutes on a CPU, and a first use downloads gigabytes. One that is only slow counts again once it is heard of."""
SAME_START = 2.0
"""Seconds by which two readings of when a process started may differ."""


@cache
def this_machine() -> str:
    """The host's name, on Linux with what its process ids are counted from: this start of it, and the container."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {started} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


@dataclass(frozen=True)
class Process:
    """A process, as it is written down for others.

    Attributes:
        host: see this_machine.
        pid: its id there.
        started_at: in seconds, because ids are used again; 0 where it is not known. On Linux since the machine started, so that
            a clock that is set changes nothing; elsewhere since the epoch.
    """

    host: str
    pid: int
    started_at: float = 0.0

    @classmethod
    def current(cls) -> Process:
        """This one."""
        return cls(this_machine(), os.getpid(), _started_at(os.getpid()))

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
            is_same = not self.started_at or abs(_started_at(self.pid) - self.started_at) < SAME_START
            return not is_same or found.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _started_at(pid: int) -> float:
    """When a process of this machine started, in seconds from a moment that stays.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    import psutil

    found = psutil.Process(pid)
    try:
        # After the name, which may hold blanks and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return float(found.create_time())


def is_gone(process: Process | None, seconds_silent: float) -> bool:
    """Whether what a process began goes on no more.

    Args:
        process: that began it; None where it is not known.
        seconds_silent: since it was last heard of; negative where a clock was set back since, or is ahead elsewhere.
    """
    return abs(seconds_silent) >= SECONDS_UNTIL_GONE or (process is not None and process.is_known_to_be_gone)
