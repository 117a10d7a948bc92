"""How values print: one line that a person can read, with sizes in place of numbers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import fields
from typing import Any

LISTED = 6
"""Names that are written out; of more the others are counted."""
LONGEST = 60
"""Characters of one text."""


def one_line(value: Any) -> str:
    """A dataclass by the sizes of what it holds: its `__repr__` where it holds tensors.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> @dataclass
        ... class Found:
        ...     boxes: torch.Tensor
        ...     names: tuple[str, ...]
        ...     __repr__ = one_line
        >>> Found(torch.zeros(3, 4), ("nut",))
        Found(boxes=float32 (3, 4), names=('nut',))
    """
    shown = (f"{field.name}={_shown(getattr(value, field.name))}" for field in fields(value) if field.repr)
    return f"{type(value).__name__}({', '.join(shown)})"


def shorten(text: str, most: int = LONGEST) -> str:
    """A text on one line, its middle left out where it is long.

    Example:
        >>> shorten("a file of a long name.png", 13)
        'a fil … e.png'
    """
    line = " ".join(text.split())
    half = (most - 3) // 2
    return line if len(line) <= most else f"{line[:half]} … {line[-half:]}"


def listing(names: Sequence[str], most: int = LISTED) -> str:
    """The first of some names, and how many more there are.

    Example:
        >>> listing(["nut 3", "gear 5", "pin 1"], 2)
        'nut 3, gear 5 and 1 more'
    """
    first = ", ".join(shorten(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def object_name(label: str | None, path: str = "", name: str = "") -> str:
    """What people read of an object: its class and the file of its image, and an id to find it by where that helps.

    Example:
        >>> object_name("nut", "/data/tray_07.png", "65a1"), object_name("nut"), object_name(None, "tray_07.png")
        ("'nut' in tray_07.png (65a1)", "'nut'", 'an object without a class in tray_07.png')
    """
    text = repr(shorten(label)) if label else "an object without a class"
    text += f" in {shorten(path.replace(chr(92), '/').rpartition('/')[2])}" if path else ""
    return f"{text} ({name})" if name else text


def counted(number: int, what: str, many: str | None = None) -> str:
    """A number and what it counts, with the verb that goes with it where `many` says it of several.

    Example:
        >>> counted(1, "image"), counted(2, "class"), counted(0, "mask")
        ('1 image', '2 classes', '0 masks')
        >>> counted(1, "image was", "images were"), counted(3, "image was", "images were")
        ('1 image was', '3 images were')
    """
    if many is None:
        many = f"{what}{'es' if what.endswith('s') else 's'}"
    return f"{number:,} {what if number == 1 else many}"


def left_out_line(number: int, advice: str = "build the index to see them too") -> str:
    """What is said of images without candidates.

    Example:
        >>> left_out_line(1)
        '1 image is not indexed and was left out: build the index to see them too'
    """
    return f"{counted(number, 'image is', 'images are')} not indexed and {'was' if number == 1 else 'were'} left out: {advice}"


def describe_candidates(
    kind: str, number: int, grid_side: int, image_hw: tuple[int, int], width: int, gated: bool = False
) -> str:
    """Candidates of one image, packed or not.

    Example:
        >>> describe_candidates("Candidates", 12, 64, (160, 200), 384)
        'Candidates(12 masks of 64 × 64 cells; image of 200 × 160 pixels; features of width 384)'
    """
    size = f"{image_hw[1]} × {image_hw[0]} pixels"
    masks = f"{counted(number, 'mask')} of {grid_side} × {grid_side} cells"
    return f"{kind}({masks}; image of {size}; features of width {width}{'; gated' if gated else ''})"


def _shown(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, str):
        return repr(shorten(value))
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list | tuple | Set | Mapping):
        return _shown_items(value)
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Sized) else type(value).__name__


def _shown_items(value: Any) -> str:
    """Few plain ones as they are, others by their number."""
    items = [] if isinstance(value, Mapping) else list(value)
    if isinstance(value, tuple | list) and len(items) <= LISTED and all(isinstance(item, str | int | float) for item in items):
        return shorten(repr(value), 2 * LONGEST)
    return f"{type(value).__name__} of {len(value)}"


def as_size(num_bytes: float) -> str:
    """Bytes in the unit that suits them.

    Example:
        >>> as_size(310), as_size(48_200), as_size(-2_500_000), as_size(3.1e9)
        ('310 bytes', '48 KB', '-2.5 MB', '3.1 GB')
    """
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6)):
        if abs(num_bytes) >= bytes_each:
            return f"{num_bytes / bytes_each:.1f} {unit}"
    if abs(num_bytes) >= 1e3:
        return f"{num_bytes / 1e3:.0f} KB"
    return "1 byte" if round(num_bytes) == 1 else f"{round(num_bytes)} bytes"
