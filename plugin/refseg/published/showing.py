"""What people look at of a finished run: pictures, and predictions and references in its FiftyOne dataset."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence

from ..progress import Progress
from ..regular_files import read_regular_text
from .datasets import (
    PREDICTIONS_FIELD,
    REFERENCES_FIELD,
    TargetSamples,
    iter_predictions,
    note_shown,
    show_maps,
    show_references,
    shown_in,
)
from .drawing import references_of
from .episode_sheets import write_episode_sheets
from .episodes import class_maps
from .job import Run, group_of
from .ledger import Ledger
from .sheets import write_sheets


def shown_run(runs: Sequence[Run]) -> Run:
    """The run that pictures and the dataset show: the first seed's with the most shots."""
    return max(runs, key=lambda run: (-run.seed, float("inf") if run.shots is None else run.shots))


def iter_show(ledger: Ledger, run: Run, targets: TargetSamples) -> Generator[Progress, None, None]:
    """Pictures of one run, and its predictions and references in the dataset; nothing is done where they are there."""
    job, suite, coco = ledger.plan.job, ledger.plan.suite, run.part.targets
    keys = group_of(run.part, run.split)
    suffix = f"_{run.split.key}" if len(run.part.splits) > 1 else ""
    predictions, references = f"{PREDICTIONS_FIELD}{suffix}", f"{REFERENCES_FIELD}{suffix}"
    out = job.out / "pictures" / "-".join(keys)
    name = ledger.path("runs", run).stem
    what = {"run": name, "model": job.model, "threshold": ledger.threshold, "pictures": str(out.absolute())}
    if shown_in(targets.dataset, predictions) == what and (out / "confused.json").is_file():
        return
    yield Progress(0, 1, "pictures")
    title = f"{suite.title} {' '.join(keys)}, {run.shown_shots}, {job.model}"
    results = json.loads(read_regular_text(ledger.path("detections", run)))
    if run.episodes:
        write_episode_sheets(coco, results, suite.folder, out, title)
        show_maps(targets, class_maps(results, list(coco.categories)), list(coco.categories.values()), predictions)
    else:
        pixels = ledger.plan.pixels_of(run.part)
        write_sheets(coco, run.split.category_ids, results, suite.folder, ledger.threshold, out, title, pixels)
        yield from iter_predictions(targets, coco, results, ledger.threshold, predictions)
        show_references(targets.dataset, references_of(run.pool, suite.folder, run.draw)[0], references)
    note_shown(targets.dataset, predictions, what)
