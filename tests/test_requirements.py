"""What is missing is said with the line to type."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

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
    monkeypatch.setattr(requirements, "_found_well", set())
    assert requirements.problem() == (
        "RefSeg cannot run here: no-such-library is not installed. Type: "
        f'SAM2_BUILD_CUDA=0 {sys.executable} -m pip install --no-build-isolation "no-such-library>=2" '
        "— and start FiftyOne again."
    )
    # It is looked at again: whoever has typed the line is not told the same for ever.
    monkeypatch.setattr(requirements, "declared", lambda: ["numpy"])
    assert requirements.problem() is None


def test_line_to_type_quotes_each() -> None:
    assert install_line(["torch>=2.5,<3", "sam2"]).endswith('--no-build-isolation "torch>=2.5,<3" "sam2"')


def test_declared_is_read_from_the_installation_without_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = declared()
    monkeypatch.setattr(requirements, "BESIDE", requirements.BESIDE.parent / "nothing")
    found = declared()
    assert found
    assert not [one for one in found if "extra" in one]
    assert {one.partition(">")[0].split("<")[0] for one in found} == {one.partition(">")[0] for one in listed}


def test_a_strangers_list_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt\nflask==99\n")
    monkeypatch.setattr(requirements, "BESIDE", tmp_path / "requirements.txt")
    assert not [one for one in declared() if "flask" in one]
    (tmp_path / "fiftyone.yml").touch()
    (tmp_path / "requirements.txt").write_text("# a remark\n\nnumpy>=1  # why\nwinpty>=1; sys_platform == 'win32'\n")
    assert declared() == ["numpy>=1"]


def test_python_in_a_folder_with_spaces_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my envs/bin/python")
    assert install_line(["sam2"]) == "SAM2_BUILD_CUDA=0 '/my envs/bin/python' -m pip install --no-build-isolation \"sam2\""
