"""See that there is a browser for the tests of the App, and download one where there is none.

The tests drive the App with Playwright in the Chromium that the machine has (Debian: `apt-get install chromium`). Where it has
none, Playwright's own build is downloaded once into the user's cache.

Exit code 0 in any case: without a browser the tests of the App are left out, and say so; with `CI` set they fail.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADVICE = "Install Chromium (Debian: apt-get install chromium) to run the tests of the App."


def find_browser() -> str | None:
    """The machine's own Chromium, else the one that Playwright has downloaded, else None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def main() -> int:
    """Look, download where needed, say what was found."""
    browser = find_browser()
    if browser is None:
        print("There is no Chromium on this machine: downloading Playwright's")
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
        browser = find_browser()
    print(f"Browser for the tests of the App: {browser}" if browser else ADVICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
