"""What is missing is said with the line to type."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from refseg import requirements
from refseg.requirements import Unmet, declared, install_line, unmet


def test_all_is_met_here() -> None:
    assert len(declared()) > 10
    assert unmet(declared()) == []


def test_missing_and_too_old() -> None:
    version = metadata.version("numpy")
    assert unmet(["numpy", "no-such-library>=2", "numpy>=1000", f"numpy=={version}"]) == [
        Unmet("no-such-library>=2", None),
        Unmet("numpy>=1000", version),
    ]
    assert str(Unmet("no-such-library>=2", None)) == "no-such-library is not installed"
    assert str(Unmet("numpy>=1000", "2.0")) == "numpy 2.0 is installed, not numpy>=1000"


def test_problem_names_each_and_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "declared", lambda: ["no-such-library>=2", "numpy"])
    requirements.problem.cache_clear()
    try:
        told = requirements.problem()
    finally:
        requirements.problem.cache_clear()
    assert told == (
        "RefSeg cannot run here: no-such-library is not installed. Type: "
        f'SAM2_BUILD_CUDA=0 {sys.executable} -m pip install --no-build-isolation "no-such-library>=2"'
    )


def test_line_to_type_quotes_each() -> None:
    assert install_line(["torch>=2.5,<3", "sam2"]).endswith('--no-build-isolation "torch>=2.5,<3" "sam2"')


def test_declared_is_read_from_the_installation_without_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = declared()
    monkeypatch.setattr(requirements, "BESIDE", requirements.BESIDE.parent / "nothing")
    found = declared()
    assert found
    assert not [one for one in found if "extra" in one]
    assert {one.partition(">")[0].split("<")[0] for one in found} == {one.partition(">")[0] for one in listed}
