"""Whether RefSeg's library is there, of the version that this part belongs to, and with all that it needs.

The App's part is loaded by FiftyOne from a folder of its own, and can be there without the library or beside an older one.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2]
"""That of the plugin: of a checkout, of a download, or as `refseg plugin install` copied it."""


class LibraryProblemError(Exception):
    """The library is missing, or something that it needs; the message says what to type."""


def reach() -> bool:
    """Make the library importable where it lies in the plugin's own folder, as after `fiftyone plugins download`."""
    if importlib.util.find_spec("refseg") is not None:
        return True
    beside = FOLDER / "plugin"
    if not (beside / "refseg" / "__init__.py").is_file():
        return False
    # Last, so that whatever is installed comes first.
    sys.path.append(str(beside))
    importlib.invalidate_caches()
    return importlib.util.find_spec("refseg") is not None


def problem() -> str | None:
    """Why nothing can be done, in one sentence with the line to type; None where all is well."""
    if not reach():
        library = f"fiftyone-refseg @ git+{_about()['url']}"
        return (
            "RefSeg's library is not installed where FiftyOne runs. Type: "
            f'SAM2_BUILD_CUDA=0 {sys.executable} -m pip install --no-build-isolation "{library}"'
        )
    from refseg import __version__
    from refseg.requirements import problem as unmet

    version = _about().get("version")
    if version != __version__:
        return (
            f"The App's part of RefSeg is of version {version}, the library of version {__version__}. Type: "
            f"{sys.executable} -m refseg plugin install"
        )
    return unmet()


def require() -> None:
    """Refuse to go on.

    Raises:
        LibraryProblemError: see `problem`.
    """
    found = problem()
    if found is not None:
        raise LibraryProblemError(found)


def _about() -> dict[str, str]:
    """What fiftyone.yml says on lines of their own."""
    lines = (FOLDER / "fiftyone.yml").read_text(encoding="utf-8").splitlines()
    return {name: value.strip().strip('"') for name, _, value in (line.partition(":") for line in lines)}
