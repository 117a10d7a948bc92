"""One server and one browser for the session, and a page with the panel on a small demo dataset.

FiftyOne is imported inside the fixtures: pytest reads this file before the settings of this session are made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.ensure_browser import ADVICE, find_browser
from tests.app.datasets import draw_dataset, predict
from tests.app.page import AppPage
from tests.app.server import Server

if TYPE_CHECKING:
    import fiftyone as fo
    from playwright.sync_api import Browser, BrowserContext

PICTURES = os.environ.get("REFSEG_PICTURES")
"""A folder for pictures of each screen, to be looked at; unset, none are kept."""

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


HOLDS_STILL = """addEventListener('DOMContentLoaded', () => {
    const style = document.createElement('style');
    style.textContent = '*, *::before, *::after { animation: none !important; transition: none !important; }';
    document.head.append(style);
})"""
"""Drawing what moves, without a graphics card, takes half of a core."""


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


@pytest.fixture(scope="module")
def other_server(session_folder: Path) -> Iterator[Server]:
    """One that may be ended and started again, and that lets FiftyOne's delegated service do the long work."""
    running = Server(session_folder / "other_server.log", {"FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true"})
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(session_folder: Path) -> Iterator[Server]:
    """The App's server, with this repository as its plugin."""
    running = Server(session_folder / "server.log")
    yield running
    running.stop()


@pytest.fixture
def trays(tmp_path: Path) -> Iterator[fo.Dataset]:
    """Nine trays."""
    dataset = draw_dataset(tmp_path, 9)
    yield dataset
    dataset.delete()


@pytest.fixture
def few_trays(tmp_path: Path) -> Iterator[fo.Dataset]:
    """Four, for what is about jobs and not about what they find: two batches on a CPU."""
    dataset = draw_dataset(tmp_path, 4)
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fo.Dataset]:
    """Nine trays with references, prototypes, an index and predictions, for tests that decide nothing about them."""
    dataset = draw_dataset(tmp_path_factory.mktemp("predicted"), 9)
    predict(dataset)
    yield dataset
    dataset.delete()


@pytest.fixture
def open_app(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., AppPage]]:
    """A function that opens a dataset in the App, in a browser window of its own.

    Windows of one context would load sooner, but in the second one the App draws no labels and opens no image.
    """
    opened: list[BrowserContext] = []
    failed_before = request.session.testsfailed

    def open_dataset(
        dataset: fo.Dataset, *, size: tuple[int, int] = (1400, 900), scheme: str = "dark", at: Server = server
    ) -> AppPage:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        # It would lie over the grid a moment after the page.
        context.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        context.add_init_script(HOLDS_STILL)
        opened.append(context)
        return AppPage(context.new_page(), at.url, dataset.name, Path(PICTURES) if PICTURES else None)

    yield open_dataset
    if request.session.testsfailed > failed_before:
        sys.stderr.write(server.log()[-5000:])
    for number, context in enumerate(opened):
        if PICTURES and request.session.testsfailed > failed_before and context.pages:
            context.pages[0].screenshot(path=Path(PICTURES) / f"failed_{request.node.name}_{number}.png")
        context.close()
