"""`python -m refseg` and the command `refseg`: where a library is missing that they need, a sentence and no traceback."""

from __future__ import annotations

import shlex
import sys


def main() -> int:
    """Run the command; the exit code is 2 where a library is missing."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        name = (error.name or "refseg").partition(".")[0]
        if name == "refseg":
            raise
        line = f'{shlex.quote(sys.executable)} -m pip install "{name.replace("_", "-")}"'
        print(f"refseg: error: {name} is not installed, which RefSeg needs. Type: {line}", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
