"""Which libraries RefSeg needs, and which of them are missing here or of a version that it cannot use."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

DISTRIBUTION = "fiftyone-refseg"
REPOSITORY = "https://github.com/refseg/refseg"
BESIDE = Path(__file__).resolve().parents[2] / "requirements.txt"
"""Where the plugin was downloaded as a whole, or is a checkout, the list stands beside its fiftyone.yml."""


@dataclass(frozen=True)
class Unmet:
    """A library that is missing or of another version.

    Attributes:
        requirement: what is needed, such as "transformers>=5,<6".
        found: the version that is installed; None where there is none.
    """

    requirement: str
    found: str | None

    def __str__(self) -> str:
        name = Requirement(self.requirement).name
        return f"{name} is not installed" if self.found is None else f"{name} {self.found} is installed, not {self.requirement}"


def declared() -> list[str]:
    """What RefSeg needs, by the list beside the plugin or, where it was installed without that, by its installation."""
    every: list[str] = []
    if BESIDE.is_file() and (BESIDE.parent / "fiftyone.yml").is_file():
        every = [line.partition("#")[0].strip() for line in BESIDE.read_text(encoding="utf-8").splitlines()]
    else:
        with suppress(metadata.PackageNotFoundError):
            every = metadata.requires(DISTRIBUTION) or []
    # Those of extras, and of other systems, are another matter.
    return [one for one in every if one and ((marker := Requirement(one).marker) is None or marker.evaluate({"extra": ""}))]


def unmet(requirements: Iterable[str]) -> list[Unmet]:
    """Those of the requirements that this Python does not meet; nothing is imported.

    Example:
        >>> unmet(["numpy", "numpy>=1000"])[0].requirement
        'numpy>=1000'
    """
    found = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(Unmet(text, None))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(Unmet(text, version))
    return found


_found_well: set[bool] = set()


def problem() -> str | None:
    """What is missing, and the line to type, in one sentence; None where nothing is, which a process finds out once."""
    if _found_well:
        return None
    missing = unmet(declared())
    if not missing:
        _found_well.add(True)
        return None
    line = install_line(one.requirement for one in missing)
    return f"RefSeg cannot run here: {', '.join(map(str, missing))}. Type: {line} — and start FiftyOne again."


def install_line(requirements: Iterable[str]) -> str:
    """The command that installs requirements into this Python.

    SAM 2 is built where it is installed, and would have a second torch downloaded for that: hence without isolation.
    """
    quoted = " ".join(f'"{one}"' for one in requirements)
    return f"SAM2_BUILD_CUDA=0 {shlex.quote(sys.executable)} -m pip install --no-build-isolation {quoted}"
