"""Runs a module or script in which images can be held up on their way to the models, see `service.HeldImage`.

The models answer what they have been asked in this session without looking again, see `tests/known_answers.py`.

python -m tests.operators.held fiftyone.server.main --port 5151
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

HELD, WAITING = ".held", ".waiting"
"""Endings of files beside an image: nobody is to load it; somebody waits for it."""
SECONDS_BETWEEN_LOOKS = 0.05
DECODING = "refseg.candidates.decoding"


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


def hand_out_once_loaded() -> None:
    """For the rest of this process, from the moment on that it loads the models' code, which may be never."""
    sys.meta_path.insert(0, _OnceLoaded())


class _OnceLoaded(MetaPathFinder):
    """Finds one module, and lets answers be handed out when it has been run."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == DECODING else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            from tests.known_answers import handed_out

            run(module)
            self._patched = handed_out()
            self._patched.__enter__()

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


if __name__ == "__main__":
    hold_images()
    hand_out_once_loaded()
    del sys.argv[0]
    if os.sep in sys.argv[0]:
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
