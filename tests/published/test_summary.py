"""Runs put together: means, deviations and averages worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from refseg.published.rows import AVERAGE
from refseg.published.summary import spread_over_seeds, summarise


def run(value: float | None, *, part: str = "", split: str = "novel", shots: int = 1, seed: int = 33) -> dict[str, Any]:
    return {"part": part, "split": split, "shots": shots, "seed": seed, "figures": {"box AP": value}}


def find(entries: list[dict[str, Any]], part: str, split: str, shots: int = 1) -> dict[str, Any]:
    (found,) = [entry for entry in entries if (entry["part"], entry["split"], entry["shots"]) == (part, split, shots)]
    return found


def test_mean_and_sample_deviation_over_seeds() -> None:
    (entry,) = summarise([run(0.2, seed=1), run(0.4, seed=2), run(0.3, seed=3)], ["box AP"])
    assert entry["mean"] == pytest.approx(0.3)
    assert entry["std"] == pytest.approx(0.1)  # √((0.01 + 0.01 + 0) / 2)
    assert (entry["num_seeds"], entry["num_left_out"]) == (3, 0)


def test_one_seed_has_no_deviation() -> None:
    (entry,) = summarise([run(0.2)], ["box AP"])
    assert entry["mean"] == 0.2
    assert entry["std"] is None


def test_none_is_left_out_and_counted() -> None:
    (entry,) = summarise([run(None, seed=1), run(0.4, seed=2)], ["box AP"])
    assert (entry["mean"], entry["num_seeds"], entry["num_left_out"]) == (0.4, 1, 1)
    (entry,) = summarise([run(None)], ["box AP"])
    assert (entry["mean"], entry["std"], entry["num_seeds"], entry["num_left_out"]) == (None, None, 0, 1)


def test_a_figure_that_a_run_lacks_is_none() -> None:
    entries = summarise([run(0.2)], ["box AP", "mask AP"])
    assert [(entry["figure"], entry["mean"]) for entry in entries] == [("box AP", 0.2), ("mask AP", None)]


def test_average_over_splits_is_taken_seed_by_seed() -> None:
    runs = [
        run(value, split=split, seed=seed)
        for seed, values in ((1, (0.2, 0.6)), (2, (0.6, 0.2)))
        for split, value in zip(("split1", "split2"), values, strict=True)
    ]
    average = find(summarise(runs, ["box AP"]), "", AVERAGE)
    assert average["mean"] == pytest.approx(0.4)
    # Both seeds average to 0.4, however far their splits lie apart.
    assert average["std"] == pytest.approx(0.0)


def test_a_seed_without_all_splits_is_left_out_of_the_average() -> None:
    runs = [run(0.2, split="split1", seed=1), run(0.6, split="split2", seed=1), run(0.9, split="split1", seed=2)]
    average = find(summarise(runs, ["box AP"]), "", AVERAGE)
    assert (average["mean"], average["num_seeds"], average["num_left_out"]) == (pytest.approx(0.4), 1, 1)


def test_average_over_parts_keeps_the_split_they_share() -> None:
    runs = [run(0.1, part="DIOR", split="all"), run(0.3, part="FISH", split="all")]
    entries = summarise(runs, ["box AP"])
    assert [(entry["part"], entry["split"]) for entry in entries] == [("DIOR", "all"), ("FISH", "all"), (AVERAGE, "all")]
    assert find(entries, AVERAGE, "all")["mean"] == pytest.approx(0.2)


def test_one_part_and_split_has_no_average() -> None:
    entries = summarise([run(0.1, shots=5), run(0.3, shots=1)], ["box AP"])
    assert [(entry["split"], entry["shots"]) for entry in entries] == [("novel", 1), ("novel", 5)]


def test_of_two_runs_alike_the_last_counts() -> None:
    (entry,) = summarise([run(0.1), run(0.3)], ["box AP"])
    assert (entry["mean"], entry["num_seeds"]) == (0.3, 1)


def test_no_runs() -> None:
    assert summarise([], ["box AP"]) == []
    assert spread_over_seeds([], "box AP", [("", "novel", 1)]).mean is None
