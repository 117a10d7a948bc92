"""One server and one browser for the session, and a page with the panel on a small demo dataset.

FiftyOne is imported inside the fixtures: pytest reads this file before the settings of this session are made.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.ensure_browser import ADVICE, find_browser
from tests.app.page import AppPage
from tests.app.server import Server

if TYPE_CHECKING:
    import fiftyone as fo
    from playwright.sync_api import Browser

PICTURES = os.environ.get("REFSEG_PICTURES")
"""A folder for pictures of each screen, to be looked at; unset, none are kept."""

_counter = itertools.count()

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    from playwright.sync_api import expect, sync_playwright

    # The default of 5 seconds is too short where both cores are busy.
    expect.set_options(timeout=60_000)
    path = find_browser()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(ADVICE)
        pytest.skip(ADVICE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def server(session_folder: Path) -> Iterator[Server]:
    """The App's server, with this repository as its plugin."""
    running = Server(session_folder / "server.log")
    yield running
    running.stop()


@pytest.fixture
def trays(tmp_path: Path) -> Iterator[fo.Dataset]:
    """Nine trays of the demo, six of them with objects of six classes in `ground_truth`."""
    from refseg.demo.dataset import build_demo_dataset

    # The server keeps a dataset that it has shown, even once it is deleted: each needs a name of its own.
    number = next(_counter)
    dataset = build_demo_dataset(tmp_path / "trays", name=f"trays-{number}" if number else "trays", num_images=9)
    yield dataset
    dataset.delete()


@pytest.fixture
def open_app(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., AppPage]]:
    """A function that opens a dataset in the App, in a browser window of its own."""
    opened: list[Any] = []
    failed_before = request.session.testsfailed

    def open_dataset(
        dataset: fo.Dataset, *, size: tuple[int, int] = (1400, 900), scheme: str = "dark", at: Server = server
    ) -> AppPage:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        opened.append(context)
        return AppPage(context.new_page(), at.url, dataset.name, Path(PICTURES) if PICTURES else None)

    yield open_dataset
    if request.session.testsfailed > failed_before:
        sys.stderr.write(server.log()[-5000:])
    for number, context in enumerate(opened):
        if PICTURES and request.session.testsfailed > failed_before and context.pages:
            context.pages[0].screenshot(path=Path(PICTURES) / f"failed_{request.node.name}_{number}.png")
        context.close()
