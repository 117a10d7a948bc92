"""Published rows: what the papers print, and that their averages are those of their rows."""

from __future__ import annotations

import statistics

import pytest

from refseg.published.rows import ALL_SHOTS, AVERAGE, AVERAGED_OVER, AVERAGED_SHOTS, PAPER, ROWS, PublishedRow, rows_for


def values(benchmark: str, **wanted: object) -> list[float]:
    return [row.value for row in rows_for(benchmark) if all(getattr(row, name) == value for name, value in wanted.items())]


def test_each_row_says_where_it_stands() -> None:
    assert all(row.source.startswith("arXiv ") and 0 < row.value < 100 for row in ROWS)


def test_no_figure_is_published_twice_by_a_method() -> None:
    keys = [(row.benchmark, row.part, row.split, row.shots, row.figure, row.method) for row in ROWS]
    assert len(keys) == len(set(keys))


def test_coco_rows_with_their_spread() -> None:
    rows = {(row.shots, row.figure): row for row in rows_for("coco-fsod") if row.method == PAPER}
    assert len(rows) == 12
    assert (rows[5, "mask AP"].value, rows[5, "mask AP"].spread) == (32.1, 0.7)
    assert (rows[30, "box AP"].value, rows[30, "box AP"].spread) == (37.0, 0.2)


@pytest.mark.parametrize(("shots", "printed"), [(1, 18.0), (5, 22.4), (10, 21.4)])
def test_printed_average_of_cd_fsod_is_that_of_its_parts(shots: int, printed: float) -> None:
    parts = [values("cd-fsod", part=part, shots=shots, method=PAPER)[0] for part in AVERAGED_OVER["cd-fsod"]]
    # Six roundings lie between the two.
    assert statistics.mean(parts) == pytest.approx(printed, abs=0.1)
    assert values("cd-fsod", part=AVERAGE, shots=shots, method=PAPER) == [printed]


def test_printed_average_of_voc_is_that_of_its_splits_and_shots() -> None:
    cells = [
        values("voc-fsod", split=split, shots=shots, method=PAPER)[0]
        for split in AVERAGED_OVER["voc-fsod"]
        for shots in AVERAGED_SHOTS["voc-fsod"]
    ]
    assert len(cells) == 15
    assert statistics.mean(cells) == pytest.approx(71.2, abs=0.05)
    assert values("voc-fsod", shots=ALL_SHOTS, method=PAPER) == [71.2]
    assert values("voc-fsod", split=AVERAGE, shots=1) == [62.1]


def test_no_row_without_a_source() -> None:
    assert rows_for("lvis") == ()
    assert rows_for("custom") == ()
    assert {row.shots for row in rows_for("coco-20i")} == {1}


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ROWS[0].value = 1.0
    assert isinstance(ROWS[0], PublishedRow)
