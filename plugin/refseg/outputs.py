"""Files that are written: complete or not at all, never over a file that is read nor over one of another kind. No FiftyOne."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CocoError, RefSegError
from .processes import Process, this_machine
from .regular_files import open_regular

DRAFT = ".part"
"""Ending of what is being written."""
SECONDS_A_DRAFT = 3600
"""A draft whose process is gone and that nobody has written to for so long is left over."""
MAX_NAME = 50
"""Characters of a file's name that its draft's begins with: names end at 255 bytes."""
PNG_START = b"\x89PNG\r\n\x1a\n"
LOOKED_AT = 256
"""Bytes of a file that tell what it holds."""


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
    draft = draft_of(target)
    try:
        yield draft
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Where this process writes what takes the place of a file: beside it, by a name that no file of somebody's has."""
    return path.with_name(f"{path.name[:MAX_NAME]}.{os.getpid()}{DRAFT}")


def remove_old_drafts(folder: Path) -> None:
    """Remove what killed processes have left of files that they wrote in a folder of RefSeg's own."""
    for draft in folder.glob(f"*{DRAFT}"):
        pid = draft.name.removesuffix(DRAFT).rpartition(".")[2]
        with suppress(OSError):
            is_old = time.time() - draft.stat().st_mtime >= SECONDS_A_DRAFT
            if is_old and pid.isdecimal() and Process(this_machine(), int(pid)).is_known_to_be_gone:
                draft.unlink()


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
        place = os.path.realpath(path)
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


def require_replaceable(
    path: str | Path, what: str, is_one: Callable[[Path], bool], error: type[RefSegError] = CocoError
) -> None:
    """Refuse to write over a file that holds something else, such as an image whose name was given by mistake.

    Args:
        path: where is to be written; a file that is missing or empty holds nothing.
        what: is to be written there, such as "a JSON file".
        is_one: tells whether a file is one of these, which may be replaced.
        error: that is raised.
    """
    place = Path(os.path.realpath(path))
    if place.is_file() and place.stat().st_size and not is_one(place):
        raise error(f"{path} exists and is not {what}, which would take its place: name another file, or remove this one.")


def require_json(path: str | Path, *, is_list: bool = False) -> None:
    """Refuse to write JSON over a file that holds something else, see require_replaceable.

    A list of results does not take the place of an object, such as a file of annotations.
    """
    if is_list:
        require_replaceable(path, "a list of results", lambda place: _starts_with(place, b"["))
    else:
        require_replaceable(path, "a JSON file", lambda place: _starts_with(place, b"{["))


def require_png(path: str | Path) -> None:
    """Refuse to write a picture over a file that is none, see require_replaceable."""
    require_replaceable(path, "a PNG", is_png)


def _starts_with(path: Path, signs: bytes) -> bool:
    """Whether a file begins with one of these signs, as JSON does."""
    first = _beginning(path).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return bool(first) and first in signs


def is_png(path: Path) -> bool:
    """Whether a file begins like a PNG."""
    return _beginning(path).startswith(PNG_START)


def _beginning(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(LOOKED_AT)


def _is_same(first: str, second: Path) -> bool:
    """Whether two paths lead to one file, hard links and file systems that do not tell cases apart included."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False
