"""What prototypes consist of, in a safetensors file: tensors by name, everything else as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CocoError, PrototypeFileError, RefSegError
from ..outputs import replacing, require_replaceable

Built = TypeVar("Built")

HEADER = "refseg_prototypes"


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
        with safe_open(str(path), framework="pt") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


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
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[HEADER])
            if about["version"] > version:
                raise PrototypeFileError(
                    f"{path} was written by a newer RefSeg (file version {about['version']}, this one reads up to "
                    f"{version}): update RefSeg."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return build(about, tensors)
    except PrototypeFileError:
        raise
    except FileNotFoundError as error:
        raise PrototypeFileError(
            f"There is no prototypes file at {path}: give one that `refseg coco --prototypes` or Prototypes.save has written."
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RefSegError) as error:
        raise PrototypeFileError(
            f"{path} is not a prototypes file written by RefSeg: give one that `refseg coco --prototypes` or Prototypes.save "
            "has written."
        ) from error
