"""Tables: published figures stand only beside their own kind, and notes say what makes ours incomparable."""

from __future__ import annotations

from typing import Any

import pytest

from refseg.published.tables import as_markdown, as_table, join_tables, labels_of


def results(
    benchmark: str = "coco-fsod",
    *,
    figures: tuple[str, ...] = ("box AP",),
    keys: tuple[tuple[str, str], ...] = (("", "novel"),),
    shots: tuple[int, ...] = (1,),
    seeds: tuple[int, ...] = (33,),
    value: float = 0.25,
    model: str = "paper",
    **more: Any,
) -> dict[str, Any]:
    runs = [
        {
            "part": part,
            "split": split,
            "shots": number,
            "seed": seed,
            "figures": dict.fromkeys(figures, value + 0.01 * position),
            "short": {},
        }
        for part, split in keys
        for number in shots
        for position, seed in enumerate(seeds)
    ]
    entry = {"benchmark": benchmark, "title": "A title", "model": model, "figures": list(figures), "runs": runs}
    return {**entry, "settings": {"limit": None}, "skipped_images": [], "label": "folder", **more}


def cells(table: str) -> list[list[str]]:
    """Every line of every table, as stripped cells; rules left out."""
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_ours_in_per_cent_beside_the_published_row_of_the_same_shots() -> None:
    table = as_table(results(shots=(1, 10), seeds=(33, 34)))
    assert cells(table) == [
        ["method", "1 shot", "10 shots"],
        ["No Time to Train (published)", "24.5 ± 1.5", "35.9 ± 0.5"],
        ["FSOD-VFM (published)", "", "44.0"],
        ["refseg, preset paper", "25.5 ± 0.7", "25.5 ± 0.7"],
    ]
    assert "mean ± standard deviation of 2 seeds" in table


def test_a_table_for_each_figure() -> None:
    table = as_table(results(figures=("box AP", "mask AP")))
    assert "### A title, box AP (%)" in table
    assert "### A title, mask AP (%)" in table
    assert ["No Time to Train (published)", "22.9 ± 1.6"] in cells(table)


@pytest.mark.parametrize(
    "change", [{"keys": (("", "all"),)}, {"figures": ("box AP75",)}, {"shots": (4,)}, {"benchmark": "lvis"}]
)
def test_no_published_row_beside_another_figure_split_or_number_of_shots(change: dict[str, Any]) -> None:
    table = as_table(results(**change))
    assert "published)" not in table
    assert "arXiv" not in table


def test_columns_are_aligned() -> None:
    for block in as_table(results(shots=(1, 10))).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line) for line in lines}) <= 1
    assert as_markdown([["a", "1 shot"], ["b", "9.5"]]).splitlines()[1] == "| --- | -----: |"


def test_splits_and_their_average() -> None:
    keys = (("", "split1"), ("", "split2"), ("", "split3"))
    table = as_table(results("voc-fsod", figures=("box AP50",), keys=keys, shots=(1, 2, 3, 5, 10)))
    lines = cells(table)
    assert lines[0] == ["split", "method", "1 shot", "2 shots", "3 shots", "5 shots", "10 shots", "mean of shots"]
    assert ["split2", "No Time to Train (published)", "54.5", "67.0", "76.3", "75.9", "78.2", ""] in lines
    assert ["average", "No Time to Train (published)", "62.1", "69.1", "73.6", "74.6", "76.6", "71.2"] in lines
    assert ["average", "FSOD-VFM (published)", "", "", "", "", "", "77.5"] in lines
    assert ["average", "refseg, preset paper", *["25.0"] * 6] in lines


def test_an_average_over_fewer_splits_has_no_published_one() -> None:
    table = as_table(results("voc-fsod", figures=("box AP50",), keys=(("", "split1"), ("", "split2"))))
    assert [line[:2] for line in cells(table) if line[0] == "average"] == [["average", "refseg, preset paper"]]
    assert "its average is over split1, split2 alone" in table


