"""Puts the App's part into the wheel beside the library; all else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
APP_PART = ("fiftyone.yml", "requirements.txt", "LICENSE", "NOTICE", "operators", "skills", "zoo")
"""What FiftyOne's plugins folder gets; `refseg plugin install` copies it from where it is here or in the wheel."""


class WithAppPart(build_py):
    """Copies what FiftyOne loads to refseg/_plugin/; an editable install has it in the repository."""

    def run(self) -> None:
        """Build the library, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "refseg" / "_plugin"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in APP_PART:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": WithAppPart})
