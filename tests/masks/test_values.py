from __future__ import annotations

import json
import random
from typing import Any

import pytest

from refseg.masks.values import (
    Ids,
    Refusal,
    box_of,
    flag_of,
    id_order,
    number_of,
    refusal,
    shown_value,
    size_of,
    summary_of,
    whole_number_of,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (-2.5, -2.5),
        ("3", 3),
        (" 1e2 ", 100),
        ("-.5", -0.5),
        ("1,5", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
        ([3], None),
        ("", None),
    ],
)
def test_numbers(value: Any, number: float | None) -> None:
    assert number_of(value) == number


def test_whole_numbers_are_exact() -> None:
    # As a float this one would be another.
    assert whole_number_of("900719925474099301") == 900719925474099301
    assert whole_number_of(900719925474099301) == 900719925474099301
    assert [whole_number_of(value) for value in (4.0, "4.0", "+4", 4.5, "four", False)] == [4, 4, 4, None, None, None]
    assert [size_of(value) for value in ("640", 480.0, 0, -1, None, 0.5)] == [640, 480, None, None, None, None]


@pytest.mark.parametrize("no", [None, False, 0, 0.0, "0", "0.0", "false", "False", "FALSE", "no", "", "null"])
def test_what_means_no(no: Any) -> None:
    assert flag_of(no) is False


@pytest.mark.parametrize("yes", [True, 1, 1.0, "1", "1.0", "true", "True", "yes"])
def test_what_means_yes(yes: Any) -> None:
    assert flag_of(yes) is True


@pytest.mark.parametrize("neither", [2, -1, 0.5, "2", "x", [], {}, float("nan")])
def test_what_means_neither(neither: Any) -> None:
    assert flag_of(neither) is None


@pytest.mark.parametrize(
    "value", [[1, 2, 3], [1, 2, 3, 0], [1, 2, -3, 4], {"x": 1}, "1,2,3,4", [None] * 4, [[1, 2], [3, 4]], 4, []]
)
def test_what_is_no_box(value: Any) -> None:
    assert box_of(value) is None


def test_an_id_is_found_where_only_one_may_be_meant() -> None:
    numbers, texts = Ids([1, 2]), Ids(["1", "02", "x"])
    assert [numbers.find(value) for value in ("1", 2.0, "02", 3, True, None, 1.5)] == [1, 2, 2, None, None, None, None]
    assert [texts.find(value) for value in (1, 1.0, 2, "2", "x", "y")] == ["1", "1", "02", "02", "x", None]
    # 7 may be any of two texts.
    assert Ids(["7", "007"]).find(7) is None
    assert Ids(["7", "007"]).find("007") == "007"


def test_ids_have_one_order() -> None:
    ids: list[Any] = [3, 10, -1, "10", "3", "b"]
    random.Random(2).shuffle(ids)
    assert sorted(ids, key=id_order) == [-1, 3, 10, "10", "3", "b"]


def test_a_long_value_is_cut_before_it_is_written() -> None:
    text = shown_value(["x" * 30] * 10**6)
    assert len(text) == 80
    assert text.endswith("…")


def test_a_summary_counts_and_names_the_first() -> None:
    whole = [refusal("a.json", str(n), "bbox", [n], "has no box.") for n in range(5)]
    masks = [refusal("a.json", "9", "segmentation", "sky", "has no mask.", mask_alone=True)]
    assert summary_of([]) == ""
    first, second = summary_of([*masks, *whole]).splitlines()
    assert first.startswith("5 annotations cannot be used and are left out: a.json: the annotation 0 has no box. (bbox: [0])")
    assert "the annotation 2 " in first
    assert "the annotation 3 " not in first
    assert first.endswith(" …")
    told = "1 annotation has no usable mask and counts by its box alone: a.json: the annotation 9 has no mask. "
    assert second == f"{told}(segmentation: 'sky')"
    assert json.loads(json.dumps(vars(masks[0])))["field"] == "segmentation"
    assert str(Refusal("a", "object 2", "f", "v", "is v")) == "a: object 2 is v"
