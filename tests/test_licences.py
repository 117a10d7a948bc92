"""What RefSeg needs may be used, commercially too; and the check would tell if it might not."""

from __future__ import annotations

import re
from email.message import Message
from fnmatch import fnmatch

import pytest

from scripts.licences import LISTED, SAYS_LESS, Package, is_taken, licence_of, needed, problems, reason_for


def test_everything_that_is_needed_can_be_used() -> None:
    packages = needed()
    assert len(packages) > 100
    assert {"fiftyone", "torch", "sam2"} <= {one.name for one in packages if one.is_direct}
    # Only others ask for these.
    assert {"starlette", "pymongo"} <= {one.name for one in packages if not one.is_direct}
    assert list(problems(packages)) == []


def test_nothing_is_listed_that_need_not_be() -> None:
    for one in needed():
        if reason_for(one.name) is not None and not any(fnmatch(one.name, pattern) for pattern in SAYS_LESS):
            assert not is_taken(one.licence) or one.name.startswith("nvidia-"), one
    assert all(len(reason) > 40 for reason in LISTED.values())
    assert all(reason_for(pattern) for pattern in SAYS_LESS)


TAKEN = """
MIT; MIT-0; MIT-CMU; BSD-3-Clause; BSD License; FreeBSD; Apache; Apache Software License; Apache-2.0 OR GPL-3.0-only
ISC; PSF-2.0
MPL-2.0 AND MIT; Mozilla Public License 2.0 (MPL 2.0); Apache-2.0 AND CNRI-Python; The Unlicense (Unlicense); BSL-1.0
LGPL-2.1-or-later; LGPLv2+; GNU Lesser General Public License v2 or later (LGPLv2+)
GNU Library or Lesser General Public License (LGPL); BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0
Apache-2.0 WITH LLVM-exception
"""
NOT_TAKEN = """
GPL-3.0-or-later; GPLv2; AGPL-3.0; GNU General Public License v3 (GPLv3); GNU Affero General Public License v3
MIT AND GPL-3.0-or-later; BSD License AND GNU General Public License (GPL); Apache-2.0 AND (MIT OR GPL-2.0-only)
CC-BY-NC-4.0; CC-BY-NC-SA-4.0 OR AGPL-3.0; SSPL-1.0; Server Side Public License; BUSL-1.1; Apache-2.0 AND SSPL-1.0
Other/Proprietary License; LicenseRef-NVIDIA-Proprietary; unknown; Free for non-commercial use; Dual License
MIT License with Commons Clause
"""


@pytest.mark.parametrize("licence", re.split("[;\n] ?", TAKEN.strip()))
def test_licences_that_are_taken(licence: str) -> None:
    assert is_taken(licence)


@pytest.mark.parametrize("licence", re.split("[;\n] ?", NOT_TAKEN.strip()))
def test_licences_that_are_not(licence: str) -> None:
    assert not is_taken(licence)


def about(**fields: str | list[str]) -> Message:
    message = Message()
    for name, given in fields.items():
        for value in [given] if isinstance(given, str) else given:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, "MIT"),
        ({"License": "Apache", "Classifier": ["License :: OSI Approved :: MIT License", "Topic :: GPL"]}, "MIT License"),
        (
            {"Classifier": ["License :: Public Domain", "License :: OSI Approved :: BSD License"]},
            "Public Domain AND BSD License",
        ),
        ({"Classifier": "License :: OSI Approved", "License": "ISC"}, "ISC"),
        ({"License": "MIT License. Permission is hereby granted, " + "free of charge, " * 9}, "unknown"),
        ({"License": "UNKNOWN"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_a_package_says(fields: dict[str, str | list[str]], licence: str) -> None:
    assert licence_of(about(**fields)) == licence


def test_a_problem_is_one_sentence_that_says_what_to_do() -> None:
    packages = [Package("parts", "1.0", "AGPL-3.0"), Package("nvidia-parts", "1.0", "unknown"), Package("fine", "1.0", "MIT")]
    assert list(problems(packages)) == [
        "The licence of parts 1.0 is AGPL-3.0: read it, and replace the package, or list it in scripts/licences.py with the "
        "reason for which it can be used."
    ]


def test_what_a_package_brings_along_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Package("fiftyone-db", "1.4.1", "Apache Software License")
    assert list(problems([database])) == []
    monkeypatch.delitem(LISTED, "fiftyone-db")
    assert "is Apache Software License AND SSPL-1.0" in next(problems([database]))