def test_parts_share_the_split_without_a_name() -> None:
    parts = ("ArTaxOr", "clipart1k", "DIOR", "FISH", "NEU-DET", "UODD")
    lines = cells(as_table(results("cd-fsod", keys=tuple((part, "all") for part in parts))))
    assert ["DIOR", "No Time to Train (published)", "14.9"] in lines
    assert ["average", "FSOD-VFM (published)", "25.3"] in lines


def test_many_figures_of_one_number_of_shots_share_a_table() -> None:
    figures = ("box AP", "box APr", "box APc", "box APf")
    table = as_table(results("lvis", figures=figures, keys=(("", "all"),), shots=(10,)))
    assert "### A title, 10 shots (%)" in table
    assert cells(table) == [["method", *figures], ["refseg, preset paper", "25.0", "25.0", "25.0", "25.0"]]
    two = as_table(results("lvis", figures=figures, keys=(("", "all"),), shots=(1, 10)))
    assert two.count("###") == 4


class TestNotes:
    def test_limit_is_said_in_the_row_and_below(self) -> None:
        table = as_table(results(settings={"limit": 20}))
        assert "| refseg, preset paper (--limit 20) |" in table
        assert "not comparable with published ones" in table
        assert "not comparable" not in as_table(results())

    def test_one_seed(self) -> None:
        assert "one seed (33), so no spread is known" in as_table(results())

    def test_classes_with_fewer_references(self) -> None:
        content = results(shots=(5,), seeds=(1, 2))
        content["runs"][0]["short"] = {"cow": 2}
        content["runs"][1]["short"] = {"cow": 3, "sheep": 0}
        assert "fewer references than shots in novel, 5 shots: cow (2), sheep (0)." in as_table(content)

    def test_many_classes_are_counted(self) -> None:
        content = results()
        content["runs"][0]["short"] = {f"class {number}": 0 for number in range(11)}
        table = as_table(content)
        assert "class 7 (0), 3 more classes." in table
        assert "class 8" not in table

    def test_skipped_images(self) -> None:
        assert "2 images skipped" in as_table(results(skipped_images=[["a.jpg", "broken"], ["b.jpg", "broken"]]))

    def test_missing_figures(self) -> None:
        content = results(seeds=(1, 2))
        content["runs"][0]["figures"]["box AP"] = None
        table = as_table(content)
        assert "1 of 2 runs have no box AP" in table
        assert ["refseg, preset paper", "26.0"] in cells(table)
        content["runs"][1]["figures"]["box AP"] = None
        assert ["refseg, preset paper", "none"] in cells(as_table(content))


class TestJoin:
    def test_other_presets_share_a_table(self) -> None:
        lines = cells(join_tables([results(model="paper"), results(model="large", value=0.5, shots=(1, 10))]))
        assert lines[-2:] == [["refseg, preset paper", "25.0", ""], ["refseg, preset large", "50.0", "50.0"]]

    def test_other_benchmarks_have_their_own(self) -> None:
        table = join_tables([results(), results("toy", title="Two classes", keys=(("", "toy"),))])
        assert table.count("### ") == 2
        assert ["No Time to Train (published)", "47.8"] in cells(table)

    def test_same_preset_is_told_apart_by_settings(self) -> None:
        pair = [results(settings={"matching": {"overlaps": kind, "top": 3}}) for kind in ("merge", "diffusion")]
        assert labels_of(pair) == ["refseg, preset paper, overlaps merge", "refseg, preset paper, overlaps diffusion"]
        pair = [results(settings={"matching": None}), results(settings={"matching": "nearest"})]
        assert labels_of(pair) == ["refseg, preset paper, default matching", "refseg, preset paper, matching nearest"]

    def test_same_settings_by_folder_and_else_by_number(self) -> None:
        assert labels_of([results(label="a"), results(label="b")]) == ["refseg, preset paper, a", "refseg, preset paper, b"]
        assert labels_of([results(), results()]) == [
            "refseg, preset paper, folder, run 1",
            "refseg, preset paper, folder, run 2",
        ]

    def test_notes_name_their_run(self) -> None:
        table = join_tables([results(model="paper"), results(model="large", seeds=(1, 2))])
        assert "- refseg, preset paper: one seed (33)" in table
        assert "- refseg, preset large: mean ± standard deviation of 2 seeds" in table
