"""Which places of the server's disk a browser may name: FiftyOne asks nobody for a password, so RefSeg trusts no path it sends.

What is called from Python is free, and so is what a dataset's own records name: these were written from Python or passed here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fiftyone as fo

from .messages import listing

VARIABLE = "REFSEG_ALLOWED_FOLDERS"
"""Folders, and addresses of object stores, that the server's owner allows beside FiftyOne's dataset folder."""

PLACES = {"uri": True, "mask_dir": False, "sam2_path": False, "dinov2_path": False}
"""The parameters of all operators that name a place; whether it may be an object store's address."""

_SEPARATOR = re.compile(rf"{re.escape(os.pathsep)}(?!//)")
"""Between folders as in PATH, which everybody who sets such variables knows; the colon of an address is followed by slashes."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_from_browser(ctx: Any) -> bool:
    """Whether a request came over HTTP, be it executed here or by the delegated service; those of Python name no operator."""
    return "operator_uri" in ctx.request_params


def refusal(ctx: Any, name: str) -> str | None:
    """Why a parameter may not name its place, in one sentence; None where it may, or names none.

    Args:
        ctx: FiftyOne's execution context.
        name: one of PLACES.
    """
    place = ctx.params.get(name)
    if place is None or place == "" or not is_from_browser(ctx):
        return None
    takes_addresses = PLACES[name]
    # Of anything but a text, nobody knows what it would open.
    if isinstance(place, str) and (_is_allowed_address(place) if takes_addresses and "://" in place else _is_allowed(place)):
        return None
    return (
        f"{place!r} does not lie in a folder that the App may use ({listing(_allowed())}): name one in these, or let the "
        f"server's owner add it to the environment variable {VARIABLE} and start FiftyOne again."
    )


def require_allowed(ctx: Any) -> None:
    """Refuse places that may not be named, whether or not the operator's form asks for them.

    Raises:
        refseg.errors.DatasetError: the sentence that a form would show.
    """
    from refseg.errors import DatasetError

    for name in PLACES:
        if problem := refusal(ctx, name):
            raise DatasetError(problem)


def _allowed() -> list[str]:
    """FiftyOne's dataset folder and what the variable names; read anew each time, so that a delegated job has its own."""
    named = [entry.strip() for entry in _SEPARATOR.split(os.environ.get(VARIABLE, ""))]
    # A relative folder would be another one in each process.
    whole = [entry for entry in map(os.path.expanduser, named) if os.path.isabs(entry) or _ADDRESS.match(entry)]
    return [str(fo.config.default_dataset_dir), *whole]


def _is_allowed(folder: str) -> bool:
    """Whether a whole path of this machine lies in a folder that is allowed, once links and dots are followed."""
    whole = os.path.expanduser(folder)
    try:
        real = Path(os.path.realpath(whole))
    except ValueError:
        # No file can have such a name.
        return False
    if not os.path.isabs(whole):
        return False
    roots = [entry for entry in _allowed() if not _ADDRESS.match(entry)]
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _is_allowed_address(address: str) -> bool:
    """Whether an address begins with one that is allowed. One of a file never does: its links cannot be followed here."""
    steps = unquote(address).replace("\\", "/").split("/")
    if ".." in steps or "." in steps or address.lower().startswith("file"):
        return False
    prefixes = [entry.rstrip("/") for entry in _allowed() if _ADDRESS.match(entry)]
    return any(address == prefix or address.startswith(f"{prefix}/") for prefix in prefixes)
