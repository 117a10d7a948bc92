"""A door in front of MongoDB that can be slammed: connections through it are dropped when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

BYTES = 1 << 16


class Proxy:
    """Passes on what comes, both ways, until it is told not to; a context manager.

    Args:
        port: of MongoDB on this machine.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = self._server.getsockname()[1]
        self.num_dropped = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        self.drop()

    @property
    def uri(self) -> str:
        """What FIFTYONE_DATABASE_URI is set to."""
        return f"mongodb://127.0.0.1:{self.port}"

    def drop(self) -> None:
        """Break every connection; new ones are accepted."""
        with self._lock:
            gone, self._open = self._open, []
        self.num_dropped += len(gone)
        for one in gone:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(BYTES):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
