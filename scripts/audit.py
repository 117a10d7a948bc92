"""Look whether what RefSeg needs may be used, and what is known against the versions of it that are installed here.

python scripts/audit.py            # what `make audit` runs: a licence that may not be is an error, a vulnerability is printed
python scripts/audit.py --strict   # before a release: a vulnerability is an error too, and so is having found nothing out

Licences are looked at by scripts/licences.py, offline. Vulnerabilities are those that https://osv.dev knows, which holds the
advisories of PyPI: all names and versions go there in one request. An advisory of today must turn no other change red, and
neither must a machine that may not reach the service, so both are only printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.licences import Package, needed, problems

SERVICE = "https://api.osv.dev/v1"
SECONDS = 5.0
"""That an answer may take, so that a machine without a way out loses no more."""
DETAILS = 40
"""Vulnerabilities that are described, those of direct dependencies first; of the others the id is told."""


class UnknownError(Exception):
    """Nobody could tell."""


@dataclass(frozen=True)
class Vulnerability:
    """A known one of an installed version.

    Attributes:
        package: that has it.
        id: under which https://osv.dev describes it.
        summary: in its words; "" where it was not asked for.
        fixed: the versions that end it, lowest first; empty where there is none yet.
    """

    package: Package
    id: str
    summary: str = ""
    fixed: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "RefSeg asks for it" if self.package.is_direct else "others ask for it"
        told = f"{self.package.name} {self.package.version} ({kind}): {self.id}"
        if self.summary:
            told += f", {self.summary}"
        return told + (f"; fixed in {', '.join(self.fixed)}" if self.fixed else "")


def fetch(path: str, body: Any = None) -> Any:
    """An answer of the service.

    Raises:
        UnknownError: there is none, or none that can be understood.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{SERVICE}/{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise UnknownError(f"{SERVICE} gave no answer ({error})") from error


def vulnerabilities(packages: Sequence[Package], ask: Callable[..., Any] = fetch) -> list[Vulnerability]:
    """Those known of the packages, of direct dependencies first.

    Raises:
        UnknownError: the service gave no answer, or another one than it promises.
    """
    queries = [{"package": {"name": one.name, "ecosystem": "PyPI"}, "version": _public(one.version)} for one in packages]
    found, aliases = [], set()
    try:
        results = ask("querybatch", {"queries": queries})["results"]
        pairs = [(one, vuln["id"]) for one, told in zip(packages, results, strict=True) for vuln in told.get("vulns") or ()]
        pairs.sort(key=lambda pair: (not pair[0].is_direct, pair[0].name, pair[1]))
        for number, (package, name) in enumerate(pairs):
            about = ask(f"vulns/{name}") if number < DETAILS else {}
            # One vulnerability has an id in each of the lists that the service joins.
            if name not in aliases:
                found.append(_described(package, name, about))
            aliases |= {name, *(about.get("aliases") or ())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnknownError(f"{SERVICE} gave an answer that cannot be understood ({error!r})") from error
    return found


def _described(package: Package, name: str, about: dict[str, Any]) -> Vulnerability:
    ranges = [
        one
        for affected in about.get("affected") or ()
        if canonicalize_name(affected["package"]["name"]) == package.name
        for one in affected.get("ranges") or ()
        if one["type"] == "ECOSYSTEM"
    ]
    fixed = {event["fixed"] for one in ranges for event in one["events"] if "fixed" in event}
    later = [one for one in fixed if Version(one) > Version(package.version)]
    return Vulnerability(package, name, about.get("summary") or "", tuple(sorted(later, key=Version)))


def _public(version: str) -> str:
    """A version without what a build adds to it, such as "+cu130"."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what there is to say; 1 where it is an error."""
    parser = argparse.ArgumentParser(description="Look at the licences and the known vulnerabilities of what RefSeg needs.")
    parser.add_argument("--strict", action="store_true", help="vulnerabilities, and having found nothing out, are errors too")
    strict = parser.parse_args(arguments).strict
    packages = needed()
    wrong = list(problems(packages))
    print("\n".join(wrong) if wrong else f"Licences: all {len(packages)} packages can be used, commercially too.")
    try:
        found = vulnerabilities(packages)
    except UnknownError as error:
        print(f"Vulnerabilities were not looked up: {error}.")
        return int(strict or bool(wrong))
    if not found:
        print(f"Vulnerabilities: none is known of {len(packages)} packages.")
    for one in found:
        print(f"Vulnerability: {one}. https://osv.dev/{one.id}")
    return int(bool(wrong) or (strict and bool(found)))


if __name__ == "__main__":
    sys.exit(main())
