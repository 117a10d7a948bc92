"""`refseg benchmark report`: several benchmark runs in one table and one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from ..outputs import check_outputs, replacing, require_png
from ..regular_files import read_regular_text
from .plots import draw_shots
from .tables import join_tables

RESULTS_FILE = "results.json"
NEEDED = ("benchmark", "title", "figures", "model", "settings", "runs")


def join_results(folders: Sequence[Path], out: Path | None = None) -> str:
    """The table of several runs; with a folder, also written there as `report.md` with `report.png`.

    Args:
        folders: each the `out` of a benchmark, or its `results.json`.
        out: folder, made where it is missing.

    Raises:
        BenchmarkError: a folder holds no results.
    """
    results = [read_results(folder) for folder in folders]
    table = join_tables(results)
    if out is not None:
        text, picture = out / "report.md", out / "report.png"
        check_outputs({str(text): text, str(picture): picture}, {str(path): _results_at(path) for path in folders})
        require_png(picture)
        with replacing(text) as draft:
            draft.write_text(table + "\n", encoding="utf-8")
        draw_shots(results, picture)
    return table


def _results_at(place: Path) -> Path:
    return place / RESULTS_FILE if place.is_dir() else place


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a benchmark holds.

    Raises:
        BenchmarkError: there is no such file, or it is another one.
    """
    path = _results_at(folder)
    try:
        content = json.loads(read_regular_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkError(
            f"There are no results of a benchmark at {path}: name the --out of one that has finished."
        ) from error
    if not isinstance(content, dict) or any(key not in content for key in NEEDED):
        raise BenchmarkError(f"{path} holds no results of a benchmark: name the --out of one that has finished.")
    return content
