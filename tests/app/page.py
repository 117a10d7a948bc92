"""The App as a user sees it: the grid, the panel and its sections, by the words that are on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

PANEL = "Reference segmentation"


class AppPage:
    """A browser window with a dataset open.

    Args:
        page: Playwright's.
        url: of the server.
        dataset: its name.
        pictures: a folder for screenshots, or None for none.
    """

    def __init__(self, page: Page, url: str, dataset: str, pictures: Path | None) -> None:
        self.page = page
        self.errors: list[str] = []
        self._pictures = pictures
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{url}/datasets/{dataset}")
        page.locator("[data-cy=action-browse-operations]").first.wait_for(timeout=120_000)
        self._dismiss_advertisement()

    def open_panel(self) -> None:
        """Open the panel beside the grid, unless it is open."""
        self.page.locator("[data-cy=new-panel-btn]").first.click()
        self.page.get_by_text(PANEL, exact=True).first.click()
        expect(self.section("References")).to_be_visible()

    def section(self, title: str) -> Locator:
        """A section of the panel."""
        return self.page.get_by_role("region", name=title, exact=True)

    def button(self, section: str, name: str | re.Pattern[str]) -> Locator:
        """A button of a section, by how its words begin."""
        return self.section(section).get_by_role("button", name=name)

    def expect_text(self, section: str, text: str | re.Pattern[str], seconds: float = 60) -> None:
        """Wait until a section says this."""
        expect(self.section(section)).to_contain_text(text, timeout=1000 * seconds)

    def expect_notice(self, text: str | re.Pattern[str], seconds: float = 60) -> None:
        """Wait until the App notifies of this."""
        expect(self.page.get_by_role("alert").filter(has_text=text).first).to_be_visible(timeout=1000 * seconds)

    def choose(self, section: str, label: str, option: str) -> None:
        """Choose from a dropdown."""
        self.section(section).get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def fill(self, section: str, label: str, value: str) -> None:
        """Type into a field and leave it."""
        field = self.section(section).get_by_label(label, exact=True)
        field.fill(value)
        field.blur()

    def select_thumbnail(self, number: int, *, alt: bool = False) -> None:
        """Select an image or patch of the grid by its checkbox."""
        thumbnail = self.page.locator("[data-cy=looker]").nth(number)
        thumbnail.hover()
        thumbnail.locator("[data-cy=looker-checkbox-input], input[type=checkbox]").first.click(modifiers=["Alt"] if alt else [])

    def picture(self, name: str, section: str | None = None) -> None:
        """Keep a picture of the window, scrolled to a section."""
        if section is not None:
            self.section(section).scroll_into_view_if_needed()
        if self._pictures is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=self._pictures / f"{name}.png")

    def words(self) -> str:
        """All words of the panel."""
        titles = ("References", "Index", "Segment", "Review", "Results")
        return "\n".join(self.section(title).inner_text() for title in titles)

    def _dismiss_advertisement(self) -> None:
        # It comes up a moment after the page, once a browser.
        self.page.wait_for_timeout(1500)
        for words in ("Maybe later", "Close"):
            if (shown := self.page.get_by_text(words, exact=True)).count():
                shown.first.click()
                break
        self.page.keyboard.press("Escape")


def attributes(locator: Locator, name: str) -> list[Any]:
    """An attribute of every element found."""
    return [element.get_attribute(name) for element in locator.all()]
