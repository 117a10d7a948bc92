"""What is taken for a name, a number, a flag, a path or a list of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg.checks import (
    names_of,
    names_or_none,
    path_of,
    refused,
    require_flags,
    require_items,
    require_kind,
    require_list_of_numbers,
    require_names,
    require_numbers,
    require_paths,
    require_whole,
    share_of,
)
from refseg.errors import DatasetError, ModelError

NAN = float("nan")


@pytest.mark.parametrize("value", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys(), iter("ab"), np.array(["a", "b"])])
def test_lists_of_names(value: Any) -> None:
    assert names_of("classes", value) == ("a", "b")


def test_a_text_is_one_name() -> None:
    assert names_of("classes", "star") == ("star",)
    assert names_or_none("classes", None) is None
    assert names_of("classes", []) == ()


@pytest.mark.parametrize("value", [None, 5, NAN, True, b"star", {"star": 1}, ["a", 5], [["a"]], object()])
def test_no_lists_of_names(value: Any) -> None:
    with pytest.raises(DatasetError, match="classes must be a list of names, or one of them, not "):
        names_of("classes", value)


def test_shares() -> None:
    for value in (0, 1, 0.5, np.float32(0.5), np.int64(1)):
        assert share_of("s", value) == float(value)
        assert type(share_of("s", value)) is float
    for wrong in (None, True, "0.5", NAN, -0.1, 1.1, [0.5]):
        with pytest.raises(DatasetError, match="s must be a number from 0 to 1, not "):
            share_of("s", wrong)


def test_whole_numbers() -> None:
    require_whole(1, a=1, b=np.int64(7))
    require_whole(1, or_none=True, a=None)
    require_whole(None, a=-3)
    for wrong in (None, 0, 2.0, 2.5, "3", True, NAN, np.bool_(True)):
        with pytest.raises(DatasetError, match=r"k must be a whole number of at least 1, not "):
            require_whole(1, k=wrong)
    with pytest.raises(DatasetError, match="k must be a whole number or None, not 'x'"):
        require_whole(None, or_none=True, k="x")


def test_numbers() -> None:
    require_numbers(0, a=0, b=2.5)
    for wrong in (None, -1, NAN, float("inf"), "3", True):
        with pytest.raises(DatasetError, match="border must be a number of at least 0, not "):
            require_numbers(0, border=wrong)
    require_list_of_numbers(2, a=(1, 2.5), b=np.zeros(2))
    for odd in (None, 5, "12", (1,), (1, None), {1: 2, 3: 4}):
        with pytest.raises(ModelError, match="box must be 2 numbers, not "):
            require_list_of_numbers(2, error=ModelError, box=odd)


def test_names_flags_and_paths() -> None:
    require_names(a="x", b="")
    require_names(or_none=True, a=None)
    require_flags(a=True, b=False)
    require_flags(or_none=True, a=None)
    require_paths(a="x", b=Path("y"))
    require_paths(or_none=True, a=None)
    assert path_of("a", Path("x") / "y") == str(Path("x") / "y")
    for wrong in (None, 5, [], {}):
        with pytest.raises(DatasetError, match="field must be a name, not "):
            require_names(field=wrong)
        with pytest.raises(DatasetError, match="tiles must be True or False, not "):
            require_flags(tiles=wrong)
        with pytest.raises(DatasetError, match="uri must be a path, not "):
            require_paths(uri=wrong)
    with pytest.raises(DatasetError, match="b must be True or False or None, not 1"):
        require_flags(or_none=True, a=None, b=1)


def test_kinds_and_lists_of_them() -> None:
    require_kind((int, str), "a number or a text", a=1, b="x")
    require_items(int, "a list of numbers", a=[1, 2], b=())
    with pytest.raises(ModelError, match="b must be a number, not 'x'"):
        require_kind(int, "a number", error=ModelError, a=1, b="x")
    for wrong in (None, 5, "12", ["x"]):
        with pytest.raises(DatasetError, match="a must be a list of numbers, not "):
            require_items(int, "a list of numbers", a=wrong)


def test_messages_stay_one_short_line() -> None:
    text = str(refused("k", "a number", ["a\nb"] * 1000))
    assert "\n" not in text
    assert len(text) < 100
