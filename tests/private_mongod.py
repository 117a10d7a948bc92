"""A MongoDB server for one test session: its own folder, its own port, gone when the session ends.

FiftyOne starts a server by itself, but attaches to any that runs already for this user; tests would then write to the
user's datasets, or to those of a test session running beside them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 20
_LISTENING = re.compile(r'"msg":"Waiting for connections","attr":\{"port":(\d+)')


class PrivateMongod:
    """A running server.

    Args:
        executable: mongod.
        folder: an existing folder of its own; a server that ran there before left its data.
        port: of a server that takes another one's place.

    Raises:
        RuntimeError: the server did not start; the end of its log is in the message.
    """

    def __init__(self, executable: Path, folder: Path, port: int = 0) -> None:
        self.database_dir = folder / "mongo"
        self.database_dir.mkdir(exist_ok=True)
        # One log a server: the port is looked for in it.
        self._log = folder / f"mongod-{len(list(folder.glob('mongod-*.log')))}.log"
        # Port 0 lets the system choose, so that sessions started together cannot pick the same one.
        command = [executable, "--dbpath", self.database_dir, "--logpath", self._log, "--port", port, "--nounixsocket"]
        command += ["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25"]
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self.port = self._wait_for_port()

    @property
    def uri(self) -> str:
        """What FIFTYONE_DATABASE_URI is set to."""
        return f"mongodb://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the server as a crash does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server; calling it again does nothing."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.is_running:
            found = _LISTENING.search(self._read_log())
            if found:
                return int(found[1])
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"mongod did not start:\n{self._read_log()[-2000:]}")

    def _read_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def find_mongod() -> Path | None:
    """FiftyOne's mongod, found without importing fiftyone: importing it would start the user's database."""
    spec = importlib.util.find_spec("fiftyone")
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders))) / "db" / "bin" / "mongod" if folders else None
    return path if path and path.is_file() else None


def _end_with_parent() -> None:
    """Ask Linux to end mongod when the tests are killed without a chance to stop it."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
