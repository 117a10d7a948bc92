"""What models take on the machine that FiftyOne runs on, and which suits it; torch is not loaded to tell."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .constants import MODEL

SMALL_MODEL = "tiny"
"""What suits a machine without a GPU."""

NAMES = {"cuda": "this GPU", "mps": "this Mac's GPU", "cpu": "this CPU"}

SECONDS_ON_CPU = {
    "demo": 0.76,
    "demo-fast": 0.40,
    "tiny": 19.7,
    "small": 20.3,
    "base": 23.2,
    "large": 35.7,
    "paper": 35.7,
    "tiny-fast": 15.2,
    "small-fast": 15.8,
    "base-fast": 18.7,
    "large-fast": 31.1,
}
"""Seconds an image on two cores of an AMD EPYC: docs/speed.md, "What the presets take"."""


@dataclass(frozen=True)
class Cost:
    """What an image takes with a model here, and where that is known from.

    Attributes:
        seconds: of one image, about.
        origin: half a sentence for people.
    """

    seconds: float
    origin: str


@functools.cache
def device() -> str:
    """What models run on here, "cuda", "mps" or "cpu", as far as can be told from outside torch."""
    if platform.system() == "Darwin":
        return "mps" if platform.machine() == "arm64" else "cpu"
    return "cuda" if _has_nvidia() and not _is_torch_without_cuda() else "cpu"


def fitting_model() -> str:
    """The preset that suits this machine."""
    return SMALL_MODEL if device() == "cpu" else MODEL


def cost_of(model: str, known: Mapping[str, float], elsewhere: Mapping[str, float]) -> Cost | None:
    """What an image takes with a model; None where nothing is known of it.

    Args:
        model: a preset's name.
        known: seconds an image by model, from this dataset's indexes.
        elsewhere: the same from those of other datasets.

    Example:
        >>> cost_of("tiny", {}, {"tiny": 3.0})
        Cost(seconds=3.0, origin='as on another dataset')
    """
    for measured, origin in ((known, "as its last images took"), (elsewhere, "as on another dataset")):
        if model in measured:
            return Cost(measured[model], origin)
    if device() != "cpu" or model not in SECONDS_ON_CPU:
        return None
    for measured, where in ((known, "here"), (elsewhere, "on another dataset")):
        # The demo's models are of another kind: they tell nothing of the others.
        for other in measured:
            if other in SECONDS_ON_CPU and other.startswith("demo") == model.startswith("demo"):
                ratio = SECONDS_ON_CPU[model] / SECONDS_ON_CPU[other]
                return Cost(measured[other] * ratio, f"from what '{other}' took {where}")
    return Cost(SECONDS_ON_CPU[model], f"from {SECONDS_ON_CPU[model]:.3g} s an image on two cores of another CPU")


def _has_nvidia() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32", "nvcuda.dll").exists()
    # Of Windows' Linux the driver is somewhere else.
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/usr/lib/wsl/lib/libcuda.so.1").exists()


def _is_torch_without_cuda() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
