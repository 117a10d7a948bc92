from __future__ import annotations

import pytest

from refseg.dataset.sampling import draw_one_each, is_whole


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ((10, 10, 42, 42), True),
        ((58, 38, 90, 90), True),
        ((10 - 1e-9, 10, 42 - 2e-9, 42), True),  # a relative box falls a hair short of its pixels
        ((9.9, 10, 60, 60), False),
        ((10, 9.9, 60, 60), False),
        ((10, 10, 90.1, 60), False),
        ((10, 10, 60, 90.1), False),
        ((10, 10, 41.9, 60), False),
        ((10, 10, 60, 41.9), False),
    ],
)
def test_is_whole(box: tuple[float, ...], whole: bool) -> None:
    assert is_whole(box, (100, 100), 32, 10) == whole


def test_a_draw_takes_one_of_each_group() -> None:
    groups = [[(number, member) for member in range(3)] for number in range(30)]
    drawn = draw_one_each(groups, None, (33, 1))
    assert sorted(number for number, _ in drawn) == list(range(30))
    assert {member for _, member in drawn} == {0, 1, 2}
    assert [draw_one_each(groups, count, (33, 1)) for count in (1, 7, 99)] == [drawn[:1], drawn[:7], drawn]
    assert draw_one_each(groups, None, (33, 2)) != drawn
    assert draw_one_each([], 3, (33, 1)) == []
