"""Our figures beside the published ones: tables that read well on a console and as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..images import PixelSettings
from .rows import ALL_SHOTS, AVERAGE, AVERAGED_OVER, AVERAGED_SHOTS, PublishedRow, rows_for
from .summary import Cell, Spread, averaged_cells, spread_over_seeds

Results: TypeAlias = Mapping[str, Any]
"""What a run's results.json holds."""

MAX_NAMED = 8
"""So many classes are named in a note; of more, how many there are."""
SEEN = frozenset({"model", "shots", "seeds", "only", "limit"})
"""Settings that a table shows anyway."""
PIXELS = "pixels."
"""With which settings begin that are how the images of a part are read."""
MANY_FIGURES = 2
"""More than these stand in one table, where there is one number of shots."""
MAX_DIFFERENCES = 3
"""Results that differ in more settings than these are told apart by their folder's name."""


def as_table(results: Results) -> str:
    """One run's figures beside the published ones, in per cent: a table for each figure, with notes below."""
    return join_tables([results])


def join_tables(results: Sequence[Results]) -> str:
    """Several runs' figures beside the published ones: for each benchmark a table a figure, with notes below.

    Runs of one benchmark are told apart by their preset, then by the settings they differ in, then by "label".
    A published figure stands only beside the same figure, part, split and number of shots.

    Args:
        results: what their results.json hold.
    """
    blocks = []
    for group in by_benchmark(results).values():
        labels = labels_of(group)
        title, benchmark = group[0]["title"], group[0]["benchmark"]
        used: dict[str, list[str]] = {}
        for what, columns in _tables_of(benchmark, group):
            lines = _lines(benchmark, columns, group, labels, used)
            blocks.append(f"### {title}, {what} (%)\n\n{as_markdown(lines, lines[0].index('method') + 1)}")
        notes = [f"{method}: {'; '.join(sources)}." for method, sources in used.items()]
        for each, label in zip(group, labels, strict=True):
            notes += [f"{label}: {note}" if len(group) > 1 else note for note in notes_of(each)]
        blocks.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(block for block in blocks if block)


def by_benchmark(results: Sequence[Results]) -> dict[str, list[Results]]:
    """Results by the name of their benchmark, in order."""
    groups: dict[str, list[Results]] = {}
    for each in results:
        groups.setdefault(each["benchmark"], []).append(each)
    return groups


def labels_of(results: Sequence[Results]) -> list[str]:
    """A name for each run of one benchmark: its preset, with what tells it from others of that preset."""
    labels = []
    for each in results:
        name = f"refseg, preset {each['model']}"
        rivals = [other for other in results if other["model"] == each["model"] and other is not each]
        difference = _difference(each, rivals) if rivals else ""
        limit = each.get("settings", {}).get("limit")
        # A row that stands beside published ones must itself say that it may not be compared with them.
        remark = "" if limit is None else f" (--limit {limit})"
        labels.append(f"{name}, {difference}{remark}" if difference else f"{name}{remark}")
    # Equal names would make rows that nobody can tell apart.
    return [f"{label}, run {number}" if labels.count(label) > 1 else label for number, label in enumerate(labels, start=1)]


def published_row(
    rows: Iterable[PublishedRow], method: str, figure: str, cell: Cell, members: Sequence[Cell]
) -> PublishedRow | None:
    """The row of a method that may stand beside a cell of ours.

    Args:
        rows: of the benchmark.
        method: its name.
        figure: such as "box AP".
        cell: part, split and shots.
        members: what the cell is the mean of; an average over other parts or splits than the published ones is another figure.
    """
    part, split, shots = cell
    for row in rows:
        if (row.method, row.figure, row.part, row.shots) != (method, figure, part, shots):
            continue
        if AVERAGE in (row.part, row.split):
            names = {of_split if row.split == AVERAGE else of_part for of_part, of_split, _ in members}
            same = names == set(AVERAGED_OVER[row.benchmark])
        else:
            same = True
        if same and (row.split == split or (row.split == "" and split not in ("chosen", AVERAGE))):
            return row
    return None


