"""Files that are written: complete or not at all, and never over a file that is read. No FiftyOne."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import CocoError

DRAFT = ".part"
"""Ending of what is being written."""


@contextmanager
def replacing(path: str | Path) -> Generator[Path, None, None]:
    """A draft beside a file, which takes its place when the block ends; after an error nothing has changed.

    Args:
        path: the file; its folder is made. Of a link, what it leads to is replaced.

    Raises:
        CocoError: the path is a pipe or a device, whose place no file is to take.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        raise CocoError(f"{path} is a pipe or a device, and results are written beside and renamed: name a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + DRAFT)
    try:
        yield draft
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path], images: Iterable[str | Path] = ()) -> None:
    """Refuse files that would be written over what is read, or over each other; links count as what they lead to.

    Args:
        outputs: by what they are called, such as "--out".
        inputs: by what they are called; of a folder all files in it are meant.
        images: that are read.

    Raises:
        CocoError: two are one file; the message names both.
    """
    written: dict[str, str] = {}
    for name, path in outputs.items():
        for place in map(os.path.realpath, (path, path.with_name(path.name + DRAFT))):
            if place in written:
                raise CocoError(f"{written[place]} and {name} are one file, {path}: name another for one of them.")
            written[place] = name
    for name, path in inputs.items():
        real = os.path.realpath(path)
        for place, output in written.items():
            inside = place.startswith(real + os.sep) and os.path.exists(place)
            if inside or place == real or _is_same(place, path):
                raise CocoError(f"{output} would be written over what {name} names, {path}: name another file.")
    # Nobody gives an image these endings, and there may be many thousands of images to follow to where they lie.
    doubtful = {place for place in written if os.path.exists(place) and not place.endswith((".json", ".safetensors"))}
    for image in images if doubtful else ():
        place = os.path.realpath(image)
        if place in doubtful:
            raise CocoError(f"{written[place]} would be written over the image {image}: name another file.")


def _is_same(first: str, second: Path) -> bool:
    """Whether two paths lead to one file, hard links and file systems that do not tell cases apart included."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False
