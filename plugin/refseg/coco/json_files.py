"""JSON, read and written whole."""

from __future__ import annotations

import gc
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CocoError
from ..outputs import replacing, require_json
from ..regular_files import read_regular


@contextmanager
def collecting_no_garbage() -> Generator[None, None, None]:
    """Parsed JSON is no garbage: looking through its millions of lists again and again doubles the time of a large file."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, complete or not at all, in place of an earlier one; its folder is made.

    Raises:
        CocoError: there is a file of this name that holds something else.
    """
    require_json(path)
    with replacing(path) as draft:
        draft.write_text(as_json(content), encoding="utf-8")


def as_json(content: Any) -> str:
    r"""JSON in plain letters, but where a file's name is no UTF-8: then in escapes, that read back as the name was.

    Example:
        >>> print(as_json(["größe"]), as_json(["gr\udcfc"]))
        ["größe"] ["gr\udcfc"]
    """
    text = json.dumps(content, ensure_ascii=False)
    return text if text.isascii() or _is_utf8(text) else json.dumps(content)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@collecting_no_garbage()
def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        CocoError: the file is missing or no JSON.
    """
    try:
        return json.loads(read_regular(path).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise CocoError(f"There is no COCO file at {path}.") from error
    except OSError as error:
        raise CocoError(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise CocoError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; export it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise CocoError(f"{path} is not a JSON text in UTF-8: export it again.") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise CocoError(f"{path} holds a number that cannot be read ({error}): export it again.") from error
