"""Runs a module or script in which images can be held up on their way to the models, see `service.HeldImage`.

python -m tests.operators.held fiftyone.server.main --port 5151
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import BinaryIO

HELD, WAITING = ".held", ".waiting"
"""Endings of files beside an image: nobody is to load it; somebody waits for it."""
SECONDS_BETWEEN_LOOKS = 0.05


def hold_images() -> None:
    """Before anything of RefSeg is loaded that opens files; without the library nothing is."""
    try:
        from refseg import regular_files
    except ModuleNotFoundError:
        return
    open_now = regular_files.open_regular

    def open_when_let_go(path: str | os.PathLike[str]) -> BinaryIO:
        if _is_loading():
            while Path(f"{os.fspath(path)}{HELD}").exists():
                Path(f"{os.fspath(path)}{WAITING}").touch()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return open_now(path)

    regular_files.open_regular = open_when_let_go


def _is_loading() -> bool:
    """Whether an image is being opened for the models, and not for its thumbnail or to learn what it holds."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "load_image":
        frame = frame.f_back
    return frame is not None


if __name__ == "__main__":
    hold_images()
    del sys.argv[0]
    if os.sep in sys.argv[0]:
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
