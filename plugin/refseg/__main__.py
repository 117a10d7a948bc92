"""`python -m refseg` and the command `refseg`: where a library is missing that they need, a sentence and no traceback."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command; the exit code is 2 where a library is missing."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "refseg":
            raise
        line = f'{sys.executable} -m pip install "{error.name.partition(".")[0].replace("_", "-")}"'
        print(f"refseg: error: {error.name} is not installed, which RefSeg needs. Type: {line}", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
