"""Opens each of some paths by each door through which files come in, and prints what happened: a process of its own.

Whoever opens a pipe by mistake waits for ever, perhaps with the interpreter's lock, so that no other thread could tell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from refseg.coco.files import read_coco
from refseg.coco.json_files import read_json, write_json
from refseg.dataset.file_states import file_state
from refseg.images.files import decode, own_range
from refseg.images.headers import needs_range, read_header
from refseg.images.loading import load_image
from refseg.images.pixel_ranges import find_pixels, pixel_needs
from refseg.images.reading import file_sha256
from refseg.images.thumbnails import crop_thumbnail
from refseg.images.tiff_bands import describe
from refseg.masks.stored import read_mask_file
from refseg.matching.semantic import holds_maps
from refseg.models.presets import get_preset
from refseg.prototypes.files import require_own
from refseg.prototypes.prototypes import Prototypes
from refseg.regular_files import read_regular

REFUSING: dict[str, Callable[[str], Any]] = {
    "decode": decode,
    "own_range": own_range,
    "read_header": read_header,
    "thumbnail": lambda path: crop_thumbnail(path, [0, 0, 1, 1]),
    "tiff": describe,
    "sha256": file_sha256,
    "mask": read_mask_file,
    "json": read_json,
    "coco": read_coco,
    "prototypes": Prototypes.load,
    "bytes": read_regular,
}
"""Doors that raise an error."""
ANSWERING: dict[str, Callable[[str], Any]] = {
    "load_image": lambda path: load_image(path, 8).error,
    "needs_range": needs_range,
    "pixel_needs": lambda path: pixel_needs([path]),
    "find_pixels": lambda path: find_pixels([path]).is_plain,
    "file_state": lambda path: getattr(file_state(path, content_hash=True), "sha256", None),
    "holds_maps": lambda path: holds_maps(Path(path).parent),
    "feature_width": lambda path: replace(get_preset("demo"), dinov2_repository=str(Path(path).parent)).feature_width,
    "require_own": require_own,
    "write_json": lambda path: write_json(path, []),
}
"""Doors that give an answer."""


def say(line: list[Any]) -> None:
    sys.stdout.write(json.dumps(line, default=repr) + "\n")
    sys.stdout.flush()


def main(doors: list[str], paths: list[str]) -> None:
    """A line of JSON for each door and path: door, path, type of the error or "", and the error or answer."""
    for door in doors:
        for path in paths:
            say([door, path])
            try:
                outcome = "", {**REFUSING, **ANSWERING}[door](path)
            except Exception as error:
                outcome = type(error).__name__, str(error)
            say([door, path, *outcome])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
