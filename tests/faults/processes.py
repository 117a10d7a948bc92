"""Another process: a Python of its own, with an environment of its own, told when to begin, and killed.

It runs a function of a test module, given by its name, on arguments that survive JSON, and says that it is ready once all is
imported. Where processes are only to do something at the same moment, `tests/at_once.py` starts them faster.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
READY, RESULT, RAISED = "ready", "result ", "raised "
SECONDS = 120
"""After so long without a word a process counts as stuck."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        value: what its function returned.
        error: type and message of what it raised, or None.
        returncode: negative where a signal ended it.
    """

    value: Any
    error: str | None
    returncode: int


class OtherProcess:
    """A process that waits to be told to begin; a context manager that leaves none behind."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "tests.faults.processes", function.__module__, function.__qualname__]
        self._process = subprocess.Popen(
            [*command, json.dumps(arguments)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Return when everything is imported."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == READY, line

    def begin(self) -> None:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self._process.kill()

    def outcome(self) -> Outcome:
        """How it ended, once it has."""
        out, _ = self._process.communicate(timeout=SECONDS)
        lines = out.splitlines()
        value = next((json.loads(line[len(RESULT) :]) for line in lines if line.startswith(RESULT)), None)
        error = next((line[len(RAISED) :] for line in lines if line.startswith(RAISED)), None)
        return Outcome(value, error, self._process.returncode)


def _main() -> None:
    module, name, arguments = sys.argv[1:]
    function = getattr(importlib.import_module(module), name)
    prepare = getattr(function, "prepare", None)
    given = json.loads(arguments)
    prepared = () if prepare is None else (prepare(*given),)
    _say(READY)
    sys.stdin.readline()
    try:
        _say(RESULT + json.dumps(function(*prepared, *given)))
    except Exception as error:
        _say(f"{RAISED}{type(error).__name__}: {error}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
