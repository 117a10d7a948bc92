"""Whether RefSeg's library is there, of the version that this part belongs to, and with all that it needs.

The App's part is loaded by FiftyOne from a folder of its own, and can be there without the library or beside an older one.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from packaging.version import Version

FOLDER = Path(__file__).resolve().parents[2]
"""That of the plugin: of a checkout, of a download, or as `refseg plugin install` copied it."""


class LibraryProblemError(Exception):
    """The library is missing, or something that it needs; the message says what to type."""


def reach() -> bool:
    """Make the library importable where it lies in the plugin's own folder, as after `fiftyone plugins download`."""
    if _is_there():
        return True
    beside = FOLDER / "plugin"
    if not (beside / "refseg" / "__init__.py").is_file():
        return False
    # Last, so that whatever is installed comes first.
    sys.path.append(str(beside))
    importlib.invalidate_caches()
    return _is_there()


def _is_there() -> bool:
    spec = importlib.util.find_spec("refseg")
    # A folder of that name beside the user, such as a clone, is no library.
    return spec is not None and spec.origin is not None


def problem() -> str | None:
    """Why nothing can be done, in one sentence with the line to type; None where all is well."""
    about = _about()
    python = shlex.quote(sys.executable)
    install = (
        f'SAM2_BUILD_CUDA=0 {python} -m pip install --upgrade --no-build-isolation "fiftyone-refseg @ git+{about["url"]}" '
        "— and start FiftyOne again."
    )
    if not reach():
        return f"RefSeg's library is not installed where FiftyOne runs. Type: {install}"
    import refseg

    own, other = about["version"], refseg.__version__
    if own != other:
        told = f"The App's part of RefSeg is of version {own}, the library of version {other}. Type: "
        is_older = Version(other) < Version(own)
        return told + (install if is_older else f"{python} -m refseg plugin install — and start FiftyOne again.")
    from refseg.requirements import problem as unmet

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
