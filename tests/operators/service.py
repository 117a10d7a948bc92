"""FiftyOne's delegated service as a process of its own, and an image file that can hold it up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from fiftyone.operators.delegated import DelegatedOperationService

from tests.operators.held import HELD, WAITING

JOB_SECONDS = 300
STOP_SECONDS = 20
SECONDS_BETWEEN_LOOKS = 0.05
ENDED = ("completed", "failed")
ROOT = Path(__file__).resolve().parents[2]


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
            command = [sys.executable, "-m", "tests.operators.held", str(executable), "delegated", "launch"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=settings, cwd=ROOT
            )

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
    """An image file that nobody can load until it is let go, as on a disk that does not answer: by processes of `held` alone.

    Args:
        path: of an image.
    """

    def __init__(self, path: Path) -> None:
        self._held, self._waiting = Path(f"{path}{HELD}"), Path(f"{path}{WAITING}")
        self._waiting.unlink(missing_ok=True)
        self._held.touch()

    def catch_reader(self) -> bool:
        """Whether somebody waits for it; they go on waiting for `let_go`."""
        return self._waiting.exists()

    def let_go(self) -> None:
        """Let whoever waits have the image; once done, there is nothing left to do."""
        self._held.unlink(missing_ok=True)
