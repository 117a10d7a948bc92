"""FiftyOne's delegated service as a process of its own, and an image file that can hold it up."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from fiftyone.operators.delegated import DelegatedOperationService

JOB_SECONDS = 300
STOP_SECONDS = 20
SECONDS_BETWEEN_LOOKS = 0.05
ENDED = ("completed", "failed")


class Service:
    """`fiftyone delegated launch`, until the block ends.

    Args:
        log: a file for what it says.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        executable = Path(sys.executable).with_name("fiftyone")
        with log.open("ab") as file:
            # Its output is read only once something went wrong, and must be whole by then.
            settings = {**os.environ, "PYTHONUNBUFFERED": "1"}
            command = [str(executable), "delegated", "launch"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=settings)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def finish(self, operation: Any) -> Any:
        """Wait for the end of a queued job; returns its document."""
        documents = DelegatedOperationService()
        self.wait_until(lambda: documents.get(operation).run_state in ENDED, f"the job {operation} had ended")
        return documents.get(operation)

    def wait_until(self, condition: Callable[[], bool], name: str) -> None:
        """Wait for the service to do something.

        Raises:
            RuntimeError: it has ended, or takes minutes; the end of its log is in the message.
        """
        deadline = time.monotonic() + JOB_SECONDS
        while not condition():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"has taken {JOB_SECONDS} s" if ended is None else f"has ended with {ended}"
                log = self._log.read_text(errors="replace")[-5000:]
                raise RuntimeError(f"The delegated service {what} before {name}; its log:\n{log}")
            time.sleep(SECONDS_BETWEEN_LOOKS)


class HeldImage:
    """An image file whose reader waits until it is let go: a pipe in its place, as on a disk that does not answer.

    Args:
        path: of an image; it is its old self again after `let_go`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_suffix(".aside")
        path.rename(self._aside)
        os.mkfifo(path)
        self._pipe: int | None = None

    def catch_reader(self) -> bool:
        """Whether somebody waits for it; from then on they wait for `let_go`."""
        if self._pipe is None:
            try:
                self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                # What a pipe without a reader answers.
                if error.errno != errno.ENXIO:
                    raise
        return self._pipe is not None

    def let_go(self) -> None:
        """Give the reader, if there is one, the image, and put it back in its place; once done, there is nothing left to do."""
        if not self._aside.exists():
            return
        if self._pipe is not None:
            os.set_blocking(self._pipe, True)
            with os.fdopen(self._pipe, "wb") as pipe:
                pipe.write(self._aside.read_bytes())
        self._aside.replace(self._path)
