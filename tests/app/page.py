"""The App as a user sees it: the grid, the panel and its sections, by the words that are on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

PANEL = "Reference segmentation"
OUR_CODE = "/operators/panel/"
"""In the addresses of our own scripts."""
IMAGE_HW = (360, 480)
"""Of the demo's trays; not imported, because their module loads FiftyOne before this session's settings are made."""


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
        # The App has errors of its own, such as "entry is loading" where a sidebar is redrawn.
        page.on("pageerror", lambda error: self.errors.append(str(error)) if OUR_CODE in (error.stack or "") else None)
        page.goto(f"{url}/datasets/{dataset}")
        page.locator("[data-cy=action-browse-operations]").first.wait_for(timeout=120_000)

    def open_panel(self) -> None:
        """Open the panel beside the grid, unless it is open."""
        self.page.locator("[data-cy=new-panel-btn]").first.click()
        self.page.get_by_text(PANEL, exact=True).first.click()
        expect(self.section("References")).to_be_visible()

    def open_panel_anyway(self) -> None:
        """Open the panel, whatever it shows."""
        self.page.locator("[data-cy=new-panel-btn]").first.click()
        self.page.get_by_text(PANEL, exact=True).first.click()

    def expect_loaded(self) -> None:
        """Wait until each section has said what there is."""
        for title in ("References", "Index", "Segment", "Review", "Results"):
            # Buttons that open a form end so too.
            expect(self.section(title).get_by_text("…", exact=True)).to_have_count(0)

    def open_image(self, number: int) -> None:
        """Open an image of the grid."""
        self.page.locator("[data-cy=looker]").nth(number).click()
        expect(self._modal.locator("[data-cy=modal-looker-container]")).to_be_visible()
        self.page.wait_for_timeout(2000)

    def close_image(self) -> None:
        """Press beside the open image."""
        self.page.mouse.click(5, self.page.viewport_size["height"] / 2)
        expect(self._modal).to_have_count(0)

    def click_object(self, label: Any, *, alt: bool = False) -> None:
        """Select an object of the open image by a pixel of its mask."""
        area = self._modal.locator("[data-cy=modal-looker-container]").bounding_box()
        width, height = IMAGE_HW[1], IMAGE_HW[0]
        scale = min(area["width"] / width, area["height"] / height)
        left = area["x"] + (area["width"] - width * scale) / 2
        top = area["y"] + (area["height"] - height * scale) / 2
        rows, columns = np.nonzero(label.mask)
        middle = len(rows) // 2
        x = left + (label.bounding_box[0] * width + columns[middle]) * scale
        y = top + (label.bounding_box[1] * height + rows[middle]) * scale
        if alt:
            self.page.keyboard.down("Alt")
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(300)
        self.page.mouse.click(x, y)
        if alt:
            self.page.keyboard.up("Alt")
        self.page.wait_for_timeout(700)

    def open_panel_beside_image(self) -> None:
        """The panel's tab in the open image, opened where it is not there."""
        tab = self._modal.locator("[data-cy=panel-tab-reference_segmentation]")
        if not tab.count():
            self._modal.locator("[data-cy=new-panel-btn]").first.click()
            self.page.get_by_text(PANEL, exact=True).last.click()
        else:
            tab.click()
        expect(self.section("References")).to_be_visible()
        self.expect_loaded()

    def click_picture(self, share: tuple[float, float], *, alt: bool = False) -> None:
        """Click on the picture in which an object is shown, at a share of its width and height."""
        x, y = self._in_picture(share)
        if alt:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(x, y)
        if alt:
            self.page.keyboard.up("Alt")

    def drag_picture(self, box: Sequence[float]) -> None:
        """Drag a box over it: x, y, width and height, as shares."""
        self.page.mouse.move(*self._in_picture((box[0], box[1])))
        self.page.mouse.down()
        for part in (0.5, 1.0):
            self.page.mouse.move(*self._in_picture((box[0] + part * box[2], box[1] + part * box[3])))
        self.page.mouse.up()

    def mask_box(self) -> tuple[float, float, float, float]:
        """The box of the mask that is shown there: x, y, width and height, as shares."""
        images = self.section("References").get_by_role("application").get_by_role("img")
        picture, mask = images.first.bounding_box(), images.and_(self.page.get_by_alt_text("Mask of the object")).bounding_box()
        left, top = (mask["x"] - picture["x"]) / picture["width"], (mask["y"] - picture["y"]) / picture["height"]
        return left, top, mask["width"] / picture["width"], mask["height"] / picture["height"]

    def _in_picture(self, share: tuple[float, float]) -> tuple[float, float]:
        picture = self.section("References").get_by_role("application").get_by_role("img").first
        picture.scroll_into_view_if_needed()
        area = picture.bounding_box()
        return area["x"] + share[0] * area["width"], area["y"] + share[1] * area["height"]

    def focus_review(self) -> None:
        """Let the review listen to the keyboard, once it shows an object."""
        card = self.section("Review").get_by_role("group", name="Object to review")
        expect(card).to_be_visible()
        card.focus()

    def use_theme(self, scheme: str) -> None:
        """Change the App's theme unless it is this one."""
        dark = self.page.evaluate("getComputedStyle(document.body).backgroundColor") in ("rgb(18, 18, 18)", "rgb(26, 26, 26)")
        if dark != (scheme == "dark"):
            self.page.locator("[title*='Dark mode'], [title*='Light mode']").first.click()
            self.page.wait_for_timeout(1000)

    @property
    def _modal(self) -> Locator:
        return self.page.locator("[data-cy=modal]")

    def section(self, title: str) -> Locator:
        """A section of the panel; where an image is open, of the panel beside it."""
        where = self._modal if self._modal.count() else self.page
        return where.get_by_role("region", name=title, exact=True)

    def button(self, section: str, name: str | re.Pattern[str]) -> Locator:
        """A button of a section, by how its words begin; that which folds it apart."""
        return self.section(section).get_by_role("button", name=name).and_(self.page.locator(":not(.refseg-fold)"))

    def expect_text(self, section: str, text: str | re.Pattern[str], seconds: float = 60) -> None:
        """Wait until a section says this."""
        expect(self.section(section)).to_contain_text(text, timeout=1000 * seconds)

    def expect_notice(self, text: str | re.Pattern[str], seconds: float = 60) -> None:
        """Wait until the App notifies of this."""
        expect(self.page.get_by_role("alert").filter(has_text=text).first).to_be_visible(timeout=1000 * seconds)

    def trouble(self, section: str, text: str | re.Pattern[str]) -> Locator:
        """What a section says went wrong."""
        return self.section(section).get_by_role("alert").filter(has_text=text)

    def choose(self, section: str, label: str, option: str) -> None:
        """Choose from a dropdown, by the whole words of an option or those before the first dot in them."""
        self.section(section).get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}( ·|$)")).click()

    def fill(self, section: str, label: str, value: str) -> None:
        """Type into a field and leave it."""
        field = self.section(section).get_by_label(label, exact=True)
        field.fill(value)
        field.blur()

    def select_thumbnail(self, number: int, *, alt: bool = False) -> None:
        """Select an image or patch of the grid by its checkbox."""
        thumbnail = self.page.locator("[data-cy=looker]").nth(number)
        thumbnail.hover()
        thumbnail.locator("[data-cy^=looker-checkbox]").first.click(modifiers=["Alt"] if alt else [])

    def picture(self, name: str, section: str | None = None) -> None:
        """Keep a picture of the window, scrolled to a section."""
        if section is not None:
            self.section(section).scroll_into_view_if_needed()
        if self._pictures is None:
            return
        # Neither what has just been said nor what the mouse happens to be over belongs in a picture.
        self.page.mouse.move(2, 2)
        expect(
            self.page.get_by_role("alert").locator("visible=true").filter(has=self.page.get_by_label("close"))
        ).to_have_count(0)
        self.page.wait_for_timeout(700)
        self._pictures.mkdir(parents=True, exist_ok=True)
        with Image.open(BytesIO(self.page.screenshot())) as picture:
            picture.convert("RGB").quantize(256).save(self._pictures / f"{name}.png", optimize=True)

    def words(self) -> str:
        """All words of the panel."""
        titles = ("References", "Index", "Segment", "Suggested references", "Review", "Results")
        return "\n".join(self.section(title).inner_text() for title in titles)


def attributes(locator: Locator, name: str) -> list[Any]:
    """An attribute of every element found."""
    return [element.get_attribute(name) for element in locator.all()]
