"""A machine without a network."""

from __future__ import annotations

import socket
from typing import Any

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No name but this machine's own is found; returns the names that were looked up."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def refuse(host: Any, *rest: Any, **options: Any) -> Any:
        if host in (None, "localhost", "127.0.0.1", "::1"):  # FiftyOne's database
            return look_up(host, *rest, **options)
        asked.append(str(host))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked
