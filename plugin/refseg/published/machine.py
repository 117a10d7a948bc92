"""What a figure was measured with: versions of libraries, and the machine."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__

LIBRARIES = ("torch", "torchvision", "sam2", "transformers", "fiftyone", "pylance", "pycocotools", "faster-coco-eval", "numpy")


def library_versions() -> dict[str, str]:
    """Of RefSeg, Python, and every library that a figure may depend on."""
    found = {"refseg": f"{__version__} (code {code_digest()})", "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_digest() -> str:
    """Of RefSeg's own code: figures made with other code are made anew."""
    package = Path(__file__).parent.parent
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(path.relative_to(package).as_posix().encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def describe_machine(device: str) -> dict[str, Any]:
    """System, processor, cores, memory, and the name of the device that the models ran on."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30, 1) or None,
        "device": gpu or device,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
