"""A pipe that nobody is to open; who does all the same is let go, so that no test waits for ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

SECONDS_BETWEEN_LOOKS = 0.2


class WatchedPipe:
    """A pipe, until the block ends.

    Args:
        path: where it is made.

    Raises:
        AssertionError: at the end of the block, if somebody opened it and waited.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was_opened = False
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> WatchedPipe:
        os.mkfifo(self.path)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._watcher.join()
        if kind is None:
            assert not self._was_opened, f"somebody waited for {self.path}"

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            try:
                # Answers with an error while nobody waits; who does reads nothing once it is closed.
                os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            self._was_opened = True
