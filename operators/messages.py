"""The words of notifications."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3
"""Names listed in a notification before the rest is only counted."""


def count(number: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> count(1, "image"), count(2, "image"), count(2, "class")
        ('1 image', '2 images', '2 classes')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}es" if noun.endswith("s") else f"{number:,} {noun}s"


def listing(items: Sequence[str], total: int | None = None) -> str:
    """The first items, and how many more there are.

    Example:
        >>> listing(["a", "b", "c", "d", "e"])
        'a; b; c; and 2 more'
    """
    rest = (len(items) if total is None else total) - SHOWN
    return "; ".join([*items[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])])
