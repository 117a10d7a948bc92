"""The words of notifications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHOWN = 3
"""Names listed in a notification before the rest is only counted."""
SCORES_SHOWN = 12
"""The same of classes with a number each."""


def count(number: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> count(1, "image"), count(2, "image"), count(2, "class")
        ('1 image', '2 images', '2 classes')
    """
    from refseg.printing import counted

    return counted(number, noun)


def listing(items: Sequence[str], total: int | None = None) -> str:
    """The first items, and how many more there are.

    Example:
        >>> listing(["a", "b", "c", "d", "e"])
        'a; b; c; and 2 more'
    """
    rest = (len(items) if total is None else total) - SHOWN
    return "; ".join([*items[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])])


def scores(pairs: Sequence[Sequence[Any]]) -> str:
    """Classes with a score each.

    Example:
        >>> scores([["star", 0.714], ["tee", 0.6]])
        'star 0.71, tee 0.60'
    """
    shown = ", ".join(f"{name} {score:.2f}" for name, score in pairs[:SCORES_SHOWN])
    return shown + (f" and {len(pairs) - SCORES_SHOWN:,} more" if len(pairs) > SCORES_SHOWN else "")


def duration(seconds: float) -> str:
    """A time that someone waits, rounded to what matters.

    Example:
        >>> duration(3.2), duration(130), duration(9000)
        ('3 s', '2 min', '2.5 h')
    """
    from refseg.progress import duration as plain

    return plain(max(1.0, seconds))


def size(num_bytes: float) -> str:
    """Bytes in the unit that suits them.

    Example:
        >>> size(310), size(48_200), size(-2_500_000), size(3.1e9)
        ('310 bytes', '48 KB', '-2.5 MB', '3.1 GB')
    """
    from refseg.printing import as_size

    return as_size(num_bytes)


def skips(images: Sequence[Sequence[str]], total: int) -> str:
    """A sentence on images that could not be read, "" where there are none.

    Args:
        images: sample id, path and reason of each, or of the first.
        total: of them all.

    Example:
        >>> skips([("7f", "a.png", "cannot be read")], 1)
        ' Skipped 1 image: a.png: cannot be read.'
    """
    if not total:
        return ""
    return f" Skipped {count(total, 'image')}: {listing([f'{path}: {reason}' for _, path, reason in images], total)}."
