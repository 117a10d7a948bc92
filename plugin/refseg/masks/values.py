"""Single values of COCO files, and what is said of those that cannot be used. No FiftyOne.

Exporters write ids as texts, flags as words and numbers as floats. What has one meaning is read; for anything else these
functions return None, and whoever asked refuses the annotation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

ImageId: TypeAlias = int | str

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
"""Texts that are numbers everywhere: Python's own float() takes "nan" and "1_000" too."""
FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "none": False, "null": False, "": False}
MAX_SIDES = 4.0
"""A box longer than so many sides of its image was made for another one."""
MAX_SIDE = 1 << 20
"""Pixels: no picture that can be read is longer, and what is drawn into one that is said to be may take all memory."""
MAX_DIGITS = 100
"""Of a whole number written as text: Python itself refuses to read some thousands."""
MAX_VALUE = 80
"""Characters of a refused value that are kept."""
SHOWN = 3
"""Refused annotations that a message names."""


@dataclass(frozen=True)
class Refusal:
    """An annotation that cannot be used, and why.

    Attributes:
        source: the file it is in.
        annotation: its id, or "#4" for that at position 4 of the list; in other formats such as "object 4".
        field: the field that cannot be used.
        value: of that field, as text, cut where it is long.
        reason: the rest of a sentence that begins with the annotation.
        mask_alone: its mask alone is left out: it is an object that counts by its box.
    """

    source: str
    annotation: str
    field: str
    value: str
    reason: str
    mask_alone: bool = False

    def __str__(self) -> str:
        shown = "" if self.value in self.reason else f" ({self.field}: {self.value})"
        what = self.annotation if self.annotation.startswith(("object ", "entry ")) else f"the annotation {self.annotation}"
        return f"{self.source}: {what} {self.reason}{shown}"


def refusal(source: str, name: str, field: str, value: Any, reason: str, *, mask_alone: bool = False) -> Refusal:
    """A `Refusal`, its value as text."""
    return Refusal(source, name, field, shown_value(value), reason, mask_alone)


def shown_value(value: Any) -> str:
    """A value for a message.

    Example:
        >>> shown_value([1, "2"]), len(shown_value("x" * 999))
        ("[1, '2']", 80)
    """
    # A whole mask as text would take longer than all of the reading.
    text = repr(value[:MAX_VALUE] if isinstance(value, list | str) else value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"


def listed(refused: Sequence[Refusal]) -> str:
    """The first of some refused annotations."""
    return " ".join(map(str, refused[:SHOWN])) + (" …" if len(refused) > SHOWN else "")


def summary_of(refused: Sequence[Refusal]) -> str:
    """How many annotations are left out, and the first of them, for each kind; "" for none."""
    parts = []
    whole = [one for one in refused if not one.mask_alone]
    masks = [one for one in refused if one.mask_alone]
    for members, what in ((whole, "cannot be used and %s left out"), (masks, "%s no usable mask and count%s by %s box alone")):
        if members:
            many = len(members) > 1
            words = ("are" if many else "is",) if members is whole else (("have", "", "their") if many else ("has", "s", "its"))
            parts.append(f"{len(members)} annotation{'s' * many} {what % words}: {listed(members)}")
    return "\n".join(parts)


def number_of(value: Any) -> float | None:
    """A finite number, also one written as text; whole numbers stay whole.

    Example:
        >>> number_of("1.5"), number_of(2), number_of("1,5"), number_of(True), number_of(float("nan"))
        (1.5, 2, None, None, None)
    """
    if isinstance(value, str):
        value = float(value) if NUMBER.fullmatch(value) else None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if value is not None and math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def whole_number_of(value: Any) -> int | None:
    """A whole number, whatever type it is written in.

    Example:
        >>> whole_number_of(3.0), whole_number_of("3"), whole_number_of(3.5)
        (3, 3, None)
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        return None
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and NUMBER.fullmatch(value):
        return int(value)  # exactly: ids of eighteen digits are no floats
    number = number_of(value)
    return int(number) if number is not None and number == int(number) else None


def id_of(value: Any) -> ImageId | None:
    """An id: a whole number, or a text as it is.

    Example:
        >>> id_of(7.0), id_of("7"), id_of(None), id_of("")
        (7, '7', None, None)
    """
    if isinstance(value, str):
        return value or None
    return whole_number_of(value)


def flag_of(value: Any) -> bool | None:
    """A flag; null is no.

    Example:
        >>> flag_of("0"), flag_of("True"), flag_of(1.0), flag_of(None), flag_of("maybe"), flag_of(2)
        (False, True, True, False, None, None)
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in FLAGS:
        return FLAGS[value.strip().lower()]
    number = number_of(value)
    return bool(number) if number in (0, 1) else None


def size_of(value: Any) -> int | None:
    """A width or height in pixels, from 1 to MAX_SIDE."""
    number = whole_number_of(value)
    return number if number is not None and 0 < number <= MAX_SIDE else None


def box_of(value: Any) -> list[float] | None:
    """x, y, width and height of a box that has an area; a list that holds one is it.

    Example:
        >>> box_of(["1", 2, 3.5, 4]), box_of([0, 0, 0, 0]), box_of([1, 2, 3, 4, 0.5]), box_of([[1, 2, 3, 4]])
        ([1.0, 2, 3.5, 4], None, None, [1, 2, 3, 4])
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [number_of(entry) for entry in value]
    known = [number for number in numbers if number is not None]
    return known if len(known) == 4 and known[2] > 0 and known[3] > 0 else None


def lies_outside(box: Sequence[float], image_hw: tuple[int, int]) -> bool:
    """Whether nothing of a box, x, y, width and height, is in its image."""
    x, y, w, h = box
    return x >= image_hw[1] or y >= image_hw[0] or x + w <= 0 or y + h <= 0


def are_shares(box: Sequence[float]) -> bool:
    """Whether a box, x, y, width and height, lies within the image's first pixel, as one in shares of the image's sides does.

    Example:
        >>> are_shares([0.2, 0.1, 0.5, 0.3]), are_shares([0, 0, 1, 1]), are_shares([0.5, 0.5, 3, 3])
        (True, False, False)
    """
    x, y, w, h = box
    return min(x, y) >= 0 and x + w <= 1 and y + h <= 1 and any(value != int(value) for value in box)


class Ids:
    """Finds the id that another list of a file means: 7, 7.0 and "7" are one where the file has only one of them.

    Args:
        known: ids of the list that defines them.

    Example:
        >>> ids = Ids([1, "2", "a", 3, "3"])
        >>> [ids.find(value) for value in (1.0, "1", 2, "a", 3, "3", "b", None)]
        [1, 1, '2', 'a', 3, '3', None, None]
    """

    def __init__(self, known: Iterable[ImageId]) -> None:
        self._known = dict.fromkeys(known)

    def find(self, value: Any) -> ImageId | None:
        """The id as the file defines it; None where there is none, or more than one that may be meant."""
        name = id_of(value)
        if name is None or name in self._known:
            return name
        number = whole_number_of(name)
        return None if number is None else self._numbers.get(number)

    @cached_property
    def _numbers(self) -> dict[int, ImageId | None]:
        found: dict[int, ImageId | None] = {}
        for name in self._known:
            number = whole_number_of(name)
            if number is not None:
                found[number] = None if number in found else name
        return found


def id_order(value: ImageId) -> tuple[bool, ImageId]:
    """Sorts ids: numbers before texts, each ascending."""
    return isinstance(value, str), value
