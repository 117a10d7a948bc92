"""Prototypes in a safetensors file: tensors by name, everything else as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CocoError, PrototypeFileError, RefSegError
from ..images.pixels import PixelSettings
from ..outputs import replacing, require_replaceable
from .negatives import Negatives
from .prototypes import Prototypes
from .surroundings import Surroundings

FILE_VERSION = 4
"""1 had no digests, 2 no negatives, 3 neither images, background nor surroundings."""
VERSION_WITH_PIXELS = 5
"""Of a file that says how pixels were read alone, so that earlier versions, which do not know, can read every other."""
HEADER = "refseg_prototypes"


def write_file(prototypes: Prototypes, path: str | Path) -> None:
    """Write a file, complete or not at all.

    Raises:
        PrototypeFileError: there is a file that holds something else, or none can be written there.
    """
    about: dict[str, Any] = {
        "version": FILE_VERSION,
        "classes": prototypes.classes,
        "reference_ids": prototypes.reference_ids,
        "model": prototypes.model,
        "fingerprint": prototypes.fingerprint,
        "skipped": prototypes.skipped,
        "digests": prototypes.digests,
        "images": prototypes.images,
        "negatives": None,
        "surroundings": None,
    }
    if not prototypes.pixels.is_plain:
        about |= {"version": VERSION_WITH_PIXELS, "pixels": prototypes.pixels.as_lists()}
    tensors = {"vectors": prototypes.vectors, "labels": prototypes.labels}
    if prototypes.background is not None:
        tensors["background"] = prototypes.background
    if (negatives := prototypes.negatives) is not None:
        about["negatives"] = {
            "names": negatives.names,
            "ids": negatives.ids,
            "digests": negatives.digests,
            "images": negatives.images,
        }
        tensors["negatives"] = negatives.vectors
    if (around := prototypes.surroundings) is not None:
        about["surroundings"] = {"images": around.images, "shown": around.shown}
        tensors["surroundings"] = around.features
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        require_own(path)
        with replacing(path) as draft:
            save_file(held, draft, metadata={HEADER: json.dumps(about)})
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


def read_file(path: str | Path) -> Prototypes:
    """Read a file.

    Raises:
        PrototypeFileError: the file is missing, holds something else, or was written by a newer version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[HEADER])
            if about["version"] > VERSION_WITH_PIXELS:
                raise PrototypeFileError(
                    f"{path} was written by a newer RefSeg (file version {about['version']}, this one reads up to "
                    f"{VERSION_WITH_PIXELS}): update with `pip install -U fiftyone-refseg`."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _from_parts(about, tensors)
    except PrototypeFileError:
        raise
    except FileNotFoundError as error:
        raise PrototypeFileError(f"There is no prototypes file at {path}.") from error
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RefSegError) as error:
        raise PrototypeFileError(f"{path} is not a prototypes file written by RefSeg.") from error


def _from_parts(about: dict[str, Any], tensors: dict[str, Tensor]) -> Prototypes:
    """Parts that earlier versions did not write are as unknown."""
    negatives, around = about.get("negatives"), about.get("surroundings")
    return Prototypes(
        tuple(about["classes"]),
        tensors["vectors"],
        tensors["labels"],
        tuple(about["reference_ids"]),
        about["model"],
        about["fingerprint"],
        tuple((name, reason) for name, reason in about["skipped"]),
        tuple(about.get("digests", ())),
        None
        if negatives is None
        else Negatives(
            tensors["negatives"],
            tuple(negatives["names"]),
            tuple(negatives["ids"]),
            tuple(negatives["digests"]),
            tuple(negatives.get("images", ())),
        ),
        tuple(about.get("images", ())),
        tensors.get("background"),
        None if around is None else Surroundings(tensors["surroundings"], tuple(around["images"]), tuple(around["shown"])),
        PixelSettings.from_lists(about.get("pixels")),
    )
