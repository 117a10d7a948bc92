"""FiftyOne's App server as a process of its own, which a test can end and start again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 120
STOP_SECONDS = 20
ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A running server.

    Args:
        log: a file for what it says.
        settings: environment variables besides the session's own.
    """

    def __init__(self, log: Path, settings: dict[str, str] | None = None) -> None:
        self.port = _free_port()
        self._log = log
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        server = ("fiftyone.server.main", "--port", str(self.port), "--address", "127.0.0.1")
        command = [sys.executable, "-m", "tests.operators.held", *server]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self._settings}, cwd=ROOT
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"FiftyOne's server did not start:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
