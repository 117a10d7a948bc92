"""The panel where FiftyOne has the plugin and not the library: one sentence with the line to type, and no traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.app.page import AppPage
from tests.app.server import Server

if TYPE_CHECKING:
    import fiftyone as fo

pytestmark = [pytest.mark.app, pytest.mark.slow]

HIDES_THE_LIBRARY = """
import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if not (Path(path) / "refseg").is_dir()]
"""


@pytest.fixture
def bare_server(tmp_path: Path) -> Iterator[Server]:
    """A server whose Python cannot import the library, with the App's part as `refseg plugin install` copies it."""
    from refseg.plugin import install

    install(tmp_path / "plugins")
    (tmp_path / "start").mkdir()
    # Python runs this file when it starts, after the folders of editable installs were added.
    (tmp_path / "start" / "sitecustomize.py").write_text(HIDES_THE_LIBRARY)
    settings = {"FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins"), "PYTHONPATH": str(tmp_path / "start")}
    running = Server(tmp_path / "server.log", settings)
    yield running
    running.stop()


@pytest.mark.thorough
def test_panel_says_what_to_type(open_app: Callable[..., AppPage], few_trays: fo.Dataset, bare_server: Server) -> None:
    app = open_app(few_trays, at=bare_server)
    app.open_panel_anyway()
    told = app.page.get_by_text("RefSeg's library is not installed where FiftyOne runs. Type:")
    expect(told).to_be_visible()
    expect(told).to_contain_text('-m pip install --upgrade --no-build-isolation "fiftyone-refseg @ git+https://')
    app.picture("without_library", None)
    expect(app.page.get_by_text("Uncaught")).to_have_count(0)
    assert app.errors == []
    assert "Traceback" not in bare_server.log()
