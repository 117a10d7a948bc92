"""What callers pass: names, numbers, flags and paths are taken as they are, or refused by the name of their argument.

A text given for a list of names is one name: its letters are never meant. True and False are no numbers. Imports nothing heavy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TypeGuard

from .errors import DatasetError, RefSegError
from .printing import shorten


def names_of(argument: str, value: object, *, like: str = "names") -> tuple[str, ...]:
    """The names in a list of them, or one given by itself.

    Args:
        argument: what the caller knows it by.
        value: that was given.
        like: what kind of names they are, in the plural.

    Raises:
        DatasetError: it is something else.

    Example:
        >>> names_of("classes", ["star", "tee"]), names_of("classes", "star")
        (('star', 'tee'), ('star',))
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise refused(argument, f"a list of {like}, or one of them", value)


def names_or_none(argument: str, value: object, *, like: str = "names") -> tuple[str, ...] | None:
    """The same, where None says nothing of names."""
    return None if value is None else names_of(argument, value, like=like)


def require_list_of_numbers(count: int, *, error: type[RefSegError] = DatasetError, **given: object) -> None:
    """Refuse arguments that are not so many numbers in a list; these need not be finite."""
    for argument, value in given.items():
        items = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else ()
        if len(items) != count or not all(map(_is_number, items)):
            raise refused(argument, f"{count} numbers", value, error)


def share_of(argument: str, value: object) -> float:
    """A number from 0 to 1.

    Raises:
        DatasetError: it is something else.
    """
    if not _is_number(value) or not 0 <= value <= 1:
        raise refused(argument, "a number from 0 to 1", value)
    return float(value)


def path_of(argument: str, value: object) -> str:
    """A path as text.

    Raises:
        DatasetError: it is something else.
    """
    if isinstance(value, str | os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    raise refused(argument, "a path", value)


def require_names(*, or_none: bool = False, **given: object) -> None:
    """Refuse arguments that are no text; which texts can name something is for those to say who look it up or write it."""
    for argument, value in given.items():
        if not isinstance(value, str) and not (or_none and value is None):
            raise refused(argument, f"a name{_or(or_none)}", value)


def require_flags(*, or_none: bool = False, **given: object) -> None:
    """Refuse arguments that are neither True nor False."""
    for argument, value in given.items():
        if not isinstance(value, bool) and not (or_none and value is None):
            raise refused(argument, f"True or False{_or(or_none)}", value)


def require_whole(least: int | None, *, or_none: bool = False, **given: object) -> None:
    """Refuse arguments that are no whole number, or a smaller one than the least where there is one."""
    wanted = "a whole number" if least is None else f"a whole number of at least {least}"
    for argument, value in given.items():
        fits = _is_whole(value) and (least is None or value >= least)
        if not fits and not (or_none and value is None):
            raise refused(argument, f"{wanted}{_or(or_none)}", value)


def require_numbers(least: float, **given: object) -> None:
    """Refuse arguments that are no finite number, or a smaller one."""
    for argument, value in given.items():
        if not _is_number(value) or not math.isfinite(value) or value < least:
            raise refused(argument, f"a number of at least {least:g}", value)


def require_paths(*, or_none: bool = False, **given: object) -> None:
    """Refuse arguments that are no path."""
    for argument, value in given.items():
        if not (or_none and value is None):
            path_of(argument, value)


def require_kind(
    kinds: type | tuple[type, ...], wanted: str, *, error: type[RefSegError] = DatasetError, **given: object
) -> None:
    """Refuse arguments that are not of a class.

    Args:
        kinds: one or several classes.
        wanted: what they are, in words.
        error: that is raised.
        given: arguments by name.
    """
    for argument, value in given.items():
        if not isinstance(value, kinds):
            raise refused(argument, wanted, value, error)


def require_items(kind: type, wanted: str, *, error: type[RefSegError] = DatasetError, **given: object) -> None:
    """Refuse arguments that are not a list of what is of a class; see require_kind."""
    for argument, value in given.items():
        if not isinstance(value, list | tuple) or not all(isinstance(item, kind) for item in value):
            raise refused(argument, wanted, value, error)


def class_name(label: str) -> str:
    """What a class is called, without blanks around it.

    Raises:
        DatasetError: nothing is left.
    """
    if not label.strip():
        raise DatasetError(f"{label!r} cannot name a class: give the name of what the object is.")
    return label.strip()


def refused(argument: str, wanted: str, value: object, error: type[RefSegError] = DatasetError) -> RefSegError:
    """The error for an argument that cannot be.

    Example:
        >>> print(refused("k", "a whole number of at least 1", 2.5))
        k must be a whole number of at least 1, not 2.5.
    """
    return error(f"{argument} must be {wanted}, not {shorten(repr(value))}.")


def _or(or_none: bool) -> str:
    return " or None" if or_none else ""


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
