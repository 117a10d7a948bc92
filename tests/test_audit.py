"""What is known against installed versions: asked in one request, told in full, never in the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from scripts import audit
from scripts.audit import UnknownError, main, vulnerabilities
from scripts.licences import Package

PILLOW = Package("pillow", "12.2.0", "MIT-CMU", is_direct=True)
BELOW = Package("below", "1.0+cu130", "MIT")
FINE = Package("fine", "1.0", "MIT")
DETAILS: dict[str, dict[str, Any]] = {
    "GHSA-1": {
        "summary": "Out of bounds",
        "aliases": ["CVE-1", "PYSEC-1"],
        "affected": [
            {
                "package": {"name": "Pillow", "ecosystem": "PyPI"},
                "ranges": [
                    {"type": "GIT", "events": [{"fixed": "0f0f"}]},
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "12.10.0"}]},
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "11.0.1"}, {"fixed": "12.9"}]},
                ],
            },
            {"package": {"name": "other"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99"}]}]},
        ],
    },
    "PYSEC-1": {"aliases": ["GHSA-1"]},
    "GHSA-2": {},
}


class Service(BaseHTTPRequestHandler):
    """Answers as https://osv.dev does."""

    asked: ClassVar[list[Any]] = []
    results: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        self._answer({"results": self.results})

    def do_GET(self) -> None:
        self.asked.append((self.path, None))
        self._answer(DETAILS[self.path.rpartition("/")[2]])

    def _answer(self, content: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    """A service of this test's own, which knows two vulnerabilities."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(audit, "SERVICE", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setattr(Service, "asked", [])
    monkeypatch.setattr(
        Service, "results", [{"vulns": [{"id": "GHSA-2"}]}, {}, {"vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-1"}]}]
    )
    monkeypatch.setattr(audit, "needed", lambda: [BELOW, FINE, PILLOW])
    yield Service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("service")
def test_known_ones_are_printed_and_are_no_error_unless_strict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Licences: all 3 packages can be used, commercially too.",
        "Vulnerability: pillow 12.2.0 (RefSeg asks for it): GHSA-1, Out of bounds; fixed in 12.9, 12.10.0. https://osv.dev/GHSA-1",
        "Vulnerability: below 1.0+cu130 (others ask for it): GHSA-2. https://osv.dev/GHSA-2",
    ]
    assert main(["--strict"]) == 1


def test_everything_is_asked_in_one_request(service: type[Service]) -> None:
    vulnerabilities([BELOW, FINE, PILLOW])
    (path, body), *others = service.asked
    assert path == "/v1/querybatch"
    assert body["queries"][0] == {"package": {"name": "below", "ecosystem": "PyPI"}, "version": "1.0"}
    assert [path for path, _ in others] == ["/v1/vulns/GHSA-1", "/v1/vulns/PYSEC-1", "/v1/vulns/GHSA-2"]


def test_none(service: type[Service], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(service, "results", [{}, {}, {}])
    assert main(["--strict"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "Vulnerabilities: none is known of 3 packages."


def test_no_way_out_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(audit, "SERVICE", "http://127.0.0.1:1/v1")
    monkeypatch.setattr(audit, "needed", lambda: [FINE])
    assert (main([]), main(["--strict"])) == (0, 1)
    assert "Vulnerabilities were not looked up: http://127.0.0.1:1/v1 gave no answer (" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [{}, {"results": []}, {"results": [{"vulns": [{}]}]}, [], None, {"results": [None]}])
def test_another_answer_than_promised(answer: Any) -> None:
    with pytest.raises(UnknownError, match="cannot be understood"):
        vulnerabilities([FINE], lambda *_: answer)


@pytest.mark.usefixtures("service")
def test_a_licence_that_may_not_be_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(audit, "needed", lambda: [BELOW, Package("fine", "1.0", "AGPL-3.0"), PILLOW])
    assert main([]) == 1
    assert capsys.readouterr().out.startswith("The licence of fine 1.0 is AGPL-3.0: read it")
