"""What prototypes and their parts must hold: one number that is none would make every score one, and nothing would be found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import require_kind
from ..errors import PrototypeError


def require_finite(tensors: Mapping[str, Tensor | None], name_of: Callable[[int], str] | None = None) -> None:
    """Refuse tensors of anything but finite floating-point numbers.

    Args:
        tensors: by what they are called; None is passed over.
        name_of: gives what a row belongs to, for the message; None where rows have no names.

    Raises:
        PrototypeError: there is one; the message names it, and the first row of it.
    """
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        require_kind(Tensor, "a tensor", error=PrototypeError, **{name: tensor})
        if not tensor.is_floating_point():
            raise PrototypeError(f"{name} must be floating-point numbers, not {tensor.dtype}.")
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0][0]) if tensor.ndim else 0
            owner = f"in row {row}" if name_of is None or not tensor.ndim else f"of {name_of(row)}"
            raise PrototypeError(
                f"{name} hold a number {owner} that is not finite (NaN or infinite): build the prototypes again, without what "
                "it came from."
            )


def require_class_names(classes: Sequence[str]) -> None:
    """Refuse names of classes that tell none, or not which.

    Raises:
        PrototypeError: one is blank, or there twice.
    """
    if not all(name.strip() for name in classes):
        raise PrototypeError("A class of the prototypes has a blank name: give its references one.")
    twice = next((name for name, number in Counter(classes).items() if number > 1), None)
    if twice is not None:
        raise PrototypeError(f"Two classes of the prototypes are named {twice!r}: join their references under one.")


def listed_names(name: str, value: Any) -> tuple[str, ...]:
    """Names out of a file's JSON; a text is not a list of its letters.

    Raises:
        PrototypeError: they are something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PrototypeError(f"{name!r} must be a list of texts.")
    return tuple(value)
