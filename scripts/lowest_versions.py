"""Print the lowest versions that pyproject.toml allows, as constraints for pip: what `make test-lowest` installs.

python scripts/lowest_versions.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BESIDES = ("graphql-core<3.3",)
"""FiftyOne before 1.22.1 allows releases of it that it cannot be imported with."""


def lowest(text: str) -> list[str]:
    """Each dependency of the project at its lower bound."""
    listed = text.partition("dependencies = [\n")[2].partition("\n]\n")[0]
    return [f"{name}=={version}" for name, version in re.findall(r'^    "([\w-]+)>=([\w.]+)', listed, re.MULTILINE)]


if __name__ == "__main__":
    sys.stdout.write("\n".join([*lowest(PROJECT.read_text()), *BESIDES]) + "\n")
