"""What importing costs: the package itself nothing, the engine no FiftyOne."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import refseg

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ("images", "masks", "models", "candidates", "prototypes", "index", "matching", "calibration", "coco", "insight")
"""Packages that work where there is no FiftyOne, and modules of others that do."""
BESIDE = (
    "dataset.sampling",
    "demo.world",
    *(
        f"published.{name}"
        for name in ("command", "crew", "drawing", "joining", "miou", "reference_files", "scoring", "segmenting", "sheets")
    ),
    *(f"published.layouts.{name}" for name in ("cd_fsod", "coco", "custom", "lvis", "voc")),
)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "torchvision", "fiftyone", "transformers", "sam2", "numpy", "PIL", "lance", "pyarrow", "pycocotools")
    assert run_python(f"import sys, refseg; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.slow
@pytest.mark.thorough
def test_engine_works_without_fiftyone() -> None:
    # None in sys.modules makes every import of fiftyone fail, as on a machine without it.
    code = "import sys; sys.modules['fiftyone'] = None; import importlib\n"
    code += "import pkgutil, refseg\n"
    code += f"for package in {ENGINE}:\n"
    code += "    path, prefix = importlib.import_module('refseg.' + package).__path__, f'refseg.{package}.'\n"
    code += "    for found in pkgutil.walk_packages(path, prefix): importlib.import_module(found.name)\n"
    code += f"for name in {BESIDE}: importlib.import_module('refseg.' + name)\n"
    code += "models = refseg.load_models('demo', device='cpu'); print(models.preset.name)"
    assert run_python("import refseg\n" + code) == "demo"


@pytest.mark.parametrize("name", refseg.__all__)
def test_public_name_resolves(name: str) -> None:
    found = getattr(refseg, name)
    if hasattr(found, "__module__"):
        assert found.__module__.startswith("refseg.")


def test_public_names_are_sorted_listed_once_and_shown() -> None:
    constants = sorted(name for name in refseg.__all__ if name.isupper())
    classes = sorted(name for name in refseg.__all__ if name[0].isupper() and not name.isupper())
    functions = sorted(name for name in refseg.__all__ if name.islower())
    assert refseg.__all__ == [*constants, *classes, *functions]
    assert len(set(refseg.__all__)) == len(refseg.__all__)
    assert set(refseg.__all__) <= set(dir(refseg))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'refseg' has no attribute 'segmentation'"):
        refseg.segmentation  # noqa: B018


@pytest.mark.parametrize("names", sorted((ROOT / "plugin" / "refseg").rglob("__init__.pyi")), ids=lambda path: path.parent.name)
def test_no_name_that_a_package_hands_on_is_a_module_of_it(names: Path) -> None:
    """Importing the module would put it in the place of the name."""
    modules = {path.stem for path in names.parent.glob("*.py")}
    handed_on = {name for _, name in re.findall(r"from \.(\w+) import (\w+)", names.read_text())}
    assert handed_on & modules == set()


def test_functions_and_modules_do_not_collide() -> None:
    import refseg.dataset.references
    import refseg.prototypes.prototypes

    assert callable(refseg.build_prototypes)
    assert callable(refseg.collect_references)
    assert not callable(refseg.prototypes.prototypes)
