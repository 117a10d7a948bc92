"""What is released: one version, one list of requirements, and a wheel that holds all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from refseg.plugin import PARTS
from refseg.version import VERSION
from scripts.lowest_versions import lowest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLUGIN = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
NOT_BUILT = (".git", ".venv", "build", "dist", "demo", "docs", "tests", "benchmarks", "*.egg-info", "__pycache__", ".*_cache")


def test_one_version() -> None:
    assert PLUGIN["version"] == VERSION
    assert PROJECT["dynamic"] == ["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0].removesuffix(" (not released yet)") == VERSION


def test_requirements_are_those_of_the_project() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(PROJECT["dependencies"])


def test_lower_bounds_are_constraints() -> None:
    found = lowest((ROOT / "pyproject.toml").read_text())
    assert {"numpy==1.26", "sam2==1.1", "torch==2.5.1"} <= set(found)
    assert len(found) == len(PROJECT["dependencies"])


def test_plugin_is_described_as_the_project_is() -> None:
    (fiftyone,) = [one for one in PROJECT["dependencies"] if one.startswith("fiftyone>")]
    assert PLUGIN["fiftyone"]["version"] == fiftyone.removeprefix("fiftyone")
    assert PLUGIN["url"] == PROJECT["urls"]["Repository"]
    assert PLUGIN["license"] == PROJECT["license"]
    assert PLUGIN["author"] == PROJECT["authors"][0]["name"]
    assert PLUGIN["skills"] == [path.name for path in (ROOT / "skills").iterdir()]


def test_the_build_copies_what_the_command_copies() -> None:
    found = re.search(r"APP_PART = (\(.+?\))", (ROOT / "setup.py").read_text())
    assert found is not None
    assert eval(found[1], {}) == PARTS


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make dist` builds it: from the source archive."""
    copy, out = tmp_path_factory.mktemp("copy") / "refseg", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_BUILT))
    # The demo's modules and weights are part of it, what `make demo` writes is not.
    shutil.copytree(ROOT / "plugin" / "refseg" / "demo", copy / "plugin" / "refseg" / "demo", dirs_exist_ok=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sorted(path.suffix for path in out.iterdir()) == [".gz", ".whl"]
    return next(out.glob("*.whl"))


@pytest.mark.slow
class TestWheel:
    def test_holds_everything(self, wheel: Path) -> None:
        names = set(zipfile.ZipFile(wheel).namelist())
        wanted = {path.relative_to(ROOT / "plugin").as_posix() for path in files_in(ROOT / "plugin" / "refseg")}
        for part in PARTS:
            files = files_in(ROOT / part) if (ROOT / part).is_dir() else [ROOT / part]
            wanted |= {f"refseg/_plugin/{path.relative_to(ROOT).as_posix()}" for path in files}
        assert wanted - names == set()
        about = f"fiftyone_refseg-{VERSION}.dist-info/licenses"
        assert {f"{about}/LICENSE", f"{about}/NOTICE"} <= names
        assert not [name for name in names if name.startswith(("tests/", "operators/", "benchmarks/"))]

    def test_installs_into_an_empty_folder_and_puts_the_plugin_into_the_app(self, wheel: Path, tmp_path: Path) -> None:
        site, plugins = tmp_path / "site", tmp_path / "plugins"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        code = (
            "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
            "import refseg; assert refseg.__file__.startswith(sys.path[0]), refseg.__file__\n"
            "from refseg.cli import main; sys.exit(main())"
        )
        command = [sys.executable, "-c", code, str(site), "plugin", "install", "--folder", str(plugins)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = plugins / "@refseg" / "reference-segmentation"
        assert sorted(path.name for path in folder.iterdir()) == sorted(PARTS)
        assert (folder / "operators" / "panel" / "panel.js").read_bytes() == (ROOT / "operators/panel/panel.js").read_bytes()