def as_markdown(lines: Sequence[Sequence[str]], num_texts: int = 1) -> str:
    """A table with aligned columns: the first line is the heading; so many columns of text to the left, numbers to the right.

    Example:
        >>> print(as_markdown([["method", "1 shot"], ["ours", "9.5"]]))
        | method | 1 shot |
        | ------ | -----: |
        | ours   |    9.5 |
    """
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    numbers = [position >= num_texts for position in range(len(lines[0]))]
    rule = ["-" * (width - 1) + ":" if number else "-" * width for width, number in zip(widths, numbers, strict=True)]
    padded = [
        [text.rjust(width) if number else text.ljust(width) for text, width, number in zip(line, widths, numbers, strict=True)]
        for line in (lines[0], *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def notes_of(results: Results) -> list[str]:
    """What a reader must know of one run's figures, a sentence each."""
    runs, notes = results["runs"], []
    limit = results.get("settings", {}).get("limit")
    if limit is not None:
        notes.append(
            f"--limit {limit}: not all images were looked at, so these figures are not comparable with published ones."
        )
    seeds = _unique(run["seed"] for run in runs)
    if len(seeds) == 1:
        notes.append(f"one seed ({seeds[0]}), so no spread is known.")
    elif seeds:
        notes.append(f"mean ± standard deviation of {len(seeds)} seeds.")
    notes += _short_notes(runs)
    skipped = len(results.get("skipped_images") or ())
    if skipped:
        notes.append(f"{skipped} image{'s' if skipped > 1 else ''} skipped, see results.json; nothing counts as found there.")
    for figure in results["figures"]:
        missing = sum(run["figures"].get(figure) is None for run in runs)
        if missing:
            notes.append(f"{missing} of {len(runs)} runs have no {figure} and are left out of it.")
    known = AVERAGED_OVER.get(results["benchmark"], ())
    names = {name for run in runs for name in (run["part"], run["split"]) if name in known}
    if 1 < len(names) < len(known):
        notes.append(f"its average is over {', '.join(sorted(names))} alone.")
    return notes


Column: TypeAlias = tuple[str, int, str]
"""Figure, shots, heading."""


def _tables_of(benchmark: str, group: Sequence[Results]) -> list[tuple[str, list[Column]]]:
    """What each table is about, and its columns: a table for each figure, or one of all where there is one number of shots."""
    figures = _unique(figure for each in group for figure in each["figures"])
    shown = _unique(shots for each in group for (_, _, shots), _ in cells_of(benchmark, each["runs"]))
    if len(shown) == 1 and len(figures) > MANY_FIGURES:
        return [(_column_name(shown[0]), [(figure, shown[0], figure) for figure in figures])]
    shown.sort(key=lambda shots: (shots == ALL_SHOTS, shots))
    return [(figure, [(figure, shots, _column_name(shots)) for shots in shown]) for figure in figures]


def _lines(
    benchmark: str, columns: Sequence[Column], group: Sequence[Results], labels: Sequence[str], used: dict[str, list[str]]
) -> list[list[str]]:
    """One table, heading first; sources of the published cells that are shown are noted in `used`."""
    rows = rows_for(benchmark)
    cells = [dict(cells_of(benchmark, each["runs"])) for each in group]
    shown = _unique(cell for of_run in cells for cell in of_run)
    keys = sorted(_unique((part, split) for part, split, _ in shown), key=lambda key: AVERAGE in key)
    heading, names = _key_column(keys)
    lines = [[*heading, "method", *(head for _, _, head in columns)]]
    for key, name in zip(keys, names, strict=True):
        for method in _unique(row.method for row in rows):
            texts = []
            for figure, shots, _ in columns:
                found = [
                    published_row(rows, method, figure, (*key, shots), of[(*key, shots)]) for of in cells if (*key, shots) in of
                ]
                row = next((row for row in found if row is not None), None)
                texts.append("" if row is None else _percent(row.value, row.spread))
                if row is not None and row.source not in used.setdefault(method, []):
                    used[method].append(row.source)
            if any(texts):
                lines.append([*name, f"{method} (published)", *texts])
        for each, of_run, label in zip(group, cells, labels, strict=True):
            spreads = [_spread(each, figure, of_run.get((*key, shots))) for figure, shots, _ in columns]
            if any(spread is not None for spread in spreads):
                lines.append([*name, label, *map(_ours, spreads)])
    return lines


def cells_of(benchmark: str, runs: Sequence[Mapping[str, Any]]) -> list[tuple[Cell, list[Cell]]]:
    """`averaged_cells`, and the mean over shots where that is published and all of its numbers of shots were run."""
    cells = averaged_cells(runs)
    wanted = AVERAGED_SHOTS.get(benchmark)
    if wanted:
        for key in _unique((part, split) for (part, split, _), _ in cells):
            of_key = {cell[2]: members for cell, members in cells if cell[:2] == key}
            if set(wanted) <= set(of_key):
                cells.append(((*key, ALL_SHOTS), [member for shots in wanted for member in of_key[shots]]))
    return cells


def _spread(results: Results, figure: str, members: Sequence[Cell] | None) -> Spread | None:
    return None if members is None else spread_over_seeds(results["runs"], figure, members)


def _ours(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return "none" if spread.mean is None else _percent(100 * spread.mean, None if spread.std is None else 100 * spread.std)


def _percent(value: float, spread: float | None) -> str:
    return f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"


def _column_name(shots: int) -> str:
    if shots == ALL_SHOTS:
        return "mean of shots"
    return f"{shots} shot" if shots == 1 else f"{shots} shots"


def _key_column(keys: Sequence[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Heading and cells of the column that names parts and splits; none where there is one alone."""
    if len(keys) == 1:
        return [], [[]]
    parts = len({part for part, _ in keys}) > 1
    splits = len({split for _, split in keys}) > 1
    heading = " and ".join(["part"] * parts + ["split"] * splits)
    return [heading], [[", ".join(_unique([part] * parts + [split] * splits))] for part, split in keys]


def _short_notes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Classes with fewer references than shots, by part and split: of the most shots, fewer are short of no more."""
    most = {(run["part"], run["split"]): run["shots"] for run in sorted(runs, key=lambda run: run["shots"])}
    notes = []
    for where in [(*keys, shots) for keys, shots in most.items()]:
        fewest: dict[str, int] = {}
        for run in runs:
            if (run["part"], run["split"], run["shots"]) == where:
                for name, number in run.get("short", {}).items():
                    fewest[name] = min(number, fewest.get(name, number))
        if fewest:
            named = [f"{name} ({number})" for name, number in list(fewest.items())[:MAX_NAMED]]
            more = len(fewest) - len(named)
            named += [f"{more} more classes"] * bool(more)
            place = ", ".join([name for name in where[:2] if name] + [_column_name(where[2])])
            notes.append(f"fewer references than shots in {place}: {', '.join(named)}.")
    return notes


def _difference(results: Results, rivals: Sequence[Results]) -> str:
    own = _flat(results.get("settings", {}))
    others = [_flat(rival.get("settings", {})) for rival in rivals]
    names = [
        name for name in own if name not in SEEN and any(name not in other or other[name] != own[name] for other in others)
    ]
    if not 0 < len(names) <= MAX_DIFFERENCES:
        return str(results.get("label") or "")
    short = {name: name.rpartition(".")[2] for name in names}
    return ", ".join(f"default {short[name]}" if own[name] is None else f"{short[name]} {own[name]}".strip() for name in names)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if prefix == PIXELS:
            value = str(PixelSettings.from_lists(value))
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
