"""What prototypes consist of, in a safetensors file: tensors by name, everything else as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..errors import CocoError, PrototypeFileError, RefSegError
from ..outputs import replacing, require_replaceable
from ..regular_files import open_regular

Built = TypeVar("Built")

HEADER = "refseg_prototypes"
MAX_HEADER = 100_000_000
"""Bytes that a safetensors file's header takes at most, by its format."""
DAMAGE = (SafetensorError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, OSError)
"""What a damaged file, or one of something else, ends in; JSON that is nested too deeply is a RuntimeError."""


def write_file(path: str | Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file, complete or not at all.

    Args:
        path: of the file; one of prototypes may be replaced.
        about: what is JSON.
        tensors: by name.

    Raises:
        PrototypeFileError: there is a file that holds something else, or none can be written there.
    """
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        require_own(path)
        with replacing(path) as draft:
            save_file(held, draft, metadata={HEADER: json.dumps(about)})
            with draft.open("rb+") as file:
                # What is renamed before the disk has it can be an empty file after a power cut.
                os.fsync(file.fileno())
    except (OSError, ValueError, SafetensorError, CocoError) as error:
        raise PrototypeFileError(f"The prototypes cannot be written to {str(path)!r}: {error}") from error


def require_own(path: str | Path) -> None:
    """Refuse to write over a file that holds no prototypes; those of any version may be replaced.

    Raises:
        PrototypeFileError: there is such a file.
    """
    require_replaceable(path, "a prototypes file", _holds_prototypes, PrototypeFileError)


def _holds_prototypes(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            _own_header(stream)
    except DAMAGE:
        return False
    return True


def _own_header(stream: BinaryIO) -> str:
    """What write_file was given as JSON, out of the header; the stream is then to be read from its start.

    Raises:
        ValueError: the file is no safetensors file, or its JSON none.
        LookupError: it holds something else.
    """
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError("this is no safetensors file")
    own = json.loads(stream.read(length))["__metadata__"][HEADER]
    if not isinstance(own, str):
        raise TypeError("the header holds no text")
    return own


def read_file(path: str | Path, version: int, build: Callable[[dict[str, Any], dict[str, Tensor]], Built]) -> Built:
    """Read a file.

    Args:
        path: of the file.
        version: the newest that can be read.
        build: makes something of what write_file was given.

    Raises:
        PrototypeFileError: the file is missing, holds something else, or was written by a newer version.
    """
    try:
        with open_regular(path) as stream:
            about = json.loads(_own_header(stream))
            if about["version"] > version:
                raise PrototypeFileError(
                    f"{path} was written by a newer RefSeg (file version {about['version']}, this one reads up to "
                    f"{version}): update RefSeg."
                )
            stream.seek(0)
            tensors = load(stream.read())
        return build(about, tensors)
    except PrototypeFileError:
        raise
    except RefSegError as error:
        raise PrototypeFileError(f"{path} is not a prototypes file that can be used: {error}") from error
    except FileNotFoundError as error:
        raise PrototypeFileError(
            f"There is no prototypes file at {path}: give one that `refseg coco --prototypes` or Prototypes.save has written."
        ) from error
    except OSError as error:
        raise PrototypeFileError(f"The prototypes file {path} cannot be read: {error.strerror or error}.") from error
    except DAMAGE as error:
        raise PrototypeFileError(
            f"{path} is not a prototypes file written by RefSeg: give one that `refseg coco --prototypes` or Prototypes.save "
            "has written."
        ) from error
